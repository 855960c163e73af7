"""One running engine for the tests of this folder."""

import pytest
from tiny_models import tokenizer_path

from soft_sglang import Engine


@pytest.fixture(scope="session")
def engine(tiny_model):
    """A tiny Llama in float32, with overlap scheduling, as by default."""
    path = tiny_model("llama")
    with Engine(
        model_path=path, tokenizer_path=tokenizer_path(path), dtype="float32", random_seed=0
    ) as engine:
        yield engine
