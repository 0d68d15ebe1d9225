"""Load on one contender, and what it cost: short requests by wrk, event streams by our client."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .contenders import API_KEY, MODEL, Running
from .processes import cores, cpu_ns, pinned, rss_bytes

PATH = "/v1/chat/completions"
_CLIENT = Path(__file__).resolve().parent / "sse_client.py"
_BODY_BYTES = 600


class InvalidRunError(Exception):
    """The run does not count: something in it was not answered as it should have been."""


def body(stream: bool = False) -> bytes:
    """Return the body of a chat request; 600 bytes."""
    message = {"role": "user", "content": ""}
    value = {"model": MODEL, "messages": [message], "max_tokens": 64, "stream": stream}
    message["content"] = "x" * (_BODY_BYTES - len(json.dumps(value)))
    return json.dumps(value).encode()


HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {API_KEY}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """Short requests for some seconds.

    Attributes:
        rate: Requests a second, on the clock.
        cpu_us: CPU time of the contender for one request; microseconds.
        p50_us: Latency; microseconds.
        p99_us: Likewise.
    """

    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Event streams for some seconds.

    Attributes:
        rate: Events a second, on the clock.
        cpu_us: CPU time of the contender for one event; microseconds.
        p50_us: From the upstream's write to the client's read; microseconds.
        p99_us: Likewise.
    """

    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """Streams one after the other, on one connection, each to its first event.

    Attributes:
        p50_us: From the request to the first event; microseconds.
        p99_us: Likewise.
    """

    p50_us: float
    p99_us: float


def write_script(folder: Path) -> Path:
    """Write what tells wrk what to send, and to print what it saw as JSON."""
    fields = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in HEADERS.items())
    script = folder / "post.lua"
    script.write_text(
        f"""wrk.method = "POST"
{fields}
wrk.body = [[{body().decode()}]]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {{"requests": %d, "us": %d, "errors": %d, "p50": %f, "p99": %f}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
    )
    return script


def short(running: Running, script: Path, *, connections: int, seconds: float) -> Short:
    """Ask for short answers over kept-alive connections.

    Raises:
        InvalidRunError: An error, or an answer other than 2xx.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is missing: on Debian, apt-get install wrk")
    load, _ = cores()
    pids = running.pids()
    # wrk counts whole seconds only; its own warm-up is part of the window, and counted.
    argv = [
        wrk, "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "-s", str(script),
        f"http://127.0.0.1:{running.port}{PATH}",
    ]  # fmt: skip
    before = cpu_ns(pids)
    told = subprocess.run(pinned(load, argv), capture_output=True, text=True, check=False)
    used = cpu_ns(pids) - before
    line = next((line for line in told.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise InvalidRunError(f"{running.name}: wrk said {told.stdout} {told.stderr}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["errors"] or not result["requests"]:
        raise InvalidRunError(f"{running.name}: {result}")
    return Short(
        rate=result["requests"] / result["us"] * 1e6,
        cpu_us=used / 1000 / result["requests"],
        p50_us=result["p50"],
        p99_us=result["p99"],
    )


def write_request(
    folder: Path, running: Running, *, chunks: int, period_us: int, more: str = ""
) -> Path:
    """Write the bytes of a streaming request into a file; *more* goes into its query."""
    data = body(stream=True)
    fields = {**HEADERS, "Host": f"127.0.0.1:{running.port}", "Content-Length": str(len(data))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    target = f"{PATH}?chunks={chunks}&period_us={period_us}{more}"
    path = folder / f"stream-{running.port}-{chunks}-{period_us}.http"
    path.write_bytes(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + data)
    return path


def streams(
    running: Running, folder: Path, *, count: int, period_us: int, seconds: float
) -> Streams:
    """Read *count* event streams at once; a period of 0 is as fast as they come.

    Raises:
        InvalidRunError: A stream was refused or broke off.
    """
    request = write_request(folder, running, chunks=1_000_000_000, period_us=period_us)
    arguments = [*_client_argv(running, request, count, seconds), "--pids"]
    told = subprocess.run(
        [*arguments, *map(str, running.pids())],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if told.returncode:
        raise InvalidRunError(told.stderr)
    result = json.loads(told.stdout)
    if result["errors"]:
        raise InvalidRunError(f"{running.name}: {result['errors']}")
    return Streams(
        rate=result["events"] / result["seconds"],
        cpu_us=result["cpu_ns"] / 1000 / result["events"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
    )


def first_events(running: Running, folder: Path, *, seconds: float) -> First:
    """Ask for one short stream after the other.

    Raises:
        InvalidRunError: A stream was refused or broke off.
    """
    request = write_request(folder, running, chunks=3, period_us=2000, more="&now=1")
    told = subprocess.run(
        [*_client_argv(running, request, 1, seconds), "--first"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if told.returncode:
        raise InvalidRunError(f"{running.name}: {told.stderr}")
    result = json.loads(told.stdout)
    return First(p50_us=result["p50_us"], p99_us=result["p99_us"])


def slow_readers(running: Running, folder: Path, *, count: int, seconds: float) -> tuple[int, int]:
    """Let *count* clients hardly read what comes flat out; returns memory halfway and at the end.

    Returns:
        Resident bytes; the same twice, nearly, if buffers are bounded.

    Raises:
        InvalidRunError: A stream was refused or broke off.
    """
    request = write_request(folder, running, chunks=1_000_000_000, period_us=0)
    argv = [*_client_argv(running, request, count, seconds), "--slow"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()  # all streams have begun
        pids = running.pids()
        time.sleep(seconds * 0.5)
        halfway = rss_bytes(pids)
        time.sleep(seconds * 0.45)
        end = rss_bytes(pids)
        told, _ = client.communicate(timeout=60)
    errors = json.loads(told or '{"errors": ["no result"]}')["errors"]
    if errors:
        raise InvalidRunError(f"{running.name}: {errors}")
    return halfway, end


def _client_argv(running: Running, request: Path, count: int, seconds: float) -> list[str]:
    load, _ = cores()
    argv = [
        sys.executable, str(_CLIENT), "--port", str(running.port), "--request", str(request),
        "--streams", str(count), "--seconds", str(seconds),
    ]  # fmt: skip
    return pinned(load, argv)


# ---- equality
def _ask(port: int, target: str, data: bytes) -> list[tuple[int, bytes]]:
    """Ask twice on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    answers = []
    for _ in range(2):
        connection.request("POST", target, data, HEADERS)
        answer = connection.getresponse()
        answers.append((answer.status, answer.read()))
    connection.close()
    return answers


def check_equal(running: Running, direct: Running) -> None:
    """Hold the bodies that come through *running* to those of the upstream itself.

    Raises:
        InvalidRunError: One differs.
    """
    large = body()[:-1] + b', "padding": "' + b"y" * (1 << 20) + b'"}'
    for target, data in (
        (PATH, body()),
        (f"{PATH}?echo=1", body()),
        (f"{PATH}?echo=1", large),
        (f"{PATH}?chunks=200&period_us=0&at=7", body(stream=True)),
    ):
        expected, found = _ask(direct.port, target, data), _ask(running.port, target, data)
        if found != expected:
            statuses = [status for status, _ in found]
            raise InvalidRunError(f"{running.name}: {target} differs from direct ({statuses})")
        if expected[0][0] != 200:
            raise InvalidRunError(f"direct: {target} answers {expected[0][0]}")
