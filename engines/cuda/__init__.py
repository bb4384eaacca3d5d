"""What roadlens does on NVIDIA GPUs besides the networks: pictures converted and blended where they are.

Nothing here imports torch or Triton on import; what needs them imports them when it is used.
"""
