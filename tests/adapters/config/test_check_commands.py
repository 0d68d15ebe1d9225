"""Commands that will not work: shell syntax, programs and model files that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swapchart.adapters.config import check_config
from swapchart.adapters.config.check_commands import shell_syntax


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ("server --port 1", None),
        ("server a && other", "'&&' is passed to the program as a word: commands run without"),
        ("server a | tee log", "'|' is passed to the program"),
        ("cd /models; server", "'/models;' is passed to the program"),
        ("server > log 2>&1", "'>' is passed to the program"),
        ("server &", "'&' is passed to the program"),
        ("server -m ~/m.gguf", "'~/m.gguf': ~ is not expanded; write the whole path, or ${env"),
        ("server -m $HOME/m.gguf", "$HOME is not expanded in '$HOME/m.gguf': write ${env.HOME}"),
        ("server -m ${HOME}/m.gguf", "${HOME} is not expanded in '${HOME}/m.gguf': write ${env"),
        ("server -t $(nproc)", "$( is not expanded in '$(nproc)': commands run without a shell"),
        ("server -t `nproc`", "` is not expanded in '`nproc`': commands run without a shell"),
        ("CUDA_VISIBLE_DEVICES=0 server", "CUDA_VISIBLE_DEVICES= stands before the program: a var"),
        ("bash -c a&&b|c ~/x $HOME", None),
        ("/bin/sh -c $HOME;", None),
        ("env A=1 server --template {{$x}} --price $5 a~b", None),
        ("kill ${PID} --gpus=${GPUS},${GPU}", None),
        ("", None),
    ],
)  # fmt: skip
def test_shell_syntax_is_found_in_commands_without_a_shell(argv: str, found: str | None) -> None:
    """Each word that only a shell understands is named, with what to write instead."""
    said = shell_syntax(argv.split())

    assert (said or "")[: len(found or "")] == (found or "")
    assert (said is None) == (found is None)


def test_check_config_names_the_line_of_each_command(tmp_path: Path) -> None:
    """Commands of models, stops and hooks are checked; macros and quotes are resolved first."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "macros: {root: '~/models'}\n"
        "models:\n"
        "  a:\n"
        "    cmd: server ${PORT} ${root}/x\n"
        "    cmdStop: kill $PID\n"
        "    afterHealthy: echo 'a && b' && touch x\n"
        "  b: {cmd: \"sh -c 'exec server $PORT'\", proxy: 'http://127.0.0.1:1'}\n"
    )

    problems = [(p.line, p.path, p.message[:20], p.severity) for p in check_config([path])]

    assert problems == [
        (4, "models.a.cmd", "'~/models/x': ~ is n", "warning"),
        (5, "models.a.cmdStop", "$PID is not expanded", "warning"),
        (6, "models.a.afterHealthy", "'&&' is passed to th", "warning"),
    ]


@pytest.mark.parametrize(
    ("cmd", "warned"),
    [
        ("server ${PORT} '~/x' '&&' 'a`b' '$HOME'", 0), ('server ${PORT} "~/x"', 1),
        ("server ${PORT} '~/x' ~/y", 1), ("server ${PORT} \\~/x", 1),
        (["server", "${PORT}", "~/x"], 1), ("server ${PORT} ~/'my model'", 1),
        ("""server ${PORT} '$it'"'"'s'""", 0),
    ],
)  # fmt: skip
def test_check_config_leaves_words_in_single_quotes_alone(
    tmp_path: Path, cmd: object, warned: int
) -> None:
    """A shell expands nothing in them; a list is not written for a shell, but as if it were."""
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"models": {"a": {"cmd": cmd}}}))

    assert len(check_config([path])) == warned


def test_check_config_here_names_what_this_machine_lacks(tmp_path: Path) -> None:
    """Programs are looked for in the PATH of the model; paths of model files must exist."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "llama-server").touch(0o755)
    (programs / "plain").touch(0o644)
    (tmp_path / "there.gguf").touch()
    path = tmp_path / "c.yaml"
    path.write_text(
        f"models:\n"
        f"  ok: {{cmd: 'llama-server -m {tmp_path}/there.gguf --port ${{PORT}}'}}\n"
        f"  file: {{cmd: 'llama-server -m {tmp_path}/gone.gguf --lora x --port ${{PORT}}'}}\n"
        f"  program: {{cmd: 'vllm ${{PORT}}', cmdStop: '{programs}/plain', "
        f"afterStop: '/no/such'}}\n"
        f"  own: {{cmd: 'plain ${{PORT}}', env: ['PATH=/elsewhere']}}\n"
        f"  folder: {{cmd: '{programs} ${{PORT}}'}}\n"
    )
    environment = {"PATH": str(programs)}

    said = [
        (p.path, p.message)
        for p in check_config([path], env=environment, is_here=True)
        if p.severity == "warning"
    ]

    assert sorted(said) == [
        ("models.file.cmd", "--lora x: no such file"),
        ("models.file.cmd", f"--model {tmp_path}/gone.gguf: no such file"),
        ("models.folder.cmd", f"the program '{programs}' is a directory"),
        ("models.own.cmd", "the program 'plain' is not in PATH"),
        ("models.program.afterStop", "the program '/no/such' does not exist"),
        ("models.program.cmd", "the program 'vllm' is not in PATH"),
        (
            "models.program.cmdStop",
            f"the program '{programs}/plain' is not executable; chmod +x makes it so",
        ),
    ]
    assert check_config([path], env=environment) == []
