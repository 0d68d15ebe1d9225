"""The HTTP calls of hooks, by httpx: no redirects, no cookies kept, no environment proxies."""

from __future__ import annotations

from ..runtime import HttpCall

_LONGEST_BODY = 64 << 10


class HttpxClient:
    """One connection per call: hooks are rare, and a fresh client remembers nothing."""

    async def call(self, call: HttpCall, *, timeout_s: float) -> tuple[int, bytes]:
        """Make *call*; returns the status and at most 64 KiB of the body.

        Raises:
            OSError: The other end could not be reached, or not in time.
        """
        import httpx  # takes 80 ms, and most runs never call

        verify = call.url.startswith("https")  # loading certificates takes 20 ms
        try:
            async with (
                httpx.AsyncClient(
                    trust_env=False, follow_redirects=False, timeout=timeout_s,
                    verify=verify,
                ) as client,
                client.stream(
                    call.method, call.url, headers=dict(call.headers), content=call.body
                ) as response,
            ):  # fmt: skip
                body = b""
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) >= _LONGEST_BODY:
                        break
                return response.status_code, body[:_LONGEST_BODY]
        except httpx.TimeoutException as error:
            raise TimeoutError(f"no answer within {timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
