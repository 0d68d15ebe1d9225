"""JSON of any size in bounded steps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swapchart.adapters.proxy.body import json_scan, model_name
from swapchart.adapters.proxy.body.errors import BadBodyError
from swapchart.adapters.proxy.body.json_scan import JsonError, finished, pieces, text_end, walk
from swapchart.adapters.proxy.body.model_name import model_of, model_steps

TOKENS = ["{", "}", "[", "]", ",", ":", '"a"', '"model"', '"b\\"c"', "1", "12345678901", "-", "0",
          "true", " ", "\n", '"', "\\", '"\\ud83d\\ude00"', '"\\ud83d"', '"' + "x" * 40 + '"',
          "1.5e9", '"\\u00', "é", "\x01", '"mod\\u0065l"', '{"model":"a"',
          '"stream":true']  # fmt: skip
JSONISH = st.lists(st.sampled_from(TOKENS), max_size=20).map("".join).map(str.encode)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\{[,:é ', max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts of a few bytes take many steps."""
    monkeypatch.setattr(json_scan, "STEP_BYTES", 13)
    monkeypatch.setattr(json_scan, "_KEPT_BYTES", 30)
    monkeypatch.setattr(json_scan, "_REPLACEMENT", b'"' + b"-" * 30 + b'"')
    monkeypatch.setattr(model_name, "_AT_ONCE_BYTES", 0)


def outcome(body: bytes, *, in_steps: bool) -> object:
    try:
        return finished(model_steps(body)) if in_steps else model_of(body)
    except BadBodyError:
        return "refused"


@pytest.mark.usefixtures("small_steps")
@settings(deadline=None, max_examples=2000)
@given(JSONISH)
@example(b'{"model":"a","x":[1,2,3,4,5,6,7,8,9,]}')
@example(b'{"model":"a","x":[,1,2,3,4,5,6,7,8]}')
@example(b'{"a":[[[[1,2,3,4]]]],"model":"a","b":1}')
@example(b'{"a":"' + b"x" * 99 + b'","model":"a"}')
@example(b'{"model":"a","c":1,"b":1111111111,"model":"a"}')
@example(b'{"model":null,"c":1,"b":1111111111,"model":"a"}')
@example(b'{"a":1,"b":2,"c":3} , {"d":1}')
@example(b'{"a":1,"b":2,"c":3,"d":4}}')
@example(b'{"a":[1,2,3,4,5,6}]')
@example(b'{"stream":true,"c":1,"b":1111111111,"stream":false}')
def test_model_in_pieces_is_the_model_of_the_whole(body: bytes) -> None:
    """What is read in many pieces is taken, refused and understood as what is read at once."""
    assert outcome(body, in_steps=True) == outcome(body, in_steps=False)


@pytest.mark.usefixtures("small_steps")
@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=6), st.sampled_from(["", " ", "\n "]))
def test_pieces_of_json_are_json(value: dict[str, Any], space: str) -> None:
    """Each piece is an object by itself, and the members of all are those of the whole."""
    text = json.dumps(value, separators=(f"{space},{space}", f"{space}:{space}")).encode()
    members: list[str] = []
    for piece in pieces(text):
        if piece is not None:
            members += [name for name, _ in json.loads(piece, object_pairs_hook=list) if name]

    known = [name for name in value if name and len(json.dumps(name)) <= 30]
    assert [name for name in members if name != "-" * 30] == known  # what is left out


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=5), st.sampled_from(["", " ", "\n "]))
@pytest.mark.usefixtures("small_steps")
def test_walk_finds_all_members(value: dict[str, Any], space: str) -> None:
    """Names and values are found, however small the steps are."""
    text = json.dumps(
        value, separators=(f"{space},{space}", f"{space}:{space}"), ensure_ascii=False
    )
    data = text.encode()
    found = [child for child in walk(data) if child is not None]

    assert [child.key for child in found] == list(value)
    assert [json.loads(data[child.value : child.end]) for child in found] == list(value.values())


@settings(deadline=None, max_examples=1000)
@given(JSONISH)
@pytest.mark.usefixtures("small_steps")
def test_walk_of_invalid_json_ends(body: bytes) -> None:
    """What is no JSON is refused or passed over, and never an error of another kind."""
    try:
        for _ in walk(body.strip()):
            pass
    except JsonError:
        return


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","x":' + b"[" * 2000 + b"1," + b"]" * 2000 + b"}",
        b'{"model":"a","x":"' + b"a" * (5 << 20),
        b'{"model":"a","x":"' + b"a" * (5 << 20) + b'\x00"}',
        b'{"model":"a","x":"' + b"a" * (5 << 20) + b'\\ud800"}',
        b'{"model":"a","x":' + b" " * (9 << 20) + b"1}",
        b'{"model":"a","x":' + b"1" * (9 << 20) + b"}",
        b'{"x":1,"model":["' + b"a" * (5 << 20) + b'"]}',
        b"[1" + b",1" * (3 << 20) + b"]",
    ],
)
def test_model_in_pieces_of_invalid_body_is_refused(body: bytes) -> None:
    """Large bodies are validated as strictly as small ones."""
    with pytest.raises(BadBodyError):
        finished(model_steps(body))


def test_model_after_a_long_text_is_found() -> None:
    """A picture in front of it does not hide the model, and a text with quotes is one text."""
    text = b"A" * (4 << 20) + b'\\"model\\":\\"b\\",' * 1000
    body = b'{"x":["' + text + b'",{"model":"c"}],"model":"a","stream":true}'

    assert finished(model_steps(body)) == ("a", True)


def test_text_end_at_the_border_of_a_step_is_found() -> None:
    """An escape that a step ends in is one escape."""
    for size in range(json_scan.STEP_BYTES - 8, json_scan.STEP_BYTES + 2):
        text = b'"' + b"a" * size + b'\\u00e9\\ud83d\\ude00\\"b"'

        assert finished(text_end(text + b",1", 0)) == len(text)
