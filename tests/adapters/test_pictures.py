"""Pictures of charts, measured in Chromium and in Graphviz's layout."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from tools.browser import launched

from swapchart.adapters import pictures
from swapchart.machine import ChartError, SwapchartError, View, lifecycle, read
from swapchart.machine.drawing.palette import contrast
from swapchart.machine.drawing.svg import to_svg
from swapchart.machine.drawing.views import Theme, full, overview, views

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
CHARTS = {
    "lifecycle": lifecycle(),
    **{path.stem: read(path.read_text("utf-8")) for path in (ROOT / "tests/charts").glob("*.yaml")},
}
#: Views of the shipped chart, and those of every chart of the tests.
SHIPPED = [("lifecycle", name) for name in views(lifecycle())]
VIEWS = [(chart, name) for chart, document in CHARTS.items() for name in views(document)]
SHOP = """
format: swapchart.chart/v1
name: Shop
data:
  amount: {values: [0, 50]}
  kind: {values: [plain, 'a|*<b>&lt;"']}
events: {submit: {}, cancel: {}}
chart:
  states:
    draft:
      initial: true
      transitions:
        - {event: submit, target: done, cond: amount * 2 < 50}
        - {event: cancel, cond: kind == 'a|*<b>&lt;"' and amount < 50, "on": {set: {amount: "50"}}}
    done: {}
"""
NAMESPACE = "{http://www.w3.org/2000/svg}"
PAGE = 900
SMALLEST = 9.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("dot") is None, reason="needs Graphviz: apt-get install graphviz"
    ),
]


def embedded() -> list[str]:
    """Return the SVG pictures that the README and the pages of docs/ show."""
    found = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"!\[[^\]]*\]\(([^)\s]+\.svg)\)", page.read_text("utf-8")):
            path = (page.parent / link).resolve()
            if path.is_file():
                found.add(str(path.relative_to(ROOT)))
    return sorted(found)


@cache
def drawn(chart: str, name: str) -> tuple[str, str]:
    """Return the layout and the SVG of a view."""
    layouts: list[str] = []

    def noted(layout: str, *, theme: Theme) -> str:
        layouts.append(layout)
        return to_svg(layout, theme=theme)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "to_svg", noted)
        svg = pictures.draw(CHARTS[chart], "svg", views(CHARTS[chart])[name]).decode()
    return layouts[0], svg


# ---- in a browser ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page as wide as the column of a README."""
    page = browser.new_page(viewport={"width": PAGE, "height": 1000})
    yield page
    page.close()


#: Returns for each text: its words, its box of ink, the height of its font, whether it is inside of
#: the shape of its group, its color and the color behind it.
MEASURE = """() => {
  const svg = document.querySelector("svg");
  const shapes = "path,polygon,ellipse,rect";
  const scale = svg.getScreenCTM().a;
  const drawn = [...svg.querySelectorAll(shapes + ",text")];
  const holds = (shape, x, y) => {
    const point = svg.createSVGPoint();
    [point.x, point.y] = [x, y];
    return shape.isPointInFill(point);
  };
  return drawn.filter((item) => item.tagName === "text").map((text) => {
    const size = parseFloat(getComputedStyle(text).fontSize);
    const box = text.getBBox();
    const [x, y, width] = [box.x, parseFloat(text.getAttribute("y")), box.width];
    const corners = [[x, y - 0.7 * size], [x + width, y - 0.7 * size], [x, y], [x + width, y]];
    const group = text.closest("g");
    const outline = group && ["node", "cluster"].includes(group.getAttribute("class"))
      ? group.querySelector(shapes) : null;
    const under = drawn.slice(0, drawn.indexOf(text)).filter((shape) =>
      shape.tagName !== "text" && getComputedStyle(shape).fill !== "none" &&
      holds(shape, x + width / 2, y - 0.35 * size));
    return {
      words: text.textContent, x, y: y - 0.7 * size, width, height: 0.9 * size,
      font: size * scale, color: getComputedStyle(text).fill,
      behind: under.length ? getComputedStyle(under.at(-1)).fill : "rgb(255, 255, 255)",
      inside: !outline || outline.tagName === "text" ||
        corners.every(([cx, cy]) => holds(outline, cx, cy)),
    };
  });
}"""


def measured(page: Page, svg: str) -> list[dict[str, Any]]:
    """Return what Chromium says about each text of *svg* on a page of 900 px."""
    page.set_content(f'<body style="margin:0"><div style="width:{PAGE}px">{svg}</div></body>')
    page.add_style_tag(content="svg{max-width:100%;height:auto}")
    found: list[dict[str, Any]] = page.evaluate(MEASURE)
    assert found
    return found


def overlaps(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return True if the ink of two texts overlaps by more than rounding."""
    wide = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
    high = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
    return bool(wide > 1 and high > 1)


def colors(text: dict[str, Any]) -> tuple[str, str]:
    """Return the color of *text* and the one behind it as #rrggbb."""
    parts = (map(int, re.findall(r"\d+", text[key])[:3]) for key in ("color", "behind"))
    first, second = (f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in parts)
    return first, second


@pytest.mark.parametrize("name", embedded())
def test_embedded_picture_is_readable_at_the_width_of_a_page(page: Page, name: str) -> None:
    """Committed pictures in the documentation: no text is less than 9 px high at 900 px."""
    texts = measured(page, (ROOT / name).read_text("utf-8"))

    assert min(text["font"] for text in texts) >= SMALLEST


def test_documentation_embeds_pictures() -> None:
    """The README shows the overview, and each composite state of our lifecycle has a picture."""
    assert "diagrams/overview.svg" in embedded()
    assert "(diagrams/overview.svg)" in (ROOT / "README.md").read_text("utf-8")
    for state in ("starting", "stopping", "failed", "sleeping"):
        assert f"diagrams/{state}.svg" in embedded()


@pytest.mark.parametrize(("chart", "name"), VIEWS)
def test_texts_of_a_view_fit_their_boxes_and_do_not_overlap(
    page: Page, chart: str, name: str
) -> None:
    """In Chromium, at the widths that the layout measured; and readable at 900 px."""
    texts = measured(page, drawn(chart, name)[1])

    assert [text["words"] for text in texts if not text["inside"]] == []
    assert [
        (one["words"], other["words"])
        for index, one in enumerate(texts)
        for other in texts[:index]
        if overlaps(one, other)
    ] == []
    assert min(text["font"] for text in texts) >= SMALLEST


def test_texts_of_the_full_picture_fit_their_boxes(page: Page) -> None:
    """The large one for printing: its texts stay inside their boxes too."""
    texts = measured(page, pictures.draw(lifecycle(), "svg", full(lifecycle())).decode())

    assert [text["words"] for text in texts if not text["inside"]] == []


def test_guard_written_inline_is_legible_in_chromium(page: Page) -> None:
    """As its expression, with every sign as it was written, in rows that fit their box."""
    texts = measured(page, pictures.draw(read(SHOP), "svg", View(hide=())).decode())
    words = [text["words"] for text in texts]

    assert "[amount * 2 < 50]" in words
    assert {"[kind == 'a|*<b>&lt;\"'", "and amount < 50]"} <= set(words)
    assert [text["words"] for text in texts if not text["inside"]] == []
    assert page.locator("title", has_text="amount * 2 < 50").count() == 1


@pytest.mark.parametrize("family", ["DejaVu Sans", "monospace"])
def test_texts_fit_their_boxes_in_another_font(page: Page, family: str) -> None:
    """A reader without our fonts: wider letters are narrowed to the width of the layout."""
    svg = drawn("lifecycle", "overview")[1]
    other = re.sub(r'font-family="[^"]*"', f'font-family="{family}"', svg)
    assert other != svg

    texts = measured(page, other)

    assert [text["words"] for text in texts if not text["inside"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("chart", "name"), SHIPPED)
def test_text_of_a_view_has_contrast_in_both_themes(
    page: Page, chart: str, name: str, scheme: str
) -> None:
    """At least 4.5 to what is behind it; with the theme auto, colors follow the page's scheme."""
    view = replace(views(CHARTS[chart])[name], active=("alive", "ready", "stopping"))
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]

    texts = measured(page, pictures.draw(CHARTS[chart], "svg", view).decode())

    found = {colors(text) for text in texts}
    assert min(contrast(*pair) for pair in found) >= 4.5
    darkest = min(contrast(behind, "#000000") for _, behind in found)
    assert (darkest < 2) == (scheme == "dark")


# ---- in the layout -------------------------------------------------------------------------
def laid_out(chart: str, name: str) -> dict[str, Any]:
    """Return the layout from which the picture of a view is drawn."""
    graph: dict[str, Any] = json.loads(drawn(chart, name)[0])
    return graph


def course(points: list[list[float]]) -> Iterator[tuple[float, float]]:
    """Yield points along a spline of cubic pieces."""
    for at in range(0, len(points) - 3, 3):
        for step in range(33):
            t = step / 32
            weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            piece = points[at : at + 4]
            yield (
                sum(w * p[0] for w, p in zip(weights, piece, strict=True)),
                sum(w * p[1] for w, p in zip(weights, piece, strict=True)),
            )


@pytest.mark.parametrize(("chart", "name"), VIEWS)
def test_edge_of_a_view_crosses_no_box_but_its_ends(chart: str, name: str) -> None:
    """No point of an edge is inside of a state that it does not connect."""
    graph = laid_out(chart, name)
    boxes = {}
    for item in graph["objects"]:
        if "pos" in item and item.get("style") != "invis":
            x, y = map(float, item["pos"].split(","))
            wide, high = float(item["width"]) * 36 - 1, float(item["height"]) * 36 - 1
            boxes[item["_gvid"]] = (item["name"], x - wide, x + wide, y - high, y + high)
    crossed = set()
    for edge in graph.get("edges", ()):
        for operation in edge.get("_draw_", ()):
            if operation["op"] != "b" and operation["op"] != "B":
                continue
            for x, y in course(operation["points"]):
                for number, (box, left, right, low, high) in boxes.items():
                    if number not in (edge["tail"], edge["head"]) and (
                        left < x < right and low < y < high
                    ):
                        crossed.add((edge.get("tooltip", "").partition(":")[0], box))

    assert crossed == set()


@pytest.mark.parametrize(("chart", "name"), VIEWS)
def test_edge_of_a_view_runs_through_no_text(chart: str, name: str) -> None:
    """No label and no name of a state is crossed by a line."""
    graph = laid_out(chart, name)
    texts = []
    for item in (*graph["objects"], *graph.get("edges", ())):
        height = 0.0
        for operation in item.get("_ldraw_", ()):
            height = operation.get("size", height)
            if operation["op"] == "T" and operation["text"].strip(" \u00a0"):
                x, y = operation["pt"]
                width = operation["width"]
                left = x - {"l": 0, "c": width / 2, "r": width}[operation["align"]]
                texts.append((operation["text"], left + 1, left + width - 1, y, y + 0.7 * height))
    crossed = {
        (text, edge.get("tooltip", ""))
        for edge in graph.get("edges", ())
        for operation in edge.get("_draw_", ())
        if operation["op"] in ("b", "B")
        for x, y in course(operation["points"])
        for text, left, right, low, high in texts
        if left < x < right and low < y < high
    }

    assert texts
    assert crossed == set()


# ---- what a picture says -------------------------------------------------------------------
def test_svg_names_each_state_and_edge_for_tooltips_and_screen_readers() -> None:
    """Each box and edge has a title, and the description holds everything that a view hides."""
    document = lifecycle()
    root = ET.fromstring(drawn("lifecycle", "overview")[1])

    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title description"
    assert root.findtext(f"{NAMESPACE}title") == "Lifecycle"
    titles = {
        group.get("id"): group.findtext(f"{NAMESPACE}title")
        for group in root.iter(f"{NAMESPACE}g")
        if group.get("class") in ("node", "cluster") and group.get("id")
    }
    assert set(titles) == {
        f"state-{name}"
        for name in (
            "alive", "stopped", "starting", "ready", "sleeping", "crashed", "backoff", "failed",
            "stopping", "shut_down",
        )
    }  # fmt: skip
    assert "entry / admit_waiters, arm_stable" in str(titles["state-ready"])
    edges = [
        group.findtext(f"{NAMESPACE}title") or ""
        for group in root.iter(f"{NAMESPACE}g")
        if group.get("class") == "edge"
    ]
    assert any("launching to aborting: kill / want_stop, hurry" in title for title in edges)
    description = root.findtext(f"{NAMESPACE}desc") or ""
    for name, _, _ in document.states():
        assert name in description


def test_split_pictures_link_to_each_other() -> None:
    """Each folded state leads to the picture of its inside, and each link names a file."""
    files = pictures.draw_all(lifecycle())

    assert set(files) == {
        f"{name}.svg"
        for name in ("overview", "alive", "starting", "sleeping", "failed", "stopping")
    }
    links: dict[str, set[str]] = {}
    for name, data in files.items():
        root = ET.fromstring(data)
        links[name] = {item.get("href", "") for item in root.iter(f"{NAMESPACE}a")}
        assert links[name] <= set(files)
        assert root.get("role") == "graphics-document"
    assert {"starting.svg", "stopping.svg"} <= links["overview.svg"]
    assert "overview.svg" in links["starting.svg"]
    assert "stopping.svg" in links["starting.svg"]


def test_picture_for_a_narrow_page_has_less_depth() -> None:
    """Depth and direction are chosen so that text stays legible; any width keeps all states."""
    widths = {}
    for width in (400, 900, None):
        root = ET.fromstring(pictures.draw(lifecycle(), "svg", View(max_width=width)))
        widths[width] = float(root.get("width", 0))

    assert widths[400] * 9 / 11 <= 400
    assert widths[400] < widths[900] <= 900 * 11 / 9
    assert widths[None] > 1200


def test_dark_picture_has_dark_colors_without_a_style_sheet() -> None:
    """For renderers that know no media queries; and PNG is drawn with them too."""
    dark = pictures.draw(lifecycle(), "svg", replace(overview(lifecycle()), theme="dark")).decode()
    light = pictures.draw(
        lifecycle(), "svg", replace(overview(lifecycle()), theme="light")
    ).decode()

    assert "#0d1117" in dark
    assert "#ffffff" not in dark
    assert "#0d1117" not in light
    assert "prefers-color-scheme" not in dark + light


def test_draw_of_an_unknown_format_or_without_graphviz_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both errors say what is expected."""
    with pytest.raises(ChartError, match="format: expected one of svg, png; got 'gif'"):
        pictures.draw(lifecycle(), "gif")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SwapchartError, match="apt-get install graphviz"):
        pictures.draw(lifecycle())
