"""Notices of memory: what is wrong now, and which declarations need a change, in words."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ...dataclass import dataclass

#: elastic: a server fits itself into what is free. exceeded: a service has held more than it
#: declares. pressure: a pool is too full. reading: memory cannot be read. short: a service ran out
#: of memory, so its starts reserve more. unused: a declared amount is never used up.
NoticeKind: TypeAlias = Literal["elastic", "exceeded", "pressure", "reading", "short", "unused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notice.

    Attributes:
        kind: Its kind.
        text: The notice in words.
        service: Service that it is about; empty if it is about none.
        pool: Pool that it is about; empty if it is about none.
    """

    kind: NoticeKind
    text: str
    service: str = ""
    pool: str = ""
