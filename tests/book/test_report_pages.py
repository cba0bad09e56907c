"""The reports in the book: what is stored is what the code measures, and what the pages show in a real browser."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from book import photographs
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
    again = parts.phase_or_amplitude(model, to_float(images), labels, seed=settings["seed"])
    # Arithmetic differs between processors, by an image or two near a border of classes.
    shares = [row["accuracy"] for row in STORED[name]["parts"]["phase"]]
    assert [row["accuracy"] for row in again] == pytest.approx(shares, abs=0.01)
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
        assert page.get_by_text(f"HFC, {reports.TITLES[other]}").count() == 1
        assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
        context.close()


def test_the_page_on_a_real_network_has_the_numbers_of_its_report():
    text = " ".join((BOOK / "real-network.md").read_text().split())
    content, percent = read_report(reports.PHOTOGRAPHS / "tiles.json").content, "{:.1f} %".format
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


def test_the_table_of_labelled_photographs_is_read_from_their_report(tmp_path):
    content = json.loads(photographs.LABELLED.read_text())
    cells = re.findall("<td>(.*?)</td>", photographs.labelled_table().data)
    shares = dict(zip(cells[::2], cells[1::2], strict=True))
    bands = {band: [row["correct"] for row in answer.band_rows(content, band)] for band in ("lfc", "hfc")}
    assert shares == {
        "the whole picture": str(content["parts"]["accuracy"][0]["correct"]),
        "its LFC at radius 14, 28, 56, 84": ", ".join(map(str, bands["lfc"])),
        "its HFC at radius 14, 28, 56, 84, with the mean colour": ", ".join(map(str, bands["hfc"])),
    }
    content["parts"]["accuracy"][0]["correct"] = 3
    (tmp_path / "other.json").write_text(json.dumps(content))
    assert "<td>3</td>" in photographs.labelled_table(tmp_path / "other.json").data


def test_what_the_page_says_of_six_photographs_is_in_their_report():
    text = " ".join((BOOK / "real-network.md").read_text().split())
    content = json.loads(photographs.LABELLED.read_text())
    whole = content["parts"]["accuracy"][0]
    ends = [f"{whole[name]:.0%}".replace("%", " %") for name in ("low", "high")]
    assert f"interval of {whole['correct']} in {whole['images']} goes from {ends[0]} to {ends[1]}" in text
    wrong = {(row["label"], row["whole"]) for row in content["parts"]["pictures"] if row["label"] != row["whole"]}
    assert wrong == {(281, 285)}  # of ImageNet's classes: the tabby, taken for an Egyptian cat
    assert content["classes"] == {str(number): name for name, number in real_network().LABELS.values()}


@pytest.fixture(scope="module")
def photographs_pages():
    return reports.photographs_pages()


@pytest.mark.parametrize("name", ["tiles", "labelled"])
def test_a_report_on_a_real_network_shows_its_photographs_and_no_path(photographs_pages, name):
    page, content = photographs_pages[f"efficientnet-lite0-{name}"], (reports.PHOTOGRAPHS / f"{name}.json")
    files, count = json.loads(content.read_text())["files"], {"tiles": 48, "labelled": 6}[name]
    assert len(files) == count
    assert all(file.startswith("photographs/") for file in files)  # and so no path of a machine
    assert f"What EfficientNet-Lite0 (ImageNet) reads on {Path(files[0]).parts[1]}" in page
    assert '<a href="../real-network.html">A network that people use</a>' in page
    assert page.count("data:image/png") > count // 2  # those that fail
    assert len(page) < 2_000_000
    assert "photographs/" not in page
    assert f'<a href="reports/efficientnet-lite0-{name}.html">' in (BOOK / "real-network.md").read_text()


def real_network():
    """The module beside the stored reports, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("real_network", BOOK / "reports" / "real_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_photographs_are_cut_into_tiles_without_enlarging_them():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8)
    tiles = real_network().cut(Image.fromarray(pixels))
    assert [np.asarray(tile).shape for tile in tiles] == [(224, 224, 3)] * 2
    assert np.array_equal(np.asarray(tiles[1]), pixels[:224, 224:448])
    assert len(real_network().cut(Image.new("L", (3840, 2160)))) == 3 * 5


def test_a_sheet_has_the_centres_of_a_reports_first_photographs_in_rows(tmp_path):
    files = []
    for number in range(10):
        picture = Image.new("RGB", (300, 200))
        picture.paste((20 * number, 0, 0), (50, 0, 250, 200))
        files.append(str(tmp_path / f"{number}.png"))
        picture.save(files[-1])
    (tmp_path / "report.json").write_text(json.dumps({"files": files}))
    real_network().write_sheet(tmp_path / "report.json", tmp_path / "sheet.png")
    side = reports.SHOWN_SIDE
    assert side == real_network().SHOWN_SIDE
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * side, 8 * side, 3)
    shown = [
        sheet[row : row + side, column : column + side, 0] for row in (0, side) for column in range(0, 8 * side, side)
    ]
    assert [(int(some.min()), int(some.max())) for some in shown[:10]] == [(20 * number,) * 2 for number in range(10)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_has_the_answer_and_a_narrow_one_does_not_scroll_sideways(pages, browser, scheme):
    for path in pages:
        context = browser.new_context(viewport={"width": 1000, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.get_by_role("link", name="Report on your network").get_attribute("href") == "../report.html"
        assert reports.TITLES[path.stem] in page.title()
        for place in ("#answer", "#number", "svg >> nth=0", "#robust"):
            box = page.locator(place).bounding_box()
            assert box["y"] + box["height"] < 900, place
        page.set_viewport_size({"width": 500, "height": 900})
        page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 500
        context.close()
