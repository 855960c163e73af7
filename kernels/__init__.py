"""Device code of soft thinking: the thinking step and the concept embedding.

Every operation has a plain PyTorch reference, which CPUs use, and a Triton kernel in
``*_triton.py``, which CUDA devices use. Nothing in this package knows SGLang.
"""
