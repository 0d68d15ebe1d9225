"""Whether the user of a service can run swapchart and read its files, tried as that user."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .unit import UnitError

_LIMIT_S = 60.0


def check_access(name: str, program: Sequence[str], files: Iterable[Path]) -> None:
    """Check that the user *name* can run *program* and read *files*.

    Nothing is checked for the caller's own user, or if the caller is not root and so cannot act as
    another user.

    Raises:
        UnitError: The user cannot.
    """
    user = pwd.getpwnam(name)
    if os.geteuid() != 0 or user.pw_uid == 0:
        return
    if problem := _run_as(user, [*program, "--version"]):
        raise UnitError(
            f"{name}, who runs the service, cannot run {program[0]}: {problem}; "
            f"install swapchart where {name} may read it, such as below /opt"
        )
    for path in files:
        if _run_as(user, ["test", "-r", str(path.absolute())]):
            raise UnitError(
                f"{name}, who runs the service, cannot read {path}; "
                "change the owner or the mode of the file and of the folders above it"
            )


def _run_as(user: pwd.struct_passwd, command: Sequence[str]) -> str:
    """Run *command* as *user* and return why it failed; empty if it succeeded."""
    try:
        done = subprocess.run(
            command, cwd="/", user=user.pw_uid, group=user.pw_gid, check=False, timeout=_LIMIT_S,
            extra_groups=os.getgrouplist(user.pw_name, user.pw_gid), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return f"it still runs after {_LIMIT_S:.0f} s"
    lines = done.stderr.split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "")
    return "" if done.returncode == 0 else said or f"exit code {done.returncode}"
