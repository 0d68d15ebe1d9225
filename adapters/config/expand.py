"""Expansion: from the merged document to one tree for each model, with defaults, macros and ports.

Source: llama-swap's load pipeline, with our own keys and hooks added. A model key at the top level
is the default of every model and is expanded in the model's scope.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from collections.abc import Mapping as Map

from ...dataclass import dataclass, field
from ..system.own_node import own_node_name
from .command_line import strip_comments
from .document.nodes import (
    Mapping,
    Node,
    Scalar,
    Sequence,
    mapping_at,
    scalar_at,
    sequence_at,
    walk,
)
from .document.source import EnvironmentValues, hide_escapes
from .macros import Scope, TooMuchTextError, display, explain, read_macros, unresolved
from .problem_collector import ProblemCollector

HOOK_POINTS = (
    "beforeStart",
    "afterStart",
    "afterHealthy",
    "afterReady",
    "beforeStop",
    "afterStop",
    "onFailure",
)
#: Keys of a model that may stand at the top level as the default of all models.
DEFAULTED = (
    "startTimeout",
    "stallTimeout",
    "maxKeepAlive",
    "probeTimeout",
    "abandon",
    "restart",
    "liveness",
    "drain",
    "sleep",
    "hookPoints",
    "settle",
    "pinned",
    "prefetch",
    "passKeys",
    "kv",
)
#: Keys of a model in which ``${PID}``, ``${HOST}`` and ``${NODE}`` may remain, to be filled in at
#: run time.
WITH_PID = ("cmdStop", *HOOK_POINTS, "hookPoints", "sleep", "settle")

_AT_RUN_TIME = ("PID", "HOST", "NODE")
#: Keys by which a model runs on a node of the cluster.
CLUSTER_KEYS = ("nodes", "labels", "gpus")
#: Keys of such a model whose ``${HOST}``, ``${PORT}`` and ``${NODE}`` are filled in on the node.
ON_NODE = ("cmd", "env", *WITH_PID)
#: Keys of any other model whose ``${HOST}`` and ``${NODE}`` are those of this machine.
_ON_THIS_MACHINE = ("cmd", "env", "container")

#: Maximum number of values that defaults may add when they are copied into every model.
MAX_WRITTEN = 500_000

_FIRST_PORT, _LAST_PORT = 5800, 65535
_MOST_HINTS = 50
_DEFAULT_PROXY = "http://localhost:${PORT}"


@dataclass(slots=True, kw_only=True)
class ModelTree:
    """One model, expanded.

    Attributes:
        node: Its mapping, without ``macros``; only ``${PID}`` may remain in it.
        macros: Its own macros, as declared.
        port: Its port, if its command uses one.
        is_on_cluster: It runs on a node of the cluster, which chooses the real port.
    """

    id: str
    node: Mapping
    macros: dict[str, Scalar]
    port: int | None = None
    is_on_cluster: bool = False


@dataclass(slots=True, kw_only=True)
class Expanded:
    """The document, expanded.

    Attributes:
        top: Top level without ``macros`` and ``models``.
        macros: Global macros, as declared.
        models: Models in order of definition.
        defined: Number of models in the document, including invalid ones.
    """

    top: Mapping
    macros: dict[str, Scalar]
    models: dict[str, ModelTree] = field(default_factory=dict)
    defined: int = 0


def expand_document(
    root: Mapping,
    known: frozenset[str],
    environment: EnvironmentValues,
    collector: ProblemCollector,
    ports: Map[str, int] | None = None,
) -> Expanded:
    """Expand every macro of *root*.

    Args:
        root: Merged document.
        known: Known top-level keys; unresolved macros under other keys are not reported.
        ports: Model id -> port that it keeps; no other model gets one of them.
    """
    return _Expander(root, known, environment, collector, ports or {}).run()


class _Expander:
    def __init__(
        self,
        root: Mapping,
        known: frozenset[str],
        environment: EnvironmentValues,
        collector: ProblemCollector,
        ports: Map[str, int],
    ) -> None:
        self._root, self._known, self._ports = root, known, ports
        self._environment, self._collector = environment, collector
        self._spent = [0]
        self._hints = 0
        self._macros = read_macros(root.items.get("macros"), "macros", collector)
        self._scope = Scope(self._macros, self._spent)
        self._defaults = {key: root.items[key] for key in DEFAULTED if key in root.items}
        hooks = root.items.get("hooks")
        if isinstance(hooks, Mapping):
            self._defaults |= {p: hooks.items[p] for p in HOOK_POINTS if p in hooks.items}

    def run(self) -> Expanded:
        scope = self._scope
        top = {
            key: self._expanded(scope, node, key)
            for key, node in self._root.items.items()
            if key not in ("macros", "models")
        }
        for key in self._known & top.keys():
            if key not in DEFAULTED:
                self._check_leftovers(key, top[key], scope)
        expanded = Expanded(top=mapping_at(self._root, top), macros=self._macros)
        models = self._root.items.get("models")
        if isinstance(models, Mapping):
            self._expand_models(models, expanded)
        elif models is not None and not (isinstance(models, Scalar) and models.value is None):
            found = display(models)
            self._collector.error(models, "models", f"expected a mapping of models, found {found}")
        return expanded

    def _expand_models(self, models: Mapping, expanded: Expanded) -> None:
        start = expanded.top.items.get("startPort")
        port = start.value if isinstance(start, Scalar) else None
        if not isinstance(port, int) or isinstance(port, bool) or port < 1:
            port = _FIRST_PORT  # an invalid `startPort` is reported when the document is checked
        self._check_defaults(len(models.items))
        done, taken = {}, frozenset(self._ports.values())
        port = _free(port, taken)
        for name in sorted(models.items):  # by code point, which is by byte in UTF-8
            node = models.items[name]
            if not isinstance(node, Mapping):
                message = f"expected a mapping with cmd, found {display(node)}"
                self._collector.error(node, f"models.{name}", message)
                continue
            done[name] = self._expand_model(name, node, self._ports.get(name, port))
            if done[name].port == port:
                port = _free(port + 1, taken)
        expanded.defined = len(models.items)
        expanded.models = {name: done[name] for name in models.items if name in done}

    def _check_defaults(self, models: int) -> None:
        """Drop the defaults if copying them into every model would take too much memory."""
        sizes = {key: _size(node) for key, node in self._defaults.items()}
        if models * sum(sizes.values()) > MAX_WRITTEN:
            worst = max(sizes, key=lambda key: sizes[key])
            message = (
                f"written out in {models} models, defaults make more than {MAX_WRITTEN} values"
            )
            self._collector.error(self._defaults[worst], worst, message)
            self._defaults = {}

    def _expand_model(self, name: str, node: Mapping, port: int) -> ModelTree:
        path = f"models.{name}"
        own = read_macros(node.items.get("macros"), f"{path}.macros", self._collector)
        own_id = scalar_at(node, hide_escapes(name))
        scope = Scope({"MODEL_ID": own_id, **own}, self._spent, self._scope)
        tree = _prepared(node, self._defaults)
        tree = self._expanded_mapping(scope, tree, path)
        port_scope = Scope({"PORT": scalar_at(node, min(port, _LAST_PORT))}, self._spent)
        is_on_cluster = any(key in tree.items for key in CLUSTER_KEYS)
        if not is_on_cluster:
            tree = self._with_place(scope, tree, path)
        used = self._uses_port(tree, path)
        if used:
            late = {k: n for k, n in tree.items.items() if is_on_cluster and k in ON_NODE}
            early = {k: n for k, n in tree.items.items() if k not in late}
            early = self._expanded_mapping(port_scope, mapping_at(tree, early), path).items
            tree = mapping_at(tree, {k: late.get(k) or early[k] for k in tree.items})
            if port > _LAST_PORT:
                message = f"no port is left: expected at most {_LAST_PORT}, got {port}"
                self._collector.error(node, path, message)
        self._expand_keys(tree, path, [scope, port_scope] if used else [scope])
        for key, item in tree.items.items():
            allowed = self._late_names(key)
            if is_on_cluster and key in ON_NODE:
                allowed = (*allowed, "HOST", "PORT", "NODE")
            self._check_leftovers(f"{path}.{key}", item, scope, allowed)
        return ModelTree(
            id=name, node=tree, macros=own, port=port if used else None,
            is_on_cluster=is_on_cluster,
        )  # fmt: skip

    def _with_place(self, scope: Scope, tree: Mapping, path: str) -> Mapping:
        """Return *tree* with ``${HOST}`` and ``${NODE}``, unless they are macros of the document.

        The server is reached at loopback, and in a container through a port that is published for
        it, unless the container has the network of the machine.
        """
        keys = {key: tree.items[key] for key in _ON_THIS_MACHINE if key in tree.items}
        names = {
            name
            for node in keys.values()
            for _, scalar in _with_references(node, path)
            for name in unresolved(str(scalar.value))
            if name in ("HOST", "NODE") and not scope.declares(name)
        }
        if not names:
            return tree
        host = "127.0.0.1" if _is_on_loopback(tree.items.get("container")) else "0.0.0.0"
        values = {"HOST": host, "NODE": own_node_name()}
        place = Scope({name: scalar_at(tree, values[name]) for name in sorted(names)}, self._spent)
        filled = self._expanded_mapping(place, mapping_at(tree, keys), path)
        return mapping_at(tree, {**tree.items, **filled.items})

    def _uses_port(self, tree: Mapping, path: str) -> bool:
        command, proxy = tree.items.get("cmd"), tree.items.get("proxy")
        in_command = _mentions_port(command)
        is_known = command is not None and not any(
            unresolved(str(scalar.value)) for _, scalar in _with_references(command, path)
        )
        if is_known and not in_command and _mentions_port(proxy) and proxy is not None:
            message = (
                "proxy uses ${PORT} but cmd does not: use ${PORT} in cmd, or set proxy to the "
                "address that cmd serves"
            )
            self._collector.error(proxy, f"{path}.proxy", message)
        return in_command or _mentions_port(proxy)

    def _expand_keys(self, tree: Mapping, path: str, scopes: list[Scope]) -> None:
        """Expand the keys of filters.setParamsByID, the only keys in which macros are expanded."""
        filters = tree.items.get("filters")
        if not isinstance(filters, Mapping):
            return
        params = filters.items.get("setParamsByID")
        if not isinstance(params, Mapping):
            return
        path = f"{path}.filters.setParamsByID"
        renamed = mapping_at(params, {})
        for key, value in params.items.items():
            source, line, column = params.places[key]
            text = hide_escapes(key)
            try:
                for scope in scopes:
                    text = scope.expand_text(text)
            except TooMuchTextError as error:
                self._collector.error_at(source.name, path, line, column, str(error))
                continue
            for name in unresolved(text):
                why = self._reason(name, scopes[0])
                self._collector.error_at(source.name, path, line, column, f"in a key: {why}")
            text = self._environment.fill(text)
            if text in renamed.items:
                message = f"two keys resolve to the same value {text!r}"
                self._collector.error_at(source.name, path, line, column, message)
            renamed.items[text] = value
            renamed.places[text] = params.places[key]
        tree.items["filters"] = mapping_at(filters, {**filters.items, "setParamsByID": renamed})

    def _expanded(self, scope: Scope, node: Node, path: str) -> Node:
        expanded = scope.expand(node)
        if scope.failed:
            paths = {id(scalar): where for where, scalar in walk(expanded, path)}
            for scalar, message in scope.failed:
                self._collector.error(scalar, paths.get(id(scalar), path), message)
                self._collector.blame(scalar)
            scope.failed.clear()
        return expanded

    def _expanded_mapping(self, scope: Scope, node: Mapping, path: str) -> Mapping:
        expanded = self._expanded(scope, node, path)
        return expanded if isinstance(expanded, Mapping) else node

    def _late_names(self, key: str) -> tuple[str, ...]:
        """Return the names that may remain in *key* of a model, to be filled in at run time."""
        if key in ("cmd", "container") and _is_on(self._root.items.get("memory")):
            return ("GPU", "GPUS")
        return _AT_RUN_TIME if key in WITH_PID else ()

    def _reason(self, name: str, scope: Scope) -> str:
        self._hints += 1
        return explain(name, scope, self._environment, is_hinted=self._hints <= _MOST_HINTS)

    def _check_leftovers(
        self, path: str, node: Node, scope: Scope, allowed: tuple[str, ...] = ()
    ) -> None:
        for where, scalar in _with_references(node, path):
            for name in unresolved(str(scalar.value)):
                if name in allowed or _is_default_hook(where, path):
                    continue
                place = scalar.source.find(f"${{{name}}}", scalar.line, scalar.end_line)
                line, column = place or (scalar.line, scalar.column)
                message = self._reason(name, scope)
                self._collector.error_at(scalar.source.name, where, line, column, message)
                self._collector.blame(scalar)


def _with_references(node: Node, path: str) -> Iterator[tuple[str, Scalar]]:
    for where, scalar in walk(node, path):
        if isinstance(scalar.value, str) and "${" in scalar.value:
            yield where, scalar


def _is_on_loopback(container: Node | None) -> bool:
    if not isinstance(container, Mapping):
        return True
    network = container.items.get("network")
    return isinstance(network, Scalar) and network.value == "host"


def _is_on(memory: Node | None) -> bool:
    """Return True if the top level key `memory` switches memory on."""
    if isinstance(memory, Mapping):
        mode = memory.items.get("mode")
        return mode is None or _is_on(mode)
    return isinstance(memory, Scalar) and memory.value not in (None, False, "off")


def _is_default_hook(where: str, path: str) -> bool:
    """Return True if *where* is a hook at the top level, which is checked in each model."""
    return path == "hooks" and not where.startswith("hooks.on_startup")


def _free(port: int, taken: Container[int]) -> int:
    """Return the lowest port >= *port* that is not *taken*."""
    while port in taken:
        port += 1
    return port


def _size(node: Node) -> int:
    """Return the number of values in *node*; a long text counts as several."""
    return sum(1 + len(scalar.text) // 50 for _, scalar in walk(node))


def _mentions_port(node: Node | None) -> bool:
    return node is not None and any(
        "PORT" in unresolved(scalar.value)
        for _, scalar in walk(node)
        if isinstance(scalar.value, str)
    )


def _prepared(node: Mapping, defaults: dict[str, Node]) -> Mapping:
    """Return *node* without its macros, comments and nulls, and with all defaults."""
    items = {
        key: item
        for key, item in node.items.items()
        if key != "macros" and not (isinstance(item, Scalar) and item.value is None)
    }
    prepared = mapping_at(node, items)
    for key, default in defaults.items():
        items[key] = _with_default(key, items[key], default) if key in items else default
    points = items.get("hookPoints")
    if isinstance(points, Mapping):
        own = {point: _without_comments(item) for point, item in points.items.items()}
        items["hookPoints"] = mapping_at(points, own)
    for key in items.keys() & {"cmd", *WITH_PID} - {"hookPoints"}:
        if key not in ("cmd", "cmdStop") or isinstance(items[key], Scalar):
            items[key] = _without_comments(items[key])
    container = items.get("container")
    if isinstance(container, Mapping):
        own = dict(container.items)
        for key in ("args", "entrypoint"):
            if isinstance(own.get(key), Scalar):
                own[key] = _without_comments(own[key])
        items["container"] = mapping_at(container, own)
    items.setdefault("proxy", scalar_at(node, _DEFAULT_PROXY))
    return prepared


def _with_default(key: str, own: Node, default: Node) -> Node:
    """Return *own* merged with *default*: mappings are merged, other values of *own* win."""
    if not isinstance(default, Mapping):
        return own
    if key == "kv" and isinstance(own, Scalar):  # short for `{mode: ...}`
        own = mapping_at(own, {"mode": own})
    if not isinstance(own, Mapping):
        return own
    joined = mapping_at(own, {**default.items, **own.items})
    joined.places = {**default.places, **own.places}
    return joined


def _without_comments(node: Node) -> Node:
    """Return a command, hooks or a mapping of them without comment lines.

    Shell scripts and lists of arguments are returned unchanged.
    """
    if isinstance(node, Scalar):
        if isinstance(node.value, str) and "#" in node.value:
            return scalar_at(node, strip_comments(node.value))
        return node
    if isinstance(node, Sequence):
        return sequence_at(node, [_without_comments(item) for item in node.items])
    shell = node.items.get("shell")
    if isinstance(shell, Scalar) and shell.value not in (False, None):
        return node
    items = {}
    for key, item in node.items.items():
        is_command = key == "run" and isinstance(item, Scalar)
        is_hooks = key in ("enter", "wake")
        items[key] = _without_comments(item) if is_command or is_hooks else item
    return mapping_at(node, items)
