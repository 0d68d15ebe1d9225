"""Text of the systemd unit.

Source: systemd 252, systemd.service(5), systemd.exec(5), systemd.kill(5),
systemd.socket(5) and systemd.unit(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from math import ceil
from pathlib import Path

from ....dataclass import dataclass
from ....runtime.errors import SwapchartError

NAME = "swapchart.service"
SOCKET_NAME = "swapchart.socket"
_LEAST_STOP_S = 120
_STOP_SLACK_S = 15  # systemd kills everything afterwards, so swapchart's own limit comes first
_RESTART_S = 2

#: Settings that need no new privileges of any process below the service.
_CONFINED = ("NoNewPrivileges", "LockPersonality", "RestrictSUIDSGID")
_CONFINED_SYSTEM = (*_CONFINED, "ProtectHostname", "ProtectKernelLogs")


class UnitError(SwapchartError):
    """No unit can be written; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Service that runs the proxy.

    Attributes:
        program: First words of the command, which run swapchart; an absolute path comes first.
        options: Further words, from `serve` on.
        folder: Working directory, absolute.
        search_path: Value of PATH, with which the models are started.
        environment_file: File with further variables; it need not exist.
        stop_limit_s: Seconds that swapchart takes at most to shut down.
        user: Name of the user of a unit of the system; None means a unit of the caller.
        is_confined: No model and no hook needs privileges that the user does not have.
        keeps_models: Models outlive the proxy, and its socket belongs to systemd.
    """

    program: Sequence[str]
    options: Sequence[str]
    folder: Path
    search_path: str
    environment_file: str
    stop_limit_s: float
    user: str | None
    is_confined: bool
    keeps_models: bool = False

    def text(self) -> str:
        """Return the text of the unit file.

        Raises:
            UnitError: A word holds a character that no unit file can hold.
        """
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "[Unit]"
        yield "Description=swapchart, a proxy for local inference servers"
        before = ["network-online.target"] if self.user is not None else []
        before += [SOCKET_NAME] if self.keeps_models else []
        if before:
            yield f"After={' '.join(before)}"
        if self.user is not None:
            yield "Wants=network-online.target"
        if self.keeps_models:
            yield f"Requires={SOCKET_NAME}"
        yield from ("", "[Service]", "Type=notify")
        if self.user is not None:
            yield f"User={_plain(self.user)}"
            yield "StateDirectory=swapchart"
        yield f"WorkingDirectory={_plain(str(self.folder))}"
        yield f"Environment={_quoted(f'PATH={self.search_path}', is_command=False)}"
        yield f"EnvironmentFile=-{self.environment_file}"
        yield f"ExecStart={_command(self.program, self.options)}"
        yield "ExecReload=/bin/kill -HUP $MAINPID"
        yield "WatchdogSec=30"
        yield "Restart=on-failure"
        yield f"RestartSec={_RESTART_S}"
        yield "RestartPreventExitStatus=78 3"
        yield f"TimeoutStopSec={max(_LEAST_STOP_S, ceil(self.stop_limit_s) + _STOP_SLACK_S)}"
        yield f"KillMode={'process' if self.keeps_models else 'mixed'}"
        yield "OOMPolicy=continue"
        yield "Delegate=yes"
        yield from self._hardening()
        yield from ("", "[Install]")
        yield f"WantedBy={'default' if self.user is None else 'multi-user'}.target"
        if self.keeps_models:
            yield f"Also={SOCKET_NAME}"

    def _hardening(self) -> Iterator[str]:
        if self.user is not None:
            yield "ProtectSystem=full"
        if self.is_confined:
            for name in _CONFINED if self.user is None else _CONFINED_SYSTEM:
                yield f"{name}=yes"


def socket_text(host: str, port: int) -> str:
    """Return the text of the unit of the listening socket.

    Raises:
        UnitError: *host* is no address, and systemd looks no names up.
    """
    host = {"localhost": "127.0.0.1"}.get(host, host)
    try:
        is_v6 = ip_address(host).version == 6
    except ValueError as error:
        raise UnitError(f"--listen {host}:{port}: systemd expects an IP address") from error
    lines = (
        "[Unit]", "Description=Listening socket of swapchart", "",
        "[Socket]", f"ListenStream={f'[{host}]' if is_v6 else host}:{port}",
        "FileDescriptorName=swapchart", "",
        "[Install]", "WantedBy=sockets.target",
    )  # fmt: skip
    return "\n".join(lines) + "\n"


def _command(program: Sequence[str], options: Iterable[str]) -> str:
    first, *others = program
    # systemd replaces no variables in the program's name, and keeps `$$` as it is.
    head = _quoted(first, is_command=False)
    return " ".join([head, *(_quoted(word) for word in [*others, *options])])


def _quoted(word: str, *, is_command: bool = True) -> str:
    """Return one word of a command, or an assignment, of which systemd makes *word* again."""
    text = _plain(word).replace("\\", "\\\\").replace('"', '\\"')
    if is_command:
        text = text.replace("$", "$$")
    is_simple = word and not set(word) & set(" \t\\\"'#;")
    return text if is_simple else f'"{text}"'


def _plain(text: str) -> str:
    """Return *text* as the value of a setting that takes it up to the end of the line."""
    if not text.isprintable():
        raise UnitError(f"{text!r} cannot stand in a unit; expected no line breaks in names")
    return text.replace("%", "%%")
