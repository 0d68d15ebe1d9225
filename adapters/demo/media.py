"""Endpoints besides text generation: vectors, scores, speech, and uploaded forms."""

from __future__ import annotations

import base64
import hashlib
import struct
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from .fake_model import Json, embedding, relevance, token_id
from .http import HttpError, whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a multipart form.

    Attributes:
        name: Name of the field.
        filename: As sent; None for a plain field.
        content_type: As sent; may be empty.
        data: The content.
    """

    name: str
    filename: str | None
    content_type: str
    data: bytes

    def summary(self) -> Json:
        """Return the fields without the content, but with its size and digest."""
        return {
            "name": self.name,
            "filename": self.filename,
            "content_type": self.content_type,
            "size": len(self.data),
            "sha256": hashlib.sha256(self.data).hexdigest(),
        }


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a ``multipart/form-data`` body (RFC 7578), in order.

    Raises:
        HttpError: It is not such a body, or it is truncated.
    """
    kind, options = _options(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not boundary:
        raise HttpError(400, "expected multipart/form-data with a boundary")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise HttpError(400, "expected a form that ends with its boundary")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, _, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    _, options = _options(headers.get("content-disposition", ""))
    return Part(
        name=options.get("name", ""),
        filename=options.get("filename"),
        content_type=headers.get("content-type", ""),
        data=data,
    )


def _options(value: str) -> tuple[str, dict[str, str]]:
    kind, *rest = value.split(";")
    pairs = (option.strip().partition("=") for option in rest)
    return kind.strip().lower(), {name.lower(): text.strip('"') for name, _, text in pairs}


def describe_form(model: str, parts: Sequence[Part]) -> Json:
    """Return the response to a form: the text of a transcription, and a summary of the parts."""
    files = ", ".join(f"{p.filename} ({len(p.data)} bytes)" for p in parts if p.filename)
    fields = {p.name: p.data.decode("utf-8", "replace") for p in parts if p.filename is None}
    text = f"This is {model}. I received {files or 'no file'}."
    return {"text": text, "fields": fields, "parts": [part.summary() for part in parts]}


def embeddings(model: str, body: Json, dimensions: int) -> Json:
    """Return the response of ``/v1/embeddings``.

    Raises:
        HttpError: There is no input.
    """
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise HttpError(400, 'expected "input": a text or a list')
    if all(isinstance(token, int) for token in texts):
        texts = [" ".join(map(str, texts))]
    items = []
    for index, text in enumerate(texts):
        vector: object = embedding(str(text), dimensions)
        if body.get("encoding_format") == "base64":
            packed = struct.pack(f"<{dimensions}f", *embedding(str(text), dimensions))
            vector = base64.b64encode(packed).decode()
        items.append({"object": "embedding", "index": index, "embedding": vector})
    n = sum(len(str(text).split()) for text in texts)
    usage = {"prompt_tokens": n, "total_tokens": n}
    return {"model": model, "object": "list", "usage": usage, "data": items}


def rerank(model: str, body: Json) -> Json:
    """Return the response of ``/v1/rerank``, best first.

    Raises:
        HttpError: The query or the documents are missing.
    """
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list):
        raise HttpError(400, 'expected "query": a text, and "documents": a list')
    scored = [(relevance(query, str(text)), index) for index, text in enumerate(documents)]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    results = [{"index": index, "relevance_score": score} for score, index in scored]
    top = whole_number(body.get("top_n"), "top_n", len(results))
    return {"model": model, "object": "list", "results": results[: max(top, 0)]}


def tokenize(body: Json) -> Json:
    """Return the response of ``/tokenize``: one number per word."""
    return {"tokens": [token_id(word) for word in str(body.get("content", "")).split()]}


def speech(text: str, *, rate_hz: int = 8000) -> bytes:
    """Return a WAV file (mono, 16 bit) with a square tone per word; the word sets the pitch."""
    frames = bytearray()
    for word in text.split():
        half = 8 + token_id(word) % 24
        wave_form = [4000 if (n // half) % 2 else -4000 for n in range(rate_hz // 20)]
        frames += struct.pack(f"<{len(wave_form)}h", *wave_form)
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(bytes(frames))
    return out.getvalue()
