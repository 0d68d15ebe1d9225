"""`swapchart run MODEL [PROMPT]`: a model without a configuration, and a chat with it."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from ..output import _fail
from ..remote.chat import no_prompt, read_prompt, talk
from ..remote.client import Proxy, asking, model_path
from ..remote.progress import Progress
from ..remote.signals import exit_on_signals
from .choosing import Choice, RunError, choose
from .own_proxy import OwnProxy

_CLEAR = "\r\x1b[K"


@asking
def run(options: Namespace) -> int:
    """Serve a model if no proxy does, and ask it once or hold a conversation."""
    try:
        choice = choose(options)
        prompt = read_prompt(options)
        if prompt is not None and not prompt.strip():
            return no_prompt("run")
        options.model = choice.model
        if choice.proxy is not None:
            return talk(choice.proxy, options, prompt)
        try:
            return _serve(choice, options, prompt)
        except RunError as error:
            # a proxy that holds the state directory may be the one that refused to be asked
            raise RunError(f"{choice.refusal}; {error}" if choice.refusal else error) from error
    except RunError as error:
        return _fail(str(error))


def _serve(choice: Choice, options: Namespace, prompt: str | None) -> int:
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="swapchart-run-") as folder:
        arguments = list(choice.options)
        if choice.document is not None:
            path = Path(folder, "config.yaml")
            path.write_text(json.dumps(choice.document), "utf-8")
            arguments = ["--config", str(path), "--state-dir", str(Path(folder, "state"))]
        with OwnProxy(arguments) as own:
            proxy = Proxy(own.url, choice.key)
            if not options.json:
                print(f"{choice.model}: served at {own.url}/v1 meanwhile", file=sys.stderr)
            _load(proxy, choice.model, is_quiet=options.json)
            return talk(proxy, options, prompt)


def _load(proxy: Proxy, model: str, *, is_quiet: bool) -> None:
    """Load a model, and say on standard error how long that takes.

    Raises:
        ApiError: It cannot be loaded.
    """
    began = monotonic()
    is_live = sys.stderr.isatty() and not is_quiet
    with _seconds(model, began) if is_live else Progress(proxy, model, is_quiet=is_quiet):
        proxy.change(model_path(model, "/api/models/load/"))
    if not is_quiet:
        print(f"{model} is ready after {monotonic() - began:.1f} s", file=sys.stderr)


@contextmanager
def _seconds(model: str, began: float) -> Iterator[None]:
    """Show in a line of the terminal for how long *model* has been loading."""
    is_over = threading.Event()

    def show() -> None:
        while not is_over.wait(0.2):
            text = f"{model}: loading, {monotonic() - began:.0f} s"
            sys.stderr.write(f"{_CLEAR}{text}")
            sys.stderr.flush()

    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    try:
        yield
    finally:
        is_over.set()
        shown.join()
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
