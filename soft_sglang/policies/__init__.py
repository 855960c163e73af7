"""Thinking policies: what a request is fed while it thinks.

Soft thinking itself lives in ``soft_sglang.kernels``, where it is fast. Every other policy is one
file here: a :class:`~soft_sglang.policies.policy.Policy` that makes the next input of its rows from
their logits, on the device. ``registry`` names them all.
"""
