"""Sections: classes of the configuration, and the checks of their fields."""

from __future__ import annotations

import pickle
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapchart.adapters.config.schema.checks import check_section
from swapchart.adapters.config.schema.document import config_schema
from swapchart.adapters.config.schema.model import Drain, ModelSection, Restart
from swapchart.adapters.config.schema.section import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    Section,
    refuse,
)


def _as_even(value: int) -> int:
    if value % 2:
        raise refuse("expected an even number")
    return value


class Inner(Section):
    """A section in a section."""

    size: Annotated[int, Field(ge=1, le=9)]
    is_on: bool = False


class Outer(Section):
    """One field of each kind."""

    count: Annotated[int, AfterValidator(_as_even)] = 2
    share: Annotated[float, Field(gt=0)] = 1.0
    any_share: Annotated[float, Field(allow_inf_nan=True)] = 1.0
    word: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    filled: Annotated[str, Field(min_length=1)] = "a"
    choice: Literal["a", "b", "c"] = "a"
    names: tuple[str, ...] = Field(default=(), min_length=1)
    numbers: dict[str, int] = Field(default_factory=dict)
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    twice: Annotated[int, BeforeValidator(lambda value: value * 2)] = 0
    secret: SecretStr = SecretStr("")
    free: Any = None

    def _check_fields(self) -> None:
        if self.count > 100 and self.share < 1:
            raise refuse("expected share >= 1")


def errors_of(**data: object) -> list[tuple[str, str]]:
    section, errors = check_section(Outer, data)
    assert (section is None) == bool(errors)
    return [(".".join(map(str, error.location)), error.message) for error in errors]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", 3, "expected an even number"),
        ("count", True, "expected an integer"),
        ("count", 2.0, "expected an integer"),
        ("count", "2", "expected an integer"),
        ("share", 0, "expected > 0"),
        ("share", False, "expected a number"),
        ("share", float("inf"), "expected a finite number"),
        ("share", float("nan"), "expected a finite number"),
        ("share", 10**400, "expected a finite number"),
        ("word", "a\n", "expected a text that matches ^[a-z]+$"),
        ("word", 1, "expected a text"),
        ("filled", "", "expected a text that is not empty"),
        ("choice", "d", "expected 'a', 'b' or 'c'"),
        ("choice", ["a"], "expected 'a', 'b' or 'c'"),
        ("names", [], "expected a list that is not empty"),
        ("names", "a", "expected a list"),
        ("numbers", [], "expected a mapping"),
        ("inner", 1, "expected a mapping"),
        ("secret", 1, "expected a text"),
    ],
)
def test_invalid_value_is_refused_with_what_was_expected(
    key: str, value: object, message: str
) -> None:
    assert errors_of(**{key: value}) == [(key, message)]


def test_all_errors_are_found_at_once() -> None:
    found = errors_of(
        count=1, names=["a", 2, 3], numbers={"x": "y", "z": 1}, inner={"size": 0, "isOn": "no"},
        many=[{"size": 1}, {}, {"size": 10}],
    )  # fmt: skip

    assert found == [
        ("count", "expected an even number"),
        ("names.1", "expected a text"),
        ("names.2", "expected a text"),
        ("numbers.x", "expected an integer"),
        ("inner.size", "expected >= 1"),
        ("inner.isOn", "expected true or false"),
        ("many.1.size", "size is required"),
        ("many.2.size", "expected <= 9"),
    ]


def test_fields_that_do_not_fit_together_are_an_error_of_the_section() -> None:
    assert errors_of(count=102, share=0.5) == [("", "expected share >= 1")]
    assert errors_of(count=102, share=0) == [("share", "expected > 0")]  # alone, as it comes first


def test_valid_values_are_converted() -> None:
    section, errors = check_section(
        Outer, {"share": 2, "anyShare": float("inf"), "names": ["a"], "inner": {"size": 3},
                "twice": 4, "secret": "s", "free": {"a": [1]}},
    )  # fmt: skip

    assert errors == []
    assert section == Outer(
        share=2.0, any_share=float("inf"), names=("a",), inner=Inner(size=3), twice=8,
        secret=SecretStr("s"), free={"a": [1]},
    )  # fmt: skip
    assert section is not None
    assert isinstance(section.share, float)
    assert section.model_fields_set == {
        "share", "any_share", "names", "inner", "twice", "secret", "free",
    }  # fmt: skip


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([f.alias for f in Outer.model_fields.values()]), _JSON))
def test_any_data_is_read_or_refused(data: dict[str, Any]) -> None:
    data.pop("twice", None)  # its validator, of this test, takes numbers only
    found = errors_of(**data)
    assert all(place.split(".")[0] in {*data, ""} for place, _ in found)


def test_section_in_code_has_the_defaults_and_no_other_fields() -> None:
    assert Restart(backoff_max=5.0).backoff == 1.0
    with pytest.raises(TypeError, match="unexpected fields of Drain"):
        Drain(backoff=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Inner needs size"):
        Inner()  # type: ignore[call-arg]


def test_section_is_a_value() -> None:
    one, two = Drain(timeout=5.0), Drain(timeout=5.0, policy="cut")

    assert one == two
    assert hash(one) == hash(two)
    assert one != Drain()
    assert one != "text"
    assert repr(one) == "Drain(timeout=5.0, policy='cut')"
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError, match="Drain cannot be changed"):
        one.timeout = 3.0  # type: ignore[misc]


def test_secret_is_not_shown() -> None:
    shown = f"{SecretStr('word')} {SecretStr('word')!r} {ModelSection(env=(SecretStr('word'),))}"

    assert "word" not in shown
    assert SecretStr("word").get_secret_value() == "word"


def test_schema_of_a_field_has_its_bounds() -> None:
    """Editors read the bounds by their names in JSON Schema."""
    kinds = config_schema()["$defs"]

    assert kinds["Queue"]["properties"]["limit"]["minimum"] == 1
    assert kinds["Restart"]["properties"]["backoff"]["exclusiveMinimum"] == 0
    assert kinds["YieldSection"]["properties"]["pools"]["minItems"] == 1
    assert kinds["HttpSection"]["properties"]["method"]["pattern"] == "^[A-Za-z]+$"
    assert kinds["HttpSection"]["required"] == ["url"]
