"""What is deployed: metrics that exist, rules that Prometheus takes, configurations that are right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import read_config
from pipeline.metrics import Metrics
from pipeline.state import SourceState
from pipeline.workers.sums import Sum

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES, RULE_TESTS = DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "prometheus" / "alerts.test.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "roadlens.json"
DOCKERFILES = ["Dockerfile", "Dockerfile.gpu"]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian's package prometheus) is not installed"
)


def families() -> dict[str, str]:
    """What is counted and timed, by name, and of what kind it is: by a run, and of several processes besides."""
    several = Sum(threading.RLock(), lambda: None, list)
    return {family.name: family.type for family in (*Metrics().registry.collect(), *several.collect())}


def series() -> set[str]:
    """The names of the series that there are."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    return {name + suffix for name, kind in families().items() for suffix in suffixes[kind]}


def expressions() -> list[str]:
    """Every PromQL expression of the dashboard, its variables filled in."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [re.sub(r"\$(instance|stream)", ".*", text).replace("$__rate_interval", "1m") for text in found]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


@pytest.mark.parametrize("path", [RULES, RULE_TESTS, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_there_exists(path: Path) -> None:
    named = set(re.findall(r"\broadlens_[a-z_]+", path.read_text()))
    assert named
    assert named <= series()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(expressions())
    assert {name for name in families() if name not in shown} == set()


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_the_states_asked_for_are_states(path: Path) -> None:
    asked = re.findall(r'roadlens_stream_state\{[^}]*state=~?\\?"([^"\\]+)', path.read_text())
    assert asked
    assert {state for text in asked for state in text.split("|")} <= {state.value for state in SourceState}


@needs_promtool
def test_prometheus_takes_the_rules_and_the_dashboards_expressions(tmp_path: Path) -> None:
    shown = [{"record": f"shown:{index}", "expr": text} for index, text in enumerate(expressions())]
    (tmp_path / "shown.yml").write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": shown}]}))
    for path in (RULES, tmp_path / "shown.yml"):
        done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.seconds
@needs_promtool
def test_every_alert_fires_when_it_should_and_not_before() -> None:
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    assert {case["alertname"] for test in tests for case in test["alert_rule_test"]} == alerts().keys()
    done = subprocess.run(
        ["promtool", "test", "rules", RULE_TESTS.name], cwd=RULE_TESTS.parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "p")
    (tmp_path / "token").touch()
    path = tmp_path / "p" / "prometheus.yml"
    path.write_text(path.read_text().replace("/run/secrets/token", str(tmp_path / "token")))
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.y*ml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_yaml_is_yaml(path: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text()))


def test_the_configurations_are_right_and_the_same_everywhere(tmp_path: Path) -> None:
    (config,) = (
        document["data"]["roadlens.yaml"]
        for document in yaml.safe_load_all((DEPLOY / "kubernetes" / "roadlens.yaml").read_text())
        if document["kind"] == "ConfigMap"
    )
    (tmp_path / "kubernetes.yaml").write_text(config)
    kubernetes = read_config(tmp_path / "kubernetes.yaml")
    ours = read_config(DEPLOY / "roadlens.yaml")
    assert str(kubernetes.serve.token_file) == "/run/secrets/roadlens/token"
    assert (kubernetes.streams, kubernetes.models, kubernetes.outputs) == (ours.streams, ours.models, ours.outputs)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_a_container_file_copies_is_there_and_not_ignored(name: str) -> None:
    lines = (DEPLOY / name).read_text().splitlines()
    copied = [word for line in lines if re.match(r"COPY (?!--from)", line) for word in line.split()[1:-1]]
    kept = {line[1:] for line in (DEPLOY / f"{name}.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == kept
    assert all((DEPLOY.parent / path).exists() for path in copied)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]


@pytest.mark.parametrize(
    ("dockerfile", "name", "extras"),
    [
        ("Dockerfile", "requirements.txt", ["mcap", "serve"]),
        ("Dockerfile.gpu", "requirements-gpu.txt", ["gpu", "mcap", "serve"]),
    ],
)
def test_every_package_of_an_image_is_named_by_its_hash(dockerfile: str, name: str, extras: list[str]) -> None:
    assert f"--require-hashes -r deploy/{name}" in (DEPLOY / dockerfile).read_text()
    lines = (DEPLOY / name).read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert len(packages) > 20
    assert all("==" in line and "--hash=sha256:" in line for line in packages)
    assert not [line for line in lines if "://" in line], "no registry is named"
    named = {re.split(r"[=\[ ]", line)[0].lower().replace("_", "-") for line in packages}
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    wanted = [each for each in wanted if ";" not in each]
    assert {re.split(r"[<>=!\[ ]", each)[0].lower().replace("_", "-") for each in wanted} <= named


def test_a_network_policy_lets_only_those_in_and_out_that_are_named() -> None:
    folder = DEPLOY / "kubernetes"
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert set(resources) == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    policy = yaml.safe_load((folder / "network.yaml").read_text())["spec"]
    deployment = next(
        document for document in yaml.safe_load_all((folder / "roadlens.yaml").read_text())
        if document["kind"] == "Deployment"
    )  # fmt: skip
    pod = deployment["spec"]["template"]
    assert policy["podSelector"]["matchLabels"] == pod["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [
        port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]
    ]
    for rule in policy["egress"]:
        assert rule["to"], "not everybody"
        assert rule["ports"], "not every port"


def test_what_compose_mounts_is_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    assert all((DEPLOY / mount).exists() for mount in mounts if mount.startswith("."))
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "nothing is open to other machines"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / "roadlens.service"
    text = (DEPLOY / "systemd" / "roadlens.service").read_text()
    unit.write_text(text.replace("/opt/roadlens/bin/roadlens", str(Path(sys.executable).with_name("roadlens"))))
    for command in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run(["systemd-analyze", *command, unit], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "Type=exec" in text, "roadlens does not speak sd_notify"
    assert "WatchdogSec" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_containers_command_line_and_its_health_check(name: str, tmp_path: Path) -> None:
    """As the container runs it, but for the port and the folders, which are not this machine's to take."""
    text = (DEPLOY / name).read_text()
    words = [json.loads(list_) for list_ in re.findall(r"^(?:  )?(?:CMD|ENTRYPOINT) (\[.*\])$", text, re.MULTILINE)]
    health, entrypoint, command = words
    path = tmp_path / "roadlens.yaml"
    path.write_text((DEPLOY / "roadlens.yaml").read_text().replace("/var/lib/roadlens", str(tmp_path)))
    command = [str(path) if word == "/etc/roadlens/roadlens.yaml" else word for word in command]
    environment = {**os.environ, "ROADLENS_TOKEN": "0123456789abcdef", "ROADLENS_CACHE": str(tmp_path / "cache")}
    roadlens = Path(sys.executable).with_name(entrypoint[0])
    with subprocess.Popen(
        [roadlens, *command, "--port", "0"], env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        try:
            port = next(int(found[1]) for line in process.stderr if (found := re.search(r"serves at \S+:(\d+)/", line)))
            checking = [sys.executable, *(word.replace("8089", str(port)) for word in health[1:])]
            assert subprocess.run(checking, check=False).returncode == 0
            ready = [word.replace("livez", "readyz") for word in checking]
            deadline = time.monotonic() + 240
            while subprocess.run(ready, check=False, stderr=subprocess.DEVNULL).returncode:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        finally:
            process.terminate()
        assert process.wait(120) == 0
    assert subprocess.run(checking, check=False, stderr=subprocess.DEVNULL).returncode == 1
