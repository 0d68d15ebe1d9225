"""One step of chart and world together, with every promise that a single step can break."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ..document import Always, Configuration, Document, Value, as_list, split_words
from ..effects import (
    AdmitAll,
    AdmitWaiter,
    CancelActivity,
    CancelTimer,
    Effect,
    KillProcess,
    QueueWaiter,
    RejectAll,
    RejectWaiter,
    StartActivity,
    StartTimer,
    StopDone,
    describe,
)
from ..errors import EventlessLoopError
from ..format.name_rules import transitions_of
from .explore import Being, Bounds, Environment, Input, Reaction, Reactor, Situation
from .promises import PromiseJudge, Step

#: (kind, sentence) of each promise that a step breaks.
Problems: TypeAlias = list[tuple[str, str]]

#: Kind of the finding of a cycle of eventless transitions; its sentence names the states.
ENDLESS = "eventless transitions that go round for ever"

_ON_A_REQUEST = (QueueWaiter, AdmitWaiter, RejectWaiter)


class CheckedStep:
    """Steps situations and reports what is wrong with a step."""

    def __init__(
        self,
        document: Document,
        reactor: Reactor,
        environment: Environment,
        bounds: Bounds,
        parameters: Mapping[str, Value],
    ) -> None:
        self._document, self._promises = document, document.promises
        self._reactor, self._environment, self._bounds = reactor, environment, bounds
        self._judge = PromiseJudge(document, parameters)
        self._owners = owners(document)
        states = list(document.states())
        self._atomic = {name for name, definition, _ in states if not definition.get("states")}
        self._final = {
            name for name, definition, above in states if definition.get("final") and not above
        }
        self._may_run: dict[Configuration, frozenset[str]] = {}
        requests, process = self._promises.requests, self._promises.process
        counted = {requests.waiting, requests.served} if requests is not None else set()
        self._domains = [
            (index, name, datum.values)
            for index, (name, datum) in enumerate(document.data.items())
            if datum.values is not None
        ]
        self._cut: set[tuple[int, int]] = set()
        self._limits = [
            (
                index,
                bounds.waiting + bounds.served
                if name in counted
                else max(bounds.counts, datum.initial),
            )
            for index, (name, datum) in enumerate(document.data.items())
            if datum.values is None and type(datum.initial) is int
        ]
        self._ask = requests.ask if requests is not None else ""
        self._give_up = requests.give_up if requests is not None else ""
        self._done = requests.done if requests is not None else ""
        self._launch = process.activity if process is not None else ""
        self._up = {process.up, process.found} - {""} if process is not None else set()
        self._found = process.found if process is not None else ""
        self._down = process.down if process is not None else frozenset()
        self._needing = process.needed_by if process is not None else frozenset()

    # ---- what kind of situation, what kind of event ------------------------------------------
    @property
    def has_final(self) -> bool:
        """True if the chart has a final state."""
        return bool(self._final)

    def is_final(self, now: Situation) -> bool:
        """Return True if the chart has ended."""
        return not self._final.isdisjoint(now.configuration)

    def is_at_rest(self, now: Situation) -> bool:
        """Return True if every atomic state of *now* may last forever."""
        leaves = self._atomic & set(now.configuration)
        return self.is_final(now) or leaves <= self._promises.rest

    def is_of_the_world(self, what: Input) -> bool:
        """Return True if *what* comes without a user's action."""
        if what.event == self._found:  # by the start of the program
            return False
        return self._document.events[what.event].origin != "user" or what.event == self._done

    def must_come(self, what: Input) -> bool:
        """Return True if *what*, if it can come and nothing else does, comes eventually."""
        event = self._document.events[what.event]
        if event.origin in ("activity", "timer"):
            return event.of not in self._promises.unsure
        return what.event == self._done

    def needs_patience(self, what: Input) -> bool:
        """Return True if *what* does not repeat forever."""
        return what.event in self._promises.patience

    # ---- steps -------------------------------------------------------------------------------
    def start(self) -> tuple[Situation, Problems]:
        """Return the situation after creation."""
        first = self._reactor.begin
        nowhere = Situation((), first.values)
        return self._after(nowhere, Input(""), first)

    def step(self, now: Situation, what: Input) -> tuple[Situation | None, Problems]:
        """Return the situation after *what*, or None if it cannot be followed, and the problems.

        Args:
            now: Situation in which the chart has not ended.
            what: Input that may come in it.
        """
        try:
            reaction = self._reactor.react(now.configuration, now.values, now.memory, what)
        except EventlessLoopError as error:
            return None, [(ENDLESS, ", ".join(error.states))]
        if reaction is None:
            sentence = f"{what.event} in {'.'.join(now.configuration)}"
            return None, [("an event neither handled nor declared ignored", sentence)]
        after, problems = self._after(now, what, reaction)
        is_lost = any(kind in _LOST for kind, _ in problems)
        return (None if is_lost or self._is_beyond(after) else after), problems

    def _is_beyond(self, after: Situation) -> bool:
        beyond = [
            (index, limit) for index, limit in self._limits if abs(int(after.values[index])) > limit
        ]
        self._cut.update(beyond)
        return bool(beyond)

    @property
    def cut(self) -> list[str]:
        """Bounds of the exploration that were reached, such as ``n <= 2``."""
        names = list(self._document.data)
        found = [f"{names[index]} <= {limit}" for index, limit in sorted(self._cut)]
        if self._promises.requests is not None:
            bounds, requests = self._bounds, self._promises.requests
            found.append(f"{requests.waiting} <= {bounds.waiting}")
            found.append(f"{requests.served} <= {bounds.waiting + bounds.served}")
        return found

    def _after(self, now: Situation, what: Input, reaction: Reaction) -> tuple[Situation, Problems]:
        problems, clocks = self._of_the_step(now, what, reaction)
        process, running = self._apply(now, what, reaction, problems)
        owed = self._owe(now, what, reaction, problems)
        after = Situation(
            reaction.configuration, reaction.values, reaction.memory, process, running, owed
        )
        leaves = self._atomic & set(after.configuration)
        if process != "none" and (leaves & self._promises.quiet or reaction.is_final):
            problems.append(("a process alive in a quiet state", ".".join(after.configuration)))
        where = ".".join(after.configuration)
        problems += (
            ("an activity or timer that outlives its state", f"{name} in {where}")
            for name in sorted(running - self._allowed(after.configuration))
        )
        for always in clocks:
            if not always.live <= running or always.dead & running:
                problems.append(("a promise of the chart", always.why))
        return after, problems

    def _allowed(self, configuration: Configuration) -> frozenset[str]:
        """Return what may run in *configuration*: activities and timers that its states started."""
        found = self._may_run.get(configuration)
        if found is None:
            active = frozenset(configuration)
            found = self._may_run[configuration] = frozenset(
                name for name, states in self._owners.items() if states & active
            )
        return found

    # ---- what depends on the step alone -------------------------------------------------------
    def _of_the_step(
        self, now: Situation, what: Input, reaction: Reaction
    ) -> tuple[Problems, list[Always]]:
        step = Step(
            what.event, what.data, now.configuration, reaction.configuration,
            now.values, reaction.values, reaction.effects,
        )  # fmt: skip
        broken, clocks = self._judge.judge(step)
        problems = [("a promise of the chart", why) for why in broken]
        problems += self._configuration_problems(reaction)
        problems += self._request_problems(step)
        problems += self._stop_problems(step)
        return problems, clocks

    def _configuration_problems(self, reaction: Reaction) -> Iterator[tuple[str, str]]:
        if not self._atomic & set(reaction.configuration):
            yield "an empty configuration", "no atomic state is active"
        for index, name, domain in self._domains:
            if reaction.values[index] not in domain:
                yield "a value outside its domain", f"{name} is {reaction.values[index]!r}"

    def _request_problems(self, step: Step) -> Iterator[tuple[str, str]]:
        on_a_request = [describe(e) for e in step.effects if isinstance(e, _ON_A_REQUEST)]
        if step.event == self._ask and self._ask:
            if len(on_a_request) != 1:
                got = " and ".join(on_a_request) or "neither"
                yield (
                    "a request neither queued, admitted nor rejected once",
                    f"{step.event} in {'.'.join(step.before)}: {got}",
                )
        elif on_a_request:
            yield "an effect on a request that is not there", f"{step.event}: {on_a_request[0]}"
        admitted = any(isinstance(e, (AdmitAll, AdmitWaiter)) for e in step.effects)
        if admitted and not self._promises.serving & set(step.after):
            yield "an admission outside serving states", f"{step.event} in {'.'.join(step.after)}"
        if self._ask:
            waiting, served = self._environment.counts(step.was)
            expected = self._count(step, waiting, served)
            found = self._environment.counts(step.now)
            if expected != found:
                yield (
                    "requests counted wrongly",
                    f"{step.event} in {'.'.join(step.before)}: waiting, served are {expected}, "
                    f"the chart says {found}",
                )

    def _count(self, step: Step, waiting: int, served: int) -> tuple[int, int]:
        waiting -= step.event == self._give_up
        served -= step.event == self._done
        for effect in step.effects:
            match effect:
                case QueueWaiter():
                    waiting += 1
                case AdmitWaiter():
                    served += 1
                case AdmitAll():
                    waiting, served = 0, served + waiting
                case RejectAll():
                    waiting = 0
        return waiting, served

    def _stop_problems(self, step: Step) -> Iterator[tuple[str, str]]:
        stopping = self._promises.stopping
        left = stopping in step.before and stopping not in step.after
        if left and StopDone() not in step.effects:
            yield "a stop caller never answered", f"{step.event} left {stopping} without stop.done"

    # ---- what depends on the world too --------------------------------------------------------
    def _apply(
        self, now: Situation, what: Input, reaction: Reaction, problems: Problems
    ) -> tuple[Being, frozenset[str]]:
        process = now.process
        running = set(now.running)
        if what.event:
            running.discard(self._document.events[what.event].of)
            if what.event in self._up:
                process = "alive"
            elif what.event in self._down:
                process = "none"
        for effect in reaction.effects:
            match effect:
                case StartActivity(activity=name) if name == self._launch:
                    if process != "none":
                        problems.append(("a second process", f"{what.event} launches another"))
                    process = "spawning"
                case StartActivity(activity=name):
                    if name in running:
                        problems.append(("an activity started twice", f"{what.event}: {name}"))
                    if name in self._needing and process != "alive":
                        problems.append(("a signal without a process", f"{what.event}: {name}"))
                    running.add(name)
                case CancelActivity(activity=name):
                    running.discard(name)
                case StartTimer(timer=name):
                    running.add(name)
                case CancelTimer(timer=name):
                    running.discard(name)
                case KillProcess() if process != "alive":
                    problems.append(("a signal without a process", f"{what.event}: kill"))
        return process, frozenset(running)

    def _owe(
        self, now: Situation, what: Input, reaction: Reaction, problems: Problems
    ) -> frozenset[int]:
        if not self._promises.pairs:
            return now.owed
        owed = set(now.owed)
        entered = set(reaction.configuration) - set(now.configuration)
        leaves = self._atomic & set(reaction.configuration)
        is_over = reaction.is_final or bool(leaves & self._promises.quiet)
        for index, pair in enumerate(self._promises.pairs):
            name = f"{pair.begin} without {pair.end}"
            if what.event in pair.unless:
                owed.discard(index)
            if what.event in pair.also:
                owed.add(index)
            if pair.end in entered:
                if index not in owed:
                    problems.append(("a broken hook pair", f"{pair.end} without {pair.begin}"))
                owed.discard(index)
            if pair.begin in entered:
                if index in owed:
                    problems.append(("a broken hook pair", f"{name}, and {pair.begin} again"))
                owed.add(index)
            if index in owed and (is_over or leaves & pair.by):
                where = ".".join(reaction.configuration)
                problems.append(("a broken hook pair", f"{name}, in {where}"))
        return frozenset(owed)


#: After one of these the rest is meaningless: the counts are wrong, or nothing is active.
_LOST = frozenset(
    {
        "a value outside its domain",
        "an effect on a request that is not there",
        "an empty configuration",
        "requests counted wrongly",
    }
)


def owners(document: Document) -> dict[str, frozenset[str]]:
    """Return activity or timer -> the states it belongs to: those whose actions start it.

    What a transition starts belongs to its target states, or to its own state if it has no target.
    The launch of a process belongs to no state.
    """
    process = document.promises.process
    found: dict[str, set[str]] = {}

    def claim(actions: Any, states: tuple[str, ...]) -> None:
        for action in as_list(actions):
            for effect in document.actions[action].effects:
                name = _started(effect)
                if name and (process is None or name != process.activity):
                    found.setdefault(name, set()).update(states)

    for name, definition, _ in document.states():
        claim(definition.get("enter"), (name,))
    for _, source, item in transitions_of(document):
        states = split_words(item.get("target")) or (source,)
        for key in ("before", "on", "after"):
            claim(item.get(key), states)
    return {name: frozenset(states) for name, states in found.items()}


def _started(effect: Effect) -> str:
    if isinstance(effect, StartActivity):
        return effect.activity
    return effect.timer if isinstance(effect, StartTimer) else ""
