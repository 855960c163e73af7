"""Ranks and workers change no result: tensor and data parallelism, an Engine's workers."""

import pytest
import varied_requests

import soft_sglang
from soft_sglang.patches.announcement import support_of

TWO_RANKS = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}
"""Environment for two ranks on two cores."""


def test_two_tensor_parallel_ranks_give_what_one_gives(plain_outputs, house, tiny_model):
    engine = house.get(tiny_model("llama"), TWO_RANKS, tp_size=2)
    varied_requests.check_same(varied_requests.run(engine), plain_outputs)


@pytest.mark.slow
def test_data_parallel_ranks_give_what_one_gives(plain_outputs, house, tiny_model):
    engine = house.get(tiny_model("llama"), TWO_RANKS, dp_size=2)
    outputs = varied_requests.run(engine)
    varied_requests.check_same(outputs, plain_outputs)
    assert {output["meta_info"]["dp_rank"] for output in outputs} == {0, 1}
    # no start message of a scheduler arrives here, so they were asked
    manager = engine.tokenizer_manager
    assert not support_of(manager.server_args).ask_schedulers
    states = engine.loop.run_until_complete(manager.get_internal_state())
    assert [state["soft_thinking"] for state in states] == [soft_sglang.__version__] * 2


@pytest.mark.slow
def test_an_engine_with_a_router_gives_what_one_without_gives(plain_outputs, house, tiny_model):
    """More processes could attach their own tokenizer worker; the Engine has one."""
    engine = house.get(tiny_model("llama"), tokenizer_worker_num=2)
    varied_requests.check_same(varied_requests.run(engine), plain_outputs)
