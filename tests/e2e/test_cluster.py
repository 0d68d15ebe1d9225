"""Models on the nodes of a real Ray cluster, behind a real proxy."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tools.browser import expect_text, launched, opened
from tools.gguf_files import write_gguf
from tools.net import LONG_S, port_block, wait_until
from tools.ray_cluster import HAS_RAY, RayCluster
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

needs_ray = [pytest.mark.ray, pytest.mark.slow]
long = pytest.mark.skipif(
    not os.environ.get("SWAPCHART_LONG"), reason="NOT TESTED: ./dev cluster has little time in CI"
)


def remote(label: str, *options: str, nodes: object = "any", **keys: Any) -> dict[str, Any]:
    """Return a model that runs on a node."""
    model = demo_model(label, "--host", "${HOST}", "--quiet", *options, nodes=nodes, **keys)
    del model["proxy"]
    return model


def serve_on(
    serve: Serve, cluster: RayCluster, name: str, models: dict[str, Any], **keys: Any
) -> SwapchartProcess:
    """Start a proxy on *cluster*."""
    config = {"cluster": {"engine": "ray", "address": cluster.address, "name": name}, **keys}
    return serve(models, config=config)


def node_of(proxy: SwapchartProcess, model: str) -> str:
    """Return the node of a running model, by its own environment."""
    pid = proxy.running()[model]["pid"]
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(v[15:].decode() for v in environment if v.startswith(b"SWAPCHART_NODE="))


def devices(proxy: SwapchartProcess) -> dict[str, list[str]]:
    """Return the GPUs that models of *proxy* have, by node."""
    rows = proxy.get("/api/nodes")["nodes"]
    found = {row["name"]: [d for model in row["models"] for d in model["devices"]] for row in rows}
    return {node: sorted(pools) for node, pools in found.items() if pools}


def device_of(proxy: SwapchartProcess, model: str) -> str:
    """Return the only GPU of *model*."""
    rows = [row for node in proxy.get("/api/nodes")["nodes"] for row in node["models"]]
    ((device,),) = [row["devices"] for row in rows if row["model"] == model]
    return str(device)


@pytest.mark.slow
@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_cluster_without_ray_says_what_to_install(serve: Serve) -> None:
    proxy = serve({}, config={"cluster": {"engine": "ray"}}, wait=False)

    assert proxy.wait() == 78
    lines = proxy.output().strip().splitlines()
    assert lines[-1] == (
        "swapchart: `cluster: {engine: ray}` needs Ray, which is not installed: "
        "pip install 'swapchart[ray]'"
    )
    assert "Traceback" not in proxy.output()


class TestOnNodes:
    """What a model on a node does as one on this machine does."""

    pytestmark = needs_ray

    def test_request_hooks_and_stop(
        self, serve: Serve, cluster: RayCluster, tmp_path: Path
    ) -> None:
        note = tmp_path / "note"
        hook = f"echo $SWAPCHART_NODE ${{HOST}}:${{PORT}} $SWAPCHART_PID $SWAPCHART_HOOK >> {note}"
        hooks = {"run": ["sh", "-c", hook]}
        model = remote("a", nodes="box2", afterHealthy=hooks, beforeStop=hooks)
        proxy = serve_on(serve, cluster, "hooks", {"a": model})

        assert proxy.chat("a").status == 200
        running = proxy.running()["a"]
        assert node_of(proxy, "a") == "box2"
        assert proxy.unload("a").status == 200
        after, before = (line.split() for line in note.read_text().splitlines())
        assert after[:1] + after[2:] == ["box2", str(running["pid"]), "afterHealthy"]
        assert after[1].startswith("127.0.0.4:")
        assert before == [*after[:3], "beforeStop"]

    def test_page_shows_nodes_with_their_devices_and_models(
        self, serve: Serve, cluster: RayCluster
    ) -> None:
        """Name, address, state, memory of each GPU and the models, whose names are links."""
        models = {name: remote(name, memory="20GiB", nodes=f"box{name}") for name in "12"}
        proxy = serve_on(serve, cluster, "page", models, memory="auto")
        assert proxy.chat("1").status == proxy.chat("2").status == 200
        with launched() as browser, opened(browser, proxy, "/ui/system") as page:
            table = page.get_by_role("region", name="Nodes").get_by_role("table")
            expect_text(page, table.get_by_role("row", name="box1"), "box1.*up.*GPU0: 4.0 GiB")
            rows = {}
            for row in table.get_by_role("row").all()[1:]:
                name, *cells = row.get_by_role("cell").all_inner_texts()
                rows[name.split()[0]] = [cell.split("\n") for cell in cells[:4]]
            table.get_by_role("link", name="2").click()
            expect_text(page, "main", "on box2")

        free, whole = "4.0 GiB of 24.0 GiB free", "24.0 GiB of 24.0 GiB free"
        gpus = {name: [e for e in cells[2] if "GPU" in e] for name, cells in rows.items()}
        assert gpus.pop("box1") == [f"box1/GPU0: {free}"]
        assert gpus.pop("box2") == [f"box2/GPU0: {free}", f"box2/GPU1: {whole}"]
        assert rows["box1"][:2] == [["127.0.0.3"], ["up"]]
        assert (rows["box1"][3], rows["box2"][3]) == (["1 ready"], ["2 ready"])

    def test_killed_model_is_started_again(self, serve: Serve, cluster: RayCluster) -> None:
        proxy = serve_on(serve, cluster, "kill", {"a": remote("a")})
        assert proxy.chat("a").status == 200
        first = proxy.running()["a"]["pid"]
        os.kill(first, signal.SIGKILL)
        proxy.wait_state("a", "stopped")

        assert proxy.chat("a").status == 200
        assert proxy.running()["a"]["pid"] != first

    def test_memory_of_all_nodes_decides_what_is_evicted(
        self, serve: Serve, cluster: RayCluster
    ) -> None:
        """Three GPUs hold three models; the fourth evicts one, and one that needs two GPUs two."""
        models = {name: remote(name, memory="20GiB") for name in "abcd"}
        models["two"] = remote("two", memory={"need": "44GiB", "place": "all"}, nodes="box2")
        models["huge"] = remote("huge", memory="30GiB")
        proxy = serve_on(serve, cluster, "memory", models, memory="auto")

        for name in "abc":
            assert proxy.chat(name).status == 200
        assert {*proxy.running()} == {*"abc"}
        assert sorted(node_of(proxy, name) for name in "abc") == ["box1", "box2", "box2"]
        assert proxy.chat("d").status == 200
        assert len(proxy.running()) == 3
        assert proxy.chat("two").status == 200
        running = {*proxy.running()}
        assert len(running) == 2
        environment = Path(f"/proc/{proxy.running()['two']['pid']}/environ").read_bytes()
        assert b"\0CUDA_VISIBLE_DEVICES=0,1\0" in environment
        refused = proxy.chat("huge")
        assert refused.status == 503
        assert refused.json()["error"]["code"] == "memory_infeasible"

    @pytest.mark.parametrize("memory", ["off", pytest.param("auto", marks=long)])
    def test_gpus_are_chosen_reserved_and_shown(
        self, serve: Serve, cluster: RayCluster, memory: str
    ) -> None:
        """Three whole GPUs hold one model each; a fourth one gets a clear error, or evicts one."""
        models = {name: remote(name, gpus=1) for name in "abcd"}
        models["two"] = remote("two", gpus=2)
        groups = {"all": {"swap": False, "members": [*models]}}
        proxy = serve_on(serve, cluster, f"gpus-{memory}", models, memory=memory, groups=groups)

        for name in "abc":
            assert proxy.chat(name).status == 200
        assert devices(proxy) == {"box1": ["GPU0"], "box2": ["GPU0", "GPU1"]}
        for name in "abc":
            variables = Path(f"/proc/{proxy.running()[name]['pid']}/environ").read_bytes()
            number = device_of(proxy, name).removeprefix("GPU")
            assert f"\0CUDA_VISIBLE_DEVICES={number}\0".encode() in variables
        fourth = proxy.chat("d")
        if memory == "off":
            assert fourth.status == 503
            assert "1 whole GPUs are needed, and 0 are free" in fourth.json()["error"]["message"]
            assert proxy.unload().status == 200
        else:
            assert fourth.status == 200
        assert proxy.chat("two").status == 200
        variables = Path(f"/proc/{proxy.running()['two']['pid']}/environ").read_bytes()
        assert b"\0CUDA_VISIBLE_DEVICES=0,1\0" in variables

    def test_memory_is_estimated_on_the_node_that_has_the_files(
        self, serve: Serve, cluster: RayCluster, tmp_path: Path
    ) -> None:
        """Two models share one GPU by their estimates; one without its file runs alone."""
        file = write_gguf(
            tmp_path / "model.gguf", elements=1 << 20, llama__block_count=4,
            llama__embedding_length=64, llama__attention__head_count=4,
            llama__attention__head_count_kv=4, llama__context_length=2048,
        )  # fmt: skip
        server = tmp_path / "llama-server"
        demo = [sys.executable, "-m", "swapchart.adapters.demo", "--model", "m", "--quiet"]
        server.write_text(f'#!/bin/sh\nshift 4\nexec {shlex.join(demo)} "$@"\n')
        server.chmod(0o755)

        def model(path: Path) -> dict[str, Any]:
            options = ["-c", "2048", "-m", str(path), "--host", "${HOST}", "--port", "${PORT}"]
            return {"cmd": [str(server), *options], "nodes": "box1"}

        models = {"a": model(file), "b": model(file), "lost": model(tmp_path / "none.gguf")}
        proxy = serve_on(serve, cluster, "estimates", models, memory="auto")
        for name in "ab":
            assert proxy.chat(name).status == 200
        running = proxy.running()
        assert {*running} == {*"ab"}
        for row in running.values():
            claim = row["memory"]["box1/GPU0"]
            assert claim["source"] == "estimated"
            assert 512 << 20 < claim["claim"] < 1 << 30  # with the context of the driver
        assert "box1: the memory of lost cannot be estimated there: " in proxy.output()
        assert proxy.chat("lost").status == 200
        assert {*proxy.running()} == {"lost"}

    def test_port_that_was_taken_meanwhile_is_replaced_by_another(
        self, serve: Serve, cluster: RayCluster, tmp_path: Path
    ) -> None:
        """The first run finds its port taken; the request that waits is served by the second."""
        ports = tmp_path / "ports"
        take = (
            "import os, socket, sys; taken = socket.create_server((sys.argv[1], int(sys.argv[2])));"
            "os.set_inheritable(taken.fileno(), True); os.execv(sys.argv[3], sys.argv[3:])"
        )
        model = remote("a")
        server = shlex.join(model["cmd"]).replace("'${HOST}'", "${HOST}")
        server = server.replace("'${PORT}'", "${PORT}")
        python = shlex.quote(sys.executable)
        model["cmd"] = [
            "sh", "-c",
            f"echo ${{PORT}} >> {ports}; [ $(wc -l < {ports}) = 1 ] && "
            f"exec {python} -c {shlex.quote(take)} ${{HOST}} ${{PORT}} {server}; exec {server}",
        ]  # fmt: skip
        proxy = serve_on(serve, cluster, "port", {"a": model})

        assert proxy.chat("a").status == 200
        first, second = ports.read_text().split()
        assert first != second

    @long
    def test_hung_server_on_a_node_is_replaced_as_one_of_this_machine(
        self, serve: Serve, cluster: RayCluster
    ) -> None:
        liveness = {"every": 1, "timeout": 1, "failures": 1}
        models = {"a": remote("a", liveness=liveness), "b": demo_model("b", liveness=liveness)}
        groups = {"all": {"swap": False, "members": [*models]}}
        proxy = serve_on(serve, cluster, "hung", models, groups=groups)
        pids = {}
        for name in models:
            assert proxy.chat(name).status == 200
            pids[name] = proxy.running()[name]["pid"]
            os.kill(pids[name], signal.SIGSTOP)

        for name, pid in pids.items():
            hung = Path(f"/proc/{pid}/exe")
            wait_until(lambda hung=hung: not hung.exists(), what="no hung server")  # type: ignore[misc]
            assert proxy.chat(name).status == 200

    def test_what_another_proxy_reserved_is_waited_for(
        self, serve: Serve, cluster: RayCluster
    ) -> None:
        models = {"a": remote("a", memory="20GiB", nodes="box1")}
        first = serve_on(serve, cluster, "first", models, memory="auto")
        assert first.chat("a").status == 200
        second = serve_on(serve, cluster, "second", models, memory="auto")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(second.chat, "a")
            with pytest.raises(TimeoutError):
                waiting.result(2.0)
            assert first.unload("a").status == 200
            assert waiting.result(LONG_S).status == 200

    def test_second_proxy_with_one_name_is_refused(self, serve: Serve, cluster: RayCluster) -> None:
        proxy = serve_on(serve, cluster, "twice", {"a": remote("a")})
        assert proxy.chat("a").status == 200
        config = {"cluster": {"engine": "ray", "address": cluster.address, "name": "twice"}}
        second = serve({}, config=config, wait=False)

        assert second.wait() == 3
        assert f"pid {proxy.pid}) uses the cluster as 'twice'" in second.output()
        assert "Traceback" not in second.output()
        assert proxy.chat("a").status == 200

    def test_killed_proxy_leaves_nothing(self, serve: Serve, cluster: RayCluster) -> None:
        proxy = serve_on(serve, cluster, "killed", {"a": remote("a")})
        assert proxy.chat("a").status == 200
        pid = proxy.running()["a"]["pid"]
        proxy.note_guard()
        proxy.process.kill()
        proxy.wait()

        wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), what="no model")


class TestKeptOnNodes:
    """Models on nodes outlive the proxy, and the next one goes on with them."""

    pytestmark = needs_ray

    @pytest.mark.parametrize("lease", [pytest.param(None, marks=long), 1])
    def test_hooks_of_models_without_proxy_run_on_their_node(
        self, cluster: RayCluster, tmp_path: Path, lease: int | None
    ) -> None:
        """With a lease all of them, else those after the end; the next proxy runs none again."""
        folder, port, note = tmp_path / "proxy", port_block(), tmp_path / "note"
        folder.mkdir()
        hook = {"run": ["sh", "-c", f"echo $SWAPCHART_NODE $SWAPCHART_HOOK >> {note}"]}
        config = {
            "startPort": port, "models": {"a": remote("a", beforeStop=hook, afterStop=hook)},
            "cluster": {"engine": "ray", "address": cluster.address, "name": f"lease-{lease}"},
            **({"keepModels": {"lease": lease}} if lease else {}),
        }  # fmt: skip
        proxies = [SwapchartProcess(config, cwd=folder).wait_listening()]
        try:
            assert proxies[0].chat("a").status == 200
            row = proxies[0].running()["a"]
            proxies[0].process.kill()
            proxies[0].wait()
            hooks = ["beforeStop", "afterStop"] if lease else ["afterStop"]
            expected = [f"{row['node']} {hook}" for hook in hooks]
            wait_until(lambda: note.exists() and len(note.read_text().splitlines()) >= len(hooks))
            assert note.read_text().splitlines() == expected
            assert not Path(f"/proc/{row['pid']}/exe").exists()

            proxies.append(SwapchartProcess(config, cwd=folder).wait_listening())
            assert proxies[1].chat("a").status == 200
            assert note.read_text().splitlines() == expected
            proxies[1].signal(signal.SIGINT)
            assert proxies[1].wait() == 0
        finally:
            for proxy in proxies:
                proxy.close()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_next_proxy_adopts_models_on_nodes(
        self, cluster: RayCluster, tmp_path: Path, number: int
    ) -> None:
        folder, port = tmp_path / "proxy", port_block()
        folder.mkdir()
        note = tmp_path / "note"
        note.touch()
        after = {"run": ["sh", "-c", f"echo $SWAPCHART_HOOK >> {note}"]}
        model = remote("a", memory="20GiB", nodes="box1", afterHealthy=after, afterStop=after)
        model["cmd"] = ["sh", "-c", f"echo started; exec {' '.join(model['cmd'])}"]
        config = {
            "startPort": port, "keepModels": {"lease": 60}, "memory": "auto",
            "models": {"a": model, "b": remote("b", memory="20GiB", nodes="box1", ttl=0)},
            "cluster": {"engine": "ray", "address": cluster.address, "name": f"kept-{number}"},
        }  # fmt: skip
        proxies = []
        try:
            proxies.append(SwapchartProcess(config, cwd=folder).wait_listening())
            assert proxies[0].chat("a").status == 200
            row = proxies[0].running()["a"]
            before = row["pid"]
            proxies[0].signal(number)
            proxies[0].wait()
            assert Path(f"/proc/{before}/exe").exists()

            proxies.append(SwapchartProcess(config, cwd=folder).wait_listening())
            adopted = proxies[1].running()["a"]
            same = ("pid", "state", "proxy", "node", "memory", "incarnation", "in_flight")
            assert {key: adopted[key] for key in same} == {key: row[key] for key in same}
            with proxies[1].log_of("a") as log:  # it arrives from the node a moment later
                log.read_until("started\n")
            stream = proxies[1].open_stream("a")
            proxies[1].wait_busy("a", in_flight=1)
            stream.close()
            proxies[1].wait_idle("a")
            assert proxies[1].running()["a"]["pid"] == before
            log_now = proxies[1].call("GET", "/logs/stream/a?no-follow").body
            assert log_now.count(b"started\n") == 1
            assert note.read_text() == "afterHealthy\n"  # no hook of a run that was lost
            assert proxies[1].chat("b").status == 200  # its claim counts, so it makes room
            assert {*proxies[1].running()} == {"b"}
            assert note.read_text() == "afterHealthy\nafterStop\n"
            proxies[1].signal(signal.SIGINT)  # ends the models too
            assert proxies[1].wait() == 0
            wait_until(lambda: not Path(f"/proc/{before}/exe").exists(), what="no model")
        finally:
            for proxy in proxies:
                proxy.close()
