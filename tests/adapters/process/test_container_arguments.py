"""Command lines of container engines: every option, for Podman and for Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tools import shown
from tools.documents import DOCUMENTS

from swapchart.adapters.process.container import arguments
from swapchart.adapters.process.container.arguments import (
    client_env,
    container_name,
    create_argv,
    variables,
)
from swapchart.runtime import Command, ConfigError
from swapchart.runtime.container import Container, ContainerEngine

PODMAN = ContainerEngine(command=("podman", "--log-level", "error"), is_podman=True)
DOCKER = ContainerEngine(command=("/usr/bin/docker",))
PLAIN = Container(image="img:1", engine=DOCKER)


def created(container: Container, *args: str, env: dict[str, str] | None = None) -> list[str]:
    """Return the options of `create` and what follows, without name, pull policy and label."""
    command = Command(argv=args, env=env or {}, container=container)
    argv = create_argv(container, command, name="n", labels={"b": "2", "a": "1"})
    engine = container.engine.command
    head = (*engine, "create", "--name", "n", "--pull", "never", "--label", "a=1", "--label", "b=2")
    assert argv[: len(head)] == head
    return list(argv[len(head) :])


#: Fields of a container -> its options, the same for both engines.
OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"network": "host"}, "--network host"),
    ({"user": "1000:1000"}, "--user 1000:1000"),
    ({"workdir": "/app"}, "--workdir /app"),
    ({"shm_size": "8g"}, "--shm-size 8g"),
    ({"stop_signal": "SIGINT"}, "--stop-signal SIGINT"),
    ({"init": True}, "--init"),
    ({"devices": ["/dev/kfd", "/dev/dri"]}, "--device /dev/kfd --device /dev/dri"),
    ({"publish": ["127.0.0.1:5800:80"]}, "--publish 127.0.0.1:5800:80"),
    ({"volumes": ["/m:/m:ro", "cache:/c"]}, "--volume /m:/m:ro --volume cache:/c"),
    ({"options": ["--ipc", "host"]}, "--ipc host"),
    ({"entrypoint": ["/bin/server"]}, "--entrypoint /bin/server"),
]


@pytest.mark.parametrize("engine", [PODMAN, DOCKER], ids=["podman", "docker"])
@pytest.mark.parametrize(("fields", "expected"), OPTIONS, ids=[text for _, text in OPTIONS])
def test_create_has_the_options_of_each_key(
    engine: ContainerEngine, fields: dict[str, Any], expected: str
) -> None:
    """Options stand before the image and arguments after it."""
    container = Container(image="img:1", engine=engine, **fields)

    assert created(container, "--port", "1") == [*expected.split(), "img:1", "--port", "1"]


def test_create_with_everything_keeps_one_order() -> None:
    """The user's own options come last, so that they win."""
    container = Container(
        image="img", engine=PODMAN, entrypoint=("server", "--first"), gpus=("all",),
        devices=("/dev/x",), volumes=("/m:/m",), network="llm", publish=("127.0.0.1:1:2",),
        user="u", workdir="/w", shm_size="1g", stop_signal="INT", init=True, options=("--own",),
    )  # fmt: skip

    assert " ".join(created(container, "a", env={"A": "1"})) == (
        "--network llm --user u --workdir /w --shm-size 1g --stop-signal INT --entrypoint server "
        "--init --device nvidia.com/gpu=all --device /dev/x --publish 127.0.0.1:1:2 --volume /m:/m "
        "--env A --own img --first a"
    )


@pytest.mark.parametrize(
    ("fields", "podman", "docker"),
    [
        ({"gpus": ["all"]}, "--device nvidia.com/gpu=all", "--gpus all"),
        (
            {"gpu_count": 2},
            "--device nvidia.com/gpu=0 --device nvidia.com/gpu=1",
            "--gpus 2",
        ),
        (
            {"gpus": ["0", "GPU-1234"]},
            "--device nvidia.com/gpu=0 --device nvidia.com/gpu=GPU-1234",
            '--gpus "device=0,GPU-1234"',
        ),
        ({"gpus": ["amd.com/gpu=0"]}, "--device amd.com/gpu=0", "--device amd.com/gpu=0"),
        ({}, "", ""),
    ],
)
def test_create_gives_gpus_by_cdi_to_podman_and_by_gpus_to_docker(
    fields: dict[str, Any], podman: str, docker: str
) -> None:
    """Docker gets devices of CDI only by their names; the list of devices is one CSV field."""
    for engine, expected in ((PODMAN, podman), (DOCKER, docker)):
        assert created(Container(image="i", engine=engine, **fields)) == [*expected.split(), "i"]


@pytest.mark.parametrize(("page", "options"), shown.items(shown.GPUS))
def test_docs_gpu_options_are_those_of_the_engines(page: str, options: str) -> None:
    """Each row of the table, as the arguments of `create` without the quotes of a shell."""
    assert options in DOCUMENTS[page]
    given: list[dict[str, Any]] = [
        {"gpus": ["all"]}, {"gpu_count": 2}, {"gpus": ["0", "GPU-1234"]},
        {"gpus": ["amd.com/gpu=0"]},
    ]  # fmt: skip
    made = {
        " ".join(created(Container(image="i", engine=engine, **fields))[:-1])
        for engine in (PODMAN, DOCKER)
        for fields in given
    }

    assert options in made


def test_create_keeps_values_of_variables_off_the_command_line() -> None:
    """A client reads some variables itself; only those have their value on the command line."""
    env = {
        "HF_TOKEN": "secret", "PATH": "/opt/bin", "HOME": "/root", "XDG_RUNTIME_DIR": "/x",
        "DOCKER_HOST": "tcp://h", "http_proxy": "http://p", "LD_LIBRARY_PATH": "/l",
        "CONTAINER_X": "c", "CUDA_VISIBLE_DEVICES": "0", "CONTAINERISED": "1",
    }  # fmt: skip
    given = created(PLAIN, env=env)

    assert "secret" not in " ".join(given)
    assert given[:4] == ["--env", "HF_TOKEN", "--env", "PATH=/opt/bin"]
    assert client_env(env) == {
        "HF_TOKEN": "secret", "CUDA_VISIBLE_DEVICES": "0", "CONTAINERISED": "1",
    }  # fmt: skip


@given(st.dictionaries(st.text("ABCHOMEPT_x", min_size=1), st.text()))
def test_variables_reach_the_container_by_exactly_one_way(env: dict[str, str]) -> None:
    """A variable is either on the command line with its value, or in the client's environment."""
    given = list(variables(env))
    passed = client_env(env)

    assert len(given) == len(env)
    for (name, value), item in zip(env.items(), given, strict=True):
        assert (item == name) == (name in passed)
        assert item == name or item == f"{name}={value}"


@given(st.text(min_size=1), st.text("0123456789abcdef", min_size=16, max_size=16))
@example("é" + "a" * 50, "0" * 16)
def test_container_name_is_valid_and_the_same_each_time(model: str, owner: str) -> None:
    """Engines accept 64 characters at least, the first of which is a letter or a digit."""
    name = container_name(owner, model)

    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", name)
    assert name == container_name(owner, model)


@given(st.lists(st.text(max_size=60), min_size=2, max_size=2, unique=True))
def test_container_names_of_two_models_differ(models: list[str]) -> None:
    """Also if they differ only by what a name cannot hold, or behind its longest length."""
    first, second = (container_name("0" * 16, model) for model in models)

    assert first != second


def test_container_name_of_a_plain_model_is_readable() -> None:
    """A hash is added only where something of the name is lost."""
    assert container_name("0123456789abcdef", "qwen-3.5_8b") == "swapchart-01234567-qwen-3.5_8b"
    assert container_name("0123456789abcdef", "a/b:c").startswith("swapchart-01234567-a-b-c-")


def test_commands_on_a_container_name_it_by_its_id() -> None:
    """Global options come first; podman is told not to wait before it kills."""
    command = Command(argv=("save", "x"), env={"A": "1", "HOME": "/h"}, cwd="/w")
    exec_argv = arguments.exec_argv(replace(PLAIN, engine=PODMAN), "ID", command)
    head = "podman --log-level error"

    assert " ".join(exec_argv) == f"{head} exec --workdir /w --env A --env HOME=/h ID save x"
    assert arguments.remove_argv(PODMAN, "ID")[-5:] == ("--force", "--time", "0", "--volumes", "ID")
    assert arguments.remove_argv(DOCKER, "ID")[1:] == ("rm", "--force", "--volumes", "ID")
    assert arguments.kill_argv(PLAIN, "ID", "SIGINT")[1:] == ("kill", "--signal", "SIGINT", "ID")
    assert arguments.start_argv(PLAIN, "ID")[1:] == ("start", "--attach", "ID")
    assert arguments.attach_argv(PLAIN, "ID")[1:] == ("attach", "--no-stdin", "ID")
    assert "label=swapchart.owner=me" in arguments.list_argv(DOCKER, "me")


@pytest.mark.parametrize("program", ["podman", "docker"])
def test_options_exist_in_the_engines_of_this_machine(program: str) -> None:
    """The help of each command lists the options that it is given."""
    if shutil.which(program) is None:
        pytest.skip(f"NOT TESTED: no {program}")
    engine = ContainerEngine(command=(program,), is_podman=program == "podman")
    container = Container(
        image="i", engine=engine, entrypoint=("e",), gpus=("all",), devices=("/d",),
        volumes=("/v:/v",), network="host", publish=("1:1",), user="u", workdir="/w",
        shm_size="1g", stop_signal="INT", init=True,
    )  # fmt: skip
    command = Command(argv=(), env={"A": "1"}, cwd="/w", container=container)
    argvs = [
        create_argv(container, command, name="n", labels={"a": "1"}),
        arguments.start_argv(container, "x"), arguments.attach_argv(container, "x"),
        arguments.exec_argv(container, "x", command), arguments.kill_argv(container, "x", "INT"),
        arguments.remove_argv(engine, "x"), arguments.list_argv(engine, "o"),
        arguments.inspect_argv(engine, "x"),
    ]  # fmt: skip
    for _, *words in argvs:
        at = 2 if words[0] == "container" else 1
        shown = subprocess.run(
            [program, *words[:at], "--help"], capture_output=True, text=True, check=True
        ).stdout
        known = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", shown))
        assert {word for word in words[at:] if word.startswith("--")} <= known, words


@pytest.mark.parametrize(
    "fields",
    [{"image": ""}, {"image": "i", "engine": "docker"}, {"image": "i", "volumes": "/a:/b"},
     {"image": "i", "gpu_count": 0}, {"image": "i", "init": 1}, {"image": "i", "user": 5}],
)  # fmt: skip
def test_container_of_wrong_values_is_refused(fields: dict[str, Any]) -> None:
    """The error names the field."""
    with pytest.raises(ConfigError, match=r"container\."):
        Container(**{"engine": DOCKER, **fields})


def test_engine_without_a_program_is_refused() -> None:
    """An engine has at least a program."""
    with pytest.raises(ConfigError, match=r"container\.engine\.command"):
        ContainerEngine(command=())
