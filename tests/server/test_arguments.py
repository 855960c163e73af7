"""Command line of the server: defaults, and what it refuses before it loads a model."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata

import pytest
from packaging.version import Version
from transformers import AutoConfig

from soft_sglang.bundled import MODEL_PATH
from soft_sglang.cpu.defaults import MIN_KV_TOKENS, cpu_defaults
from soft_sglang.options import ServerOptions
from soft_sglang.server.arguments import with_defaults

REFUSED_STARTS = {
    "max-topk": (["--max-topk", "0"], ["max_topk must be an integer from 1 to 1024", "got 0"]),
    "think-end-str": (["--think-end-str", ""], ["think_end_str must be a non-empty string"]),
    "speculative": (
        ["--enable-soft-thinking", "--speculative-algorithm", "NGRAM"],
        ["soft-sglang does not support", "--speculative-algorithm", "sglang serve"],
    ),
}
"""By name: flags, and what the message must contain."""

REFUSED_VALUES = {
    "max-topk 5000": (["--max-topk", "5000"], "max_topk must be an integer from 1 to 1024"),
    "max-topk -1": (["--max-topk", "-1"], "max_topk must be an integer from 1 to 1024"),
    "max-topk x": (["--max-topk", "x"], "argument --max-topk: invalid int value"),
    "think-end-str": (["--think-end-str="], "think_end_str must be a non-empty string"),
}
"""The same, within this process."""

VERSION = Version(metadata.version("sglang"))
LATER = {
    flag: [flag]
    for since, flag in [
        ("0.5.22", "--enable-watermark"),
        ("0.5.23", "--enable-nvidia-megakernel"),
        ("0.5.23", "--enable-amd-monokernel"),
    ]
    if Version(since) <= VERSION
}

SUPPORTED = {
    "--enable-dp-attention": ["--enable-dp-attention", "--tp", "2", "--dp", "2"],
    "--tokenizer-worker-num": ["--tokenizer-worker-num", "2"],
}
if Version("0.5.22") <= VERSION:
    SUPPORTED["--attn-dp-size"] = ["--attn-dp-size", "2", "--tp", "2"]

UNSUPPORTED = {
    "--speculative-algorithm": ["--speculative-algorithm", "NGRAM"],
    "--decoupled-spec-role": ["--decoupled-spec-role", "drafter"],
    "--enable-pd-role-switch": ["--disaggregation-mode", "prefill", "--enable-pd-role-switch"],
    "--disaggregation-decode-enable-offload-kvcache": [
        *("--disaggregation-mode", "decode", "--disaggregation-decode-enable-offload-kvcache"),
        *("--hicache-storage-backend", "file"),
    ],
    "of a pipeline": ["--disaggregation-mode", "prefill", "--pp-size", "2"],
    "--dllm-algorithm": ["--dllm-algorithm", "LowConfidence"],
    "--enable-pdmux": ["--enable-pdmux"],
    "--smg-grpc-mode": ["--grpc-mode"],
    "--attn-cp-size": ["--attn-cp-size", "2", "--tp", "2"],
    "--enable-two-batch-overlap": ["--enable-two-batch-overlap"],
    "--enable-adaptive-dispatch-to-encoder": ["--enable-adaptive-dispatch-to-encoder"],
    **LATER,
}
"""By the flag that the message names."""

SMALL = {"num_hidden_layers": 16, "num_key_value_heads": 8, "head_dim": 64}
"""Of a model whose key-value pairs take 64 KiB per token."""


@pytest.fixture(scope="module")
def refused_starts(tmp_path_factory):
    """The ends of servers that must not start, by name; they run side by side."""
    folder = tmp_path_factory.mktemp("refused")

    def start(flags):
        return subprocess.run(
            [sys.executable, "-m", "soft_sglang.launch_server", *flags],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=600,
            check=False,
        )

    with ThreadPoolExecutor() as threads:
        runs = {name: threads.submit(start, flags) for name, (flags, _) in REFUSED_STARTS.items()}
    return {name: run.result() for name, run in runs.items()}


@pytest.fixture
def parsed():
    """From flags to SGLang's server arguments."""
    from soft_sglang.patches import plugin

    plugin.load()
    from sglang.srt.server_args import prepare_server_args

    return lambda flags: prepare_server_args(with_defaults(flags, on_cpu=True))


@pytest.mark.parametrize("name", REFUSED_STARTS)
def test_server_does_not_start(refused_starts, name):
    run = refused_starts[name]
    assert run.returncode not in (0, None)
    message = run.stderr.strip().splitlines()[-1]
    for words in REFUSED_STARTS[name][1]:
        assert words in message
    assert "Load weight" not in run.stderr


@pytest.mark.parametrize("name", REFUSED_VALUES)
def test_value_is_refused(name, parsed, capsys):
    flags, message = REFUSED_VALUES[name]
    with pytest.raises(SystemExit) as caught:
        parsed(flags)
    assert caught.value.code not in (0, None)
    assert message in f"{caught.value.code}{capsys.readouterr().err}"


@pytest.mark.parametrize("flag", UNSUPPORTED)
def test_unsupported_mode_is_refused_only_where_soft_thinking_is_wanted(flag, parsed):
    from soft_sglang.patches.front_end.server_args import refuse_unsupported
    from soft_sglang.patches.options import attach_options, options_of

    arguments = parsed(UNSUPPORTED[flag])
    refuse_unsupported(None, arguments)
    attach_options(arguments, replace(options_of(arguments), required=True))
    with pytest.raises(ValueError, match=flag):
        refuse_unsupported(None, arguments)


@pytest.mark.parametrize("flag", SUPPORTED)
def test_supported_mode(flag, parsed):
    from soft_sglang.patches.unsupported_modes import unsupported_mode

    assert unsupported_mode(parsed(SUPPORTED[flag])) is None


@pytest.mark.parametrize("flags", [[], ["--enable-soft-thinking", "--max-topk", "7"]], ids=str)
def test_flags_reach_the_server(flags, parsed):
    from soft_sglang.patches.options import options_of

    expected = ServerOptions(enable_soft_thinking=True, max_topk=7, required=True)
    assert options_of(parsed(flags)) == (expected if flags else ServerOptions())


def _value(argv, flag):
    return argv[argv.index(flag) + 1]


def test_without_a_model_it_is_the_bundled_one():
    argv = with_defaults(["--port", "1"], on_cpu=False)
    assert argv[:2] == ["--port", "1"]
    assert _value(argv, "--model-path") == MODEL_PATH
    assert _value(argv, "--served-model-name") == "soft-sglang-bundled"
    assert _value(argv, "--reasoning-parser") == "qwen3"
    assert "--device" not in argv


@pytest.mark.parametrize(
    "given", [["--model-path", "m"], ["--model-path=m"], ["--model", "m"], ["--config", "c.yaml"]]
)
def test_a_model_is_left_alone(given):
    assert with_defaults(given, on_cpu=False) == given


@pytest.mark.parametrize("form", [["--served-model-name", "s"], ["--served-model-name=s"]])
def test_what_is_given_is_kept(form):
    argv = with_defaults([*form, "--reasoning-parser", "qwen3"], on_cpu=False)
    assert argv[: len(form)] == form
    assert sum(arg.startswith("--served-model-name") for arg in argv) == 1
    assert argv.count("--reasoning-parser") == 1


def test_defaults_for_a_cpu():
    argv = with_defaults(["--attention-backend=x"], on_cpu=True)
    assert _value(argv, "--device") == "cpu"
    assert sum(arg.startswith("--attention-backend") for arg in argv) == 1
    for name, value in cpu_defaults(MODEL_PATH).items():
        flag = "--" + name.replace("_", "-")
        if name != "attention_backend":
            assert argv.count(flag) == 1
            assert value is True or _value(argv, flag) == str(value)


@pytest.mark.parametrize("form", [["--model-path", "{}"], ["--model-path={}"], ["--model", "{}"]])
def test_key_value_budget_is_that_of_the_given_model(form, tmp_path):
    AutoConfig.for_model("llama", **SMALL).save_pretrained(tmp_path)
    argv = with_defaults([part.format(tmp_path) for part in form], on_cpu=True)
    assert _value(argv, "--max-total-tokens") == str(16384)


@pytest.mark.parametrize(("stored", "runs"), [("float32", "float32"), ("bfloat16", "auto")])
def test_float32_checkpoint_stays_float32_on_a_cpu(tmp_path, stored, runs):
    AutoConfig.for_model("llama", **SMALL, dtype=stored).save_pretrained(tmp_path)
    assert _value(with_defaults(["--model", str(tmp_path)], on_cpu=True), "--dtype") == runs


def test_key_value_budget_of_a_model_named_in_a_file_is_the_least():
    argv = with_defaults(["--config", "c.yaml"], on_cpu=True)
    assert _value(argv, "--max-total-tokens") == str(MIN_KV_TOKENS)


def test_given_arguments_are_not_changed():
    given = ["--port", "1"]
    with_defaults(given, on_cpu=True)
    assert given == ["--port", "1"]
