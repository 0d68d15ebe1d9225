"""A proxy that is PID 1 of a container: the orphans of others are not taken for a model's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tools.net import wait_until

pytestmark = pytest.mark.slow

#: PID 1: runs one model with a daemon, waits for an orphan of others, and ends the model.
INIT = textwrap.dedent("""
    import os, sys
    import anyio
    from pathlib import Path
    from swapchart.adapters.process import LocalLauncher, procfs
    from swapchart.runtime.log_ring import LogRing
    from swapchart.runtime.ports import Command

    folder = Path(sys.argv[1])
    assert os.getpid() == 1

    async def pid_in(name):
        with anyio.fail_after(30):
            while not (folder / name).exists() or not (folder / name).read_text().strip():
                await anyio.sleep(0.01)
        return int((folder / name).read_text())

    def lives(pid):
        proc = procfs.find(pid)
        return proc is not None and proc.is_alive

    async def main():
        async with LocalLauncher(subreaper=True) as launcher:
            daemon = f"env -i sleep 88 & echo $! >{folder}/daemon"
            argv = ("sh", "-c", f"setsid sh -c '{daemon}'; exec sleep 100")
            process = await launcher.start(Command(label="m", argv=argv), LogRing())
            daemon = await pid_in("daemon")
            (folder / "ready").touch()
            orphan = await pid_in("orphan")
            with anyio.fail_after(30):
                while (found := procfs.find(orphan)) is None or found.ppid != 1:
                    await anyio.sleep(0.01)
            process.terminate()
            await process.wait()
            await process.sweep(5.0)
            print(lives(daemon), lives(orphan))
        print(lives(daemon), lives(orphan))

    anyio.run(main)
""")


def can_make_pid_namespaces() -> bool:
    """Return True if this user may do here what a container engine does."""
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        return False
    argv = ("unshare", "--pid", "--fork", "--mount-proc", "true")
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_sweep_proxy_is_pid_1_leaves_orphans_of_others(tmp_path: Path) -> None:
    """What `docker exec` starts and leaves outlives a model, whose own daemon ends with it."""
    if not can_make_pid_namespaces():
        pytest.skip("NOT TESTED: a PID namespace needs root, unshare and nsenter")
    argv = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c")
    with subprocess.Popen((*argv, INIT, str(tmp_path)), stdout=subprocess.PIPE, text=True) as ns:
        try:
            wait_until((tmp_path / "ready").exists, 30.0)
            children = Path(f"/proc/{ns.pid}/task/{ns.pid}/children").read_text().split()
            script = f"sleep 77 >/dev/null 2>&1 & echo $! >{tmp_path}/orphan"
            subprocess.run(
                ("nsenter", "-t", children[0], "-p", "-m", "setsid", "sh", "-c", script),
                check=True, timeout=30,
            )  # fmt: skip
            said, _ = ns.communicate(timeout=60)
        finally:
            ns.kill()

    assert said.splitlines() == ["False True", "False True"]
