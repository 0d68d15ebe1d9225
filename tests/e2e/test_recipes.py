"""The recipes of docs/recipes.md, run with the programs that they are for.

Each test takes the block from the page, and replaces only addresses, paths and the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tools import raw
from tools.net import LONG_S, free_port, port_block, wait_until
from tools.recipes import (
    BIN,
    KEY,
    Managed,
    blocks,
    check_body,
    check_stream,
    check_websocket,
    configuration,
    program,
    replaced,
    run,
    running,
)
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, chat_body

pytestmark = pytest.mark.slow


def proxy_of(serve: Serve, *options: str) -> SwapchartProcess:
    """Start a proxy with the configuration of the page."""
    config = {"startPort": port_block(), **configuration()}
    proxy = serve(config=json.dumps(config), options=options)
    proxy.headers = KEY
    return proxy


# ---- reverse proxies
def check_everything(port: int, prefix: str = "") -> None:
    """Check streams, websockets, large bodies and the page through a reverse proxy."""
    check_stream(port, prefix)
    check_websocket(port, prefix)
    check_body(port, prefix)
    answer = raw.call(port, "GET", f"{prefix}/ui", headers=KEY)
    assert answer.header("location") == f"{prefix}/ui/"
    unload = {**KEY, "Origin": f"http://127.0.0.1:{port}", "Host": f"127.0.0.1:{port}"}
    target = f"{prefix}/api/models/unload"
    assert raw.call(port, "POST", target, headers=unload).status == 200


@pytest.mark.parametrize("variant", ["whole host", "left on", "taken off"])
def test_recipe_nginx_passes_streams_websockets_and_bodies(
    variant: str, serve: Serve, tmp_path: Path
) -> None:
    """Put nginx in front, at a host of its own and below a path, as the page says."""
    nginx = program("nginx", "/usr/sbin/nginx")
    prefix = "" if variant == "whole host" else "/llm"
    proxy = proxy_of(serve, *(["--root-path", prefix] if prefix else []))
    port = free_port()
    (block,) = blocks("nginx", "nginx")
    block = replaced(block, listens=f"127.0.0.1:{port}", proxy=f"127.0.0.1:{proxy.port}")
    if prefix:
        assert "location / {" in block
        block = block.replace("location / {", "location /llm/ {")
    if variant == "taken off":
        block = block.replace("proxy_pass http://swapchart;", "proxy_pass http://swapchart/;")
    places = "\n".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; user root;\nevents {{}}\n"
        f"http {{ access_log off;\n{places}\n{block}\n}}\n"
    )
    argv = [nginx, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    with running(argv, tmp_path, port):
        check_everything(port, prefix)


def test_recipe_caddy_passes_streams_websockets_and_bodies(serve: Serve, tmp_path: Path) -> None:
    """Put Caddy in front, at a host of its own and below a path, as the page says."""
    caddy = program("caddy")
    whole, below = blocks("Caddy", "text")
    assert "handle /llm/*" in below
    shown = (whole, below, below.replace("handle ", "handle_path "))
    plain, prefixed = proxy_of(serve), proxy_of(serve, "--root-path", "/llm")
    ports = [free_port() for _ in shown]
    sites = [
        replaced(block, proxy=f"127.0.0.1:{proxy.port}").replace(
            "models.example.org {", f"http://127.0.0.1:{port} {{"
        )
        for block, proxy, port in zip(shown, (plain, prefixed, prefixed), ports, strict=True)
    ]
    (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + "".join(sites))
    argv = [caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    with running(argv, tmp_path, ports[-1], HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path)):
        for port, prefix in zip(ports, ("", "/llm", "/llm"), strict=True):
            check_everything(port, prefix)


# ---- process managers
def test_recipe_systemd_unit_is_verified(tmp_path: Path) -> None:
    """The verifier of systemd finds no fault in the unit that the page refers to."""
    analyze = program("systemd-analyze")
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    (unit,) = re.findall(r"^```ini\n(\[Unit\]\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "swapchart.service"
    path.write_text(unit.replace("/usr/local/bin/swapchart", str(BIN / "swapchart")))

    assert "swapchart.service" not in run(analyze, "verify", "--man=no", str(path))


@pytest.fixture
def managed() -> Iterator[Managed]:
    found = Managed()
    yield found
    found.kill()


def settings(folder: Path) -> dict[str, str]:
    """Write the configuration into *folder*, and return what replaces the paths of the page."""
    path = folder / "swapchart.yaml"
    path.write_text(yaml.safe_dump({"startPort": port_block(), **configuration()}))
    return {
        "command": str(BIN / "swapchart"), "config": str(path), "state": str(folder / "state"),
        "proxy": f"127.0.0.1:{free_port()}",
    }  # fmt: skip


def load_and_hold(port: int) -> raw.Connection:
    """Wait for the proxy at *port*, and begin a stream of a model that goes on."""
    wait_until(lambda: _status(port) == 200, LONG_S, what="the proxy responds")
    connection = raw.Connection(port)
    body = chat_body("chat", 60, stream=True, ignore_eos=True)
    connection.request("POST", CHAT, value=body, headers=KEY)
    assert connection.read_head().status == 200
    assert connection.read_chunk()
    return connection


def _status(port: int) -> int:
    try:
        return raw.status(port)
    except OSError:
        return 0


def check_stop(connection: raw.Connection, managed: Managed) -> None:
    """Check that the stream was completed before the stop, and that no process is left."""
    chunks = []
    while chunk := connection.read_chunk():
        chunks.append(chunk)
    assert chunks[-1].rstrip().endswith(b"[DONE]")
    wait_until(
        lambda: not managed.processes("swapchart"), what=lambda: f"none: {managed.processes()}"
    )


def test_recipe_supervisord_stops_without_orphans(managed: Managed, tmp_path: Path) -> None:
    """`supervisorctl stop` lets a stream finish, ends the models, and the exit code is 0."""
    daemon = program("supervisord", ".recipes/python/bin/supervisord")
    control = program("supervisorctl", ".recipes/python/bin/supervisorctl")
    changes = settings(tmp_path)
    port = int(changes["proxy"].rpartition(":")[2])
    (block,) = blocks("supervisord", "ini")
    assert "user=swapchart\n" in block
    block = replaced(block, **changes, log=str(tmp_path / "log")).replace("user=swapchart\n", "")
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\npidfile={tmp_path}/pid\nlogfile={tmp_path}/main.log\n"
        f"[inet_http_server]\nport={address}\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = "
        f"supervisor.rpcinterface:make_main_rpcinterface\n{block}"
    )
    argv = [daemon, "-c", str(tmp_path / "supervisord.conf")]
    with (
        running(argv, tmp_path, int(address.rpartition(":")[2]), **managed.env),
        load_and_hold(port) as connection,
    ):
        managed.note_guard()
        run(control, "-s", f"http://{address}", "stop", "swapchart")
        check_stop(connection, managed)
    assert "stopped: swapchart (exit status 0)" in (tmp_path / "main.log").read_text()


def test_recipe_pm2_stops_without_orphans(managed: Managed, tmp_path: Path) -> None:
    """`pm2 stop` lets a stream finish and ends the models, and no process crashed."""
    pm2 = program("pm2", ".recipes/node_modules/.bin/pm2")
    changes = settings(tmp_path)
    port = int(changes["proxy"].rpartition(":")[2])
    (block,) = blocks("pm2", "js")
    (tmp_path / "ecosystem.config.js").write_text(replaced(block, **changes))
    env = {**managed.env, "PM2_HOME": str(tmp_path / "pm2"), "HOME": str(tmp_path)}
    try:
        run(pm2, "start", str(tmp_path / "ecosystem.config.js"), **env)
        with load_and_hold(port) as connection:
            managed.note_guard()
            run(pm2, "stop", "swapchart", **env)
            check_stop(connection, managed)
        logs = "".join(path.read_text() for path in (tmp_path / "pm2" / "logs").glob("*"))
        assert "shutting down" in logs
        assert "event=tripped" not in logs
        assert "crashed" not in logs
    finally:
        run(pm2, "kill", **env)


# ---- applications
def open_webui_turns(proxy: SwapchartProcess, tasks: str, turns: int = 3) -> int:
    """Make the requests of a chat in Open WebUI; return how many models were evicted.

    Args:
        proxy: The proxy.
        tasks: The task model.
        turns: Messages of the person.
    """
    listed = {row["id"] for row in proxy.get("/v1/models")["data"]}
    assert {"chat", tasks} <= listed
    for _ in range(turns):
        answer = proxy.chat("chat", 3, stream=True, stream_options={"include_usage": True})
        assert answer.status == 200
        assert answer.events()[-1]["usage"]["completion_tokens"] == 3
        for _ in ("follow-ups", "title", "tags"):
            assert proxy.chat(tasks, 3, stream=False).status == 200
    text = proxy.call("GET", "/metrics").body.decode()
    counted = [line for line in text.splitlines() if "swapchart_evictions_total{" in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in counted))


@pytest.mark.parametrize(
    ("way", "evictions"), [("other model", 5), ("same model", 0), ("selector", 0), ("group", 0)]
)
def test_recipe_open_webui_task_model_causes_no_swap(
    way: str, evictions: int, serve: Serve
) -> None:
    """A second model for titles swaps in each turn; the three ways of the page avoid that."""
    variables = dict(line.split("=", 1) for line in blocks("Open WebUI", "ini")[0].splitlines()[1:])
    config = {"startPort": port_block(), **configuration()}
    if way == "group":
        config["groups"] = {"both": {"swap": False, "members": ["chat", "titles"]}}
    proxy = serve(config=json.dumps(config))
    proxy.headers = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
    tasks = {"same model": "chat", "selector": variables["TASK_MODEL_EXTERNAL"]}.get(way, "titles")

    assert open_webui_turns(proxy, tasks) == evictions


@pytest.mark.clients
def test_recipe_litellm_checks_load_no_model(serve: Serve, tmp_path: Path) -> None:
    """LiteLLM passes streams on, and its /health loads nothing; without the settings it does."""
    litellm = program("litellm", ".clients/python/bin/litellm")
    proxy = proxy_of(serve)
    (block,) = blocks("LiteLLM", "yml")
    block = replaced(block, proxy=f"127.0.0.1:{proxy.port}")
    key = {"Authorization": f"Bearer {yaml.safe_load(block)['general_settings']['master_key']}"}
    setting = "health_check_skip_disabled_background_models: true"
    assert setting in block
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    for text, checked in ((block, 0), (block.replace(setting, ""), 2)):
        port = free_port()
        (tmp_path / "litellm.yaml").write_text(text)
        argv = [litellm, "--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(port)]
        with running(argv, tmp_path, port, **env):
            found = raw.call(port, "GET", "/health", headers=key, timeout_s=120).json()
            states = [row["state"] for row in proxy.get("/health/readiness")["models"][:1]]
            assert len(found["healthy_endpoints"]) == checked, found
            check_stream(port, key=key)
        assert states == (["stopped"] if not checked else states)
    assert proxy.get("/api/models/titles/history")["data"]


@pytest.mark.clients
def test_recipe_opencode_uses_one_model(serve: Serve, tmp_path: Path) -> None:
    """A session of opencode, with its title, is served by the chat model alone."""
    opencode = program("opencode", ".clients/programs/node_modules/.bin/opencode")
    proxy = proxy_of(serve)
    (block,) = blocks("opencode", "json")
    (tmp_path / "opencode.json").write_text(replaced(block, proxy=f"127.0.0.1:{proxy.port}"))
    env = {"HOME": str(tmp_path), "NO_PROXY": "*", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    argv = ["sh", "-c", f"cd {tmp_path} && exec {opencode} run 'say hello' </dev/null"]

    assert "This is chat" in run(*argv, **env)
    models = [row["model"] for row in proxy.get("/api/metrics/activity")["data"]]
    assert len(models) >= 2
    assert set(models) == {"chat"}
