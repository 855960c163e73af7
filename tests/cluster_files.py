"""Reading docker/cluster, docker/kubernetes and the commands of docs/cluster.md."""

import json
import os
import re
import shlex
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cluster.md"
DOCKER = ROOT / "docker"
CLUSTER = DOCKER / "cluster"
KUBERNETES = DOCKER / "kubernetes"
DASHBOARD = DOCKER / "grafana" / "soft_thinking.json"
DOCKER_COMPOSE = Path(sysconfig.get_path("scripts"), "docker-compose")
COMPOSE_FILES = {"gpu": ["compose.yaml"], "cpu": ["compose.yaml", "compose.cpu.yaml"]}
SERVER, GATEWAY = "soft_sglang.launch_server", "sglang_router.launch_router"

_BASH = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"\w+=\S*")


def docker_compose(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose, which needs no engine for what is asked of it here."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [DOCKER_COMPOSE, *words], capture_output=True, text=True, env=environment, check=False
    )


@cache
def composed(variant: str) -> dict[str, Any]:
    """What Docker Compose makes of the files of a variant, "gpu" or "cpu"; not to be changed."""
    files = [word for name in COMPOSE_FILES[variant] for word in ("-f", CLUSTER / name)]
    done = docker_compose(*files, "config", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def dockerfile_of(service: dict[str, Any]) -> str | None:
    """Text of the Dockerfile that a service is built from."""
    return (ROOT / build["dockerfile"]).read_text() if (build := service.get("build")) else None


def entrypoint(dockerfile: str) -> list[str]:
    """The words that an image starts with."""
    (words,) = re.findall(r"^ENTRYPOINT (\[.*\])$", dockerfile, re.MULTILINE)
    return json.loads(words)


def health_url(dockerfile: str) -> str:
    """What a Dockerfile's health check asks."""
    (url,) = re.findall(r"^HEALTHCHECK .*\\\n.*urlopen\('(.*?)'", dockerfile, re.MULTILINE)
    return url


def manifests() -> list[dict[str, Any]]:
    """Every Kubernetes object."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    return [
        document
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((KUBERNETES / name).read_text())
    ]


def containers() -> dict[str, dict[str, Any]]:
    """The container of each Kubernetes workload, by the workload's name."""
    return {
        document["metadata"]["name"]: container
        for document in manifests()
        if "template" in document.get("spec", {})
        for container in document["spec"]["template"]["spec"]["containers"]
    }


def container_commands() -> dict[str, list[str]]:
    """The whole commands of the Kubernetes workloads, by name."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    tags = {image["name"]: image["newTag"] for image in kustomization["images"]}
    return {
        name: [
            *entrypoint((DOCKER / f"{tags[container['image']]}.Dockerfile").read_text()),
            *container["args"],
        ]
        for name, container in containers().items()
    }


def compose_commands(variant: str) -> dict[str, list[str]]:
    """The whole commands of the services that are built here, by name."""
    return {
        name: [*entrypoint(dockerfile), *service["command"]]
        for name, service in composed(variant)["services"].items()
        if (dockerfile := dockerfile_of(service))
    }


def page_commands() -> list[list[str]]:
    """The page's commands in order, without variables set before them."""
    lines = "".join(_BASH.findall(PAGE.read_text())).replace("\\\n", " ").splitlines()
    commands = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if words:
            commands.append(words)
    return commands


def flags_for(module: str, command: list[str]) -> list[str] | None:
    """Flags of a command that runs the Python module, None for another command."""
    if command[0] not in ("python", "python3") or command[1:3] != ["-m", module]:
        return None
    return command[3:]


def every_flags_for(module: str) -> dict[str, list[str]]:
    """Flags of each command that runs the module: on the page, in Compose, in Kubernetes."""
    commands = {
        **{f"page {number}": words for number, words in enumerate(page_commands())},
        **{
            f"{variant} {name}": words
            for variant in COMPOSE_FILES
            for name, words in compose_commands(variant).items()
        },
        **{f"kubernetes {name}": words for name, words in container_commands().items()},
    }
    return {
        name: flags
        for name, words in commands.items()
        if (flags := flags_for(module, words)) is not None
    }
