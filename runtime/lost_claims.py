"""Claims on memory of processes that may still run on a node that was lost.

The pools of another node are named ``NODE/POOL``, those of the machine of the proxy ``POOL``.
"""

from __future__ import annotations

from .memory import Amounts, Holder, Plan


def node_of(pool: str) -> str:
    """Return the node that memory pool *pool* belongs to; empty for the machine of the proxy."""
    return pool.rpartition("/")[0]


class LostClaims:
    """Claims that stay held until their node is back, or gone for certain."""

    def __init__(self) -> None:
        self._expected: dict[str, str] = {}  # service -> node that its process was lost with
        self._claims: dict[tuple[str, str], dict[str, int]] = {}  # (service, node) -> bytes by pool

    def expect(self, service: str, node: str) -> None:
        """Keep what *service* holds on *node*, as soon as its claim ends."""
        if node:
            self._expected[service] = node

    def keep(self, service: str, claim: Amounts) -> None:
        """Keep *claim*, which ends, as far as it is on the node that its process was lost with."""
        node = self._expected.pop(service, "")
        kept = {pool: amount for pool, amount in claim.items() if node and node_of(pool) == node}
        if kept:
            before = self._claims.get((service, node), {})
            self._claims[service, node] = {
                pool: before.get(pool, 0) + kept.get(pool, 0) for pool in {**before, **kept}
            }

    def nodes_of(self, service: str) -> frozenset[str]:
        """Return the nodes on which a process of *service* may still hold memory."""
        nodes = {node for name, node in self._claims if name == service}
        return frozenset(nodes | {self._expected.get(service, "")} - {""})

    def allows(self, service: str, place: Amounts) -> bool:
        """Return True if *place* is on no node where a process of *service* may still run."""
        return not self.nodes_of(service) & {node_of(pool) for pool in place}

    def plan(self, service: str) -> Plan | None:
        """Return the plan of a service that fits only where it may still run; else None."""
        nodes = ", ".join(sorted(self.nodes_of(service)))
        why = f"{service} may still run on {nodes}, which was lost"
        return Plan(kind="wait", place={}, why=why) if nodes else None

    def free(self, node: str) -> None:
        """Give back all that is held on *node*."""
        self._expected = {s: there for s, there in self._expected.items() if there != node}
        self._claims = {key: claim for key, claim in self._claims.items() if key[1] != node}

    def held(self, pool: str) -> int:
        """Return the bytes of *pool* that are held."""
        return sum(claim.get(pool, 0) for claim in self._claims.values())

    def holders(self) -> list[Holder]:
        """Return the holders of these claims; none of them can be evicted."""
        return [
            Holder(
                name=f"{service} lost on {node}", phase="stopping", claim=claim, is_stuck=True,
                is_pinned=True,
            )
            for (service, node), claim in self._claims.items()
        ]  # fmt: skip
