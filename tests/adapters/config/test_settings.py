"""Settings of a model as they are in force, with file and line."""

from __future__ import annotations

from pathlib import Path

from swapchart.adapters.config import load_config

TEXT = """\
macros:
  size: 4096
models:
  a:
    cmd: server --ctx ${size} --token ${env.SECRET} --port ${PORT}
    aliases: [b, c]
    filters:
      stripParams: top_k
    env:
      - NAME=value
"""


def test_settings_have_macros_expanded_and_the_lines_of_the_file(tmp_path: Path) -> None:
    """A variable of the environment is named, and its value is not shown."""
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    found = load_config([path], env={"SECRET": "hidden"}).settings["a"]

    assert {setting.file for setting in found} == {str(path)}
    rows = [(setting.key, setting.line) for setting in found]
    given = [("cmd", 5), ("aliases", 6), ("filters.stripParams", 8), ("env", 10)]
    assert rows == [*given, ("proxy", 5)]  # the default, for the port of the command
    assert found[0].value.startswith("server --ctx 4096 --token ${env.SECRET} --port ")
    assert [setting.value for setting in found[1:4]] == ["[b, c]", "top_k", "[NAME=value]"]
