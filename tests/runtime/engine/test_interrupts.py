"""Interrupts at any place: no step is half done, no caller waits for ever, no task stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.to_thread
import pytest

from swapchart.machine import Machine, StepError, read
from swapchart.runtime import Actions, Host, HostStateError, Player, WrongThreadError
from swapchart.runtime.engine.mailbox import Mailbox

from .backends import BACKENDS, WORKER, run_on, sleeper, worker

both = pytest.mark.parametrize("backend", BACKENDS)
WORK = Actions(activities={"work": sleeper}, timers={"limit": 60})
#: The first step of this chart leaves the domain of its data.
FAR = WORKER.replace(
    "    idle:\n      initial: true\n", "    idle:\n      initial: true\n      enter: [tell, far]\n"
).replace("actions:\n", "actions:\n  far: {set: {n: n + 5}}\n")


class Interrupt(BaseException):
    """Stands for a KeyboardInterrupt, which would end the tests too."""


def interrupt(*_: object) -> None:
    raise Interrupt


@pytest.mark.parametrize("action", ["add", "tell", "work", "arm"])
def test_step_that_is_interrupted_is_undone(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes out, and the same event is taken as if it had not been there."""
    machine = Machine(read(WORKER.replace("name: Worker", f"name: Worker{action}")))
    stepper, other = machine.traced_stepper(), machine.traced_stepper()
    machine.begin(stepper)
    fields = machine.fields("go", {"size": 2})
    with monkeypatch.context() as patch:
        patch.setattr(type(stepper.context), action, interrupt)
        with pytest.raises(Interrupt):
            machine.step(stepper, "go", fields)
    assert (stepper.configuration, stepper.context.values()) == (("idle",), (0,))
    assert stepper.context.out == []
    machine.begin(other)
    assert machine.step(stepper, "go", fields) == machine.step(other, "go", fields)


@both
@pytest.mark.parametrize("kind", ["domain", "interrupt"])
def test_player_whose_entry_fails_leaves_no_task(backend: str, kind: str) -> None:
    """The error comes out as itself, and the program goes on."""
    chart = read(FAR if kind == "domain" else FAR.replace("n + 5", "n"))

    async def main() -> None:
        with pytest.raises(StepError if kind == "domain" else Interrupt):
            async with Player(
                chart, activities={"work": sleeper}, timers={"limit": 60}, on_notify=interrupt
            ):
                raise AssertionError("was entered")
        await anyio.sleep(1)

    run_on(backend, main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_thread_whose_event_is_interrupted_does_not_wait_for_ever(backend: str) -> None:
    """The future of the interrupted event has the interrupt, and those after it end too."""
    futures: list[Future[Any]] = []

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), id="w", actions=WORK)
            one.listen(interrupt)
            futures.extend(one.post_threadsafe(event) for event in ("go", "back"))
            await anyio.sleep(5)

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the task group of trio wraps it
        anyio.run(main, backend=backend)
    assert caught.group_contains(Interrupt) or caught.type is Interrupt
    assert isinstance(futures[0].exception(0), Interrupt)
    assert isinstance(futures[1].exception(0), HostStateError)


def test_call_that_comes_while_the_mailbox_closes_is_not_lost() -> None:
    """A thread that was interrupted between its look at the mailbox and its call gets an error."""

    async def main() -> None:
        for end in ("closed", "loop closed"):
            mailbox = Mailbox()

            def soon(call: Callable[[], object], box: Mailbox = mailbox, end: str = end) -> None:
                del call
                box.close()
                if end == "loop closed":
                    raise RuntimeError("Event loop is closed")

            mailbox._soon = soon
            future = mailbox.put(lambda: 1)
            assert isinstance(future.exception(0), HostStateError)

    run_on("asyncio", main)


def test_call_that_comes_right_after_the_mailbox_closed_is_refused() -> None:
    async def main() -> None:
        mailbox = Mailbox()

        class Calls(type(mailbox._calls)):  # type: ignore[misc]
            def append(self, call: Any) -> None:
                mailbox.close()
                super().append(call)

        mailbox._calls = Calls()
        assert isinstance(mailbox.put(lambda: 1).exception(0), HostStateError)

    run_on("asyncio", main)


@both
@pytest.mark.parametrize("method", ["can", "snapshot", "wait_for"])
def test_question_in_another_thread_is_refused(backend: str, method: str) -> None:
    """`can` sets the fields of the event for its guards, in the middle of a step of the host."""

    async def main() -> None:
        async with Host() as host:
            one = host.start(worker(), id="w", actions=WORK)
            calls: dict[str, Callable[[], object]] = {
                "can": lambda: one.can("go"), "snapshot": one.snapshot,
                "wait_for": lambda: one.wait_for("busy").send(None),
            }  # fmt: skip
            caught: list[BaseException] = []

            def ask() -> None:
                try:
                    calls[method]()
                except BaseException as error:  # noqa: BLE001 - looked at below
                    caught.append(error)

            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
            assert isinstance(caught[0], WrongThreadError)
            assert "call_threadsafe" in str(caught[0])
        assert one.can("go")
        assert one.snapshot().configuration == ("idle",)

    run_on(backend, main)
