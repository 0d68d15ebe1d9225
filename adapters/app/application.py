"""The composition root: a configuration becomes an ASGI application with its supervisor.

For any ASGI server::

    SWAPCHART_CONFIG=config.yaml hypercorn 'swapchart.adapters.asgi:create_app()'

The supervisor runs for as long as the server's lifespan: models are stopped, with their hooks,
before the server exits. ``swapchart serve`` binds the port before anything starts, and its shutdown
does not depend on that of the server.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ...runtime import Launchers, MemoryFailures, MemoryLearning, Supervisor, Transition
from ...runtime.fence import kept
from ..config import Config
from ..http1.asgi_types import Receive, Scope, Send
from ..http1.server.request_cycle import RequestCycle
from ..http_client import HttpxClient
from ..kv.listing.overview import KvOverview
from ..kv.manager import KvManager
from ..memory import Meter
from ..process.external import ExternalLauncher
from ..process.keeping.keeper import KeepSettings
from ..process.keeping.takeover import TakeOver, take_over
from ..process.launcher import LocalLauncher
from ..process.orphans import boot_id, kill_orphans, started_of
from ..proxy.app import ProxyApp
from ..proxy.context import ProxyContext
from ..proxy.monitoring.event_loop import LoopWatch
from ..proxy.tracing.port import Tracing
from ..proxy.tracing.setup import tracing_if
from ..store import Database, StoreError, activity_schema
from ..store.activity import ActivityStore
from ..store.database_file import Migration
from ..store.footprints import FootprintStore
from ..store.journal import MIGRATIONS, Journal, Launched
from ..store.state_directory import NotAFolderError, StateDirectory, StateInUseError
from ..store.timeline import TimelineStore
from ..system import threads
from .chart_setup import chart
from .cluster.nodes import ClusterNodes, check_engine, cluster_launcher
from .config_files import ConfigFiles, Signature, watch
from .container_setup import container_facts, container_launcher, remove_leftovers
from .fitting import lost_finder
from .keeping.model_keeper import ModelKeeper, recover_hooks
from .kv_setup import kv_manager_of, kv_settings_by_model, with_kv_hooks
from .live_config import LiveConfig
from .log_buffer import keeping_log
from .memory_setup import MemorySetup
from .ollama.facts import ModelFileFacts
from .prefetch import Prefetch
from .proxy_setup import model_catalog, proxy_options
from .root_path import without_root_path
from .service_setup import eviction_policy, queue_limits
from .shutdown_timeout import stop_limit_s as limit_of
from .standard_streams import dropped_lines
from .timeline.setup import keep_timeline
from .transition_log import TransitionLog
from .upstream_output import print_log

log = logging.getLogger(__name__)

_ACTIVITY_ROWS = 1_000_000  # some 150 MB
_STATE_LOOK_S = 5.0  # between two looks whether our files are still there


class Application:
    """The proxy, its supervisor, and their stores.

    Args:
        config: A valid configuration.
        sources: Files of *config*; None means it cannot be reloaded.
        seen: Signature of *sources* from before they were read.
        is_watching: Reload the configuration whenever a file changes.
        must_have_keys: Reject every later configuration without ``apiKeys``.
        state: Directory of the journal and the activity; None keeps both in memory.
        stop_limit_s: Time limit of the shutdown for drains, hooks and grace periods, in seconds;
            then processes are killed. None means the value that the configuration sets or needs.
        root_path: Prefix of all URLs for clients, without a slash at its end, where the server has
            none of its own; see `root_path`.
        may_keep: Models may outlive this proxy, if the configuration says so.

    Attributes:
        server: Name of the HTTP server in front, for metrics; set before `running`.
    """

    def __init__(
        self, config: Config, *, sources: ConfigFiles | None = None, seen: Signature = (),
        is_watching: bool = False, must_have_keys: bool = False,
        state: StateDirectory | None = None, stop_limit_s: float | None = None,
        root_path: str = "", may_keep: bool = False,
    ) -> None:  # fmt: skip
        check_engine(config)
        self.config = config
        self._sources, self._seen, self._is_watching = sources, seen, is_watching
        self._must_have_keys, self._has_own_stop_limit = must_have_keys, stop_limit_s is not None
        self._running: LiveConfig | None = None
        self._nodes: ClusterNodes | None = None
        self._state, self._root_path = state, root_path
        self._files = ModelFileFacts()
        self._databases: list[Database] = []
        self.supervisor: Supervisor | None = None
        self._proxy: ProxyApp | None = None
        self._stop_limit_s = limit_of(config) if stop_limit_s is None else stop_limit_s
        self._listeners: list[Callable[[Transition], None]] = []
        self._config_listeners: list[Callable[[Config], None]] = []
        self._may_keep = may_keep
        self.server = "asgi"

    def listen(self, listener: Callable[[Transition], None]) -> None:
        """Call *listener* with every transition; to be called before `running`."""
        self._listeners.append(listener)

    def listen_to_config(self, listener: Callable[[Config], None]) -> None:
        """Call *listener* with every later configuration, once it is in force."""
        self._config_listeners.append(listener)

    @property
    def proxy(self) -> ProxyContext:
        """State that the handlers of the running proxy share."""
        assert self._proxy is not None, "the lifespan has not begun"
        return self._proxy.proxy

    def ask_reload(self, why: str) -> None:
        """Read the configuration again as soon as possible; for signals."""
        if self._running is not None:
            self._running.reloader.ask(why)

    def end_streams(self) -> None:
        """End the streams of logs and events, which would hold up the shutdown of the server."""
        if self._proxy is not None:
            self._proxy.end_streams()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Run the supervisor for as long as the block lasts."""
        async with AsyncExitStack() as stack:
            tracing = await stack.enter_async_context(tracing_if(self.config.tracing))
            earlier = None if self._state is None else await take_over(self._state.path)
            launcher = LocalLauncher(subreaper=True, keep=self._keep_settings(), earlier=earlier)
            journal, footprints, left = await self._journal(stack, launcher.instance, earlier)
            await stack.enter_async_context(launcher)
            kv_manager = kv_manager_of(self._state, lambda: supervisor)
            memory = await _memory(footprints, launcher.instance, self.config)

            def configure_parts(config: Config) -> None:
                launcher.drop_env = kv_manager.drop_env = config.drop_env
                memory.configure(config)

            launchers = await self._launchers(stack, launcher, memory)
            configure_parts(self.config)
            models = self.config.models.values()
            specs = [with_kv_hooks(each, memory.service(each), kv_manager) for each in models]
            await stack.enter_async_context(kv_manager.running())
            supervisor = Supervisor(
                launchers, specs, http=HttpxClient(),
                policy=eviction_policy(self.config), queue=queue_limits(self.config),
                chart=chart(self.config), stop_limit_s=self._stop_limit_s,
                hook_limit=self.config.hook_limit, memory=memory.ledger, meter=memory.meter,
            )  # fmt: skip
            await stack.enter_async_context(supervisor)
            keeper = ModelKeeper(supervisor, journal, self._state)
            lines = TransitionLog(self._request_behind)
            own = (journal.take, keeper.note, kv_manager.watch, lines.take)
            for listener in (*own, *self._listeners):
                supervisor.listen(listener)
            await keeper.adopt(launchers, earlier, left)
            await recover_hooks(supervisor, journal, keeper)
            self._proxy = await self._proxy_app(stack, supervisor, kv_manager, journal, tracing)
            of_journal, of_activity, *_ = self._databases
            store = TimelineStore(of_journal, of_activity, launcher.instance)
            keep_timeline(self._proxy.proxy, store, journal, kv_manager)
            self._running = running = LiveConfig(
                self.config, specs, supervisor, self._proxy.proxy, sources=self._sources,
                seen=self._seen, add_hooks=partial(with_kv_hooks, kv_manager=kv_manager),
                on_change=partial(self._apply_parts, kv_manager, supervisor),
                before_change=configure_parts, make_service=memory.service,
                prepare=memory.prepare, find_lost=lost_finder(memory),
                must_have_keys=self._must_have_keys, has_own_stop_limit=self._has_own_stop_limit,
            )  # fmt: skip
            await self._start_background_tasks(stack, running, supervisor)
            running.begin()
            self.supervisor = supervisor
            try:
                yield supervisor
            finally:
                self.supervisor = self._running = None

    async def _proxy_app(
        self, stack: AsyncExitStack, supervisor: Supervisor, kv_manager: KvManager,
        journal: Journal, tracing: Tracing | None,
    ) -> ProxyApp:  # fmt: skip
        """Return the proxy in front of *supervisor*, which *stack* closes."""
        app = ProxyApp(
            supervisor, model_catalog(self.config), proxy_options(self.config),
            history=journal.history, on_finished=kv_manager.note,
            own_log=stack.enter_context(keeping_log()), activity=await self._activity(stack),
            tracing=tracing,
        )  # fmt: skip
        facts = {"kv": kv_manager.facts, "container": container_facts(supervisor.__getitem__)}
        app.proxy.details.update(facts)
        app.proxy.server, app.proxy.accounting.count_dropped_lines = self.server, dropped_lines
        app.proxy.conversations = kv_manager.assign
        app.proxy.saved_caches = KvOverview(kv_manager)
        app.proxy.loop_watch = stack.enter_context(LoopWatch().watching())
        stack.push_async_callback(app.aclose)
        return app

    async def _launchers(
        self, stack: AsyncExitStack, local: LocalLauncher, memory: MemorySetup
    ) -> Launchers:
        """Return the launcher of all models: of local processes, and those that are configured."""
        containers = await stack.enter_async_context(container_launcher(local, self._state))
        await stack.enter_async_context(_beside(remove_leftovers(containers, self.config)))
        external = await stack.enter_async_context(ExternalLauncher(local))
        keep = self._keep_settings()
        remote = cluster_launcher(self.config, local, None if keep is None else keep.lease_s)
        if remote is None:
            return Launchers(external, [containers])
        await stack.enter_async_context(remote)
        self._nodes = ClusterNodes(remote, memory, self._config)
        await self._nodes.read()
        return Launchers(external, [containers, remote])

    def _apply_parts(self, kv_manager: KvManager, supervisor: Supervisor, config: Config) -> None:
        """Apply what the parts beside the supervisor take from a later configuration."""
        kv_manager.apply_settings(kv_settings_by_model(config))
        if supervisor.memory_yielding is not None:
            supervisor.memory_yielding.notice()
        supervisor.spawn(self._files.read, config)
        for listener in self._config_listeners:
            listener(config)

    def _config(self) -> Config:
        """Return the configuration in force."""
        return self.config if self._running is None else self._running.config

    def _request_behind(self, record: Transition) -> str:
        return "" if self._proxy is None else self._proxy.proxy.request_behind(record)

    async def _start_background_tasks(
        self, stack: AsyncExitStack, running: LiveConfig, supervisor: Supervisor
    ) -> None:
        self.proxy.details["ollama"] = self._files.of
        supervisor.spawn(self._files.read, self.config)
        if self._nodes is not None:
            self._nodes.watch(supervisor)
            await stack.enter_async_context(_beside(kept(self._nodes.run)))
        await stack.enter_async_context(_beside(kept(running.reloader.run)))
        stack.callback(Prefetch(supervisor, lambda: running.config).close)
        await self._watch_files(stack, running)
        if self.config.log_to_stdout in ("upstream", "both"):
            await stack.enter_async_context(_beside(kept(partial(print_log, supervisor.log))))
        if self._state is not None:
            await stack.enter_async_context(_beside(kept(self._watch_state, self._state)))

    async def _watch_files(self, stack: AsyncExitStack, running: LiveConfig) -> None:
        """Reload when a configuration file changes, if that was asked for."""
        if self._is_watching and self._sources is not None:
            watching = partial(
                watch,
                self._sources,
                lambda: running.seen,
                running.reloader.note_change,
                running.hold_back,
            )
            await stack.enter_async_context(_beside(kept(watching)))

    async def _activity(self, stack: AsyncExitStack) -> ActivityStore:
        """Open the store of finished requests: the configured file, or ours."""
        path = self._activity_path()
        database = self._database(stack, path, activity_schema.MIGRATIONS)
        limit = self.config.metrics_max_in_memory if path is None else _ACTIVITY_ROWS
        store = ActivityStore(database, limit=limit)
        with suppress(StoreError):  # the database has logged it
            await store.open()
        return store

    @property
    def keeps_models(self) -> bool:
        """True if models may outlive this proxy."""
        return self._keep_settings() is not None

    def _keep_settings(self) -> KeepSettings | None:
        """Return how models may outlive this proxy; None if none may."""
        lease_s = self.config.keep_lease_s
        if lease_s is None or not self._may_keep or self._state is None:
            return None
        return KeepSettings(folder=self._state.path.absolute(), lease_s=lease_s)

    async def _journal(
        self, stack: AsyncExitStack, instance: str, earlier: TakeOver | None
    ) -> tuple[Journal, FootprintStore, list[Launched]]:
        """Open the journal and its file, and kill the processes that earlier runs have left.

        Returns:
            Both stores, and the launches of processes that the guard of an *earlier* proxy keeps.
        """
        path = None if self._state is None else self._state.path / "journal.db"
        database = self._database(stack, path, MIGRATIONS)
        journal = Journal(database, instance, boot=boot_id(), started_of=started_of)
        journal.request_of = self._request_behind
        footprints = FootprintStore(database)
        try:
            launched = await journal.unended()
        except StoreError:
            return journal, footprints, []  # the database has logged it
        spared = {run.instance for run in earlier.runs.values()} if earlier is not None else set()
        orphans = [each for each in launched if each.instance not in spared]
        if orphans:
            await kill_orphans(orphans)
            journal.discard(orphans)
        return journal, footprints, [each for each in launched if each.instance in spared]

    def _activity_path(self) -> Path | None:
        if self.config.store_path is not None:
            return Path(self.config.store_path).resolve()  # a symbolic link is followed
        return None if self._state is None else self._state.path / "activity.db"

    def _database(
        self, stack: AsyncExitStack, path: Path | None, migrations: Sequence[Migration]
    ) -> Database:
        database = Database(path, migrations)
        database.open()
        stack.callback(database.close)
        self._databases.append(database)
        return database

    async def _watch_state(self, state: StateDirectory) -> None:
        """Log deleted files of the state directory, and create them again; never returns."""
        logged = ""
        while True:
            await asyncio.sleep(_STATE_LOOK_S)
            if not await threads.run(state.is_there):
                text = f"{state.path} was deleted while it was in use; its contents are lost"
                try:
                    await threads.run(state.renew)
                except (OSError, StateInUseError) as error:
                    text = f"{text}, and it cannot be created again: {error}"
                if text != logged:
                    log.error("%s", text)
                logged = "" if await threads.run(state.is_there) else text
            for database in self._databases:
                if await threads.run(database.is_file_gone):
                    database.check_file()

    def try_fast_path(self, call: RequestCycle) -> bool:
        """Serve a request of our own HTTP layer without a task; False means nothing was done."""
        if self._proxy is None:
            return False
        if self._root_path:
            call.scope = without_root_path(call.scope, self._root_path)
        return self._proxy.fast_path.try_fast_path(call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope (ASGI 3)."""
        kind = scope["type"]
        if kind in ("http", "websocket"):
            assert self._proxy is not None, "the lifespan has not begun"
            given = (scope.get("root_path") or "").rstrip("/")
            if not given or given != self._root_path:  # else `try_fast_path` has done it
                scope = without_root_path(scope, given or self._root_path)
            await self._proxy(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.supervisor is not None:  # `serve` runs it already, and ends after the server
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            log.exception("the lifespan failed")
            # An exception alone is not enough: hypercorn would go on without the application.
            kind = "startup" if self.supervisor is None else "shutdown"
            await send({"type": f"lifespan.{kind}.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


async def _memory(footprints: FootprintStore, instance: str, config: Config) -> MemorySetup:
    learning = await _learning(footprints, instance)
    memory = MemorySetup(Meter(), learning, await _failures(footprints))
    await memory.read(config)
    return memory


async def _learning(footprints: FootprintStore, instance: str) -> MemoryLearning:
    try:
        known = await footprints.load()
    except StoreError:
        known = []  # the database has logged it
    return MemoryLearning(
        known, instance=instance, clock=time.time, store=footprints.put, forget=footprints.forget
    )


async def _failures(footprints: FootprintStore) -> MemoryFailures:
    try:
        known = await footprints.load_shortages()
    except StoreError:
        known = []  # the database has logged it
    return MemoryFailures(known, clock=time.time, store=footprints.put_shortage)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run *work* in a task for as long as the block lasts."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("reloading has failed", exc_info=error)


def open_state(directory: Path) -> StateDirectory | None:
    """Open *directory* as the state directory; return None, with a warning, if it is not writable.

    Raises:
        StateInUseError: Another proxy uses it.
        NotAFolderError: Its path is taken by something that is not a folder.
    """
    try:
        return StateDirectory(directory)
    except NotAFolderError:
        raise
    except OSError as error:
        log.warning("state is kept in memory only and is lost at exit: %s", error)
        return None
