"""The wheel holds everything that an installation needs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("soft_sglang", "kernels", "patches", "server")


def test_wheel_holds_every_file(tmp_path):
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
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (entry_points,) = (name for name in packed if name.endswith("entry_points.txt"))
        assert "soft_sglang.patches.plugin:load" in archive.read(entry_points).decode()
    for folder in SOURCES:
        prefix = "" if folder == "soft_sglang" else "soft_sglang/"
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{prefix}{path.relative_to(ROOT).as_posix()}" in packed
