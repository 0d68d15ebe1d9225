"""Sizes in lines that llama-servers have printed, and in lines that are none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.adapters.memory.printed_sizes import PrintedSizes

MIB = 1 << 20
PROCESS, GPU_CONTEXT = 45, 512  # MiB that are added for main memory, and for each GPU

#: Lines of SmolLM2-135M on the CPU with a context of 8192, a build of 2026 at verbosity 5. It was
#: fitted first, without an allocation.
CPU = """\
0.00.065.154 I llama_model_loader: loaded meta data with 33 key-value pairs and 272 tensors from \
/m/SmolLM2-135M-Instruct.Q4_1.gguf (version GGUF V3 (latest))
0.00.666.279 I load_tensors:          CPU model buffer size =     0.00 MiB
0.00.679.567 I llama_context: n_ctx                 = 8192
0.00.679.682 I llama_context:        CPU  output buffer size =     0.19 MiB
0.00.679.849 I llama_kv_cache:        CPU KV buffer size =     0.00 MiB
0.00.679.854 I llama_kv_cache: size =  180.00 MiB (  8192 cells,  30 layers,  1/1 seqs), K \
(f16):   90.00 MiB, V (f16):   90.00 MiB
0.00.709.668 I sched_reserve:        CPU compute buffer size =    22.64 MiB
0.00.709.788 I common_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   \
model   context   compute    unaccounted |
0.00.709.788 I common_memory_breakdown_print: |   - Host               |                  294 =  \
  92 +     180 +      22                |
0.00.789.585 I common_params_fit_impl: projected to use 294 MiB of host memory vs. 24105 MiB of \
total host memory
0.00.789.641 I common_params_fit_impl: will leave 23810 >= 1024 MiB of system memory, no changes \
needed
0.00.832.741 I llama_model_loader: loaded meta data with 33 key-value pairs and 272 tensors from \
/m/SmolLM2-135M-Instruct.Q4_1.gguf (version GGUF V3 (latest))
0.01.390.475 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
0.01.398.993 I llama_context: n_ctx                 = 8192
0.01.399.273 I llama_context:        CPU  output buffer size =     0.19 MiB
0.01.399.894 I llama_kv_cache:        CPU KV buffer size =   180.00 MiB
0.01.681.681 I llama_kv_cache: size =  180.00 MiB (  8192 cells,  30 layers,  1/1 seqs), K \
(f16):   90.00 MiB, V (f16):   90.00 MiB
0.01.709.756 I sched_reserve:        CPU compute buffer size =    22.64 MiB
0.05.714.628 I srv    load_model: prompt cache is enabled, size limit: 8192 MiB
"""

#: A build of 2025 on one GPU, at its default verbosity.
CUDA = """\
llama_model_load_from_file_impl: using device CUDA0 (NVIDIA A100-PCIE-40GB) - 39903 MiB free
llama_model_loader: loaded meta data with 44 key-value pairs and 579 tensors from /m/coder.gguf \
(version GGUF V3 (latest))
load_tensors:   CPU_Mapped model buffer size =   315.30 MiB
load_tensors:        CUDA0 model buffer size = 30658.12 MiB
llama_context: n_ctx         = 65536
llama_context:  CUDA_Host  output buffer size =     2.32 MiB
llama_kv_cache:      CUDA0 KV buffer size =  6144.00 MiB
llama_context:      CUDA0 compute buffer size =   300.75 MiB
llama_context:  CUDA_Host compute buffer size =   132.01 MiB
"""

#: A build of 2024 on two GPUs, without the word "model" and without a path.
TWO = """\
llm_load_tensors:        CPU buffer size =   166.92 MiB
llm_load_tensors:      CUDA0 buffer size =  8509.23 MiB
llm_load_tensors:      CUDA1 buffer size =  8213.14 MiB
llama_new_context_with_model: n_ctx      = 32768
llama_kv_cache_init:      CUDA0 KV buffer size =  1600.00 MiB
llama_kv_cache_init:      CUDA1 KV buffer size =  1472.00 MiB
llama_new_context_with_model:  CUDA_Host  output buffer size =     1.16 MiB
llama_new_context_with_model:      CUDA0 compute buffer size =   368.01 MiB
llama_new_context_with_model:      CUDA1 compute buffer size =   444.77 MiB
llama_new_context_with_model:  CUDA_Host compute buffer size =   260.02 MiB
"""

METAL = """\
load_tensors:   CPU_Mapped model buffer size =   304.28 MiB
load_tensors:  MTL0_Mapped model buffer size =  2375.91 MiB
llama_context: n_ctx         = 2048
llama_kv_cache:       MTL0 KV buffer size =   288.00 MiB
sched_reserve:       MTL0 compute buffer size =   301.75 MiB
"""

VULKAN = METAL.replace("MTL0_Mapped", "Vulkan0").replace("MTL0", "Vulkan0")

#: A breakdown alone, as at the end of a run or of the fit of a build that prints no buffers.
BREAKDOWN = """\
llama_memory_breakdown_print: | memory breakdown [MiB] | total   free     self   model   context   \
compute    unaccounted |
llama_memory_breakdown_print: |   - CUDA0 (RTX 4090)   | 24077 = 945 + (30000 = 17904 + 384 + 898) \
+ 3945 |
llama_memory_breakdown_print: | memory breakdown [MiB] | total   free     self   model   context   \
compute    unaccounted |
llama_memory_breakdown_print: |   - CUDA0 (RTX 4090)   | 24077 =  945 + (19187 = 17904 +     384 + \
    898) +        3945 |
llama_memory_breakdown_print: |   - Host               |                 58271 = 58259 +       0 + \
     12                |
"""

PROJECTED = """\
llama_params_fit_impl: projected to use 21832 MiB of device memory vs. 30330 MiB of free device \
memory
"""

LOAD = (
    "llama_model_loader: loaded meta data with 4 key-value pairs and 5 tensors from {} (version x)"
)


def sizes(text: str, step: int = 0) -> dict[str, float]:
    """Return MiB by device, without what is added to the sum of the buffers."""
    reader, data = PrintedSizes(), text.encode()
    for at in range(0, len(data), step or len(data) or 1):
        reader.feed(data[at : at + (step or len(data))])
    return {
        device: round(amount / MIB - (PROCESS if device == "RAM" else GPU_CONTEXT), 2)
        for device, amount in reader.amounts().items()
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CPU, {"RAM": 294.93}),
        (CUDA, {"CUDA0": 37102.87, "RAM": 449.63}),
        (TWO, {"CUDA0": 10477.24, "CUDA1": 10129.91, "RAM": 428.1}),
        (TWO.replace("CUDA", "ROCm"), {"ROCm0": 10477.24, "ROCm1": 10129.91, "RAM": 428.1}),
        (METAL, {"MTL0": 2965.66, "RAM": 304.28}),
        (VULKAN, {"Vulkan0": 2965.66, "RAM": 304.28}),
        (BREAKDOWN, {"CUDA0": 19187, "RAM": 58271}),
        (PROJECTED, {"GPU": 21832}),
        (PROJECTED.replace("device", "host"), {"RAM": 21832}),
        (BREAKDOWN + PROJECTED + CUDA, {"CUDA0": 37102.87, "RAM": 449.63}),
        (PROJECTED + BREAKDOWN, {"CUDA0": 19187, "RAM": 58271}),
        ("", {}),
    ],
    ids=[
        "CPU", "CUDA", "two", "ROCm", "Metal", "Vulkan", "breakdown", "projected", "host",
        "buffers first", "breakdown before projected", "nothing",
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [0, 1, 97])
def test_printed_sizes_of_real_output_are_summed_by_device(
    text: str, found: dict[str, float], step: int
) -> None:
    assert sizes(text, step) == pytest.approx(found, abs=0.02)
    assert sizes(text.replace("\n", "\r\n"), step) == pytest.approx(found, abs=0.02)


def test_printed_sizes_of_earlier_loads_of_a_file_do_not_count() -> None:
    """The fit loads a model with all layers first, and then with fewer."""
    fewer = CUDA.replace("30658.12", "10000.00").replace("CPU_Mapped", "CPU")
    assert sizes(CUDA + CUDA + fewer) == pytest.approx({"CUDA0": 16444.75, "RAM": 449.63}, abs=0.02)


def test_printed_sizes_of_a_draft_model_are_added() -> None:
    draft = CUDA.replace("/m/coder.gguf", "/m/draft.gguf").replace("30658.12", "500.00")
    assert sizes(CUDA + draft)["CUDA0"] == pytest.approx(37102.87 + 6944.75, abs=0.02)
    assert sizes(draft + CUDA + draft)["CUDA0"] == pytest.approx(37102.87 + 6944.75, abs=0.02)


def test_printed_sizes_of_two_caches_and_contexts_are_added_and_a_new_reserve_replaces() -> None:
    text = CUDA + (
        "llama_kv_cache:      CUDA0 KV buffer size =   24.00 MiB\n"  # of the sliding window
        "llama_memory_recurrent:      CUDA0 RS buffer size =   76.00 MiB\n"
        "llama_context:      CUDA0 compute buffer size =   200.75 MiB\n"  # 100 less than before
        "llama_context: n_ctx         = 65536\n"  # for its own predictions
        "llama_context:      CUDA0 compute buffer size =   50.00 MiB\n"
    )
    assert sizes(text)["CUDA0"] == pytest.approx(37102.87 + 50, abs=0.02)


def test_printed_sizes_of_a_projector_are_added() -> None:
    text = CUDA + (
        "clip_ctx: CLIP using CUDA0 backend\n"
        "load_hparams: model size:         812.25 MiB\n"
        "alloc_compute_meta:      CUDA0 compute buffer size =   248.10 MiB\n"
    )
    assert sizes(text)["CUDA0"] == pytest.approx(37102.87 + 812.25 + 248.1, abs=0.02)


def test_printed_sizes_of_other_machines_do_not_count() -> None:
    text = CUDA + "load_tensors: RPC0[10.0.0.2:50052] model buffer size =  9000.00 MiB\n"
    assert sizes(text) == sizes(CUDA)


def test_printed_sizes_split_by_rows_are_not_those_of_a_device() -> None:
    """The buffer is on all GPUs, and the line says one."""
    text = CUDA.replace("CUDA0 model", "CUDA0_Split model")
    assert set(sizes(text)) == {"CUDA0", "CUDA0_Split", "RAM"}


@pytest.mark.parametrize("left_out", ["model buffer", "compute buffer"])
def test_printed_sizes_that_are_not_complete_are_not_used(left_out: str) -> None:
    text = "\n".join(line for line in CUDA.splitlines() if left_out not in line) + "\n"
    assert sizes(text) == {}
    assert sizes(BREAKDOWN + text) == {"CUDA0": 19187, "RAM": 58271}


@pytest.mark.parametrize(
    "line",
    [
        "~llama_context:      CUDA0 compute buffer size is 266.6056 MiB, matches expectation",
        "ggml_backend: copy buffer size: 128 MB",
        "llama_kv_cache: size =  180.00 MiB (  8192 cells), K (f16): 90.00 MiB",
        "the CUDA0 KV buffer size = 9.00 MiB",
        "x: CUDA0 KV buffer size = -9.00 MiB",
        "x: CUDA0 KV buffer size = 9999999999.00 MiB",
        "x: CUDA0 KV buffer size = 9.00 GiB",
        "x: CUDA0 KV buffer size = nan MiB",
        "load: buffer size = 9.00 MiB",
        "load_tensors: " + "x" * 3000 + " model buffer size = 9.00 MiB",
        "slot   init: id  0 | task -1 | new slot, n_ctx = 65536",
        "print_info: file size   = 30.25 GiB (8.51 BPW)",
        "common_memory_breakdown_print: |",
        "common_memory_breakdown_print: |   - | 1 = 2",
        "common_memory_breakdown_print: |   - CUDA0 (x) | ",
        "projected to use a lot of memory",
        ": loaded meta data with nothing",
        "\x00\xff = : | ( buffer size",
    ],
)
def test_printed_sizes_ignore_other_lines(line: str) -> None:
    assert sizes(line + "\n" + CUDA) == sizes(CUDA)
    assert sizes(CUDA + line + "\n") in (sizes(CUDA), {})
    assert sizes(line + "\n") == {}


_WORDS = st.sampled_from(
    [*CUDA.split(), *BREAKDOWN.split(), "\n", " buffer size", " = ", "|", "(", "MiB", ":", "x" * 99]
)


@settings(max_examples=50)
@given(st.lists(st.one_of(_WORDS, st.text(max_size=9)), max_size=60).map(" ".join))
def test_printed_sizes_of_any_text_are_amounts(text: str) -> None:
    reader = PrintedSizes()
    reader.feed(text.encode("utf-8", "surrogatepass"))
    reader.feed(b"\n")
    assert all(amount > 0 for amount in reader.amounts().values())


@pytest.mark.parametrize(
    "line",
    [
        b"a: CUDA0 KV buffer size = 1.00 MiB\n",
        b" buffer size" * 150 + b"\n",
        b": n_ctx " * 200 + b"\n",
        b"breakdown_print: | - (" * 90 + b"\n",
        b"projected to use 1 " * 100 + b"\n",
        b"x" * (1 << 16),
        b"\n" * 1000,
    ],
)
def test_printed_sizes_of_4_mib_are_read_in_bounded_time(line: bytes) -> None:
    reader, piece = PrintedSizes(), line * max((1 << 16) // len(line), 1)
    began = time.process_time()
    for _ in range(64):
        reader.feed(piece)
    reader.amounts()
    assert time.process_time() - began < 5.0
    assert len(reader._rest) <= 2001
