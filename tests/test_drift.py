"""scripts/check_patches.py: SGLang against the source that the hooks were reviewed against."""

import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from soft_sglang.patches.plugin import all_patches, every_patch
from soft_sglang.patches.record import When, patch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import check_patches  # noqa: E402
from drift import wheels  # noqa: E402
from drift.history import history_of, table  # noqa: E402
from drift.review import FILE, Reviews  # noqa: E402
from drift.source import fingerprint, source_of  # noqa: E402

BEFORE = """
def same():
    return 1


class Owner:
    def method(self):
        return "before"

    def taken_away(self):
        pass


def old():
    pass


def never_reviewed():
    pass
"""
AFTER = """
class Owner:
    def method(self):
        return "after"


def same():
    return 1


def never_reviewed():
    pass


def only_new():
    pass
"""
ODD_SHAPES = """
import functools
from typing import overload


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper


@decorated
@functools.wraps(
    print,
    updated=(),
)
def with_decorators(
    x=1,
):
    text = '''
not indented
'''
    return text
    # the body's last comment
# not the body's


@overload
def twice(x: int) -> int: ...
@overload
def twice(x: str) -> str: ...
def twice(x):
    return x


try:
    import no_such_module
except ImportError:
    async def of_a_handler():
        async with x:
            pass
else:
    raise AssertionError


class Outer:
    \f
    class Inner:
        if True:
            @classmethod
            def method(cls): return "\u2028"

        @staticmethod
        def last(): return (
            1)"""


def _record(name, sglang=""):
    @patch(f"made_up.{name}", When.AFTER, why="a why", how="a how", upstream="x", sglang=sglang)
    def hook():
        pass

    return hook


def _add_wheel(version, source):
    with zipfile.ZipFile(wheels.CACHE / f"sglang-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sglang/srt/made_up.py", source)


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Releases 9.1 and 9.2, one of them reviewed, and no network; gives the file of the reviews."""

    def offline(*arguments):
        raise AssertionError(arguments)

    file = tmp_path / "fingerprints.json"
    monkeypatch.setattr(wheels, "CACHE", tmp_path)
    monkeypatch.setattr(wheels, "_pip", offline)
    monkeypatch.setattr(check_patches, "Reviews", lambda: Reviews(file))
    file.write_text("{}")
    _add_wheel("9.1", BEFORE)
    _add_wheel("9.2", AFTER)
    _use(monkeypatch, "same", "Owner.method", "Owner.taken_away", old="<9.2", only_new=">=9.2")
    assert check_patches.main(["--update", "9.1"]) == 0
    return file


def _use(monkeypatch, *names, **bounded):
    records = [_record(name) for name in names]
    records += [_record(name, sglang) for name, sglang in bounded.items()]
    monkeypatch.setattr(check_patches, "every_patch", lambda: records)


@pytest.mark.parametrize(
    ("name", "sglang", "state"),
    [
        ("same", "", "same"),
        ("Owner.method", "", "changed"),
        ("Owner.taken_away", "", "gone"),
        ("old", "", "gone"),
        ("never_reviewed", "", "new"),
        ("only_new", ">=9.2", "new"),
        ("old", "<9.2", "not for this version"),
        ("same", "<9.2", "not for this version"),
        ("same", ">=9.1", "same"),
    ],
)
def test_state_on_a_new_release(made_up, monkeypatch, capsys, name, sglang, state):
    _use(monkeypatch, **{name: sglang})
    fine = state in ("same", "not for this version")
    assert check_patches.main(["--version", "9.2"]) == (0 if fine else 1)
    lines = capsys.readouterr().out.splitlines()
    assert f"sglang.srt.made_up.{name}  [after, {state}]" in lines
    assert lines[-1] == f"SGLang 9.2 against the review of 9.1: 1 {state}"
    assert ("  why      a why" in lines) == (not fine)


def test_diff_of_a_changed_function_alone(made_up, capsys):
    assert check_patches.main(["--version", "v9.2"]) == 1
    diff = re.findall(r"^[-+].*$", capsys.readouterr().out, re.MULTILINE)
    assert diff == [
        "--- SGLang 9.1",
        "+++ SGLang 9.2",
        '-        return "before"',
        '+        return "after"',
    ]


def test_a_review_makes_it_the_same(made_up, monkeypatch, capsys):
    assert check_patches.main(["--update", "9.2"]) == 1
    assert "does not have: sglang.srt.made_up.Owner.taken_away\n" in capsys.readouterr().out
    assert list(json.loads(made_up.read_text())) == ["9.1"]
    _use(monkeypatch, "same", "Owner.method", old="<9.2", only_new=">=9.2")
    assert check_patches.main(["--update", "9.2"]) == 0
    assert check_patches.main(["--version", "9.2"]) == 0
    assert "SGLang 9.2 against its review: 3 same, 1 not for" in capsys.readouterr().out
    assert check_patches.main(["--version", "9.1"]) == 0


def test_reviews_are_ordered_and_have_a_line_each(made_up):
    _add_wheel("9.10", BEFORE)
    _add_wheel("9.2", BEFORE + AFTER)
    for version in ("9.10", "9.2", "9.1"):
        Reviews(made_up).record(version, [("b", "source"), ("a", "source")])
    assert list(json.loads(made_up.read_text())) == ["9.1", "9.2", "9.10"]
    known = f'"{fingerprint("source")}"'
    nine = f'": {{\n    "a": {known},\n    "b": {known}\n  }}'
    assert made_up.read_text() == f'{{\n  "9.1{nine},\n  "9.2{nine},\n  "9.10{nine}\n}}\n'


@pytest.mark.parametrize(
    ("version", "base"),
    [("8", "9.1"), ("9.1", "9.1"), ("9.1.post1", "9.1"), ("9.9", "9.1"), ("10.1", "9.10")],
)
def test_what_a_version_is_compared_with(made_up, version, base):
    Reviews(made_up).record("9.10", [])
    assert Reviews(made_up).base_of(version) == base


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--version", "latest"], "invalid release value: 'latest'"),
        (["--history", "0"], "invalid count value: '0'"),
        (["--also", "sglang.x"], "--also needs --history"),
        (["--version", "9.1", "--update"], "not allowed with"),
    ],
)
def test_bad_arguments(capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        check_patches.main(arguments)
    assert said in capsys.readouterr().err


def _index(pip):
    """A stand-in for pip with one wheel, of 9.3 for Python 3.11."""

    def answer(*arguments):
        pip.append(arguments[0])
        listed = SimpleNamespace(returncode=0, stdout='{"versions": ["9.3", "9.2"]}', stderr="")
        if arguments[0] == "index":
            return listed
        if "sglang==9.3" in arguments and "--python-version=3.11" in arguments:
            folder = Path(arguments[arguments.index("--dest") + 1])
            (folder / "sglang-9.3-cp311-cp311-manylinux_2_34_x86_64.whl").write_bytes(b"")
        return SimpleNamespace(returncode=1, stdout="", stderr="noise\nERROR: no room\n")

    return answer


def test_a_wheel_is_downloaded_once_for_any_python(made_up, monkeypatch):
    pip = []
    monkeypatch.setattr(wheels, "_pip", _index(pip))
    assert wheels.wheel("9.3") == wheels.wheel("9.3")
    assert pip == ["download", "download"]
    assert wheels.wheel("9.3").parent == wheels.CACHE and wheels.wheel("9.3").exists()
    assert not [path for path in wheels.CACHE.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("9.4", "there is no SGLang 9.4; the newest are 9.2, 9.3"),
        ("9.2", "pip cannot get the wheel of SGLang 9.2: no room"),
    ],
)
def test_a_wheel_that_cannot_be_had(made_up, monkeypatch, version, said):
    (wheels.CACHE / "sglang-9.2-py3-none-any.whl").unlink()
    monkeypatch.setattr(wheels, "_pip", _index([]))
    with pytest.raises(SystemExit) as stopped:
        check_patches.main(["--version", version])
    assert str(stopped.value) == said


def test_without_a_package_index(monkeypatch):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="ERROR: unreachable")
    monkeypatch.setattr(wheels, "_pip", lambda *arguments: failed)
    with pytest.raises(SystemExit, match="cannot list the releases of SGLang: unreachable"):
        wheels.releases()


def test_history(made_up, monkeypatch, capsys):
    _add_wheel("9.3", AFTER)
    monkeypatch.setattr(wheels, "releases", lambda: ["9.0", "9.1", "9.2", "9.3"])
    _use(monkeypatch, "same", "Owner.method", "old")
    assert check_patches.main(["--history", "2", "--also", "sglang.srt.made_up.only_new"]) == 0
    assert capsys.readouterr().out.splitlines()[:-2] == [
        "| target | churn | 9.2 | 9.3 |",
        "| --- | --: | :-: | :-: |",
        "| `sglang.srt.made_up.Owner.method` | 1 | × |  |",
        "| `sglang.srt.made_up.old` | 1 | − | · |",
        "| `sglang.srt.made_up.only_new` | 0 | + |  |",
        "| `sglang.srt.made_up.same` | 0 |  |  |",
        "| changed or gone | 2 | 2 | 0 |",
    ]


def test_the_most_changed_come_first():
    rows = table([history_of("a", "112"), history_of("b", "123")], ["9.2", "9.3"]).splitlines()
    assert [row.split(" | ")[:2] for row in rows[2:4]] == [["| `b`", "2"], ["| `a`", "1"]]


@pytest.mark.parametrize(
    "name",
    ["with_decorators", "twice", "of_a_handler", "Outer.Inner.method", "Outer.Inner.last"],
)
def test_source_is_that_of_inspect(tmp_path, name):
    file = tmp_path / "odd_shapes.py"
    file.write_text(ODD_SHAPES, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("odd_shapes", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = module
    for part in name.split("."):
        function = getattr(function, part)
    function = getattr(function, "__func__", function)
    if name == "with_decorators":
        function = function.__wrapped__  # what it wraps in turn is print
        del function.__wrapped__
    source = source_of(tmp_path, f"odd_shapes.{name}")
    assert source == inspect.getsource(function)
    assert ("# the body's" in source) == (name == "with_decorators")
    assert "# not the body's" not in source


@pytest.mark.parametrize(
    "target", ["made_up.Outer.no_such", "made_up.no_such", "made_up.twice.x", "no_such_module.f"]
)
def test_no_such_function(tmp_path, target):
    (tmp_path / "made_up.py").write_text(ODD_SHAPES, encoding="utf-8")
    assert source_of(tmp_path, target) is None


def test_source_of_every_installed_target_is_that_of_inspect():
    tree = wheels.installed_tree()
    for known in all_patches():
        owner, _, name = known.target.rpartition(".")
        function = inspect.getattr_static(pkgutil.resolve_name(owner), name)
        function = inspect.unwrap(getattr(function, "__func__", function))
        assert source_of(tree, known.target) == inspect.getsource(function), known.target


def test_every_patch_is_documented_and_was_reviewed_on_the_installed_sglang(tmp_path):
    run = subprocess.run(
        [sys.executable, ROOT / "scripts/check_patches.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    patches = all_patches()
    for known in patches:
        assert f"{known.target}  [{known.when.value}, same]\n  why " in run.stdout
        assert known.why and known.how and known.upstream
    assert f": {len(patches)} same" in run.stdout.splitlines()[-1]
    assert len({known.target for known in every_patch()}) == len(every_patch()) > 20


def test_every_version_with_an_environment_was_reviewed_in_full():
    reviewed = json.loads(FILE.read_text())
    requirements = "\n".join(path.read_text() for path in (ROOT / "requirements").glob("*.txt"))
    assert set(reviewed) == set(re.findall(r"^sglang==(\S+)$", requirements, re.MULTILINE))
    for version, targets in reviewed.items():
        assert set(targets) == {known.target for known in every_patch() if known.is_for(version)}
