"""Memory of failed starts: ten seconds, few requests, and nothing of their bodies."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, floats, lists, sampled_from, text, tuples

from swapchart.adapters.proxy.body.json_scan import finished
from swapchart.adapters.proxy.models.failed_starts import (
    REMEMBERED_S,
    FailedStarts,
    digest_steps,
)
from swapchart.runtime import StartError

FAILED = StartError("exited", "a failed", status_hint=502, log_tail=("no",), can_retry=False)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@given(lists(tuples(floats(0, 8), sampled_from(["fail", "forget", "clear", "look"]))))
def test_failure_is_remembered_for_its_time_unless_forgotten(
    steps: list[tuple[float, str]],
) -> None:
    """A model of two variables: until when, if at all."""
    clock = Clock()
    memory, until = FailedStarts(clock), 0.0
    for wait_s, what in steps:
        clock.time += wait_s
        match what:
            case "fail":
                memory.remember("a", b"1", FAILED)
                until = clock.time + REMEMBERED_S
            case "forget":
                memory.forget("a")
                until = 0.0
            case "clear":
                memory.clear()
                until = 0.0
        found = memory.error("a", b"1")

        assert (found is not None) == (clock.time < until)
        assert ("a" in memory) == (found is not None)
        assert memory.error("a", b"2") is None
        assert memory.error("b", b"1") is None


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


def test_long_bodies_are_hashed_to_their_end() -> None:
    body = bytes(3 << 20)
    steps = digest_steps("", b"POST", b"/", body)

    assert sum(1 for _ in steps) == 3
    assert finished(digest_steps("", b"POST", b"/", body)) != finished(
        digest_steps("", b"POST", b"/", body[:-1] + b"1")
    )
