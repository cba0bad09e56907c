"""The reports in the book: what is stored is what the code measures, and what the pages show in a real browser."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from book._ext import reports
from hfclib.data import to_float
from hfclib.reporting import answer, parts, read_report
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


def test_the_page_on_a_real_network_has_the_numbers_of_its_report():
    text = " ".join((BOOK / "real-network.md").read_text().split())
    report = read_report(reports.PHOTOGRAPHS / "report.json")
    content, percent = report.content, "{:.1f} %".format
    crossed = answer.crossing(content)
    assert f"at radius {crossed.radius:.3g} ({crossed.radius / 112:.0%} of Nyquist)".replace("%", " %") in text
    assert f"for about {crossed.accuracy:.0%} of the tiles".replace("%", " %") in text
    assert crossed.accuracy == pytest.approx(answer.chance_level(content), abs=0.01)
    half = answer.half_radius(content)
    assert f"beyond radius {half:.3g} ({half / 112:.0%} of Nyquist)".replace("%", " %") in text
    for band, radius in (("lfc", 28), ("lfc", 56), ("lfc", 84), ("hfc", 28)):
        (row,) = [row for row in answer.band_rows(content, band) if row["radius"] == radius]
        shares = [percent(100 * row[name]) for name in ("accuracy", "low", "high")]
        assert re.search(rf"{shares[0]} (of its answers )?\((95 % interval )?{shares[1]} to {shares[2]}\)", text), (
            shares
        )
    assert f"{content['parts']['accuracy'][0]['images']} tiles of 224 by 224" in text


def test_the_report_on_a_real_network_shows_its_photographs_and_no_path():
    page = reports.photographs_page()
    assert "What EfficientNet-Lite0 (ImageNet) reads on 212 tiles of 20 photographs" in page
    assert '<a href="../real-network.html">A network that people use</a>' in page
    assert page.count("data:image/png") > 20
    assert len(page) < 2_000_000
    assert "/photographs/" not in page
    assert '<a href="reports/efficientnet-lite0.html">' in (BOOK / "real-network.md").read_text()


def test_photographs_are_cut_into_tiles_without_enlarging_them():
    spec = importlib.util.spec_from_file_location("real_network", BOOK / "reports" / "real_network.py")
    real_network = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real_network)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8)
    tiles = real_network.cut(Image.fromarray(pixels))
    assert [np.asarray(tile).shape for tile in tiles] == [(224, 224, 3)] * 2
    assert np.array_equal(np.asarray(tiles[1]), pixels[:224, 224:448])
    assert len(real_network.cut(Image.new("L", (3840, 2160)))) == 3 * 5


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
