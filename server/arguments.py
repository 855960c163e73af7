"""Command line of the server: our defaults for what the user leaves open."""

from soft_sglang.bundled import MODEL_PATH, REASONING_PARSER
from soft_sglang.cpu.defaults import cpu_defaults

_MODEL_FLAGS = ("--model-path", "--model")
_CONFIG_FLAG = "--config"


def with_defaults(argv: list[str], on_cpu: bool) -> list[str]:
    """The command line with defaults for the model and, on a CPU, for the engine."""
    argv = list(argv)
    if not any(_gives(argv, flag) for flag in (*_MODEL_FLAGS, _CONFIG_FLAG)):
        argv += ["--model-path", MODEL_PATH]
        argv += _missing(argv, {"served_model_name": "soft-sglang-bundled"})
        argv += _missing(argv, {"reasoning_parser": REASONING_PARSER})
    if on_cpu:
        argv += _missing(argv, cpu_defaults(_model(argv)))
    return argv


def _model(argv: list[str]) -> str:
    """The model, or an empty string if a file names it."""
    return next((model for flag in _MODEL_FLAGS if (model := _value(argv, flag))), "")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _gives(argv: list[str], flag: str) -> bool:
    return any(arg == flag or arg.startswith(flag + "=") for arg in argv)


def _value(argv: list[str], flag: str) -> str | None:
    for position, arg in enumerate(argv):
        if arg.startswith(flag + "="):
            return arg.partition("=")[2]
        if arg == flag and position + 1 < len(argv):
            return argv[position + 1]
    return None


def _missing(argv: list[str], defaults: dict[str, object]) -> list[str]:
    """The flags of ``defaults`` that the command line does not give."""
    flags: list[str] = []
    for name, value in defaults.items():
        if not _gives(argv, _flag(name)):
            flags += [_flag(name)] if value is True else [_flag(name), str(value)]
    return flags
