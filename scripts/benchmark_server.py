"""A running server over HTTP: soft against discrete decoding, side by side.

    benchmark_server.py --model-path Qwen/Qwen3-8B -- --attention-backend triton
    benchmark_server.py --shape qwen3-8b --json result.json
    benchmark_server.py --url http://127.0.0.1:30000 --concurrency 1 8

Starts a server, or takes the one at ``--url``. The load is SGLang's own, of
``sglang.benchmark.serving``: random prompts and outputs of a fixed length, streamed, a given number
of requests at a time. Rounds alternate between soft and discrete; the medians over the rounds are
compared. Before that, each concurrency is warmed up with requests whose answers are checked: all of
them have the full length, and soft ones think to their end, because the think-end token is biased
away in both modes.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import statistics
import string
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import machine
from support.launched_server import decode_steps_in_graphs, launched
from support.model_shapes import SHAPES, create

from soft_sglang.cpu.environment import prepare

SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 30, "min_p": 0.001}
"""The paper's."""
SOFT = {"max_topk": 10, "early_stopping_entropy_threshold": 0}
MODES = ("discrete", "soft")
FIGURES = {
    "tokens_per_s": "output tokens/s",
    "server_tokens_per_s": "tokens/s, server's log",
    "ttft_median_ms": "TTFT median, ms",
    "ttft_p99_ms": "TTFT p99, ms",
    "tpot_median_ms": "TPOT median, ms",
    "itl_median_ms": "ITL median, ms",
    "itl_p99_ms": "ITL p99, ms",
}
DECODE_LOG_INTERVAL = 40
"""Decode steps between two lines of the server's log, unless a flag changes it."""
SERVER_FLAGS = (
    "model_path",
    "load_format",
    "dtype",
    "device",
    "tp_size",
    "dp_size",
    "attention_backend",
    "sampling_backend",
    "disable_overlap_schedule",
    "enable_torch_compile",
    "disable_radix_cache",
    "page_size",
    "chunked_prefill_size",
    "mem_fraction_static",
    "stream_interval",
)


Figures = dict[int, dict[str, list[dict[str, float]]]]
"""By concurrency, mode, round and name."""


class Server:
    """What the benchmark asks of a running server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, route: str) -> Any:
        return self._answer(urllib.request.Request(self.url + route))

    def post(self, route: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        data = json.dumps(body).encode()
        return self._answer(urllib.request.Request(self.url + route, data, headers))

    def tokens(self, text: str) -> list[int]:
        body = {"prompt": text, "add_special_tokens": False}
        return list(self.post("/tokenize", body)["tokens"])

    def think_end(self) -> int:
        """Id of the token that ends thinking unless a request says otherwise."""
        info = self.get("/soft_thinking_info")
        if info["unsupported"]:
            raise SystemExit(f"the server cannot think softly: {info['unsupported']}")
        fields = next(s for s in info["schema"]["anyOf"] if "properties" in s)["properties"]
        (token,) = self.tokens(fields["think_end_str"]["default"])
        return token

    def description(self) -> dict[str, Any]:
        """Its flags as it resolved them, and what its graphs take."""
        info = self.get("/server_info")
        state = info["internal_states"][0]
        flags = {name: info.get(name) for name in SERVER_FLAGS}
        graphs = info["cuda_graph_config"]
        return {
            **flags,
            "graphs": {phase: graphs[phase]["backend"] for phase in graphs},
            "decode_graphs_up_to": graphs["decode"]["max_bs"],
            "version": info["version"],
            "max_running_requests": state["effective_max_running_requests_per_dp"],
            "memory": state["memory_usage"],
        }

    @staticmethod
    def _answer(request: urllib.request.Request) -> Any:
        if key := os.environ.get("OPENAI_API_KEY"):  # as sglang.benchmark.serving has it
            request.add_header("Authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=3600) as answer:
            return json.load(answer)


class Benchmark:
    """Soft and discrete requests of one length, at several concurrencies."""

    def __init__(self, server: Server, arguments: argparse.Namespace) -> None:
        self.server = server
        self.input_len: int = arguments.input_len
        self.output_len: int = arguments.output_len
        self.waves: int = arguments.waves
        self.tokenizer = arguments.tokenizer or server.get("/model_info")["tokenizer_path"]
        self.think_end = server.think_end()
        self.letters = server.tokens(string.ascii_lowercase + string.digits)

    def sampling(self, mode: str) -> dict[str, Any]:
        """Sampling parameters of every request of a mode."""
        return {
            **SAMPLING,
            "max_new_tokens": self.output_len,
            "ignore_eos": True,
            "logit_bias": {str(self.think_end): -100.0},
            "soft_thinking": SOFT if mode == "soft" else False,
        }

    def check(self, mode: str, concurrency: int) -> None:
        """Warm up, and demand that the requests do what is going to be measured.

        Raises:
            SystemExit: an answer is shorter, or thought less or more, than it should have.
        """
        choose = random.Random(f"{mode} {concurrency}").choices
        prompts = [choose(self.letters, k=self.input_len) for _ in range(concurrency)]
        body = {"input_ids": prompts, "sampling_params": self.sampling(mode)}
        for answer in self.server.post("/generate", body):
            meta = answer["meta_info"]
            thought = meta.get("soft_thinking", {}).get("steps")
            wanted = self.output_len if mode == "soft" else None
            if meta["completion_tokens"] != self.output_len or thought != wanted:
                raise SystemExit(
                    f"a {mode} request gave {meta['completion_tokens']} tokens and {thought} "
                    f"thinking steps instead of {self.output_len} and {wanted}"
                )

    def run(self, mode: str, concurrency: int, seed: int) -> dict[str, float]:
        """The figures of one run of SGLang's benchmark.

        Raises:
            SystemExit: a request failed or ended early.
        """
        requests = concurrency * self.waves
        with tempfile.TemporaryDirectory() as folder:
            result = _sglang_benchmark(
                Path(folder, "result.jsonl"),
                base_url=self.server.url,
                model=self.tokenizer,
                tokenizer=self.tokenizer,
                num_prompts=requests,
                max_concurrency=concurrency,
                random_input_len=self.input_len,
                random_output_len=self.output_len,
                seed=seed,
                extra_request_body=json.dumps({"sampling_params": self.sampling(mode)}),
            )
        errors = [error for error in result["errors"] if error]
        if errors or result["output_lens"] != [self.output_len] * requests:
            raise SystemExit(
                f"{mode}, {concurrency} at a time: not all of {requests} answers have "
                f"{self.output_len} tokens: {errors[:1] or result['output_lens']}"
            )
        figures = {
            "tokens_per_s": result["output_throughput"],
            "ttft_median_ms": result["median_ttft_ms"],
            "ttft_p99_ms": result["p99_ttft_ms"],
            "tpot_median_ms": result["median_tpot_ms"],
            "itl_median_ms": result["median_itl_ms"],
            "itl_p99_ms": result["p99_itl_ms"],
        }
        if self.output_len >= 2 * DECODE_LOG_INTERVAL:  # else its last line is of other steps too
            states = result["server_info"]["internal_states"]
            figures["server_tokens_per_s"] = sum(s["last_gen_throughput"] for s in states)
        return figures


def _sglang_benchmark(output: Path, **flags: Any) -> dict[str, Any]:
    """Run the command line of ``sglang.benchmark.serving`` in this process; its result."""
    from sglang.benchmark import serving

    command = ["serving", "--backend", "sglang", "--dataset-name", "random-ids"]
    command += ["--random-range-ratio", "1", "--tokenize-prompt", "--flush-cache"]
    command += ["--disable-tqdm", "--output-details", "--output-file", str(output)]
    for name, value in flags.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    before, sys.argv = sys.argv, command
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            serving.cli_main()
    except BaseException:
        print(printed.getvalue()[-4000:], file=sys.stderr)
        raise
    finally:
        sys.argv = before
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def measure(
    benchmark: Benchmark, concurrencies: list[int], rounds: int, deadline: float
) -> Iterator[Figures]:
    """The figures so far, each time that there are new ones.

    A round that would not end before the ``deadline`` (of ``time.monotonic``) is not begun.
    """
    figures: Figures = {}
    needed: dict[int, float] = {}
    for number in range(rounds):
        for concurrency in concurrencies:
            start = time.monotonic()
            if start + needed.get(concurrency, 0.0) > deadline:
                continue
            modes = MODES if number % 2 else MODES[::-1]
            if number == 0:
                for mode in modes:
                    benchmark.check(mode, concurrency)
            row = figures.setdefault(concurrency, {mode: [] for mode in MODES})
            for mode in modes:
                row[mode].append(benchmark.run(mode, concurrency, seed=number))
            needed[concurrency] = time.monotonic() - start
            seconds = needed[concurrency]
            print(f"round {number + 1}, {concurrency} at a time: {seconds:.1f} s", flush=True)
            yield figures


def summary(concurrency: int, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds and their ratio."""
    names = [name for name in FIGURES if name in runs["soft"][0]]
    medians = {
        mode: {name: statistics.median(run[name] for run in runs[mode]) for name in names}
        for mode in MODES
    }
    discrete, soft = medians["discrete"], medians["soft"]
    return {
        "concurrency": concurrency,
        "rounds": len(runs["soft"]),
        **medians,
        "soft_over_discrete": {
            name: soft[name] / discrete[name] if discrete[name] else None for name in names
        },
        "runs": runs,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """One line per concurrency and figure."""
    print(f"{'at a time':>9}  {'':24}{'discrete':>12}{'soft':>12}{'soft/discrete':>15}")
    for row in rows:
        for name, ratio in row["soft_over_discrete"].items():
            print(
                f"{row['concurrency']:9}  {FIGURES[name]:24}{row['discrete'][name]:12.2f}"
                f"{row['soft'][name]:12.2f}{'-' if ratio is None else f'{ratio:.3f}':>15}"
            )


def server_flags(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Flags of the server to start."""
    flags = list(arguments.server_flags)
    if arguments.shape:
        flags += ["--model-path", create(arguments.shape, folder), "--load-format", "dummy"]
    elif arguments.model_path:
        flags += ["--model-path", arguments.model_path]
    return flags


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--url", help="of a running server; default: start one")
    model.add_argument("--model-path", help="of the server to start; default: the bundled model")
    model.add_argument("--shape", choices=SHAPES, help="start one with a model without weights")
    parser.add_argument("--make-model", type=Path, help="only write the --shape to this folder")
    parser.add_argument("--tokenizer", help="default: the server's, read from this machine")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--input-len", type=int, default=256)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--waves", type=int, default=2, help="requests per place and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round later")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--log", type=Path, default=Path("benchmark_server.log"))
    parser.add_argument("server_flags", nargs="*", help="after --: flags of the server to start")
    arguments = parser.parse_args(argv)
    if arguments.url and arguments.server_flags:
        parser.error("the server at --url has its flags already")
    if arguments.make_model and not arguments.shape:
        parser.error("--make-model needs --shape")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse(argv)
    if arguments.make_model:
        print(create(arguments.shape, arguments.make_model))
        return 0
    deadline = time.monotonic() + arguments.seconds
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the server
    prepare()  # the benchmark is imported from SGLang
    with contextlib.ExitStack() as stack:
        url = arguments.url
        if not url:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            flags = server_flags(arguments, folder)
            ready_within = min(arguments.seconds, 1800)
            url = stack.enter_context(launched(flags, arguments.log, ready_within))
        server = Server(url)
        description = server.description()
        if max(arguments.concurrency) > description["max_running_requests"]:
            raise SystemExit(
                f"the server runs {description['max_running_requests']} requests at a time; "
                "choose a smaller --concurrency or another --max-running-requests of the server"
            )
        benchmark = Benchmark(server, arguments)
        names = ("input_len", "output_len", "waves", "rounds", "shape")
        result: dict[str, Any] = {
            "machine": machine.facts(),
            "server": description,
            "settings": {name: getattr(arguments, name) for name in names},
            "sampling": {mode: benchmark.sampling(mode) for mode in MODES},
            "rows": [],
            "not_measured": arguments.concurrency,
        }
        for figures in measure(benchmark, arguments.concurrency, arguments.rounds, deadline):
            result["rows"] = [summary(concurrency, runs) for concurrency, runs in figures.items()]
            result["not_measured"] = [c for c in arguments.concurrency if c not in figures]
            if not arguments.url:
                description["decode_steps_in_graphs"] = decode_steps_in_graphs(arguments.log)
            if arguments.json:  # each time: a run that is stopped leaves what it has
                arguments.json.write_text(json.dumps(result, indent=2))
    print_table(result["rows"])
    if result["not_measured"]:
        print(f"no time for {result['not_measured']} at a time")
    return 0 if result["rows"] else 1


if __name__ == "__main__":
    sys.exit(main())
