"""One engine for everything a request may carry, on a model that spells text."""

import pytest
import spelling
import torch
from features import FEATURES, UNCOMPILED
from processed_oracle import ProcessedOracle


@pytest.fixture(scope="session")
def spelling_model(tmp_path_factory):
    """Folder of a tiny Llama whose vocabulary has the printable characters."""
    return spelling.create(tmp_path_factory.mktemp("spelling"))


@pytest.fixture
def engine(house, spelling_model):
    """The engine that these tests share, with overlap scheduling."""
    engine = house.get(spelling_model, UNCOMPILED, **FEATURES)
    assert not engine.server_args.disable_overlap_schedule
    return engine


@pytest.fixture(scope="session")
def oracle(spelling_model):
    return ProcessedOracle(spelling_model, dtype=torch.float64)
