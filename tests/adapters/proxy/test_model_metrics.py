"""``/metrics/models``: metrics of the servers of models, on one page."""

from __future__ import annotations

import asyncio
from asyncio import StreamWriter
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tools.asgi import Bench, Received, idle_model, proxied, run_proxied, say, serving
from tools.prometheus import check_metrics

from swapchart.adapters.proxy.api.metrics.relabel import merged
from swapchart.adapters.proxy.api.metrics.scrape import Scrape
from swapchart.runtime import ServiceSpec

_PAGE = """\
# HELP demo_tokens_total Tokens.
# TYPE demo_tokens_total counter
demo_tokens_total{kind="prompt"} 3
# HELP demo_wait_seconds Waits.
# TYPE demo_wait_seconds histogram
demo_wait_seconds_bucket{le="1.0"} 1
demo_wait_seconds_bucket{le="+Inf"} 2
demo_wait_seconds_sum 4
demo_wait_seconds_count 2
"""


def _values(page: bytes | str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = page if isinstance(page, str) else page.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(found: Any, name: str, /, **labels: str) -> float:
    value: float = found[name, frozenset(labels.items())]
    return value


def _up(found: Any) -> dict[str, float]:
    return {
        dict(labels)["model"]: value
        for (name, labels), value in found.items()
        if name == "swapchart_model_scrape_up"
    }


def _page(text: str) -> Callable[[Received, StreamWriter], Any]:
    async def respond(received: Received, writer: StreamWriter) -> None:
        if received.target == "/metrics":
            await say(writer, text.encode(), kind="text/plain; version=0.0.4")
        else:
            await say(writer, b'{"ok":true}')

    return respond


# ---- relabeling
def _merged(**pages: str | None) -> str:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import Collector

    families = merged([Scrape(model=name, text=text, seconds=0.1) for name, text in pages.items()])

    class Families(Collector):
        def collect(self) -> Any:
            return families

    registry = CollectorRegistry()
    registry.register(Families())
    return generate_latest(registry).decode()


def test_relabel_two_servers_of_one_kind_share_one_family() -> None:
    page = _merged(a=_PAGE, b=_PAGE)
    found = _values(page)

    assert page.count("# TYPE demo_tokens_total counter") == 1
    assert _value(found, "demo_tokens_total", model="a", kind="prompt") == 3
    assert _value(found, "demo_tokens_total", model="b", kind="prompt") == 3
    assert _value(found, "demo_wait_seconds_bucket", model="b", le="+Inf") == 2
    assert _up(found) == {"a": 1, "b": 1}
    assert check_metrics(page) == []


def test_relabel_label_model_of_a_server_becomes_exported_model() -> None:
    page = _merged(a='x{model="m"} 1\n', b='x{model="m",exported_model="n"} 2\n')
    found = _values(page)

    assert _value(found, "x", model="a", exported_model="m") == 1
    both = {"exported_exported_model": "m", "exported_model": "n"}
    assert _value(found, "x", model="b", **both) == 2


def test_relabel_name_with_two_types_has_none() -> None:
    """Prometheus rejects a page on which one name has two types."""
    page = _merged(
        a="# HELP x_total X.\n# TYPE x_total counter\nx_total 1\n",
        b="# HELP x_total X.\n# TYPE x_total gauge\nx_total 2\n",
        c="# HELP x_total X.\n# TYPE x_total gauge\nx_total 3\n",
    )
    found = _values(page)

    assert [_value(found, "x_total", model=name) for name in "abc"] == [1, 2, 3]
    assert page.count("# TYPE x_total ") == 1
    assert "# TYPE x_total untyped" in page


def test_relabel_counter_without_total_keeps_its_name() -> None:
    """The name of a series is the server's: dashboards made for the server go on working."""
    page = _merged(a="# TYPE old counter\nold 5\n", b="# TYPE old counter\nold 6\n")

    assert "# TYPE old untyped" in page
    assert _value(_values(page), "old", model="b") == 6


@pytest.mark.parametrize("text", [None, "<html>", 'x{a="b"', "x one\n", "\x00", "x{} {} {}\n"])
def test_relabel_server_that_sends_no_metrics_is_down(text: str | None) -> None:
    found = _values(_merged(a=text, b=_PAGE))

    assert _up(found) == {"a": 0, "b": 1}
    assert _value(found, "demo_tokens_total", model="b", kind="prompt") == 3


def test_relabel_server_that_is_a_proxy_too_cannot_report_scrapes_of_this_one() -> None:
    fake = '# TYPE swapchart_model_scrape_up gauge\nswapchart_model_scrape_up{model="b"} 9\n'
    page = _merged(a=fake)

    assert _up(_values(page)) == {"a": 1}
    assert page.count("# TYPE swapchart_model_scrape_up") == 1


# ---- the route
def test_metrics_of_models_has_ready_models_and_starts_none() -> None:
    """A stopped model is not on the page, stays stopped, and was not requested to start."""

    async def main(bench: Bench) -> None:
        empty = await bench.client.call("GET", "/metrics/models")
        assert empty.status == 200
        assert _up(_values(empty.body)) == {}
        await bench.client.chat("a")
        answer = await bench.client.call("GET", "/metrics/models")

        assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        found = _values(answer.body)
        assert _up(found) == {"a": 1}
        assert _value(found, "demo_tokens_total", model="a", kind="prompt") == 3
        assert bench.supervisor["b"].state == "stopped"
        assert bench.supervisor["a"].in_flight == 0
        assert check_metrics(answer.body.decode()) == []

    run_proxied(main, respond=_page(_PAGE))


@pytest.mark.parametrize("status", [404, 405, 501])
def test_metrics_of_models_leaves_out_servers_without_metrics(status: int) -> None:
    async def respond(received: Received, writer: StreamWriter) -> None:
        is_metrics = received.target == "/metrics"
        await say(writer, b"{}", status=status if is_metrics else 200)

    async def main(bench: Bench) -> None:
        await bench.client.chat("a")
        answer = await bench.client.call("GET", "/metrics/models")

        assert (answer.status, _up(_values(answer.body))) == (200, {})

    run_proxied(main, respond=respond)


def test_metrics_of_models_server_that_fails_leaves_the_others() -> None:
    """A server that hangs, one that sends too much, one that refuses, and one that works."""

    async def hang(received: Received, writer: StreamWriter) -> None:
        if received.target == "/metrics":
            await asyncio.Event().wait()
        await say(writer, b"{}")

    async def flood(received: Received, writer: StreamWriter) -> None:
        await say(writer, b"x 1\n" * (2 << 20) if received.target == "/metrics" else b"{}")

    async def refuse(received: Received, writer: StreamWriter) -> None:
        await say(writer, b"{}", status=500 if received.target == "/metrics" else 200)

    async def main() -> None:
        async with (
            serving(hang) as hanging,
            serving(flood) as flooding,
            serving(refuse) as refusing,
        ):
            servers = {"hangs": hanging, "floods": flooding, "refuses": refusing}

            def place(spec: ServiceSpec) -> ServiceSpec:
                found = servers.get(spec.name)
                return spec if found is None else idle_model(spec.name, found.url)

            async with proxied(
                *servers, "works", respond=_page(_PAGE), specs=place,
                policy=lambda target, running: frozenset(),
            ) as bench:  # fmt: skip
                for name in (*servers, "works"):
                    assert (await bench.client.chat(name)).status == 200
                limit = {"X-Prometheus-Scrape-Timeout-Seconds": "1.5"}
                answer = await bench.client.call("GET", "/metrics/models", headers=limit)
                found = _values(answer.body)

                assert answer.status == 200
                assert _up(found) == {"hangs": 0, "floods": 0, "refuses": 0, "works": 1}
                assert _value(found, "demo_tokens_total", model="works", kind="prompt") == 3
                took = _value(found, "swapchart_model_scrape_duration_seconds", model="hangs")
                assert 0.9 < took < 10

    asyncio.run(main())
