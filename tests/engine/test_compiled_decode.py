"""Compiled decode steps read the concept table (SGLang's CPU graph; ``--enable-torch-compile``)."""

from types import SimpleNamespace

import pytest
import varied_requests
from plugins.installation import install

from soft_sglang.patches.model_worker.model_runner import create_runtime


@pytest.fixture
def compiling_engine(house, tiny_model, tmp_path, monkeypatch):
    """An engine that compiles decode steps of 1, 2 and 4 rows; others are padded."""
    return _compiling(house, tiny_model, tmp_path, monkeypatch)


def _compiling(house, tiny_model, tmp_path, monkeypatch):
    for path in install("compile_torch_native", tmp_path):
        monkeypatch.syspath_prepend(path)
    return house.get(
        tiny_model("llama"),
        enable_torch_compile=True,
        torch_compile_max_bs=4,
        cuda_graph_bs_decode=[1, 2, 4],
        max_running_requests=4,
    )


@pytest.mark.slow  # Inductor compiles for more than a minute
def test_compiled_steps_give_what_eager_ones_give(plain_outputs, compiling_engine):
    varied_requests.check_same(varied_requests.run(compiling_engine), plain_outputs)


@pytest.mark.slow
def test_hidden_states_that_the_graphs_do_not_keep_are_computed_eagerly(
    house, tiny_model, tmp_path, monkeypatch
):
    """COCONUT-TF beside others: the server is not started with hidden states."""
    plain = _with_coconut(house.get(tiny_model("llama")))
    compiling = _compiling(house, tiny_model, tmp_path, monkeypatch)
    varied_requests.check_same(_with_coconut(compiling), plain)
    varied_requests.check_same(_with_coconut(compiling), plain)  # the engine lives on


def _with_coconut(engine):
    soft = {"policy": "coconut_tf", "return_concepts": True, "early_stopping_entropy_threshold": 0}
    sampling = {"max_new_tokens": 24, "ignore_eos": True, "temperature": 0.8, "top_p": 0.95}
    return engine.generate(
        input_ids=varied_requests.PROMPTS[:3],
        sampling_params=[
            {**sampling, "soft_thinking": soft},
            {**sampling, "soft_thinking": {**soft, "policy": "soft_thinking"}},
            {**sampling, "temperature": 0},
        ],
    )


def test_a_table_allocated_after_the_capture_stops_the_start():
    runner = SimpleNamespace(
        is_draft_worker=False,
        is_generation=True,
        server_args=_server_args(),
        decode_cuda_graph_runner=object(),
    )
    with pytest.raises(RuntimeError, match="captured before the concept table"):
        create_runtime(None, runner)


def _server_args():
    from sglang.srt.server_args import ServerArgs

    from soft_sglang.bundled import MODEL_PATH

    return ServerArgs(model_path=MODEL_PATH, device="cpu")
