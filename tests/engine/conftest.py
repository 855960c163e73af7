"""Running engines for the tests of this folder."""

import pytest
import varied_requests
from house import EngineHouse
from model_table import ModelTable
from tiny_models import ARCHITECTURES


def pytest_addoption(parser):
    parser.addoption(
        "--write-model-table",
        action="store_true",
        help="Write the table in docs/models.md from the results of test_architectures.py.",
    )


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
def metrics_folder(tmp_path_factory):
    """Where the processes of :func:`changing_engine` put their metrics."""
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture
def changing_engine(house, tiny_model, metrics_folder):
    """A tiny Llama on two ranks, for the tests that hold its requests and change its weights."""
    environment = {
        "SGLANG_CPU_OMP_THREADS_BIND": "0|1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_folder),  # SGLang's would stay in the environment
    }
    return house.get(
        tiny_model("llama"),
        environment,
        tp_size=2,
        enable_metrics=True,
        enable_metrics_for_all_schedulers=True,
    )


@pytest.fixture(scope="session")
def plain_outputs(house, tiny_model):
    """What a plain engine gives for the varied requests."""
    return varied_requests.run(house.get(tiny_model("llama")))


@pytest.fixture(scope="session")
def model_table(request):
    """What the tests of the architectures saw; written to the documentation if asked for."""
    table = ModelTable()
    yield table
    # the option is unknown when pytest finds this file late, as in a run of all tests
    if request.config.getoption("--write-model-table", default=False):
        table.write(list(ARCHITECTURES))
