"""More conversations than slots, over a swap and over a kill, with and without a library.

Conversations take turns on two slots. Between the turns the model is swapped for another one. Then,
in the middle of a round, server and proxy are killed, and each conversation has another turn.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .llama import NAMES, Reply, ask, conversation, proxy, running, says
from .report import median, table

_NEXT = "Please go on with that, and say a little more about the river and the stone."
_MODEL, _OTHER = NAMES
_SAMPLE = 2  # conversations that are asked after the kill without a library: all are read anew


@dataclass(slots=True)
class _Talk:
    """One conversation.

    Attributes:
        messages: All of them, with the replies.
        known: Tokens in the cache of its slot at the end of its last turn.
        grown: Those among them that came with this turn: its question, as the template renders it,
            and its reply.
        again: Known tokens that were read again, of each turn.
    """

    messages: list[dict[str, str]]
    known: int = 0
    grown: int = 0
    again: list[int] = field(default_factory=list)

    def turn(self, port: int) -> Reply:
        """Ask one question more."""
        reply = ask(port, _MODEL, self.messages)
        if self.known:
            self.again.append(max(self.known - reply.cached, 0))
        known = reply.cached + reply.read + reply.written - 1  # the last token is not evaluated
        self.known, self.grown = known, known - self.known
        self.messages += [{"role": "assistant", "content": reply.text}, says(_NEXT)]
        return reply


@dataclass(slots=True)
class Turns:
    """Figures of one run.

    Attributes:
        waits_s: From a request to its first token, of each turn after a swap.
        prefills_s: Those parts of them in which the server read the prompt.
        share: Share of the known tokens that these turns read again.
        lost: Tokens that a conversation read again after the kill; the worst.
        turn_tokens: Tokens of a turn; the largest of the last ones before the kill.
    """

    waits_s: list[float] = field(default_factory=list)
    prefills_s: list[float] = field(default_factory=list)
    share: float = 0.0
    lost: int = 0
    turn_tokens: int = 0


def measure(
    folder: Path, server: Any, model: Path, *, count: int, tokens: int, rounds: int,
    has_library: bool,
) -> Turns:  # fmt: skip
    """Return the figures of *count* conversations of *tokens* tokens."""
    talks = [_Talk([says(conversation(number, tokens))]) for number in range(count)]
    kv = {"library": "8GiB", "timeout": 60} if has_library else "off"
    keys = {"slots": 2, "tokens": tokens * 3 // 2 + 1024, "kv": kv}
    found = Turns()
    with proxy(folder, server, model, **keys) as (port, process):
        for talk in talks:
            talk.turn(port)
        known = 0
        for _ in range(rounds):
            ask(port, _OTHER, [says("hello")])
            ask(port, _MODEL, [says("hello")])  # the swap itself
            known += sum(talk.known for talk in talks)
            for talk in talks:
                reply = talk.turn(port)
                found.waits_s.append(reply.wait_s)
                found.prefills_s.append(reply.prefill_s)
        found.share = sum(sum(talk.again) for talk in talks) / known
        for talk in talks[: count // 2 if has_library else 0]:
            talk.turn(port)
        os.kill(running(port, _MODEL)["pid"], signal.SIGKILL)
        process.process.kill()
    found.turn_tokens = max(talk.grown for talk in talks)
    with proxy(folder, server, model, **keys) as (port, _):
        for talk in talks if has_library else talks[:_SAMPLE]:
            talk.again.clear()
            talk.turn(port)
            found.lost = max(found.lost, *talk.again)
    return found


def text_of(off: Turns, on: Turns, count: int, tokens: int) -> list[str]:
    """Return the parts of the report."""
    before, after = median(off.waits_s), median(on.waits_s)
    rows = [
        ["tokens read again", f"{off.share:.1%}", f"{on.share:.2%}", "at most 5 %"],
        [
            "first token, median s", f"{before:.3f}", f"{after:.3f}: {before / after:.0f} times "
            "shorter", "20 times shorter",
        ],
        [
            "of this the server reads the prompt, median s", f"{median(off.prefills_s):.3f}",
            f"{median(on.prefills_s):.3f}", "",
        ],
        ["first token, longest s", f"{max(off.waits_s):.3f}", f"{max(on.waits_s):.3f}", ""],
        [
            "SIGKILL: tokens read again by a conversation, most", f"{off.lost}", f"{on.lost}",
            f"one turn, {on.turn_tokens} tokens",
        ],
    ]  # fmt: skip
    return [
        f"{count} conversations of {tokens} tokens take turns on two slots, with a swap between "
        f"turns; a turn adds {on.turn_tokens} tokens, question and reply. Then server and proxy "
        "are killed in the middle of a round.",
        table(["", "`kv: off`", "`kv: {library: 8GiB}`", "target"], rows),
    ]
