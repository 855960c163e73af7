"""``python -m soft_sglang.launch_server``: SGLang's server with soft thinking."""

import sys
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
    """Keep the repository's ``kernels`` from hiding the package of that name.

    ``python -m`` puts the current folder first; SGLang's dependencies import that package.
    """
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").exists():
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != root]


if __name__ == "__main__":
    main()
