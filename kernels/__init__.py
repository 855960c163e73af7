"""Device code of soft thinking: the concept step and the concept embedding.

Every operation has a plain PyTorch reference here; nothing in this package knows SGLang.
"""
