"""HTTP client of the commands that ask a running proxy; each failure is one line of text.

It is made of the standard library: importing httpx takes 0.1 s of CPU, and these commands work in
an installation without extras. The module knows nothing of the runtime, whose import takes 0.4 s.
"""

from __future__ import annotations

import json
import ssl
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    InvalidURL,
    RemoteDisconnected,
)
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ..output import _fail

Command = Callable[[Namespace], int]

_LIMIT_S = 10.0
_SHOWN = 2000  # characters of a message
_OTHER_NAMES = frozenset({62, 64})  # OpenSSL: a host name, or an address, that does not match
#: How an option that says where or with what to ask is named in messages.
_URL, _KEY = "--url or SWAPCHART_URL", "--api-key or SWAPCHART_API_KEY"


class ApiError(Exception):
    """The request failed or was rejected; the text says which proxy and why.

    Attributes:
        status: Status of the response; 0 if there was none.
        error: Error object of the response; empty if it has none.
    """

    def __init__(self, text: str, status: int = 0, error: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.status, self.error = status, error or {}


class Proxy:
    """A running proxy, asked over one connection for each request.

    Args:
        url: Its address, such as ``http://127.0.0.1:8080``, with its root path if it has one.
        key: API key; None means none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        whole = url if "://" in url else f"http://{url}"
        bare = whole.rstrip("/")
        self.url = whole if bare.endswith(":") else bare  # without a host as it was given
        self._key = key

    def get(self, path: str, field: str, **params: str) -> dict[str, Any]:
        """GET *path* and return the JSON object of the response, which must have *field*.

        Raises:
            ApiError: There is no such response.
        """
        query = f"?{urlencode(params)}" if params else ""
        return self.send("GET", path + query, field=field)

    def send(
        self, method: str, path: str, value: object = None, *, field: str,
        limit_s: float | None = _LIMIT_S,
    ) -> dict[str, Any]:  # fmt: skip
        """Send a request and return the JSON object of the response, which must have *field*.

        Args:
            method: Method of the request.
            path: Path below the root path of the proxy, with the query.
            value: JSON value of the body; None means no body.
            field: Field by which a response of this program is known.
            limit_s: Time that the response may take, in seconds; None means unlimited.

        Raises:
            ApiError: There is no such response.
        """
        text = self.text(method, path, value, limit_s=limit_s)
        found = _json(text)
        if isinstance(found, dict) and field in found:
            return found
        raise self._foreign(200, text)

    def change(self, path: str) -> None:
        """POST to *path*, however long that takes, and expect a response that only confirms it.

        Raises:
            ApiError: There is no such response.
        """
        text = self.text("POST", path, limit_s=None)
        if text != "OK" and _json(text) != {"msg": "ok"}:
            raise self._foreign(200, text)

    def log(self, path: str, *, limit_s: float | None = _LIMIT_S) -> HTTPResponse:
        """GET a log, and return the response when its headers have arrived.

        Raises:
            ApiError: There is no such response.
        """
        response = self.open("GET", path, limit_s=limit_s)
        if response.headers.get_content_type() == "text/plain":
            return response
        with response:
            try:
                text = response.read(200).decode("utf-8", "replace")
            except (OSError, HTTPException):
                text = ""
        raise self._foreign(200, text)

    def text(
        self, method: str, path: str, value: object = None, *, limit_s: float | None = _LIMIT_S
    ) -> str:
        """Send a request as `send` does, and return the body of the response."""
        return self.read(self.open(method, path, value, limit_s=limit_s), limit_s=limit_s)

    def read(self, response: HTTPResponse, *, limit_s: float | None = _LIMIT_S) -> str:
        """Return the body of *response*.

        Raises:
            ApiError: It does not arrive completely.
        """
        with response:
            try:
                return response.read().decode("utf-8", "replace")
            except (OSError, HTTPException) as error:
                raise self._failed(error, limit_s) from error

    def open(
        self, method: str, path: str, value: object = None, *,
        limit_s: float | None = _LIMIT_S, is_forwarded: bool = False,
    ) -> HTTPResponse:  # fmt: skip
        """Send a request, and return the response when its headers have arrived.

        Args:
            method: As for `send`, like the other arguments.
            path: As for `send`.
            value: As for `send`.
            limit_s: Time until the headers, and between two pieces of the body, in seconds.
            is_forwarded: Errors may come from the server of a model.

        Raises:
            ApiError: There is no response, or its status is not 200.
        """
        headers = {"connection": "close"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        body = None
        if value is not None:
            headers["content-type"] = "application/json"
            body = json.dumps(value).encode()
        try:
            root, connection = self._connection(limit_s)
            connection.request(method, root + path, body, headers)
            response = connection.getresponse()
            if response.status == 200:
                return response
            with response:
                text = response.read(1 << 20).decode("utf-8", "replace")
        except (OSError, HTTPException, ValueError) as error:
            raise self._failed(error, limit_s) from error
        raise self._refused(response.status, text, is_forwarded=is_forwarded)

    def _connection(self, limit_s: float | None) -> tuple[str, HTTPConnection]:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError("expected an address such as http://127.0.0.1:8080")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        return parts.path, kind(parts.hostname, parts.port, timeout=limit_s)

    # ---- errors
    def _failed(self, error: Exception, limit_s: float | None) -> ApiError:
        match error:
            case ssl.SSLCertVerificationError() if error.verify_code in _OTHER_NAMES:
                why = f"its certificate is for another name ({error.verify_message}); use a name "
                why += f"of the certificate in the address, which is given by {_URL}"
            case ssl.SSLCertVerificationError():
                why = f"its certificate is not trusted ({error.verify_message}); name a file with "
                why += "that of its issuer by the variable SSL_CERT_FILE"
            case ssl.SSLError():
                why = f"it does not speak TLS ({error.reason}); try http://"
            case RemoteDisconnected():
                why = "the connection was closed; if a certificate is used there, try https://"
            case TimeoutError():
                why = f"none came within {limit_s:g} s"
            case ValueError() if _is_about_key(error):
                why = f"the value of {_KEY} has characters that a header cannot have"
            case ValueError() | InvalidURL():
                why = f"{error}; the address is given by {_URL}"
            case HTTPException() if not isinstance(error, OSError):
                why = f"what responds there speaks no HTTP ({type(error).__name__})"
            case _:
                why = f"{getattr(error, 'strerror', None) or error}; start one by "
                why += f"`swapchart serve`, or name another one by {_URL}"
        return ApiError(f"no response from {self.url}: {why}")

    def _refused(self, status: int, text: str, *, is_forwarded: bool) -> ApiError:
        value = _json(text)
        error = value.get("error") if isinstance(value, dict) else None
        details = error if isinstance(error, dict) else {}
        message = str(details.get("message") or text.strip())[:_SHOWN]
        is_ours = isinstance(value, dict) and value.get("src") == "swapchart"
        if status == 401 and is_ours:
            message = f"the API key of {_KEY} is not known there"
            if not self._key:
                message = f"an API key is needed: give it by {_KEY}"
        elif not is_ours and not is_forwarded:
            return self._foreign(status, text)
        elif details.get("code") == "model_not_found" and "did you mean" not in message:
            message += "; `swapchart list` shows the models"
        return ApiError(f"{self.url} responded with {status}: {message}", status, details)

    def _foreign(self, status: int, text: str) -> ApiError:
        told = f"with {text.strip()[:200]!r}" if status == 200 else f"with {status}"
        return ApiError(f"{self.url} is not a swapchart; it responded {told}", status)


def proxy_of(options: Namespace) -> Proxy:
    """Return the proxy that the options of a command name."""
    return Proxy(options.url, options.api_key)


def asking(command: Command) -> Command:
    """Wrap a *command* that asks a proxy: an `ApiError` becomes a message and exit code 1."""

    @wraps(command)
    def run(options: Namespace) -> int:
        try:
            with reading(options.url) if options.url else nullcontext():
                return command(options)
        except ApiError as error:
            return _fail(str(error))

    return run


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Read values of responses: one that is missing or has another type becomes an `ApiError`."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        found = f"{type(error).__name__}: {error}"
        raise ApiError(
            f"{url} is not a swapchart, or one of another version: a value of its response is "
            f"missing or unknown ({found})"
        ) from error


def model_path(model: str, before: str = "/api/models/", after: str = "") -> str:
    """Return the path of a route about *model*."""
    return f"{before}{quote(model, safe='')}{after}"


def _is_about_key(error: Exception) -> bool:
    """Return True if the key, the only header with a value of the user, cannot be sent."""
    return isinstance(error, UnicodeEncodeError) or str(error).startswith("Invalid header")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
