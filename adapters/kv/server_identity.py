"""Identity of a server: the facts of its fingerprint, from command line, files and responses."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..llama_cpp.gguf import Gguf, GgufError, file_identity, read_gguf, shards
from ..llama_cpp.launch_args import LaunchLine
from .fingerprint import Fingerprint, fingerprint

log = logging.getLogger(__name__)

_KEY_VARIABLE = "LLAMA_API_KEY"
_SLOTS_VARIABLE = "LLAMA_ARG_N_PARALLEL"


class ServerFacts:
    """Sources of the identity of one model's server.

    Args:
        argv: Its command line.
        environment: Environment of its process, including what it inherits.
        cwd: Its working directory.

    Attributes:
        line: *argv*, parsed.
    """

    def __init__(self, argv: tuple[str, ...], environment: Mapping[str, str], cwd: Path) -> None:
        self.line = LaunchLine.parse(argv)
        self._environment, self._cwd = environment, cwd
        self._identities: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._heads: dict[str, Gguf] = {}

    @property
    def api_key(self) -> str | None:
        """The server's API key, if its command line or environment shows one."""
        given = self.line.value("--api-key") or self._environment.get(_KEY_VARIABLE, "")
        return given.partition(",")[0] or None

    @property
    def has_own_slots(self) -> bool:
        """True if each slot of the server has a cache of its own, as with ``--parallel``."""
        has_count = self.line.has("--parallel") or _SLOTS_VARIABLE in self._environment
        return not self.line.has("--kv-unified") and (has_count or not self.line.is_llama_server)

    def learn(self, props: Mapping[str, Any], adapters: str, allows_swa: bool) -> Fingerprint | str:
        """Build the fingerprint of the server that returned *props*; blocks on the disk.

        Returns:
            The fingerprint, or the reason why nothing can be kept.
        """
        if self.line.has("--no-cache-prompt"):
            return "with --no-cache-prompt no cache is used"
        model = str(props.get("model_path") or self.line.value("--model") or "")
        others = [(name, path) for name, path in self.line.files() if name != "--model"]
        files: dict[str, str] = {}
        for name, text in [("--model", model), *others]:
            try:
                pieces = [self._identity(path) for path in shards(self._cwd / text)]
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                return (
                    f"{text} cannot be read here ({reason}); without the identity of the "
                    "model's weights the cache of another model could be restored"
                )
            files[name] = " ".join([files[name], *pieces] if name in files else pieces)
        problem = self._window_problem(self._cwd / model, files["--model"], allows_swa)
        return problem or fingerprint(
            self.line, self._environment, props, binary=self._binary(), files=files,
            adapters=adapters,
        )  # fmt: skip

    def _binary(self) -> str:
        found = shutil.which(self.line.program, path=self._environment.get("PATH"))
        try:
            return self._identity(Path(found or self.line.program))
        except OSError:
            return ""

    def _identity(self, path: Path) -> str:
        about = path.stat()
        key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        known = self._identities.get(path)
        if known is None or known[0] != key:
            known = self._identities[path] = key, file_identity(path)
        return known[1]

    def _window_problem(self, path: Path, identity: str, allows_swa: bool) -> str:
        head = self._heads.get(identity)
        if head is None:
            try:
                head = read_gguf(shards(path)[0])
            except (GgufError, OSError) as error:
                log.debug("%s: %s", path, error)
                head = Gguf()
            self._heads = {identity: head}
        window, is_full = head.sliding_window, self.line.has("--swa-full")
        if not window or (is_full and allows_swa):
            return ""
        why = (
            f"{head.architecture} attends within a sliding window of {window} tokens: without "
            "--swa-full a restore reuses nothing"
        )
        return (
            f"{why}; with it, a prompt that leaves the saved one earlier than the window gets "
            "wrong answers, so it also needs kv.allowSwa: true"
        )
