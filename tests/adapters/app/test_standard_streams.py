"""Standard output and error: no write waits for a reader, and what is lost is counted."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.net import wait_until

from swapchart.adapters.app import standard_streams
from swapchart.adapters.app.standard_streams import Outlet, OutletStream

LINE = b"x" * 99 + b"\n"
AT_ONCE_S = 2.0  # what must not wait takes microseconds; the machine may be busy


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)
    os.close(reading)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal whose user has pressed Ctrl-S."""
    reading, writing = pty.openpty()
    termios.tcflow(writing, termios.TCOOFF)
    yield reading, writing
    os.close(writing)
    os.close(reading)


def no_thread(*_: object) -> int:
    raise RuntimeError("can't start new thread")


@pytest.fixture(params=["thread", "no thread"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no thread":
        monkeypatch.setattr(standard_streams, "start_new_thread", no_thread)
    return str(request.param)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
@pytest.mark.usefixtures("threads")
def test_put_reader_does_not_read_returns_at_once(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """However much is written, a write ends, takes bounded memory and counts what is lost."""
    fds: tuple[int, int] = request.getfixturevalue(kind)
    tested = Outlet(fds[1], limit_bytes=1 << 16)
    began = time.monotonic()
    for _ in range(10_000):
        tested.put(LINE)

    assert time.monotonic() - began < AT_ONCE_S
    kept = 10_000 - tested.dropped
    assert 0 < kept < ((1 << 16) + (1 << 17)) // len(LINE)  # the queue, and what a pipe holds
    began = time.monotonic()
    assert not tested.close()
    assert time.monotonic() - began < 5 * standard_streams._FLUSH_S


@pytest.mark.usefixtures("threads")
def test_put_reader_comes_back_number_of_dropped_lines_is_written(pipe: tuple[int, int]) -> None:
    """Each line is either read whole and in order, or is in the number that is written."""
    reading, writing = pipe
    tested = Outlet(writing, limit_bytes=1 << 16)
    for number in range(5000):
        tested.put(b"%098d\n" % number)
    os.set_blocking(reading, False)
    found = b""

    def read() -> bool:
        nonlocal found
        try:
            found += os.read(reading, 1 << 16)
        except BlockingIOError:
            tested.put(b"later\n")
        return b"later" in found and b"dropped" in found

    wait_until(read)
    assert tested.close()
    lines = found.splitlines()
    numbers = [int(each) for each in lines if each.isdigit()]
    assert numbers == sorted(set(numbers))
    told = [int(each[1:].split()[0]) for each in lines if b"dropped" in each]
    assert sum(told) == tested.dropped == 5000 - len(numbers)


@pytest.mark.usefixtures("threads")
def test_close_reader_reads_all_no_line_is_lost(tmp_path: Path) -> None:
    """At the end everything that fits into the queue has been written."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        tested = Outlet(file.fileno())
        for _ in range(1000):
            tested.put(LINE)
        assert tested.close()

    assert path.read_bytes() == LINE * 1000


def test_put_many_threads_lines_stay_whole(tmp_path: Path) -> None:
    """Lines of several threads come one after the other, none lost."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        tested = Outlet(file.fileno())

        def write(number: int) -> None:
            for _ in range(500):
                tested.put(b"%d" % number * 50 + b"\n")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tested.close()

    lines = path.read_bytes().splitlines()
    assert len(lines) == 2000
    assert {len(set(line)) for line in lines} == {1}


def test_put_endless_line_is_cut(tmp_path: Path) -> None:
    """One line cannot push out all others."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        tested = Outlet(file.fileno())
        tested.put(b"x" * (10 << 20) + b"\n")
        tested.put(LINE)
        assert tested.close()

    first, second = path.read_bytes().splitlines()
    assert len(first) <= 1 << 16
    assert first.endswith(b"[cut]")
    assert second == LINE[:-1]


@pytest.mark.usefixtures("threads")
def test_put_disk_is_full_lines_are_counted() -> None:
    """A full disk loses lines, never the writer, and the loss is known."""
    with Path("/dev/full").open("wb") as file:
        tested = Outlet(file.fileno())
        for _ in range(3):
            tested.put(LINE)
        tested.close()

        assert tested.dropped == 3


@pytest.mark.usefixtures("threads")
def test_put_reader_is_gone_raises_no_error() -> None:
    """A pipe without a reader is written to in vain."""
    reading, writing = os.pipe()
    os.close(reading)
    tested = Outlet(writing)
    for _ in range(100):
        tested.put(LINE)

    assert tested.close()
    os.close(writing)


def test_stream_whole_lines_are_passed_on(tmp_path: Path) -> None:
    """`print` writes in pieces; they arrive as lines, also what cannot be encoded."""
    path = tmp_path / "log"
    with path.open("w", encoding="ascii") as file:
        stream = OutletStream(Outlet(file.fileno()), file)
        print("one", "two\nthree", file=stream)
        print("caf\u00e9 \ud800", end="", file=stream)
        stream.flush()
        assert stream.fileno() == file.fileno()
        assert not stream.isatty()
        assert stream.outlet.close()

    assert path.read_text() == "one two\nthree\ncaf\\xe9 \\ud800"


def test_never_waiting_without_descriptors_leaves_streams_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where standard error is no file, as in an embedding program or closed, nothing changes."""
    there = io.StringIO()
    monkeypatch.setattr(sys, "stderr", there)
    monkeypatch.setattr(sys, "stdout", None)
    with standard_streams.never_waiting():
        assert (sys.stderr, sys.stdout) == (there, None)


SCRIPT = """
import logging, sys, traceback, threading, warnings
import uvicorn
from hypercorn.config import Config
from swapchart.adapters.app.standard_streams import never_waiting

def flood(write):
    for _ in range(3000):
        write("x" * 100)

def fail():
    raise RuntimeError("x" * 200_000)

with never_waiting():
    logging.basicConfig(stream=sys.stderr)
    uvicorn.Config("x:y")
    {action}
print("over", file=open(sys.argv[1], "w"), flush=True)
print("x" * 100, file=sys.stderr)
"""

ACTIONS: dict[str, str] = {
    "logging": "flood(logging.warning)",
    "hypercorn": "flood(Config().log.error_logger.error) if Config().log.error_logger else 0",
    "uvicorn": "flood(logging.getLogger('uvicorn.error').error)",
    "uvicorn access": (
        "[logging.getLogger('uvicorn.access').info("
        "'%s - %s', 'x' * 100, 'y', 'z', '1', 200) for _ in range(3000)]"
    ),
    "last resort": "flood(logging.Logger('x').error)",
    "print": "flood(lambda text: print(text, flush=True))",
    "warnings": "warnings.simplefilter('always'); flood(warnings.warn)",
    "a traceback": "\n    try: fail()\n    except RuntimeError: traceback.print_exc()",
    "a thread's traceback": "t = threading.Thread(target=fail); t.start(); t.join()",
}


@pytest.mark.parametrize("action", ACTIONS)
def test_process_whose_output_is_not_read_ends(tmp_path: Path, action: str) -> None:
    """Loggers of servers, warnings, tracebacks and the interpreter's end are not held up."""
    over = tmp_path / "over"
    script = textwrap.dedent(SCRIPT).replace("{action}", ACTIONS[action])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(over)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            code = process.wait(30.0)
        finally:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read() if code else b""

    assert (code, over.read_text()) == (0, "over\n"), said[-1000:]
