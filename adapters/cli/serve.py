"""What the commands do; each takes the parsed options and returns the exit code."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import yaml

from ...runtime import SwapchartError, Transition
from ..app.standard_streams import never_waiting
from ..config import ConfigProblems, check_config, config_schema, format_problems, load_config

Command = Callable[[argparse.Namespace], int]


def _fail(message: str) -> int:
    print(f"swapchart: {message}", file=sys.stderr)
    return 1


# ---- serve and demo
def serve(options: argparse.Namespace) -> int:
    """Run the proxy until a signal comes."""
    with never_waiting():
        return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    from ..app.application import Application, open_state
    from ..app.reloader import Sources
    from ..app.service_setup import stop_limit_s
    from ..server import run as server
    from ..store.state_directory import StateInUseError, default_directory

    if not options.config and not options.config_dir:
        return _fail("expected --config FILE or --config-dir DIR, got neither")
    sources = Sources(files=options.config, directory=options.config_dir)
    seen = sources.signature()
    try:
        config = sources.load()
    except ConfigProblems as error:
        print(format_problems(error.problems), file=sys.stderr)
        return 1
    if config.warnings:
        print(format_problems(config.warnings), file=sys.stderr)
    _log_to_stderr(config.log_level)
    try:
        certificate = server.check_certificate(options.tls_cert_file, options.tls_key_file)
        address = options.listen or f"127.0.0.1:{8080 if certificate is None else 8443}"
        host, _ = server.parse_address(address)
        must_have_keys = not (server.is_loopback(host) or options.allow_unauthenticated)
        if must_have_keys and not config.api_keys:
            return _fail(
                f"{address} can be reached from other machines and no apiKeys are "
                "configured: add some, listen on 127.0.0.1, or say --allow-unauthenticated"
            )
        sock = server.bind(address)
    except server.BindError as error:
        return _fail(str(error))
    names = ", ".join(config.models) or "none"

    def on_listening(url: str) -> None:
        print(f"swapchart listens on {url} ({options.server}); models: {names}", file=sys.stderr)

    files = [*options.config, *([options.config_dir] if options.config_dir else [])]
    try:
        state = open_state(options.state_dir or default_directory(files))
    except StateInUseError as error:
        _fail(str(error))
        return 3
    limit = stop_limit_s(config)
    how = server.ServeOptions(
        server=options.server, is_stock=options.stock, certificate=certificate,
        stop_limit_s=limit, on_listening=on_listening,
    )  # fmt: skip
    app = Application(
        config, sources=sources, seen=seen, is_watching=options.watch_config,
        must_have_keys=must_have_keys, state=state,
    )  # fmt: skip
    return server.run(app, sock, how)


def _log_to_stderr(level: str) -> None:
    number = logging.WARNING if level == "warn" else getattr(logging, level.upper())
    logging.basicConfig(
        level=number, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(max(number, logging.WARNING))


def demo(options: argparse.Namespace) -> int:
    """Run the proxy with two models of our own, and show each transition as it happens."""
    from ..app.application import Application
    from ..server import run as server

    _log_to_stderr("warn")
    try:
        sock = server.bind(options.listen)
    except server.BindError as error:
        return _fail(f"{error}\nsay --listen 127.0.0.1:0 for a free port")
    with tempfile.TemporaryDirectory(prefix="swapchart-demo-") as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(_demo_config(folder, options.load_seconds))
        app = Application(load_config([path]), stop_limit_s=20.0)
        app.listen(_show)
        how = server.ServeOptions(stop_limit_s=20.0, on_listening=_explain_demo)
        with never_waiting():
            return server.run(app, sock, how)


def _demo_config(folder: str, load_seconds: float) -> str:
    """Two models that save their slots before they stop and restore them when they are back."""
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
                sys.executable, "-m", "swapchart", "demo-server", "--model", name, "--port",
                "${PORT}", "--load-seconds", str(load_seconds), "--slot-save-path", str(slots),
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
        "Ctrl-C stops it. Each transition of the lifecycle shows up here:\n",
        flush=True,
    )


def _show(record: Transition) -> None:
    hooks = "".join(f" [{hook.action}: {hook.outcome}]" for hook in record.hooks)
    print(
        f"{record.at % 1000:9.3f}  {record.service:9} {record.source:>15} -> {record.target:15} "
        f"{record.event}{f' ({record.cause})' if record.cause else ''}{hooks}",
        flush=True,
    )


# ---- config
def check(options: argparse.Namespace) -> int:
    """Print every problem of a configuration."""
    from ..app.service_setup import chart, kv_problems
    from ..store.state_directory import default_directory

    problems = check_config(options.files)
    if problems:
        print(format_problems(problems))
    errors: list[object] = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        try:
            config = load_config(options.files)
            if advice := kv_problems(config, default_directory(options.files)):
                print(format_problems(advice))
            chart(config)
        except SwapchartError as error:
            errors.append(error)
            print(error, *getattr(error, "__notes__", ()), sep="\n")
    if not errors:
        print(f"{', '.join(map(str, options.files))}: ok")
    return 1 if errors else 0


def schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of the configuration."""
    print(json.dumps(config_schema(), indent=2))
    return 0


# ---- history
def history(options: argparse.Namespace) -> int:
    """Print the last transitions of a model of a running proxy, the oldest first."""
    from .api_client import AskError, ask

    path = f"/api/models/{quote(options.model, safe='')}/history"
    try:
        params = {"limit": str(options.limit)}
        rows = ask(options.url, path, "data", key=options.api_key, params=params)
    except AskError as error:
        return _fail(str(error))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in reversed(rows):
        when = datetime.fromtimestamp(row["at"], UTC).astimezone()
        hooks = "".join(f" [{hook['action']}: {hook['outcome']}]" for hook in row["hooks"])
        cause = f" ({row['cause']})" if row["cause"] else ""
        print(
            f"{when:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"  {row['source']:>15} -> {row['target']:15} "
            f"{row['event']}{cause}{hooks}"
        )
    return 0


def config_plan(options: argparse.Namespace) -> int:
    """Print what another configuration would change."""
    from .config import plan

    return plan(options)


def config_reload(options: argparse.Namespace) -> int:
    """Let a running proxy read its configuration again."""
    from .config import reload

    return reload(options)


def kv(options: argparse.Namespace) -> int:
    """Show, verify or purge what is kept of conversations."""
    from .kv import run

    return run(options)


COMMANDS: Mapping[str, Command] = {
    "kv": kv,
    "serve": serve,
    "demo": demo,
    "history": history,
    "config-check": check,
    "config-schema": schema,
    "config-plan": config_plan,
    "config-reload": config_reload,
}
