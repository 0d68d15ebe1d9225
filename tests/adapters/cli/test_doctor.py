"""`swapchart doctor`: each check passes, and each has its findings where something is wrong."""

from __future__ import annotations

import fcntl
import json
import platform
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from tools.net import free_port

from swapchart.adapters.cli import main
from swapchart.adapters.memory import Meter, meter
from swapchart.runtime.ports import PoolReading

GOOD = "models: {a: {cmd: 'llama-server --port ${PORT}', checkEndpoint: none}}\n"

#: Runs the command; returns its exit code and (level, text) of the findings of each check.
Doctor = Callable[..., tuple[int, dict[str, list[tuple[str, str]]]]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a configuration, whose program is in PATH."""
    for name in ("SWAPCHART_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(GOOD)
    return tmp_path


@pytest.fixture
def doctor(place: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(*arguments: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
        listen = [] if "--listen" in arguments else ["--listen", f"127.0.0.1:{free_port()}"]
        code = main(["doctor", "--json", *listen, *arguments])
        out, err = capsys.readouterr()
        found: dict[str, list[tuple[str, str]]] = {}
        for each in json.loads(out)["findings"]:
            found.setdefault(each["check"], []).append((each["level"], each["text"]))
        problems = [each for rows in found.values() for each in rows if each[0] == "problem"]
        said = f"swapchart: {len(problems)} problem{'s' * (len(problems) != 1)} found\n"
        assert (code, err) == ((1, said) if problems else (0, ""))
        return code, found

    return run


def test_doctor_with_nothing_wrong_prints_one_line_for_each_check(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    code = main(["doctor", "--listen", f"127.0.0.1:{free_port()}"])
    out = capsys.readouterr().out

    assert code == 0
    lines = [line for line in out.splitlines() if "not installed" not in line]
    assert [line.partition(": ")[0] for line in lines] == [
        "ok       version", "ok       extras", "ok       engines", "ok       memory",
        "ok       configuration", "ok       address", "ok       state directory",
        "ok       open files",
    ]  # fmt: skip
    assert sorted(place.rglob("*")) == before, "nothing is created"


def test_doctor_without_a_configuration_names_init(place: Path, doctor: Doctor) -> None:
    (place / "config.yaml").unlink()
    code, found = doctor()

    assert code == 1
    ((level, text),) = found["configuration"]
    assert (level, "swapchart init DIR" in text) == ("problem", True)
    assert "state directory" not in found


def test_doctor_reports_errors_and_warnings_of_the_configuration(
    place: Path, doctor: Doctor
) -> None:
    (place / "config.yaml").write_text("models: 1\n")
    assert doctor()[0] == 1
    ((level, text),) = doctor()[1]["configuration"]
    assert (level, "config.yaml:1:9: error" in text) == ("problem", True)
    (place / "config.yaml").write_text(GOOD.replace("llama-server", "no-such-program"))
    code, found = doctor()
    ((level, text),) = found["configuration"]
    assert (code, level, "'no-such-program' is not in PATH" in text) == (0, "warning", True)


def test_doctor_without_engines_warns(place: Path, doctor: Doctor) -> None:
    (place / "bin" / "llama-server").unlink()
    ((level, text),) = doctor()[1]["engines"]

    assert (level, "neither llama-server nor vllm" in text) == ("warning", True)


def test_doctor_on_another_system_is_a_problem(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Plan9")
    ((level, text),) = doctor()[1]["version"]

    assert (level, text.endswith("on Plan9; swapchart runs on Linux")) == ("problem", True)


def test_doctor_names_extras_that_are_missing(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `proxy` nothing can be served; the others are for choice."""
    known = metadata.version

    def version(package: str) -> str:
        if package in ("httpx", "uvloop"):
            raise metadata.PackageNotFoundError
        return known(package)

    monkeypatch.setattr(metadata, "version", version)
    rows = doctor()[1]["extras"]
    missing = "`{}` is not installed: {}; in a clone: pip install '.[{}]'"
    assert ("problem", missing.format("proxy", "httpx", "proxy")) in rows
    assert ("ok", missing.format("fast", "uvloop", "fast")) in rows

    def requires(package: str) -> list[str]:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "requires", requires)
    assert [level for level, _ in doctor()[1]["extras"]] == ["warning"]


def test_doctor_warns_of_memory_that_cannot_be_read(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One source, and all of them."""

    class Failing:
        def read(self, pids: object) -> list[PoolReading]:
            raise OSError("no driver")

    class Ram:
        def read(self, pids: object) -> list[PoolReading]:
            return [PoolReading(name="RAM", capacity=3 << 30)]

    monkeypatch.setattr(meter, "machine_sources", lambda: [Ram(), Failing()])
    assert doctor()[1]["memory"] == [
        ("ok", "3.0 GiB of RAM"), ("warning", "memory cannot be read by Failing: no driver"),
    ]  # fmt: skip

    def fail(self: Meter, pids: object) -> list[PoolReading]:
        raise OSError("no driver")

    monkeypatch.setattr(Meter, "read_blocking", fail)
    ((level, text),) = doctor()[1]["memory"]
    assert (level, text.startswith("no driver; ")) == ("warning", True)


@contextmanager
def listening(status: int, body: str) -> Iterator[str]:
    """A program that listens on an address and responds with *status* and *body*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "level"),
    [
        (200, '{"queue": []}', "ok"),
        (401, '{"src": "swapchart", "error": {"message": "no key"}}', "ok"),
        (401, "{}", "problem"),
        (200, '{"version": "0.5.1"}', "problem"),
        (404, "", "problem"),
    ],
)
def test_doctor_distinguishes_a_proxy_from_other_programs(
    doctor: Doctor, status: int, body: str, level: str
) -> None:
    with listening(status, body) as address:
        ((found, text),) = doctor("--listen", address)[1]["address"]

    assert found == level
    assert text.startswith(
        f"a swapchart responds at http://{address}" if level == "ok"
        else f"cannot listen on {address}: "
    )  # fmt: skip


def test_doctor_tells_where_clients_of_ollama_are_served(place: Path, doctor: Doctor) -> None:
    """The address is shown where one is configured; another program there is a warning."""
    assert "clients of Ollama" not in doctor()[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (place / "config.yaml").write_text(f"{GOOD}ollama: {{listen: '{address}'}}\n")
        code, found = doctor()
        ((level, text),) = found["clients of Ollama"]
        assert (code, level) == (0, "warning")
        assert text.startswith(f"{address}: Address already in use; stop the program there")

    assert doctor()[1]["clients of Ollama"] == [("ok", f"{address} is free")]


def test_doctor_with_an_address_that_cannot_be_used_is_a_problem(doctor: Doctor) -> None:
    for address in ("203.0.113.1:80", "nowhere"):
        assert doctor("--listen", address)[1]["address"][0][0] == "problem"


def test_doctor_reports_a_state_directory_that_is_unusable(place: Path, doctor: Doctor) -> None:
    (place / "file").touch()
    levels = [level for level, _ in doctor("--state-dir", "file")[1]["state directory"]]
    assert levels == ["problem"]
    shared = place / "shared"
    shared.mkdir(mode=0o755)
    (shared / "of another program").touch()
    ((level, text),) = doctor("--state-dir", str(shared))[1]["state directory"]
    assert (level, "it holds files of other programs" in text) == ("warning", True)
    assert shared.stat().st_mode & 0o777 == 0o755


def test_doctor_names_the_proxy_that_uses_the_state_directory(place: Path, doctor: Doctor) -> None:
    """It is a problem only if that proxy does not respond at the address."""
    folder = place / "own"
    folder.mkdir(mode=0o700)
    lock = (folder / "lock").open("w")
    lock.write("4711\n")
    lock.flush()
    assert doctor("--state-dir", str(folder))[1]["state directory"] == [("ok", str(folder))]
    fcntl.flock(lock, fcntl.LOCK_EX)
    ((level, text),) = doctor("--state-dir", str(folder))[1]["state directory"]
    assert (level, "(pid 4711), so that `serve` ends with code 3" in text) == ("problem", True)
    with listening(200, '{"queue": []}') as address:
        arguments = ("--listen", address, "--state-dir", str(folder))
        ((level, text),) = doctor(*arguments)[1]["state directory"]
    assert (level, text.endswith("(pid 4711)")) == ("ok", True)
    lock.close()


def test_doctor_warns_of_a_low_limit_of_open_files(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = resource.getrlimit

    def limit(kind: int) -> tuple[int, int]:
        return (256, 1024) if kind == resource.RLIMIT_NOFILE else known(kind)

    monkeypatch.setattr(resource, "getrlimit", limit)
    ((level, text),) = doctor()[1]["open files"]
    assert (level, text.startswith("the hard limit is 1024, ")) == ("warning", True)


def test_doctor_leaves_the_address_free(doctor: Doctor) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert doctor("--listen", address)[1]["address"] == [("ok", f"{address} is free")]
    with socket.create_server(("127.0.0.1", int(address.partition(":")[2]))):
        pass
