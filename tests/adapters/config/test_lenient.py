"""Lenient loading: models with errors are refused, and the others can be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapchart.adapters.config import ConfigProblems, load_config

_GOOD = "  good: {cmd: 's ${PORT}', aliases: [fine]}\n  other: {cmd: 's ${PORT}'}\n"


def load(folder: Path, text: str, *, is_lenient: bool = True) -> tuple[list[str], list[str]]:
    """Return the models of the configuration *text*, and its warnings."""
    file = folder / "c.yaml"
    file.write_text(text)
    config = load_config([file], is_lenient=is_lenient)
    return list(config.models), [f"{item.path}: {item.message}" for item in config.warnings]


@pytest.mark.parametrize(
    ("text", "models", "warning"),
    [
        (
            f"models:\n{_GOOD}  bad: {{cmd: ''}}\n", ["good", "other"],
            "models.bad.cmd: model 'bad' is refused: empty command",
        ),
        (
            f"models:\n{_GOOD}  my.bad: {{cmd: s, proxy: 'http://h', ttl: -5}}\n",
            ["good", "other"], "models.my.bad.ttl: model 'my.bad' is refused: expected >= -1",
        ),
        (
            f"models:\n{_GOOD}  bad: {{cmd: 's ${{nope}} ${{PORT}}'}}\n", ["good", "other"],
            "models.bad.cmd: model 'bad' is refused: unknown macro",
        ),
        (
            f"models:\n{_GOOD}groups:\n  g: {{members: [other, fine]}}\n", ["other"],
            "groups.g.members[1]: model 'good' is refused: unknown model 'fine'; it is an alias",
        ),
        (
            f"models:\n{_GOOD}  bad: {{cmd: '', aliases: [b]}}\n"
            "routing: {router: {settings: {groups: {g: {members: [good, bad, other]}}}}}\n",
            ["good", "other"], "models.bad.cmd: model 'bad' is refused: empty command",
        ),
    ],
)  # fmt: skip
def test_model_with_an_error_is_refused_with_a_warning(
    tmp_path: Path, text: str, models: list[str], warning: str
) -> None:
    """The model is gone, also from its group, and a warning says why; otherwise it is an error."""
    found, warnings = load(tmp_path, text)

    assert found == models
    assert any(item.startswith(warning) for item in warnings), warnings
    with pytest.raises(ConfigProblems):
        load(tmp_path, text, is_lenient=False)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f"ttl: [1\nmodels:\n{_GOOD}", ""),
        (f"startPort: x\nmodels:\n{_GOOD}", "startPort"),
        (f"models:\n{_GOOD}groups:\n  g: {{members: [nope]}}\n", "groups.g.members[0]"),
        (
            f"models:\n{_GOOD}  bad: {{cmd: ''}}\n"
            "selectors:\n  s: {strategy: pin, targets: [bad]}\n",
            "selectors.s.targets[0]",
        ),
    ],
)
def test_error_outside_of_a_model_refuses_the_configuration(
    tmp_path: Path, text: str, where: str
) -> None:
    """What concerns more than one model stays an error; the cause of a refusal is told with it."""
    with pytest.raises(ConfigProblems) as caught:
        load(tmp_path, text)
    paths = [problem.path for problem in caught.value.problems if problem.severity == "error"]

    assert where in paths
    assert ("models.bad.cmd" in paths) == ("bad" in text)


def test_configuration_without_an_error_is_loaded_as_always(tmp_path: Path) -> None:
    """Leniency changes nothing where there is nothing to refuse."""
    text = f"models:\n{_GOOD}groups:\n  g: {{members: [good]}}\n"

    assert load(tmp_path, text) == load(tmp_path, text, is_lenient=False)
