"""SGLang's wheels: fetched by pip, kept under ``build/``, read without installing them."""

import json
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from packaging.version import Version

from drift.source import Tree
from soft_sglang.compatibility import installed_sglang

CACHE = Path(__file__).resolve().parents[2] / "build/sglang-wheels"
PYTHONS = ("3.12", "3.11", "3.13", "3.14", "3.10")
"""Tried in turn: a release need not have a wheel for the Python that runs this."""
GLIBC = range(17, 45)
"""Minor versions whose wheels are taken; pip wants each of them named."""


def tree_of(version: str) -> Tree:
    """The folder that has ``sglang``: of the installed package, or else in a wheel.

    Raises:
        SystemExit: see :func:`wheel`.
    """
    return installed_tree() if version == installed_sglang() else wheel_tree(version)


def installed_tree() -> Tree:
    """The ``site-packages`` in which SGLang is installed. Does not import it."""
    spec = find_spec("sglang")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


def wheel_tree(version: str) -> Tree:
    """The inside of a wheel.

    Raises:
        SystemExit: see :func:`wheel`.
    """
    return zipfile.Path(wheel(version))


def wheel(version: str) -> Path:
    """The wheel of a release, downloaded when it is needed for the first time.

    Raises:
        SystemExit: there is no such release, or pip cannot get it.
    """
    kept = sorted(CACHE.glob(f"sglang-{version}-*.whl"))
    return kept[0] if kept else _download(version)


def releases() -> list[str]:
    """The final and post releases that the package index has, the oldest first.

    Raises:
        SystemExit: pip cannot tell.
    """
    run = _pip("index", "versions", "sglang", "--json", *_platforms(PYTHONS[0]))
    if run.returncode:
        raise SystemExit(f"pip cannot list the releases of SGLang: {_reason(run)}")
    return sorted(json.loads(run.stdout)["versions"], key=Version)


def _download(version: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:  # an interrupted download leaves nothing
        for python in PYTHONS:
            run = _pip(
                *("download", "--no-deps", "--dest", folder, f"sglang=={version}"),
                *_platforms(python),
            )
            for file in Path(folder).glob("*.whl"):
                return file.rename(CACHE / file.name)
    known = releases()
    if version not in known:
        raise SystemExit(f"there is no SGLang {version}; the newest are {', '.join(known[-3:])}")
    raise SystemExit(f"pip cannot get the wheel of SGLang {version}: {_reason(run)}")


def _platforms(python: str) -> list[str]:
    """The sources are the same on every platform; all releases have wheels for this one."""
    names = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + ["manylinux2014_x86_64"]
    return [
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}"),
        *(f"--platform={name}" for name in names),
    ]


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _reason(run: subprocess.CompletedProcess[str]) -> str:
    return (run.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
