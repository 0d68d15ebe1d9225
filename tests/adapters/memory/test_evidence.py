"""Evidence of failed allocations in lines that engines have printed, and lines that are none."""

from __future__ import annotations

import pytest

from swapchart.adapters.memory.evidence import allocation_failure

MIB = 1 << 20
GIB = 1 << 30

#: Last lines of an engine -> bytes that it asked for (0: not said), kind of memory.
FAILURES: dict[str, tuple[str, int, str]] = {
    "ggml CUDA": (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9866.00 MiB on device 1: cudaMalloc"
        " failed: out of memory\n"
        "ggml_gallocr_reserve_n: failed to allocate CUDA1 buffer of size 10345253120\n"
        "llama_init_from_model: failed to initialize the context: failed to allocate compute pp"
        " buffers\n"
        "srv    load_model: failed to load model, 'm.gguf'\n"
        "main: exiting due to model loading error",
        10345253120, "gpu",
    ),
    "ggml CUDA weights": (
        "alloc_tensor_range: failed to allocate CUDA0 buffer of size 151851674624\n"
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        151851674624, "gpu",
    ),
    "ggml CPU": (
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 754974720\n"
        "llama_kv_cache: failed to allocate CPU buffer of size 754974720",
        754974720, "ram",
    ),
    "ggml aligned": (
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 720.00 MB)",
        720 * MIB, "ram",
    ),
    "ggml CUDA call": ("CUDA error: out of memory\n  current device: 0, in function x", 0, "gpu"),
    "ggml ROCm": (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 512.00 MiB on device 0: hipMalloc"
        " failed: out of memory",
        512 * MIB, "gpu",
    ),
    "ROCm": ("HIP error: hipErrorOutOfMemory", 0, "gpu"),
    "ROCm HSA": ("Callback: Queue 0x7f aborting with error : HSA_STATUS_ERROR_OUT_OF_RESOURCES: "
                 "The runtime failed to allocate the necessary resources.", 0, ""),
    "Vulkan": (
        "ggml_vulkan: Device memory allocation of size 369827840 failed.\n"
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        369827840, "gpu",
    ),
    "Metal": (
        "ggml_metal_log_allocated_size: error: failed to allocate buffer, size =   512.00 MiB",
        512 * MIB, "gpu",
    ),
    "Metal command": (
        "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        0, "gpu",
    ),
    "stable-diffusion.cpp": (
        "[ERROR] ggml_extend.hpp:1120 - clip: failed to allocate the compute buffer", 0, "",
    ),
    "whisper.cpp": ("whisper_model_load: failed to allocate memory for the model", 0, ""),
    "PyTorch CUDA": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"
        " capacity of 23.69 GiB of which 1.10 GiB is free.",
        2 * GIB, "gpu",
    ),
    "PyTorch ROCm": (
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 432.00 MiB. GPU 0 has a total"
        " capacity of 15.92 GiB of which 7.12 GiB is free.",
        432 * MIB, "gpu",
    ),
    "PyTorch MPS": (
        "RuntimeError: MPS backend out of memory (MPS allocated: 5.56 GB, other allocations: 1.10"
        " GB, max allowed: 6.80 GB). Tried to allocate 768.00 MB on private pool.",
        768 * MIB, "gpu",
    ),
    "PyTorch CPU": (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't"
        " allocate memory: you tried to allocate 8589934592 bytes. Error code 12",
        8 * GIB, "ram",
    ),
    "cuBLAS": ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`",
               0, "gpu"),
    "vLLM start": (
        "ValueError: Free memory on device cuda:0 (5.2/23.6 GiB) on startup is less than desired"
        " GPU memory utilization (0.9, 21.2 GiB). Decrease GPU memory utilization or reduce GPU"
        " memory used by other processes.\n"
        "RuntimeError: Engine core initialization failed. See root cause above.",
        0, "gpu",
    ),
    "vLLM cache": (
        "ValueError: No available memory for the cache blocks. Try increasing"
        " `gpu_memory_utilization` when initializing the engine.",
        0, "gpu",
    ),
    "SGLang": ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
               0, ""),
    "XLA": ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2147483648 bytes.",
            2 * GIB, ""),
    "Python": ("Traceback (most recent call last):\nMemoryError", 0, "ram"),
    "NumPy": (
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array with"
        " shape (1000000000,) and data type float64",
        int(7.45 * GIB), "ram",
    ),
    "C++": ("terminate called after throwing an instance of 'std::bad_alloc'\n"
            "  what():  std::bad_alloc", 0, "ram"),
    "Rust": ("memory allocation of 1073741824 bytes failed", GIB, ""),
    "Go": ("fatal error: runtime: out of memory", 0, ""),
    "Java": ("java.lang.OutOfMemoryError: Java heap space", 0, ""),
    "loader": (
        "llama-server: error while loading shared libraries: libcuda.so.1: failed to map segment"
        " from shared object: Cannot allocate memory",
        0, "ram",
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", FAILURES)
def test_allocation_failure_of_each_engine_is_found(engine: str) -> None:
    text, size, kind = FAILURES[engine]
    found = allocation_failure(["loading", *text.splitlines(), "cleaning up"])

    assert found is not None
    assert (found.size, found.kind) == (size, kind)
    assert found.line in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "error: failed to open m.gguf: No such file or directory",
        "main: failed to bind to port 8080: Address already in use",
        "failed to allocate a pseudo terminal",
        "llama_memory_breakdown_print: | memory breakdown [MiB] | total free self |",
        "load_tensors: CUDA0 model buffer size = 48928.09 MiB",
        "llama_kv_cache: size = 720.00 MiB ( 32768 cells, 30 layers)",
        # a warning of a start that goes on
        "ggml_cuda_host_malloc: failed to allocate 1900.00 MiB of pinned memory: invalid argument",
        # a limit of the device that room does not change
        "ggml_vulkan: Requested buffer size exceeds device buffer size limit:"
        " ErrorOutOfDeviceMemory",
        # it went on without
        "ggml_gallocr_reserve_n_impl: failed to allocate CUDA1 buffer of size 54262464512\n"
        "sched_reserve: compute buffer allocation failed, retrying without pipeline parallelism\n"
        "error: failed to open mmproj.gguf",
    ],
)
def test_allocation_failure_is_not_found_in_other_lines(text: str) -> None:
    assert allocation_failure(text.splitlines()) is None


def test_allocation_failure_after_one_that_the_server_went_on_from_is_found() -> None:
    text = """
    graph_reserve: failed to allocate compute buffers
    sched_reserve: compute buffer allocation failed, retrying without pipeline parallelism
    ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 1024
    """
    found = allocation_failure(text.splitlines())

    assert found is not None
    assert found.size == 1024
