"""deploy/ says what is there: the files parse, and the commands, paths, settings and probes that they name exist."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.balancer import haproxy
from milepost import app as composition
from milepost import cli, commands
from milepost.engine.tuning import Tuning
from milepost.settings import Settings
from milepost.store.settings import PostgresSettings
from milepost.wire.limits import WireLimits

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "deploy.md"
LAST_WORDS = 5.0
"""Seconds that connections may stay open after the drain (serving.py)."""


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return read


def kubernetes() -> dict[str, dict[str, Any]]:
    """The objects by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    return spec


def commands_named() -> Iterator[list[str]]:
    """Every `milepost` command line of the three files."""
    yield list(compose()["services"]["replica"]["command"])
    server = pod()["containers"][0]
    yield [*server["command"], *server["args"]]
    for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("CMD "):
            yield list(ast.literal_eval(line.removeprefix("CMD ")))


def environment_named() -> set[str]:
    service = compose()["services"]["replica"]["environment"]
    return {*service, *(one["name"] for one in pod()["containers"][0]["env"])}


def test_every_command_is_one_that_milepost_understands() -> None:
    lines = list(commands_named())
    assert len(lines) == 3
    for program, *arguments in lines:
        assert program == "milepost"
        command, bound, _ = cli.app.parse_args(arguments, exit_on_error=False, print_error=False)
        assert command is commands.serve
        assert bound.arguments["host"] == "0.0.0.0"  # noqa: S104
        assert bound.arguments["port"] == 8000


def test_every_target_is_a_file_with_that_name_in_it() -> None:
    for line in commands_named():
        file, name = line[2].split(":")
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        targets = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
        assert name in {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_variable_is_a_setting() -> None:
    known = {
        f"MILEPOST_{section}_{field.name}".upper()
        for section in ("engine", "http", "store", "sessions", "postgres", "log")
        for field in dataclasses.fields(Settings.model_fields[section].default)
    }
    assert environment_named() == {"MILEPOST_STORE_URL"}
    assert environment_named() <= known


def test_every_path_exists() -> None:
    replica, balancer = compose()["services"]["replica"], compose()["services"]["balancer"]
    context = (DEPLOY / replica["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / replica["build"]["dockerfile"]).is_file()
    assert all((DEPLOY / volume.split(":")[0]).is_file() for volume in balancer["volumes"])
    for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in shlex.split(line)[1:-1]), line


def test_the_probes_ask_what_the_app_answers() -> None:
    answered = set(re.findall(r'path == "(/\w+)"', Path(composition.__file__).read_text("utf-8")))
    server = pod()["containers"][0]
    probes = {name: server[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert set(probes.values()) <= answered
    assert "/readyz" in str(compose()["services"]["replica"]["healthcheck"]["test"])
    assert "GET /readyz" in (DEPLOY / "haproxy.cfg").read_text("utf-8")


def test_every_replica_is_given_the_time_that_a_drain_may_take() -> None:
    tuning = Tuning()
    drain = max(tuning.drain_limit + tuning.unwind_grace, WireLimits().drain_grace) + LAST_WORDS
    server = pod()["containers"][0]
    assert pod()["terminationGracePeriodSeconds"] > server["lifecycle"]["preStop"]["sleep"]["seconds"] + drain
    assert float(compose()["services"]["replica"]["stop_grace_period"].removesuffix("s")) > drain


def test_the_objects_of_kubernetes_mean_the_same_pods() -> None:
    found = kubernetes()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    ports = {port["name"] for port in pod()["containers"][0]["ports"]}
    assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} <= ports
    assert found["Service"]["spec"]["sessionAffinity"] == "None"


def test_nobody_keeps_a_client_on_one_replica_or_sends_a_request_twice() -> None:
    text = (DEPLOY / "haproxy.cfg").read_text("utf-8")
    said = [line.strip() for line in text.splitlines() if not line.strip().startswith("#")]
    assert "balance roundrobin" in said
    assert "retry-on conn-failure 503" in said, "only where nothing was begun"
    assert not any("cookie" in line or "stick" in line for line in said)


def test_the_balancers_configuration_is_valid_where_there_is_one_to_ask() -> None:
    programs: Sequence[str] = [found for found in (haproxy(),) if found is not None]
    for program in programs:
        checked = subprocess.run(
            [program, "-c", "-f", DEPLOY / "haproxy.cfg"], capture_output=True, text=True, timeout=20, check=False
        )
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml", "haproxy.cfg", "Dockerfile"])
def test_the_page_leads_to_every_file(name: str) -> None:
    assert f"(../deploy/{name})" in PAGE.read_text("utf-8")


def test_the_page_counts_the_connections_that_a_replica_has() -> None:
    held, starting = 1, 1
    assert f"{PostgresSettings().pool} + {held} + {starting}" in PAGE.read_text("utf-8")


def test_every_milepost_command_on_the_page_exists() -> None:
    for line in PAGE.read_text("utf-8").splitlines():
        for found in re.findall(r"(?:^|[`\s])milepost ((?:serve|lanes|runs \w+|store \w+))", line):
            words = found.split()
            shown = cli.app
            for word in words:
                assert word in shown, f"milepost {found}"
                shown = shown[word]
