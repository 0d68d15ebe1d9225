"""Estimates from command lines and model files, and what identifies a launch."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tools.make_tiny_gguf import write_tiny_gguf

from swapchart.adapters.llama_cpp.gguf import Gguf, GgufError, read_gguf
from swapchart.adapters.llama_cpp.launch_args import LaunchLine
from swapchart.adapters.memory.estimate import Estimate, estimate, is_elastic, kv_bytes, server_line
from swapchart.adapters.memory.launches import LaunchReader

MIB = 1 << 20
GIB = 1 << 30
SMOLLM2 = {
    "block_count": 30, "attention.head_count": 9, "attention.head_count_kv": 3,
    "embedding_length": 576, "context_length": 8192,
}  # fmt: skip
GPU = {"GPU0": 24 * GIB}
TWO = {"GPU0": 24 * GIB, "GPU1": 8 * GIB}


def head(numbers: Mapping[str, Any] = SMOLLM2, /, architecture: str = "llama", **more: Any) -> Gguf:
    values = {f"{architecture}.{key}": value for key, value in {**numbers, **more}.items()}
    arrays = {key: value for key, value in values.items() if isinstance(value, tuple)}
    scalars = {key: value for key, value in values.items() if key not in arrays}
    return Gguf(architecture=architecture, values=scalars, arrays=arrays)


def kv(options: str, found: Gguf | None = None) -> float:
    line = LaunchLine.parse(["llama-server", *options.split()])
    return kv_bytes(found or head(), line) / MIB


def amounts(options: str, gpus: Mapping[str, int], *, program: str = "llama-server") -> Any:
    found = estimate([*program.split(), *options.split()], {}, gpus)
    return None if found is None else found.amounts


@pytest.mark.parametrize(
    ("options", "mib"),
    [
        ("-c 4096 -np 1", 90.0), ("-c 8192 -np 1", 180.0), ("-c 32768 -np 1", 720.0),
        ("-c 8192 -np 1 -ctk q8_0 -ctv q8_0", 95.625), ("-c 8192 -np 4", 180.0), ("", 180.0),
        ("-c 0 -np 4 -kvu", 180.0), ("-c 8192 -np 1 --cache-type-v q4_0", 115.3125),
        ("-c 300 -np 1", 11.25),
    ],
)  # fmt: skip
def test_estimate_kv_cache_is_what_a_real_server_prints(options: str, mib: float) -> None:
    """The first four are the ``KV buffer size`` of llama-server b10434 with SmolLM2-135M."""
    assert kv(options) == mib


def test_estimate_kv_heads_may_differ_by_layer() -> None:
    found = head({**SMOLLM2, "attention.head_count_kv": (3,) * 10 + (0,) * 10 + (1,) * 10})
    assert kv("-c 8192 -np 1", found) == 180 * (3 * 10 + 10) / 90
    hybrid = head(full_attention_interval=3)
    assert kv("-c 8192 -np 1", hybrid) == 60.0


def test_estimate_layers_with_a_window_keep_the_window_and_a_batch() -> None:
    gemma = {**SMOLLM2, "attention.sliding_window": 512}
    # 5 of 6 layers hold 512 + 512 tokens, the others all
    found = head(gemma, architecture="gemma3")
    assert kv("-c 8192 -np 1", found) == 180 * (5 * 1024 + 8192) / (6 * 8192)
    assert kv("-c 8192 -np 1 --swa-full", found) == 180.0
    assert kv("-c 512 -np 1", found) == 11.25, "a cache is never larger than the context"
    every = head({**gemma, "attention.sliding_window_pattern": (True,) * 30})
    assert kv("-c 8192 -np 1", every) == 22.5
    assert kv("-c 8192 -np 1 -ub 256", every) == 180 * 768 / 8192
    assert kv("-c 8192 -np 1", head(gemma)) == 180.0, "an unknown pattern counts in full"


def test_estimate_latent_attention_keeps_keys_only() -> None:
    found = head({
        "block_count": 2, "attention.head_count": 8, "attention.head_count_kv": 1,
        "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 192, "context_length": 1024,
    }, architecture="deepseek2")  # fmt: skip
    assert kv("-c 1024 -np 1", found) * MIB == 2 * 576 * 2 * 1024


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def test_estimate_of_a_llama_server_sums_files_cache_compute_and_process(tiny: Path) -> None:
    """The model has 2 layers, 2 KV heads of 16 and 64 embeddings."""
    size = tiny.stat().st_size
    cache, compute = 2 * 2 * 2 * 16 * 2 * 1024, 512 * (48 * 64 + 2 * 1024)
    options = f"-m {tiny} -c 1024 -np 1"
    assert amounts(options, {}) == {"RAM": size + cache + compute + 45 * MIB}
    on_gpu = size + cache + compute + 512 * MIB
    assert amounts(options, GPU) == {"GPU0": on_gpu, "RAM": 45 * MIB}
    assert amounts(f"{options} -ngl 99", GPU) == {"GPU0": on_gpu, "RAM": 45 * MIB}
    assert amounts(f"{options} -ngl 0", GPU) == amounts(options, {})
    split = amounts(options, TWO)
    assert split["GPU0"] + split["GPU1"] == on_gpu + 512 * MIB
    assert abs(split["GPU0"] - split["GPU1"]) <= 1
    more = f"{options} --mmproj {tiny} --lora-scaled {tiny}:0.5 -md {tiny}"
    assert amounts(more, {})["RAM"] == size + 2 * cache + compute + 45 * MIB, "one file counts once"
    found = estimate(["llama-server", *options.split()], {}, {})
    assert found is not None
    words = "0 MiB files + 0 MiB KV cache of 1024 tokens + 2 MiB compute + 45 MiB process"
    assert found.note == words
    assert 0 < found.files < sum(found.amounts.values())


@pytest.mark.parametrize(
    "options", ["-ngl 1", "-ngl 2", "-ncmoe 3", "-ot x=CPU", "-ts 1,2", "-nkvo", "-ngl some"]
)
def test_estimate_of_a_model_that_its_options_split_is_unknown(tiny: Path, options: str) -> None:
    assert amounts(f"-m {tiny} {options}", GPU) is None


def test_estimate_variables_count_unless_the_command_says_otherwise(tiny: Path) -> None:
    variables = {"LLAMA_ARG_MODEL": str(tiny), "LLAMA_ARG_CTX_SIZE": "1024"}
    by_variable = estimate(["llama-server", "-np", "1"], variables, {})
    assert by_variable is not None
    assert by_variable.amounts == amounts(f"-m {tiny} -c 1024 -np 1", {})
    both = estimate(["llama-server", "-np", "1", "-c", "2048"], variables, {})
    assert both is not None
    assert both.amounts == amounts(f"-m {tiny} -c 2048 -np 1", {})


@pytest.mark.parametrize(
    "program", ["/opt/llama-server-b11434", "prlimit --as=9000000000 llama-server",
                "numactl -N 0 /bin/llama-server"],
)  # fmt: skip
def test_estimate_finds_the_server_behind_other_programs(tiny: Path, program: str) -> None:
    assert amounts(f"-m {tiny}", {}, program=program) == amounts(f"-m {tiny}", {})


@pytest.mark.parametrize("program", ["whisper-server", "docker run x", "sh -c llama-server-x/y"])
def test_estimate_of_other_programs_is_unknown(program: str) -> None:
    assert server_line(program.split()) is None
    assert amounts("-m x.gguf", GPU, program=program) is None


def test_estimate_of_a_missing_or_wrong_file_is_an_error(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"no model")
    with pytest.raises(GgufError):
        amounts(f"-m {wrong}", {})
    with pytest.raises(FileNotFoundError):
        amounts(f"-m {tmp_path / 'none.gguf'}", {})
    launch = LaunchReader().read("m", ["llama-server", "-m", str(wrong)], {}, {})
    assert launch.key
    assert launch.estimate is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("vllm serve m", {"GPU0": 0.96, "GPU1": None}),
        ("vllm serve m --gpu-memory-utilization 0.5", {"GPU0": 0.56, "GPU1": None}),
        ("python -m vllm.entrypoints.openai.api_server -tp 2", {"GPU0": 0.96, "GPU1": 0.96}),
        ("python -m sglang.launch_server --mem-fraction-static=0.7", {"GPU0": 0.76, "GPU1": None}),
        ("vllm serve m --gpu-memory-utilization lots", {"GPU0": 0.96, "GPU1": None}),
    ],
)
def test_estimate_of_vllm_and_sglang_is_a_fraction_of_each_card(
    command: str, expected: Mapping[str, float | None]
) -> None:
    found = estimate(command.split(), {}, TWO)
    assert found is not None
    assert found.amounts == {
        name: pytest.approx(TWO[name] * share, abs=1)
        for name, share in expected.items() if share is not None
    }  # fmt: skip
    assert estimate(command.split(), {}, {}) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", True), ("-c 4096", True), ("-ngl 99", True), ("-c 0 -ngl 99", True),
        ("-c 4096 -ngl 99", False), ("--fit off", False), ("-c 4096 -ngl 99 --fit on", False),
    ],
)  # fmt: skip
def test_estimate_server_without_context_or_layers_fits_itself(
    options: str, expected: bool
) -> None:
    assert is_elastic(LaunchLine.parse(["llama-server", *options.split()])) is expected


# ---- launches
def key(command: str, variables: Mapping[str, str] | None = None, **more: Any) -> str:
    given = {"gpus": {}, "port": 5800, **more}
    return LaunchReader().read("m", command.split(), variables or {}, **given).key


def test_launch_key_changes_with_what_memory_depends_on_only(tiny: Path) -> None:
    base = f"llama-server -m {tiny} -c 512 --port 5800"
    assert key(base) == key(f"llama-server --ctx-size 512 -m {tiny} --port 5801 --temp 0.5 -t 2")
    others = [
        key(f"{base} {option}")
        for option in ("-c 1024", "-ub 256", "-b 64", "--cache-ram 0", "--no-mmap", "--mlock",
                       "--fit off", "-ctk q8_0", f"--mmproj {tiny}")
    ]  # fmt: skip
    others += [
        key(base, {"LLAMA_ARG_UBATCH": "64"}), key(base, {"CUDA_VISIBLE_DEVICES": "1"}),
        key(base, gpus=GPU), key(base, gpus=TWO), key(base, gpus={"GPU0": 8 * GIB}),
    ]  # fmt: skip
    assert len({key(base), *others}) == len(others) + 1
    assert key(base, {"LLAMA_ARG_PORT": "1", "HOME": "/x"}) == key(base)
    before = key(base)
    os.utime(tiny, (1, 1))
    assert key(base) != before, "another file of the same name"


def test_launch_key_of_other_programs_counts_all_words_but_the_port(tmp_path: Path) -> None:
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"1")
    base = f"server --weights={weights} --port 5800"
    assert key(base) == key(base.replace("5800", "5900"), port=5900)
    assert key(base) != key(f"{base} --fast")
    before = key(base)
    weights.write_bytes(b"22")
    assert key(base) != before


def test_launch_reader_reads_a_file_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def counted(path: Path) -> Gguf:
        reads.append(path)
        return read_gguf(path)

    monkeypatch.setattr("swapchart.adapters.memory.estimate.read_gguf", counted)
    reader, argv = LaunchReader(), ["llama-server", "-m", str(tiny)]
    found = [reader.read("m", argv, {}, {}) for _ in range(3)]
    assert len({launch.key for launch in found}) == 1
    assert isinstance(found[0].estimate, Estimate)
    assert reads == [tiny]


def test_gguf_keeps_short_arrays_of_numbers(tmp_path: Path) -> None:
    def pair(name: str, kind: int, count: int, data: bytes) -> bytes:
        text = name.encode()
        array = struct.pack("<IIQ", 9, kind, count) + data
        return struct.pack("<Q", len(text)) + text + array

    architecture = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 1) + b"x"
    pairs = [
        architecture, pair("x.heads", 4, 3, struct.pack("<3I", 1, 0, 2)),
        pair("x.windows", 7, 2, b"\1\0"), pair("x.scores", 6, 1025, bytes(4 * 1025)),
        pair("x.empty", 4, 0, b""),
    ]  # fmt: skip
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    found = read_gguf(path)
    assert found.array("heads") == (1, 0, 2)
    assert found.array("windows") == (True, False)
    assert found.array("scores") == found.array("empty") == found.array("none") == ()
    path.write_bytes(path.read_bytes()[:-2100])
    with pytest.raises(GgufError, match="ends within its metadata"):
        read_gguf(path)


@pytest.mark.parametrize(("context", "advice"), [("8192", "-c 8192 -> 4096 saves"), ("300", "")])
def test_estimate_says_what_half_of_the_context_saves(
    tmp_path: Path, context: str, advice: str
) -> None:
    model = write_tiny_gguf(tmp_path / "m.gguf")
    whole, half = (
        estimate(["llama-server", "-m", str(model), "-c", tokens, "-np", "1"], {}, {})
        for tokens in (context, str(int(context) // 2))
    )
    assert whole is not None
    assert half is not None
    if advice.endswith("saves"):
        saved = (whole.amounts["RAM"] - half.amounts["RAM"]) / MIB
        assert whole.advice == f"{advice} {saved:.0f} MiB"
    else:
        assert whole.advice == ""
