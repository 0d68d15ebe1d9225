"""A proxy whose standard output and error go to something that has stopped reading."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tools import raw
from tools.net import LONG_S, port_block, wait_until
from tools.swapchart_process import demo_model

MISTAKES = 1000  # problems of one reload: some 150 KB of log, twice what a pipe holds
CTRL_S, CTRL_Q = b"\x13", b"\x11"


class Unread:
    """A proxy, and the one descriptor that is its standard output and error."""

    def __init__(self, folder: Path, server: str, kind: str) -> None:
        self.reading, writing = os.pipe() if kind == "pipe" else pty.openpty()
        self.kind, self.said = kind, b""
        self.path = folder / "config.yaml"
        self.value = {"startPort": port_block(), "models": {"a": demo_model("a")}}
        self.path.write_text(json.dumps(self.value))
        command = [
            sys.executable, "-m", "swapchart", "serve", "--config", str(self.path),
            "--listen", "127.0.0.1:0", "--server", *server.split(),
            "--state-dir", str(folder / "state"),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=writing, stderr=writing, cwd=folder, start_new_session=True
        )
        os.close(writing)
        os.set_blocking(self.reading, False)
        found = wait_until(lambda: self.find(rb"listens on http://127.0.0.1:(\d+)"), LONG_S)
        assert found is not None
        self.port = int(found[1])

    def find(self, pattern: bytes) -> re.Match[bytes] | None:
        """Read what is there, and find *pattern* in all that was read."""
        with suppress(OSError):  # nothing to read now, or never again
            while data := os.read(self.reading, 1 << 16):
                self.said += data
        return re.search(pattern, self.said)

    def type(self, keys: bytes) -> None:
        """Press *keys* where there is a keyboard."""
        if self.kind == "terminal":
            os.write(self.reading, keys)

    def flood(self) -> None:
        """Let it log far more than what a reader that has stopped leaves room for."""
        wrong = {**self.value, **{f"mistake{number:05}": 1 for number in range(MISTAKES)}}
        self.path.write_text(json.dumps(wrong))
        answer = raw.call(self.port, "POST", "/api/config/reload", timeout_s=LONG_S)
        assert len(answer.json()["problems"]) >= MISTAKES
        self.path.write_text(json.dumps(self.value))


@pytest.fixture(params=["pipe", "terminal"])
def unread(tmp_path: Path, request: pytest.FixtureRequest, server: str) -> Iterator[Unread]:
    tested = Unread(tmp_path, server, request.param)
    try:
        yield tested
    finally:
        tested.process.kill()
        tested.process.wait()
        os.close(tested.reading)


def test_serve_output_is_not_read_serves_and_ends(unread: Unread) -> None:
    """A model is started, a request is answered and SIGTERM ends all, with nothing read."""
    unread.type(CTRL_S)
    for _ in range(15):  # more than the queue holds, too
        unread.flood()
    body = {"model": "a", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    answer = raw.call(unread.port, "POST", "/v1/chat/completions", value=body, timeout_s=LONG_S)
    assert answer.status == 200
    metrics = raw.call(unread.port, "GET", "/metrics", timeout_s=LONG_S).body
    dropped = re.search(rb"^swapchart_log_lines_dropped_total (\d+)", metrics, re.MULTILINE)
    assert dropped is not None
    assert int(dropped[1]) > MISTAKES
    unread.process.send_signal(signal.SIGTERM)

    assert unread.process.wait(LONG_S) == 0


def test_serve_reader_comes_back_gets_the_number_of_lost_lines(unread: Unread) -> None:
    """The log goes on where it stopped, with the number of lines that are missing."""
    unread.type(CTRL_S)
    for _ in range(15):
        unread.flood()
    unread.type(CTRL_Q)

    wait_until(lambda: unread.find(rb"\[\d+ log lines dropped"), LONG_S)
    unread.process.send_signal(signal.SIGTERM)
    wait_until(lambda: unread.find(rb"shutting down: finishing in-flight requests"), LONG_S)
    assert unread.process.wait(LONG_S) == 0
