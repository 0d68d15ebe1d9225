"""Token usage and speed, read from responses."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.rows import row

from swapchart.adapters.proxy.accounting.token_usage import TokenUsage, decoded, error_of, tokens_of

UNKNOWN: dict[str, Any] = {
    "cached": -1, "drafted": -1, "accepted": -1, "read_rate": -1.0, "write_rate": -1.0,
}  # fmt: skip
TIMINGS = {
    "prompt_n": 3, "prompt_ms": 10, "prompt_per_second": 300.5, "predicted_n": 7,
    "predicted_ms": 70, "predicted_per_second": 100, "cache_n": 40,
}  # fmt: skip


INNER = {"output_tokens": 7, "cache_read_input_tokens": 4}


def told(**known: Any) -> TokenUsage:
    return TokenUsage(**{**UNKNOWN, **known})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, TokenUsage()),
        ({"usage": None}, TokenUsage()),
        ({"usage": {}}, TokenUsage()),
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 2}}, told(prompt=5, completion=2)),
        ({"usage": {"input_tokens": 5, "output_tokens": 2}}, told(prompt=5, completion=2)),
        ({"usage": {"prompt_tokens": 5}}, told(prompt=5)),
        (
            {"usage": {"input_tokens": 5, "cache_read_input_tokens": 4}},
            told(prompt=5, cached=4),
        ),
        (
            {"usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 3}}},
            told(prompt=5, cached=3),
        ),
        (
            {"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}}},
            told(prompt=5, cached=0),
        ),
        (
            {"usage": {"prompt_tokens": 5, "prompt_tokens_details": None}},
            told(prompt=5),
        ),
        (
            {"usage": {"prompt_tokens": 99}, "timings": TIMINGS},
            told(
                prompt=3, completion=7, cached=40, read_rate=300.5, write_rate=100.0, server_ms=80
            ),
        ),
        (
            {"usage": {"prompt_tokens": 99, "completion_tokens": 9}, "timings": TIMINGS},
            told(
                prompt=3, completion=7, cached=40, read_rate=300.5, write_rate=100.0, server_ms=80
            ),
        ),
        (
            {"usage": {"prompt_tokens": 99, "completion_tokens": 9},
             "metrics": {"mean_itl_ms": 20}},
            told(prompt=99, completion=9, write_rate=50.0),
        ),
        (
            {"usage": {"prompt_tokens": 0, "completion_tokens": 0},
             "response": {"usage": {"input_tokens": 5, "output_tokens": 2}}},
            told(prompt=5, completion=2),
        ),
        (
            {"usage": {"prompt_tokens": 0, "completion_tokens": 0},
             "message": {"usage": {"input_tokens": 5, "output_tokens": 2}}},
            told(prompt=5, completion=2),
        ),
        (
            {"timings": {**TIMINGS, "draft_n": 9, "draft_n_accepted": 4}},
            told(
                prompt=3, completion=7, cached=40, read_rate=300.5, write_rate=100.0, server_ms=80,
                drafted=9, accepted=4,
            ),
        ),
        ({"timings": {"predicted_n": 7, "draft_n": 9}}, told(completion=7)),
        (
            {
                "usage": {"prompt_tokens": 120, "completion_tokens": 9,
                          "prompt_tokens_details": {"cached_tokens": 20}},
                "metrics": {"time_to_first_token_ms": 500, "mean_itl_ms": 20,
                            "speculative_decoding": {"num_draft_tokens": 8,
                                                     "num_accepted_draft_tokens": 3}},
            },
            told(
                prompt=120, completion=9, cached=20, read_rate=200.0, write_rate=50.0, drafted=8,
                accepted=3,
            ),
        ),
        ({"metrics": {"mean_itl_ms": 20}}, TokenUsage()),
        ([{"timings": {"prompt_n": 1}}, {"timings": {"prompt_n": 2}}], told(prompt=2)),
        ({"usage": {"prompt_tokens": True, "completion_tokens": "9"}}, TokenUsage()),
        ({"usage": [1]}, TokenUsage()),
        ({"choices": [{"message": {"content": '{"usage":{"prompt_tokens":9}}'}}]}, TokenUsage()),
    ],
)  # fmt: skip
def test_token_usage_is_read_from_json(value: object, expected: TokenUsage) -> None:
    """Every server's way of telling is understood, and timings outdo usage."""
    body = json.dumps(value).encode()

    assert tokens_of(body, is_events=False, is_whole=True) == expected


def events(*values: object) -> bytes:
    return b"".join(b"data: " + json.dumps(v).encode() + b"\n\n" for v in values)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (events({"choices": [{}]}), TokenUsage()),
        (
            events({"choices": []}, {"usage": {"prompt_tokens": 5, "completion_tokens": 2}})
            + b"data: [DONE]\n\n",
            told(prompt=5, completion=2),
        ),
        (
            events(
                {"type": "message_start",
                 "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}},
                {"type": "message_delta", "usage": {"output_tokens": 15}},
            ),
            told(prompt=25, completion=15),
        ),
        (
            events({"type": "response.completed",
                    "response": {"usage": {"input_tokens": 7, "output_tokens": 3}}}),
            told(prompt=7, completion=3),
        ),
        (
            events({"usage": {"prompt_tokens": 5, "completion_tokens": 2}},
                   {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
            told(prompt=5, completion=2),
        ),
        (events({"usage": {"prompt_tokens": 5}})[:-20], TokenUsage()),
        (b'event: x\r\ndata:{"usage":{"prompt_tokens":5}}\r\n\r\n', told(prompt=5)),
    ],
)  # fmt: skip
def test_token_usage_is_read_from_events(body: bytes, expected: TokenUsage) -> None:
    """The last positive values of a stream count, wherever its dialect tells them."""
    assert tokens_of(body, is_events=True, is_whole=False) == expected


def test_token_usage_of_fragments_keeps_the_first_and_the_last_objects() -> None:
    """Of many objects with usage, totals come last, and the prompt may be in the first alone."""
    first = b'{"message":{"usage":{"input_tokens":5,"cache_read_input_tokens":4}}}'
    middle = b'{"usage":{"output_tokens":1}}' * 100
    body = first + middle + b'{"usage":{"output_tokens":9}}}'

    assert tokens_of(body, is_events=False, is_whole=False) == told(
        prompt=5, completion=9, cached=4
    )


def test_token_usage_needs_head_and_tail_only() -> None:
    """A long answer of which only the ends are there still tells, at its beginning or its end."""
    whole = b'{"data":[' + b"0.5," * 99 + b'0.5],"usage" : {"prompt_tokens":5},"x":{"y":1}}'
    cut = whole[:3] + b"\n" + whole[-60:]
    head = b'{"model":"m","usage":{"prompt_tokens":8},"data":[0.5,\n0.5]}'

    assert tokens_of(cut, is_events=False, is_whole=False) == told(prompt=5)
    assert tokens_of(head, is_events=False, is_whole=False) == told(prompt=8)


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_token_usage_of_any_bytes_never_raises(
    noise: bytes, is_events: bool, is_whole: bool
) -> None:
    """Whatever an answer holds, reading it never fails."""
    for body in (noise, b'data: {"usage":' + noise, b'{"timings":' + noise + b"}"):
        tokens_of(body, is_events=is_events, is_whole=is_whole)
        error_of(500, body)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["usage", "timings", "prompt_n", "prompt_tokens", "metrics", "message"]
            ),
            inner,
        )
    ),
)


COUNTS = (
    st.none() | st.integers(-3, 10**16) | st.booleans() | st.floats(0, 99) | st.text(max_size=2)
)
USAGES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens",
             "cache_read_input_tokens"), COUNTS
        ),
        **dict.fromkeys(
            ("prompt_tokens_details", "input_tokens_details"),
            COUNTS | st.fixed_dictionaries({}, optional={"cached_tokens": COUNTS}),
        ),
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"timings": TIMINGS},
            told(
                prompt=3, completion=7, cached=40, read_rate=300.5, write_rate=100.0, server_ms=80
            ),
        ),
        (
            {"metrics": {"mean_itl_ms": 10}},
            told(prompt=99, completion=98, write_rate=100.0),
        ),
        ({"response": {"usage": INNER}}, told(prompt=99, completion=98, cached=4)),
        ({"message": {"usage": INNER}}, told(prompt=99, completion=98, cached=4)),
    ],
)
def test_token_usage_fast_decoder_leaves_other_fields_to_the_full_one(
    more: dict[str, Any], expected: TokenUsage
) -> None:
    """Usage with both counts is not all of a response that has timings or an inner object too."""
    value = {"usage": {"prompt_tokens": 99, "completion_tokens": 98}, **more}

    assert tokens_of(json.dumps(value).encode(), is_events=False, is_whole=True) == expected


@given(USAGES)
def test_token_usage_fast_decoder_equals_the_full_one(usage: object) -> None:
    """An answer of the usual shape is read another way than others, with the same outcome."""
    plain = {"choices": [], "usage": usage}
    other = {**plain, "metrics": {}}  # is looked at closely, and tells nothing more

    found = [
        tokens_of(json.dumps(value).encode(), is_events=False, is_whole=True)
        for value in (plain, other)
    ]

    assert found[0] == found[1]


@given(JSON)
def test_token_usage_of_any_value_never_raises(value: object) -> None:
    """Whatever shape a server's numbers have, they are numbers or unknown."""
    tokens = tokens_of(json.dumps(value).encode(), is_events=False, is_whole=True)

    assert all(isinstance(n, int) for n in (tokens.prompt, tokens.completion, tokens.cached))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"message":"m"}}', "m"),
        (b'{"error":"e"}', "e"),
        (b'{"message":"m2"}', "m2"),
        (b'{"detail":"d"}', "d"),
        (b'{"error":{"message":""},"detail":"d"}', "d"),
        (b'{"error":{"message":5}}', "502 Bad Gateway"),
        (b"<html>", "502 Bad Gateway"),
        (b"[]", "502 Bad Gateway"),
        (b"", "502 Bad Gateway"),
        (b'{"error":"' + b"x" * 900 + b'"}', "x" * 500),
    ],
)
def test_error_text_is_read_from_responses(body: bytes, expected: str) -> None:
    """An answer's own words say what is wrong, else the status does."""
    assert error_of(502, body) == expected


def test_error_text_of_an_unknown_status_is_its_number() -> None:
    assert error_of(499, b"") == "499"


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"x", b"", b"x"),
        (b"x", b" Identity ", b"x"),
        (gzip.compress(b"x", mtime=0), b"gzip", b"x"),
        (zlib.compress(b"x"), b"deflate", b"x"),
        (deflated(b"x"), b"deflate", b"x"),
        (b"no gzip", b"gzip", None),
        (b"x", b"br", None),
        (gzip.compress(bytes(200 << 20), 1, mtime=0), b"gzip", None),
    ],
)
@row("C25")
def test_token_usage_is_read_from_compressed_responses(
    data: bytes, encoding: bytes, expected: bytes | None
) -> None:
    """What is packed is unpacked, up to a limit; what is no such thing is left alone."""
    assert decoded(data, encoding) == expected
