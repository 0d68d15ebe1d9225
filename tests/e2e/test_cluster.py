"""Models on the nodes of a real Ray cluster, behind a real proxy."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tools.browser import expect_text, launched, opened
from tools.net import LONG_S, port_block, wait_until
from tools.ray_cluster import HAS_RAY, RayCluster
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

needs_ray = [pytest.mark.ray, pytest.mark.slow]


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

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_next_proxy_adopts_models_on_nodes(
        self, cluster: RayCluster, tmp_path: Path, number: int
    ) -> None:
        folder, port = tmp_path / "proxy", port_block()
        folder.mkdir()
        config = {
            "startPort": port, "keepModels": {"lease": 60}, "models": {"a": remote("a")},
            "cluster": {"engine": "ray", "address": cluster.address, "name": f"kept-{number}"},
        }  # fmt: skip
        proxies = []
        try:
            proxies.append(SwapchartProcess(config, cwd=folder).wait_listening())
            assert proxies[0].chat("a").status == 200
            before = proxies[0].running()["a"]["pid"]
            proxies[0].signal(number)
            proxies[0].wait()
            assert Path(f"/proc/{before}/exe").exists()

            proxies.append(SwapchartProcess(config, cwd=folder).wait_listening())
            assert proxies[1].chat("a").status == 200
            assert proxies[1].running()["a"]["pid"] == before
            proxies[1].signal(signal.SIGINT)  # ends the models too
            assert proxies[1].wait() == 0
            wait_until(lambda: not Path(f"/proc/{before}/exe").exists(), what="no model")
        finally:
            for proxy in proxies:
                proxy.close()
