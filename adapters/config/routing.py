"""Groups, the matrix and priorities as values, checked before anything runs.

Source: llama-swap's behavior. Deviations: the order of ``matrix.sets`` is that of the document; a
priority may be given by an alias; unknown group members are errors here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ...runtime.eviction import Expression
from .document.nodes import Node
from .matrix_expression import (
    ExpressionError,
    TooMuchWorkError,
    families,
    order_sets,
    parse_expression,
    references,
)  # fmt: skip
from .schema.document import DocumentSection
from .schema.routing import GroupSection, MatrixSection
from .values import Group, Matrix, ModelConfig, Routing

DEFAULT_GROUP = "(default)"
_MOST_PARTS = 20_000  # names in all sets together: an eviction decision takes some 20 us for each
_MOST_TARGETS = 10  # more targets make families of sets too large to check
_MOST_WORK = 300_000  # parts and combinations examined for all selectors together


class NamesLike(Protocol):
    """Interface of the collected names."""

    models: dict[str, ModelConfig]

    def real_name(self, name: str) -> str | None:
        """Return the id of the local model called *name*, or None."""
        ...

    def place(self, *loc: int | str) -> tuple[Node, str]:
        """Return the node at *loc* and its dotted path."""
        ...

    def error(self, loc: tuple[int | str, ...], message: str) -> None:
        """Report an error at *loc*."""
        ...

    def unknown(self, loc: tuple[int | str, ...], name: str, hint: str = "") -> None:
        """Report that *name*, at *loc*, is not the name of a model."""
        ...

    def warning(self, loc: tuple[int | str, ...], message: str) -> None:
        """Report a warning at *loc*."""
        ...


def read_routing(document: DocumentSection, names: NamesLike) -> Routing:
    """Return the routing in one canonical form, wherever the document has it."""
    router = document.routing.router
    groups, matrix, use = router.settings.groups, router.settings.matrix, router.use or "group"
    at: tuple[str, ...] = ("routing", "router", "settings")
    if document.groups or document.matrix is not None:
        at = ()
        groups, matrix = document.groups, document.matrix
        use = "group" if document.matrix is None else "matrix"
        if router.model_fields_set:
            old = "matrix" if document.matrix is not None else "groups"
            names.error((old,), "cannot be used together with routing.router: move it there")
        elif document.groups and document.matrix is not None:
            names.error(("matrix",), "config cannot use both 'groups' and 'matrix'")
    if use == "matrix" and matrix is None:
        names.error(("routing", "router", "use"), "expected settings.matrix, since use is matrix")
    read = _read_matrix(matrix, (*at, "matrix"), names, check=use == "matrix") if matrix else None
    return Routing(
        use="matrix" if use == "matrix" else "group",
        groups=_read_groups(groups, (*at, "groups"), names, check=use == "group"),
        matrix=read,
        priorities=_read_priorities(document, names),
    )


def _read_priorities(document: DocumentSection, names: NamesLike) -> dict[str, int]:
    priorities = {}
    for name, value in document.routing.scheduler.settings.fifo.priority.items():
        model = names.real_name(name)
        if model is None:
            loc = ("routing", "scheduler", "settings", "fifo", "priority", name)
            names.unknown(loc, name)
        elif name == model or model not in priorities:
            priorities[model] = value
    return priorities


def _read_groups(
    sections: Mapping[str, GroupSection],
    at: tuple[int | str, ...],
    names: NamesLike,
    *,
    check: bool,
) -> dict[str, Group]:
    groups = {}
    owners: dict[str, str] = {}
    for name, section in sections.items():
        if name == DEFAULT_GROUP:
            names.warning((*at, name), "this name is kept for models in no other group; ignored")
            continue
        for index, member in enumerate(section.members):
            loc: tuple[int | str, ...] = (*at, name, "members", index)
            if check and owners.get(member) == name:
                names.error(loc, f"duplicate model member {member!r}")
            elif check and member in owners:
                owner = owners[member]
                names.error(loc, f"model member {member!r} is used in multiple groups: {owner!r}")
            elif check and member not in names.models:
                names.unknown(loc, member, _hint(member, names))
            owners.setdefault(member, name)
        groups[name] = Group(
            id=name,
            members=section.members,
            swap=section.swap,
            exclusive=section.exclusive,
            persistent=section.persistent,
        )
    rest = tuple(name for name in names.models if name not in owners)
    groups[DEFAULT_GROUP] = Group(id=DEFAULT_GROUP, members=rest)
    return groups


def _hint(name: str, names: NamesLike) -> str:
    real = names.real_name(name)
    return f"; it is an alias of {real!r}: use that" if real is not None else ""


def _read_matrix(
    section: MatrixSection, at: tuple[int | str, ...], names: NamesLike, *, check: bool
) -> Matrix:
    matrix = Matrix(
        variables=section.vars,
        costs={section.vars.get(name, name): cost for name, cost in section.evict_costs.items()},
        sets=section.sets,
    )
    if check:
        _check_matrix(section, at, names)
    return matrix


def _check_matrix(section: MatrixSection, at: tuple[int | str, ...], names: NamesLike) -> None:
    for name, target in section.vars.items():
        if not _is_variable(name):
            message = f"expected 1 to 32 letters, digits, '-' or '.' as variable, found {name!r}"
            names.error((*at, "vars", name), message)
        if target not in names.models:
            names.unknown((*at, "vars", name), target, _hint(target, names))
    for name, cost in section.evict_costs.items():
        if cost <= 0:
            names.error((*at, "evict_costs", name), f"expected a cost > 0, found {cost}")
        if name not in section.vars and name not in names.models:
            names.error((*at, "evict_costs", name), f"unknown variable or model {name!r}")
    if not section.sets:
        names.error((*at, "sets"), "expected at least one set")
    _check_sets(section, (*at, "sets"), names)


def _is_variable(name: str) -> bool:
    return 1 <= len(name) <= 32 and all(
        char in "-." or (char.isascii() and char.isalnum()) for char in name
    )


def _check_sets(section: MatrixSection, at: tuple[int | str, ...], names: NamesLike) -> None:
    parsed: dict[str, Expression] = {}
    parts = 0
    for name, text in section.sets.items():
        parts += 1 + text.count("|") + text.count("&")
        if parts > _MOST_PARTS:
            message = f"expected at most {_MOST_PARTS} names in all sets together, found more"
            names.error((*at, name), message)
            return
        try:
            parsed[name] = parse_expression(text)
        except ExpressionError as error:
            names.error((*at, name), f"not a set expression: {error}")
    for name, expression in parsed.items():
        models, sets = references(expression)
        for model in models:
            if model not in section.vars and model not in names.models:
                message = f"unknown variable or model {model!r}{_hint(model, names)}"
                names.error((*at, name), message)
        for other in sets:
            if other not in section.sets:
                names.error((*at, name), f"unknown set '+{other}'")
    for name in order_sets(parsed)[1]:
        message = f"the '+' references of set {name!r} lead into a cycle"
        names.error((*at, name), message)


class Coexistence:
    """Decides which models may run at the same time, within a budget of work.

    Args:
        routing: Groups or a matrix.
    """

    def __init__(self, routing: Routing) -> None:
        self._home = {name: group for group in routing.groups.values() for name in group.members}
        self._matrix = routing.matrix if routing.use == "matrix" else None
        self._is_grouped = routing.use == "group"
        self._sets: dict[str, Expression] | None = None
        self._budget = [_MOST_WORK]

    def allows(self, models: Sequence[str]) -> bool:
        """Return True if all *models* (ids) may run at the same time, or if the budget is spent."""
        if self._is_grouped:
            home = self._home.get(models[0])
            return (
                home is not None
                and not home.swap
                and all(self._home.get(name) is home for name in models)
            )
        if self._matrix is None or len(models) > _MOST_TARGETS:
            return True
        variables, among = self._matrix.variables, frozenset(models)
        try:
            found = families(
                self._parsed(self._matrix),
                lambda name: variables.get(name, name),
                among,
                self._budget,
            )
            return any(among in family for family in found)
        except (ExpressionError, TooMuchWorkError):
            return True  # an unknown model is reported elsewhere

    def _parsed(self, matrix: Matrix) -> dict[str, Expression]:
        if self._sets is None:
            self._sets = {name: parse_expression(text) for name, text in matrix.sets.items()}
        return self._sets
