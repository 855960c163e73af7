"""Running engines for the tests of this folder."""

import pytest
from house import EngineHouse


@pytest.fixture(scope="session")
def house():
    """Starts engines on demand."""
    house = EngineHouse()
    yield house
    house.close()


@pytest.fixture
def engine(house, tiny_model):
    """A tiny Llama, with SGLang's defaults: overlap scheduling, prefix cache."""
    return house.get(tiny_model("llama"))
