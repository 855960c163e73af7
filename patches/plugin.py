"""The plugin's entry point: applies every patch, or stops the process."""

from types import ModuleType

from soft_sglang.compatibility import check_sglang_version, installed_sglang
from soft_sglang.patches.record import Patch, When, patches_in
from soft_sglang.policies.registry import load_modules


def _modules() -> list[ModuleType]:
    from soft_sglang.patches.front_end import (
        detokenizer,
        engine,
        http_server,
        openai_answers,
        openai_protocol,
        server_args,
        tokenizer_answers,
        tokenizer_requests,
        tokenizer_worker,
    )
    from soft_sglang.patches.model_worker import (
        eager,
        embedding,
        forward_batch,
        model_runner,
        pipeline,
        sampler,
    )
    from soft_sglang.patches.scheduler import (
        decode_server,
        grammar,
        handoff,
        metrics,
        output_streamer,
        prefill_server,
        prefix_cache,
        request,
        scheduler,
        session,
        stops,
        world,
    )

    return [
        server_args,
        openai_protocol,
        openai_answers,
        tokenizer_requests,
        tokenizer_answers,
        request,
        session,
        stops,
        grammar,
        forward_batch,
        eager,
        model_runner,
        embedding,
        sampler,
        pipeline,
        output_streamer,
        prefix_cache,
        handoff,
        prefill_server,
        decode_server,
        world,
        scheduler,
        metrics,
        detokenizer,
        engine,
        tokenizer_worker,
        http_server,
    ]


def every_patch() -> list[Patch]:
    """Every patch for any supported SGLang, in the order of a request's life."""
    return [patch for module in _modules() for patch in patches_in(module)]


def all_patches() -> list[Patch]:
    """Every patch for the installed SGLang."""
    version = installed_sglang()
    assert version is not None
    return [patch for patch in every_patch() if patch.is_for(version)]


def load() -> None:
    """Apply the patches. SGLang calls this in the server, the Engine and every scheduler process.

    Raises:
        SystemExit: SGLang is outside the supported range, or a patch is not active. SGLang only
            logs other exceptions and would then quietly decode without the plugin.
    """
    check_sglang_version()
    try:
        load_modules()
        patches = all_patches()
        _apply(patches)
    except Exception as error:
        raise SystemExit(f"soft-sglang could not be loaded: {error!r}") from error
    check_active(patches)


def _hooks(patches: list[Patch]) -> list[Patch]:
    """Those of whole classes; the others are put around one object when it is there."""
    return [patch for patch in patches if patch.when is not When.OVERRIDE]


def _apply(patches: list[Patch]) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for patch in _hooks(patches):
        registered = [hook for _, hook, _ in HookRegistry._hooks.get(patch.target, [])]
        if patch.hook not in registered:
            if patch.target in HookRegistry._patched:  # SGLang would skip it
                raise RuntimeError(f"another plugin was the first to patch {patch.target}")
            HookRegistry.register(patch.target, patch.hook, HookType(patch.when.value))
    HookRegistry.apply_hooks()


def check_active(patches: list[Patch]) -> None:
    """Stop the process unless every patch is active.

    Raises:
        SystemExit: naming the patches that are not.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry

    missing = [
        patch.target for patch in _hooks(patches) if patch.target not in HookRegistry._patched
    ]
    if missing:
        raise SystemExit(
            "soft-sglang: these patches are not active, so soft thinking would be wrong: "
            + ", ".join(missing)
        )
