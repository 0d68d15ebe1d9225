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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import anyio

from ...runtime import CallAction, Command, Hook, ServiceSpec
from .facts import ServerFacts
from .launch import LaunchLine
from .model import KvRules, ModelKv
from .proof import seen_in
from .store import FolderLock, KvStoreError, ModelStore, Quota, prefix_of

log = logging.getLogger(__name__)

_SLACK_S = 2.0  # a hook is killed so long after its own deadline, which ends it in good order
_TAIL_BYTES = 4096
_WAITING_ANSWERS = 64
_NO_QUOTA, _RULES = Quota(), KvRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSettings:
    """What is wanted for one model.

    Attributes:
        directory: Where its folder is made; None: in the keeper's. If its command names a folder
            already, this is that very folder as we see it, such as a container's volume.
        manages_args: Add ``--slot-save-path`` to its command where it is missing.
        quota: How much may be kept.
        rules: What is saved, and when.
    """

    directory: Path | None = None
    manages_args: bool = True
    quota: Quota = _NO_QUOTA
    rules: KvRules = _RULES

    @property
    def hook_timeout_s(self) -> float:
        """When a hook of ours is killed; seconds."""
        return self.rules.timeout_s + _SLACK_S


class Answered(Protocol):
    """A finished exchange with a model; the proxy's ``Exchange``."""

    model: str
    status: int
    pieces: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    folder: Path
    settings: KvSettings
    facts: ServerFacts


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
        self._plans: dict[str, _Plan] = {}
        self._models: dict[str, ModelKv] = {}
        self._locks: dict[Path, FolderLock | None] = {}
        self._answers: deque[tuple[str, bytes]] = deque(maxlen=_WAITING_ANSWERS)
        self._has_answers = anyio.Event()

    def equip(self, spec: ServiceSpec, settings: KvSettings) -> ServiceSpec:
        """Return *spec* with hooks of ours, and with a folder for slots in its command.

        What keeps it from working is logged once, with what to do, and *spec* stays as it is.
        """
        line = LaunchLine.parse(spec.command.argv)
        command, folder = spec.command, self._folder(spec, line, settings)
        if folder is None:
            return spec
        if line.value("--slot-save-path") is None:
            log.info("%s: kv: adding --slot-save-path %s to its command", spec.name, folder)
            command = replace(command, argv=(*command.argv, "--slot-save-path", str(folder)))
        self._hint(spec.name, line)
        facts = ServerFacts(command.argv, {**os.environ, **command.env}, _cwd(command))
        self._plans[spec.name] = _Plan(folder=folder, settings=settings, facts=facts)
        return replace(spec, command=command, hooks=self._hooks(spec, settings.hook_timeout_s))

    def _folder(self, spec: ServiceSpec, line: LaunchLine, settings: KvSettings) -> Path | None:
        given = line.value("--slot-save-path")
        if given is not None:
            return _cwd(spec.command) / (settings.directory or given)
        base = settings.directory or self._directory
        folder = (base or Path("DIR")).absolute() / prefix_of(spec.name)
        if not (settings.manages_args and line.is_llama_server and base is not None):
            log.warning(
                "%s: kv: nothing is kept: its command has no --slot-save-path; add "
                "`--slot-save-path %s`, a folder that exists", spec.name, folder,
            )  # fmt: skip
            return None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("%s: kv: nothing is kept: %s: %s", spec.name, folder, error.strerror)
            return None
        return folder

    def _hint(self, name: str, line: LaunchLine) -> None:
        if line.is_llama_server and not line.has("--parallel"):
            log.warning(
                "%s: kv: without --parallel N llama-server moves idle slots to where they cannot "
                "be saved: only the last conversation will be kept",
                name,
            )

    def _hooks(self, spec: ServiceSpec, limit_s: float) -> Mapping[str, tuple[Hook, ...]]:
        async def restore_slots(context: Any) -> None:
            model = self._models.get(context.service)
            if model is not None:
                await model.restore(context)

        async def save_slots(context: Any) -> None:
            model = self._models.get(context.service)
            if model is not None:
                await model.save(context)

        restore = Hook(action=CallAction(function=restore_slots), timeout_s=limit_s)
        save = Hook(action=CallAction(function=save_slots), timeout_s=limit_s)
        hooks = dict(spec.hooks)
        hooks["afterHealthy"] = (restore, *hooks.get("afterHealthy", ()))
        hooks["beforeStop"] = (*hooks.get("beforeStop", ()), save)
        if "suspend" in hooks or "wake" in hooks:
            hooks["suspend"] = (save, *hooks.get("suspend", ()))
            hooks["wake"] = (*hooks.get("wake", ()), restore)
        return hooks

    # ---- running
    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the folders for as long as the block lasts, and learn from answers meanwhile."""
        try:
            for name, plan in self._plans.items():
                self._open(name, plan)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._learn)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            for lock in self._locks.values():
                if lock is not None:
                    lock.close()
            self._locks.clear()
            self._models.clear()

    def _open(self, name: str, plan: _Plan) -> None:
        try:
            if plan.folder not in self._locks:
                self._locks[plan.folder] = None
                self._locks[plan.folder] = FolderLock(plan.folder)
            if self._locks[plan.folder] is None:
                return
            store = ModelStore(plan.folder, name, plan.settings.quota)
            store.open()
        except KvStoreError as error:
            log.warning("%s: kv: nothing is kept: %s", name, error)
            return
        self._models[name] = ModelKv(
            name, store, plan.facts, plan.settings.rules, lambda line: self._say(name, line)
        )

    # ---- answers
    def note(self, exchange: Answered) -> None:
        """Take a finished exchange; costs next to nothing, and nothing once enough is known."""
        model = self._models.get(exchange.model)
        if model is None or exchange.status != 200 or not model.is_watching:
            return
        self._answers.append((exchange.model, _tail(exchange.pieces)))
        self._has_answers.set()

    async def _learn(self) -> None:
        while True:
            await self._has_answers.wait()
            self._has_answers = anyio.Event()
            while self._answers:
                self._take_answer()

    def _take_answer(self) -> None:
        name, tail = self._answers.popleft()
        seen, model = seen_in(tail), self._models.get(name)
        if seen is not None and model is not None:
            model.note(seen)

    def facts(self, model: str) -> dict[str, Any] | None:
        """Return what can be shown of *model*; None when nothing of it is kept."""
        known = self._models.get(model)
        return None if known is None else known.facts()

    @property
    def models(self) -> Iterable[str]:
        """Names of the models that are kept."""
        return self._models.keys()


def _tail(pieces: Iterable[bytes]) -> bytes:
    tail = b""
    for piece in reversed(tuple(pieces)):
        tail = piece + tail
        if len(tail) >= _TAIL_BYTES:
            break
    return tail[-_TAIL_BYTES:]


def _cwd(command: Command) -> Path:
    return Path(command.cwd) if command.cwd else Path.cwd()
