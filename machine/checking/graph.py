"""Graph that is built during a breadth-first walk, with the queries of the checker."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

N = TypeVar("N", bound=Hashable)
E = TypeVar("E")


class Graph(Generic[N, E]):
    """Nodes in the order in which they were found, breadth first, so that traces are shortest.

    Attributes:
        nodes: Shape (n,).
        edges: Index of the source node -> (label, index of the target node).
        cut: Indexes of nodes from which an edge was not followed, because of the bounds.
    """

    def __init__(self) -> None:
        self.nodes: list[N] = []
        self.edges: list[list[tuple[E, int]]] = []
        self.cut: set[int] = set()
        self._index: dict[N, int] = {}
        self._parents: list[tuple[int, E] | None] = []

    @property
    def edge_count(self) -> int:
        """Number of edges."""
        return sum(map(len, self.edges))

    def add(self, node: N, parent: int | None, label: E | None) -> int:
        """Return the index of *node*, adding it as found from *parent* if it is new."""
        index = self._index.get(node)
        if index is None:
            index = self._index[node] = len(self.nodes)
            self.nodes.append(node)
            self.edges.append([])
            self._parents.append(None if parent is None or label is None else (parent, label))
        return index

    def link(self, source: int, label: E, node: N) -> None:
        """Add the edge from *source* to *node*, which may be new."""
        self.edges[source].append((label, self.add(node, source, label)))

    def way_to(self, index: int) -> list[tuple[E | None, N]]:
        """Return a shortest path from the first node: (label that led there, node)."""
        way: list[tuple[E | None, N]] = []
        while True:
            parent = self._parents[index]
            if parent is None:
                way.append((None, self.nodes[index]))
                return way[::-1]
            way.append((parent[1], self.nodes[index]))
            index = parent[0]


def backward(pairs: Iterable[tuple[int, int]], targets: Iterable[int]) -> set[int]:
    """Return every node from which one of *targets* can be reached along *pairs*."""
    sources: defaultdict[int, list[int]] = defaultdict(list)
    for source, target in pairs:
        sources[target].append(source)
    seen = set(targets)
    todo = deque(seen)
    while todo:
        for source in sources[todo.popleft()]:
            if source not in seen:
                seen.add(source)
                todo.append(source)
    return seen


def components(
    nodes: Sequence[int], successors: Mapping[int, Sequence[int]]
) -> Iterator[list[int]]:
    """Yield the strongly connected components with a cycle in them, a self-loop included.

    Source: Tarjan, "Depth-first search and linear graph algorithms", 1972, without recursion.
    """
    found: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in nodes:
        if root in found:
            continue
        work = [(root, iter(successors[root]))]
        found[root] = low[root] = len(found)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for after in rest:
                if after not in found:
                    found[after] = low[after] = len(found)
                    stack.append(after)
                    on_stack.add(after)
                    work.append((after, iter(successors[after])))
                    break
                if after in on_stack:
                    low[node] = min(low[node], found[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == found[node]:
                    group = stack[stack.index(node) :]
                    del stack[-len(group) :]
                    on_stack.difference_update(group)
                    if len(group) > 1 or node in successors[node]:
                        yield group
