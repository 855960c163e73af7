"""The modes of SGLang that soft thinking does not run with."""

from typing import Any

from soft_sglang.patches.versions import later_modes


def unsupported_mode(server_args: Any) -> str | None:
    """The mode of a server that soft thinking does not run with, None if there is none."""
    from sglang.srt.arg_groups.overrides import resolving_view
    from sglang.srt.environ import envs

    view = resolving_view(server_args)
    modes = {
        "speculative decoding (--speculative-algorithm)": view.speculative_algorithm is not None,
        "decoupled speculative decoding (--decoupled-spec-role)": (
            view.decoupled_spec_role != "null"
        ),
        "diffusion language models (--dllm-algorithm)": view.dllm_algorithm is not None,
        "PD multiplexing (--enable-pdmux)": view.enable_pdmux,
        "context parallelism (--attn-cp-size)": view.attn_cp_size > 1,
        "--enable-two-batch-overlap": view.enable_two_batch_overlap,
        # stores a request's key-value pairs under the ids of its output
        "--disaggregation-decode-enable-offload-kvcache": (
            view.disaggregation_decode_enable_offload_kvcache
        ),
        "PD disaggregation of a pipeline (--disaggregation-mode, --pp-size)": (
            view.disaggregation_mode not in (None, "null") and view.pp_size > 1
        ),
        "--enable-pd-role-switch": view.enable_pd_role_switch,
        # a prefill is embedded in parts there, and the announced positions are those of the whole
        "--enable-adaptive-dispatch-to-encoder": view.enable_adaptive_dispatch_to_encoder,
        # requests of types that have no place for the field, straight to the schedulers
        "the gRPC server of smg-grpc-servicer (--smg-grpc-mode)": (
            view.smg_grpc_mode or view.grpc_mode
        ),
        "the Rust server (SGLANG_RUST_SERVER)": envs.SGLANG_RUST_SERVER.get(),
        **later_modes(view),
    }
    return next((what for what, present in modes.items() if present), None)
