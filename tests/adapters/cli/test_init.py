"""`swapchart init`, and where commands look for a configuration and a proxy."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
from tools.gguf_files import write_gguf
from tools.make_tiny_gguf import write_tiny_gguf

from swapchart.adapters.cli import init as init_module
from swapchart.adapters.cli import main
from swapchart.adapters.cli.defaults import EXIT_CONFIG
from swapchart.adapters.cli.parsers import build_parser
from swapchart.adapters.config import load_config
from swapchart.adapters.memory import Meter
from swapchart.runtime.ports import PoolReading


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in a home without configurations."""
    for name in ("SWAPCHART_CONFIG", "XDG_CONFIG_HOME", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_init_writes_what_config_check_accepts(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of models becomes a configuration with a schema for editors; the rest is named."""
    write_tiny_gguf(place / "tiny-Q4_0.gguf")
    (place / "bad.gguf").write_bytes(b"junk")

    assert main(["init", str(place)]) == 0

    said = capsys.readouterr().out
    assert "bad.gguf: expected the magic GGUF" in said
    assert "note: llama-server is not in PATH; install llama.cpp" in said
    assert "config.yaml: 1 model\n" in said
    assert said.endswith("next: swapchart serve\n")
    config = load_config([Path("config.yaml")])
    assert (list(config.models), config.start_on_get) == (["tiny"], "pages")
    assert "properties" in json.loads(Path("swapchart.schema.json").read_text())
    assert stat.S_IMODE(Path("config.yaml").stat().st_mode) == 0o666 & ~_umask()
    assert main(["config", "check"]) == 0
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("is_link", [False, True])
def test_init_of_a_folder_above_writes_paths_without_dots(place: Path, *, is_link: bool) -> None:
    """Also where the working directory is a link, whose parent is another folder."""
    (place / "models").mkdir()
    write_tiny_gguf(place / "models" / "tiny.gguf")
    if is_link:
        (place / "elsewhere").mkdir()
        (place / "elsewhere" / "link").symlink_to(place / "work")
        os.chdir(place / "elsewhere" / "link")
        given = f"{place}/elsewhere/link/../models"
    else:
        given = "../models"

    assert main(["init", given]) == 0
    assert f"--model {place}/models/tiny.gguf" in Path("config.yaml").read_text()


def test_init_without_anything_to_look_at_is_a_usage_error(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init"]) == 2
    assert capsys.readouterr().err.startswith("swapchart: init: expected folders with models")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_init_overwrites_only_with_force(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that exists stays as it is, before anything is searched."""
    write_tiny_gguf(place / "tiny.gguf")
    Path("config.yaml").write_text("mine")

    assert main(["init", str(place)]) == 1
    assert capsys.readouterr().err == (
        "swapchart: config.yaml exists; write to another file with -o, or use --force\n"
    )
    assert Path("config.yaml").read_text() == "mine"
    assert main(["init", str(place), "-o", "other.yaml"]) == 0
    assert capsys.readouterr().out.endswith("next: swapchart serve --config other.yaml\n")
    assert main(["init", str(place), "--force"]) == 0
    assert "tiny:" in Path("config.yaml").read_text()


def test_init_takes_models_of_ollama_and_vllm(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both come beside those of folders, under the names that their users know."""
    manifest = place / "home/.ollama/models/manifests/registry.ollama.ai/library/llama3.2/latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:1"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    write_gguf(place / "home/.ollama/models/blobs/sha256-1")

    assert main(["init", "--ollama", "--vllm", "Qwen/Qwen3-8B"]) == 0

    config = load_config([Path("config.yaml")])
    assert list(config.models) == ["llama3.2", "Qwen/Qwen3-8B"]
    assert config.aliases == {"llama3.2:latest": "llama3.2"}
    assert "Qwen/Qwen3-8B  memory not known before its first start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "no model was found in empty; nothing was written"),
        (["empty/file"], "no model was found in empty/file; nothing was written"),
        (["--ollama"], "no store of Ollama in "),
        (["--vllm", "x", "-o", "no/folder/c.yaml"], "no/folder/c.yaml cannot be written"),
        (["--vllm", "x", "-o", "empty"], "empty exists; write to another file"),
        (["--vllm", "x", "-o", "empty", "--force"], "empty cannot be written: Is a directory"),
    ],
)  # fmt: skip
def test_init_failure_is_one_line_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """The error says what to do, and the exit code is 1."""
    Path("empty").mkdir()
    Path("empty/file").touch()

    assert main(["init", *arguments]) == 1

    said = capsys.readouterr()
    assert said.err.startswith(f"swapchart: {message}")
    assert said.err.count("\n") == 1
    assert "\n\n" not in f"\n{said.out}"
    assert sorted(path.name for path in Path().iterdir()) == ["empty"]
    assert [path.name for path in Path("empty").iterdir()] == ["file"]


class _Unreadable:
    """Memory that cannot be read, as where /proc is hidden."""

    def read(self, _: Iterable[int]) -> list[PoolReading]:
        raise OSError("/proc/meminfo has no line MemTotal")


def test_init_without_readable_memory_writes_and_says_so(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model takes is still estimated; nothing says that it does not fit."""
    write_tiny_gguf(place / "tiny.gguf")
    monkeypatch.setattr(init_module, "Meter", lambda: Meter([_Unreadable()]))

    assert main(["init", str(place)]) == 0

    said = capsys.readouterr().out
    assert "memory for models: not known\n" in said
    assert "note: the memory of this machine cannot be read" in said
    assert "/proc/meminfo has no line MemTotal" in said
    assert "MiB of RAM by estimate  " in said
    assert list(load_config([Path("config.yaml")]).models) == ["tiny"]
    assert "not start" not in Path("config.yaml").read_text()


CONFIG = "models: {a: {cmd: '/bin/true ${PORT}'}}\n"


def test_configuration_is_found_at_known_places(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable comes before the working directory, and that before the user's own directory."""
    assert main(["config", "check"]) == 1
    assert "swapchart init DIR" in capsys.readouterr().err
    assert main(["serve"]) == EXIT_CONFIG
    assert main(["kv", "list"]) == 1
    capsys.readouterr()
    own = place / "home/.config/swapchart/config.yaml"
    for path, shown in [
        (own, str(own)), (Path("config.yaml"), "config.yaml"), (place / "x/a.yaml", "a.yaml"),
    ]:  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIG)
        if path.name == "a.yaml":
            monkeypatch.setenv("SWAPCHART_CONFIG", str(path))
        assert main(["config", "check"]) == 0
        assert capsys.readouterr().out.endswith(f"{shown}: ok\n")
    monkeypatch.setenv("SWAPCHART_CONFIG", str(place / "x"))
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out == f"{place / 'x'}: ok\n"
    assert main(["kv", "list"]) == 0


def test_proxy_and_key_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options come before them."""
    monkeypatch.setenv("SWAPCHART_URL", "http://there:1")
    monkeypatch.setenv("SWAPCHART_API_KEY", "secret")

    for command in (["history", "m"], ["config", "reload"], ["memory"]):
        options = build_parser().parse_args(command)
        assert (options.url, options.api_key) == ("http://there:1", "secret")
        options = build_parser().parse_args([*command, "--url", "u", "--api-key", "k"])
        assert (options.url, options.api_key) == ("u", "k")
    monkeypatch.setenv("SWAPCHART_URL", "")
    assert build_parser().parse_args(["memory"]).url == "http://127.0.0.1:8080"


def test_key_of_commands_is_not_given_to_models(tmp_path: Path) -> None:
    """A proxy that is started in the same terminal does not hand it on."""
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)

    assert "SWAPCHART_API_KEY" in load_config([path]).drop_env
