"""Memory pools whose free bytes a command prints."""

from __future__ import annotations

import time

import pytest

from swapchart.adapters.memory.command import CommandPool
from swapchart.runtime.ports import PoolReading

GIB = 1 << 30


def _pool(script: str, **options: float) -> CommandPool:
    return CommandPool("NPU", 16 * GIB, ["/bin/sh", "-c", script], **options)


@pytest.mark.parametrize(("free", "used"), [(10 * GIB, 6 * GIB), (0, 16 * GIB), (17 * GIB, 0)])
def test_command_pool_reads_the_free_bytes(free: int, used: int) -> None:
    assert _pool(f"echo ' {free}'").read([1]) == [
        PoolReading(name="NPU", capacity=16 * GIB, used=used, source="check")
    ]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 12GiB", "printed '12GiB', expected the free bytes as a number"),
        ("true", "printed '', expected"),
        ("echo -5", "printed '-5', expected"),
        ("echo 1 2", "printed '1 2', expected"),
        ("echo 9999999999999999999", "printed '9999999999999999999', expected"),
        ("head -c 100000 /dev/zero | tr '\\0' 9", "printed '99999"),
        ("echo no driver >&2; exit 3", "failed with status 3: 'no driver'"),
    ],
)
def test_command_pool_bad_output_is_an_error_that_names_the_command(
    script: str, words: str
) -> None:
    with pytest.raises(OSError, match=r"`check` of memory pool NPU \(/bin/sh -c ") as caught:
        _pool(script).read([])
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_command_pool_without_program_or_time_is_an_error() -> None:
    with pytest.raises(OSError, match=r"cannot run: .*No such file"):
        CommandPool("NPU", GIB, ["/no/such/program"]).read([])
    with pytest.raises(OSError, match=r"cannot run: .*null"):
        CommandPool("NPU", GIB, ["a\0b"]).read([])
    began = time.monotonic()
    with pytest.raises(OSError, match=r"took more than 0\.2 s"):
        _pool("sleep 60", limit_s=0.2).read([])
    assert time.monotonic() - began < 10.0
