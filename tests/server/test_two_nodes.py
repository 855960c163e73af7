"""Two nodes, here two launches on one machine, give what one process gives."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asking import PROMPT, same_trace
from server_process import READY_WITHIN, Server, free_port

pytestmark = pytest.mark.slow

MODES = {"tensor parallelism": ["--tp", "2"], "pipeline": ["--pp-size", "2"]}
SAMPLING = {"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 60, "sampling_seed": 11}
_SOFT = {"return_concepts": True, "max_topk": 5, "after_thinking_temperature": 0}
REQUESTS: list[dict[str, Any]] = [
    {**SAMPLING, "soft_thinking": _SOFT},
    {**SAMPLING, "soft_thinking": {**_SOFT, "noise": "gumbel"}},
    {**SAMPLING, "soft_thinking": {**_SOFT, "noise": "dirichlet", "dirichlet_alpha": 5.0}},
    {
        **SAMPLING,
        "soft_thinking": {
            **_SOFT,
            "early_stopping_entropy_threshold": 100,
            "early_stopping_length_threshold": 9,
        },
    },
    {**SAMPLING, "soft_thinking": {**_SOFT, "policy": "swi_reasoning"}},
    {**SAMPLING, "temperature": 0},
]


@contextmanager
def two_nodes(folder: Path, *flags: str, without: int | None = None) -> Iterator[list[Server]]:
    """Both nodes, a core each; the first one answers when it is ready.

    ``without``: rank of a node whose scheduler does not load the plugin.
    """
    address = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        nodes = []
        for rank in range(2):
            own = folder / str(rank)
            own.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SGLANG_CPU_OMP_THREADS_BIND", str(rank))
                if rank == without:
                    patch.setenv("SGLANG_PLUGINS", "none")
                meet = ["--nnodes", "2", "--node-rank", str(rank), "--dist-init-addr", address]
                nodes.append(Server(own, *meet, *flags))
            stack.callback(nodes[-1].stop)
        yield nodes


def ask(server: Server) -> list[dict[str, Any]]:
    with server.http() as http:
        request = {"text": [PROMPT] * len(REQUESTS), "sampling_params": REQUESTS}
        answer = http.post("/generate", json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("mode", MODES)
def test_they_give_what_one_process_gives(mode, server, tmp_path):
    expected = ask(server)
    with two_nodes(tmp_path, *MODES[mode]) as (first, _):
        first.wait_until_ready()
        outputs = ask(first)
    for output, one in zip(outputs, expected, strict=True):
        assert output["output_ids"] == one["output_ids"]
        soft, alone = (o["meta_info"].get("soft_thinking") for o in (output, one))
        assert (soft is None) == (alone is None)
        assert soft is None or same_trace(soft, alone)


@pytest.mark.parametrize("without", [0, 1])
def test_a_node_without_the_plugin_stops_the_start(without, tmp_path):
    """The node that has the plugin names the other one's rank, whichever of them it is."""
    with two_nodes(tmp_path, "--pp-size", "2", without=without) as nodes:
        witness = nodes[1 - without]
        deadline = time.monotonic() + READY_WITHIN
        while witness.alive:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        log = witness.log.read_text()
        assert f"runs without the plugin (not loaded by rank {without} of 2" in log
        assert not nodes[0].is_healthy()
