"""Names of models, aliases, peers, selectors and profiles, and a check that each is unambiguous.

Source: llama-swap's behavior.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import replace

from .build_model import build_filters
from .document.nodes import Node
from .expand import Expanded
from .problem_collector import ProblemCollector
from .routing import Coexistence
from .schema.document import DocumentSection
from .url import url_problem
from .validate import locate
from .values import ModelConfig, Peer, Profile, Routing, Selector


class Names:
    """Collects the names of a document and checks them against each other.

    Args:
        expanded: Document, for the locations of problems.
        models: Models, whose aliases are completed.
        is_partial: Some names could not be read, so unknown names are not reported.

    Attributes:
        peer_names: Name of a remote model, full or bare -> (peer id, bare model name).
    """

    def __init__(
        self,
        expanded: Expanded,
        models: Map[str, ModelConfig],
        collector: ProblemCollector,
        *,
        is_partial: bool = False,
    ) -> None:
        self._expanded, self._collector = expanded, collector
        self.models = dict(models)
        self.aliases: dict[str, str] = {}
        self.peer_names: dict[str, tuple[str, str]] = {}
        self._is_partial = is_partial
        self._explicit_aliases()
        self._automatic_aliases()

    def unknown(self, loc: tuple[int | str, ...], name: str, hint: str = "") -> None:
        """Report that *name*, at *loc*, is not the name of a model."""
        if not self._is_partial:
            self.error(loc, f"unknown model {name!r}{hint}")

    def real_name(self, name: str) -> str | None:
        """Return the id of the local model called *name*, or None."""
        return name if name in self.models else self.aliases.get(name)

    def place(self, *loc: int | str) -> tuple[Node, str]:
        """Return the node at *loc* and its dotted path."""
        if loc[0] == "models":
            tree = self._expanded.models[str(loc[1])]
            return locate(tree.node, f"models.{loc[1]}", loc[2:])
        return locate(self._expanded.top, "", loc)

    def error(self, loc: tuple[int | str, ...], message: str) -> None:
        """Report an error at *loc*."""
        self._collector.error(*self.place(*loc), message)

    def warning(self, loc: tuple[int | str, ...], message: str) -> None:
        """Report a warning at *loc*."""
        self._collector.warning(*self.place(*loc), message)

    def _explicit_aliases(self) -> None:
        for model in self.models.values():
            for index, alias in enumerate(model.aliases):
                loc = ("models", model.id, "aliases", index)
                if alias in self.aliases:
                    owner = self.aliases[alias]
                    self.error(loc, f"duplicate alias {alias!r}, already used by model {owner!r}")
                    continue
                self.aliases[alias] = model.id
                if alias in self.models and alias != model.id:
                    self.warning(loc, f"alias {alias!r} is also a model's id, which comes first")

    def _automatic_aliases(self) -> None:
        for name in sorted(self.models):
            model = self.models[name]
            added = []
            for key in model.filters.set_params_by_id:
                loc = ("models", name, "filters", "setParamsByID", key)
                if key == name or self.aliases.get(key) == name:
                    continue
                if key in self.models:
                    self.error(loc, f"{key!r} conflicts with an existing model ID")
                elif key in self.aliases:
                    owner = self.aliases[key]
                    self.error(loc, f"duplicate alias {key!r}, already used by model {owner!r}")
                else:
                    self.aliases[key] = name
                    added.append(key)
            if added:
                self.models[name] = replace(model, aliases=(*model.aliases, *added))

    def read_peers(self, document: DocumentSection) -> dict[str, Peer]:
        """Return the peers; their full names must not collide with other names."""
        peers = {}
        for name, section in document.peers.items():
            loc = ("peers", name)
            if not section.proxy:
                self.error((*loc, "proxy"), "proxy is required")
            elif problem := url_problem(section.proxy):
                self.error((*loc, "proxy"), f"invalid peer proxy URL: {problem}")
            if not section.models:
                self.error((*loc, "models"), "peer models can not be empty")
            peers[name] = Peer(
                id=name,
                proxy=section.proxy.rstrip("/"),
                api_key=section.api_key if section.api_key.get_secret_value() else None,
                models=section.models,
                filters=build_filters(section.filters),
                timeouts=section.timeouts,
            )
        self._index_peers(peers)
        self._check_reserved(document, peers)
        return peers

    def _index_peers(self, peers: Map[str, Peer]) -> None:
        """Index full names first; a bare name counts if exactly one peer has it."""
        bare: dict[str, set[str]] = {}
        full: dict[str, tuple[str, str]] = {}
        for peer in peers.values():
            for index, model in enumerate(peer.models):
                name = f"{peer.id}/{model}"
                if name in full:
                    other = full[name][0]
                    message = f'peer model name "{name}" is ambiguous: peer {other!r} has it too'
                    self.error(("peers", peer.id, "models", index), message)
                full[name] = (peer.id, model)
                bare.setdefault(model, set()).add(peer.id)
        unique = {model: (ids.pop(), model) for model, ids in bare.items() if len(ids) == 1}
        self.peer_names = {**unique, **full}

    def _check_reserved(self, document: DocumentSection, peers: Map[str, Peer]) -> None:
        reserved = {f"{peer.id}/{model}" for peer in peers.values() for model in peer.models}
        message = "conflicts with fully qualified peer model name"
        for model in self.models.values():
            if model.id in reserved:
                self.error(("models", model.id), f"model ID {model.id!r} {message}")
            for alias in set(model.aliases) & reserved:
                self.error(("models", model.id, "aliases"), f"alias {alias!r} {message}")
        for selector in document.selectors.keys() & reserved:
            self.error(("selectors", selector), f"selector ID {selector!r} {message}")
        for profile, section in document.profiles.items():
            for pin in section.pins.keys() & reserved:
                self.error(("profiles", profile, "pins", pin), f"pin {pin!r} {message}")

    def read_selectors(self, document: DocumentSection, routing: Routing) -> dict[str, Selector]:
        """Return the selectors; every target must be a model, an alias or a peer model."""
        selectors = {}
        coexistence = Coexistence(routing)
        for name, section in document.selectors.items():
            selector = Selector(
                id=name,
                strategy=section.strategy,
                targets=section.targets,
                spillover=section.settings.spillover,
                name=section.name.strip(),
                description=section.description.strip(),
                unlisted=section.unlisted,
                metadata=section.metadata,
            )
            selectors[name] = selector
            self._check_selector(selector, document, routing, coexistence)
        return selectors

    def _check_selector(
        self, selector: Selector, document: DocumentSection, routing: Routing,
        coexistence: Coexistence,
    ) -> None:  # fmt: skip
        loc = ("selectors", selector.id)
        if not selector.id.strip():
            self.error(loc, "expected a name for the selector, found a blank one")
        if (owner := self.real_name(selector.id)) is not None:
            self.error(loc, f"selector {selector.id!r} is also a name of model {owner!r}")
        local, remote = [], []
        for index, target in enumerate(selector.targets):
            here = (*loc, "targets", index)
            if (model := self.real_name(target)) is not None:
                local.append(model)
            elif (peer := self.peer_names.get(target)) is not None:
                remote.append("/".join(peer))
                if selector.strategy == "warm":
                    self.error(here, f"a warm selector's targets must be local, {target!r} is not")
            elif target in document.selectors:
                self.error(here, f"{target!r} is a selector: selector chaining is not supported")
            else:
                self.unknown(here, target)
        if selector.strategy == "spillover":
            self._check_spillover(selector, local, remote, routing, coexistence)

    def _check_spillover(
        self, selector: Selector, local: list[str], remote: list[str], routing: Routing,
        coexistence: Coexistence,
    ) -> None:  # fmt: skip
        loc = ("selectors", selector.id)
        if selector.spillover < 1:
            message = f"expected spillover >= 1, found {selector.spillover}"
            self.error((*loc, "settings", "spillover"), message)
        if len({*local, *remote}) < len(local) + len(remote):
            self.error((*loc, "targets"), "spillover targets must be distinct models")
        elif len(local) > 1 and not coexistence.allows(local):
            names = ", ".join(local)
            how = "a set of the matrix" if routing.use == "matrix" else "one group with swap: false"
            message = f"the local targets ({names}) cannot run together: expected {how} with all"
            self.error((*loc, "targets"), message)

    def read_profiles(self, document: DocumentSection) -> dict[str, Profile]:
        """Return the profiles; every pin's target must exist."""
        profiles = {}
        for name, section in document.profiles.items():
            loc = ("profiles", name)
            if not name.strip():
                self.error(loc, "expected a name for the profile, found a blank one")
            if not section.pins:
                self.error((*loc, "pins"), "expected at least one pin")
            for pin, target in section.pins.items():
                here = (*loc, "pins", pin)
                if not pin.strip():
                    self.error(here, "expected a name for the pin, found a blank one")
                if target and not self._is_known(target, document):
                    self.unknown(here, target)
            pins = {pin: target or None for pin, target in section.pins.items()}
            profiles[name] = Profile(id=name, description=section.description, pins=pins)
        return profiles

    def _is_known(self, name: str, document: DocumentSection) -> bool:
        return (
            self.real_name(name) is not None
            or name in document.selectors
            or self.peer_names.get(name) is not None
        )
