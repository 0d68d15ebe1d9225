"""Containers in the plan of a reload, and what a check asks their engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapchart.adapters.app import reload_plan
from swapchart.adapters.app.container_setup import container_problems
from swapchart.adapters.app.service_setup import service_spec
from swapchart.adapters.config import Config, load_config

BEFORE = "container: {image: i, args: -a, port: 80}"


def config_of(folder: Path, keys: str, engine: str = "podman") -> Config:
    path = folder / "config.yaml"
    path.write_text(f"containerEngine: {engine}\nmodels:\n  m:\n    {keys}\n")
    return load_config([path])


@pytest.mark.parametrize(
    ("keys", "engine", "kind", "changed"),
    [
        (BEFORE, "podman", "", ()),
        ("container: {image: j, args: -a, port: 80}", "podman", "restart", ("container.image",)),
        ("container: {image: i, args: -b, port: 80}", "podman", "restart", ("container.args",)),
        ("container: {image: i, args: -a, port: 81}", "podman", "restart", ("container.port",)),
        (
            "container: {image: i, args: -a, port: 80, gpus: 1, shmSize: 1g}", "podman", "restart",
            ("container.gpus", "container.shmSize"),
        ),
        (
            "container: {image: i, args: -a, port: 80, pull: never}", "podman", "next_start",
            ("container.pull",),
        ),
        (BEFORE, "docker", "restart", ("containerEngine",)),
        ("cmd: x --port ${PORT}", "podman", "restart", ("cmd", "container")),
    ],
)  # fmt: skip
def test_reload_plan_names_the_keys_of_a_container(
    tmp_path: Path, keys: str, engine: str, kind: str, changed: tuple[str, ...]
) -> None:
    """A pull policy applies at the next start, and all else needs another container."""
    old, new = config_of(tmp_path, BEFORE), config_of(tmp_path, keys, engine)
    plan = reload_plan.plan(old, new)

    assert [(change.kind, change.keys) for change in plan.models] == (
        [(kind, changed)] if kind else []
    )


def test_service_of_a_container_has_its_launcher_its_pull_and_its_probe(tmp_path: Path) -> None:
    """A health command is asked though there is no URL for a probe."""
    keys = "checkEndpoint: none\n    container: {image: i, port: 80, health: ok}"
    spec = service_spec(config_of(tmp_path, keys).models["m"])

    assert spec.command.launcher == "container"
    assert spec.command.container is not None
    assert spec.check_url == "http://localhost:5800"
    assert [str(hook.action) for hook in spec.hooks["beforeStart"]] == ["pull i"]


def engine_that(folder: Path, script: str) -> str:
    path = folder / "podman"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo found", ""),
        ("echo 'Error: i: image not known' >&2; exit 125", "the image i is not on this machine;"),
        ("echo 'Error: No such image: i' >&2; exit 1", "the image i is not on this machine;"),
        ("echo 'Cannot connect to it' >&2; exit 1", "podman does not respond: Cannot connect"),
        ("exit 3", "podman does not respond: exit code 3"),
        ("exec sleep 30", ""),
    ],
)  # fmt: skip
def test_container_problems_are_those_that_the_engine_tells_at_once(
    tmp_path: Path, script: str, words: str
) -> None:
    """An engine that takes longer than two seconds is not waited for."""
    config = config_of(tmp_path, BEFORE, engine_that(tmp_path, script))
    problems = container_problems(config, {"PATH": "/usr/bin:/bin"})

    assert [problem.path for problem in problems] == (["models.m.container"] if words else [])
    assert all(problem.message.startswith(words) for problem in problems)
    assert all(problem.severity == "warning" for problem in problems)


def test_container_problems_of_an_engine_that_is_not_there_are_the_check_of_programs(
    tmp_path: Path,
) -> None:
    """Nothing is asked, since that is reported with the model."""
    config = config_of(tmp_path, BEFORE, "/no/such/podman")

    assert container_problems(config, {"PATH": ""}) == []
