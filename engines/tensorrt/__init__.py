"""TensorRT: the engine of machines with an NVIDIA GPU.

A model's graph, already in the precision that it is to be computed in (`engines.graphs.lowered`), is parsed into a
strongly typed network, compiled to a *plan* for this one GPU (`builder`), kept beside a *side-car* that says what it
was made for (`plan`, `cache`), and run on streams of its own by captured CUDA graphs (`engine`).

One way for TensorRT 10.16 and 11: nothing is used that 11.0 removed (flags of precision, calibrators). `library`,
`plan`, `cache`, `progress` and `operators` need no TensorRT; the others import it.
"""
