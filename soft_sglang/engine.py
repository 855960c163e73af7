"""The Engine: SGLang's, with soft thinking."""

from typing import Any

from soft_sglang.bundled import MODEL_PATH
from soft_sglang.cpu.defaults import cpu_defaults
from soft_sglang.cpu.environment import prepare
from soft_sglang.options import (
    DEFAULT_MAX_TOPK,
    DEFAULT_THINK_END,
    DEFAULT_THINK_START,
    ServerOptions,
)

_ON_CPU = prepare()  # must precede the first import of SGLang

from sglang.srt.entrypoints.engine import Engine as _Engine  # noqa: E402
from sglang.srt.server_args import ServerArgs  # noqa: E402

from soft_sglang.patches import plugin  # noqa: E402
from soft_sglang.patches.options import attach_options  # noqa: E402


class Engine(_Engine):
    """SGLang's offline engine with soft thinking.

    Takes SGLang's arguments, and those of the public implementation of arXiv 2505.15778; a
    request's ``sampling_params`` may hold ``soft_thinking``. Without ``model_path``: the bundled
    model. Without an accelerator: the CPU engine.
    """

    def __init__(
        self,
        *,
        enable_soft_thinking: bool = False,
        max_topk: int | None = None,
        think_end_str: str = DEFAULT_THINK_END,
        think_start_str: str = DEFAULT_THINK_START,
        add_noise_gumbel_softmax: bool = False,
        add_noise_dirichlet: bool = False,
        **kwargs: Any,
    ) -> None:
        """Start the engine.

        Args:
            enable_soft_thinking: every request is soft unless it says otherwise.
            max_topk: tokens in a concept, and the most that a request may ask for; default 10, and
                at most 32.
            think_end_str: the text, of up to 16 tokens, that ends thinking.
            think_start_str: the text, of up to 16 tokens, that begins it.
            add_noise_gumbel_softmax: requests have Gumbel noise unless they say otherwise.
            add_noise_dirichlet: the same with Dirichlet noise.
            **kwargs: SGLang's arguments.

        Raises:
            ValueError: an argument is out of range.
            SystemExit: a patch is not active.
        """
        if add_noise_gumbel_softmax and add_noise_dirichlet:
            raise ValueError("add_noise_gumbel_softmax and add_noise_dirichlet exclude each other.")
        options = ServerOptions(
            enable_soft_thinking=enable_soft_thinking,
            max_topk=DEFAULT_MAX_TOPK if max_topk is None else max_topk,
            think_end_str=think_end_str,
            think_start_str=think_start_str,
            default_max_topk=max_topk,
            default_noise=(
                "gumbel"
                if add_noise_gumbel_softmax
                else "dirichlet"
                if add_noise_dirichlet
                else "none"
            ),
            required=True,
        )
        plugin.load()
        if "server_args" in kwargs:
            attach_options(kwargs["server_args"], options)
        else:
            self.server_args_class = _ServerArgsFactory(options)
        super().__init__(**kwargs)


class _ServerArgsFactory:
    """Builds ServerArgs with the plugin's options and the defaults for a CPU."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options

    def __call__(self, **kwargs: Any) -> ServerArgs:
        kwargs.setdefault("model_path", MODEL_PATH)
        if _ON_CPU:
            kwargs = {**cpu_defaults(kwargs["model_path"]), **kwargs}
        server_args = ServerArgs(**kwargs)
        attach_options(server_args, self._options)
        return server_args
