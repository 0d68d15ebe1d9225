"""Scripted launcher: processes that exist only in a test, and follow a script; see `testing`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import anyio

from .errors import LaunchError
from .ports import Command, Exit, LogSink, Probe

_FINE = Exit(code=0)
_TERMINATED = Exit(signal=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerScript:
    """How one process of a service behaves. Seconds; None means never.

    Attributes:
        spawn_s: ``Launcher.start`` takes so long.
        error: It raises this instead.
        healthy_s: Probes succeed from so long after the spawn.
        sick_s: Probes fail again from so long after the spawn.
        probe_s: A probe takes so long; beyond its own limit it fails.
        exit_s: It ends by itself so long after the spawn.
        exit: How it ends then.
        terminate_s: It ends so long after a SIGTERM.
        terminated: How it ends then.
        kill_s: It ends so long after a SIGKILL.
        leaves: So many processes of its tree outlive it.
        leaves_s: They end by themselves so long after the leader.
        output: What it prints: (seconds after the spawn, bytes).
    """

    spawn_s: float = 0.0
    error: LaunchError | None = None
    healthy_s: float | None = 0.0
    sick_s: float | None = None
    probe_s: float = 0.0
    exit_s: float | None = None
    exit: Exit = _FINE
    terminate_s: float | None = 0.0
    terminated: Exit = _TERMINATED
    kill_s: float | None = 0.0
    leaves: int = 0
    leaves_s: float | None = None
    output: tuple[tuple[float, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandScript:
    """How one command that is run to its end behaves: a hook, a stop command.

    Attributes:
        takes_s: It ends after so many seconds; None: it hangs until it is killed.
        exit: How it ends then.
        error: It cannot be started: raised at once.
        kill_s: Killing it takes so many seconds.
        output: What it prints when it starts.
        signals: Name of a service whose live process gets SIGTERM when the command ends well.
    """

    takes_s: float | None = 0.0
    exit: Exit = _FINE
    error: LaunchError | None = None
    kill_s: float = 0.0
    output: bytes = b""
    signals: str = ""


#: One for all calls; one after the other, the last one again and again; or chosen for each call,
#: by the command and the number of calls of that name before.
ServerScripts: TypeAlias = (
    ServerScript | Sequence[ServerScript] | Callable[[Command, int], ServerScript]
)
CommandScripts: TypeAlias = (
    CommandScript | Sequence[CommandScript] | Callable[[Command, int], CommandScript]
)


class Record(NamedTuple):
    """One thing that a `ScriptedLauncher` was asked to do, or that happened to a process.

    Attributes:
        at: When; seconds on the loop's clock.
        what: ``spawn`` (asked), ``spawned``, ``refused``, ``terminate``, ``kill``, ``exit``,
            ``sweep``, ``swept``; for commands ``run``, ``ran``, ``killed``.
        name: The service: label of the command, or its program where there is none.
        pid: Process id, 0 before there is one.
        detail: How it ended; for commands the program.
        command: What was asked for, in ``spawn`` and ``run``.
    """

    at: float
    what: str
    name: str
    pid: int = 0
    detail: str = ""
    command: Command | None = None


class ScriptedProcess:
    """A process that follows a `ServerScript`; see `ProcessHandle`.

    Attributes:
        name: The service it belongs to.
        script: How it behaves.
        born_at: When it was spawned; seconds on the loop's clock.
        ended: How it ended; None while it lives.
        probes: How often it was probed.
        is_sick: Probes fail for as long as a test says so.
    """

    def __init__(
        self, launcher: ScriptedLauncher, name: str, pid: int, script: ServerScript, log: LogSink
    ) -> None:
        self.name, self.script = name, script
        self.ended: Exit | None = None
        self.probes = 0
        self.is_sick = False
        self._launcher, self._pid, self._log = launcher, pid, log
        self._loop = asyncio.get_running_loop()
        self.born_at = self._loop.time()
        self._ended_at = math.inf
        self._exited, self._killed = anyio.Event(), anyio.Event()
        self._handles: list[asyncio.TimerHandle] = []
        self._later(script.exit_s, script.exit)
        for after_s, data in script.output:
            self._handles.append(self._loop.call_later(after_s, log.write, data))

    @property
    def pid(self) -> int:
        """Process id of the leader."""
        return self._pid

    async def wait(self) -> Exit:
        """Wait until it has ended."""
        await self._exited.wait()
        assert self.ended is not None, "set before the event"
        return self.ended

    def terminate(self) -> None:
        """Take a SIGTERM."""
        self._note("terminate")
        self._later(self.script.terminate_s, self.script.terminated)

    def kill(self) -> None:
        """Take a SIGKILL, the whole tree does."""
        self._note("kill")
        self._killed.set()
        self._later(self.script.kill_s, Exit(signal=9))

    async def sweep(self, grace_s: float) -> int:
        """Wait for the rest of the tree, then kill it."""
        self._note("sweep")
        killed = 0
        if self.script.leaves and not self._killed.is_set():
            end = math.inf if self.script.leaves_s is None else self.script.leaves_s
            left_s = max(self._ended_at + end - self._loop.time(), 0.0)
            with anyio.move_on_after(min(left_s, grace_s)):
                await self._killed.wait()
            if self._killed.is_set() or left_s > grace_s:
                killed = self.script.leaves
                await anyio.sleep(self.script.kill_s or 0.0)
        self._launcher.forget(self)
        self._note("swept", str(killed))
        return killed

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """Answer as the script says at this instant."""
        self.probes += 1
        await anyio.sleep(min(self.script.probe_s, timeout_s))
        if self.script.probe_s > timeout_s:
            return Probe(is_ok=False, detail="timeout")
        if self.ended is not None:
            return Probe(is_ok=False, detail="refused")
        age = self._loop.time() - self.born_at
        healthy_s = math.inf if self.script.healthy_s is None else self.script.healthy_s
        sick_s = math.inf if self.script.sick_s is None else self.script.sick_s
        if self.is_sick or not healthy_s <= age < sick_s:
            return Probe(is_ok=False, detail="status 503")
        return Probe(is_ok=True)

    def exit_now(self, ended: Exit) -> None:
        """End it, as if by itself; nothing happens when it has ended."""
        if self.ended is None:
            self.ended, self._ended_at = ended, self._loop.time()
            for handle in self._handles:
                handle.cancel()
            self._note("exit", str(ended))
            self._exited.set()

    def _later(self, after_s: float | None, ended: Exit) -> None:
        if after_s is not None and self.ended is None:
            self._handles.append(self._loop.call_later(after_s, self.exit_now, ended))

    def _note(self, what: str, detail: str = "") -> None:
        self._launcher.note(what, self.name, self._pid, detail)


class ScriptedLauncher:
    """Starts processes that exist only here, and writes down everything; see `Launcher`.

    Args:
        servers: Name of a service (label of its command) -> how its processes behave; any other
            is healthy at once and ends on SIGTERM at once.
        commands: Program (first item of argv) -> how such a command behaves when run; any other
            ends at once with code 0.

    Attributes:
        servers: May be changed at any time.
        commands: May be changed at any time.
        records: Everything, in order.
        live: Process id -> process of which something is left.
        violations: Promises of the runtime that were broken, in words.
    """

    def __init__(
        self,
        servers: Mapping[str, ServerScripts] | None = None,
        commands: Mapping[str, CommandScripts] | None = None,
    ) -> None:
        self.servers: dict[str, ServerScripts] = dict(servers or {})
        self.commands: dict[str, CommandScripts] = dict(commands or {})
        self.records: list[Record] = []
        self.live: dict[int, ScriptedProcess] = {}
        self.violations: list[str] = []
        self._calls: dict[tuple[str, str], int] = {}
        self._names: dict[str, int] = {}
        self._running: dict[int, Command] = {}
        self._last_pid = 100

    # ---- the port
    async def start(self, command: Command, log: LogSink) -> ScriptedProcess:
        """Start a process as the script of its service says."""
        name = command.label or command.argv[0]
        script = _script(
            self.servers.get(name, ServerScript()), command, self._number("start", name)
        )
        self.note("spawn", name, command=command)
        if self._names.get(name):
            self._violated(f"{name} was started while a process of it was alive")
        self._names[name] = self._names.get(name, 0) + 1
        if script.spawn_s:
            await anyio.sleep(script.spawn_s)
        if script.error is not None:
            self._names[name] -= 1
            self.note("refused", name, detail=str(script.error))
            raise type(script.error)(*script.error.args)
        self._last_pid += 1
        process = ScriptedProcess(self, name, self._last_pid, script, log)
        self.live[process.pid] = process
        self.note("spawned", name, process.pid)
        return process

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a command as its script says."""
        name, program = command.label or command.argv[0], command.argv[0]
        script = _script(
            self.commands.get(program, CommandScript()), command, self._number("run", program)
        )
        self._last_pid += 1
        pid = self._last_pid
        self.note("run", name, pid, program, command)
        if script.error is not None:
            raise type(script.error)(*script.error.args)
        if script.output:
            log.write(script.output)
        self._running[pid] = command
        try:
            await anyio.sleep(math.inf if script.takes_s is None else script.takes_s)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.sleep(script.kill_s)
            self.note("killed", name, pid, program)
            raise
        finally:
            del self._running[pid]
        self.note("ran", name, pid, program)
        if script.signals and script.exit.is_clean:
            for process in self.of(script.signals):
                process.terminate()
        return script.exit

    # ---- what tests ask
    def of(self, name: str) -> list[ScriptedProcess]:
        """Return the live processes of service *name*."""
        return [process for process in self.live.values() if process.name == name]

    def find(self, what: str, name: str | None = None) -> list[Record]:
        """Return the records of one kind, and of one service if it is named."""
        return [r for r in self.records if r.what == what and name in (None, r.name)]

    def count(self, what: str, name: str | None = None) -> int:
        """Count the records of one kind, and of one service if it is named."""
        return len(self.find(what, name))

    def programs(self, name: str | None = None) -> list[str]:
        """Return the programs that were run (hooks), in order."""
        return [record.detail for record in self.find("run", name)]

    def environments(self, program: str) -> list[Mapping[str, str]]:
        """Return the environment of each run of *program*."""
        return [r.command.env for r in self.find("run") if r.detail == program and r.command]

    def crash(self, name: str, ended: Exit | None = None) -> None:
        """End every live process of *name* as if by itself; by SIGSEGV unless said otherwise."""
        for process in self.of(name):
            process.exit_now(ended or Exit(signal=11))

    def assert_sound(self) -> None:
        """Fail if a promise was broken: two processes of one service at a time, and the like.

        Raises:
            AssertionError: The text lists what was broken.
        """
        if self.violations:
            raise AssertionError("\n".join(self.violations))

    def assert_ended(self) -> None:
        """As `assert_sound`, and fail if any process or command is left.

        Raises:
            AssertionError: The text lists what is left.
        """
        self.assert_sound()
        left = [f"{p.name} (pid {p.pid})" for p in self.live.values()]
        left += [f"command {c.argv[0]} (pid {pid})" for pid, c in self._running.items()]
        if left:
            raise AssertionError("left behind: " + ", ".join(left))

    # ---- for processes
    def note(
        self, what: str, name: str, pid: int = 0, detail: str = "", command: Command | None = None
    ) -> None:
        """Write down one thing, now."""
        at = asyncio.get_running_loop().time()
        self.records.append(Record(at, what, name, pid, detail, command))

    def forget(self, process: ScriptedProcess) -> None:
        """Note that nothing of *process* is left."""
        if process.ended is None:
            self._violated(f"{process.name} was swept while its leader was alive")
        if self.live.pop(process.pid, None) is None:
            self._violated(f"{process.name} (pid {process.pid}) was swept twice")
            return
        self._names[process.name] -= 1

    def _number(self, kind: str, name: str) -> int:
        number = self._calls.get((kind, name), 0)
        self._calls[kind, name] = number + 1
        return number

    def _violated(self, what: str) -> None:
        self.violations.append(f"{asyncio.get_running_loop().time():g} s: {what}")


S = TypeVar("S", ServerScript, CommandScript)


def _script(scripts: S | Sequence[S] | Callable[[Command, int], S], command: Command, n: int) -> S:
    if isinstance(scripts, Sequence):
        return scripts[min(n, len(scripts) - 1)]
    return scripts(command, n) if callable(scripts) else scripts
