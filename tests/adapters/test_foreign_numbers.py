"""Numbers that models, drivers and the environment tell: read within bounds, never an error."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading

import anyio
import pytest

from swapchart.adapters.kv.effectiveness import Effectiveness, cache_usage
from swapchart.adapters.kv.run_statistics import RunStatistics
from swapchart.adapters.kv.slot_client import SlotClient, whole
from swapchart.adapters.kv.slots import SlotError
from swapchart.adapters.process.port import http_probe
from swapchart.adapters.proxy.accounting.token_usage import tokens_of
from swapchart.adapters.proxy.monitoring.gpus import nvidia_gpu
from swapchart.adapters.server.systemd import _watchdog_s
from swapchart.adapters.store.histogram import histogram

#: As JSON; none of them is a count, a time or a size.
NONSENSE = (
    "9" * 309, "9" * 310, "9" * 4299, "9" * 5000, "1e308", "1e400", "-" + "9" * 310, "-1e400",
    "5e-324", "NaN", "Infinity", "-Infinity", "1e99999999999", "-1", "1e15", "9223372036854775808",
)  # fmt: skip
LARGEST = 1e15


def answers(number: str) -> list[bytes]:
    """Return bodies that tell *number* wherever a number of tokens or a time may stand."""
    usage = (
        '{"prompt_tokens":N,"completion_tokens":N,"input_tokens":N,"output_tokens":N,'
        '"cache_read_input_tokens":N,"prompt_tokens_details":{"cached_tokens":N}}'
    )
    timings = (
        '{"prompt_n":N,"predicted_n":N,"prompt_ms":N,"predicted_ms":N,"cache_n":N,'
        '"prompt_per_second":N,"predicted_per_second":N,"draft_n":N,"draft_n_accepted":N}'
    )
    metrics = (
        '{"time_to_first_token_ms":N,"mean_itl_ms":N,"speculative_decoding":'
        '{"num_draft_tokens":N,"num_accepted_draft_tokens":N}}'
    )
    plain = usage.replace(',"prompt_tokens_details":{"cached_tokens":N}', "")
    small = '{"prompt_tokens":3,"completion_tokens":4}'
    texts = [
        f'{{"usage":{usage}}}', f'{{"usage":{plain}}}', f'{{"timings":{timings}}}',
        f'{{"usage":{small},"metrics":{metrics}}}', f'[{{"usage":{usage}}}]',
        f'data: {{"usage":{usage},"timings":{timings},"metrics":{metrics}}}\n\n',
        f'cut off {{"usage":{usage},"timings":{timings}',
    ]  # fmt: skip
    return [text.replace("N", number).encode() for text in texts]


@pytest.mark.parametrize("number", NONSENSE, ids=lambda text: f"{text[:6]}({len(text)})")
def test_tokens_number_is_nonsense_row_has_a_number_or_unknown(number: str) -> None:
    """What is written down fits into a row, and into JSON."""
    for body in answers(number):
        for is_events in (False, True):
            for is_whole in (False, True):
                found = tokens_of(body, is_events=is_events, is_whole=is_whole)
                for name in (field.name for field in dataclasses.fields(found)):
                    assert -2 <= getattr(found, name) <= 2 * LARGEST, (name, body[:100])


@pytest.mark.parametrize("number", NONSENSE, ids=lambda text: f"{text[:6]}({len(text)})")
def test_kv_response_number_is_nonsense_record_stays_in_bounds(number: str) -> None:
    """A record of what was measured stays within bounds, whatever an answer tells."""
    run, record = RunStatistics(fingerprint="x"), Effectiveness()
    for body in answers(number):
        seen = cache_usage(body)
        if seen is not None:
            assert 0 <= seen.cached <= LARGEST
            assert 0 <= seen.read <= 2 * LARGEST
            run.note(seen, record)

    assert Effectiveness.load(json.loads(json.dumps({"hits": record.hits}))).hits == record.hits
    assert record.read_ms_per_token is None or 0 <= record.read_ms_per_token <= LARGEST


def test_kv_response_exponents_are_read() -> None:
    """A time may be written as 1.5e2; the whole of it counts."""
    seen = cache_usage(b'{"timings":{"cache_n":10,"prompt_n":40,"prompt_ms":1.5e2}}')

    assert seen is not None
    assert (seen.cached, seen.read, seen.read_ms) == (10, 40, 150.0)


def serve_json(text: str, status: str = "200 OK") -> tuple[socket.socket, str]:
    """Answer every request with *text*; returns the listener and its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                body = text.encode()
                head = (
                    f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                connection.sendall(head.encode() + body)
                connection.shutdown(socket.SHUT_WR)

    threading.Thread(target=run, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("number", NONSENSE, ids=lambda text: f"{text[:6]}({len(text)})")
def test_slots_of_a_hostile_server_are_a_server_error(number: str) -> None:
    """Every answer of a hostile llama-server is either sensible or refused as one of the server."""
    text = (
        '{"total_slots":N,"n_saved":N,"n_written":N,"n_restored":N,"n_read":N,'
        '"default_generation_settings":[]}'
    )

    async def ask(text: str) -> None:
        listener, url = serve_json(text)
        with listener:
            async with SlotClient(url, timeout_s=5.0) as client:
                props = await client.props()
                assert props is None or 0 <= props["total_slots"] <= 1 << 16
                for move in (client.save, client.restore):
                    try:
                        moved = await move(0, "x")
                    except SlotError:
                        continue
                    assert 0 <= moved.tokens <= LARGEST
                    assert 0 <= moved.size <= LARGEST

    async def list_slots(text: str) -> None:
        listener, url = serve_json(text)
        with listener:
            async with SlotClient(url, timeout_s=5.0) as client:
                try:
                    found = await client.slots()
                except SlotError:
                    return
                assert all(slot.tokens is None or 0 <= slot.tokens <= LARGEST for slot in found)

    anyio.run(ask, text.replace("N", number))
    anyio.run(list_slots, f'[{{"n_prompt_tokens":{number},"params":[]}},{number}]')


@pytest.mark.parametrize("value", [True, "5", None, [], {}, -1, 1e15 + 1, float("nan"), 10**400])
def test_whole_value_is_not_a_count_raises(value: object) -> None:
    """Only numbers from 0 to the limit count."""
    with pytest.raises(ValueError, match="expected a number"):
        whole(value)


def test_probe_length_has_5000_digits_passes_by_status() -> None:
    """A health check with an absurd Content-Length neither passes by mistake nor breaks."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        head = b"HTTP/1.1 503 Busy\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx"

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(head)
                connection.recv(1)

        threading.Thread(target=run, daemon=True).start()
        with listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            answer = await http_probe.get(url, timeout_s=5.0)
        assert answer.status == 503

    anyio.run(main)


def test_histogram_rates_are_nonsense_are_left_out() -> None:
    """Rows of an earlier version may hold infinity."""
    found = histogram([1.0, 2.0, float("inf"), 1e300, float("nan")])

    assert found is not None
    assert (sum(found["bins"]), found["max"]) == (2, 2.0)


@pytest.mark.parametrize("word", ["9" * 400, "nan", "inf", "1e400", "[N/A]"])
def test_gpu_driver_value_is_nonsense_is_unknown(word: str) -> None:
    """What a driver tells goes into JSON and metrics."""
    gpu = nvidia_gpu(", ".join(["0", "name", "uuid", *[word] * 8]))

    assert gpu is not None
    assert gpu.celsius is gpu.total_mib is gpu.watts is None
    assert nvidia_gpu(", ".join(["9" * 5000, "name", "uuid", *["1"] * 8])) is None


@pytest.mark.parametrize("text", ["9" * 310, "9" * 5000, "0", "-1", "", "x"])
def test_watchdog_time_is_nonsense_is_ignored(text: str) -> None:
    """The variable of systemd cannot keep the proxy from starting."""
    assert _watchdog_s(text, "") is None
