"""Stand-in for ``sgl_kernel``, which has no CPU build on PyPI.

SGLang's CPU path imports these names and calls none of them for the models it can serve here. Only
on the path where the real package is absent. ``convert_weight_packed`` and the fused QK norms must
stay undefined: their presence switches code paths.
"""

from typing import Any, NoReturn

_NAMES = (
    "copy_all_layer_kv_cache_cpu",
    "assign_req_to_token_pool_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_draft_cache_locs_contiguous_cpu",
    "fill_bonus_tokens_cpu",
    "fill_accept_out_cache_loc_cpu",
    "build_tree_kernel_efficient_cpu",
    "verify_tree_greedy_cpu",
)


def _stand_in(name: str) -> Any:
    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"sgl_kernel.{name} is a stand-in: this feature needs the CPU build of sgl_kernel."
        )

    missing.__name__ = name
    return missing


globals().update({name: _stand_in(name) for name in _NAMES})
