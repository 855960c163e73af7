"""Several tokenizer workers (``--tokenizer-worker-num``): each takes and answers soft requests.

Each connection of a client belongs to one worker's process, which accepted it; the tests hold a
connection to each.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import psutil
import pytest
from asking import (
    COLD,
    PROMPT,
    THINK_END,
    TRACED,
    answer_of,
    chat,
    check_answer,
    complete,
    same_trace,
)
from server_process import Server
from streaming import events, read

WORKERS = 2
RUNNING = 4
MAX_TOPK = 16
MOST_CONNECTIONS = 64
NOISY = {**TRACED, "noise": "gumbel"}


class Connection:
    """A client with one open connection, and the worker at its other end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.http = httpx.Client(
            base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=1)
        )
        self.openai = openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=self.http
        )

    def worker(self) -> int:
        """Process id of the worker that answers."""
        response = self.http.get("/health")
        address = response.extensions["network_stream"].get_extra_info("client_addr")
        (worker,) = [
            child.pid
            for child in psutil.Process(self._server.pid).children(recursive=True)
            for connection in child.net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.raddr == address
        ]
        return worker


@pytest.fixture(scope="module")
def crowded_server(tmp_path_factory):
    """A server with several workers that runs few requests at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_TIMEOUT_KEEP_ALIVE", "3600")  # seconds
        server = Server(
            tmp_path_factory.mktemp("workers"),
            *("--tokenizer-worker-num", str(WORKERS), "--max-running-requests", str(RUNNING)),
            *("--max-topk", str(MAX_TOPK)),
        )
    with server.running():
        yield server


@pytest.fixture(scope="module")
def connections():
    """One to each worker, as :func:`workers` found them last."""
    kept: list[Connection] = []
    yield kept
    for connection in kept:
        connection.http.close()


@pytest.fixture
def workers(crowded_server, connections):
    """A connection to each worker; an error or an abort may have closed one."""
    found = {connection.worker(): connection for connection in connections}
    opened = [*connections]
    while len(found) < WORKERS and len(opened) < MOST_CONNECTIONS:
        opened.append(Connection(crowded_server))
        found.setdefault(opened[-1].worker(), opened[-1])
    connections[:] = found.values()
    for connection in opened:
        if connection not in connections:
            connection.http.close()
    assert len(found) == WORKERS, "one worker accepted every connection"
    return list(connections)


@pytest.fixture
def abort(crowded_server):
    """Aborts a request, by its id, through whichever worker."""
    url = f"{crowded_server.url}/abort_request"
    return lambda rid: httpx.post(url, json={"rid": rid}).raise_for_status()


@pytest.fixture
def clients(workers):
    """An openai client at each worker."""
    return [worker.openai for worker in workers]


@pytest.mark.parametrize("ask", [chat, complete], ids=["chat", "completions"])
def test_every_worker_answers_as_a_server_of_one(clients, client, ask):
    cold, noisy = (
        answer_of(ask(client, soft, seed=5, temperature=0.6).choices[0]) for soft in (COLD, NOISY)
    )
    check_answer(cold, "cold_stop")
    check_answer(noisy, "think_end")
    for own in clients:
        choice = ask(own, COLD, seed=5, temperature=0.6).choices[0]
        assert same_trace(answer_of(choice), cold)
        streamed, _ = read(ask(own, NOISY, seed=5, temperature=0.6, stream=True))
        assert same_trace(streamed[0].joined(), noisy)
        assert len(streamed[0].answers) > 1


def test_answers_go_back_to_those_who_asked(clients, client):
    """Batches of both workers' requests, soft and discrete, are taken apart on their way back."""
    seeds = range(4)
    expected = {seed: chat(client, {**NOISY, "max_topk": 3 + seed}, seed=seed) for seed in seeds}
    discrete = chat(client, False, temperature=0).choices[0].message

    def ask(number: int):
        own, seed = clients[number % WORKERS], number // WORKERS % (len(seeds) + 1)
        if seed == len(seeds):
            return chat(own, False, temperature=0), None
        return chat(own, {**NOISY, "max_topk": 3 + seed}, seed=seed), seed

    with ThreadPoolExecutor(4 * WORKERS) as threads:
        answers = list(threads.map(ask, range(5 * WORKERS)))
    for response, seed in answers:
        (choice,) = response.choices
        if seed is None:
            assert choice.message.content == discrete.content
            assert answer_of(choice) is None
        else:
            assert same_trace(answer_of(choice), answer_of(expected[seed].choices[0]))


def test_samples_differ_and_are_replayed(clients):
    first, second = ([*chat(own, NOISY, seed=3, n=2).choices] for own in clients)
    for choice, other in zip(first, second, strict=True):
        assert same_trace(answer_of(choice), answer_of(other))
    assert not same_trace(answer_of(first[0]), answer_of(first[1]))
    one, other = (chat(own, NOISY).choices[0] for own in clients)
    assert not same_trace(answer_of(one), answer_of(other)), "workers draw the same seeds"


@pytest.mark.parametrize(
    ("soft", "said"),
    [
        ({"max_topk": 17}, "soft_thinking.max_topk must be an integer from 1 to 16, got 17"),
        ({"max_tpok": 3}, "max_tpok"),
        ({"policy": "none_of_them"}, "policy"),
        ("yes", "soft_thinking"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_every_worker(clients, soft, said):
    for own in clients:
        for ask in (chat, complete):
            with pytest.raises(openai.BadRequestError, match=said):
                ask(own, soft)


def test_generate_and_the_information_of_every_worker(workers, http):
    info, *others = (worker.http.get("/soft_thinking_info").json() for worker in workers)
    assert others == [info] * (WORKERS - 1)
    assert info["unsupported"] is None
    assert f'"maximum": {MAX_TOPK}' in json.dumps(info["schema"])
    request = {
        "text": PROMPT,
        "sampling_params": {"max_new_tokens": 40, "temperature": 0.6, "soft_thinking": COLD},
    }
    expected = http.post("/generate", json=request).json()["meta_info"]["soft_thinking"]
    assert expected["end"] == "cold_stop"
    for worker in workers:
        answer = worker.http.post("/generate", json=request).json()
        assert same_trace(answer["meta_info"]["soft_thinking"], expected)
        with worker.http.stream("POST", "/generate", json={**request, "stream": True}) as stream:
            *_, last = events(stream.iter_lines())
        assert last["meta_info"]["soft_thinking"]["end"] == "cold_stop"


@pytest.fixture
def endless(token_id):
    """A request that thinks until it is aborted."""
    return {
        "text": PROMPT,
        "stream": True,
        "sampling_params": {
            "max_new_tokens": 2000,
            "ignore_eos": True,
            "logit_bias": {str(token_id(THINK_END)): -100.0},
            "soft_thinking": TRACED,
        },
    }


def _until_aborted(worker, request, on_step=None):
    """The number of steps that the chunks told, and the last chunk."""
    steps, last = 0, {}
    with worker.http.stream("POST", "/generate", json=request) as stream:
        for last in events(stream.iter_lines()):
            steps += len(last["meta_info"]["soft_thinking"]["concepts"])
            if on_step is not None:
                on_step(last["meta_info"]["completion_tokens"])
    return steps, last


def test_an_aborted_request_says_so_to_its_worker(workers, abort, endless):
    for number, worker in enumerate(workers):
        rid = f"running-{number}"
        steps, last = _until_aborted(
            worker, {**endless, "rid": rid}, lambda step, rid=rid: step == 5 and abort(rid)
        )
        answer = last["meta_info"]["soft_thinking"]
        assert last["meta_info"]["finish_reason"]["type"] == "abort"
        assert (answer["end"], answer["steps"]) == ("abort", steps)
        assert steps >= 5


def test_a_request_that_is_aborted_in_the_queue_says_so_to_its_worker(
    crowded_server, workers, abort, endless
):
    rids = [f"occupant-{number}" for number in range(RUNNING)]
    crowd = {**endless, "rid": rids, "text": [PROMPT] * RUNNING}

    def load(what: str) -> int:
        (load,) = httpx.get(f"{crowded_server.url}/v1/loads").json()["loads"]
        return load[what]

    with ThreadPoolExecutor() as threads:
        occupants = threads.submit(_until_aborted, workers[0], crowd)
        _wait_until(lambda: load("num_running_reqs") == RUNNING)
        queued = threads.submit(_until_aborted, workers[1], {**endless, "rid": "queued"})
        _wait_until(lambda: load("num_waiting_reqs") == 1)
        abort("queued")
        _, last = queued.result()
        for rid in rids:
            abort(rid)
        occupants.result()
    assert last["meta_info"]["finish_reason"]["type"] == "abort"
    assert last["meta_info"]["soft_thinking"] == {
        "steps": 0,
        "end": "abort",
        "mean_entropy": 0.0,
        "longest_run": 0,
        "concepts": [],
    }


def _wait_until(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
