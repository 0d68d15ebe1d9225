"""Multipart forms: finding and replacing the model's name while the form passes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser
from tools.rows import row

from swapchart.adapters.proxy.body.errors import BadBodyError
from swapchart.adapters.proxy.body.multipart import (
    FieldValue,
    MultipartScanner,
    boundary_of,
    parameters,
)

B = b"xYzB"


def part(name: str, value: bytes, *, filename: str | None = None, extra: str = "") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'Content-Disposition: form-data; name="{name}"{file}{extra}'
    return b"--" + B + b"\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + B + b"--\r\n"


def scan(body: bytes, sizes: Iterable[int] = ()) -> MultipartScanner:
    scanner = MultipartScanner(B)
    rest = io.BytesIO(body)
    for size in sizes:
        scanner.feed(rest.read(size))
    scanner.feed(rest.read())
    scanner.finish()
    return scanner


@given(
    st.binary(max_size=30),
    st.text(max_size=8).map(str.encode),
    st.binary(max_size=30),
    st.lists(st.integers(1, 9), max_size=60),
)
def test_multipart_model_is_found_at_its_offsets(
    before: bytes, name: bytes, after: bytes, sizes: list[int]
) -> None:
    """However the body is cut into pieces, the model stands where it is said to."""
    body = form(part("f", before, filename="a.wav"), part("model", name), part("x", after))
    if B in before + name + after:
        return

    scanner = scan(body, sizes)

    found = scanner.model
    assert found is not None
    assert (found.value.encode(), body[found.start : found.end]) == (name, name)
    assert (scanner.parts, scanner.is_complete) == (3, True)


VALUES = st.text(alphabet="ab\r\n-xYzBé", max_size=20).map(str.encode)


@given(st.dictionaries(st.sampled_from("abc"), VALUES))
@row("C43")
def test_multipart_scanner_agrees_with_python_multipart(values: dict[str, bytes]) -> None:
    """An independent parser finds the same model, or none."""
    fields = [(n, v) for n, v in values.items() if b"--" + B not in v]
    parts = [part("model" if n == "a" else n, v) for n, v in dict(fields).items()]
    body = form(*parts)
    seen: list[bytes] = []
    heads: list[bytes] = []

    def on_value(data: bytes, start: int, end: int) -> None:
        heads.append(data[start:end])

    def on_data(data: bytes, start: int, end: int) -> None:
        seen.append(data[start:end] if b'name="model"' in heads[-1] else b"")

    callbacks = {"on_header_value": on_value, "on_part_data": on_data}
    if parts:
        MultipartParser(B, callbacks).write(body)  # type: ignore[arg-type]

    found = scan(body).model
    assert b"".join(seen) == (found.value.encode() if found else b"")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form(part("model", b"a"), part("model", b"b")), "twice"),
        (form(part("model", b"a"), part("model", b"a")), "twice"),
        (form(part("model", b"\xff")), "UTF-8"),
        (form(part("model", b"m" * 2000)), "longer"),
        (form(*(part(f"f{n}", b"") for n in range(101))), "more than 100 parts"),
        (form(part("a", b"", extra="; x=" + "y" * 9000)), "longer than 8192"),
        (part("model", b"a"), "ends in the middle"),
        (b"", "ends in the middle"),
        (b"no form at all", "ends in the middle"),
        (b"--" + B + b"junk\r\n\r\n\r\n--" + B + b"--", "text after a boundary"),
        (b"--" + B + b" " * 400, "end of a line"),
        (form(part("a", b"", extra='; name="model"')), "twice in one header"),
        (form(part("a", b"", filename='x"; name="model')), "twice in one header"),
        (
            b"--" + B + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n--' + B + b"--",
            "no empty line",
        ),
        (
            b"--" + B + b"\r\nContent-Disposition: form-data; name=a\r\n"
            b"Content-Disposition: form-data; name=model\r\n\r\nx\r\n--" + B + b"--",
            "two Content-Disposition",
        ),
        (
            b"--" + B + b'\r\nContent-Disposition: form-data; filename="x; name=model\r\n\r\nm'
            b"\r\n--" + B + b"--",
            "malformed",
        ),
    ],
)
@row("C43")
def test_multipart_that_is_malformed_is_refused(body: bytes, why: str) -> None:
    """A form that two readers could read differently, or that is endless, is refused."""
    with pytest.raises(BadBodyError, match=why):
        scan(body)


@pytest.mark.parametrize(
    "head",
    [
        'content-disposition: form-data; name="model"',
        "Content-Disposition:form-data;name=model",
        'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"',
        'Content-Disposition: form-data; name="mo\\del"',
    ],
)
def test_multipart_part_name_spellings_are_read(head: str) -> None:
    """Case, spaces, order and quotes do not matter."""
    body = b"--" + B + b" \t\r\n" + head.encode() + b"\r\n\r\nm\r\n--" + B + b"--"

    found = scan(body).model

    assert found is not None
    assert found.value == "m"


@row("C43")
def test_multipart_file_named_model_is_not_the_model() -> None:
    """A file in the part `model` is a file, and so is one whose name looks like a part's."""
    body = form(
        part("model", b"data", filename="../../model"), part("x", b"", filename="name=model")
    )

    assert scan(body).model is None


def test_multipart_part_without_headers_is_skipped() -> None:
    """A part may have no fields at all, and what comes before and after the form is no part."""
    body = b"preamble\r\n--" + B + b"\r\n\r\nx\r\n" + form(part("model", b"m")) + b"epilogue"

    found = scan(body).model

    assert found == FieldValue(
        "m", body.index(b"m\r\n--" + B + b"--"), body.index(b"\r\n--" + B + b"--")
    )


def test_multipart_boundary_is_validated() -> None:
    """The boundary comes from the Content-Type, quoted or not, and must be a valid one."""
    assert boundary_of(b"multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of(b'Multipart/Form-Data; charset=x; boundary="a b:c"') == b"a b:c"
    bad = ("", "; boundary=", '; boundary="a', "; boundary=" + "x" * 71, "; boundary=a; boundary=b")
    for text in bad:
        with pytest.raises(BadBodyError):
            boundary_of(b"multipart/form-data" + text.encode())


TEXTS = st.text(alphabet='x ;="\\', max_size=6)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), TEXTS))
def test_multipart_parameters_are_parsed_as_the_standard_library_does(
    given_: dict[str, str],
) -> None:
    """Quoted parameters mean what they were, and what the email package says where it can."""
    quoted = {n: t.replace("\\", "\\\\").replace('"', '\\"') for n, t in given_.items()}
    value = "form-data" + "".join(f'; {n}="{t}"' for n, t in quoted.items())
    message = Message()
    message["content-disposition"] = value

    assert parameters(value) == given_
    if "\\" not in value.replace('\\"', ""):  # it takes a backslash at the end for an escape
        for name, text in given_.items():
            assert message.get_param(name, header="content-disposition") == text
