"""The commands of docs/cluster.md, Compose and Kubernetes, before the programs that get them."""

import argparse
import subprocess
import sys
import time

import httpx
import pytest
from cluster_files import (
    COMPOSE_FILES,
    GATEWAY,
    PAGE,
    SERVER,
    composed,
    containers,
    docker_compose,
    dockerfile_of,
    every_flags_for,
    health_url,
    page_commands,
)
from sglang_router.router_args import RouterArgs

from soft_sglang.server.arguments import with_defaults

SERVERS, GATEWAYS = every_flags_for(SERVER), every_flags_for(GATEWAY)
MODES = {
    "--tp 4 --enable-metrics": {"tp_size": 4, "enable_metrics": True},
    "--dp 2": {"dp_size": 2},
    "--tp 8 --pp-size 2 --nnodes 2 --node-rank 0": {"pp_size": 2, "nnodes": 2, "node_rank": 0},
    "--tp 8 --pp-size 2 --nnodes 2 --node-rank 1": {"pp_size": 2, "nnodes": 2, "node_rank": 1},
    "--tp 8 --dp 8 --enable-dp-attention": {"tp_size": 8, "enable_dp_attention": True},
    "--disaggregation-mode prefill": {
        "disaggregation_mode": "prefill",
        "disaggregation_transfer_backend": "nixl",
        "disaggregation_bootstrap_port": 8998,
    },
    "--disaggregation-mode decode": {
        "disaggregation_mode": "decode",
        "disaggregation_transfer_backend": "nixl",
    },
}
"""By flags that stand together on the page: what SGLang must understand."""
OTHER_PROGRAMS = {"cd", "docker", "kubectl"}
PAGE_COMMANDS = page_commands()

_START_GATEWAY = """
import argparse, sys
from sglang_router.router import Router
from sglang_router.router_args import RouterArgs
parser = argparse.ArgumentParser()
RouterArgs.add_cli_args(parser)
Router.from_args(RouterArgs.from_cli_args(parser.parse_args())).start()
"""
"""The gateway's own module would import SGLang, which it does not have in its image."""


@pytest.fixture(scope="module")
def parsed():
    """From flags to SGLang's server arguments, with the bundled model in place of theirs."""
    from soft_sglang.patches import plugin

    plugin.load()
    from sglang.srt.server_args import prepare_server_args

    return lambda flags: prepare_server_args(with_defaults(without_model(flags), on_cpu=True))


def without_model(flags):
    """Flags without ``--model-path``: a model of another size is not at hand."""
    flags = [word for flag in flags for word in flag.split("=", 1)]
    if "--model-path" in flags:
        position = flags.index("--model-path")
        del flags[position : position + 2]
    return flags


def gateway_arguments(flags):
    """From flags to the gateway's arguments."""
    parser = argparse.ArgumentParser()
    RouterArgs.add_cli_args(parser)
    return RouterArgs.from_cli_args(parser.parse_args(flags))


def test_the_page_has_commands_for_these_programs_only():
    programs = {words[0] for words in PAGE_COMMANDS if words[0] != "python"}
    assert programs == OTHER_PROGRAMS
    modules = {tuple(words[1:3]) for words in PAGE_COMMANDS if words[0] == "python"}
    assert modules == {("-m", SERVER), ("-m", GATEWAY)}


@pytest.mark.parametrize("name", SERVERS)
def test_sglang_takes_the_flags(name, parsed):
    parsed(SERVERS[name])


def test_sglang_refuses_a_flag_that_it_does_not_have(parsed):
    with pytest.raises(SystemExit):
        parsed(["--no-such-flag"])


@pytest.mark.parametrize("mode", MODES)
def test_sglang_understands_the_mode(mode, parsed):
    commands = [flags for flags in SERVERS.values() if mode in " ".join(flags)]
    assert len(commands) == 1, "no command, or several, for this mode"
    arguments = parsed(commands[0])
    assert {name: getattr(arguments, name) for name in MODES[mode]} == MODES[mode]


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_gateway_takes_the_flags(name):
    assert gateway_arguments(GATEWAYS[name]).policy == "cache_aware"


def test_the_gateway_refuses_a_flag_that_it_does_not_have():
    with pytest.raises(SystemExit):
        gateway_arguments(["--no-such-flag"])


def test_the_gateway_is_told_of_prefill_and_decode_servers():
    (flags,) = [flags for flags in GATEWAYS.values() if "--pd-disaggregation" in flags]
    arguments = gateway_arguments(flags)
    assert arguments.pd_disaggregation
    assert arguments.prefill_urls == [("http://prefill-0:30000", 8998)]
    assert arguments.decode_urls == ["http://decode-0:30000"]


def test_the_workers_of_the_page_are_those_of_its_gateway():
    page = [flags for name, flags in SERVERS.items() if name.startswith("page")]
    ports = [int(flags[flags.index("--port") + 1]) for flags in page if "--port" in flags]
    (urls,) = [
        arguments.worker_urls
        for name, flags in GATEWAYS.items()
        if name.startswith("page") and (arguments := gateway_arguments(flags)).worker_urls
    ]
    assert urls == [f"http://127.0.0.1:{port}" for port in ports]


@pytest.mark.parametrize(
    "words", [words for words in PAGE_COMMANDS if words[:2] == ["docker", "compose"]], ids=" ".join
)
def test_docker_compose_takes_its_commands(words, monkeypatch):
    monkeypatch.chdir(PAGE.parent.parent / "docker" / "cluster")
    done = docker_compose(*words[2:], "--help")  # help comes after the flags are understood
    assert (done.returncode, done.stderr) == (0, "")
    assert docker_compose(*words[2:], "--no-such-flag", "--help").returncode != 0
    assert docker_compose(*words[2 : words.index("up")], "config", "-q").returncode == 0


def probes(name):
    """Paths that Kubernetes asks a workload's pods for."""
    return {
        container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        if probe in (container := containers()[name])
    }


def health_paths(*names):
    """Paths that Docker asks services for."""
    return {
        httpx.URL(health_url(dockerfile_of(composed(variant)["services"][name]))).path
        for variant in COMPOSE_FILES
        for name in names
    }


def test_a_worker_has_the_routes_that_probes_ask():
    from sglang.srt.entrypoints.http_server import app

    routes = {route.path for route in app.routes if "GET" in (getattr(route, "methods", ()) or ())}
    asked = probes("worker") | health_paths("worker-1", "worker-2")
    assert asked == {"/health", "/ready"}
    assert asked <= routes


def test_the_gateway_starts_with_its_flags_and_has_the_routes_that_probes_ask(free_ports, tmp_path):
    """Its workers are not there, so that it is alive and not ready."""
    port, metrics_port = free_ports
    own = ["--host", "127.0.0.1", "--port", str(port)]
    own += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)]
    flags = [*GATEWAYS["gpu gateway"], *own]
    asked = probes("gateway") | health_paths("gateway")
    assert asked == {"/liveness", "/readiness"}
    with (tmp_path / "gateway.log").open("w") as log:
        gateway = subprocess.Popen(
            [sys.executable, "-c", _START_GATEWAY, *flags], stdout=log, stderr=log, cwd=tmp_path
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/liveness", gateway)
        answers = {path: httpx.get(url + path).status_code for path in asked}
        assert answers == {"/liveness": 200, "/readiness": 503}
        assert httpx.get(f"{url}/no-such-route").status_code == 404
        metrics = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics")
        assert "smg_http_requests_total" in metrics.text
        # a media type that Prometheus 3 refuses to do without
        assert metrics.headers["content-type"].startswith("text/plain")
    finally:
        gateway.terminate()
        assert gateway.wait(timeout=60) is not None


def wait_for(url, process):
    """Until the URL answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the gateway has ended"
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError(url)


@pytest.fixture
def free_ports():
    """Two ports that nobody listens at."""
    import socket

    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
