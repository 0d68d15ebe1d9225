"""Sizes of buffers that a llama-server prints while it starts. Pure.

A server that fits itself to free memory loads its model several times without allocating anything,
and prints the same lines each time: the last load of each file counts, and with it all contexts
made from it, such as that of a draft model in the same file. Within a context the sizes of its
caches are added up, since models with sliding windows have two, while a compute buffer that is
reserved again replaces the one before.

The sums are those of the buffers alone. A llama-server on the CPU held 45 MiB more, over eleven
launches; for the context of a GPU driver the same amount is added as for an estimate.

Source: llama.cpp, functions ``load_tensors``, ``llama_kv_cache``, ``sched_reserve``, ``fit_params``
and ``clip_ctx`` and their earlier names; sizes appear at verbosity 4 in builds of 2026.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from ...dataclass import dataclass, field
from .estimate import GPU_CONTEXT, PROCESS, RAM

_MIB = 1 << 20
#: Bytes of the shortest and longest line that counts; the template of a chat is longer.
_SHORTEST_LINE, _LONGEST_LINE = 16, 2000
#: One GPU of which the line does not say the number.
_ANY_GPU = "GPU"

_SIZE = re.compile(rb" {0,9}= {0,20}(\d{1,9}(?:\.\d{1,4})?) MiB")
_CONTEXT = re.compile(rb": n_ctx {0,20}= ")
_PROJECTED = re.compile(rb"projected to use (\d{1,9}) MiB of (device|host) memory")
_PROJECTOR = re.compile(rb": model size: {1,20}(\d{1,9}(?:\.\d{1,4})?) MiB")
_PROJECTOR_AT = re.compile(rb": CLIP using (\w{1,40}) backend")
_SELF = re.compile(rb"\( {0,20}(\d{1,9}) ")
_HOST_SELF = re.compile(rb" {0,60}(\d{1,9}) = ")
#: Buffers that one context reserves anew; all others are added up.
_RESERVED = (b"compute", b"output")
_HOST = re.compile(r"(?:CPU|Host|AMX|BLAS)(?:_[A-Za-z0-9]{1,20})?|[A-Za-z]{1,20}_Host")
_MAPPED = re.compile(r"([A-Za-z]{1,20}\d{1,3})_(?:Mapped|Private|Shared)")


@dataclass(slots=True)
class _Load:
    """Buffers of one load of a model file, in bytes by device.

    Attributes:
        contexts: Number of contexts that were made from it.
        added: Sizes that are added up.
        reserved: Number of the context, function, device and kind -> size.
        kinds: Kinds of buffers that were seen.
    """

    contexts: int = 0
    added: Counter[str] = field(default_factory=Counter)
    reserved: dict[tuple[int, bytes, str, bytes], int] = field(default_factory=dict)
    kinds: set[bytes] = field(default_factory=set)


class PrintedSizes:
    """Reads the output of one start, in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._loads: dict[bytes, _Load] = {}
        self._load = self._loads[b""] = _Load()
        self._breakdown: Counter[str] = Counter()
        self._projected: Counter[str] = Counter()
        self._projector, self._projector_at = 0, ""

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the output; never raises."""
        *lines, rest = data.split(b"\n")
        if not lines:
            self._rest = (self._rest + rest)[: _LONGEST_LINE + 1]
            return
        lines[0] = self._rest + lines[0]
        self._rest = rest[: _LONGEST_LINE + 1]
        for line in lines:
            if _SHORTEST_LINE <= len(line) <= _LONGEST_LINE:
                self._read(line)

    def amounts(self) -> Mapping[str, int]:
        """Return the bytes by device, main memory as ``RAM``; empty if too little was printed.

        A device has the name that the backend gives it, such as ``CUDA0``. ``GPU`` is one GPU of
        which the output does not say the number.
        """
        found = Counter(self._of_buffers() or self._breakdown or self._projected)
        if self._projector_at and found:
            found[self._projector_at] += self._projector
        return {
            device: amount + (PROCESS if device == RAM else GPU_CONTEXT)
            for device, amount in found.items()
            if amount
        }

    def _of_buffers(self) -> Counter[str]:
        """Return bytes by device; empty if not each load has weights and a compute buffer."""
        total: Counter[str] = Counter()
        for load in self._loads.values():
            if load.kinds and not load.kinds >= {b"model", b"compute"}:
                return Counter()
            total.update(load.added)
            for (_, _, device, _), amount in load.reserved.items():
                total[device] += amount
        return total

    def _read(self, line: bytes) -> None:
        if b" buffer size" in line:
            self._read_buffer(line)
        elif b"breakdown_print: |" in line:
            self._read_breakdown(line)
        elif b": loaded meta data with " in line:
            file = line.partition(b" tensors from ")[2].rpartition(b" (version ")[0]
            self._loads.pop(b"", None)  # what came before the first file
            self._load = self._loads[file] = _Load()
        elif _CONTEXT.search(line):
            self._load.contexts += 1
        elif match := _PROJECTED.search(line):
            device = _ANY_GPU if match[2] == b"device" else RAM
            self._projected[device] = _bytes(match[1])
        elif match := _PROJECTOR.search(line):
            self._projector = _bytes(match[1])
        elif match := _PROJECTOR_AT.search(line):
            self._projector_at = _device(match[1])

    def _read_buffer(self, line: bytes) -> None:
        """Read a line such as ``load_tensors:  CUDA0 model buffer size =  40.73 MiB``."""
        head, _, tail = line.partition(b" buffer size")
        size, words = _SIZE.match(tail), head.split()
        starts = [index for index, word in enumerate(words) if word.endswith(b":")]
        if size is None or not starts or starts[-1] + 1 == len(words):
            return
        function, name, *kinds = words[starts[-1] :]
        if name.startswith(b"RPC"):
            return  # memory of another machine
        kind, device, amount = b" ".join(kinds) or b"model", _device(name), _bytes(size[1])
        load = self._load
        load.kinds.add(kind)
        if kind in _RESERVED:
            load.reserved[load.contexts, function, device, kind] = amount
        else:
            load.added[device] += amount

    def _read_breakdown(self, line: bytes) -> None:
        """Read a row ``|   - CUDA0 (RTX 4090) | 24077 = 945 + (19187 = ...``, or the head."""
        _, name, *cells = line.split(b"|")
        words = name.split()
        if b"memory breakdown" in name:
            self._breakdown.clear()
        elif len(words) > 1 and words[0] == b"-" and cells:
            match = _SELF.search(cells[0]) or _HOST_SELF.match(cells[0])
            if match is not None and not words[1].startswith(b"RPC"):
                self._breakdown[_device(words[1])] += _bytes(match[1])


def _bytes(mib: bytes) -> int:
    return int(float(mib) * _MIB)


def _device(name: bytes) -> str:
    """Return the device of a kind of buffer, such as ``CUDA0``; all of main memory is ``RAM``."""
    text = name.decode("ascii", "replace")
    if _HOST.fullmatch(text):
        return RAM
    match = _MAPPED.fullmatch(text)
    return text if match is None else match[1]
