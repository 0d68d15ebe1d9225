"""Numbers that clients write."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
from tools.asgi import Bench, proxied

from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.options import ProxyOptions
from swapchart.adapters.proxy.query import whole_number
from swapchart.adapters.proxy.routing import Route

ODD = ["9" * 5000, "9" * 19, "-1", "1e999", "\u0663", "\u00b2", "0x1", "", "NaN", "1_0"]
STREAMS = ("/api/events", "/logs", "/models/sse")  # have no end
QUERIES = ("limit", "page", "min_id", "max_id", "after", "start", "end", "since", "model", "n")


@pytest.mark.parametrize("text", ODD)
def test_whole_number_takes_decimal_digits_within_bounds(text: str) -> None:
    """What Python would read otherwise, or not at all, is no number."""
    assert whole_number(text, 0, 10**6) is None
    assert whole_number("17", 0, 17) == 17


def test_route_with_any_number_never_fails() -> None:
    """No route answers 500 to a number in its path, its query or its body, however odd."""

    async def main() -> None:
        async with proxied("a", options=ProxyOptions(performance_every_s=1000.0)) as bench:
            for route in ROUTES.routes:
                if route.path.startswith(STREAMS):
                    continue
                for number in ODD[:5]:
                    await ask(bench, route, number)

    asyncio.run(main())


async def ask(bench: Bench, route: Route, number: str) -> None:
    method = "GET" if route.method == "*" else route.method
    path, given = route.path.replace("*", quote(number) or "1"), quote(number)
    query = "&".join(f"{name}={given}" for name in QUERIES)
    body = f'{{"model":{number},"name":{number}}}'.encode()
    headers = {"content-type": "application/json"}

    answer = await bench.client.call(method, f"{path}?{query}", body=body, headers=headers)

    assert answer.status != 500, (route.path, number[:9], answer.body[:300])
    assert answer.status == 200 or len(answer.body) < 20_000
