"""Adding a kind of hook action touches the five files that `runtime/hook_actions.py` lists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from swapchart.adapters.config.schema.hooks import HookSection
from swapchart.runtime import CallAction, Hook, hook_actions

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for room in ("machine", "runtime", "adapters") for path in (ROOT / room).rglob("*.py")
)
LISTED = re.findall(r"^\d\. ``(\S+)``", hook_actions.__doc__ or "", re.MULTILINE)
KINDS = [kind for kind in get_args(hook_actions.HookAction) if kind is not CallAction]
#: Keys of a hook that are not its action.
COMMON_KEYS = {"shell", "place", "timeout", "retries", "delay", "on_error"}


def names_in(path: Path) -> set[str]:
    """Return all names that the source at *path* uses: variables, attributes, imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name):
                names.add(name.rpartition(".")[2])
    return names


def test_docstring_lists_five_files() -> None:
    """The list that a contributor follows has five files, and each exists."""
    assert len(LISTED) == 5
    assert [name for name in LISTED if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_kind_of_action_is_named_in_the_listed_files_only(kind: type) -> None:
    """The class of a configurable kind occurs in the listed files, and in no other source."""
    found = {str(path.relative_to(ROOT)) for path in SOURCES if kind.__name__ in names_in(path)}

    schema = "adapters/config/schema/hooks.py"  # has the keys, not the class
    assert found == set(LISTED) - {schema}


def test_section_of_a_kind_is_named_in_the_listed_files_only() -> None:
    """The keys of a kind are known to the schema and the builder alone."""
    found = {str(path.relative_to(ROOT)) for path in SOURCES if "HttpSection" in names_in(path)}

    assert found == {"adapters/config/schema/hooks.py", "adapters/config/build_hooks.py"}


def test_each_configurable_kind_has_its_key() -> None:
    """There are as many keys for actions as kinds, so no kind is missing from the configuration."""
    keys = HookSection.model_fields.keys() - COMMON_KEYS

    assert len(keys) == len(KINDS)


def test_runner_knows_no_kind() -> None:
    """A hook is performed through its action's own methods."""
    for kind in get_args(hook_actions.HookAction):
        assert callable(kind.perform)
        assert isinstance(kind.needs_slot, bool)
    assert Hook.__annotations__["action"] == "HookAction"
