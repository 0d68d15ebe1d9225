"""Suggestions for unknown keys of a configuration. Pure.

A key is looked up in this order: keys that other programs call differently, the same key in another
spelling, a key of another part of the document, and last a similar key.
"""

from __future__ import annotations

import re

from .expand import HOOK_POINTS
from .schema.document import TOP_KEYS, DocumentSection
from .schema.model import ModelSection
from .schema.section import Section

#: Maximum number of suggestions for a load: finding a similar name takes 0.1 to 1 ms.
MOST_HINTS = 200
_LONGEST_HINTED = 64  # characters of a key
_SIMILARITY = 0.75  # with less, 'host' is taken for 'hooks'

_ADDRESS = "the address to listen on is an option of the command: serve --listen HOST:PORT"
#: Words of other programs, in lower case without separators -> the key or an explanation.
_AT_THE_TOP = {
    **dict.fromkeys(("host", "port", "listen", "listenaddress", "address", "bind"), _ADDRESS),
    **dict.fromkeys(("ttl", "idletimeout", "keepalive"), "globalTTL"),
    **dict.fromkeys(("readytimeout", "loadtimeout", "startuptimeout"), "startTimeout"),
    **dict.fromkeys(("apikey", "keys"), "apiKeys"),
    **dict.fromkeys(("model", "modellist"), "models"),
    "services": "each model is an entry of 'models'; is this a compose file?",
}
_IN_A_MODEL = {
    **dict.fromkeys(
        ("healthchecktimeout", "readytimeout", "loadtimeout", "startuptimeout"), "startTimeout"
    ),
    **dict.fromkeys(("command", "entrypoint", "args"), "cmd"),
    **dict.fromkeys(("url", "endpoint", "upstream", "baseurl"), "proxy"),
    **dict.fromkeys(("healthcheck", "healthendpoint", "healthpath"), "checkEndpoint"),
    **dict.fromkeys(("port", "host"), "the address of the model belongs in cmd and proxy"),
    **dict.fromkeys(("stop", "stopcmd"), "cmdStop"),
    **dict.fromkeys(("globalttl", "idletimeout", "keepalive"), "ttl"),
    "environment": "env",
    "hooks": "hook points such as 'beforeStop' are keys of the model itself",
}


def _keys(kind: type[Section]) -> frozenset[str]:
    if kind is DocumentSection:
        return TOP_KEYS
    return frozenset(field.alias for field in kind.model_fields.values())


def key_hint(kind: type[Section], key: str) -> str:
    """Return what to write instead of the unknown *key* of a section, or an empty text."""
    if len(key) > _LONGEST_HINTED:
        return ""
    plain, known = _plain(key), _keys(kind)
    words = {DocumentSection: _AT_THE_TOP, ModelSection: _IN_A_MODEL}.get(kind, {})
    if (meant := words.get(plain)) is not None:
        return f"; {meant}" if " " in meant else f"; did you mean {meant!r}?"
    by_word = {_plain(name): name for name in known}
    if plain in by_word:
        return f"; did you mean {by_word[plain]!r}?"
    if (place := _other_place(kind, key)) is not None:
        return f"; it belongs {place}"
    import difflib  # slow to import, and needed for errors only

    close = difflib.get_close_matches(plain, by_word, n=1, cutoff=_SIMILARITY)
    return f"; did you mean {by_word[close[0]]!r}?" if close else ""


def _other_place(kind: type[Section], key: str) -> str | None:
    """Return where *key* is known, if not in *kind* but at the top level or in a model."""
    if kind is DocumentSection and key in HOOK_POINTS:
        return f"in a model (models.NAME.{key}), or below 'hooks' for all models"
    if kind is DocumentSection and key in _keys(ModelSection):
        return f"in a model: models.NAME.{key}"
    if kind is ModelSection and key in TOP_KEYS:
        return "at the top level"
    return None


def _plain(name: str) -> str:
    """Return *name* in lower case without separators."""
    return re.sub(r"[\W_]", "", name.lower())
