"""The reports in the book: what is stored is what the code measures, and what the pages show in a real browser."""

import json
import re
from pathlib import Path

import pytest

from book._ext import reports
from hfclib.data import to_float
from hfclib.reporting import parts
from hfclib.reporting.named import named_model

BOOK = Path(__file__).parents[2] / "book"
STORED = {path.stem: json.loads(path.read_text()) for path in reports.FOLDER.glob("*.json")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report pages as files."""
    folder = tmp_path_factory.mktemp("reports")
    for name, page in reports.report_pages().items():
        (folder / f"{name}.html").write_text(page, "utf-8")
    return sorted(folder.iterdir())


def test_the_book_links_to_each_report():
    linked = re.findall(r'href="reports/([^"]+)\.html"', (BOOK / "report.md").read_text())
    assert sorted(linked) == sorted(STORED)
    assert len(STORED) == 2


@pytest.mark.parametrize("name", STORED)
def test_stored_reports_are_of_the_published_runs(name, cifar):
    settings = STORED[name]["key"]["settings"]
    images, labels = (tensor[: settings["first_images"]] for tensor in cifar["test"])
    model = named_model(name).model
    found = parts.phase_or_amplitude(model, to_float(images), labels, seed=settings["seed"])
    # Arithmetic differs between processors, by an image or two near a border of classes.
    shares = [row["accuracy"] for row in STORED[name]["parts"]["phase"]]
    assert [row["accuracy"] for row in found] == pytest.approx(shares, abs=0.01)
    assert all(row["images"] == 10_000 for row in STORED[name]["parts"]["accuracy"])


def test_pages_show_the_stored_numbers_without_a_network(pages, browser):
    assert len(pages) == len(STORED)
    for path in pages:
        assert path.stat().st_size < 2_000_000
        context, asked = browser.new_context(offline=True), []
        page = context.new_page()
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(path.as_uri())
        page.locator("summary", has_text="the numbers").first.click()
        rows = [row.split("\t") for row in page.locator("table").first.inner_text().splitlines()]
        wanted = ["hfc", "8", "0.50", "mean", "running"]
        (shown,) = [dict(zip(rows[0], row, strict=True)) for row in rows if row[:5] == wanted]
        (row,) = [
            row
            for row in STORED[path.stem]["parts"]["accuracy"]
            if (row["band"], row["radius"], row["feed"], row["bn_stats"]) == ("hfc", 8, "mean", "running")
        ]
        assert float(shown["accuracy"]) == pytest.approx(row["accuracy"], abs=5e-5)
        (other,) = set(STORED) - {path.stem}
        assert page.get_by_text(f"HFC, {other}").count() == 1
        assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_has_the_answer_and_a_narrow_one_does_not_scroll_sideways(pages, browser, scheme):
    for path in pages:
        context = browser.new_context(viewport={"width": 1000, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.get_by_role("link", name="Report on your network").get_attribute("href") == "../report.html"
        assert path.stem in page.title()
        for place in ("#answer", "#number", "svg >> nth=0", "#robust"):
            box = page.locator(place).bounding_box()
            assert box["y"] + box["height"] < 900, place
        page.set_viewport_size({"width": 500, "height": 900})
        page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 500
        context.close()
