"""The files for containers name only what is there."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from chatserver.settings import Settings
from tests.architecture.tree import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: each for name, each in COMPOSE["services"].items() if each.get("build")}
SETTINGS = {name.upper() for name in Settings.model_fields}
# What .env gives to other services than ours; docs/containers.md explains them.
GUIDE = (ROOT / "docs" / "containers.md").read_text()
OTHERS = re.findall(r"^\| `([A-Z_]+)` \|", GUIDE, re.MULTILINE)


def texts(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for each in part.values():
            yield from texts(each)
    elif isinstance(part, list):
        for each in part:
            yield from texts(each)
    elif isinstance(part, str):
        yield part


def test_every_variable_of_our_services_is_a_setting() -> None:
    assert set(OURS) == {"web-a", "web-b", "worker", "scheduler", "migrate"}
    for name, service in OURS.items():
        assert set(service["environment"]) <= SETTINGS, name


def test_every_variable_of_the_file_is_a_setting_or_explained() -> None:
    named = {
        name
        for text in texts(COMPOSE["services"])
        for name in re.findall(r"\$\{([A-Z0-9_]+)", text)
    }
    assert len(named) > 15
    assert named <= SETTINGS | set(OTHERS)
    assert set(OTHERS) <= named


def test_no_secret_has_a_default() -> None:
    for text in texts({name: each["environment"] for name, each in OURS.items()}):
        for name, rest in re.findall(r"\$\{([A-Z0-9_]+)([^}]*)\}", text):
            if name.endswith(("PASSWORD", "_KEYS", "PEPPER", "OPERATOR_KEY", "SECRET_ACCESS_KEY")):
                assert rest.startswith(":?"), name


def test_the_two_nodes_are_those_that_nginx_knows() -> None:
    nginx = COMPOSE["services"]["nginx"]
    template = (ROOT / "ops" / "nginx.conf.template").read_text()
    filled = set(re.findall(r"\$\{(\w+)\}", re.sub(r"^\s*#.*$", "", template, flags=re.MULTILINE)))
    assert filled == {"LISTEN", "WEB_A", "WEB_B"}
    assert filled <= set(nginx["environment"])
    for place, name in (("WEB_A", "web-a"), ("WEB_B", "web-b")):
        assert nginx["environment"][place] == f"{name}:8000"
        node = OURS[name]["environment"]
        assert node["NODE_URL"] == f"http://{name}:8000"
        assert f"~^{node['NODE_ID']}(-" in template


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_what_a_service_mounts_and_waits_for_is_there(name: str) -> None:
    service = COMPOSE["services"][name]
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        # Prometheus and Grafana bring files of their own, which come with them.
        if source.startswith("./") and service.get("profiles") != ["monitoring"]:
            assert (ROOT / source).exists(), source
        elif not source.startswith("./"):
            assert source in COMPOSE["volumes"]
    assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])
    assert not service["image"].endswith(":latest")


def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    lines = (ROOT / "Dockerfile").read_text()
    last = lines[lines.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert not re.search(r"^(RUN|ENV|ARG).*(SECRET|PASSWORD|TOKEN)", lines, re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", lines, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert any(rule.strip("!/") == name for rule in ignored if rule.startswith("!")), name


def test_the_image_has_what_the_lock_has() -> None:
    """What is taken out of the image again is in the lock, under just that name."""
    (gone,) = re.findall(r"pip uninstall --yes (.+)", (ROOT / "Dockerfile").read_text())
    lock = (ROOT / "requirements.lock").read_text()
    for name in gone.split():
        assert re.search(rf"^{name}==", lock, re.MULTILINE), name
