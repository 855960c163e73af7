"""Stages of a pipeline give what one process gives, noise included."""

import varied_requests

TWO_STAGES = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}
"""Environment for two stages on two cores."""


def test_two_stages_give_what_one_process_gives(plain_outputs, house, tiny_model):
    engine = house.get(tiny_model("llama"), TWO_STAGES, pp_size=2)
    varied_requests.check_same(varied_requests.run(engine), plain_outputs)
