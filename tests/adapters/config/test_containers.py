"""The keys of containers, the choice of the engine, and what a check finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.configs import Check, Load, found

from swapchart.adapters.config import check_config, load_config
from swapchart.adapters.config.container_engine import VARIABLE, engine_problem, find_engine
from swapchart.runtime import RunAction
from swapchart.runtime.container import Container, ContainerEngine

PODMAN = ContainerEngine(command=("podman",), is_podman=True)


def model(*lines: str, keys: str = "") -> str:
    """Return a document with one model ``m`` in a container; *lines* are the keys of it."""
    body = "".join(f"      {line}\n" for line in lines)
    return f"containerEngine: podman\n{keys}models:\n  m:\n    container:\n{body}"


def container_of(load: Load, *lines: str) -> Container:
    container = load(model(*lines)).models["m"].container
    assert container is not None
    return container


def test_container_with_everything_is_read(load: Load) -> None:
    """Each key has its value; commands are split, and the port is filled in."""
    config = load(
        model(
            "image: img:1", "args: serve --port ${PORT} 'a b'", "entrypoint: [/bin/x, y z]",
            "gpus: all", "devices: [/dev/kfd]", 'volumes: ["/m:/m:ro"]', "network: llm",
            "port: 8000", 'user: "1:2"', "workdir: /w", "shmSize: 8g", "stopSignal: SIGINT",
            "init: true", "name: my.name", "health: curl -f http://x", "options: [--ipc, host]",
            "pullTimeout: 60",
        )
    )  # fmt: skip
    m = config.models["m"]

    assert m.container == Container(
        image="img:1", engine=PODMAN, name="my.name", entrypoint=("/bin/x", "y z"), gpus=("all",),
        devices=("/dev/kfd",), volumes=("/m:/m:ro",), network="llm",
        publish=("127.0.0.1:5800:8000",), user="1:2", workdir="/w", shm_size="8g",
        stop_signal="SIGINT", init=True, health=("curl", "-f", "http://x"),
        options=("--ipc", "host"),
    )  # fmt: skip
    assert m.argv == ("serve", "--port", "5800", "a b")
    assert m.cmd == "podman run img:1 serve --port 5800 'a b'"
    assert m.pull is not None
    assert (str(m.pull.action), m.pull.timeout_s, m.pull.on_error) == ("pull img:1", 60.0, "fail")


@pytest.mark.parametrize(
    ("lines", "published"),
    [
        (["args: -p ${PORT}"], ("127.0.0.1:5800:5800",)),
        (["port: 80"], ("127.0.0.1:5800:80",)),
        (["port: 80", "network: bridge"], ("127.0.0.1:5800:80",)),
        (["args: -p ${PORT}", "network: host"], ()),
        (["args: -p ${PORT}", "network: none"], ()),
        (["args: -p ${PORT}", "network: 'container:x'"], ()),
    ],
)
def test_port_is_published_on_loopback_unless_the_network_is_shared(
    load: Load, lines: list[str], published: tuple[str, ...]
) -> None:
    """With a shared network the server listens on the port itself."""
    assert container_of(load, "image: i", *lines).publish == published


def test_port_is_not_published_for_a_server_with_an_address_of_its_own(load: Load) -> None:
    """Where the proxy is in a container too, the name of the other one is its address."""
    text = model("image: i", "network: llm", "name: q") + "    proxy: http://q:8000\n"

    container = load(text).models["m"].container
    assert container is not None
    assert container.publish == ()


@pytest.mark.parametrize(
    ("line", "gpus", "count"),
    [
        ("gpus: all", ("all",), None),
        ("gpus: 2", (), 2),
        ("gpus: [0, 1]", ("0", "1"), None),
        ('gpus: [GPU-1, "amd.com/gpu=0"]', ("GPU-1", "amd.com/gpu=0"), None),
    ],
)
def test_gpus_are_all_a_number_or_a_list(
    load: Load, line: str, gpus: tuple[str, ...], count: int | None
) -> None:
    """Numbers in a list are those of GPUs."""
    container = container_of(load, "image: i", "port: 1", line)

    assert (container.gpus, container.gpu_count) == (gpus, count)


@pytest.mark.parametrize(
    ("lines", "path", "words"),
    [
        (["port: 1"], "container.image", "required"),
        (["image: ''"], "container.image", "not empty"),
        (["image: i", "port: 1", "gpus: true"], "container.gpus", "all, a number of GPUs"),
        (["image: i", "port: 1", "name: 'a b'"], "container.name", "match"),
        (["image: i", "port: 1", "pull: sometimes"], "container.pull", "missing"),
        (["image: i"], "container", "learn its port: use `${PORT}` in args, or set `port` to"),
        (["image: i", "network: host"], "container", "does not learn its port: use `${PORT}` in"),
        (["image: i", "network: host", "port: 1"], "container.port", "no effect with network"),
        (["image: i", "port: 1", "args: it's"], "container.args", "unterminated quote"),
    ],
)
def test_invalid_container_is_an_error_with_its_place(
    check: Check, lines: list[str], path: str, words: str
) -> None:
    """One error for each, below the model."""
    problems = check(model(*lines))
    errors = [each for each in problems if each.severity == "error"]

    assert [each.path for each in errors] == [f"models.m.{path}"], found(problems)
    assert words in errors[0].message


@pytest.mark.parametrize(
    ("more", "path"),
    [("    cmd: x ${PORT}\n", "models.m.cmd"), ("    external: true\n", "models.m.external")],
)
def test_container_beside_a_command_is_an_error(check: Check, more: str, path: str) -> None:
    """A model has one way to start."""
    (problem,) = check(model("image: i", "port: 1") + more)

    assert problem.path == path
    assert "or container, found both" in problem.message


def test_model_without_any_command_names_both_keys(check: Check) -> None:
    """`cmd` and `container` are the two ways."""
    (problem,) = check("models: {m: {name: x}}")

    assert problem.message == "cmd or container is required"


def test_hidden_variables_of_arguments_are_not_shown(load: Load, tmp_path: Path) -> None:
    """`/running` shows the name of a variable, and the container gets its value."""
    config = load(model("image: i", "port: 1", "args: [--key, '${env.KEY}']"), KEY="secret")
    m = config.models["m"]

    assert m.argv == ("--key", "secret")
    assert "secret" not in m.cmd_shown
    assert m.cmd_shown.startswith("podman run i --key")


def test_comments_and_gpu_placeholders_of_arguments_are_those_of_commands(load: Load) -> None:
    """A block of arguments may have comment lines; `${GPU}` needs `memory`."""
    text = model("image: i", "args: |", "  # why", "  --device ${GPU}", "port: 1")

    assert load("memory: auto\n" + text).models["m"].argv == ("--device", "${GPU}")


def test_pull_never_has_no_hook_and_always_does_not_ask(load: Load) -> None:
    """The policy is an argument of the script, and the engine follows with its options."""
    never = load(model("image: i", "port: 1", "pull: never")).models["m"]
    always = load(
        model("image: i", "port: 1", "pull: always").replace("podman", "[podman, --x]")
    ).models["m"]

    assert never.pull is None
    assert always.pull is not None
    assert isinstance(always.pull.action, RunAction)
    assert always.pull.action.argv[3:] == ("sh", "always", "i", "podman", "--x")


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ("afterStart", ""), ("afterHealthy", ""), ("afterReady", ""), ("beforeStop", ""),
        ("beforeStart", "no container exists at beforeStart"),
        ("afterStop", "no container exists at afterStop"),
        ("onFailure", "no container exists at onFailure"),
    ],
)  # fmt: skip
def test_hook_in_the_container_is_refused_where_there_is_none(
    check: Check, load: Load, point: str, words: str
) -> None:
    """Its program is that of the image, so that a shell may be asked for too."""
    hook = f"    {point}: [{{run: 'a $X', shell: true, in: container}}]\n"
    text = model("image: i", "port: 1") + hook
    errors = [each for each in check(text) if each.severity == "error"]

    assert [each.path for each in errors] == ([f"models.m.{point}[0].in"] if words else [])
    if words:
        assert words in errors[0].message
        return
    (built,) = load(text).models["m"].hooks[point]
    assert built.action == RunAction(argv=("/bin/sh", "-c", "a $X"), is_inside=True)


def test_hook_in_the_container_of_a_command_is_refused(check: Check) -> None:
    """Also one that comes from the defaults of all models; a request has no place."""
    text = "hooks: {beforeStop: {run: a, in: container}}\nmodels: {m: {cmd: 's ${PORT}'}}\n"
    (problem,) = check(text)
    assert problem.message == "expected host, since the model has no `container`"
    (problem,) = check(
        model("image: i", "port: 1") + "    beforeStop: {http: {url: 'http://x'}, in: container}\n"
    )
    assert "expected run, since `in: container` is set, found http" in problem.message


# ---- the engine


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("there", "configured", "variable", "has_socket", "expected"),
    [
        (["podman", "docker"], (), "", False, ("podman",)),
        (["podman", "docker"], (), "", True, ("docker",)),
        (["podman", "docker"], (), "docker", False, ("docker",)),
        (["podman", "docker"], ("podman", "--remote"), "docker", True, ("podman", "--remote")),
        (["podman", "docker"], (), "podman --log-level 'x y'", True,
         ("podman", "--log-level", "x y")),
        (["docker"], (), "", False, ("docker",)),
        (["podman"], (), "", True, ("podman",)),
        ([], (), "", False, ("podman",)),
        (["podman"], (), "it's", False, ("podman",)),
    ],
)  # fmt: skip
def test_engine_is_the_configured_one_or_what_is_there(
    tmp_path: Path, there: list[str], configured: tuple[str, ...], variable: str, has_socket: bool,
    expected: tuple[str, ...],
) -> None:  # fmt: skip
    """The key wins over the variable, which wins over PATH; Docker needs its daemon's socket."""
    (tmp_path / "bin").mkdir()
    for name in there:
        program(tmp_path / "bin", name)
    socket = tmp_path / "docker.sock"
    if has_socket:
        socket.touch()
    environment = {"PATH": str(tmp_path / "bin"), VARIABLE: variable}
    engine = find_engine(configured, environment, socket=socket)

    assert engine == ContainerEngine(command=expected, is_podman=expected[0] == "podman")
    assert bool(engine_problem(engine, environment)) == (expected[0] not in there)


def test_engine_called_docker_may_be_podman(tmp_path: Path) -> None:
    """By a link or a script, as in the package podman-docker."""
    podman = program(tmp_path / "a", "podman")
    script = program(tmp_path / "b", "docker", '#!/bin/sh\nexec /usr/bin/podman "$@"\n')
    link = tmp_path / "a" / "docker"
    link.symlink_to(podman)
    docker = program(tmp_path / "c", "docker", "\x7fELF podman")

    for path, expected in ((script, True), (link, True), (docker, False)):
        environment = {"PATH": str(path.parent)}
        assert find_engine(("docker",), environment).is_podman is expected
        assert find_engine((str(path),), environment).is_podman is expected


def test_check_names_an_engine_that_is_not_in_path(tmp_path: Path) -> None:
    """Once for each model, with what to do; hooks on the host are still checked."""
    path = tmp_path / "c.yaml"
    path.write_text(
        model("image: i", "port: 1").replace("containerEngine: podman\n", "")
        + "    beforeStop: no-such-program\n"
    )
    problems = check_config([path], env={"PATH": str(tmp_path)}, is_here=True)

    assert [(p.severity, p.path, p.line) for p in problems] == [
        ("warning", "models.m.container", 4),
        ("warning", "models.m.beforeStop", 6),
    ]
    assert problems[0].message == (
        "the container engine 'podman' is not in PATH: install podman or docker, or name the one "
        "to use by `containerEngine` or SWAPCHART_CONTAINER_ENGINE"
    )


def test_containers_started_by_commands_are_left_as_they_are(tmp_path: Path) -> None:
    """llama-swap's form: a client in `cmd` and `docker stop` in `cmdStop`."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "models:\n  m:\n    cmd: docker run --rm --name m -p ${PORT}:80 img\n"
        "    cmdStop: docker stop m\n"
    )
    m = load_config([path]).models["m"]

    assert m.container is None
    assert m.argv[:2] == ("docker", "run")
    assert m.stop_argv == ("docker", "stop", "m")
