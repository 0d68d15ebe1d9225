"""Editing JSON in place, by the paths of sjson."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swapchart.adapters.proxy.body.json_edit import (
    EditError,
    Edits,
    children,
    delete,
    put,
)
from swapchart.adapters.proxy.body.json_path import JsonPath, Segment, parse_path

KEYS = st.text(alphabet='ab"\\é\n.{', min_size=1, max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(alphabet='a"\\{[,:é ', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
SPACES = st.sampled_from(["", " ", "\n\t", "  "])


def spread(value: Any, space: str) -> bytes:
    """Write *value* as JSON with *space* wherever it may be."""
    separators = (f"{space},{space}", f"{space}:{space}")
    text = json.dumps(value, separators=separators, ensure_ascii=False)
    return f"{space}{text}{space}".encode()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)), ("a.b", ("a", "b")), (r"a\.b", ("a.b",)), (r"a\\.b", ("a\\", "b")),
        ("a..b", ("a", "", "b")), ("", ("",)), ("0.-1", ("0", "-1")), ("a\\", ("a",)),
        (":a", ("a",)), ("::a", (":a",)), (r"\:a", (":a",)), ("a:b", ("a:b",)),
        (":a.b*", (":a", "b*")), (r"\#.a\*", ("#", "a*")),
    ],
)  # fmt: skip
def test_json_edit_path_is_parsed(text: str, path: tuple[str, ...]) -> None:
    """A dot separates, a backslash takes the next character as it is, a colon marks a name."""
    found = parse_path(text)

    assert tuple(segment.name for segment in found.segments) == path
    assert found.replaces_only == (text == ":a.b*")


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a":1}', "a", '{"a":9}'),
        ('{ "a" : 1 , "b":2 }', "b", '{ "a" : 1 , "b":9 }'),
        ('{"a":1}', "b", '{"a":1,"b":9}'),
        ("{}", "b", '{"b":9}'),
        ("{ }", "b", '{"b":9}'),
        ('{"a":{"b":1,"c":2}}', "a.b", '{"a":{"b":9,"c":2}}'),
        ('{"a":{}}', "a.b.c", '{"a":{"b":{"c":9}}}'),
        ('{"a":"text"}', "a.b", '{"a":{"b":9}}'),
        ('{"a":null}', "a.b", '{"a":{"b":9}}'),
        ('{"a":[1,2,3]}', "a.1", '{"a":[1,9,3]}'),
        ('{"a":[1]}', "a.3", '{"a":[1,null,null,9]}'),
        ('{"a":[]}', "a.0", '{"a":[9]}'),
        ('{"a":[1]}', "a.-1", '{"a":[1,9]}'),
        ('{"a":[{"b":1}]}', "a.0.b", '{"a":[{"b":9}]}'),
        ("{}", "a.1", '{"a":[null,9]}'),
        ("{}", "a.:1", '{"a":{"1":9}}'),
        ('{"a":{"1":0}}', "a.1", '{"a":{"1":9}}'),
        ('{"a.b":1}', r"a\.b", '{"a.b":9}'),
        ('{"a":1,"a":2}', "a", '{"a":9,"a":9}'),
        ('{"\\u0061":1}', "a", '{"\\u0061":9}'),
        ('{"x":"{\\"a\\":1}","a":1}', "a", '{"x":"{\\"a\\":1}","a":9}'),
        ('{"x":"\\\\","a":1}', "a", '{"x":"\\\\","a":9}'),
        ('{"n":1e400,"a":1.50}', "a", '{"n":1e400,"a":9}'),
    ],
)
def test_json_edit_put_sets_a_value(before: str, path: str, after: str) -> None:
    """A value is put where its path leads; what is missing is made, all else stays as it was."""
    assert put(before.encode(), parse_path(path), b"9").decode() == after


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a":1}', "a", "{}"),
        ('{"a":1,"b":2}', "a", '{"b":2}'),
        ('{"a":1, "b":2}', "b", '{"a":1}'),
        ('{"a":1 , "b":2 , "c":3}', "b", '{"a":1 , "c":3}'),
        ('{"a":{"b":1,"c":2}}', "a.c", '{"a":{"b":1}}'),
        ('{"a":[1,2,3]}', "a.1", '{"a":[1,3]}'),
        ('{"a":[1,2,3]}', "a.-1", '{"a":[1,2]}'),
        ('{"a":1,"a":2,"b":3}', "a", '{"b":3}'),
        ('{"a":1,"a":2}', "a", "{}"),
        (' {"a":1} ', "b", ' {"a":1} '),
        ('{"a":[1]}', "a.5", '{"a":[1]}'),
        ('{"a":1}', "a.b.c", '{"a":1}'),
        ('{"\\u0061":1,"b":2}', "a", '{"b":2}'),
    ],
)
def test_json_edit_delete_removes_a_value(before: str, path: str, after: str) -> None:
    """What a path leads to goes, wherever it stands, and every time it occurs."""
    assert delete(before.encode(), parse_path(path)).decode() == after


@pytest.mark.parametrize("path", ["a.b", "a.99999", "a.1000000"])
def test_json_edit_list_has_no_members(path: str) -> None:
    """A name inside a list, and an index beyond reason, are refused."""
    with pytest.raises(EditError):
        put(b'{"a":[1]}', parse_path(path), b"9")


#: Text, path and what sjson 1.2.5 makes of them, with 9 as the value; None means an error.
_SJSON_SETS = [
    # the end of a list, and the number that is none
    ("{}", "a.-1", '{"a":[9]}'), ('{"a":[1]}', "a.-1", '{"a":[1,9]}'),
    ('{"a":[1]}', "a.-1.x", '{"a":[1,{"x":9}]}'), ('{"a":{}}', "a.-1", '{"a":{"-1":9}}'),
    ('{"a":"t"}', "a.-1", '{"a":{"-1":9}}'), ('{"a":null}', "a.-1", '{"a":{"-1":9}}'),
    ('{"a":"t"}', "a.1", '{"a":[null,9]}'), ('{"a":null}', "a.0", '{"a":[9]}'),
    ('{"a":[1]}', "a.-2", None), ('{"a":[1]}', "a.x", None), ("{}", "-1", '{"-1":9}'),
    ("{}", "0", '{"0":9}'), ('{"a":[1]}', "a.01", '{"a":[1,9]}'), ('{"a":[]}', "a.00", '{"a":[9]}'),
    ('{"a":[1]}', "a.1.x", '{"a":[1,{"x":9}]}'), ('{"a":[1]}', "a.0.1", '{"a":[[null,9]]}'),
    ("{}", "a.\u0661", '{"a":{"\u0661":9}}'), ("{}", "0.-1.-1", '{"0":[[9]]}'),
    # empty segments
    ("{}", "a.", '{"a":[9]}'), ('{"a":{}}', "a.", '{"a":{"":9}}'),
    ('{"a":{"":1}}', "a.", '{"a":{"":9}}'), ('{"a":[1,2]}', "a.", '{"a":[1,2,9]}'),
    ("{}", "a..", '{"a":[[9]]}'), ("{}", ".a", '{"":{"a":9}}'), ("{}", "a..b", '{"a":[{"b":9}]}'),
    # a colon before a name
    ("{}", "a.:1", '{"a":{"1":9}}'), ('{"a":[1]}', "a.:0", '{"a":[9]}'),
    ('{"a":[1]}', "a.:5", None), ('{"a":[1]}', "a.:-1", None), ("{}", "a.:-1", '{"a":{"-1":9}}'),
    ("{}", ":a", '{"a":9}'), ("{}", "::a", '{":a":9}'), ("{}", ":", '{"":9}'),
    ('{"a":{"b":1}}', "a.:b", '{"a":{"b":9}}'), ("{}", "\\:a", '{":a":9}'),
    # all items of a list
    ('{"a":[{"n":1},{"m":1},{"n":{}},[{"n":1}],7]}', "a.#.n",
     '{"a":[{"n":9},{"m":1},{"n":9},[{"n":1}],7]}'),
    ('{"a":[{"n":{"k":1}},{"n":2}]}', "a.#.n.k", '{"a":[{"n":{"k":9}},{"n":2}]}'),
    ('{"a":[[1,2],[3],[]]}', "a.#.0", '{"a":[[9,2],[9],[]]}'),
    ('{"a":[{"n":1}]}', "a.#.-1", '{"a":[{"n":1}]}'), ('{"a":[1]}', "a.#", '{"a":[1]}'),
    ('{"a":[]}', "a.#.n", '{"a":[]}'), ('{"a":{"n":1}}', "a.#.n", '{"a":{"n":1}}'),
    ("{}", "a.#.n", "{}"), ("{}", "#", "{}"), ('{"#":1}', "#", '{"#":9}'),
    ("{}", "\\#", '{"#":9}'), ('{"a":{"#":{"n":1}}}', "a.#.n", '{"a":{"#":{"n":9}}}'),
    ("{}", "a#b", "{}"), ('{"a#b":1}', "a#b", '{"a#b":9}'), ('{"a":[{"x":1}]}', "a.#.:x",
     '{"a":[{"x":1}]}'),
    # patterns
    ('{"ab":1,"ac":2}', "a*", '{"ab":9,"ac":2}'), ('{"ab":1,"ac":2}', "?c", '{"ab":1,"ac":9}'),
    ('{"ab":{"x":1}}', "a*.x", '{"ab":{"x":9}}'), ('{"ab":{"x":1}}', "a*.y", '{"ab":{"x":1}}'),
    ('{"ab":1,"ac":{"x":1}}', "a*.x", '{"ab":1,"ac":{"x":9}}'), ("{}", "a*", "{}"),
    ('{"a":[1,2]}', "a.*", '{"a":[1,2]}'), ('{"a[b]":1}', "a[b*", '{"a[b]":9}'),
    ('{"a*":1,"ab":2}', "a\\*", '{"a*":9,"ab":2}'), ("{}", "a\\*", '{"a*":9}'),
    # modifiers and pipes
    ('{"a":[1]}', "a|0", '{"a":[1]}'), ('{"a":[1]}', "a.@reverse", '{"a":[1]}'),
    ("{}", "x@y", "{}"), ('{"x@y":1}', "x@y", '{"x@y":9}'),
]  # fmt: skip


@pytest.mark.parametrize(("before", "path", "after"), _SJSON_SETS)
def test_json_edit_put_any_path_as_sjson(before: str, path: str, after: str | None) -> None:
    """Values land where llama-swap's filters put them, or nowhere."""
    if after is None:
        with pytest.raises(EditError):
            put(before.encode(), parse_path(path), b"9")
        return

    assert put(before.encode(), parse_path(path), b"9").decode() == after


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a":[1,2]}', "a.-1", '{"a":[1]}'), ('{"a":[]}', "a.-1", '{"a":[]}'),
        ('{"a":{"-1":1}}', "a.-1", '{"a":{}}'), ('{"a":[1]}', "a.-2", '{"a":[1]}'),
        ('{"a":[1]}', "a.", '{"a":[1]}'), ('{"a":{"":1}}', "a.", '{"a":{}}'),
        ('{"a":[1]}', "a.:0", '{"a":[]}'), ('{"a":[1]}', "a.:-1", '{"a":[1]}'),
        ('{"a":{"b":1}}', "a.:b", '{"a":{}}'), ('{"#":1}', "\\#", "{}"),
        ('{"a":[[{"b":1,"c":2}]]}', "a.-1.-1.b", '{"a":[[{"c":2}]]}'),
    ],
)  # fmt: skip
def test_json_edit_delete_any_path_as_sjson(before: str, path: str, after: str) -> None:
    """Paths mean the same where something is removed."""
    assert delete(before.encode(), parse_path(path)).decode() == after


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a":[{"n":1,"m":2},{"n":3}]}', "a.#.n", '{"a":[{"m":2},{}]}'),
        ('{"ab":1,"ac":2,"d":3}', "a*", '{"d":3}'),
        ('{"ab":{"x":1},"ac":{"x":1,"y":2}}', "a*.x", '{"ab":{},"ac":{"y":2}}'),
    ],
)
def test_json_edit_delete_pattern_removes_all_matches(before: str, path: str, after: str) -> None:
    """Paths through `#` and patterns, which sjson refuses to delete, remove all they fit."""
    assert delete(before.encode(), parse_path(path)).decode() == after


SEGMENTS = st.sampled_from(
    ["a", "b", "é", "0", "1", "-1", "", ":1", ":a", "#", "\\#", "a*", "?", "*", "\\*", "x@y", "a|b"]
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join)


@given(OBJECTS, PATHS, SPACES)
def test_json_put_special_path_adds_nothing(value: dict[str, Any], path: str, space: str) -> None:
    """A path with `#` or a pattern replaces values and adds neither members nor items."""
    text = spread(value, space)
    parsed = parse_path(path)
    assume(parsed.replaces_only)

    after = json.loads(put(text, parsed, b'{"new":[]}'))

    def replaced(old: Any, new: Any) -> bool:
        if new == {"new": []} or old == new:
            return True
        if isinstance(old, dict):
            return old.keys() == new.keys() and all(replaced(old[key], new[key]) for key in old)
        return len(old) == len(new) and all(map(replaced, old, new))

    assert replaced(value, after)


@given(OBJECTS, PATHS, SPACES)
def test_json_delete_any_path_leaves_json(value: dict[str, Any], path: str, space: str) -> None:
    """Whatever the path is, the text stays JSON, and nothing is added."""
    text = spread(value, space)
    after = delete(text, parse_path(path))

    assert len(after) <= len(text)
    assert json.loads(after).keys() <= value.keys()


@given(st.dictionaries(st.sampled_from(["model", "a", "moxel"]), VALUES, min_size=1), PATHS)
def test_json_edits_any_pattern_leaves_the_model(value: dict[str, Any], path: str) -> None:
    """No pattern, colon or escape lets a filter change `model`."""
    ways = ["mod*", "?odel", "*", "mo?el.a", ":model", "mod\\el", "m*l.-1", path]
    edits = Edits.compile(ways, dict.fromkeys(ways, 9))
    text = spread({"model": "m", **value}, "")
    try:
        after = json.loads(edits.apply(text))
    except EditError:
        return

    assert after["model"] == value.get("model", "m")


@given(OBJECTS, SPACES)
def test_json_children_are_those_of_the_json_module(value: dict[str, Any], space: str) -> None:
    """Names and values are found wherever spaces, quotes and brackets stand."""
    text = spread(value, space)

    found = children(text)

    assert [child.key for child in found] == list(value)
    assert [json.loads(text[child.value : child.end]) for child in found] == list(value.values())


@given(OBJECTS, KEYS, VALUES, SPACES)
def test_json_put_changes_one_member(
    value: dict[str, Any], key: str, new: object, space: str
) -> None:
    """Whatever the object is, one member changes, and the bytes of the others do not."""
    text = spread(value, space)
    path = parse_path(key.replace("\\", "\\\\").replace(".", "\\."))

    after = put(text, path, json.dumps(new).encode())

    assert json.loads(after) == {**value, key: new}
    for child in children(text):
        if child.key != key:
            assert text[child.start : child.end] in after


@given(OBJECTS, KEYS, SPACES)
def test_json_delete_removes_one_member(value: dict[str, Any], key: str, space: str) -> None:
    """Whatever the object is, one member goes, and nothing else."""
    path = parse_path(key.replace("\\", "\\\\").replace(".", "\\."))

    after = delete(spread(value, space), path)

    assert json.loads(after) == {name: item for name, item in value.items() if name != key}


@given(OBJECTS, st.lists(KEYS, min_size=1, max_size=3), VALUES)
def test_json_put_then_read_returns_the_value(
    value: dict[str, Any], keys: list[str], new: object
) -> None:
    """What was put at a path is found at that path."""
    path = JsonPath(tuple(Segment(key, is_key=True) for key in keys))
    text = spread(value, "")
    try:
        after: Any = json.loads(put(text, path, json.dumps(new).encode()))
    except EditError:
        assume(False)
    for key in keys:
        after = after[key]

    assert after == new


def test_json_edits_apply_in_order() -> None:
    """Parameters are stripped first, then set in sorted order, then those of the name."""
    edits = Edits.compile(["a", "b", "a"], {"c": 1, "a.x": 2, "b": 3}, {"b": 4})

    assert edits.apply(b'{"model":"m","a":{"y":0},"b":0}') == (
        b'{"model":"m","a":{"x":2},"b":4,"c":1}'
    )


def test_json_edit_of_the_model_is_ignored() -> None:
    """No filter touches the model, however its path is written."""
    edits = Edits.compile(["model", "model.x"], {"model": "other", "model.a": 1}, {"model": 2})

    assert not edits
    assert edits.apply(b'{"model":"m"}') == b'{"model":"m"}'


def test_json_model_is_renamed_in_place() -> None:
    """A new name replaces the old one, whatever characters it has."""
    text = Edits().apply(b'{"x": [1, 2],  "model" : "old" , "y":1.0}', model='n"é')

    assert text.decode() == '{"x": [1, 2],  "model" : "n\\"é" , "y":1.0}'


def test_json_edit_of_a_megabyte_takes_milliseconds() -> None:
    """Long texts, as pictures make them, cost next to nothing."""
    import time

    text = b'{"model":"m","messages":[{"content":"' + b"A" * (8 << 20) + b'"}],"t":1}'
    began = time.perf_counter()
    after = Edits.compile(["t"], {"u": 1}).apply(text, model="n")
    took = time.perf_counter() - began

    assert after.endswith(b'"}],"u":1}')
    assert took < 2.0


def test_json_edits_of_a_repeated_name_are_bounded() -> None:
    """A name is stripped as often as it is given, and set a thousand times at most."""
    repeated = b'{"model":"m",' + b'"a":1,' * 1001 + b'"b":2}'

    assert Edits.compile(["a"]).apply(repeated) == b'{"model":"m","b":2}'
    assert Edits.compile([], {"b": 3}).apply(repeated) == repeated.replace(b"2", b"3")
    for path in ("a", "a.x", "a.0"):
        with pytest.raises(EditError, match="1000"):
            Edits.compile([], {path: 9}).apply(repeated)


@given(OBJECTS, st.lists(KEYS, max_size=3), st.dictionaries(KEYS, VALUES, max_size=3), SPACES)
def test_json_edits_together_equal_edits_in_sequence(
    value: dict[str, Any], strip: list[str], given_: dict[str, Any], space: str
) -> None:
    """One pass for all edits changes what a pass for each would."""
    text = spread(value, space)
    expected = text
    try:
        for path in dict.fromkeys(map(parse_path, strip)):
            expected = delete(expected, path)
        for name in sorted(given_):
            new = json.dumps(given_[name], ensure_ascii=False).encode()
            expected = put(expected, parse_path(name), new)
    except EditError:
        assume(False)

    assert Edits.compile(strip, given_).apply(text) == expected
