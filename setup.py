"""Lists the packages; everything else about the build is in pyproject.toml."""

from setuptools import find_packages, setup


def below(folder: str) -> list[str]:
    """Return the packages of one top-level folder, named as on disk."""
    return find_packages(include=[folder, f"{folder}.*"])


MAPPED = ("kernels", "patches", "server")

setup(
    packages=below("soft_sglang")
    + [f"soft_sglang.{package}" for folder in MAPPED for package in below(folder)]
)
