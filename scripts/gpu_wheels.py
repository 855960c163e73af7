"""Collects the wheels for a GPU host that reaches no package registry.

    gpu_wheels.py wheels --without torch triton transformers
    gpu_wheels.py wheels --without 'torch*' triton numpy --sm90-only --part-size 60

Downloads SGLang and what it requires for Linux on x86-64 and one version of Python, pytest and
hypothesis for the tests of the kernels, and builds the wheel of this package. The default is what
``import sglang.srt.entrypoints.http_server``, a dense model and ``scripts/benchmark_server.py``
import on a CUDA machine; --full is SGLang's whole list. Versions are SGLang's pins, else those of
requirements/cpu.txt, else the newest. Prints how to install them.

--sm90-only replaces sglang-kernel by its Python files and one library, for hosts with a Hopper GPU
where the whole package does not fit. The library may be of another release (--kernel-library), one
that was built for the host's PyTorch. FlashAttention is not in it: --attention-backend triton.
"""

import argparse
import base64
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.parser import HeaderParser
from fnmatch import fnmatch
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
GLIBC = range(5, 40)
"""Minor versions whose wheels are taken; pip wants each of them named."""

# fmt: off
MINIMAL = {
    "aiohttp", "apache-tvm-ffi", "compressed-tensors", "datasets", "distro", "einops",
    "fastapi", "flashinfer-python", "gguf", "ipython", "msgspec", "ninja", "numpy",
    "nvidia-ml-py", "openai", "orjson", "packaging", "partial-json-parser", "pillow",
    "prometheus-client", "psutil", "pybase64", "pydantic", "python-multipart", "pyzmq", "regex",
    "requests", "scipy", "sentencepiece", "setproctitle", "sglang-kernel", "soundfile",
    "tokenizers", "torch", "torchvision", "tqdm", "transformers", "uvicorn", "uvloop",
    "xgrammar", "xxhash", "zstandard",
}
# fmt: on
"""Of SGLang's requirements, those that are imported, or that compile its kernels (ninja)."""
MINIMAL_MORE = ("jsonschema",)
"""What SGLang imports without requiring it itself."""
MINIMAL_LESS = ("cuda-tile", "nccl4py", "nvidia-cudnn-frontend", "nvidia-cutlass-dsl")
"""What FlashInfer requires, and imports only for kernels that are not used here."""
TESTS = ("pytest", "hypothesis")
KERNEL = "sglang-kernel"


@dataclass(frozen=True)
class Target:
    """The host: which wheels it can install, and which requirements hold on it."""

    python: str
    """Such as 3.12."""

    def pip_flags(self) -> list[str]:
        platforms = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC]
        platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
        flags = ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.python]
        return flags + [part for name in platforms for part in ("--platform", name)]

    def needs(self, requirement: Requirement, extra: str = "") -> bool:
        environment = {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "extra": extra,
        }
        return requirement.marker is None or requirement.marker.evaluate(environment)


@dataclass
class Collection:
    """Wheels in a folder, closed under their requirements but for what is left out."""

    folder: Path
    target: Target
    without: tuple[str, ...]
    """Names, in which * stands for anything."""
    pins: dict[str, Version]
    wheels: dict[str, Path] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)

    def leaves_out(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self.without)

    def add(self, requirements: Iterable[Requirement]) -> None:
        """Download what is required, and in turn what that requires."""
        expanded: set[tuple[str, str]] = set()
        pending = list(requirements)
        while pending:
            wanted = [r for r in pending if not self.leaves_out(canonicalize_name(r.name))]
            self._download(wanted)
            pending = []
            for requirement in wanted:
                name = canonicalize_name(requirement.name)
                version = parse_wheel_filename(self.wheels[name].name)[1]
                if not requirement.specifier.contains(version, prereleases=True):
                    self.conflicts.append(f"{requirement} is required, {version} was taken")
                for extra in {"", *requirement.extras}:
                    if (name, extra) not in expanded:
                        expanded.add((name, extra))
                        needs = required_by(self.wheels[name])
                        pending += [r for r in needs if self.target.needs(r, extra)]

    def add_alone(self, requirement: Requirement) -> None:
        """Download what is required without its own requirements."""
        self._download([requirement])

    def _download(self, wanted: list[Requirement]) -> None:
        specifiers: dict[str, str] = {}
        for requirement in wanted:
            name = canonicalize_name(requirement.name)
            if name not in self.wheels and name not in specifiers:
                specifiers[name] = f"{name}{self._specifier(name, requirement)}"
        if not specifiers:
            return
        flags = ["--no-deps", "-d", str(self.folder), *self.target.pip_flags()]
        if not pip("download", *flags, *specifiers.values()):
            for specifier in specifiers.values():
                if not pip("download", *flags, specifier):
                    self._build(specifier)
        found = wheels_in(self.folder)
        self.wheels.update({name: found[name] for name in specifiers})

    def _specifier(self, name: str, requirement: Requirement) -> str:
        pin = self.pins.get(name)
        if pin is not None and requirement.specifier.contains(pin, prereleases=True):
            return f"=={pin}"
        return str(requirement.specifier)

    def _build(self, specifier: str) -> None:
        """Build the wheel of a package that comes as source, if that suits every machine."""
        with tempfile.TemporaryDirectory() as name:
            if not pip("wheel", "--no-deps", "-w", name, specifier, quiet=False):
                raise SystemExit(f"{specifier} cannot be had; leave it out with --without")
            (wheel,) = Path(name).glob("*.whl")
            if not wheel.stem.endswith("-none-any"):
                raise SystemExit(f"{specifier} has no wheel for this host")
            shutil.copy(wheel, self.folder)


def pip(*arguments: str, quiet: bool = True) -> bool:
    """Run pip; whether it succeeded."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, stdout=output, stderr=output, check=False).returncode == 0


def wheels_in(folder: Path) -> dict[str, Path]:
    """Wheels by name."""
    return {str(parse_wheel_filename(path.name)[0]): path for path in folder.glob("*.whl")}


def required_by(wheel: Path) -> list[Requirement]:
    """Requirements of a wheel, with their markers."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if is_metadata(n))
        headers = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(line) for line in headers.get_all("Requires-Dist", [])]


def is_metadata(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder.endswith(".dist-info") and file == "METADATA"


def tested_versions(target: Target) -> dict[str, Version]:
    """The versions that the tests on a CPU run with."""
    pins = {}
    for file in ("cpu.txt", "dev.txt"):
        for line in (ROOT / "requirements" / file).read_text().splitlines():
            if line and not line.startswith("#"):
                requirement = Requirement(line)
                if target.needs(requirement):
                    (pin,) = requirement.specifier
                    pins[canonicalize_name(requirement.name)] = Version(pin.version)
    return pins


def chosen(requirements: list[Requirement], full: bool) -> list[Requirement]:
    """Of SGLang's requirements, those of the whole or of the minimal set."""
    if full:
        return requirements
    found = [r for r in requirements if canonicalize_name(r.name) in MINIMAL]
    absent = MINIMAL - {canonicalize_name(r.name) for r in found}
    if absent:
        raise SystemExit(f"this SGLang does not require {', '.join(sorted(absent))} any more")
    return found + [Requirement(name) for name in MINIMAL_MORE]


def build_own(folder: Path) -> None:
    """The wheel of this package, built from a copy: setuptools writes into the source."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        for package in ("soft_sglang", "kernels", "patches", "server"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, source / package, ignore=ignore)
        for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, source)
        if not pip("wheel", "--no-deps", "-w", str(folder), str(source), quiet=False):
            raise SystemExit("the wheel of this package could not be built")


def trim_kernel(python: Path, library: Path, folder: Path) -> Path:
    """A wheel of sglang-kernel with the Python files of one release and one library of another.

    Its requirements are left out, since they name the PyTorch of the first.
    """
    name, version, _, _ = parse_wheel_filename(python.name)
    stem = f"{str(name).replace('-', '_')}-{version}+sm90"
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(python) as archive:
        (metadata,) = (n for n in archive.namelist() if is_metadata(n))
        for member in archive.namelist():
            if member.startswith("sgl_kernel/") and member.endswith(".py"):
                files[member] = archive.read(member)
        lines = archive.read(metadata).decode().splitlines(keepends=True)
        info = f"{stem}.dist-info"
        kept = [line for line in lines if not line.startswith("Requires-Dist:")]
        text = "".join(kept).replace(f"\nVersion: {version}\n", f"\nVersion: {version}+sm90\n")
        files[f"{info}/METADATA"] = text.encode()
        files[f"{info}/WHEEL"] = archive.read(metadata.replace("METADATA", "WHEEL"))
    with zipfile.ZipFile(library) as archive:
        (member,) = (n for n in archive.namelist() if n.startswith("sgl_kernel/sm90/common_ops."))
        files[member] = archive.read(member)
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    wheel = folder / f"{stem}-{python.stem.split('-', 2)[2]}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return wheel


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = []
    for member, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{member},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()


def build_trimmed(folder: Path, target: Target, version: str, library_version: str) -> None:
    """Download the releases of sglang-kernel and combine them."""
    releases = {}
    with tempfile.TemporaryDirectory() as name:
        for release in {version, library_version}:
            where = Path(name, release)
            specifier = f"sglang-kernel=={release}"
            if not pip("download", "--no-deps", "-d", str(where), *target.pip_flags(), specifier):
                raise SystemExit(f"{specifier} cannot be had")
            (releases[release],) = where.glob("*.whl")
        trim_kernel(releases[version], releases[library_version], folder)


def split(folder: Path, limit: float) -> list[Path]:
    """Move the wheels into folders of at most ``limit`` MiB; a larger wheel has its own."""
    parts: list[list[Path]] = []
    sizes: list[float] = []
    for wheel in sorted(folder.glob("*.whl"), key=lambda path: -path.stat().st_size):
        size = wheel.stat().st_size / MIB
        if size > limit:
            print(f"{wheel.name} alone has {size:.0f} MiB")
        place = next((i for i, used in enumerate(sizes) if used + size <= limit), len(sizes))
        if place == len(sizes):
            parts.append([])
            sizes.append(0.0)
        parts[place].append(wheel)
        sizes[place] += size
    folders = []
    for number, wheels in enumerate(parts, start=1):
        folders.append(folder / f"part-{number}")
        folders[-1].mkdir()
        for wheel in wheels:
            wheel.rename(folders[-1] / wheel.name)
    return folders


def report(folders: list[Path]) -> None:
    """What there is, and how to install it."""
    for folder in folders:
        sizes = [wheel.stat().st_size for wheel in folder.glob("*.whl")]
        print(f"{folder}: {len(sizes)} wheels, {sum(sizes) / MIB:.0f} MiB")
    patterns = " ".join(f"{shlex.quote(str(folder))}/*.whl" for folder in folders)
    print("\nInstall them beside what the host has, which stays as it is:")
    print(f"  python3 -m pip install --no-index --no-deps --target site {patterns}")
    print('  export PYTHONPATH="$PWD/site"')


def pin_of(name: str, requirements: Iterable[Requirement]) -> str:
    """The version that requirements pin a package to.

    Raises:
        ValueError: they do not.
    """
    for requirement in requirements:
        for specifier in requirement.specifier:
            if canonicalize_name(requirement.name) == name and specifier.operator == "==":
                return specifier.version
    raise ValueError(f"no version of {name} is pinned")


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="to be created")
    parser.add_argument("--python", default="3.12", help="version of the host's Python")
    parser.add_argument("--sglang", default="0.5.23", help="version of SGLang")
    parser.add_argument("--full", action="store_true", help="all of SGLang's requirements")
    parser.add_argument("--without", nargs="+", default=[], help="what the host has; * allowed")
    parser.add_argument("--sm90-only", action="store_true", help="a trimmed sglang-kernel")
    parser.add_argument("--kernel", help="its Python files' release; default: what SGLang pins")
    parser.add_argument("--kernel-library", help="its library's release; default: the same")
    parser.add_argument("--part-size", type=float, help="split into folders of so many MiB")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)

    target = Target(arguments.python)
    without = [canonicalize_name(name) for name in arguments.without]
    if not arguments.full:
        without += MINIMAL_LESS
    if arguments.sm90_only:
        without.append(KERNEL)
    collection = Collection(folder, target, tuple(without), tested_versions(target))
    sglang = Requirement(f"sglang=={arguments.sglang}")
    collection.add_alone(sglang)
    direct = [r for r in required_by(collection.wheels["sglang"]) if target.needs(r)]
    if arguments.sm90_only:
        kernel = arguments.kernel or pin_of(KERNEL, direct)
        build_trimmed(folder, target, kernel, arguments.kernel_library or kernel)
    collection.add([*chosen(direct, arguments.full), *map(Requirement, TESTS)])
    build_own(folder)
    for conflict in collection.conflicts:
        print(f"conflict: {conflict}")
    report(split(folder, arguments.part_size) if arguments.part_size else [folder])
    return 0


if __name__ == "__main__":
    sys.exit(main())
