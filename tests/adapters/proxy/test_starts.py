"""Transitions of a model, grouped by start."""

from __future__ import annotations

import pytest

from swapchart.adapters.proxy.api.schema.transitions import Start, TransitionRow
from swapchart.adapters.proxy.api.timeline.starts import grouped
from swapchart.machine.shipped import lifecycle

RUN = "b" * 8
#: The states through which a start comes to `ready`, and those of a stop, as (event, target).
START = (
    ("request", "starting.before_start"), ("hooks_done", "starting.launching"),
    ("spawned", "starting.after_start"), ("hooks_done", "starting.health_checking"),
    ("healthy", "starting.after_healthy"), ("hooks_done", "ready"),
)  # fmt: skip
STOP = (
    ("stop", "stopping.before_stop"), ("hooks_done", "stopping.terminating"),
    ("proc_exited", "stopping.sweeping"), ("swept", "stopping.after_stop"),
    ("hooks_done", "stopping.settling"), ("settled", "stopped"),
)  # fmt: skip
CRASH = (("proc_exited", "stopping.sweeping"), ("settled", "backoff"))


class Journal:
    """Rows of one model, a second apart."""

    def __init__(self) -> None:
        self.rows: list[TransitionRow] = []
        self.incarnation, self.run, self.state = 0, RUN, "stopped"

    def add(self, *steps: tuple[str, str], cause: str = "") -> Journal:
        for event, path in steps:
            target = path.rpartition(".")[2]
            number = len(self.rows)
            self.rows.append(
                TransitionRow(
                    id=number, at=1000.0 + number, service="a", incarnation=self.incarnation,
                    event=event, cause=cause, source=self.state, target=target,
                    configuration=f"alive.{path}", seconds=1.0, pid=None, exit_code=None,
                    exit_signal=None, hooks=[], request_id="", node="", swap_id="s", run=self.run,
                    swap_cause="request",
                )
            )  # fmt: skip
            self.incarnation += target == "before_start"  # numbered right after that
            self.state = target
        return self

    def restart(self) -> Journal:
        """Go on with another run of the proxy."""
        self.run, self.incarnation, self.state = "c" * 8, 0, "stopped"
        return self

    def starts(self, run: str = RUN) -> list[Start]:
        return grouped(self.rows[::-1], lifecycle().promises, run)


def test_starts_have_their_own_transitions_and_ends() -> None:
    """The newest is the first; each has its time until ready, its end and the reason for that."""
    journal = Journal().add(*START, cause="requested").add(*STOP, cause="evicted for b")
    journal.add(*START[:4], cause="requested").add(*CRASH, cause="exit code 3").add(*START)
    newest, failed, first = journal.starts()

    assert [start.number for start in (first, failed, newest)] == [1, 2, 3]
    assert [len(start.transitions) for start in (first, failed, newest)] == [12, 6, 6]
    assert (first.outcome, first.ready_s, first.why) == ("stopped", 5.0, "evicted for b")
    assert (first.at, first.until) == (1000.0, 1011.0)
    assert (failed.outcome, failed.ready_s, failed.why) == ("failed", None, "exit code 3")
    assert (newest.outcome, newest.until, newest.why) == ("running", None, "")
    assert newest.id == f"{RUN}.3"
    assert first.transitions[0].event == "request"


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [(START[:2], "starting"), (START, "running"), ((*START, STOP[0]), "stopping")],
)
def test_start_that_lasts_says_how_far_it_is(
    steps: tuple[tuple[str, str], ...], outcome: str
) -> None:
    (start,) = Journal().add(*steps).starts()

    assert (start.outcome, start.until) == (outcome, None)


def test_start_of_an_earlier_run_of_the_proxy_is_lost_or_left() -> None:
    """Numbers begin anew in each run; a server that is adopted was left running."""
    journal = Journal().add(*START).restart().add(*START)
    assert [start.outcome for start in journal.starts("c" * 8)] == ["running", "lost"]
    assert [start.outcome for start in journal.starts("d" * 8)] == ["lost", "lost"]
    assert [start.id for start in journal.starts()] == ["cccccccc.1", "bbbbbbbb.1"]

    journal = Journal().add(*START).restart()
    journal.incarnation = 1
    journal.add(("adopted", "starting.adopting"), ("healthy", "ready"))
    adopted, left = journal.starts("c" * 8)
    assert (adopted.outcome, adopted.is_adopted, adopted.number) == ("running", True, 1)
    assert left.outcome == "left"


def test_stop_that_is_refused_ends_no_start() -> None:
    """A service that was still busy at its drain limit is ready again."""
    drain = (("stop", "stopping.draining"), ("drain_expired", "ready"))
    (start,) = Journal().add(*START, *drain).starts()

    assert (start.outcome, start.why) == ("running", "")


def test_transitions_without_a_start_belong_to_none() -> None:
    """The shutdown of a stopped model is no start, and does not prolong the one before."""
    journal = Journal().add(*START, *STOP).add(("shutdown", "shut_down"))
    (start,) = journal.starts()
    assert (start.until, start.outcome) == (1011.0, "stopped")
    assert Journal().add(("shutdown", "shut_down")).starts() == []
    assert Journal().starts() == []


def test_start_that_is_cut_or_long_is_bounded() -> None:
    """The rest of a start whose first transitions were not read; and one that sleeps a lot."""
    journal = Journal().add(*START).add(*STOP)
    (cut,) = grouped(journal.rows[:3:-1], lifecycle().promises, RUN)
    assert (cut.number, cut.outcome, len(cut.transitions)) == (1, "stopped", 8)

    naps = (("doze_expired", "sleeping.suspending"), ("request", "ready")) * 100
    (long,) = Journal().add(*START).add(*naps).starts()
    assert (len(long.transitions), long.left_out) == (100, 106)
    assert long.transitions[0].target == "before_start"
    assert long.transitions[-1].target == "ready"
