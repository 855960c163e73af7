"""Combinations of filters that tests of the concept step go through."""

from float64_oracle import Row

FILTERS = {
    "none": Row(),
    "top-k": Row(top_k=5),
    "top-k above K": Row(top_k=20, max_topk=3),
    "top-k of 1": Row(top_k=1),
    "top-p": Row(top_p=0.9),
    "top-p of almost nothing": Row(top_p=1e-6),
    "top-p of almost all": Row(top_p=0.9999),
    "min-p": Row(min_p=0.05),
    "min-p of 1": Row(min_p=1.0),
    "top-k, top-p": Row(top_k=8, top_p=0.7),
    "top-p, min-p": Row(top_p=0.95, min_p=0.1),
    "the paper's": Row(temperature=0.6, top_k=30, top_p=0.95, min_p=0.001),
    "all, tight": Row(temperature=1.3, top_k=6, top_p=0.8, min_p=0.2, max_topk=4),
    "K of 1": Row(max_topk=1),
    "K of 32": Row(max_topk=32),
    "cold": Row(temperature=0.05),
    "hot": Row(temperature=20.0, top_p=0.5),
}
