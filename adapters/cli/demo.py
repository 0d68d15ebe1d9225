"""`swapchart demo`: the proxy with two demo models."""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import yaml

from ...runtime import Transition
from ..app.standard_streams import never_waiting
from ..config import load_config
from ..server import listen
from ..server.options import ServeOptions
from .output import _fail, _log_to_stderr


def demo(options: argparse.Namespace) -> int:
    """Run the proxy with two demo models, and print each transition as it happens."""
    from ..app.application import Application
    from ..server import run as server

    _log_to_stderr("warn")
    try:
        sock = listen.bind(options.listen)
    except listen.BindError as error:
        return _fail(f"{error}\nuse --listen 127.0.0.1:0 for a free port", error.exit_code)
    with tempfile.TemporaryDirectory(prefix="swapchart-demo-") as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(_demo_config(folder, options.load_seconds))
        app = Application(load_config([path]), stop_limit_s=20.0)
        app.listen(_show)
        how = ServeOptions(stop_limit_s=20.0, on_listening=_explain_demo)
        with never_waiting():
            return server.run(app, sock, how)


def _demo_config(folder: str, load_seconds: float) -> str:
    """Return a configuration with two models that save their slots and restore them."""
    models = {}
    for name in ("tortoise", "hare"):
        slots = Path(folder) / name
        slots.mkdir()
        url = "http://127.0.0.1:${PORT}/slots/0?action="
        post = (
            "curl -sf -X POST -H 'Content-Type: application/json' -d '{\"filename\": \"kv.bin\"}'"
        )
        models[name] = {
            "cmd": [
                sys.executable, "-m", "swapchart.adapters.demo", "--model", name,
                "--port", "${PORT}",
                "--load-seconds", str(load_seconds), "--slot-save-path", str(slots),
            ],
            "proxy": "http://127.0.0.1:${PORT}",
            "ttl": 120,
            "afterHealthy": [
                {"run": f"test ! -e '{slots}/kv.bin' || {post} '{url}restore'", "shell": True}
            ],
            "beforeStop": f"{post} {url}save",
        }  # fmt: skip
    return yaml.safe_dump({"models": models})


def _explain_demo(url: str) -> None:
    body = '{{"model": "{}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    chat = f"curl {url}/v1/chat/completions -d"
    print(
        f"swapchart demo on {url}: two models, one at a time. Try, in another terminal:\n\n"
        f"  {chat} '{body.format('tortoise')}'\n"
        f"  {chat} '{body.format('hare')}'\n"
        f"  curl {url}/running\n\n"
        f"or open {url}/ui/ in a browser.\n\n"
        "Press Ctrl-C to stop. Each transition of the lifecycle is printed here:\n",
        flush=True,
    )


def _show(record: Transition) -> None:
    hooks = "".join(f" [{hook.action}: {hook.outcome}]" for hook in record.hooks)
    now = datetime.now().strftime("%H:%M:%S.%f")[:-3]
    print(
        f"{now}  {record.service:9} {record.source:>15} -> {record.target:15} "
        f"{record.event}{f' ({record.cause})' if record.cause else ''}{hooks}",
        flush=True,
    )
