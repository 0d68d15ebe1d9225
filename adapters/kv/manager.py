"""KV manager: saves and restores the caches of all models that ask for it.

It adds two hooks to each such model: a restore, which runs first once the server is healthy, so
that no request comes before it; and a save, which runs last before a stop. Both have a limit of
their own, apart from the grace period, and their failure never fails a start.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio

from ...dataclass import dataclass, field
from ...runtime import CallAction, Hook, HookContext, ServiceSpec, Transition
from ...runtime.fence import Fence
from ...runtime.shielded_tasks import ShieldedTasks
from ..llama_cpp.launch_args import LaunchLine
from ..system import threads
from .effectiveness import cache_usage
from .files import FolderLock, KvStoreError, prefix_of
from .library.responses import AssignedRequest, FinishedRequest, ends_of
from .settings import KvSettings

if TYPE_CHECKING:  # imported for the first model that keeps its cache: 0.7 MB of memory
    from .model_cache import ModelCache
    from .server import LaunchContext

log = logging.getLogger(__name__)

#: (model, tokens, ms, expected ms to read them anew or None) -> None.
OnRestored: TypeAlias = Callable[[str, int, float, float | None], None]

_WAITING_RESPONSES = 64
_NOTHING = "nothing is kept"
_SLOTS = "LLAMA_ARG_N_PARALLEL"
_LAST_WORK_S = 10.0  # limit for checksums of the last saves during a shutdown

#: States in which the end of a process was requested.
_ENDING = frozenset({"aborting", "draining", "before_stop", "terminating", "killing", "reaped"})


@dataclass(frozen=True, slots=True)
class Place:
    """Folders in which the slots of one model are saved, under their names on this host.

    Attributes:
        folder: Folder in which the server writes.
        disk: Folder of the copies if *folder* is in memory; else None.
    """

    folder: Path
    disk: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders, as real paths."""
        both = (self.folder,) if self.disk is None else (self.folder, self.disk)
        return tuple(folder.resolve() for folder in both)


@dataclass(frozen=True, slots=True)
class _Action:
    """Hook that the manager adds. Equal settings make equal hooks, so that a reload sees no change.

    It belongs to the process that was started with it: a later configuration does not change what
    a save of that process does.
    """

    verb: Literal["prepare", "restore", "save"]
    service: str
    place: Place
    settings: KvSettings
    launch: LaunchContext = field(compare=False, repr=False)
    manager: KvManager = field(compare=False, repr=False)

    async def __call__(self, context: HookContext) -> None:
        with self.manager.borrowed(self.service, self.place) as model:
            if model is None:
                return
            if self.verb == "prepare":
                await model.prepare(self.launch)
            elif self.verb == "restore":
                await model.restore(context.endpoint, self.launch)
            elif context.after_healthy != "interrupted":  # else it has served no request
                await model.save(context.endpoint, self.launch)

    def __str__(self) -> str:
        return f"kv {self.verb}"


class KvManager:
    """KV caches of all models.

    Args:
        directory: Parent of the slot folders of models that name none; None means that such models
            cannot be saved.
        say: (model, line) -> None; appends a line to that model's log.
        is_idle: Returns True if no request is in flight or queued for a model.

    Attributes:
        drop_env: Environment variables of the proxy that no model's server inherits.
        on_restored: Called after a restore with the model, the number of tokens, its duration, and
            the expected time to read them anew or None; both in ms.
    """

    def __init__(
        self, directory: Path | None, say: Callable[[str, str], None] = lambda model, line: None,
        is_idle: Callable[[str], bool] = lambda model: False,
    ) -> None:  # fmt: skip
        self._directory, self._say, self._is_model_idle = directory, say, is_idle
        self.drop_env: frozenset[str] = frozenset()
        self.on_restored: OnRestored = lambda *_: None
        self._wanted: dict[str, tuple[Place, KvSettings]] = {}
        self._models: dict[tuple[str, Place], ModelCache] = {}
        self._latest: dict[str, ModelCache] = {}
        self._blockers: dict[str, str] = {}
        self._denials: dict[str, str] = {}
        self._off: frozenset[str] = frozenset()
        self._users: Counter[tuple[str, Place]] = Counter()
        self._locks: dict[Path, FolderLock] = {}
        self._tasks: Fence | None = None
        self._responses: deque[tuple[ModelCache, bytes]] = deque(maxlen=_WAITING_RESPONSES)
        self._has_responses = anyio.Event()

    # ---- before a start
    def add_hooks(self, spec: ServiceSpec, settings: KvSettings) -> ServiceSpec:
        """Return *spec* with the KV hooks and, if allowed, with a slot folder in its command.

        If something prevents it, the reason and the remedy are logged, and *spec* stays unchanged.
        """
        command, place = spec.command, self.place(spec, settings)
        blocker = self.blocker(spec, settings) or _cannot_make(place)
        self._blockers[spec.name] = blocker
        for text in filter(None, (blocker, warning_of(spec))):
            log.warning("%s: kv: %s", spec.name, text)
        if blocker or place is None:
            self._wanted.pop(spec.name, None)
            return spec
        from .server import LaunchContext
        from .server_identity import ServerFacts

        if adds_folder(spec, settings):
            log.info("%s: kv: adding --slot-save-path %s to its command", spec.name, place.folder)
            command = replace(command, argv=(*command.argv, "--slot-save-path", str(place.folder)))
        self._wanted[spec.name] = place, settings
        own = {name: value for name, value in os.environ.items() if name not in self.drop_env}
        facts = ServerFacts(command.argv, {**own, **command.env}, _cwd(spec))
        action = _Action(
            "restore", spec.name, place, settings, LaunchContext(facts, settings), self
        )
        return replace(spec, command=command, hooks=_with_hooks(spec, action))

    def blocker(self, spec: ServiceSpec, settings: KvSettings) -> str:
        """Return why nothing of *spec* can be kept, with the remedy; empty if it can."""
        line, place = LaunchLine.parse(spec.command.argv), self.place(spec, settings)
        is_added = place is not None and adds_folder(spec, settings)
        if is_added or line.value("--slot-save-path") is not None:
            return ""
        folder = shlex.quote(str(place.folder)) if place else "FOLDER"
        text = f"{_NOTHING}: its cmd has no --slot-save-path; add `--slot-save-path {folder}` to it"
        if not line.is_llama_server and settings.manages_args:
            return f"{text} (manageArgs adds it only to a program that is called llama-server)"
        return f"{text}, or `manageArgs: true` to its kv" if line.is_llama_server else text

    def place(self, spec: ServiceSpec, settings: KvSettings) -> Place | None:
        """Return the folders for the slots of *spec*; None if no folder is configured."""
        line = LaunchLine.parse(spec.command.argv)
        given, own = line.value("--slot-save-path"), prefix_of(spec.name)
        base = settings.directory or self._directory
        disk = None if base is None else base.absolute() / own
        if settings.tmpfs is not None:
            fast = _cwd(spec) / given if given else settings.tmpfs.absolute() / own
            return Place(fast, disk)
        if given is not None:
            return Place(_cwd(spec) / (settings.directory or given))
        return None if disk is None else Place(disk)

    # ---- while it runs
    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the folders for the duration of the block, and evaluate responses meanwhile."""
        shelter = (
            ShieldedTasks()
        )  # the last saves are written while everything else is being canceled
        self._tasks = await shelter.open()
        try:
            for name, (place, settings) in self._wanted.items():
                model = self.open(name, place)
                if model is not None:
                    model.enforce(settings)
            self._tasks.keep(self._learn)
            if self._wanted:
                from .slot_client import SlotClient

                self._tasks.start_soon(threads.run, SlotClient.warm_up)
            yield
        finally:
            with anyio.move_on_after(_LAST_WORK_S, shield=True):
                for model in list(self._models.values()):
                    await model.aclose()
            await shelter.close()
            self._tasks = None
            for lock in self._locks.values():
                lock.close()
            self._locks.clear()
            self._models.clear()

    def open(self, name: str, place: Place) -> ModelCache | None:
        """Return the cache of model *name* in *place*; None, logged once, if it cannot be used.

        A folder that another proxy holds is tried again at the next call.
        """
        key = name, place
        if key not in self._models:
            try:
                self._models[key] = self._opened(name, place)
            except KvStoreError as error:
                self._cannot(name, f"{_NOTHING}: {error}")
                self._unlock()
                return None
            self._denials.pop(name, None)
        self._latest[name] = self._models[key]
        return self._models[key]

    def _opened(self, name: str, place: Place) -> ModelCache:
        assert self._tasks is not None, "within running()"
        for folder in place.folders:  # models may share one, under other names too
            if folder not in self._locks:
                self._locks[folder] = FolderLock(folder)
        from .library.store import ConversationStore
        from .manifest import ModelStore
        from .model_cache import ModelCache

        store = ModelStore(name, place.folder, place.disk)
        store.open()
        cache = ModelCache(
            name, store, self._tasks, lambda line: self._say(name, line),
            is_idle=lambda: self._is_model_idle(name),
            conversations=ConversationStore(name, place.folder, place.disk),
        )  # fmt: skip
        cache.on_restored = lambda *facts: self.on_restored(name, *facts)
        return cache

    def _cannot(self, name: str, why: str) -> None:
        if self._denials.get(name) != why:
            self._denials[name] = why
            log.warning("%s: kv: %s", name, why)

    @contextmanager
    def borrowed(self, name: str, place: Place) -> Iterator[ModelCache | None]:
        """Yield what `open` returns; None also if the model was switched off meanwhile."""
        key = name, place
        model = None if name in self._off else self.open(name, place)
        self._users[key] += 1
        try:
            yield model
        finally:
            self._users[key] -= 1
            self._begin_release()

    def apply_settings(self, wanted: Mapping[str, KvSettings | None]) -> None:
        """Apply the settings of all models from now on.

        For a model that was removed, the hooks of its running process still run. One that was
        switched off is left alone at once. Both free their folders.

        Args:
            wanted: Model -> its settings; None means off.
        """
        self._off = frozenset(name for name, settings in wanted.items() if settings is None)
        for known in (self._wanted, self._blockers, self._denials, self._latest):
            for name in [name for name in known if wanted.get(name) is None]:
                del known[name]
        self._begin_release()

    def _begin_release(self) -> None:
        if self._tasks is not None and any(map(self._is_idle, self._models)):
            self._tasks.start_soon(self._release)

    def _is_idle(self, key: tuple[str, Place]) -> bool:
        wanted = self._wanted.get(key[0])
        return not self._users[key] and (wanted is None or wanted[0] != key[1])

    async def _release(self) -> None:
        """Release the folders that no model needs any more."""
        for key, model in list(self._models.items()):
            if self._is_idle(key):
                await model.aclose()
            if self._is_idle(key) and self._models.get(key) is model and model.is_settled:
                del self._models[key]
                if self._latest.get(key[0]) is model:
                    del self._latest[key[0]]
        self._unlock()

    def _unlock(self) -> None:
        needed = {folder for _, place in self._models for folder in place.folders}
        for folder in self._locks.keys() - needed:
            self._locks.pop(folder).close()

    def watch(self, record: Transition) -> None:
        """Handle a transition of a model: after a crash, the restored slots are not used again."""
        if record.event == "proc_exited" and record.source not in _ENDING:
            model = self._latest.get(record.service)
            if model is not None and record.exit is not None:
                model.died(record.exit.signal)

    def note(self, exchange: FinishedRequest) -> None:
        """Queue a finished request for evaluation; cheap, and cheaper once enough is known."""
        model = self._latest.get(exchange.model)
        is_seen = exchange.status == 200 or (exchange.status == 499 and any(exchange.body_chunks))
        if model is not None and model.note_end(is_seen):
            self._responses.append((model, ends_of(exchange)))
            self._has_responses.set()

    async def assign(
        self, model: str, path: str, body: bytes | None, namespace: str
    ) -> AssignedRequest | None:
        """Return the slot of a request to *model*; None leaves the request unchanged.

        It never fails: without the library, a request is as fast as its server makes it.

        Args:
            model: Id of the model, which is ready.
            path: Path of the request at its server.
            body: Body of the request; None if it is not complete.
            namespace: Namespace of its API key.
        """
        known = self._latest.get(model)
        director = None if known is None or known.library is None else known.library.director
        if director is None:
            return None
        try:
            found = await director.assign(path, body, namespace)
        except Exception:
            log.exception("%s: kv: a request was not assigned to a slot", model)
            return None
        return None if found is None else AssignedRequest(found)

    async def _learn(self) -> None:
        while True:
            while self._responses:  # before waiting: a failure may have left some
                model, ends = self._responses.popleft()  # removed first, so that it is tried once
                seen = cache_usage(ends)
                if seen is not None:
                    model.note(seen)
            await self._has_responses.wait()
            self._has_responses = anyio.Event()

    @property
    def has_unread_responses(self) -> bool:
        """True if responses are queued for evaluation."""
        return bool(self._responses)

    def wanted(self, model: str) -> tuple[Place, KvSettings] | None:
        """Return where *model* is kept, and its settings; None if it is not."""
        return self._wanted.get(model)

    def cache(self, model: str) -> ModelCache | None:
        """Return the cache of *model*; None if there is none, or its folder cannot be used."""
        return self._latest.get(model)

    def facts(self, model: str) -> dict[str, Any] | None:
        """Return the public facts of *model*; None if its `kv` is off.

        ``problem`` says why nothing is kept in spite of the configuration, with the remedy; None
        means that there is no problem.
        """
        if blocker := self._blockers.get(model) or self._denials.get(model):
            return {"problem": blocker}
        known = self._latest.get(model)
        return None if known is None else known.facts()


def adds_folder(spec: ServiceSpec, settings: KvSettings) -> bool:
    """Return True if --slot-save-path is missing in the command of *spec* and may be added."""
    line = LaunchLine.parse(spec.command.argv)
    is_missing = line.value("--slot-save-path") is None
    return is_missing and line.is_llama_server and settings.manages_args


def warning_of(spec: ServiceSpec) -> str:
    """Return why less of *spec* is kept than expected, with the remedy; empty if all is kept."""
    line = LaunchLine.parse(spec.command.argv)
    if line.has("--sleep-idle-seconds"):
        return (
            "--sleep-idle-seconds drops the caches without saving them; use `sleep` or "
            "`ttl` instead, which save them"
        )
    if not line.is_llama_server or line.has("--parallel") or _SLOTS in spec.command.env:
        return ""
    return (
        "without `--parallel N` llama-server moves idle slots to where they cannot be saved: only "
        "the last conversation is kept"
    )


def _with_hooks(spec: ServiceSpec, action: _Action) -> Mapping[str, tuple[Hook, ...]]:
    def hook(verb: Literal["prepare", "restore", "save"]) -> Hook:
        call = CallAction(function=replace(action, verb=verb))
        return Hook(action=call, timeout_s=action.settings.hook_timeout_s)

    hooks = dict(spec.hooks)
    hooks["beforeStart"] = (hook("prepare"), *hooks.get("beforeStart", ()))
    hooks["afterHealthy"] = (hook("restore"), *hooks.get("afterHealthy", ()))
    hooks["beforeStop"] = (*hooks.get("beforeStop", ()), hook("save"))
    if "suspend" in hooks or "wake" in hooks:
        hooks["suspend"] = (hook("save"), *hooks.get("suspend", ()))
        hooks["wake"] = (*hooks.get("wake", ()), hook("restore"))
    return hooks


def _cannot_make(place: Place | None) -> str:
    try:
        if place is not None:
            place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"{_NOTHING}: {error.filename}: {error.strerror}"
    return ""


def _cwd(spec: ServiceSpec) -> Path:
    return Path(spec.command.cwd) if spec.command.cwd else Path.cwd()
