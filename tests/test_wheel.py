"""The wheel holds everything that an installation needs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("soft_sglang", "kernels", "patches", "server")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What a plain ``pip install`` is given."""
    tmp_path = tmp_path_factory.mktemp("wheel")
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    done = subprocess.run(
        [*command, "-w", tmp_path, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]

    (wheel,) = tmp_path.glob("*.whl")
    return wheel


def test_wheel_holds_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (entry_points,) = (name for name in packed if name.endswith("entry_points.txt"))
        assert "soft_sglang.patches.plugin:load" in archive.read(entry_points).decode()
    for folder in SOURCES:
        prefix = "" if folder == "soft_sglang" else "soft_sglang/"
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{prefix}{path.relative_to(ROOT).as_posix()}" in packed


_IN_THE_SOURCE_TREE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
from soft_sglang.launch_server import leave_source_tree
print(sys.modules["soft_sglang"].__file__)
leave_source_tree()
import soft_sglang.kernels
print(soft_sglang.kernels.__file__)
"""


def test_an_installed_package_works_in_the_source_tree(wheel, tmp_path):
    """``python -m`` finds the source tree first, where kernels/ and patches/ lie elsewhere."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _IN_THE_SOURCE_TREE],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [Path(line) for line in done.stdout.splitlines()] == [
        ROOT / "soft_sglang" / "__init__.py",
        tmp_path / "soft_sglang" / "kernels" / "__init__.py",
    ]
