"""Makes a module of this folder a plugin that SGLang finds."""

from pathlib import Path

PLUGINS = Path(__file__).parent


def install(name: str, folder: Path) -> list[str]:
    """Write the metadata of an installed distribution with one plugin.

    Args:
        name: module of this folder with a function ``load``.
        folder: an empty one.

    Returns:
        What must be on the path of a process that is to load it.
    """
    folder.mkdir(exist_ok=True)
    info = folder / f"{name}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[sglang.srt.plugins]\n{name} = {name}:load\n")
    return [str(folder), str(PLUGINS)]
