"""``python -m soft_sglang.launch_server``: SGLang's server with soft thinking."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

from soft_sglang.cpu.environment import prepare


def main(argv: list[str] | None = None) -> None:
    """Run the server until it is stopped.

    Args:
        argv: flags of SGLang and of the plugin; default: the command line's.
    """
    leave_source_tree()
    on_cpu = prepare()  # must precede the first import of SGLang
    from soft_sglang.server.launch import run

    run(sys.argv[1:] if argv is None else argv, on_cpu=on_cpu)


def leave_source_tree() -> None:
    """Keep the repository from hiding what is installed.

    ``python -m`` puts the current folder first: its ``kernels`` would hide a package that SGLang's
    dependencies import, and its ``soft_sglang`` hides an installed one, which is complete.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").exists():
        return
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != root]
    installed = PathFinder.find_spec("soft_sglang", sys.path)  # an editable one is not found so
    if installed is not None and installed.submodule_search_locations is not None:
        sys.modules["soft_sglang"].__path__ = list(installed.submodule_search_locations)


if __name__ == "__main__":
    main()
