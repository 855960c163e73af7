"""``python -m soft_sglang.launch_server``: SGLang's server with soft thinking."""

import sys

from soft_sglang.cpu.environment import prepare


def main(argv: list[str] | None = None) -> None:
    """Run the server until it is stopped.

    Args:
        argv: flags of SGLang and of the plugin; default: the command line's.
    """
    on_cpu = prepare()  # must precede the first import of SGLang
    from soft_sglang.server.launch import run

    run(sys.argv[1:] if argv is None else argv, on_cpu=on_cpu)


if __name__ == "__main__":
    main()
