"""Changes of an ONNX graph: the same model in fp16, int8 or fp8."""
