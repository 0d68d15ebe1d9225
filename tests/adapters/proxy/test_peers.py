"""Peers: routing to other servers, their keys, and loops between them."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tools.asgi import Bench, Received, Server, proxied, serving
from tools.net import free_port
from tools.rows import row
from tools.swapchart_process import Serve, demo_model

from swapchart.adapters.proxy.models.definitions import (
    BodyFilters,
    PeerDefinition,
    UpstreamTimeouts,
)
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions

KEYED = ProxyOptions(keys=(ApiKey(key="ours"),), instance_id="me")


def run(
    main: Callable[[Bench, Server], Awaitable[None]], peer: Callable[[Server], Any], **options: Any
) -> None:
    async def whole() -> None:
        async with serving() as remote:
            peers = peer(remote)
            peers = peers if isinstance(peers, list) else [peers]
            async with proxied(peers=peers, **options) as bench:
                await main(bench, remote)

    asyncio.run(whole())


def one(**more: Any) -> Callable[[Server], PeerDefinition]:
    return lambda remote: PeerDefinition(
        id="p", url=f"{remote.url}/base", models=("m", "org/m", "a"), **more
    )


@pytest.mark.parametrize(
    ("wanted", "sent"), [("m", "m"), ("p/m", "m"), ("p/org/m", "org/m"), ("org/m", "org/m")]
)
def test_peer_models_have_full_and_short_names(wanted: str, sent: str) -> None:
    """A remote model goes by its full name, or its bare one; the peer gets the bare one."""

    async def main(bench: Bench, remote: Server) -> None:
        body = b'{ "model" : "%b", "x":1.0 }' % wanted.encode()
        answer = await bench.client.call("POST", "/v1/chat/completions?q=1", body=body)

        assert answer.status == 200
        assert remote.last.target == "/base/v1/chat/completions?q=1"
        assert remote.last.body == body.replace(wanted.encode(), sent.encode())
        assert remote.last.header("host") == f"127.0.0.1:{remote.port}"

    run(main, one())


def test_peer_name_equal_to_a_local_one_yields() -> None:
    """A bare name that a model of ours has is ours; the full one is the peer's."""

    async def main(bench: Bench, remote: Server) -> None:
        await bench.client.chat("a")
        assert remote.received == []
        await bench.client.chat("p/a")
        assert remote.last.json()["model"] == "a"

    run(main, one())


def test_short_name_of_two_peers_is_unknown() -> None:
    """Where two peers offer a name, only the full names are known."""

    async def main(bench: Bench, remote: Server) -> None:
        assert (await bench.client.chat("m")).status == 404
        assert (await bench.client.chat("q/m")).status == 200

    run(main, lambda r: [PeerDefinition(id=i, url=r.url, models=("m",)) for i in ("p", "q")])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/upstream/p/m/v1/chat/completions"])
@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
@row("C34")
def test_peer_requests_carry_no_key_of_the_proxy(path: str, name: str) -> None:
    """A peer never sees a key of ours, with or without one of its own."""

    async def without(bench: Bench, remote: Server) -> None:
        secret = "Bearer ours" if name == "authorization" else "ours"
        answer = await bench.client.call("POST", path, value={"model": "m"}, headers={name: secret})
        assert answer.status == 200
        assert "ours" not in str(remote.last.headers)

    async def with_one(bench: Bench, remote: Server) -> None:
        await without(bench, remote)
        assert remote.last.header("authorization") == "Bearer theirs"
        assert remote.last.header("x-api-key") == "theirs"
        assert len([1 for key, _ in remote.last.headers if key == "authorization"]) == 1

    run(without, one(), options=KEYED)
    run(with_one, one(api_key="theirs"), options=KEYED)


def test_peer_requests_carry_credentials_of_the_client_if_there_are_no_keys() -> None:
    """Without keys of ours a client's own are meant for the peer."""

    async def main(bench: Bench, remote: Server) -> None:
        await bench.client.chat("m", headers={"Authorization": "Bearer client's"})
        assert remote.last.header("authorization") == "Bearer client's"

    run(main, one())


def test_peer_addresses_are_not_shown() -> None:
    """Nothing about the client's address goes to a peer."""
    fields = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Real-IP": "1.2.3.4"}

    async def main(bench: Bench, remote: Server) -> None:
        await bench.client.chat("m", headers={**fields, "Forwarded": "for=1.2.3.4"})

        names = {name for name, _ in remote.last.headers}
        assert not names & {"x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded"}

    run(main, one(), options=ProxyOptions(trusted_proxies=("127.0.0.1",)))


def test_peer_requests_pass_filters_and_forms() -> None:
    """Filters of the peer apply to JSON, and a form's model becomes the bare name."""
    filters = BodyFilters(strip=("seed",), set_params={"x": 1}, set_params_by_id={"p/m": {"y": 2}})
    form = (
        b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--B--\r\n'
    )

    async def main(bench: Bench, remote: Server) -> None:
        await bench.client.call("POST", "/v1/completions", value={"model": "p/m", "seed": 1})
        assert remote.last.json() == {"model": "m", "x": 1, "y": 2}
        await bench.client.call(
            "POST", "/v1/audio/transcriptions", body=form % b"p/m",
            headers={"Content-Type": "multipart/form-data; boundary=B"},
        )  # fmt: skip
        assert remote.last.body == form % b"m"

    run(main, one(filters=filters))


def test_peer_that_is_unreachable_is_502() -> None:
    """A peer that is not there is a 502, and one that is slow a 504, in the usual shape."""

    async def never(received: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def main(bench: Bench, remote: Server) -> None:
        remote.respond = never
        slow = await bench.client.chat("m")
        gone = await bench.client.chat("away")

        assert (slow.status, slow.error()["code"]) == (504, "upstream_head")
        assert (gone.status, gone.error()["code"]) == (502, "upstream_connect")

    def peers(remote: Server) -> list[PeerDefinition]:
        away = PeerDefinition(id="q", url=f"http://127.0.0.1:{free_port()}", models=("away",))
        return [one(limits=UpstreamTimeouts(header_s=0.1))(remote), away]

    run(main, peers)


@row("C32")
def test_peer_redirects_are_passed_to_the_client() -> None:
    """A redirect of a peer is passed to the client; we follow none."""

    async def elsewhere(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 307 X\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n"
        )
        await writer.drain()

    async def main(bench: Bench, remote: Server) -> None:
        remote.respond = elsewhere
        answer = await bench.client.chat("m")

        assert (answer.status, answer.header("location")) == (307, "http://evil.example/")
        assert len(remote.received) == 1

    run(main, one())


# ---- circles
def test_peer_request_that_passed_here_before_is_508() -> None:
    """What we send to a peer carries a mark; what carries our mark is refused."""

    async def main(bench: Bench, remote: Server) -> None:
        await bench.client.chat("m", headers={"Via": "1.1 other", "X-Api-Key": "ours"})
        via = [value for name, value in remote.last.headers if name == "via"]
        assert via == ["1.1 other", "1.1 swapchart-me"]
        back = await bench.client.chat("m", headers={"Via": ", ".join(via)})
        assert (back.status, back.error()["code"]) == (508, "peer_loop")
        assert len(remote.received) == 1

    run(main, one(), options=KEYED)


@pytest.mark.slow
def test_peer_loop_of_two_proxies_is_508(serve: Serve) -> None:
    """Two proxies whose peers are each other find it out at once, and serve on."""
    port = free_port()
    peer = {"proxy": f"http://127.0.0.1:{port}", "models": ["circle", "fine"]}
    first = serve({"a": demo_model("a")}, config={"peers": {"p": peer}})
    back = {"proxy": f"http://127.0.0.1:{first.port}", "models": ["circle"]}
    second = serve(
        {"fine": demo_model("fine")},
        config={"peers": {"q": back}}, options=["--listen", f"127.0.0.1:{port}"],
    )  # fmt: skip

    for proxy in (first, second):
        answer = proxy.chat("circle")
        assert (answer.status, answer.json()["error"]["code"]) == (508, "peer_loop")
    assert first.chat("fine").status == 200
    assert second.running()["fine"]["in_flight"] == 0


# ---- TLS
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
@row("C41")
def test_peer_over_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer's certificate is verified: a known one is spoken to, a strange one is not."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def main() -> int:
        up = Server()
        listener = await asyncio.start_server(up._serve, "localhost", 0, ssl=context)
        up.port = listener.sockets[0].getsockname()[1]
        peer = PeerDefinition(id="p", url=f"https://localhost:{up.port}", models=("m",))
        try:
            async with proxied(peers=[peer]) as bench:
                return (await bench.client.chat("m")).status
        finally:
            listener.close()
            for task in list(up._tasks):
                task.cancel()
            await asyncio.gather(*up._tasks, return_exceptions=True)

    assert asyncio.run(main()) == 502
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert asyncio.run(main()) == 200
