"""A plugin of SGLang for one test: short convolutions with cached states, in PyTorch.

SGLang has them as GPU kernels only. Here they are written from their definition: a causal depthwise
convolution, whose state is the last ``width - 1`` inputs of a request.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

import torch
from torch.nn.functional import conv1d

FUNCTIONS = ("causal_conv1d_fn_cpu", "causal_conv1d_update_cpu", "chunk_gated_delta_rule_cpu")
OPERATORS = ("fused_gdn_gating_cpu", "fused_sigmoid_gating_delta_rule_update_cpu")
LIBRARY = torch.library.Library("sgl_kernel", "FRAGMENT")


def convolve(x, weight, bias, query_start_loc, cache_indices, has_initial_state, conv_states):
    """The inputs of several requests side by side, ``[dim, tokens]``; updates their states."""
    out = torch.empty_like(x)
    bounds = query_start_loc.tolist()
    for row, slot in enumerate(cache_indices.tolist()):
        begin, end = bounds[row : row + 2]
        state = conv_states[slot]
        before = state if has_initial_state[row] else torch.zeros_like(state)
        out[:, begin:end] = _continued(before, x[:, begin:end], weight, bias, state)
    return out


def convolve_token(x, conv_state, weight, bias, conv_state_indices):
    """One input of each of several requests, ``[requests, dim]``; updates their states."""
    out = torch.empty_like(x)
    for row, slot in enumerate(conv_state_indices.tolist()):
        state = conv_state[slot]
        out[row] = _continued(state, x[row, :, None], weight, bias, state)[:, 0]
    return out


def _continued(before, x, weight, bias, state):
    """Convolve what follows a state, and store the state after it."""
    inputs = torch.cat([before.to(x.dtype), x], dim=1)
    state.copy_(inputs[:, inputs.shape[1] - state.shape[1] :])
    return conv1d(inputs[None], weight[:, None], bias, groups=len(weight))[0]


def stand_in() -> None:
    """Name what SGLang imports from sgl_kernel for other hybrid models, where it is missing."""
    if find_spec("sgl_kernel.mamba") is not None:
        return
    module = ModuleType("sgl_kernel.mamba")
    for name in FUNCTIONS:
        setattr(module, name, None)
    sys.modules[module.__name__] = module
    for name in OPERATORS:
        LIBRARY.define(f"{name}() -> ()")


def load() -> None:
    """Replace what LFM2 calls."""
    stand_in()
    from sglang.srt.models import lfm2

    def prefill(x, weight, bias, *, activation, **states):
        assert activation is None
        return convolve(x, weight, bias, **states)

    def decode(x, conv_state, weight, bias, *, activation, conv_state_indices):
        assert activation is None
        return convolve_token(x, conv_state, weight, bias, conv_state_indices)

    lfm2.causal_conv1d_fn = prefill
    lfm2.causal_conv1d_update = decode
