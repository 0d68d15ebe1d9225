"""Scripted launcher: processes that exist only in a test and follow a script; see `testing`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import anyio

from .errors import PlacementError
from .ports import (
    Command,
    Endpoint,
    Exit,
    LogSink,
    Node,
    NodeDown,
    NodeLauncher,
    NodeProcess,
    NodeUp,
    Presence,
    Probe,
)
from .scripted_nodes import ScriptedNodes
from .scripts import CommandScript, CommandScripts, ServerScript, ServerScripts, script_of
from .timers import clock

_LOST = Exit(certain=False, reason="node-lost")


class Record(NamedTuple):
    """One call of a `ScriptedLauncher`, or one event of a process.

    Attributes:
        at: Time in seconds on the loop's clock.
        what: ``spawn`` (the call), ``spawned``, ``refused``, ``terminate``, ``kill``, ``exit``,
            ``sweep``, ``swept``; for commands ``run``, ``ran``, ``killed``.
        name: Name of the service: the label of the command, or else its program.
        pid: Process id; 0 before there is one.
        detail: How it ended; for commands the program.
        command: The command, in ``spawn`` and ``run``.
    """

    at: float
    what: str
    name: str
    pid: int = 0
    detail: str = ""
    command: Command | None = None


class ScriptedProcess(NodeProcess):
    """A process that follows a `ServerScript`; see `NodeProcess`.

    Attributes:
        name: Name of its service.
        script: Its behavior.
        born_at: Time of the spawn, in seconds on the loop's clock.
        ended: How it ended; None while it runs.
        probes: Number of probes so far.
        is_sick: Probes fail; a test sets and clears it.
        is_lost: Its node is lost: nothing reaches it.
        probed: URL of the last probe; empty before the first one.
    """

    def __init__(
        self, launcher: ScriptedLauncher, name: str, pid: int, script: ServerScript, log: LogSink,
        endpoint: Endpoint | None = None,
    ) -> None:  # fmt: skip
        self.name, self.script = name, script
        self.ended: Exit | None = None
        self.probes = 0
        self.is_sick = self.is_lost = False
        self.probed = ""
        self._endpoint = endpoint
        self._launcher, self._pid, self._log = launcher, pid, log
        self.born_at = clock()()
        self._ended_at = math.inf
        self._exited, self._killed = anyio.Event(), anyio.Event()
        self._cancels: list[Callable[[], None]] = []
        self._later(script.exit_s, script.exit)
        for after_s, data in script.output:
            self._cancels.append(_call_later(after_s, log.write, data))

    @property
    def pid(self) -> int:
        """Process id of the leader."""
        return self._pid

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it is reached; None without nodes."""
        return self._endpoint

    async def presence(self) -> Presence:
        """Return ``unknown`` while its node is lost."""
        if self.is_lost:
            return "unknown"
        return "alive" if self.ended is None else "gone"

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a command inside; recorded as one of the launcher, with a node ``inside``."""
        return await self._launcher.run(replace(command, node="inside"), log)

    def lose(self) -> None:
        """Lose its node: nothing reaches it, and its end is noticed after ``lost_s``."""
        self.is_lost = True
        self._later(self.script.lost_s, _LOST)

    async def wait(self) -> Exit:
        """Wait until it has ended."""
        await self._exited.wait()
        assert self.ended is not None, "set before the event"
        return self.ended

    def pids(self) -> tuple[int, ...]:
        """Return the leader, while it runs."""
        return () if self._exited.is_set() else (self._pid,)

    def terminate(self) -> None:
        """Receive SIGTERM."""
        self._note("terminate")
        if not self.is_lost:
            self._later(self.script.terminate_s, self.script.terminated)

    def kill(self) -> None:
        """Receive SIGKILL, with the whole tree."""
        self._note("kill")
        self._killed.set()
        self._later(self.script.kill_s, _LOST if self.is_lost else Exit(signal=9))

    async def sweep(self, grace_s: float) -> int:
        """Wait for the rest of the tree, then kill it."""
        self._note("sweep")
        killed = 0
        if self.script.leaves and not self.is_lost and not self._killed.is_set():
            end = math.inf if self.script.leaves_s is None else self.script.leaves_s
            left_s = max(self._ended_at + end - clock()(), 0.0)
            with anyio.move_on_after(min(left_s, grace_s)):
                await self._killed.wait()
            if self._killed.is_set() or left_s > grace_s:
                killed = self.script.leaves
                await anyio.sleep(self.script.kill_s or 0.0)
        self._launcher.forget(self)
        self._note("swept", str(killed))
        return killed

    async def probe(self, url: str, *, timeout_s: float) -> Probe:
        """Return the result that the script gives at this time."""
        self.probes += 1
        self.probed = url
        await anyio.sleep(min(self.script.probe_s, timeout_s))
        if self.script.probe_s > timeout_s:
            return Probe(is_ok=False, detail="timeout")
        if self.is_lost:
            return Probe(is_ok=False, detail="timeout")
        if self.ended is not None:
            return Probe(is_ok=False, detail="refused")
        age = clock()() - self.born_at
        healthy_s = math.inf if self.script.healthy_s is None else self.script.healthy_s
        sick_s = math.inf if self.script.sick_s is None else self.script.sick_s
        if self.is_sick or not healthy_s <= age < sick_s:
            return Probe(is_ok=False, detail="status 503")
        return Probe(is_ok=True)

    def exit_now(self, ended: Exit) -> None:
        """End the process as if by itself; a no-op if it has ended."""
        if self.ended is None:
            self.ended, self._ended_at = ended, clock()()
            for cancel in self._cancels:
                cancel()
            self._note("exit", str(ended))
            self._exited.set()

    def _later(self, after_s: float | None, ended: Exit) -> None:
        if after_s is not None and self.ended is None:
            self._cancels.append(_call_later(after_s, self.exit_now, ended))

    def _note(self, what: str, detail: str = "") -> None:
        self._launcher.note(what, self.name, self._pid, detail)


class ScriptedLauncher(NodeLauncher):
    """Starts scripted processes and records every event; see `NodeLauncher`.

    Args:
        servers: Name of a service (label of its command) -> behavior of its processes; any other
            is healthy at once and ends at once on SIGTERM.
        commands: Program (first item of argv) -> behavior of the command; any other ends at once
            with exit code 0.
        nodes: Names of nodes on which the processes run; without any, they are on no node.

    Attributes:
        servers: May be changed at any time.
        commands: May be changed at any time.
        records: All calls and events, in order.
        live: Process id -> process whose tree is not swept yet.
        violations: Violations of the rules of `Launcher` by its caller, in words.
    """

    def __init__(
        self,
        servers: Mapping[str, ServerScripts] | None = None,
        commands: Mapping[str, CommandScripts] | None = None,
        nodes: Iterable[str] = (),
    ) -> None:
        self._nodes = ScriptedNodes(nodes)
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
        """Start a process by the script of its service."""
        name = command.label or command.argv[0]
        script = script_of(
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
        try:
            endpoint = self._nodes.place(command)
        except PlacementError as error:
            self._names[name] -= 1
            self.note("refused", name, detail=str(error))
            raise
        self._last_pid += 1
        process = ScriptedProcess(self, name, self._last_pid, script, log, endpoint)
        self.live[process.pid] = process
        self.note("spawned", name, process.pid)
        return process

    async def run(self, command: Command, log: LogSink) -> Exit:
        """Run a command by its script."""
        name, program = command.label or command.argv[0], command.argv[0]
        script = script_of(
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

    async def nodes(self) -> tuple[Node, ...]:
        """Return the nodes."""
        return self._nodes.all()

    def lose(self, node: str) -> None:
        """Lose *node* with its processes, without a sign: their ends are noticed later."""
        self._nodes.lost.add(node)
        for process in self.live.values():
            if process.node == node:
                process.lose()

    def report_down(self, node: str, *, is_certain: bool = False) -> None:
        """Report that *node* is down, for certain or not."""
        self.notify(NodeDown(self._nodes.node(node), is_certain))

    def restore(self, node: str) -> None:
        """Bring *node* back, without the processes that were lost there, and report it."""
        self._nodes.lost.discard(node)
        self.notify(NodeUp(self._nodes.node(node)))

    # ---- queries
    def of(self, name: str) -> list[ScriptedProcess]:
        """Return the live processes of service *name*."""
        return [process for process in self.live.values() if process.name == name]

    def find(self, what: str, name: str | None = None) -> list[Record]:
        """Return the records of one kind, of one service if *name* is given."""
        return [r for r in self.records if r.what == what and name in (None, r.name)]

    def count(self, what: str, name: str | None = None) -> int:
        """Return the number of the records of one kind, of one service if *name* is given."""
        return len(self.find(what, name))

    def programs(self, name: str | None = None) -> list[str]:
        """Return the programs of the commands that were run, in order."""
        return [record.detail for record in self.find("run", name)]

    def environments(self, program: str) -> list[Mapping[str, str]]:
        """Return the environment of each run of *program*."""
        return [r.command.env for r in self.find("run") if r.detail == program and r.command]

    def crash(self, name: str, ended: Exit | None = None) -> None:
        """End every live process of *name* as if by itself, by SIGSEGV unless *ended* is given."""
        for process in self.of(name):
            process.exit_now(ended or Exit(signal=11))

    def assert_sound(self) -> None:
        """Check that no rule was violated, such as two processes of one service at a time.

        Raises:
            AssertionError: The text lists the violations.
        """
        if self.violations:
            raise AssertionError("\n".join(self.violations))

    def assert_ended(self) -> None:
        """Check `assert_sound`, and that no process or command is left.

        Raises:
            AssertionError: The text lists the violations or the processes.
        """
        self.assert_sound()
        left = [f"{p.name} (pid {p.pid})" for p in self.live.values()]
        left += [f"command {c.argv[0]} (pid {pid})" for pid, c in self._running.items()]
        if left:
            raise AssertionError("left behind: " + ", ".join(left))

    # ---- for scripted processes
    def note(
        self, what: str, name: str, pid: int = 0, detail: str = "", command: Command | None = None
    ) -> None:
        """Add a record at this time."""
        at = clock()()
        self.records.append(Record(at, what, name, pid, detail, command))

    def forget(self, process: ScriptedProcess) -> None:
        """Forget *process*, whose tree is swept."""
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
        self.violations.append(f"{clock()():g} s: {what}")


def _call_later(seconds: float, action: Callable[..., None], *args: object) -> Callable[[], None]:
    """Call *action* after *seconds* on the clock of the event loop; return what cancels that."""
    try:
        return asyncio.get_running_loop().call_later(seconds, action, *args).cancel
    except RuntimeError:
        import trio

        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                await trio.sleep(seconds)
                action(*args)

        trio.lowlevel.spawn_system_task(wait)
        return scope.cancel
