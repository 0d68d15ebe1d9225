"""What a reload would change, and that reloads are done one at a time and never forgotten."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tools.net import wait_until_async
from tools.rows import row

from swapchart.adapters.app.config_files import ConfigFiles, watch
from swapchart.adapters.app.reload_plan import ModelChange, ReloadPlan, SettingChange, plan
from swapchart.adapters.app.reloader import ReloadClosedError, Reloader, ReloadReport
from swapchart.adapters.cli import main
from swapchart.adapters.config import Config, ConfigProblems, Problem, load_config

MODEL = "models:\n  m:\n    cmd: serve --port ${PORT}\n"
LIMIT_S = 20.0


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Config]:
    """Return a function: the text of a file -> its configuration."""

    def loaded(text: str) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load_config([path])

    return loaded


Load = Callable[[str], Config]


# ---- models
@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("cmd: serve --other --port ${PORT}", "restart"),
        ("proxy: http://127.0.0.1:${PORT}/base", "restart"),
        ("env: [A=1]", "restart"),
        ("external: true", "restart"),
        ("afterHealthy: say hello", "next_start"),
        ("beforeStop: [{http: {url: 'http://h'}}]", "next_start"),
        ("cmdStop: kill ${PID}", "next_start"),
        ("checkEndpoint: /ready", "next_start"),
        ("restart: {policy: permanent}", "next_start"),
        ("liveness: {every: 5}", "next_start"),
        ("settle: {run: free}", "next_start"),
        ("sleep: {enter: doze}", "next_start"),
        ("drain: {policy: wait}", "next_start"),
        ("abandon: abort", "next_start"),
        ("kv: keep", "next_start"),
        ("kv: {manageArgs: true}", "next_start"),  # no llama-server: nothing is added
        ("ttl: 60", "live"),
        ("unloadTimeout: 60", "live"),
        ("startTimeout: 60", "live"),
        ("stallTimeout: 60", "live"),
        ("maxKeepAlive: 60", "live"),
        ("prefetch: off", "live"),
        ("probeTimeout: 60", "live"),
        ("sleep: {after: 60}", "live"),
        ("drain: {timeout: 60}", "live"),
        ("pinned: true", "live"),
        ("concurrencyLimit: 3", "live"),
        ("aliases: [x]", "live"),
        ("name: N", "live"),
        ("description: D", "live"),
        ("useModelName: U", "live"),
        ("unlisted: true", "live"),
        ("sendLoadingState: true", "live"),
        ("filters: {stripParams: a}", "live"),
        ("metadata: {a: 1}", "live"),
        ("timeouts: {connect: 1}", "live"),
        ("compat: {ignoreWebsockets: true}", "live"),
        ("capabilities: {tools: true}", "live"),
    ],
)
def test_reload_plan_each_model_key_has_its_effect(load: Load, key: str, kind: str) -> None:
    """Each key of a model is named, and stops a process only if that was started with it."""
    text = MODEL if not key.startswith("cmd:") else MODEL.replace("    cmd", "    ttl: 0 #")
    planned = plan(load(MODEL), load(f"{text}    {key}\n"))

    (change,) = planned.models
    name = key.partition(":")[0]
    assert (change.id, change.kind) == ("m", kind)
    assert name in change.keys
    assert planned.unchanged == ()


@pytest.mark.parametrize(
    "text",
    [
        MODEL,
        "# a comment\n" + MODEL.replace("serve --port", "serve   '--port'"),
        "macros: {x: serve}\n" + MODEL.replace("serve", "${x}"),
        "globalTTL: 0\nmodels:\n  m: {cmd: 'serve --port ${PORT}', aliases: []}\n",
    ],
)
def test_reload_plan_equivalent_file_changes_nothing(load: Load, text: str) -> None:
    """Comments, quotes, macros and written defaults stop nothing and refuse no request."""
    planned = plan(load(MODEL), load(text))

    assert [change.kind for change in planned.models] in ([], ["live"])
    assert planned.settings == ()


def test_reload_plan_lists_added_and_removed_models(load: Load) -> None:
    """Added ones start on demand, removed ones drain; the others are named as unchanged."""
    old = load("models: {a: {cmd: 's ${PORT}'}, b: {cmd: 's ${PORT}'}}")
    new = load("models: {b: {cmd: 's ${PORT}'}, c: {cmd: 's ${PORT}'}}")
    kept = replace(new, models={"b": old.models["b"], "c": new.models["c"]})
    planned = plan(old, kept, {"a": "ready", "b": "stopped"})

    assert planned == ReloadPlan(
        models=(ModelChange(id="c", kind="added"), ModelChange(id="a", kind="removed",
                                                              state="ready")),
        unchanged=("b",),
    )  # fmt: skip
    assert str(planned) == (
        "+ c: starts on demand\n"
        "- a: drains and stops; queued requests are rejected\n"
        "1 model unchanged"
    )


@pytest.mark.parametrize(
    ("kind", "state", "effect"),
    [
        ("restart", "", "drains and stops if it runs; the next request starts it again"),
        ("restart", "ready", "drains and stops if it runs; the next request starts it again"),
        ("restart", "stopped", "applies at once"),
        ("next_start", "tripped", "applies at once"),
        ("next_start", "ready", "applies at its next start; the running process keeps what it has"),
        ("live", "ready", "applies at once"),
        ("removed", "stopped", "is removed; requests for it get 404"),
    ],
)
def test_reload_plan_effect_depends_on_the_state(kind: str, state: str, effect: str) -> None:
    """A service without a process has nothing to wait for."""
    change = ModelChange(id="m", kind=kind, state=state)  # type: ignore[arg-type]

    assert change.effect == effect


# ---- the rest
@pytest.mark.parametrize(
    ("text", "key", "is_late"),
    [
        ("logLevel: debug", "logLevel", False),
        ("apiKeys: [k]", "apiKeys", False),
        ("queue: {limit: 5}", "queue", False),
        ("peers: {p: {proxy: 'http://h', models: [x]}}", "peers", False),
        ("profiles: {p: {pins: {x: m}}}", "profiles", False),
        ("selectors: {s: {strategy: warm, targets: [m]}}", "selectors", False),
        ("groups: {g: {members: [m], persistent: true}}", "routing", False),
        ("onIdle: m", "onIdle", False),
        ("hookLimit: 2", "hookLimit", False),
        ("hooks: {on_startup: {preload: [m]}}", "hooks.on_startup.preload", False),
        ("allowedOrigins: ['http://h']", "allowedOrigins", False),
        ("lifecycle: {states: {}}", "lifecycle", True),
        ("captureBuffer: 1", "captureBuffer", False),
        ("performance: {disabled: true}", "performance", False),
        ("metricsMaxInMemory: 5", "metricsMaxInMemory", True),
    ],
)
def test_reload_plan_each_setting_reports_when_it_applies(
    load: Load, text: str, key: str, is_late: bool
) -> None:
    """What needs the proxy to be started again is told apart; values are never shown."""
    planned = plan(load(MODEL), load(f"{text}\n{MODEL}"))

    assert planned.settings == (SettingChange(key=key, is_late=is_late),)
    assert planned.as_json()["settings"] == [
        {"key": key, "applies": "restart" if is_late else "now"}
    ]


def test_reload_plan_hides_the_value_of_a_changed_key(load: Load) -> None:
    """Neither of an apiKey nor of an environment variable."""
    old = load(f"apiKeys: [old-secret]\n{MODEL}    env: [A=old-secret]\n")
    new = load(f"apiKeys: [new-secret]\n{MODEL}    env: [A=new-secret]\n")
    planned = plan(old, new)

    assert [change.keys for change in planned.models] == [("env",)]
    assert "secret" not in f"{planned!r} {planned} {planned.as_json()}"


def test_reload_plan_groups_of_added_or_removed_models_are_no_change(load: Load) -> None:
    """A new model joins the default group; the routing of the others is what it was."""
    old, new = load(MODEL), load(MODEL + "  n: {cmd: 's ${PORT}'}\n")

    assert plan(old, new).settings == ()
    assert plan(new, old).settings == ()


# ---- the command line
def test_config_plan_command_compares_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OLD and NEW; a new model does not take the port of an old one."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(MODEL)
    new.write_text("models:\n  a: {cmd: 's ${PORT}'}\n" + MODEL.partition("\n")[2] + "    ttl: 9\n")

    assert main(["config", "plan", str(old), str(new)]) == 0
    assert capsys.readouterr().out == (
        "+ a: starts on demand\n~ m (ttl): applies at once\n0 models unchanged\n"
    )
    assert main(["config", "plan", "--json", str(old), str(old)]) == 0
    assert '"changed": false' in capsys.readouterr().out


def test_config_plan_command_reports_every_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong files and a proxy that does not answer: exit code 1; arguments that are missing: 2."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(MODEL)
    new.write_text("models: {a: {ttl: 1}, b: {ttl: x}}")

    assert main(["config", "plan", str(old), str(new)]) == 1
    assert capsys.readouterr().err.count("error:") >= 3
    codes = {
        "plan": 1, f"plan {old}": 2, f"plan {old} --url http://h": 2, "plan --url nonsense": 1,
        "reload --url http://127.0.0.1:1": 1,
    }  # fmt: skip
    for line, code in codes.items():
        assert main(["config", *line.split()]) == code, line
        assert capsys.readouterr().err.startswith("swapchart: ")


# ---- one at a time
class Changes:
    """A change that takes as long as it is told, and counts."""

    def __init__(self) -> None:
        self.begun, self.running = 0, 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> tuple[ReloadPlan, list[Problem]]:
        self.begun += 1
        self.running += 1
        assert self.running == 1
        await self.gate.wait()
        self.running -= 1
        if self.error is not None:
            raise self.error
        return ReloadPlan(), []


def test_request_during_a_reload_is_one_more_after_it() -> None:
    """Ten requests while one runs make one further reload, and all of them get its report."""

    async def story() -> None:
        changes = Changes()
        reloader = Reloader(changes)
        reports: list[ReloadReport] = []
        reloader.listen(reports.append)
        task = asyncio.create_task(reloader.run())
        first = asyncio.create_task(reloader.reload("first"))
        await wait_until_async(lambda: changes.begun == 1)
        later = [asyncio.create_task(reloader.reload("later")) for _ in range(9)]
        reloader.ask("SIGHUP")
        await asyncio.sleep(0)
        changes.gate.set()
        assert (await first).why == "first"
        answers = await asyncio.gather(*later)
        assert {answer.why for answer in answers} == {"SIGHUP and later"}
        assert changes.begun == 2
        assert reloader.count == 2
        assert [report.is_ok for report in reports] == [True, True]
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())


def test_reload_client_that_leaves_does_not_cancel_it() -> None:
    """A client that leaves does not cancel the reload it asked for."""

    async def story() -> None:
        changes = Changes()
        reloader = Reloader(changes)
        task = asyncio.create_task(reloader.run())
        leaving = asyncio.create_task(reloader.reload("leaving"))
        await wait_until_async(lambda: changes.begun == 1)
        leaving.cancel()
        await asyncio.wait({leaving})
        changes.gate.set()
        await wait_until_async(lambda: reloader.count == 1)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())


def test_shutdown_answers_waiting_reloads() -> None:
    """Both the one whose reload runs and the one whose turn has not come; and later ones."""

    async def story() -> None:
        changes = Changes()
        reloader = Reloader(changes)
        task = asyncio.create_task(reloader.run())
        first = asyncio.create_task(reloader.reload("first"))
        await wait_until_async(lambda: changes.begun == 1)
        second = asyncio.create_task(reloader.reload("second"))
        await asyncio.sleep(0)
        task.cancel()
        for waiting in (first, second):
            with pytest.raises(ReloadClosedError):
                await waiting
        with pytest.raises(ReloadClosedError):
            await reloader.reload("third")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConfigProblems([Problem(file="f", path="a.b", line=1, column=2, message="bad")]),
            "f:1:2: error: a.b: bad",
        ),
        (ValueError("a bug"), "error: internal error, see the log: a bug"),
    ],
)
def test_failed_reload_is_reported_and_the_next_one_works(
    error: Exception, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the answer, by `last` and by the log; nothing is stuck."""

    async def story() -> None:
        changes = Changes()
        changes.gate.set()
        changes.error = error
        reloader = Reloader(changes)
        task = asyncio.create_task(reloader.run())
        report = await reloader.reload("mine")
        assert (report.is_ok, report.plan) == (False, None)
        assert [str(problem) for problem in report.problems] == [text]
        assert report.as_json()["problems"][0]["text"] == text
        changes.error = None
        assert (await reloader.reload("again")).is_ok
        assert reloader.last is not None
        assert reloader.last.is_ok
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())
    assert "the configuration has errors; the old one stays" in caplog.text


# ---- watching
class Watched:
    """A watched file, and what was noticed; looks often, so that tests are quick."""

    def __init__(self, sources: ConfigFiles) -> None:
        self.sources = sources
        self.seen = sources.signature()
        self.noticed = 0

    def notice(self, why: str) -> None:
        self.noticed += 1
        self.seen = self.sources.signature()

    async def run(self, story: Callable[[], object], expected: int, steady_s: float = 0.1) -> None:
        task = asyncio.create_task(
            watch(self.sources, lambda: self.seen, self.notice, poll_s=0.02, steady_s=steady_s)
        )
        try:
            await asyncio.to_thread(story)
            await wait_until_async(lambda: self.noticed >= expected)
            await asyncio.sleep(0.3)
            assert self.noticed == expected
        finally:
            task.cancel()
            await asyncio.wait({task})


@row("C40")
def test_watch_twenty_saves_in_a_second_are_one_change(tmp_path: Path) -> None:
    """What counts is the file that rests: one reload of the last."""
    path = tmp_path / "config.yaml"
    path.write_text("0")

    def save() -> None:
        for number in range(20):
            path.write_text(str(number) * (number + 1))

    asyncio.run(Watched(ConfigFiles(files=[path])).run(save, 1, steady_s=0.4))


def test_watch_file_that_is_replaced_is_a_change(tmp_path: Path) -> None:
    """As editors save: another inode, and it may be missing for a moment."""
    path, new = tmp_path / "config.yaml", tmp_path / "new"
    path.write_text("0")
    new.write_text("1")
    stat = path.stat()
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    asyncio.run(Watched(ConfigFiles(files=[path])).run(lambda: new.replace(path), 1))


def test_watch_missing_file_triggers_no_reload(tmp_path: Path) -> None:
    """Nothing is read while a file is missing, or a directory is empty."""
    path = tmp_path / "config.yaml"
    path.write_text("0")

    asyncio.run(Watched(ConfigFiles(files=[path])).run(path.unlink, 0))
    path.write_text("0")
    asyncio.run(Watched(ConfigFiles(directory=tmp_path)).run(path.unlink, 0))


def test_watch_directory_includes_all_files(tmp_path: Path) -> None:
    """A file more, a file less; what is no YAML does not count."""
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text("0")
    sources = ConfigFiles(directory=tmp_path)

    asyncio.run(Watched(sources).run((tmp_path / "a.yaml").unlink, 1))
    asyncio.run(Watched(sources).run(lambda: (tmp_path / "c.yaml").write_text("0"), 1))
    asyncio.run(Watched(sources).run(lambda: (tmp_path / "readme").write_text("0"), 0))


def test_watch_file_already_read_is_not_read_again(tmp_path: Path) -> None:
    """A requested reload has seen the change, so the watcher does nothing."""
    path = tmp_path / "config.yaml"
    path.write_text("0")
    watched = Watched(ConfigFiles(files=[path]))

    def save() -> None:
        path.write_text("01")
        watched.seen = watched.sources.signature()

    asyncio.run(watched.run(save, 0))


def test_watch_file_that_never_rests_is_read_at_the_deadline(tmp_path: Path) -> None:
    """After the patience is over."""
    path = tmp_path / "config.yaml"
    path.write_text("0")
    watched = Watched(ConfigFiles(files=[path]))

    async def story() -> None:
        task = asyncio.create_task(
            watch(
                watched.sources,
                lambda: watched.seen,
                watched.notice,
                poll_s=0.01,
                steady_s=0.05,
                patience_s=0.2,
            )
        )
        async with asyncio.timeout(LIMIT_S):
            number = 0
            while not watched.noticed:
                number += 1
                path.write_text("x" * number)
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())


def test_watch_file_is_held_open_is_logged_once(tmp_path: Path) -> None:
    """A program that keeps the file open holds the reload back, and the file is named."""
    path = tmp_path / "config.yaml"
    path.write_text("0")
    watched = Watched(ConfigFiles(files=[path, tmp_path / "other.yaml"]))
    (tmp_path / "other.yaml").write_text("0")
    watched.seen = watched.sources.signature()
    told: list[str] = []

    async def story() -> None:
        with path.open("a") as file:
            file.write("1")
            file.flush()
            task = asyncio.create_task(
                watch(
                    watched.sources, lambda: watched.seen, watched.notice, told.append,
                    poll_s=0.01, steady_s=0.02, patience_s=0.1,
                )
            )  # fmt: skip
            await wait_until_async(lambda: told)
            await asyncio.sleep(0.3)
            assert watched.noticed == 0
        await wait_until_async(lambda: watched.noticed)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())
    assert told == [str(path)]
    assert watched.noticed == 1


def test_watch_file_is_held_open_and_reloaded_by_hand_is_waited_for_no_more(
    tmp_path: Path,
) -> None:
    """What a reload by hand has read is no change any more, and the next one is told again."""
    path = tmp_path / "config.yaml"
    path.write_text("0")
    watched = Watched(ConfigFiles(files=[path]))
    told: list[str] = []

    def is_told(count: int) -> bool:
        return len(told) == count

    async def story() -> None:
        with path.open("a") as file:
            task = asyncio.create_task(
                watch(
                    watched.sources, lambda: watched.seen, watched.notice, told.append,
                    poll_s=0.01, steady_s=0.02, patience_s=0.1,
                )
            )  # fmt: skip
            for count in (1, 2):
                file.write("1")
                file.flush()
                await wait_until_async(partial(is_told, count))
                watched.seen = watched.sources.signature()
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        assert watched.noticed == 0
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())


def test_reload_plan_hooks_at_custom_points_are_named_by_their_key(load: Load) -> None:
    """Where they are written: under hookPoints."""
    own = "lifecycle: {actions: {x: {do: {effect: activity.start, activity: hooks, point: p}}}}\n"
    planned = plan(load(own + MODEL), load(f"{own}{MODEL}    hookPoints: {{p: x}}\n"))

    assert [change.keys for change in planned.models] == [("hookPoints.p",)]
