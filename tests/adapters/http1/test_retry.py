"""Retry policy for requests to an upstream: every combination of facts."""

from __future__ import annotations

from itertools import product

import pytest
from tools.scripted_upstream import pieces_of

from swapchart.adapters.http1.client.errors import UpstreamBroken
from swapchart.adapters.http1.client.retry import is_repeatable, may_send_again

_BOOLS = (False, True)
_REPEATABLE = {b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"}


def decide(facts: dict[str, bool], retries: int) -> bool:
    """Return the decision for *facts*, keyed by the names of the arguments and attributes."""
    error = UpstreamBroken(
        "head",
        "the connection was closed",
        is_unsent=facts["is_unsent"],
        is_unanswered=facts["is_unanswered"],
        is_local=facts["is_local"],
    )
    return may_send_again(
        error,
        is_reused=facts["is_reused"],
        is_repeatable=facts["is_repeatable"],
        retries=retries,
    )


_FACTS = ("is_local", "is_reused", "is_unsent", "is_unanswered", "is_repeatable")
_ALL = [dict(zip(_FACTS, values, strict=True)) for values in product(_BOOLS, repeat=len(_FACTS))]


@pytest.mark.parametrize("retries", [0, 1, 7])
def test_may_send_again_any_facts_only_two_reasons(retries: int) -> None:
    """Of all combinations, those of an unsent request and of one safe first retry are accepted."""
    accepted = {
        (facts["is_unsent"], facts["is_unanswered"], facts["is_repeatable"])
        for facts in _ALL
        if decide(facts, retries)
    }
    unsent = {(True, unanswered, repeatable) for unanswered in _BOOLS for repeatable in _BOOLS}

    assert accepted == (unsent | {(False, True, True)} if retries == 0 else unsent)


@pytest.mark.parametrize("retries", [0, 1, 7])
@pytest.mark.parametrize("facts", _ALL, ids=lambda facts: "+".join(n for n in facts if facts[n]))
def test_may_send_again_local_or_new_connection_refused(
    facts: dict[str, bool], retries: int
) -> None:
    """A connection that the proxy closed, or that was new, is final; all else does not matter."""
    assert not decide({**facts, "is_local": True}, retries)
    assert not decide({**facts, "is_reused": False}, retries)


@pytest.mark.parametrize("facts", _ALL, ids=lambda facts: "+".join(n for n in facts if facts[n]))
def test_may_send_again_more_facts_against_never_accepts(facts: dict[str, bool]) -> None:
    """A further reason against a retry, or a further retry, never turns a refusal into consent."""
    for name in _FACTS:
        worse = {**facts, name: name == "is_local"}
        assert decide(facts, 0) >= decide(worse, 0)
    assert decide(facts, 0) >= decide(facts, 1) == decide(facts, 2)


@pytest.mark.parametrize(
    "method",
    [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"POST", b"PATCH", b"CONNECT",
     b"get", b""],
)  # fmt: skip
def test_is_repeatable_idempotent_method_with_body_in_memory(method: bytes) -> None:
    """Only methods that RFC 9110 calls idempotent are repeated, and never an iterator."""
    assert is_repeatable(method, None) == (method in _REPEATABLE)
    assert is_repeatable(method, b"") == (method in _REPEATABLE)
    assert is_repeatable(method, b"body") == (method in _REPEATABLE)
    assert not is_repeatable(method, pieces_of(b"body"))


def test_may_send_again_error_of_another_kind_is_final() -> None:
    """An error that says nothing about how far the request came is final."""
    error = UpstreamBroken("head", "unusable header")

    assert not may_send_again(error, is_reused=True, is_repeatable=True, retries=0)
