"""New weights in a running engine: before, while, and after soft requests are held.

The oracle is a Hugging Face loop that changes its weights after as many tokens as SGLang says.
"""

import pytest
import tiny_models
import torch
from held import go_on, pause, while_in_flight
from oracle import Oracle, Request, Update
from sglang.srt.managers.io_struct import (
    BeginWeightUpdateReqInput,
    EndWeightUpdateReqInput,
    UpdateWeightFromDiskReqInput,
    UpdateWeightsFromTensorReqInput,
)
from sglang.srt.utils import MultiprocessingSerializer
from traces import close

from soft_sglang.kernels.noise import gumbel

RANKS = 2
SEED = 77
STEPS = 48
GREEDY = {"temperature": 0, "max_new_tokens": STEPS, "ignore_eos": True}
OTHER = 1006
"""Seed of the other weights; chosen so that no trajectory enlarges rounding, wherever they come."""


def _noise(step, ids):
    return gumbel(torch.tensor([SEED]), torch.tensor([step]), ids[None])[0].double()


REQUESTS = [
    Request([17, 42, 99, 5, 64], STEPS, temperature=0.8, max_topk=6),
    Request([200, 31], STEPS, temperature=0.6, top_k=30, top_p=0.95, min_p=0.001),
    Request([*range(77, 86)], STEPS, temperature=0.8, entropy_threshold=6.0, length_threshold=30),
    Request([5] * 20, STEPS, temperature=0.9, top_p=0.8, max_topk=32, gumbel=_noise),
]
PROMPTS = [request.prompt for request in REQUESTS]
SAMPLINGS = [request.sampling_params(sampling_seed=SEED) for request in REQUESTS]
DISCRETE = [44, 45, 46]


@pytest.fixture(scope="module")
def weights(tiny_model, tmp_path_factory):
    """Folders of the first weights and of others, for the same model."""
    other = tmp_path_factory.mktemp("other")
    tiny_models.random_model(tiny_models.ARCHITECTURES["llama"], OTHER).save_pretrained(other)
    return [tiny_model("llama"), str(other)]


@pytest.fixture(scope="module")
def oracles(weights):
    return [Oracle(path) for path in weights]


@pytest.fixture
def engine(changing_engine, weights):
    """An engine with the first weights, which it has again when the test is over."""
    yield changing_engine
    if not changing_engine.tokenizer_manager.is_pause:
        changing_engine.loop.run_until_complete(pause(changing_engine, "retract"))
    changing_engine.loop.run_until_complete(_from_disk(changing_engine, weights[0], "first"))
    changing_engine.loop.run_until_complete(go_on(changing_engine))


async def _from_disk(engine, path, version, flush_cache=True):
    """What ``/update_weights_from_disk`` does."""
    success, message, _ = await engine.tokenizer_manager.update_weights_from_disk(
        UpdateWeightFromDiskReqInput(
            model_path=path, weight_version=version, flush_cache=flush_cache
        )
    )
    assert success, message


async def _from_tensors(engine, oracle, version, flush_cache=True):
    """What ``/update_weights_from_tensor`` does, in a session of its own."""
    manager = engine.tokenizer_manager
    tensors = [*oracle.model.state_dict().items()]
    # a serialised tensor can be read once
    payloads = [MultiprocessingSerializer.serialize(tensors) for _ in range(RANKS)]
    for step in (
        manager.begin_weight_update(BeginWeightUpdateReqInput()),
        manager.update_weights_from_tensor(
            UpdateWeightsFromTensorReqInput(
                serialized_named_tensors=payloads,
                weight_version=version,
                flush_cache=flush_cache,
            )
        ),
        manager.end_weight_update(EndWeightUpdateReqInput()),
    ):
        success, message = await step
        assert success, message


def _check(output, trajectory):
    meta = output["meta_info"]
    assert output["output_ids"] == trajectory.ids
    concepts = [[list(pair) for pair in concept] for concept in trajectory.concepts]
    assert close(meta["soft_thinking"]["concepts"], concepts)
    assert meta["soft_thinking"]["end"] == trajectory.end


@pytest.mark.parametrize("source", ["disk", "tensors"])
@pytest.mark.parametrize("mode", ["retract", "in_place"])
def test_held_requests_go_on_with_the_new_weights(mode, source, engine, weights, oracles):
    retract = mode == "retract"

    async def update():
        await pause(engine, mode)
        # key-value pairs of requests that stay cannot be dropped
        if source == "disk":
            await _from_disk(engine, weights[1], "second", flush_cache=retract)
        else:
            await _from_tensors(engine, oracles[1], "second", flush_cache=retract)
        await go_on(engine)

    outputs = while_in_flight(engine, [*PROMPTS, DISCRETE], [*SAMPLINGS, GREEDY], update)
    for request, output in zip(REQUESTS, outputs, strict=False):
        old, new = output["meta_info"]["weight_versions"]
        assert (old["end"], new["version"]) == (new["start"], "second")
        # a step is under way when requests are held in place: overlap scheduling
        after = old["end"] if retract else old["end"] + 1
        update = Update(oracles[1], after, recompute=retract)
        _check(output, oracles[0].run(request, update))
    assert "soft_thinking" not in outputs[-1]["meta_info"]


def test_later_requests_have_the_new_weights_and_nothing_of_the_old(engine, weights, oracles):
    before = engine.generate(input_ids=PROMPTS, sampling_params=SAMPLINGS)
    for request, output in zip(REQUESTS, before, strict=True):
        _check(output, oracles[0].run(request))

    async def update():
        await pause(engine, "retract")
        await _from_disk(engine, weights[1], "second")
        await go_on(engine)

    engine.loop.run_until_complete(update())
    after = engine.generate(input_ids=PROMPTS, sampling_params=SAMPLINGS)
    for request, output in zip(REQUESTS, after, strict=True):
        _check(output, oracles[1].run(request))
        assert output["meta_info"]["cached_tokens"] == 0
    greedy = engine.generate(input_ids=PROMPTS[0], sampling_params=GREEDY)
    assert greedy["output_ids"] == oracles[1].greedy(PROMPTS[0], STEPS)
