"""The one declared fact about which SGLang this package works with."""

from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import Version

SUPPORTED_SGLANG = SpecifierSet(">=0.5.21,<0.5.24")
"""The patches were reviewed against the source of these versions."""


def installed_sglang() -> str | None:
    """The version of the installed SGLang; None: there is none."""
    try:
        return metadata.version("sglang")
    except metadata.PackageNotFoundError:
        return None


def check_sglang_version() -> str:
    """Return the installed SGLang version.

    Raises:
        SystemExit: SGLang is missing or outside the supported range.
    """
    version = installed_sglang()
    if version is None:
        raise SystemExit(
            f"soft-sglang needs SGLang {SUPPORTED_SGLANG}, but SGLang is not installed."
        )
    parsed = Version(version)
    # nobody reviewed a pre-release, and it may have either of two neighbours' sources
    if parsed.is_prerelease or not SUPPORTED_SGLANG.contains(parsed):
        newest = max(Version(one.version) for one in SUPPORTED_SGLANG)
        newer = Version(parsed.base_version) >= newest
        raise SystemExit(
            f"soft-sglang supports SGLang {SUPPORTED_SGLANG}, but {version} is installed. "
            + ("Look for a newer soft-sglang, or install" if newer else "Install")
            + f" a supported SGLang: pip install 'sglang{SUPPORTED_SGLANG}'. To run SGLang without "
            "the plugin, uninstall soft-sglang or leave it out of SGLANG_PLUGINS."
        )
    return version
