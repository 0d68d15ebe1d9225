"""Commands for models that were found, and the configuration that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.gguf_files import write_gguf
from tools.make_tiny_gguf import write_tiny_gguf

from swapchart.adapters.config import load_config, split_command
from swapchart.adapters.discovery import (
    Engines,
    Found,
    Left,
    Model,
    PlannedModel,
    Role,
    Room,
    configuration,
    find_engines,
    find_models,
    plan_models,
)
from swapchart.adapters.discovery.document import summary

GIB = 1 << 30
ALL = Engines(llama_server="llama-server", vllm="vllm")
BIG: dict[str, Any] = {
    "llama__block_count": 32, "llama__attention__head_count": 32, "llama__embedding_length": 4096,
    "llama__attention__head_count_kv": 8, "llama__context_length": 131072,
}  # fmt: skip
#: 4 GiB of KV cache with 32,768 tokens, and half of it with half of them.


def plan(folder: Path, room: Room, engines: Engines = ALL) -> list[PlannedModel]:
    return plan_models(find_models([folder]), engines, room)


@pytest.mark.parametrize(
    ("room", "context", "fits"),
    [
        (Room(ram=8 * GIB), 32768, True), (Room(ram=3 * GIB), 16384, True),
        (Room(ram=int(1.5 * GIB)), 8192, True), (Room(ram=GIB // 4), 4096, False),
        (Room(gpus={"GPU0": 2 * GIB, "GPU1": 8 * GIB}, ram=GIB), 32768, True),
        (Room(gpus={"GPU0": 3 * GIB, "GPU1": 3 * GIB}, ram=GIB), 32768, True),
        (Room(gpus={"GPU0": 3 * GIB}, ram=GIB), 16384, True),
        (Room(), 4096, None), (Room(gpus={"GPU0": GIB // 4}), 4096, False),
    ],
)  # fmt: skip
def test_plan_takes_the_largest_context_that_fits(
    tmp_path: Path, room: Room, context: int, fits: bool | None
) -> None:
    """One GPU is tried before all of them; if nothing fits, the smallest context remains."""
    write_gguf(tmp_path / "a.gguf", **BIG)

    (planned,) = plan(tmp_path, room)

    assert (planned.context, planned.fits) == (context, fits)


def test_plan_options_follow_the_use_of_the_model(tmp_path: Path) -> None:
    """Embedders, rerankers and projectors get their options; what Ollama knows comes along."""
    write_gguf(tmp_path / "e/e.gguf", "bert", bert__context_length=512)
    write_gguf(tmp_path / "r/r.gguf", "bert", bert__pooling_type=4)
    write_gguf(tmp_path / "v/v.gguf")
    write_gguf(tmp_path / "v/mmproj.gguf", "clip")
    found = find_models([tmp_path])
    settings = {"--ctx-size": "2048", "--temp": "0.6"}
    found.models.append(
        Model(
            path=tmp_path / "v/v.gguf", name="o", size=1, head=found.models[2].head,
            settings=settings, adapters=(Path("l"),),
        )
    )  # fmt: skip

    commands = {each.model.name: " ".join(each.argv) for each in plan_models(found, ALL, Room())}

    at = f"llama-server --model {tmp_path}"
    assert commands == {
        "e": f"{at}/e/e.gguf --port ${{PORT}} --ctx-size 512 --embeddings",
        "r": f"{at}/r/r.gguf --port ${{PORT}} --ctx-size 4096 --reranking",
        "v": f"{at}/v/v.gguf --port ${{PORT}} --ctx-size 4096 --mmproj {tmp_path}/v/mmproj.gguf",
        "o": f"{at}/v/v.gguf --port ${{PORT}} --ctx-size 2048 --lora l --temp 0.6",
    }


def test_plan_safetensors_need_vllm(tmp_path: Path) -> None:
    """Without it they are left out; a model that the user asks for is written nevertheless."""
    found = Found(models=[Model(path=tmp_path / "x", name="x", size=1, role=Role.EMBEDDING)])

    assert plan_models(found, Engines(), Room()) == []
    assert [left.reason for left in found.left] == [
        "a directory of safetensors, and vllm is not in PATH"
    ]
    embedder, asked = plan_models(found, ALL, Room(), ["Qwen/Qwen3-8B"])
    assert embedder.argv[-2:] == ("--runner", "pooling")
    assert asked.argv == (
        "vllm", "serve", "Qwen/Qwen3-8B", "--port", "${PORT}", "--served-model-name",
        "Qwen/Qwen3-8B",
    )  # fmt: skip


def test_engines_are_those_in_path() -> None:
    """They are written by name."""
    assert find_engines({"vllm": "/opt/bin/vllm"}.get) == Engines(vllm="vllm")


def loaded(folder: Path, planned: list[PlannedModel], left: list[Left]) -> dict[str, list[str]]:
    text = configuration(planned, left, Room(ram=GIB), name="c.yaml", schema="s.json")
    path = folder / "c.yaml"
    path.write_text(text, "utf-8")
    config = load_config([path])
    assert not config.warnings
    return {name: list(split_command(model.cmd)) for name, model in config.models.items()}


def test_configuration_is_what_serve_loads(tmp_path: Path) -> None:
    """Names, aliases, commands and comments are in it, and it has no warning."""
    write_tiny_gguf(tmp_path / 'it\'s a ${model} "x"-Q4_0.gguf')
    planned = plan(tmp_path, Room(ram=8 * GIB))

    cmd = loaded(tmp_path, planned, [Left(Path("b\nc"), "no\x1bgood")])["it-s-a-model-x"]

    assert cmd[2] == str(tmp_path / 'it\'s a ${model} "x"-Q4_0.gguf')
    text = (tmp_path / "c.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=s.json\n")
    assert "    aliases: [it-s-a-model-x--Q4_0]\n" in text
    assert "#   b?c: no?good\n" in text
    assert "KV cache of 8192 tokens" in text


WORDS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=12)

NAMES = st.from_regex(r"[\w.:/+@-]{1,12}", fullmatch=True)


@given(st.lists(WORDS.filter(str.isprintable), min_size=1, max_size=4), NAMES)
def test_configuration_keeps_any_argument(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], name: str
) -> None:
    """Each printable argument and name is read back as it was."""
    folder = tmp_path_factory.mktemp("any")
    model = Model(path=Path("x"), name=name, size=1)
    planned = PlannedModel(model=model, argv=("server", "--port", "${PORT}", *words))

    (cmd,) = loaded(folder, [planned], []).values()

    assert [cmd[0], *cmd[3:]] == ["server", *words]


def test_summary_says_what_fits_and_what_was_left_out(tmp_path: Path) -> None:
    """One line for each, aligned."""
    write_gguf(tmp_path / "a.gguf", **BIG)
    (tmp_path / "b.gguf").touch()
    found = find_models([tmp_path])
    planned = plan_models(found, ALL, Room(ram=GIB // 4))

    assert list(summary(planned, found.left)) == [
        f"  a  657 MiB of RAM by estimate: more than this machine has for models  "
        f"{tmp_path}/a.gguf",
        "left out: 1",
        f"  {tmp_path}/b.gguf: expected the magic GGUF, found an empty file",
    ]
