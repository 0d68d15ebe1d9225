"""Evidence in the output of a process that an allocation of memory failed.

Each engine has its own words for it. The last line that has them counts, since it is nearest to the
end of the process. A failure that the process itself says it goes on from is none, nor is a buffer
that exceeds what its device ever allows: room would not help.

Source: messages of llama.cpp and ggml (CUDA, ROCm, Vulkan, Metal, CPU), stable-diffusion.cpp and
whisper.cpp, PyTorch, vLLM, SGLang, XLA, NumPy, CPython, libstdc++, glibc, Rust, Go and Java.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...runtime.memory.shortage import Evidence, MemoryKind

_GPU = re.compile(
    r"cuda|\bhip|rocm|vulkan|metal|\bmps\b|\bxpu\b|sycl|cublas|hipblas|device|\bgpu|kIOGPU", re.I
)
_RAM = re.compile(
    r"\bCPU|CPUAllocator|_Host\b|\bMemoryError|_ArrayMemoryError|bad_alloc|Cannot allocate memory"
    r"|insufficient memory \(attempted",
    re.I,
)

#: Words that each say by themselves that an allocation failed.
_FAILURES = re.compile(
    r"\bout[ _]of[ _]memory\b|OutOfMemory|ErrorOutOf(?:Device|Host|Pool)Memory"
    r"|ErrorMemoryAllocation|STATUS_ALLOC_FAILED|HSA_STATUS_ERROR_OUT_OF_RESOURCES"
    r"|\bMemoryError\b|\bbad_alloc\b|Cannot allocate memory|can't allocate memory"
    r"|insufficient memory|not enough memory"
    r"|No available memory for the cache blocks|is less than desired GPU memory utilization"
    r"|memory allocation of (?:size )?\d{1,20}(?: bytes)? failed",
    re.I,
)
#: Words that say so of what follows them.
_ALLOCATES = re.compile(r"(?:failed|unable) to (?:allocate|alloc|reserve|malloc|mmap)\b", re.I)
_OBJECT = re.compile(r"\b(?:buffers?|memory|bytes|tensors?|cache|context|[KMG]i?B|array)\b", re.I)

#: A failure that the process goes on from, or that room would not cure.
_HARMLESS = re.compile(
    r"pinned memory|exceeds (?:device|max\w*|the)\b.{0,40}\b(?:limit|size)", re.I
)
_GOES_ON = re.compile(r"retrying without|falling back to", re.I)

_SIZES = (
    re.compile(r"\bsize[ =:]{1,8}(\d{1,20}(?:\.\d{1,6})?) ?([KMGT]i?B)?", re.I),
    re.compile(
        r"\b(?:allocate|allocating|allocation of) (\d{1,20}(?:[.,]\d{1,6})?) ?([KMGT]i?B|bytes)",
        re.I,
    ),
)
_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def allocation_failure(lines: Sequence[str]) -> Evidence | None:
    """Return the evidence in *lines*, the last ones of a process that ended; None without any."""
    found = ""
    sizes: list[int] = []
    kinds: list[MemoryKind] = []
    for line in lines:
        if _GOES_ON.search(line):
            found, sizes, kinds = "", [], []
        elif _says_so(line):
            found = line.strip()
            sizes.append(_size(line))
            kinds.append(_kind(line))
    if not found:
        return None
    # An engine reports one failure in several lines, and not each has all of the facts.
    size = next((size for size in reversed(sizes) if size), 0)
    kind: MemoryKind = next((kind for kind in reversed(kinds) if kind), "")
    return Evidence(line=found, size=size, kind=kind)


def _says_so(line: str) -> bool:
    if _HARMLESS.search(line):
        return False
    if _FAILURES.search(line):
        return True
    match = _ALLOCATES.search(line)
    return match is not None and _OBJECT.search(line, match.end()) is not None


def _kind(line: str) -> MemoryKind:
    if _RAM.search(line):
        return "ram"
    return "gpu" if _GPU.search(line) else ""


def _size(line: str) -> int:
    for pattern in _SIZES:
        match = pattern.search(line)
        if match is not None:
            number, unit = match[1].replace(",", "."), (match[2] or "")[:1].upper()
            return int(float(number) * (1 << _UNITS.get(unit, 0)))
    return 0
