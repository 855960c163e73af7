"""What the scripts for GPU hosts do apart from the GPU: skipping, deadlines, exit codes, wheels."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import check_gpu  # noqa: E402
import gpu_wheels  # noqa: E402
from support import launched_server, model_shapes  # noqa: E402


def part(name, code, *, missing="", least=1, most=30):
    """A part that runs Python code, which finds its folder in ``sys.argv[1]``."""
    return check_gpu.Part(
        name,
        least=least,
        most=most,
        missing=lambda: missing,
        command=lambda folder, seconds: [sys.executable, "-c", code, str(folder)],
        read=check_gpu._json,
    )


def soon(seconds=60):
    return time.monotonic() + seconds


def test_without_a_gpu_nothing_runs(tmp_path):
    file = tmp_path / "gpu.json"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONSAFEPATH", None)  # the script imports its neighbours
    command = [sys.executable, ROOT / "scripts/check_gpu.py", "--json", file]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no CUDA GPU" in done.stdout
    parts = json.loads(file.read_text())["parts"]
    assert [(p["status"], p["reason"]) for p in parts] == [("skipped", "no GPU")] * 4
    for outcome in parts:
        assert outcome["name"] in done.stdout


def test_a_part_that_runs_passes_with_its_result():
    code = "import sys; open(sys.argv[1] + '/result.json', 'w').write('[1, 2]')"
    outcome = check_gpu.run(part("good", code), soon())
    assert (outcome.status, outcome.reason, outcome.result) == ("passed", "", [1, 2])


def test_a_part_that_fails_says_how():
    outcome = check_gpu.run(part("bad", "print('so it goes'); exit(3)"), soon())
    assert (outcome.status, outcome.reason) == ("failed", "exit code 3")
    assert "so it goes" in outcome.output


def test_a_part_is_stopped_at_its_deadline_with_its_children(tmp_path):
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    start = time.monotonic()
    outcome = check_gpu.run(part("slow", code, most=2), soon())
    assert (outcome.status, outcome.reason) == ("failed", "stopped after 2 s")
    assert time.monotonic() - start < 30
    pid = int(child.read_text())
    while not _ended(pid):
        assert time.monotonic() - start < 40, "the child lives on"
        time.sleep(0.05)


def _ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    return True


@pytest.mark.parametrize(
    ("given", "deadline", "reason"),
    [({"missing": "no such thing"}, 60, "no such thing"), ({"least": 50}, 20, "takes 50 s")],
)
def test_a_part_is_skipped_without_its_needs_or_its_time(tmp_path, given, deadline, reason):
    mark = tmp_path / "ran"
    outcome = check_gpu.run(part("skipped", f"open({str(mark)!r}, 'w')", **given), soon(deadline))
    assert outcome.status == "skipped"
    assert outcome.reason.startswith(reason)
    assert not mark.exists()


@pytest.mark.parametrize(("code", "status"), [("pass", 0), ("exit(1)", 1)])
def test_exit_code(monkeypatch, tmp_path, capsys, code, status):
    parts = [part("first", code), part("second", "pass", missing="not here")]
    monkeypatch.setattr(check_gpu, "has_gpu", lambda: True)
    monkeypatch.setattr(check_gpu, "parts", lambda *arguments: parts)
    file = tmp_path / "gpu.json"
    assert check_gpu.main(["--json", str(file)]) == status
    outcomes = json.loads(file.read_text())["parts"]
    assert [o["status"] for o in outcomes] == [["passed", "failed"][status], "skipped"]
    assert "not here" in capsys.readouterr().out


def test_counts_of_a_pytest_run(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_skipped(): pytest.skip('so')\n"
    )
    file = tmp_path / "junit.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={file}", str(tmp_path)],
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    counts = {"tests": 3, "failures": 1, "errors": 0, "skipped": 1}
    assert check_gpu._junit(file) == counts


def test_decode_steps_in_graphs_are_counted_in_the_log(tmp_path):
    log = tmp_path / "log"
    line = "[2026-01-01 00:00:00] Decode batch, #running-req: 4, #token: 196, {} graph: {}, gen"
    lines = [line.format("cuda", "True"), line.format("cuda", "True"), line.format("cpu", "False")]
    log.write_text("\n".join(["Prefill batch, cuda graph: True", *lines]))
    assert launched_server.decode_steps_in_graphs(log) == {"yes": 2, "no": 1}


def test_model_folders_have_a_text_for_every_id(tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    folders = [model_shapes.create(name, tmp_path / name) for name in model_shapes.SHAPES]
    sizes = {AutoConfig.from_pretrained(folder).vocab_size for folder in folders}
    tokenizer = AutoTokenizer.from_pretrained(folders[-1])
    assert sizes == {len(tokenizer)} == {tokenizer.vocab_size} == {151936}
    assert len(tokenizer.encode("</think>", add_special_tokens=False)) == 1
    texts = tokenizer.batch_decode([[i] for i in range(7, len(tokenizer), 501)])
    assert all(texts) and len(set(texts)) == len(texts)


def wheel(folder, name, version, requires=(), files=None, tag="py3-none-any"):
    """Write a wheel; its path."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    metadata += [f"Requires-Dist: {requirement}\n" for requirement in requires]
    metadata += [f"Provides-Extra: {extra}\n" for extra in ("more", "other")]
    content = {
        **(files or {f"{name}.py": b""}),
        f"{info}/METADATA": "".join(metadata).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/RECORD": b"",
    }
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return path


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that is all that pip looks at."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def test_collection_is_closed_but_for_what_is_left_out(tmp_path, registry):
    wheel(registry, "top", "1", ["middle[more]>=1", "torch==2", "old; python_version<'3.0'"])
    wheel(registry, "middle", "1")
    wheel(registry, "middle", "2", ["leaf; extra=='more'", "unused; extra=='other'"])
    wheel(registry, "middle", "3")
    wheel(registry, "leaf", "1", ["middle<2"])
    wheel(registry, "torch", "2", ["nvidia-everything"])
    folder = tmp_path / "wheels"
    folder.mkdir()
    pins = {"middle": Version("2")}
    collection = gpu_wheels.Collection(folder, gpu_wheels.Target("3.12"), ("tor*",), pins)
    collection.add([Requirement("top")])
    names = {path.name.rsplit("-", 3)[0] for path in folder.iterdir()}
    assert names == {"top-1", "middle-2", "leaf-1"}
    assert collection.conflicts == ["middle<2 is required, 2 was taken"]


def test_a_package_that_cannot_be_had_is_named(tmp_path, registry):
    collection = gpu_wheels.Collection(tmp_path, gpu_wheels.Target("3.12"), (), {})
    with pytest.raises(SystemExit, match="absent"):
        collection.add([Requirement("absent")])


def test_sets_of_sglangs_own_requirements():
    from importlib import metadata

    target = gpu_wheels.Target("3.12")
    everything = map(Requirement, metadata.requires("sglang") or [])
    direct = [r for r in everything if target.needs(r)]
    assert gpu_wheels.chosen(direct, full=True) == direct
    minimal = {r.name for r in gpu_wheels.chosen(direct, full=False)}
    assert {"torch", "sglang-kernel", "jsonschema"} <= minimal
    assert minimal - {"jsonschema"} < {r.name for r in direct}
    with pytest.raises(SystemExit, match="torch"):
        gpu_wheels.chosen([r for r in direct if r.name != "torch"], full=False)


def test_trimmed_kernel_wheel_installs_with_the_library_of_another_release(tmp_path):
    tag = "cp310-abi3-manylinux2014_x86_64"
    library = "sgl_kernel/sm90/common_ops.abi3.so"
    new = {"sgl_kernel/__init__.py": b"NEW = 1", library: b"new", "sgl_kernel/flash_ops.so": b"-"}
    old = {"sgl_kernel/__init__.py": b"OLD = 1", library: b"old", "sgl_kernel/sm100/x.so": b"-"}
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    path = gpu_wheels.trim_kernel(
        wheel(tmp_path / "new", "sglang_kernel", "0.4.7", ["torch==2.13.0"], new, tag),
        wheel(tmp_path / "old", "sglang_kernel", "0.4.4", ["torch==2.11.0"], old, tag),
        tmp_path,
    )
    assert gpu_wheels.required_by(path) == []
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "-q"]
    subprocess.run([*command, "--target", site, path], check=True)
    assert (site / "sgl_kernel/__init__.py").read_bytes() == b"NEW = 1"
    assert (site / library).read_bytes() == b"old"
    assert {p.name for p in site.rglob("*.so")} == {"common_ops.abi3.so"}
    record = (site / "sglang_kernel-0.4.7+sm90.dist-info/RECORD").read_text()
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"old").digest()).decode().rstrip("=")
    assert f"{library},sha256={digest},3\n" in record


def test_split_keeps_every_wheel_and_the_limit(tmp_path, capsys):
    sizes = {"a": 0.5, "b": 0.3, "c": 0.4, "d": 0.2, "large": 1.5}
    for name, size in sizes.items():
        (tmp_path / f"{name}.whl").write_bytes(bytes(int(size * gpu_wheels.MIB)))
    folders = gpu_wheels.split(tmp_path, limit=1.0)
    contents = [sorted(path.stem for path in folder.iterdir()) for folder in folders]
    assert sorted(name for names in contents for name in names) == sorted(sizes)
    for names in contents:
        assert names == ["large"] or sum(sizes[name] for name in names) <= 1.0
    assert len(folders) == 3
    assert "large.whl alone has 2 MiB" in capsys.readouterr().out
