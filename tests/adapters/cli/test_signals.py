"""Ctrl-C in commands that wait for data."""

from __future__ import annotations

import _thread
import signal
import socket
import threading

import pytest
from tools.net import LONG_S

from swapchart.adapters.cli.remote.signals import losing_no_signal


def test_signal_that_interrupts_no_wait_is_handled() -> None:
    """As one that arrives just before the wait begins, it is only noted for Python."""
    before = signal.getsignal(signal.SIGALRM)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LONG_S)
        noted = threading.Timer(0.1, _thread.interrupt_main)
        noted.start()
        with pytest.raises(KeyboardInterrupt), losing_no_signal():
            ours.recv(1)
        noted.join()

    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
