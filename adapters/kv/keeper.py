"""Keeps the conversations of all models that ask for it; what a composition root uses.

It gives each such model two hooks of its own: a restore, first of those that run once the server
is healthy, so that no request comes before it; and a save, last of those that run before a stop.
Both have their own time, apart from the grace period, and their failure never fails a start.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from ...runtime import CallAction, Hook, HookContext, ServiceSpec, Transition
from ...runtime.shelter import Shelter
from .facts import ServerFacts
from .files import FolderLock, KvStoreError, prefix_of
from .launch import LaunchLine
from .model import ModelKv, Terms
from .proof import seen_in
from .settings import KvSettings
from .slots import SlotClient
from .store import ModelStore

log = logging.getLogger(__name__)

_TAIL_BYTES = 4096
_WAITING_ANSWERS = 64
_LAST_WORK_S = 10.0  # when the proxy ends: so long for checksums of the last saves

#: Where a process that ends was asked to.
_ENDING = frozenset({"aborting", "draining", "before_stop", "terminating", "killing", "reaped"})


class Answered(Protocol):
    """A finished exchange with a model; the proxy's ``Exchange``."""

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def status(self) -> int:
        """Of the answer."""
        ...

    @property
    def pieces(self) -> Iterable[bytes]:
        """Of the answer's body: all, or the last ones."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the slots of one model are saved, as we see it.

    Attributes:
        folder: Where its server writes.
        disk: Where copies lie, if that is in memory; else None.
    """

    folder: Path
    disk: Path | None = None


@dataclass(frozen=True, slots=True)
class _Action:
    """A hook of ours; equal for equal wishes, so that a reload sees no change where there is none.

    It belongs to the process that was started with it: a later declaration does not change what
    a save of that process means.
    """

    verb: Literal["prepare", "restore", "save"]
    service: str
    place: Place
    settings: KvSettings
    terms: Terms = field(compare=False, repr=False)
    keeper: KvKeeper = field(compare=False, repr=False)

    async def __call__(self, context: HookContext) -> None:
        model = self.keeper.open(self.service, self.place)
        if model is None:
            return
        if self.verb == "prepare":
            await model.prepare(self.terms)
        elif self.verb == "restore":
            await model.restore(context.endpoint, self.terms)
        elif context.after_healthy != "interrupted":  # else it has served nothing
            await model.save(context.endpoint, self.terms)

    def __str__(self) -> str:
        return f"kv {self.verb}"


class KvKeeper:
    """The continuity of all models.

    Args:
        directory: Where folders for slots are made for models that name none; None: they cannot.
        say: (model, line) -> takes a line for that model's log.
    """

    def __init__(
        self, directory: Path | None, say: Callable[[str, str], None] = lambda model, line: None
    ) -> None:
        self._directory, self._say = directory, say
        self._wanted: dict[str, tuple[Place, KvSettings]] = {}
        self._models: dict[tuple[str, Place], ModelKv | None] = {}
        self._latest: dict[str, ModelKv] = {}
        self._locks: dict[Path, FolderLock] = {}
        self._tasks: TaskGroup | None = None
        self._answers: deque[tuple[ModelKv, bytes]] = deque(maxlen=_WAITING_ANSWERS)
        self._has_answers = anyio.Event()

    # ---- before a start
    def equip(self, spec: ServiceSpec, settings: KvSettings) -> ServiceSpec:
        """Return *spec* with hooks of ours, and with a folder for slots in its command.

        What keeps it from working is logged, with what to do, and *spec* stays as it is.
        """
        line = LaunchLine.parse(spec.command.argv)
        command, place = spec.command, self.place(spec, settings)
        has_folder = line.value("--slot-save-path") is not None
        if not has_folder and not (place and settings.manages_args and line.is_llama_server):
            log.warning(
                "%s: kv: nothing is kept: its command has no --slot-save-path; add "
                "`--slot-save-path %s`, a folder that exists",
                spec.name, place.folder if place else "DIR",
            )  # fmt: skip
            return spec
        if place is None or not _is_made(spec.name, place):
            return spec
        if not has_folder:
            log.info("%s: kv: adding --slot-save-path %s to its command", spec.name, place.folder)
            command = replace(command, argv=(*command.argv, "--slot-save-path", str(place.folder)))
        if line.is_llama_server and not line.has("--parallel"):
            log.warning(
                "%s: kv: without --parallel N llama-server moves idle slots to where they cannot "
                "be saved: only the last conversation will be kept", spec.name,
            )  # fmt: skip
        self._wanted[spec.name] = place, settings
        facts = ServerFacts(command.argv, {**os.environ, **command.env}, _cwd(spec))
        action = _Action("restore", spec.name, place, settings, Terms(facts, settings), self)
        return replace(spec, command=command, hooks=_with_hooks(spec, action))

    def place(self, spec: ServiceSpec, settings: KvSettings) -> Place | None:
        """Return where the slots of *spec* are saved, or None if nowhere: no folder was named."""
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
        """Hold the folders for as long as the block lasts, and learn from answers meanwhile."""
        shelter = Shelter()  # the last saves are made while everything else is being cancelled
        self._tasks = await shelter.open()
        try:
            for name, (place, settings) in self._wanted.items():
                model = self.open(name, place)
                if model is not None:
                    model.enforce(settings)
            self._tasks.start_soon(self._learn)
            if self._wanted:
                self._tasks.start_soon(to_thread.run_sync, SlotClient.warm_up)
            yield
        finally:
            with anyio.move_on_after(_LAST_WORK_S, shield=True):
                for model in self._latest.values():
                    await model.settled()
            await shelter.close()
            self._tasks = None
            for lock in self._locks.values():
                lock.close()
            self._locks.clear()
            self._models.clear()

    def open(self, name: str, place: Place) -> ModelKv | None:
        """Return the continuity of model *name* in *place*; None, said once, if it is not ours."""
        key = name, place
        if key not in self._models:
            self._models[key] = self._opened(name, place)
        model = self._models[key]
        if model is not None:
            self._latest[name] = model
        return model

    def _opened(self, name: str, place: Place) -> ModelKv | None:
        assert self._tasks is not None, "within running()"
        try:
            for folder in filter(None, (place.folder, place.disk)):
                real = folder.resolve()  # models may share a folder, under other names too
                if real not in self._locks:
                    self._locks[real] = FolderLock(real)
            store = ModelStore(name, place.folder, place.disk)
            store.open()
        except KvStoreError as error:
            log.warning("%s: kv: nothing is kept: %s", name, error)
            return None
        return ModelKv(name, store, self._tasks, lambda line: self._say(name, line))

    def watch(self, record: Transition) -> None:
        """Take a transition of a model: a crash after a restore is not tried again."""
        if record.event == "proc_exited" and record.source not in _ENDING:
            model = self._latest.get(record.service)
            if model is not None and record.exit is not None:
                model.died(record.exit.signal)

    def note(self, exchange: Answered) -> None:
        """Take a finished exchange; costs next to nothing, and less once enough is known."""
        model = self._latest.get(exchange.model)
        if model is not None and model.note_end(exchange.status == 200):
            self._answers.append((model, _tail(exchange.pieces)))
            self._has_answers.set()

    async def _learn(self) -> None:
        while True:
            await self._has_answers.wait()
            self._has_answers = anyio.Event()
            while self._answers:
                model, tail = self._answers[0]
                seen = seen_in(tail)
                if seen is not None:
                    model.note(seen)
                self._answers.popleft()

    @property
    def has_unread_answers(self) -> bool:
        """Tell whether something is still to be learnt from answers that were noted."""
        return bool(self._answers)

    def facts(self, model: str) -> dict[str, Any] | None:
        """Return what can be shown of *model*; None when nothing of it is kept."""
        known = self._latest.get(model)
        return None if known is None else known.facts()


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


def _is_made(name: str, place: Place) -> bool:
    try:
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        log.warning("%s: kv: nothing is kept: %s: %s", name, place.folder, error.strerror)
        return False
    return True


def _tail(pieces: Iterable[bytes]) -> bytes:
    tail = b""
    for piece in reversed(tuple(pieces)):
        tail = piece + tail
        if len(tail) >= _TAIL_BYTES:
            break
    return tail[-_TAIL_BYTES:]


def _cwd(spec: ServiceSpec) -> Path:
    return Path(spec.command.cwd) if spec.command.cwd else Path.cwd()
