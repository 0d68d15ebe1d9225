"""Handlers whose return type is the body of the response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import UnionType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from ...http1.asgi_types import Send
from ..context import ProxyContext
from ..request import Request
from ..responses import ApiError, send_api_error, send_json, send_text
from ..routing import TEXT, ResponseType
from .schema.base import Body

Result = TypeVar("Result", bound="Body | str")


class ApiHandler(Generic[Result]):
    """A handler of our own API: sends what its function returns, or the `ApiError` it raises.

    Args:
        function: Takes the context and the request. Its annotated return type, a `Body`, a union
            of them or ``str`` for plain text, is what the OpenAPI document says of the route.

    Attributes:
        responses: The declared types of the response.

    Raises:
        TypeError: *function* declares no such type.
    """

    def __init__(self, function: Callable[[ProxyContext, Request], Awaitable[Result]]) -> None:
        self._function = function
        self.responses = _declared(function)

    async def __call__(self, proxy: ProxyContext, request: Request, send: Send) -> None:
        """Send the response to *request*."""
        try:
            result = await self._function(proxy, request)
        except ApiError as error:
            await send_api_error(request, send, error)
            return
        if isinstance(result, Body):
            await send_json(send, result, result.STATUS)
        else:
            await send_text(send, result)


def _declared(function: Callable[..., Any]) -> tuple[ResponseType, ...]:
    declared = get_type_hints(function).get("return")
    found = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    types: list[ResponseType] = []
    for kind in found:
        if kind is str:
            types.append(TEXT)
        elif isinstance(kind, type) and issubclass(kind, Body):
            types.append(kind)
        else:
            name = getattr(function, "__qualname__", function)
            raise TypeError(f"{name} returns {kind}: expected a type derived from Body, or str")
    return tuple(types)
