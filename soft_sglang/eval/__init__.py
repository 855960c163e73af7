"""Fair, resumable comparison of thinking policies: ``python -m soft_sglang.eval``."""
