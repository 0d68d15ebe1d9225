"""`swapchart logs`: the log of a running proxy, or the output of a model."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from codecs import getincrementaldecoder
from collections.abc import Iterable
from http.client import HTTPException

from .client import ApiError, asking, model_path, proxy_of
from .signals import losing_no_signal


@asking
def logs(options: Namespace) -> int:
    """Print the lines that are kept of a log, and with --follow later ones as they come."""
    proxy = proxy_of(options)
    path = model_path(options.model, "/logs/stream/") if options.model else "/logs/stream"
    if options.follow and options.lines is None:
        _follow(proxy.log(path, limit_s=None), options)
        return 0
    stream = proxy.log(f"{path}?no-history", limit_s=None) if options.follow else None
    lines = proxy.read(proxy.log(f"{path}?no-follow")).splitlines()
    if options.lines is not None:
        lines = lines[len(lines) - min(options.lines, len(lines)) :]
    _print(lines, options)
    if stream is not None:
        _follow(stream, options)
    return 0


def _follow(response: Iterable[bytes], options: Namespace) -> None:
    decoder = getincrementaldecoder("utf-8")("replace")
    try:
        with losing_no_signal():
            for data in response:
                _print(decoder.decode(data).splitlines(), options)
    except (OSError, HTTPException, AttributeError) as error:
        raise ApiError(f"the log was cut off: {error}") from error


def _print(lines: list[str], options: Namespace) -> None:
    for line in lines:
        print(json.dumps({"line": line}) if options.json else line)
    sys.stdout.flush()
