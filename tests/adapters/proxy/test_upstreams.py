"""Upstream registry: one connection pool per model and peer, replaced as definitions change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tools.asgi import Bench, proxied

from swapchart.adapters.proxy.models.catalog import ModelCatalog
from swapchart.adapters.proxy.models.definitions import (
    ModelDefinition,
    PeerDefinition,
    UpstreamTimeouts,
)

_MODEL = ModelDefinition(id="a")
_PEER = PeerDefinition(id="p", url="http://127.0.0.1:9/base", models=("m",))
_OTHER = UpstreamTimeouts(header_s=7.0)


def run(main: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with proxied(_MODEL, peers=[_PEER]) as bench:
            await main(bench)

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_upstreams_same_definitions_keep_their_upstreams() -> None:
    """A reload that changes nothing of a model or peer keeps its connections."""

    async def main(bench: Bench) -> None:
        upstreams = bench.app.proxy.upstreams
        model, peer = upstreams.of_model(_MODEL), upstreams.of_peer(_PEER)
        upstreams.configure({"a": replace(_MODEL, name="new")}, {"p": replace(_PEER)})

        assert upstreams.of_model(_MODEL) is model
        assert upstreams.of_peer(_PEER) is peer
        assert (peer.host, peer.prefix) == (b"127.0.0.1:9", b"/base")

    run(main)


@pytest.mark.parametrize(
    "peer", [replace(_PEER, url="http://127.0.0.1:10"), replace(_PEER, limits=_OTHER)]
)
def test_upstreams_changed_definitions_replace_upstreams(peer: PeerDefinition) -> None:
    """Other timeouts, or another URL of a peer, take effect with the next request."""

    async def main(bench: Bench) -> None:
        upstreams = bench.app.proxy.upstreams
        old_model, old_peer = upstreams.of_model(_MODEL), upstreams.of_peer(_PEER)
        model = replace(_MODEL, limits=_OTHER)
        upstreams.configure({"a": model}, {"p": peer})

        # A request from before the reload brings the earlier definition of its model.
        assert upstreams.of_model(_MODEL) is upstreams.of_model(model) is not old_model
        assert upstreams.of_model(model).limits == _OTHER
        assert upstreams.of_peer(peer) is not old_peer
        assert upstreams.of_peer(peer).endpoint == peer.url

    run(main)


def test_upstreams_close_with_the_proxy_even_if_replaced() -> None:
    """Connections of a replaced upstream are closed, too."""

    async def main(bench: Bench) -> None:
        proxy = bench.app.proxy
        assert (await bench.client.chat("a")).status == 200
        old = proxy.upstreams.of_model(_MODEL)
        assert old.pool.open == 1
        proxy.configure(ModelCatalog([replace(_MODEL, limits=_OTHER)]), proxy.options)
        assert (await bench.client.chat("a")).status == 200
        new = proxy.upstreams.of_model(_MODEL)
        assert (new is not old, old.pool.open, new.pool.open) == (True, 1, 1)
        await proxy.upstreams.aclose()

        assert (old.pool.open, new.pool.open) == (0, 0)

    run(main)


def test_upstreams_forget_what_a_process_did_behind_streams_when_it_ends() -> None:
    """The next process may be another program, which closes connections behind event streams."""

    async def main(bench: Bench) -> None:
        assert (await bench.client.chat("a")).status == 200
        upstream = bench.app.proxy.upstreams.of_model(_MODEL)
        upstream.pool.streams.is_kept = True
        await bench.supervisor.unload("a")

        assert not upstream.pool.streams.is_kept

    run(main)
