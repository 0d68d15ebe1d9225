"""Effective values of one model, built from its section."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...dataclass import dataclass
from ...runtime.container import Container, ContainerEngine
from ...runtime.spec import Hook
from .build_container import ContainerBuilder, shown_command
from .build_hooks import HookBuilder
from .command_line import UnterminatedQuoteError, split_command
from .document.nodes import Mapping as Tree
from .document.nodes import Node, Scalar, Sequence
from .document.source import shown
from .expand import CLUSTER_KEYS, HOOK_POINTS, ModelTree
from .schema.cluster import ANY_NODE
from .schema.document import DocumentSection
from .schema.fields import CommandLine
from .schema.hooks import HookPoints
from .schema.model import FiltersSection, ModelFiltersSection, ModelSection
from .url import url_problem
from .validate import Reader, locate
from .values import Filters, ModelConfig, NodeChoice, Sleep

MIN_HEALTH_S = 15
_OPEN_ADDRESSES = ("${HOST}", "0.0.0.0", "::")
_COMFYUI = "comfyui_auto"
_COMFYUI_CONCURRENCY = 50

#: Hook point -> attribute of the section.
_POINTS = {field.alias: name for name, field in HookPoints.model_fields.items()}


def own_points(lifecycle: Mapping[str, Any]) -> set[str]:
    """Return the hook points that a chart overlay adds, without those of every chart."""
    points: set[str] = set()
    actions = lifecycle.get("actions")
    for action in actions.values() if isinstance(actions, dict) else ():
        effects = action.get("do") if isinstance(action, dict) else None
        for effect in effects if isinstance(effects, list) else [effects]:
            point = effect.get("point") if isinstance(effect, dict) else None
            if isinstance(point, str):
                points.add(point)
    return points - {*HOOK_POINTS, "suspend", "wake"}


def build_filters(section: FiltersSection) -> Filters:
    """Return the filters, sorted, without keys that would change ``model``."""
    names = section.strip_params
    if isinstance(section, ModelFiltersSection):
        names = names or section.strip_params_old
    strip = {name.strip() for name in names.split(",")} - {"", "model"}
    by_id = section.set_params_by_id
    return Filters(
        strip=tuple(sorted(strip)),
        set_params=_settable(section.set_params),
        set_params_by_id={key: _settable(params) for key, params in by_id.items()},
    )


def _settable(params: dict[str, object]) -> dict[str, object]:
    return {key: params[key] for key in sorted(params) if key != "model"}


class ModelBuilder:
    """Builds one model.

    Args:
        tree: Model as expanded from the document.
        top: Top level of the document, for global values.
        engine: Engine that runs containers.
    """

    def __init__(
        self, reader: Reader, tree: ModelTree, top: DocumentSection, engine: ContainerEngine
    ) -> None:
        self._reader, self._collector = reader, reader.collector
        self._tree, self._top = tree, top
        self._path = f"models.{tree.id}"
        self._container_builder = ContainerBuilder(engine, self._argv, self._error)
        self._hook_builder = HookBuilder(
            self._argv, self._error, top.hook_timeout, has_container="container" in tree.node.items
        )

    def build(self, section: ModelSection) -> ModelConfig:
        """Return the effective values; an invalid one is reported and replaced by a placeholder."""
        top, tree = self._top, self._tree
        health = max(MIN_HEALTH_S, top.health_check_timeout)
        compat, limit = self._compat(section)
        loading = section.send_loading_state
        proxy = self._proxy(section.proxy)
        self._check_start(section)
        environment = self._environment(section)
        command = self._command(section, proxy, environment)
        return ModelConfig(
            id=tree.id,
            cmd=command.text,
            cmd_shown=command.shown,
            argv=command.argv,
            container=command.container,
            pull=command.pull,
            stop_argv=self._stop_argv(section.cmd_stop),
            proxy=section.proxy.rstrip("/"),
            check_url=self._check_url(proxy, section.check_endpoint.strip()),
            external=section.external,
            port=tree.port,
            environment=environment,
            hooks=self._hooks(section),
            ttl=top.global_ttl if section.ttl == -1 else section.ttl,
            unload_timeout=float(section.unload_timeout or top.unload_timeout or 10),
            health_check_timeout=float(health),
            start_timeout=float(section.start_timeout or health),
            stall_timeout=section.stall_timeout,
            max_keep_alive=section.max_keep_alive,
            probe_timeout=section.probe_timeout,
            aliases=section.aliases,
            name=section.name.strip(),
            description=section.description.strip(),
            use_model_name=section.use_model_name,
            unlisted=section.unlisted,
            concurrency_limit=limit,
            send_loading_state=top.send_loading_state if loading is None else loading,
            filters=build_filters(section.filters),
            metadata=section.metadata,
            macros={name: self._macro(node) for name, node in tree.macros.items()},
            timeouts=section.timeouts,
            ignore_websockets=compat,
            capabilities=section.capabilities,
            abandon=section.abandon,
            restart=section.restart,
            liveness=section.liveness,
            drain=section.drain,
            sleep=self._sleep(section),
            settle=self._hook_builder.build_settle(section.settle),
            pinned=section.pinned,
            prefetch=section.prefetch,
            pass_keys=section.pass_keys,
            nodes=self._nodes(section),
            memory=section.memory,
            kv=section.kv,
        )

    def _command(
        self, section: ModelSection, proxy: SplitResult | None, environment: Mapping[str, str]
    ) -> _Command:
        node, given, build = self._tree.node, section.container, self._container_builder
        if given is None:
            if section.cmd is None:
                return _Command()
            argv = self._argv(section.cmd, ("cmd",))
            return _Command(text=_text(section.cmd), shown=_shown(node.items["cmd"]), argv=argv)
        container = build.build(given, self._tree.port, proxy, environment)
        written = node.items["container"]
        args = written.items.get("args") if isinstance(written, Tree) else None
        return _Command(
            text=shown_command(container, _text(given.args)),
            shown=shown_command(container, "" if args is None else _shown(args)),
            argv=build.args(given), container=container,
            pull=self._hook_builder.build_pull(given, container.engine),
        )  # fmt: skip

    def _check_start(self, section: ModelSection) -> None:
        if section.health_check_timeout is not None:
            message = "has no effect in one model, as in llama-swap; did you mean 'startTimeout'?"
            place, path = locate(self._tree.node, self._path, ("healthCheckTimeout",))
            self._collector.warning(place, path, message)
        self._check_external(section)

    def _check_external(self, section: ModelSection) -> None:
        node, has_command = self._tree.node, "cmd" in self._tree.node.items
        if section.container is not None:
            for key, is_set in (("cmd", has_command), ("external", section.external)):
                if is_set:
                    self._error((key,), f"expected either {key} or container, found both")
            return
        if not section.external:
            if not has_command and "container" not in node.items:
                self._collector.error(node, f"{self._path}.cmd", "cmd or container is required")
            return
        if not has_command and self._tree.port is not None:
            message = "expected the address of the server, since `external: true` has no cmd"
            self._error(("proxy",), message)
        if section.kv.mode == "keep":
            self._error(("kv",), "expected off, since `external: true` is set")
        if "${PID}" in str(section.cmd_stop):
            message = "`${PID}` has no value here, since `external: true` is set"
            self._error(("cmdStop",), message)
        if not section.cmd_stop and section.ttl > 0:
            place, path = locate(node, self._path, ("ttl",))
            message = "ttl has no effect, since `external: true` is set without cmdStop"
            self._collector.warning(place, path, message)

    def _compat(self, section: ModelSection) -> tuple[bool, int | None]:
        """Return whether websockets do not count as requests, and the concurrency limit."""
        # llama-swap's default limit of 10 also counts waiting requests; here there is none.
        limit = section.concurrency_limit if section.concurrency_limit > 0 else None
        if self._tree.id == _COMFYUI:
            return True, limit and max(limit, _COMFYUI_CONCURRENCY)
        return section.compat.ignore_websockets, limit

    def _nodes(self, section: ModelSection) -> NodeChoice | None:
        """Return the nodes that the model may run on; None means this machine."""
        if not self._tree.is_on_cluster:
            return None
        key = next(key for key in CLUSTER_KEYS if key in self._tree.node.items)
        if self._top.cluster is None:
            self._error(
                (key,), f"`{key}` needs `cluster` at the top level, such as {{engine: ray}}"
            )
        if section.kv.mode == "keep" and (section.kv.manage_args or section.kv.tmpfs):
            message = "expected --slot-save-path in cmd: a folder that all nodes share"
            self._error(("kv",), message)
        text = str(section.cmd)
        if section.cmd is not None and not any(word in text for word in _OPEN_ADDRESSES):
            message = (
                "a server that listens at 127.0.0.1 cannot be reached from this machine: use "
                "${HOST}, as in --host ${HOST}"
            )
            place, path = locate(self._tree.node, self._path, ("cmd",))
            self._collector.warning(place, path, message)
        if section.container is not None:
            self._error((key,), "a model with `container` runs on this machine only")
        if section.external:
            self._error((key,), "a model with `external: true` is not started on a node")
        names = () if section.nodes in (None, (ANY_NODE,)) else section.nodes or ()
        return NodeChoice(names=names, labels=section.labels, gpus=section.gpus)

    def _macro(self, node: Scalar) -> str | int | float | bool:
        value = self._reader.plain(node)
        assert isinstance(value, (str, int, float, bool))  # read_macros accepts only these
        return value

    def _error(self, loc: tuple[int | str, ...], message: str) -> None:
        self._collector.error(*locate(self._tree.node, self._path, loc), message)

    def _proxy(self, text: str) -> SplitResult | None:
        if problem := url_problem(text):
            self._error(("proxy",), problem)
            return None
        return urlsplit(text)

    def _check_url(self, proxy: SplitResult | None, endpoint: str) -> str | None:
        if endpoint == "none" or proxy is None:
            return None
        try:
            wanted = urlsplit(endpoint)
        except ValueError as error:
            self._error(("checkEndpoint",), f"expected a path such as /health: {error}")
            return None
        path = f"{proxy.path.rstrip('/')}/{wanted.path.lstrip('/')}"
        return proxy._replace(path=path, query=wanted.query, fragment="").geturl()

    def _environment(self, section: ModelSection) -> dict[str, str]:
        environment = {}
        for index, item in enumerate(section.env):
            name, equals, value = item.get_secret_value().partition("=")
            if name and equals:
                environment[name] = value
            else:
                place, path = locate(self._tree.node, self._path, ("env", index))
                self._collector.warning(place, path, "expected NAME=value; the entry is ignored")
        return environment

    def _argv(self, command: CommandLine, loc: tuple[int | str, ...]) -> tuple[str, ...]:
        argv = self._split(command, loc)
        if argv is not None and (not argv or not argv[0]):
            self._error(loc, "empty command: expected a program and its arguments")
            argv = None
        return argv or ("refused",)  # never run: the problem was noted

    def _stop_argv(self, command: CommandLine) -> tuple[str, ...]:
        """Return `cmdStop` as argv; comments only mean SIGTERM, as without `cmdStop`."""
        return self._split(command, ("cmdStop",)) or ()

    def _split(self, command: CommandLine, loc: tuple[int | str, ...]) -> tuple[str, ...] | None:
        if isinstance(command, tuple):
            return command
        try:
            return split_command(command)
        except UnterminatedQuoteError as error:
            place, path = locate(self._tree.node, self._path, loc)
            line, column = _line_of(place), place.column if _line_of(place) == place.line else 1
            message = f"unterminated quote: expected another {error.quote} to end the argument"
            self._collector.error_at(place.source.name, path, line, column, message)
            return None

    def _hooks(self, section: ModelSection) -> dict[str, tuple[Hook, ...]]:
        build, hooks = self._hook_builder.build, {}
        for point in HOOK_POINTS:
            if sections := getattr(section, _POINTS[point]):
                hooks[point] = build(sections, (point,))
        known = own_points(self._top.lifecycle)
        for point, sections in section.hook_points.items():
            if point in known:
                hooks[point] = build(sections, ("hookPoints", point))
            else:
                has = f"it has: {', '.join(sorted(known))}" if known else "it has none"
                message = f"expected a point that an action of lifecycle runs; {has}"
                self._error(("hookPoints", point), message)
        return {point: given for point, given in hooks.items() if given}

    def _sleep(self, section: ModelSection) -> Sleep:
        build = self._hook_builder.build
        return Sleep(
            after_s=section.sleep.after,
            enter=build(section.sleep.enter, ("sleep", "enter"), on_error="fail"),
            wake=build(section.sleep.wake, ("sleep", "wake"), on_error="fail"),
            stop_after_s=section.sleep.stop_after,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    """Start of the server: a command, or a container with the hook that pulls its image."""

    text: str = ""
    shown: str = ""
    argv: tuple[str, ...] = ()
    container: Container | None = None
    pull: Hook | None = None


def _text(command: CommandLine) -> str:
    return command if isinstance(command, str) else shlex.join(command)


def _shown(node: Node) -> str:
    if isinstance(node, Sequence):
        parts = [item.value for item in node.items if isinstance(item, Scalar)]
        return shlex.join(shown(str(part)) for part in parts)
    return shown(str(node.value)) if isinstance(node, Scalar) else ""


def _line_of(node: Node) -> int:
    """Return the line of the file in which an unterminated quote of *node* is opened.

    Only a literal block keeps the lines of its text, and a quote from a macro is not in the file at
    that place. In other cases it is the line in which the text begins.
    """
    if isinstance(node, Scalar) and node.block:
        try:
            split_command(node.text if node.written is None else node.written)
        except UnterminatedQuoteError as error:
            return min(node.line + 1 + error.line, node.end_line)
    return node.line
