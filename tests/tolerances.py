"""How far a result may be from the exact one, and why. Every test takes its tolerance from here."""

import torch

ENTROPY = {"rel": 1e-6, "abs": 1e-15}
"""Relative: float32 rounding of terms of one sign in pairwise sums; nothing cancels, so it holds
down to the smallest entropies. Absolute: the float64 oracle itself, whose ``log p`` of a token
with nearly all of the mass has no more digits."""

WEIGHT = {"rtol": 2e-5, "atol": 1e-37}
"""A weight is ``exp(-x)``, x up to 104 before it underflows; two float32 roundings of x are 1.2e-7
of it. Absolute: subnormal numbers."""

KERNEL_WEIGHT = {"rtol": 1e-6, "atol": 1e-37}
"""The kernels keep the exponent to 36 bits, so that what is left is the rounding of the exponential
(2e-7 on a GPU), of a sum and of a division."""

CUT = 1e-6
"""Relative: a top-p or min-p this close to a token's own may keep or drop it. Sums of at most 256
float32 numbers of one sign."""

NOISE = {"rtol": 1e-5, "atol": 1e-6}
"""Logarithms of float32 numbers; near 0 the logarithm of a number near 1."""

LOG_GAMMA = {"rtol": 2e-5, "atol": 2e-5}
"""Logarithms, a cosine and a cube of float32 numbers; near 0 a sum of two logarithms cancels."""

SCORE = 1e-4
"""A perturbed logit that wins a draw may be this far below the largest one: logits up to a few
hundred and their noise in float32."""

GUMBEL_WEIGHT = {"rtol": 1e-4, "atol": 1e-37}
"""As WEIGHT, with the exponent divided by a Gumbel-softmax temperature of at least 0.1."""

DIRICHLET_WEIGHT = {"rtol": 1e-2, "atol": 1e-37}
"""Logarithms of Gamma variates reach 1e4 at the concentrations tested, and float32 keeps 1e-3 of
them; the weight is the exponential of their differences."""

ROW_SUM = {"rtol": 0.0, "atol": 1e-6}
"""The sum of at most 1024 rounded float32 weights."""

ACROSS_BATCHES = {"rtol": 1e-6, "atol": 1e-37}
"""The same row in another batch: sums over more columns associate differently."""

EMBEDDING = {
    torch.float32: {"rtol": 1e-6, "atol": 1e-6},
    torch.float16: {"rtol": 2**-10, "atol": 1e-6},
    torch.bfloat16: {"rtol": 2**-7, "atol": 1e-6},
}
"""Accumulated in float32 and rounded to the table's type once: one unit in the last place."""

P_VALUE = 1e-4
"""A statistic this improbable fails. The seeds are fixed, so a test either always passes or never;
with some fifty statistics in the suite an honest generator passes all of them."""

FRESH_P_VALUE = 1e-8
"""The same for tests that also run on fresh seeds, where an honest sampler must pass every time;
their samples are large enough for a wrong rule to fall far below."""

STANDARD_ERRORS = 4.5
"""The same for the mean of many draws."""

TRACE_WEIGHT = {"rel": 0.0, "abs": 1e-4}
"""A weight or entropy of a whole trace, asked for again in another batch or with more of its prompt
cached: float32 matrix products associate differently, and the trace carries the difference on."""

BUNDLED_TRACE_WEIGHT = {"rel": 0.0, "abs": 5e-4}
"""The same of the bundled model: it was trained to follow the heavier of two paths, and where they
weigh almost the same it enlarges a difference. 8e-5 was the most in 600 traces of 100 steps, each
step of which is within 2e-6 of float64 for the concepts that were fed."""

CLEAR_CHOICE = 1e-3
"""Two tokens of a concept whose weights are closer than this may change places by that rounding,
and the rest of a trace with them."""
