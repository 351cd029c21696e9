"""The page: valid, complete, and it asks nobody for anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.benchmark.made import result, row
from vkconv.benchmark.charts import Bar, Point, bars, ratio_bars, roofline
from vkconv.benchmark.page import page, suite_page

VOID = {"meta"}


class Strict(HTMLParser):
    """Every tag is closed in its turn; nothing is loaded from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object", "image", "use")
        assert not {"src", "href", "srcset"} & {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {"src", "href"} & {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(text: str) -> str:
    """The visible text, after checks."""
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert text.startswith("<!doctype html>")
    return " ".join(parser.text)


@pytest.mark.parametrize(
    "text", [page(result(), "vkconv bench"), suite_page([result(), result("B")])]
)
def test_pages_need_nothing_else(text: str) -> None:
    seen = parsed(text)
    for words in ("Net <1>", "cv2 is not installed", "its outputs differ", "not comparable",
                  "5.00x faster", "2.00x slower", "/a/<b>/Conv", "200 GFLOP/s"):  # fmt: skip
        assert words in seen, words
    for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawn)
    assert "prefers-color-scheme: dark" in text


def test_a_suite_compares_all_nets() -> None:
    text = suite_page([result("A"), result("B", ncnn={"reason": "ncnn has no layer X"})])
    seen = parsed(text)
    assert "geometric mean" in seen and "ncnn has no layer X" in seen


def test_pages_of_failures() -> None:
    broken = result(vkconv={"reason": "no driver <x>"}, ncnn=row(1.0))
    assert "no driver <x>" in parsed(page(broken))
    assert "no driver <x>" in parsed(suite_page([broken]))
    alone = {name: {"reason": "r"} for name in ("torch", "onnxruntime", "ncnn")}
    parsed(suite_page([result(vkconv={"reason": "r"}, **alone)]))


def lengths(text: str) -> list[float]:
    return [float(r.get("width", "")) for r in ElementTree.fromstring(text).iter("rect")]


def test_bars_are_in_proportion() -> None:
    drawn = bars([Bar("a", 2.0, "2"), Bar("b", 1.0, "1", whisker=4.0), Bar("c", 0.0, "0")], "t")
    a, b, c = lengths(drawn)
    assert a == pytest.approx(2 * b, rel=0.01) and c == 1.0
    assert bars([], "t").startswith("<svg")


def test_ratios_lie_on_either_side_of_one() -> None:
    drawn = ratio_bars(
        [("net", [Bar("x", 10.0, "10"), Bar("y", 0.1, "0.1"), Bar("z", 1, "1")])], "t"
    )
    ElementTree.fromstring(drawn)
    faster, slower, same = ElementTree.fromstring(drawn).iter("rect")
    one = float(faster.get("x", ""))
    assert float(slower.get("x", "")) + float(slower.get("width", "")) == pytest.approx(
        one, abs=0.2
    )
    assert float(same.get("x", "")) == pytest.approx(one, abs=0.2)
    assert float(slower.get("width", "")) == pytest.approx(float(faster.get("width", "")), abs=0.2)


def test_points_lie_under_the_roof_they_do_not_reach() -> None:
    points = [
        Point("half", 100.0, 50.0, 0.5),
        Point("all", 100.0, 100.0, 0.25),
        Point("n", 0, 1, 0.1),
    ]
    drawn = ElementTree.fromstring(roofline(points, 100.0, 10.0, "t"))
    half, full = drawn.iter("circle")
    roof = next(p for p in drawn.iter("path") if p.get("class") == "roof").get("d", "")
    flat = float(roof.split("L")[1].split("H")[0].split()[1])
    assert float(full.get("cy", "")) == pytest.approx(flat, abs=0.1)
    assert float(half.get("cy", "")) > flat  # y grows downwards
    assert float(half.get("r", "")) > float(full.get("r", ""))
    assert half.find("title") is not None
