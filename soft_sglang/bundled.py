"""The small reasoning model that comes with the package."""

from pathlib import Path

MODEL_PATH = str(Path(__file__).parent / "bundled_model")
"""Folder of the bundled model, in the layout of a Hugging Face checkpoint."""

REASONING_PARSER = "qwen3"
"""SGLang's parser for a template that opens the thought unless ``enable_thinking`` is false."""
