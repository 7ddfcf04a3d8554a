"""The compose file and the image say what they should; neither is built here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.settings import Settings

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_every_process_of_the_product_has_a_service(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "kafka", "migrate", "worker", "relay"}
    assert services["worker"]["deploy"]["replicas"] == 2


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    for service in services.values():
        assert re.fullmatch(r"[a-z/-]+:\d+\.\d+[\w.-]*", service["image"])


def test_every_service_that_stays_has_a_health_check(services: dict[str, Any]) -> None:
    checked = {name for name, service in services.items() if "healthcheck" in service}
    assert checked == set(services) - {"migrate"}


def test_nothing_works_before_the_migration(services: dict[str, Any]) -> None:
    for name in ("worker", "relay"):
        condition = services[name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_setting_in_the_compose_file_is_one_that_we_read(services: dict[str, Any]) -> None:
    names = {name for name in services["worker"]["environment"] if name.startswith("SAGA_")}
    known = {f"SAGA_{field}".upper() for field in Settings.model_fields}
    assert names <= known


def test_what_the_image_copies_exists_and_reaches_the_build() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    allowed = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_the_image_does_not_run_as_root() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^USER (\w+)$", dockerfile, re.MULTILINE) == ["saga"]


def test_the_metrics_of_a_container_can_be_reached_from_outside_of_it() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"SAGA_METRICS_HOST=(\S+)", dockerfile) == ["0.0.0.0"]
