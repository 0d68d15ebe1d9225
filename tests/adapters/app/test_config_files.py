"""Files under --watch-config: what is half-written is waited for, what is no file is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swapchart.adapters.app.config_files import ConfigFiles, Signature, watch
from swapchart.adapters.app.reloader import in_place
from swapchart.adapters.config import ConfigProblems, load_config

WRITER = """
import sys, time
with open(sys.argv[1], "w") as file:
    file.write("models: {}\\n"); file.flush()
    print("open", flush=True)
    sys.stdin.readline()
    file.write("ttl: 1\\n")
"""


@pytest.fixture
def sources(tmp_path: Path) -> ConfigFiles:
    path = tmp_path / "config.yaml"
    path.write_text("models: {}\n")
    return ConfigFiles(files=[path])


def writing(path: Path) -> subprocess.Popen[str]:
    """Start a program that has *path* open for writing until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


ODD: dict[str, tuple[str, Callable[[Path], object]]] = {
    "named pipe": ("a named pipe", os.mkfifo),
    "link to a pipe": ("a named pipe", lambda path: _link(path, os.mkfifo)),
    "folder": ("a folder", Path.mkdir),
    "socket": ("", make_socket),
    "device": ("a device", lambda path: path.symlink_to("/dev/zero")),
    "terminal": ("a device", lambda path: path.symlink_to("/dev/tty")),
}


def _link(path: Path, make: Callable[[Path], object]) -> None:
    make(path.with_name("target"))
    path.symlink_to("target")


@pytest.mark.parametrize("kind", ODD)
def test_load_of_a_pipe_or_device_is_an_error_at_once(tmp_path: Path, kind: str) -> None:
    """Nothing waits for a pipe's writer or reads a device without end."""
    what, make = ODD[kind]
    path = tmp_path / "config.yaml"
    make(path)
    began = time.monotonic()
    for files, folder in ([path], None), ([], tmp_path):
        with pytest.raises(ConfigProblems) as caught:
            load_config(files, folder)
        if folder is not None and kind == "folder":
            return  # a folder in a folder is none of its files
        assert str(path) in str(caught.value)
        assert what in str(caught.value) or kind == "terminal"  # without a terminal: no such device

    assert time.monotonic() - began < 5.0


def test_load_huge_file_is_an_error_at_once(tmp_path: Path) -> None:
    """A sparse file of a terabyte costs neither time nor memory."""
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigProblems, match="at most 4 MiB"):
        load_config([path])


def test_open_for_writing_program_has_it_open_lists_it(sources: ConfigFiles) -> None:
    """Until it is closed, however long nothing is written; readers do not count."""
    path = sources.files[0]
    assert not sources.open_for_writing()
    with path.open("rb"):
        assert not sources.open_for_writing()
    process = writing(path)
    assert sources.open_for_writing()
    process.communicate("go\n")

    assert not sources.open_for_writing()


def test_open_for_writing_program_opens_it_meanwhile_does_not_end_the_proxy(
    sources: ConfigFiles,
) -> None:
    """The kernel's signal that breaks a lease must not end the proxy."""
    path = sources.files[0]
    script = "import sys\nfor _ in range(3000):\n    open(sys.argv[1], 'a').close()\nprint('done')"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE
    ) as process:
        while process.poll() is None:
            sources.open_for_writing()
        assert process.stdout is not None
        assert process.stdout.read() == b"done\n"
    assert signal.getsignal(signal.SIGIO) == signal.SIG_DFL


async def watched(
    sources: ConfigFiles, act: Callable[[], None], for_s: float,
    held: Callable[[str], None] = lambda path: None,
) -> list[float]:  # fmt: skip
    """Watch while *act* changes files; returns when changes were told, in seconds after it."""
    told: list[float] = []
    seen: list[Signature] = [sources.signature()]

    def changed(why: str) -> None:
        told.append(time.monotonic() - began)
        seen[0] = sources.signature()

    task = asyncio.create_task(
        watch(sources, lambda: seen[0], changed, held, poll_s=0.05, steady_s=0.05, patience_s=0.2)
    )
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await asyncio.to_thread(act)
    await asyncio.sleep(for_s)
    task.cancel()
    return told


def test_watch_file_is_still_being_written_is_waited_for(sources: ConfigFiles) -> None:
    """A writer that pauses for longer than any patience is waited for, and that is said once."""
    closed_at = 0.0

    def act() -> None:
        nonlocal closed_at
        began = time.monotonic()
        process = writing(sources.files[0])
        time.sleep(1.0)
        closed_at = time.monotonic() - began
        process.communicate("go\n")

    held: list[str] = []
    told = asyncio.run(watched(sources, act, 1.0, held.append))
    assert len(told) == 1
    assert told[0] >= closed_at
    assert held == [str(sources.files[0])]


def test_watch_file_never_rests_is_read_at_the_deadline(sources: ConfigFiles) -> None:
    """Many short writes are no reason to wait for ever."""

    def act() -> None:
        for number in range(100):
            sources.files[0].write_text(f"models: {{}}\nttl: {number}\n")
            time.sleep(0.02)

    told = asyncio.run(watched(sources, act, 0.5))
    assert told
    assert told[0] < 1.8  # before the last write


@pytest.mark.parametrize("kind", ["written", "appended", "truncated", "replaced", "deleted", "new"])
def test_in_place_distinguishes_writes_from_replacements(sources: ConfigFiles, kind: str) -> None:
    """Only a file that is the same one as before may be half-written."""
    path = sources.files[0]
    before = sources.signature()
    new = path.with_name("new")
    if kind == "written":
        path.write_text("models: {a: {cmd: x}}\n")
    elif kind == "appended":
        with path.open("a") as file:
            file.write("ttl: 1\n")
    elif kind == "truncated":
        os.truncate(path, 0)
    elif kind == "replaced":
        new.write_text("models: {a: {cmd: x}}\n")
        new.replace(path)
    elif kind == "deleted":
        path.unlink()
    else:
        before = ()

    expected = [str(path)] if kind in ("written", "appended", "truncated") else []
    assert in_place(before, sources.signature()) == expected
