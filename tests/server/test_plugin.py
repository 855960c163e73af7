"""Loading the plugin: the supported SGLang, and every patch active or no start."""

import asyncio
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from sglang.srt.server_args import ServerArgs
from torch.distributed import HashStore
from transformers import AutoTokenizer

import soft_sglang
from soft_sglang.bundled import MODEL_PATH
from soft_sglang.compatibility import check_sglang_version
from soft_sglang.options import ServerOptions
from soft_sglang.patches import plugin
from soft_sglang.patches.announcement import (
    announcement,
    combined,
    learn_support,
    problem_of,
    support_of,
)
from soft_sglang.patches.front_end.engine import check_schedulers
from soft_sglang.patches.front_end.tokenizer_worker import check_worker, hand_over
from soft_sglang.patches.options import attach_options
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler import world
from soft_sglang.policies.registry import MODULES_VARIABLE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(monkeypatch):
    """SGLang's hook registry, put back afterwards."""
    plugin.load()
    from sglang.srt.plugins.hook_registry import HookRegistry

    hooks = HookRegistry._hooks.copy()  # a defaultdict
    monkeypatch.setattr(HookRegistry, "_hooks", hooks)
    monkeypatch.setattr(HookRegistry, "_patched", set(HookRegistry._patched))
    return HookRegistry


def _patch_of(target):
    @patch(target, When.AFTER, why="", how="", upstream="")
    def hook(result):
        return result

    return hook


@pytest.mark.parametrize("version", ["0.5.21", "0.5.21.post1", "0.5.22", "0.5.23", "0.5.23.post1"])
def test_supported_version(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda _name: version)
    assert check_sglang_version() == version
    targets = [patch.target.rpartition(".")[2] for patch in plugin.all_patches()]
    assert len({"checkpoint_kv_cache", "maybe_cache_unfinished_req"} & set(targets)) == 1


OLDER = ["0.4.6.post1", "0.5.20", "0.5.21rc1", "0.5.22rc1", "0.5.23.dev1"]
NEWER = ["0.5.24rc1", "0.5.24", "0.5.99", "1.0"]


@pytest.mark.parametrize("version", [*OLDER, *NEWER])
def test_an_unsupported_version_stops_with_what_to_do(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda _name: version)
    with pytest.raises(SystemExit) as stopped:
        plugin.load()
    message = str(stopped.value)
    assert "0.5.21" in message and f"but {version} is installed" in message
    assert "pip install 'sglang" in message and "SGLANG_PLUGINS" in message
    assert ("newer soft-sglang" in message) == (version in NEWER)


def test_missing_sglang(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(SystemExit, match="SGLang is not installed"):
        plugin.load()


def test_loading_twice_applies_once(registry):
    before = {target: len(hooks) for target, hooks in registry._hooks.items()}
    plugin.load()
    assert {target: len(hooks) for target, hooks in registry._hooks.items()} == before


@pytest.mark.parametrize("target", ["no_such_module.f", "server_args.ServerArgs.no_such_method"])
def test_patch_without_a_target_stops_the_process(monkeypatch, registry, target):
    patches = [*plugin.all_patches(), _patch_of(target)]
    monkeypatch.setattr(plugin, "all_patches", lambda: patches)
    with pytest.raises(SystemExit, match=rf"not active.*sglang\.srt\.{target}$"):
        plugin.load()


def test_error_while_loading_stops_the_process(monkeypatch):
    def fail():
        raise ImportError("no module named x")

    monkeypatch.setattr(plugin, "all_patches", fail)
    with pytest.raises(SystemExit, match=r"could not be loaded.*no module named x"):
        plugin.load()


def test_inactive_patch_is_named(registry):
    patches = plugin.all_patches()
    plugin.check_active(patches)
    registry._patched.discard(patches[3].target)
    with pytest.raises(SystemExit, match=f"{patches[3].target}$"):
        plugin.check_active(patches)


def test_patch_on_a_function_that_another_plugin_patched_before(registry, monkeypatch):
    from sglang.srt.utils import common

    monkeypatch.setattr(common, "is_hip", common.is_hip)  # put back afterwards
    target = "sglang.srt.utils.common.is_hip"
    registry.register(target, lambda result: result)
    registry.apply_hooks()
    patches = [*plugin.all_patches(), _patch_of("utils.common.is_hip")]
    monkeypatch.setattr(plugin, "all_patches", lambda: patches)
    with pytest.raises(SystemExit, match=f"another plugin.*{target}"):
        plugin.load()


@pytest.mark.parametrize(
    ("announced", "said"), [({}, "not loaded"), ({"soft_thinking": "0.0.1"}, "0.0.1 instead of")]
)
def test_a_scheduler_without_the_plugin_stops_the_start(announced, said):
    with pytest.raises(SystemExit, match=rf"runs without the plugin \({said}"):
        _start([announced])


def test_the_reason_of_a_scheduler_reaches_the_requests():
    announced = {"soft_thinking": soft_sglang.__version__, "soft_thinking_unsupported": "no table"}
    assert support_of(_start([announced]).server_args).unsupported == "no table"


@pytest.mark.parametrize(
    ("announced", "said"),
    [
        ({}, "a scheduler process runs without the plugin"),
        ({"unsupported": "no table"}, "no table"),
    ],
)
def test_with_data_parallelism_the_schedulers_are_asked(announced, said):
    good = {"soft_thinking": soft_sglang.__version__, "soft_thinking_unsupported": None}
    bad = {**good, "soft_thinking_unsupported": announced["unsupported"]} if announced else {}
    manager = _start([], dp_size=2)

    async def get_internal_state():
        return [good, bad]

    manager.get_internal_state = get_internal_state
    assert support_of(manager.server_args).unsupported is None
    asyncio.run(learn_support(manager))
    assert support_of(manager.server_args).unsupported.startswith(said)


@pytest.fixture
def served():
    """The process of a server."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


RECEIVE = """
import pickle, sys
from soft_sglang.cpu.environment import prepare
prepare()
print(pickle.load(sys.stdin.buffer))
"""
"""What a tokenizer worker does with its arguments."""


@pytest.mark.parametrize("policies", ["", "no_such_module"])
def test_a_tokenizer_worker_has_the_plugin_or_there_is_no_server(
    policies, served, monkeypatch, tmp_path
):
    monkeypatch.setattr(os, "getpid", lambda: served.pid)
    (_, _, info), _ = hand_over(None, None, {"max_req_input_len": 7})
    written = pickle.dumps(info)
    monkeypatch.undo()
    worker = subprocess.run(
        [sys.executable, "-c", RECEIVE],
        input=written,
        capture_output=True,
        env={**os.environ, MODULES_VARIABLE: policies},
        cwd=tmp_path,
        check=False,
    )
    if policies:
        assert worker.returncode == 1
        assert b"could not be loaded" in worker.stderr and b"The server ends" in worker.stderr
        assert served.wait(timeout=60) == -signal.SIGKILL
    else:
        assert worker.returncode == 0, worker.stderr
        assert worker.stdout.splitlines()[-1] == b"{'max_req_input_len': 7}"
        assert served.poll() is None


def test_a_tokenizer_worker_checks_the_markers_of_the_server():
    server_args = ServerArgs(model_path=MODEL_PATH, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    config = SimpleNamespace(vocab_size=len(tokenizer), hf_eos_token_id=None)
    manager = SimpleNamespace(server_args=server_args, tokenizer=tokenizer, model_config=config)
    attach_options(server_args, ServerOptions(think_end_str="日"))
    check_worker(None, manager)  # requests may still name another
    attach_options(server_args, ServerOptions(enable_soft_thinking=True, think_end_str="日"))
    with pytest.raises(SystemExit, match=r"soft-sglang: .*日"):
        check_worker(None, manager)


def _start(announcements, dp_size=1):
    """The tokenizer manager after a start with these announcements of the schedulers."""
    server_args = ServerArgs(model_path=MODEL_PATH, device="cpu", dp_size=dp_size)
    manager = SimpleNamespace(server_args=server_args)
    launched = (manager, None, None, SimpleNamespace(scheduler_infos=announcements))
    check_schedulers(launched, object, server_args)
    return manager


GOOD = announcement(None, ["a", "b"], 32)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (GOOD, None),
        ({}, r"runs without the plugin \(not loaded instead of"),
        ({**GOOD, "soft_thinking": "0.0.1"}, r"0\.0\.1 instead of"),
        (announcement("no table", ["a"], 32), "no table"),
        (announcement(None, ["a"], 16), "different values of --max-topk"),
    ],
)
def test_processes_announce_the_first_problem_of_one(other, said):
    for pair in ([GOOD, other], [other, GOOD]):
        problem = problem_of(combined(pair))
        assert problem is None if said is None else re.search(said, problem)


def test_processes_announce_the_policies_that_all_know():
    together = combined([GOOD, announcement(None, ["b", "c"], 32)])
    assert together["soft_thinking_policies"] == ["b"]


@pytest.fixture
def processes(monkeypatch):
    """Three processes of a model, here threads, and whether each of them has the plugin."""
    store, ranks = HashStore(), threading.local()
    monkeypatch.setattr(world, "_world", lambda: (store, ranks.own, 3))

    def run(rank):
        ranks.own = rank
        return world.announcements_of_all({**GOOD, "rank": rank})

    def together(with_plugin):
        for ranks.own in with_plugin:
            world.leave_sign(None)
        with ThreadPoolExecutor(3) as threads:
            return list(threads.map(run, with_plugin))

    return together


def test_every_process_learns_what_all_announce(processes):
    expected = [{**GOOD, "rank": rank} for rank in range(3)]
    assert processes([0, 1, 2]) == [expected] * 3


def test_nobody_waits_for_a_process_without_the_plugin(processes):
    for announced in processes([0, 2]):
        assert "not loaded by rank 1 of 3 instead of" in problem_of(combined(announced))
