"""Launches: what identifies the start of a model for its memory, and the estimate for it.

What was learned of a launch counts for the next one with the same options, variables, files and
devices. Files are identified by size and time of modification. Files are read in threads only;
headers of models are cached by these identities.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...dataclass import dataclass, field
from ..llama_cpp.gguf import shards
from ..llama_cpp.launch_args import LaunchLine, memory_variables
from .estimate import Estimate, GgufError, estimate, is_elastic, server_line, with_variables

log = logging.getLogger(__name__)

_DEVICES = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One way to start a model.

    Attributes:
        key: Identifies it.
        estimate: Memory by arithmetic; None if that cannot be said.
        is_elastic: Its server fits itself into what is free.
    """

    key: str = ""
    estimate: Estimate | None = None
    is_elastic: bool = False

    @property
    def files(self) -> int:
        """Bytes of the files of the model; 0 means unknown."""
        return 0 if self.estimate is None else self.estimate.files

    @property
    def advice(self) -> str:
        """Change of the command that saves memory, in words; empty if none is known."""
        return "" if self.estimate is None else self.estimate.advice


@dataclass(slots=True)
class LaunchReader:
    """Reads launches; its cache may be used by one thread at a time."""

    _estimates: dict[str, Estimate | None] = field(default_factory=dict)

    def read(
        self, model: str, argv: Sequence[str], environment: Mapping[str, str],
        gpus: Mapping[str, int], *, port: int | None = None,
    ) -> Launch:  # fmt: skip
        """Read the files of a launch; blocks.

        Args:
            model: Name of the model.
            argv: Its command.
            environment: Its variables.
            gpus: Pools of the GPUs that it uses, in order -> their capacity in bytes.
            port: Its port, which does not count.
        """
        line = server_line(argv)
        places = [f"{name}={capacity}" for name, capacity in gpus.items()]
        devices = [f"{name}={environment[name]}" for name in _DEVICES if name in environment]
        if line is None:
            words = ["${PORT}" if port and word == str(port) else word for word in argv]
            files = [part for word in argv[1:] for part in _named(word)]
        else:
            words = [line.program, *line.memory_relevant(), *memory_variables(environment)]
            files = _files(with_variables(line, environment))
        identities = [f"{path}={_identity(path)}" for path in files]
        facts = json.dumps([model, words, devices, places, identities])
        key = hashlib.sha256(facts.encode()).hexdigest()[:24]
        if key not in self._estimates:
            self._estimates[key] = _estimated(model, argv, environment, gpus)
        return Launch(
            key=key, estimate=self._estimates[key],
            is_elastic=bool(gpus) and line is not None
            and is_elastic(with_variables(line, environment)),
        )  # fmt: skip


def _estimated(
    model: str, argv: Sequence[str], environment: Mapping[str, str], gpus: Mapping[str, int]
) -> Estimate | None:
    try:
        return estimate(argv, environment, gpus)
    except (OSError, GgufError, ArithmeticError, ValueError) as error:
        log.info("the memory of %s cannot be estimated: %s", model, error)
        return None


def _files(line: LaunchLine) -> list[Path]:
    return [part for _, path in line.files() for part in shards(Path(path))]


def _named(word: str) -> list[Path]:
    """Return the file that an argument names, if there is one."""
    name = word.rpartition("=")[2]
    path = Path(name)
    try:
        return [path] if path.is_absolute() and path.is_file() else []
    except (OSError, ValueError):
        return []


def _identity(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "absent"
    return f"{found.st_size}-{found.st_mtime_ns}"
