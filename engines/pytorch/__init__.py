"""The PyTorch back end: the graph of the ONNX file as a torch module, and the engine that runs it."""
