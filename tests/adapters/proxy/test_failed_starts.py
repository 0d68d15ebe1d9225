"""Memory of failed starts: seconds, longer for clients that go on, and nothing of their bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import (
    SearchStrategy,
    binary,
    booleans,
    dictionaries,
    floats,
    integers,
    lists,
    none,
    recursive,
    sampled_from,
    text,
    tuples,
)

from swapchart.adapters.proxy.body.json_scan import finished
from swapchart.adapters.proxy.models.failed_starts import (
    GROWTH,
    LONGEST_S,
    REMEMBERED_S,
    FailedStarts,
    comparable,
    digest_steps,
)
from swapchart.runtime import StartError

FAILED = StartError("exited", "a failed", status_hint=502, log_tail=("no",), can_retry=False)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@given(lists(tuples(floats(0, 40), sampled_from(["fail", "forget", "clear", "look"]))))
def test_failure_is_remembered_for_its_time_unless_forgotten(
    steps: list[tuple[float, str]],
) -> None:
    """A model of three variables: the failure, the last look at it, and its end, if any."""
    clock = Clock()
    memory, failed, looked, until = FailedStarts(clock), 0.0, 0.0, 0.0
    for wait_s, what in steps:
        clock.time += wait_s
        now = clock.time
        match what:
            case "fail":
                memory.remember("a", b"1", FAILED)
                failed, looked, until = now, now, now + REMEMBERED_S
            case "forget":
                memory.forget("a")
                until = 0.0
            case "clear":
                memory.clear()
                until = 0.0
        found = memory.error("a", b"1")

        assert (found is not None) == (now < until)
        assert ("a" in memory) == (found is not None)
        assert memory.error("a", b"2") is None
        assert memory.error("b", b"1") is None
        if found is not None:
            pause, looked = now - looked, now
            until = max(until, min(now + GROWTH * pause, failed + LONGEST_S))


def starts_of(delays_s: list[float]) -> int:
    """Return how many starts a client causes that repeats one request after these pauses."""
    clock = Clock()
    memory = FailedStarts(clock)
    starts = 0
    for delay_s in [0.0, *delays_s]:
        clock.time += delay_s
        if memory.error("a", b"1") is None:
            starts += 1
            clock.time += 2.0
            memory.remember("a", b"1", FAILED)
    return starts


def test_client_that_backs_off_causes_one_start() -> None:
    """Aider sleeps 0.25 s and doubles that up to 32 s; a person does not."""
    assert starts_of([0.3 * 2**n for n in range(8)]) == 1
    assert starts_of([11.0]) == 2
    assert starts_of([9.0] * 20) == 3


def test_remembered_error_is_the_same_without_its_traceback() -> None:
    memory = FailedStarts(Clock())
    try:
        raise FAILED
    except StartError as error:
        memory.remember("a", b"1", error)
    found = memory.error("a", b"1")

    assert found is not None
    assert found.__traceback__ is None
    assert not isinstance(found, StartError)
    assert (found.code, str(found), found.status_hint, found.log_tail, found.can_retry) == (
        "exited", "a failed", 502, ("no",), False
    )  # fmt: skip


def test_number_of_remembered_requests_is_bounded() -> None:
    memory = FailedStarts(Clock())
    for number in range(1000):
        memory.remember("a", b"%d" % number, FAILED)
    kept = [number for number in range(1000) if memory.error("a", b"%d" % number)]

    assert kept == list(range(1000 - 256, 1000))


PARTS = tuples(text(), sampled_from([b"GET", b"POST"]), sampled_from([b"/a", b"/b"]), binary())


@given(PARTS, PARTS)
def test_requests_have_the_same_digest_only_if_they_are_the_same(
    one: tuple[str, bytes, bytes, bytes], other: tuple[str, bytes, bytes, bytes]
) -> None:
    is_same = finished(digest_steps(*one)) == finished(digest_steps(*other))

    assert is_same == (one == other)


VALUES: SearchStrategy[Any] = recursive(
    none() | booleans() | integers() | floats(allow_nan=False, allow_infinity=False) | text(),
    lambda inner: lists(inner, max_size=3) | dictionaries(text(), inner, max_size=4),
    max_leaves=12,
)


def turned(value: Any) -> Any:
    """Return *value* with the keys of all objects in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(each) for key, each in reversed(value.items())}
    return [turned(each) for each in value] if isinstance(value, list) else value


@given(VALUES, VALUES)
def test_json_bodies_are_the_same_whatever_the_order_of_their_keys(one: Any, other: Any) -> None:
    first, second = (comparable(json.dumps(value).encode()) for value in (one, other))

    assert comparable(json.dumps(turned(one), indent=1).encode()) == first
    assert (first == second) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


@pytest.mark.parametrize(
    "body", [b"", b"{", b"--x\r\n", b'"\xff"', b"[" * 100_000, b'{"a":"' + b"x" * (1 << 18) + b'"}']
)
def test_body_that_is_no_short_json_is_compared_as_it_is(body: bytes) -> None:
    assert comparable(body) is body


def test_long_bodies_are_hashed_to_their_end() -> None:
    body = bytes(3 << 20)
    steps = digest_steps("", b"POST", b"/", body)

    assert sum(1 for _ in steps) == 3
    assert finished(digest_steps("", b"POST", b"/", body)) != finished(
        digest_steps("", b"POST", b"/", body[:-1] + b"1")
    )
