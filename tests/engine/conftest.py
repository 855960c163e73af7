"""Running engines for the tests of this folder."""

import pytest
import varied_requests
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


@pytest.fixture(scope="session")
def plain_outputs(house, tiny_model):
    """What a plain engine gives for the varied requests."""
    return varied_requests.run(house.get(tiny_model("llama")))
