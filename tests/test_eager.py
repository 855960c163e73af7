"""Batches that SGLang's captured graphs cannot compute are computed without them."""

from types import SimpleNamespace

import pytest
import torch
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardMode
from sglang.srt.model_executor.runner.decode_cuda_graph_runner import DecodeCudaGraphRunner

from soft_sglang.patches.model_worker.eager import must_be_eager, without_graphs
from soft_sglang.patches.model_worker.forward_batch import ConceptInputs, SoftBatch

NULL, LAST, FULL = CaptureHiddenMode.NULL, CaptureHiddenMode.LAST, CaptureHiddenMode.FULL
RESUMED = (ConceptInputs(torch.tensor([0]), torch.tensor([1])),)


def decode_runner(kept: CaptureHiddenMode) -> DecodeCudaGraphRunner:
    """SGLang's, as far as its check of hidden states looks."""
    runner = object.__new__(DecodeCudaGraphRunner)
    runner.capture_hidden_mode = kept
    return runner


def is_eager(runner, mode, inputs=(), asked=NULL):
    model_runner = SimpleNamespace(decode_cuda_graph_runner=runner)
    batch = SimpleNamespace(forward_mode=mode, capture_hidden_mode=asked)
    return must_be_eager(model_runner, batch, SoftBatch(None, inputs))


@pytest.mark.parametrize("kept", [NULL, LAST, FULL])
@pytest.mark.parametrize("asked", [NULL, LAST, FULL])
def test_a_decode_batch_is_eager_exactly_where_sglang_would_raise(kept, asked):
    runner = decode_runner(kept)
    try:
        runner._validate_capture_hidden_mode(SimpleNamespace(capture_hidden_mode=asked))
        raises = False
    except RuntimeError:
        raises = True
    assert is_eager(runner, ForwardMode.DECODE, RESUMED, asked) is raises


def test_without_graphs_nothing_needs_to_be_avoided():
    assert not is_eager(None, ForwardMode.DECODE, RESUMED, LAST)


@pytest.mark.parametrize("mode", [ForwardMode.EXTEND, ForwardMode.MIXED])
def test_a_prefill_is_eager_if_it_is_fed_concepts(mode):
    runner = decode_runner(NULL)
    assert is_eager(runner, mode, RESUMED)
    assert not is_eager(runner, mode)


def test_the_graphs_are_back_afterwards_whatever_happens():
    decode, prefill = object(), object()
    runner = SimpleNamespace(decode_cuda_graph_runner=decode, prefill_cuda_graph_runner=prefill)

    def forward():
        with without_graphs(runner):
            assert runner.decode_cuda_graph_runner is None is runner.prefill_cuda_graph_runner
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        forward()
    assert runner.decode_cuda_graph_runner is decode
    assert runner.prefill_cuda_graph_runner is prefill
