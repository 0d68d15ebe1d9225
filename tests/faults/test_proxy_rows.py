"""Faults that need a whole proxy, and checks of the sources."""

from __future__ import annotations

import ast
import re
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from tools import raw
from tools.net import LONG_S, wait_until
from tools.rows import row
from tools.swapchart_process import Journal, Serve, demo_model

import swapchart

ROOT = Path(swapchart.__file__).parent
SOURCES = [
    path for folder in ("machine", "runtime", "adapters") for path in (ROOT / folder).rglob("*.py")
]
#: Guards, which run without the package.
GUARDS = {"adapters/process/keeping/guard_keeping.py", "adapters/ray/node/tree_guard.py"}
CROWD = 800  # our own limit of open files may be 1,024


def calls(path: Path) -> set[str]:
    """Return what a module calls, dotted."""
    tree = ast.parse(path.read_text("utf-8"))
    found = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    words = {word.arg for n in ast.walk(tree) if isinstance(n, ast.Call) for word in n.keywords}
    return found | {f"{word}=" for word in words if word}


@row("A45", "E14")
def test_sources_use_no_fork() -> None:
    """No fork and no preexec_fn: slow in a large process, and a store's handle must not cross.

    The guards fork: small programs of their own, of the standard library.
    """
    assert len(SOURCES) > 100
    guards = {path for path in SOURCES if path.relative_to(ROOT).as_posix() in GUARDS}
    assert len(guards) == len(GUARDS)
    for path in guards:
        text = path.read_text("utf-8")
        assert not re.search(r"^ *(?:from \.|from swapchart|import swapchart)", text, re.MULTILINE)
    for path in set(SOURCES) - guards:
        assert not calls(path) & {"os.fork", "os.forkpty", "pty.fork", "preexec_fn="}, path


@row("A35")
def test_sources_measure_durations_on_the_monotonic_clock() -> None:
    """Nothing in the machine or the runtime reads the wall clock, but for stored deadlines."""
    for path in SOURCES:
        place = path.relative_to(ROOT)
        if place.parts[0] in ("machine", "runtime"):
            # A host takes the wall clock for snapshots, whose deadlines outlive the machine's.
            most = 1 if place.as_posix() == "runtime/engine/host.py" else 0
            text = path.read_text("utf-8")
            assert len(re.findall(r"\btime\.time\b", text)) <= most, path
            assert "from time import time" not in text, path
            assert "datetime" not in text, path


@pytest.mark.slow
@row("A17")
def test_second_proxy_on_the_same_state_ends_unharmfully(serve: Serve, journal: Journal) -> None:
    """It ends with code 3 and says who has it; the first one's models live on."""
    first = serve({"a": journal.model("a")})
    assert first.chat("a").status == 200
    pid = first.running()["a"]["pid"]
    argv = [
        sys.executable, "-m", "swapchart", "serve", "--config", str(first.folder / "config.yaml"),
        "--listen", "127.0.0.1:0", "--state-dir", str(next((first.folder / "state").iterdir())),
    ]  # fmt: skip
    if not (next((first.folder / "state").iterdir())).is_dir():
        argv[-1] = str(first.folder / "state")
    second = subprocess.run(
        argv, capture_output=True, cwd=first.folder, timeout=LONG_S, check=False, text=True
    )

    assert second.returncode == 3
    assert str(first.pid) in second.stderr
    assert first.running()["a"]["pid"] == pid


@pytest.mark.slow
@row("A25")
def test_proxy_without_a_state_folder_serves(serve: Serve, journal: Journal) -> None:
    """The state directory cannot be made: one warning, and everything else works."""
    proxy = serve({"a": journal.model("a")}, options=("--state-dir", "/proc/nowhere"))

    assert proxy.chat("a").status == 200
    assert proxy.wait_said("state is kept in memory only") == 1


@pytest.mark.slow
@row("A31")
def test_limit_of_open_files_is_raised_for_the_proxy_only(serve: Serve, journal: Journal) -> None:
    """The proxy gets all it may have; a model gets what the proxy was started with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(256, soft)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        proxy = serve({"a": journal.model("a")})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert proxy.chat("a").status == 200
    model = psutil.Process(proxy.running()["a"]["pid"])

    assert psutil.Process(proxy.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
    assert model.rlimit(psutil.RLIMIT_NOFILE) == (low, hard)


@pytest.mark.slow
@row("A23")
def test_output_of_any_bytes_is_shown_as_text(serve: Serve) -> None:
    """NUL, broken UTF-8, escape sequences: bytes in the log, and valid JSON in an error."""
    script = r"printf '\000\377\376\033[31m\033]8;;x\007\r50%%\r\n<b>'; exit 7"
    model = {
        "cmd": ["sh", "-c", script, "sh", "${PORT}"], "proxy": "http://127.0.0.1:${PORT}",
    }  # fmt: skip
    proxy = serve({"a": model})
    proxy.may_log = "ERROR"
    answer = proxy.chat("a")
    log = proxy.call("GET", "/logs")

    assert answer.status in (502, 503)
    assert "exit code 7" in answer.json()["error"]["message"]
    assert b"\x00\xff\xfe\x1b[31m" in log.body
    assert log.header("content-type") == "text/plain; charset=utf-8"
    assert log.header("x-content-type-options") == "nosniff"


@pytest.mark.slow
@row("A38")
def test_thousand_models_take_little_memory_and_time(serve: Serve) -> None:
    """Started and listed in bounded time, in bounded memory, and no process but the guard."""
    models = {f"model-{n:04}": demo_model(f"m{n}") for n in range(1000)}
    began = time.process_time()
    proxy = serve(models, config={"startPort": 20_000})
    listed = proxy.get("/v1/models")["data"]
    process = psutil.Process(proxy.pid)
    busy = process.cpu_times()
    rss = process.memory_info().rss

    assert len(listed) == 1000
    assert busy.user + busy.system < 10.0
    assert rss < 250 << 20
    assert len(process.children(recursive=True)) <= 1
    assert time.process_time() - began < 10.0


@pytest.mark.slow
@row("D02")
def test_connections_at_once_are_accepted(serve: Serve) -> None:
    """While the proxy stands still, hundreds of clients connect without one being dropped."""
    proxy = serve({})
    process = psutil.Process(proxy.pid)
    with ExitStack() as stack:
        process.suspend()
        try:
            began = time.monotonic()
            clients = [
                stack.enter_context(
                    socket.create_connection(("127.0.0.1", proxy.port), timeout=LONG_S)
                )
                for _ in range(CROWD)
            ]
            took_s = time.monotonic() - began
        finally:
            process.resume()
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers = [client.recv(64) for client in clients]

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert took_s < CROWD / 100  # a dropped SYN is sent again after a second, one after another


@pytest.mark.slow
@row("D16")
def test_loads_and_unloads_at_once_start_one(serve: Serve, journal: Journal) -> None:
    """Twenty loads at once, then twenty unloads: one process, then none, and each is answered."""
    proxy = serve({"a": journal.model("a", "--load-s", "0.5")})
    with ThreadPoolExecutor(20) as pool:
        loads = list(
            pool.map(
                lambda _: proxy.call("POST", "/models/load", value={"model": "a"}).status, range(20)
            )
        )
        proxy.wait_state("a", "ready")
        unloads = list(pool.map(lambda _: proxy.unload("a").status, range(20)))

    assert set(loads) <= {200, 400}
    assert 200 in loads
    assert set(unloads) == {200}
    assert len(journal.words("started")) == 1
    assert proxy.state("a") == "stopped"
    assert proxy.unload("nobody").status == 404
    assert proxy.call("POST", "/models/load", value={"model": "nobody"}).status == 404


@pytest.mark.slow
@row("D18")
def test_preload_that_fails_does_not_affect_others(serve: Serve, journal: Journal) -> None:
    """The server is up, the model says why it is not, and another one is served."""
    models = {
        "bad": {"cmd": "no-such-program ${PORT}", "proxy": "http://127.0.0.1:${PORT}"},
        "a": journal.model("a"),
    }
    proxy = serve(models, config={"hooks": {"on_startup": {"preload": ["bad"]}}})
    proxy.may_log = "no-such-program"

    def is_told() -> bool:
        answer = proxy.call("GET", "/api/models/bad/history")
        return b"spawn_failed" in answer.body

    wait_until(is_told, LONG_S, what="the preload failed")
    assert proxy.chat("a").status == 200
    assert raw.status(proxy.port) == 200
