"""The command line takes what llama-swap's takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapchart import __version__
from swapchart.adapters.cli import build_parser, main


@pytest.mark.parametrize("dash", ["-", "--"])
def test_2_1_llama_swaps_flags(dash: str) -> None:
    """After ``serve`` its flags are understood, with one dash or two."""
    flags = f"{dash}config a.yaml {dash}config-dir d {dash}listen :9000 {dash}watch-config"

    options = build_parser().parse_args(["serve", *flags.split()])

    assert (options.config, options.config_dir) == ([Path("a.yaml")], Path("d"))
    assert (options.listen, options.watch_config) == (":9000", True)


@pytest.mark.parametrize("flag", ["-version", "--version"])
def test_2_1_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The version is printed, and that is all."""
    with pytest.raises(SystemExit) as ended:
        main([flag])

    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out
