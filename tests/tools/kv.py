"""Lives of one server, with the hooks that keep its conversations, without a proxy around them."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from swapchart.adapters.kv.effectiveness import cache_usage
from swapchart.adapters.kv.files import FolderLock, KvStoreError, prefix_of
from swapchart.adapters.kv.manager import KvManager
from swapchart.adapters.kv.manifest import ModelStore
from swapchart.adapters.kv.model_cache import ModelCache
from swapchart.adapters.kv.settings import KvSettings
from swapchart.runtime import CallAction, Command, Exit, HookContext, ServiceSpec, Transition

from . import raw
from .children import Child, demo_argv
from .net import free_port

NAME = "tortoise"
STORY = "the tree and the river wait for a red stone in the green time of the one queue "
CHAT = "/v1/chat/completions"
EAGER = KvSettings(min_tokens=10, timeout_s=20.0)


class Life:
    """One process, from its start to its end.

    Attributes:
        child: The process.
        spec: As it was started.
    """

    def __init__(self, kept: Kept, spec: ServiceSpec, child: Child) -> None:
        self._kept, self.spec, self.child = kept, spec, child

    async def hook(self, point: str, index: int, after_healthy: str = "completed") -> None:
        """Run one hook of ours as the runtime would."""
        action = self.spec.hooks[point][index].action
        assert isinstance(action, CallAction)
        context = HookContext(
            service=self.spec.name, point=point, endpoint=f"http://127.0.0.1:{self.child.port}",
            pid=self.child.pid, incarnation=1, reason="test", after_healthy=after_healthy,
        )  # fmt: skip
        await action.function(context)

    async def restore(self) -> None:
        await self.hook("afterHealthy", 0)

    async def save(self, after_healthy: str = "completed") -> None:
        await self.hook("beforeStop", -1, after_healthy)

    async def ask(self, text: str, limit: int = 2, **more: object) -> Any:
        """Complete *text*, and pass the response to the KV manager, as the proxy does."""
        body = {"prompt": text, "max_tokens": limit, "temperature": 0, **more}
        answer = await to_thread.run_sync(
            lambda: raw.call(
                self.child.port, "POST", "/v1/completions", value=body, timeout_s=60.0
            )
        )  # fmt: skip
        self._kept.keeper.note(Answer(self.spec.name, answer.status, [answer.body]))
        assert answer.status == 200, answer
        await self._kept.wait_learnt(answer.body)
        return answer.json()

    async def cached(self, text: str, limit: int = 2, **more: object) -> int:
        """Complete *text*; returns how many of its tokens were reused."""
        answer = await self.ask(text, limit, **more)
        return int(answer["timings"]["cache_n"])

    def slots(self) -> list[dict[str, Any]]:
        value: list[dict[str, Any]] = raw.call(self.child.port, "GET", "/slots").json()
        return value

    def died(self, signal: int) -> None:
        """Report to the KV manager that the process has ended by *signal*."""
        self._kept.keeper.watch(
            Transition(
                service=self.spec.name, at=0.0, event="proc_exited", cause="", source="ready",
                target="crashed", configuration=("crashed",), seconds=0.0, incarnation=1,
                exit=Exit(signal=signal),
            )
        )  # fmt: skip


class Answer:
    """The attributes of a finished request's ``RequestRecord`` that the KV manager reads."""

    def __init__(self, model: str, status: int, body_chunks: Sequence[bytes]) -> None:
        self.model, self.status, self.body_chunks, self.first_chunk = (
            model,
            status,
            body_chunks,
            b"",
        )


class Kept:
    """A keeper of one model, and its folder.

    Attributes:
        keeper: As a proxy has it.
        folder: Where the slots are saved.
        lines: Of the model's log, from us.
        is_idle: No request is in flight or queued, as the supervisor reports it.
    """

    def __init__(self, folder: Path, settings: KvSettings, argv: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._settings, self._argv = folder, settings, argv
        self.lines: list[str] = []
        self.is_idle = True
        self.keeper = KvManager(
            folder.parent, lambda model, line: self.lines.append(line), lambda model: self.is_idle
        )
        self.env: dict[str, str] = {}
        self._seen = 0

    def spec(self, *options: str) -> ServiceSpec:
        return self.keeper.add_hooks(self.plain(*options), self._settings)

    def plain(self, *options: str, **more: Any) -> ServiceSpec:
        """Return the model as a service, without hooks of ours."""
        command = Command(argv=(*self._argv, *options), env=self.env, label=NAME)
        return ServiceSpec(name=NAME, command=command, endpoint="http://127.0.0.1:1", **more)

    @asynccontextmanager
    async def life(self, *options: str, restore: bool = True) -> AsyncIterator[Life]:
        """Start a process with further *options*, restored; the end kills it, without a save."""
        spec = self.spec(*options)
        port = free_port()
        argv = [*spec.command.argv, "--port", str(port)]
        with Child(argv, cwd=self.folder.parent, port=port, env=self.env) as child:
            life = Life(self, spec, child)
            await life.hook("beforeStart", 0)
            await to_thread.run_sync(child.wait_healthy, 30.0)
            if restore:
                await life.restore()
            yield life

    def cache(self) -> ModelCache:
        """Return the cache of the model."""
        place = self.keeper.place(self.plain(), self._settings)
        assert place is not None
        model = self.keeper.open(NAME, place)
        assert model is not None
        return model

    async def settled(self) -> None:
        """Wait until the last save has been written down."""
        await self.cache().settled()

    def facts(self) -> dict[str, Any]:
        facts = self.keeper.facts(NAME)
        assert facts is not None
        return facts

    async def wait_learnt(self, body: bytes) -> None:
        """Wait until the keeper's task has read an answer."""
        if cache_usage(body) is not None:
            with anyio.fail_after(10.0):
                while self.keeper.has_unread_responses:
                    await anyio.lowlevel.checkpoint()

    # ---- the disk
    @property
    def manifest_path(self) -> Path:
        return self.folder / f"{prefix_of(NAME)}.json"

    def manifest(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.manifest_path.read_text())
        return value

    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.manifest()["entries"]
        return entries

    def slot_files(self) -> list[Path]:
        return sorted(self.folder.glob("*.kv"))

    def store(self) -> ModelStore:
        """Return what is on the disk, read again."""
        store = ModelStore(NAME, self.folder)
        store.read()
        return store


@asynccontextmanager
async def keeping(
    folder: Path, argv: Sequence[str], settings: KvSettings = EAGER, *,
    env: dict[str, str] | None = None,
) -> AsyncIterator[Kept]:  # fmt: skip
    """Keep the conversations of one model, started by *argv*, for as long as the block lasts."""
    kept = Kept(folder, settings, [*argv, "--slot-save-path", str(folder)])
    kept.env = env or {}
    kept.spec()
    async with kept.keeper.running():
        yield kept


def demo_command(model: Path, *options: str, slots: int = 1) -> list[str]:
    """Return the command of a demo server for the file *model*, without its port.

    It reads prompts slowly enough that keeping them pays.
    """
    slow = ["--prefill-tokens-per-second", "1000", "--alias", "demo", "--slots", str(slots)]
    argv = demo_argv(*slow, *options, model=str(model))
    at = argv.index("--port")
    return [*argv[:at], *argv[at + 2 :]]


def is_free(folder: Path) -> bool:
    """Return True if no process holds the lock of *folder*."""
    try:
        FolderLock(folder).close()
    except KvStoreError:
        return False
    return True


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the keeper has warned of."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and ".kv." in record.name
    ]


def with_metadata(path: Path, key: str, value: int) -> Path:
    """Add a number to the metadata of the GGUF file at *path*, in place.

    What is inserted is a multiple of 32 bytes, so that the tensors stay aligned.
    """
    data = path.read_bytes()
    count = struct.unpack_from("<Q", data, 16)[0]
    added = _text(key) + struct.pack("<II", 4, value)
    filler = "test.filler"
    size = len(added) + len(_text(filler)) + 4 + 8
    added += _text(filler) + struct.pack("<I", 8) + _text("x" * (-size % 32))
    path.write_bytes(data[:16] + struct.pack("<Q", count + 2) + added + data[24:])
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
