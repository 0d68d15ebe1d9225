"""Parsers of foreign bytes take time in proportion to their size.

Each parser gets hostile inputs of one size and of four times that size. Linear work takes four
times as long, quadratic work sixteen times; what takes more than ten times as long is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from tools.growth import growth

from swapchart.adapters.config.schema.document import UpstreamSection
from swapchart.adapters.http1.headers import HeaderError, connection_names, request_headers
from swapchart.adapters.http1.server.validation import origin_form, status_of_error
from swapchart.adapters.proxy.access.api_keys import ApiKeys
from swapchart.adapters.proxy.access.origins import HostCheck, OriginCheck, preflight
from swapchart.adapters.proxy.accounting.token_usage import error_of, tokens_of
from swapchart.adapters.proxy.api.passthrough import bad_path
from swapchart.adapters.proxy.body.errors import BadBodyError
from swapchart.adapters.proxy.body.json_edit import EditError, Edits
from swapchart.adapters.proxy.body.json_scan import finished
from swapchart.adapters.proxy.body.model_name import (
    model_of,
    model_of_query,
    model_steps,
    renamed_query,
)
from swapchart.adapters.proxy.body.multipart import MultipartScanner, boundary_of, parameters
from swapchart.adapters.proxy.models.catalog import ModelCatalog
from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.options import ApiKey
from swapchart.adapters.proxy.routing import cleaned

_MOST = 10.0
_LONG_ENOUGH_S = 0.002  # shorter times are no measure of growth
_EDITS = Edits.compile(
    ["temperature", "a.b"], {"stop": ["x"], "x.y.z": 1, "list.-1": 2}, {"top": 1}
)


def events(body: bytes) -> object:
    return tokens_of(body, is_events=True, is_whole=True)


def whole(body: bytes) -> object:
    return tokens_of(body, is_events=False, is_whole=True)


def ends(body: bytes) -> object:
    return tokens_of(body, is_events=False, is_whole=False)


def failed(body: bytes) -> object:
    return error_of(500, body)


def edited(body: bytes) -> object:
    return _EDITS.apply(body, model="other")


def in_steps(body: bytes) -> object:
    return finished(model_steps(body))


def renamed(body: bytes) -> object:
    return renamed_query(body, "b")


def scanned(body: bytes) -> None:
    scanner = MultipartScanner(b"x")
    for at in range(0, len(body), 1000):
        scanner.feed(body[at : at + 1000])
    scanner.finish()


def of_form(value: str) -> object:
    return boundary_of(b"multipart/form-data; " + value.encode())


def of_head(value: bytes) -> object:
    fields = [(b"connection", value), (b"x-forwarded-for", value), (b"x-request-id", value)]
    return request_headers(fields, host=b"h", client=b"c"), connection_names(fields)


def of_origin(value: bytes) -> object:
    check = OriginCheck(["*.a.example*", "https://*a*b*c*d"])
    return (
        check.allows(value, b"h"),
        HostCheck().allows(value),
        preflight([(b"access-control-request-headers", value)], b"o"),
    )


def of_keys(value: bytes) -> object:
    ring = ApiKeys([ApiKey(key="secret"), ApiKey(key="sha256:" + "0" * 64)])
    target = ring.target_without_keys(b"/?a=" + value + b"&b=" + value.replace(b" ", b"&"))
    return (
        ring.first_valid([value, b"Basic " + value], [value]),
        ring.without_keys([(b"a", value)]),
        target,
    )


def of_target(value: bytes) -> object:
    with suppress(Exception):
        origin_form(b"GET", b"http://" + value, [])
    return status_of_error(value), cleaned(value), bad_path(value)


def of_ignored(value: bytes) -> object:
    ignored = [re.compile(pattern) for pattern in UpstreamSection().ignore_paths]
    return ModelCatalog([], ignored=ignored).is_ignored(value)


def closest(value: str) -> object:
    names = [f"model-{number}-{'ab' * 20}" for number in range(200)]
    return ModelCatalog([ModelDefinition(id=name) for name in names]).closest(value)


@dataclass(frozen=True, slots=True)
class Hostile:
    """An input that grows: *part* again and again, between *before* and *behind*."""

    part: str
    before: str = ""
    behind: str = ""
    is_text: bool = False

    def of(self, count: int) -> Any:
        text = self.before + self.part * count + self.behind
        return text if self.is_text else text.encode()

    def __str__(self) -> str:
        return repr(f"{self.before}{self.part}..{self.behind}")


PARTS = ["a", " ", ";", "=", '"', '\\"', "\\", ";a=", '; a="', " ; ", "a=b;", "\xa0", "\t"]
OBJECTS = [
    '"temperature":1,', '"stop":1,', '"a":{"b":1},', '"x":{"y":{"z":1}},', '"list":[[],', "[],",
    '{"a":', "[", '"model":"a",', '"', '\\"', "\\", '"\\u006dodel":1,', "1,", " ", ",", '"a":1,',
]  # fmt: skip
BODIES = [
    Hostile(part, before, behind)
    for part in OBJECTS
    for before, behind in (
        ('{"model":"a",', ""), ('{"x":[', '1],"model":"a"}'), ('{"model":"a",', '"z":1}'),
    )
]  # fmt: skip
FORMS = [
    Hostile(part)
    for part in ("&", "model", "&model", "&%6d", "%6", "=", "&model=", "&a=model", "&m%6fde")
]
ANSWERS = [
    Hostile(part)
    for part in (
        '"usage":{', '"usage":', '"usage" ', '"usage":{"a":"', 'data:{"usage":{', "data:\n",
        'data: {"usage":{}}\n', '"usage":{}', '"usage":{"prompt_tokens":1},"timings":{', '"usage"',
        '{"error":', "[", '\\"usage\\":{',
    )
]  # fmt: skip
HEADS = [
    Hostile(part)
    for part in (
        ",", "a,", " ,", "a", ".", "[", ":", "1.", "%", "%00", "/", "../", "/./", " HTTP/1", "@",
        " ", "\t", "-", "Basic ", "=", "?", "é", "a.example", "abcd",
    )
]  # fmt: skip
MARKS = [Hostile(part) for part in ("\r\n--", "--x\r\n", "\r\n", "-", "\r\n--x\r\n\r\n")]
CASES: list[tuple[Callable[[Any], object], list[Hostile], int]] = [
    (parameters, [Hostile(part, "x", '"', is_text=True) for part in PARTS], 2000),
    (parameters, [Hostile(part, "x; a=", is_text=True) for part in PARTS], 2000),
    (of_form, [Hostile(part, "a=", '"', is_text=True) for part in PARTS], 2000),
    (scanned, MARKS, 20_000),
    (model_of, BODIES, 4000),
    (in_steps, BODIES, 4000),
    (edited, BODIES, 4000),
    (model_of_query, FORMS, 20_000),
    (renamed, FORMS, 20_000),
    (events, ANSWERS, 8000),
    (whole, ANSWERS, 8000),
    (ends, ANSWERS, 8000),
    (failed, ANSWERS, 8000),
    (of_head, HEADS, 4000),
    (of_origin, HEADS, 4000),
    (of_keys, HEADS, 4000),
    (of_target, HEADS, 4000),
    (of_ignored, HEADS, 4000),
    (closest, [Hostile(part, is_text=True) for part in ("a", "ab", "model-", "é")], 500),
]


def growth_of(parse: Callable[[Any], object], small: Any, large: Any) -> float:
    """Return how many times longer *parse* takes on *large*, at best."""

    def run(given: Any) -> None:
        with suppress(BadBodyError, EditError, HeaderError, ValueError):
            parse(given)

    return growth(lambda: run(small), lambda: run(large), limit=_MOST, floor_s=_LONG_ENOUGH_S)


@pytest.mark.parametrize(
    ("parse", "hostile", "size"),
    [
        pytest.param(parse, hostile, size, id=f"{parse.__name__}-{hostile}")
        for parse, inputs, size in CASES
        for hostile in inputs
    ],
)
def test_parser_of_foreign_bytes_takes_linear_time(
    parse: Callable[[Any], object], hostile: Hostile, size: int
) -> None:
    """Four times as much takes about four times as long, whatever it is."""
    assert growth_of(parse, hostile.of(size), hostile.of(4 * size)) <= _MOST


def test_growth_check_detects_quadratic_time() -> None:
    """The measure tells quadratic from linear work."""
    pattern = re.compile(r"\s+$")

    assert growth_of(pattern.search, " " * 3000 + "x", " " * 12_000 + "x") > _MOST
