"""Keys of the cluster, and of models on its nodes."""

from __future__ import annotations

import pytest
from tools.configs import Check, Load, found

from swapchart.adapters.config.values import NodeChoice

CLUSTER = "cluster: {engine: ray}\n"
CMD = 'cmd: "s --host ${HOST} --port ${PORT} ${NODE}"'


def test_cluster_model_keeps_what_the_node_fills_in(load: Load) -> None:
    config = load(
        CLUSTER + f"models:\n  m:\n    {CMD}\n    nodes: any\n    gpus: 2\n"
        '    env: ["X=${PORT}"]\n    cmdStop: "stop ${HOST}:${PORT}"\n'
        '    sleep: {after: 9, enter: [{http: {url: "http://${HOST}:${PORT}/sleep"}}]}\n'
        '  n: {cmd: "s --port ${PORT}"}\n'
    )
    model, local = config.models["m"], config.models["n"]

    assert model.nodes == NodeChoice(gpus=2)
    assert model.argv == ("s", "--host", "${HOST}", "--port", "${PORT}", "${NODE}")
    assert model.environment == {"X": "${PORT}"}
    assert model.stop_argv == ("stop", "${HOST}:${PORT}")
    assert "${PORT}" in repr(model.sleep.enter[0].action.call.url)  # type: ignore[union-attr]
    assert local.nodes is None
    assert local.argv == ("s", "--port", str(local.port))
    assert config.cluster is not None
    assert (config.cluster.address, config.cluster.name) == ("auto", "swapchart")


@pytest.mark.parametrize(
    ("nodes", "names"), [("box1", ("box1",)), ("[b, a]", ("b", "a")), ("any", ())]
)
def test_nodes_are_a_name_names_or_any(load: Load, nodes: str, names: tuple[str, ...]) -> None:
    config = load(CLUSTER + f"models: {{m: {{{CMD}, nodes: {nodes}}}}}\n")

    assert config.models["m"].nodes == NodeChoice(names=names)


@pytest.mark.parametrize(
    ("cluster", "path"),
    [
        ("{}", "cluster.engine"),
        ("{engine: slurm}", "cluster.engine"),
        ("{engine: ray, address: box1}", "cluster.address"),
        ("{engine: ray, address: 'ray://box1:10001'}", "cluster.address"),
        ("{engine: ray, address: 'box1:99999'}", "cluster.address"),
        ("{engine: ray, name: 'a b'}", "cluster.name"),
    ],
)
def test_cluster_that_makes_no_sense_is_refused(check: Check, cluster: str, path: str) -> None:
    problems = check(f"cluster: {cluster}\nmodels: {{m: {{cmd: 's ${{PORT}}'}}}}\n")

    assert [place for place, _ in found(problems)] == [path]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (f"models: {{m: {{{CMD}, nodes: any}}}}", "models.m.nodes", "`nodes` needs `cluster`"),
        (f"models: {{m: {{{CMD}, gpus: 1}}}}", "models.m.gpus", "`gpus` needs `cluster`"),
        (
            CLUSTER + "models: {m: {external: true, proxy: 'http://a:1', nodes: any}}",
            "models.m.nodes", "external",
        ),
        (CLUSTER + f"models: {{m: {{{CMD}, nodes: []}}}}", "models.m.nodes", "expected any"),
        (CLUSTER + f"models: {{m: {{{CMD}, nodes: [any, a]}}}}", "models.m.nodes", "any alone"),
        (
            CLUSTER + f"models: {{m: {{{CMD}, nodes: any, kv: {{mode: keep, manageArgs: true}}}}}}",
            "models.m.kv", "--slot-save-path",
        ),
    ],
)  # fmt: skip
def test_node_keys_that_cannot_work_are_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    problems = found(check(text + "\n"))

    assert [place for place, _ in problems] == [path]
    assert message in problems[0][1]


def test_cluster_model_that_listens_at_loopback_is_a_warning(load: Load) -> None:
    (warning,) = load(
        CLUSTER + 'models: {m: {cmd: "llama-server --port ${PORT}", nodes: any}}\n'
    ).warnings

    assert warning.path == "models.m.cmd"
    assert "--host ${HOST}" in warning.message
