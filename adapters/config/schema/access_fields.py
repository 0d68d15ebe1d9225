"""Types of `allowedHosts`, `allowedOrigins` and `dropEnv`.

A value that no browser ever sends would look like a permission without being one, so it is an
error.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from .fields import Filled
from .section import AfterValidator, refuse

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._*-]+))(?::(\d{1,5}))?")
_PAGE = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._*-]+))(?::([0-9*]+))?")
_ORIGIN = re.compile(r"[a-z*][a-z0-9+.*-]*://[^\s/?#@\\]+|\*[^\s/?#@\\]*|null")
_VARIABLE = re.compile(r"[^=\0]+")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_LARGEST_PORT, _MOST_DIGITS, _LONGEST_LABEL = 65535, 5, 63


def _as_host(text: str) -> str:
    """Return *text* if a Host header can match it."""
    if "://" in text:
        raise refuse(f"expected a name without a scheme, such as {urlsplit(text).netloc!r}")
    if not text.isascii():
        raise refuse(f"expected the ASCII form of the name, as clients send it{_idna(text)}")
    match = _HOST.fullmatch(text)
    if match is None:
        if _is_address(text):
            raise refuse(f"expected brackets around an IPv6 address: '[{text}]'")
        raise refuse("expected a name, with or without a port: proxy.lan, *.lan, proxy.lan:8080")
    if match[1] is not None and not _is_address(match[1]):
        raise refuse("expected an IPv6 address between the brackets")
    if match[2] is not None:
        _check_name(match[2])
    if match[3] is not None:
        _check_port(match[3])
    return text


def _check_name(name: str) -> None:
    """Raise an error if no client sends *name*, in which ``*`` matches any text, as a host."""
    if name.startswith("."):
        raise refuse(f"expected '*{name}' for the names that end with {name!r}")
    for label in name.removesuffix(".").split("."):
        if not label or (len(label) > _LONGEST_LABEL and "*" not in label):
            raise refuse("expected a name with 1 to 63 characters between its dots")


def _check_port(port: str) -> None:
    """Raise an error if *port*, one or more digits, is not a port as clients write it."""
    if len(port) > _MOST_DIGITS or not 0 < int(port) <= _LARGEST_PORT:
        raise refuse(f"expected a port from 1 to {_LARGEST_PORT}")
    if port.startswith("0"):
        raise refuse(f"expected the port without leading zeros: {int(port)}")


def _as_origin(text: str) -> str:
    """Return *text* if an Origin header can match it."""
    plain = text.lower().rstrip("/")
    if not plain.isascii():
        raise refuse("expected the ASCII form of the name, as browsers send it")
    if _ORIGIN.fullmatch(plain) is None:
        raise refuse(
            "expected scheme and host with nothing behind them: https://chat.example.org, "
            "https://*.example.org:8443"
        )
    scheme, _, rest = plain.partition("://")
    if scheme in _DEFAULT_PORTS:
        _check_page(scheme, rest)
    return text


def _check_page(scheme: str, rest: str) -> None:
    """Raise an error if no page has an origin of *scheme*, http or https, and *rest*."""
    match = _PAGE.fullmatch(rest)
    if match is None:
        raise refuse("expected a host, with or without a port: https://chat.example.org:8443")
    if match[1] is not None and not _is_address(match[1]):
        raise refuse("expected an IPv6 address between the brackets")
    if match[2] is not None:
        _check_name(match[2])
    port = match[3]
    if port == _DEFAULT_PORTS[scheme]:
        shown = f"{scheme}://{rest[: -len(port) - 1]}"
        raise refuse(f"expected {shown}: browsers leave out the port {port} of {scheme}")
    if port is not None and "*" not in port:
        _check_port(port)


def _as_variable(text: str) -> str:
    if _VARIABLE.fullmatch(text) is None:
        raise refuse("expected the name of a variable, without its value")
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _idna(text: str) -> str:
    try:
        return f": {text.encode('idna').decode()!r}"
    except UnicodeError:
        return ""


#: A host name of this proxy, optionally with a port; ``*`` matches anything.
HostName: TypeAlias = Annotated[Filled, AfterValidator(_as_host)]
#: Scheme, host and optionally a port of a page; ``*`` matches anything.
Origin: TypeAlias = Annotated[Filled, AfterValidator(_as_origin)]
#: The name of an environment variable.
VariableName: TypeAlias = Annotated[Filled, AfterValidator(_as_variable)]
