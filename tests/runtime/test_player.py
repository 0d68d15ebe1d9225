"""Player: custom charts."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from swapchart.machine import ChartError, NotHandledError, read
from swapchart.runtime import Player, Step
from swapchart.runtime.testing import run_virtual

KETTLE = """
format: swapchart.chart/v1
name: Kettle
data: {cups: {initial: 0}}
events:
  press: {}
  boiled: {origin: activity, of: heat}
  failed: {origin: activity, of: heat}
  cold: {origin: timer, of: cooling}
guards: {is_enough: cups >= 2}
actions:
  heat: {do: {effect: activity.start, activity: heat}}
  stop_heat: {do: {effect: activity.cancel, activity: heat}}
  cool: {do: {effect: timer.start, timer: cooling}}
  whistle: {do: {effect: notify, name: whistle}, set: {cups: cups + 1}}
chart:
  name: Kettle
  states:
    kettle:
      initial: true
      states:
        idle:
          initial: true
          transitions:
            - {event: press, target: heating}
        heating:
          enter: heat
          exit: stop_heat
          transitions:
            - {event: boiled, target: hot, "on": whistle}
            - {event: failed, target: idle}
            - {event: press, target: idle}
        hot:
          enter: cool
          transitions:
            - {event: cold, target: empty, cond: is_enough}
            - {event: cold, target: idle}
    empty: {final: true}
"""


def heater(seconds: float, event: str = "boiled") -> Callable[[str], object]:
    async def heat(point: str) -> str:
        assert point == ""
        await anyio.sleep(seconds)
        return event

    return heat


def player(heat: object = None, **options: object) -> Player:
    activities = {"heat": heat or heater(60)}
    return Player(read(KETTLE), activities=activities, timers={"cooling": 300}, **options)  # type: ignore[arg-type]


def test_custom_chart_runs_to_its_end() -> None:
    """Activities post events, timers fire, guards count, notifications arrive, the end is final."""

    async def main() -> None:
        steps: list[Step] = []
        notes: list[str] = []
        async with player(on_step=steps.append, on_notify=notes.append) as kettle:
            kettle.post("press")
            await kettle.wait_for("hot")
            await kettle.wait_for("idle")
            kettle.post("press")
            await kettle.wait_for("empty")
            kettle.post("press")  # no effect after its end

            assert kettle.is_final
        assert notes == ["whistle", "whistle"]
        assert kettle.datum("cups") == 2
        assert [step.event for step in steps] == ["press", "boiled", "cold"] * 2
        assert steps[-1].at - steps[0].at == pytest.approx(720)

    run_virtual(main)


def test_cancelled_activity_posts_no_event() -> None:
    """The second press cancels the heating: no event comes, and heating can begin again."""

    async def main() -> None:
        async with player() as kettle:
            kettle.post("press")
            await anyio.sleep(59)
            kettle.post("press")
            await anyio.sleep(100)
            assert kettle.configuration == ("kettle", "idle")
            kettle.post("press")
            await anyio.sleep(59)
            assert kettle.configuration == ("kettle", "heating")

    run_virtual(main)


def test_activity_that_raises_posts_its_declared_event() -> None:
    """on_error turns the exception into an event of the chart."""

    async def burn(point: str) -> str:
        raise OSError("no water")

    async def main() -> None:
        seen: list[str] = []

        def on_error(name: str, error: Exception) -> str:
            seen.append(f"{name}: {error}")
            return "failed"

        async with player(burn, on_error=on_error) as kettle:
            kettle.post("press")
            await kettle.wait_for("idle")
        assert seen == ["heat: no water"]

    run_virtual(main)


def test_event_that_the_chart_does_not_know_is_refused() -> None:
    """Such an event raises an error and changes nothing."""

    async def main() -> None:
        async with player() as kettle:
            with pytest.raises(NotHandledError):
                kettle.replay("cold")
            assert kettle.configuration == ("kettle", "idle")

    run_virtual(main)


def test_missing_activities_are_reported_before_the_start() -> None:
    """A missing activity or timer is an error that names the action."""
    with pytest.raises(ChartError, match=r"actions\.heat: expected an activity 'heat'"):
        Player(read(KETTLE), timers={"cooling": 1})
    with pytest.raises(ChartError, match=r"actions\.cool: expected seconds for timer 'cooling'"):
        Player(read(KETTLE), activities={"heat": heater(1)})  # type: ignore[dict-item]
