"""Fixtures that several folders share: the ``conftest.py`` of each imports those it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .net import wait_until
from .swapchart_process import Journal, Proxies, Serve
from .user_place import Place, make_place


def _serving(folder: Path) -> Iterator[Serve]:
    proxies = Proxies(folder)
    try:
        yield proxies.serve
        proxies.end()
    finally:
        proxies.close()


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts proxies; after the test none of their processes may be left."""
    yield from _serving(tmp_path_factory.mktemp("proxies"))


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts proxies, as ``serve`` does, that all tests of a module share."""
    yield from _serving(tmp_path_factory.mktemp("proxies"))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """File where upstreams and hooks of one test write what happens to them."""
    return Journal(tmp_path / "journal")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A user who runs commands; none of their processes and temporary files may be left."""
    found = make_place(tmp_path)
    try:
        yield found
        found.assert_nothing_left()
        assert list(Path(found.env["TMPDIR"]).iterdir()) == []
    finally:
        found.close()


@pytest.fixture
def pids_cgroup() -> Iterator[Path]:
    """A cgroup that limits processes and threads, where this system has one and lets us."""
    old, new = Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")
    cgroup = (old if old.is_dir() else new) / f"swapchart-test-{os.getpid()}"
    try:
        cgroup.mkdir()
        (cgroup / "pids.max").write_text("max")
    except OSError:
        with suppress(OSError):
            cgroup.rmdir()
        pytest.skip("no cgroup for processes can be made here")
    yield cgroup
    wait_until(lambda: not (cgroup / "cgroup.procs").read_text(), what="all processes gone")
    cgroup.rmdir()
