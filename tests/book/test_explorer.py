"""The explorer of the landing page: its stored answers, and the page in a real browser."""

import base64
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hfclib import split
from hfclib.batching import logits
from hfclib.data import MEAN, to_float
from hfclib.runs.predictions import weights_of
from hfclib.transforms import feed_images

HERE = Path(__file__).parents[2] / "book" / "explorer"
sys.path.insert(0, str(HERE))
import explorer  # noqa: E402

CANVAS = "document.querySelector('[data-part=%s] canvas').toDataURL()"
SAID = "#hfc-explorer [role=status]"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFCLIB_HOME", str(tmp_path_factory.mktemp("home")))
        return explorer.write_page(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture
def page(browser, address):
    """The page, at the width of a phone, as it stands when it has been drawn; it asks no other machine for anything."""
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    opened.set_default_timeout(60_000)
    asked, faults = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(address)
    opened.wait_for_function(f"document.querySelector('{SAID}').textContent.includes('True class')")
    yield opened
    opened.close()
    assert faults == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_stored_answers_are_those_of_the_stored_runs(cifar):
    stored, runs = json.loads(explorer.ANSWERS.read_text()), explorer.runs()
    assert stored["weights"] == {variant: weights_of(run.path) for variant, run in runs.items()}
    assert stored["images"] == list(explorer.IMAGES)
    flat = np.frombuffer(base64.b64decode(stored["confidences"]), np.uint8)
    answers = torch.tensor(flat.reshape(len(explorer.NETWORKS), len(explorer.IMAGES), -1, 10))
    images = to_float(cifar["test"][0])
    # BatchNorm with the statistics of the first batch, whose images 0 to 39 are the last 40: the HFC with the mean.
    fed = feed_images(split(images[:100], 8)[1], "mean", add_mean=True, colour=MEAN)
    probabilities = logits(runs["batchnorm"].model(), fed, bn_stats="batch").softmax(dim=1)[:40]
    condition = 1 + 5 * 7 + 4  # the image, five conditions at each smaller radius, and the fifth at this one
    found = answers[2, 8:, condition]
    assert (found / 255 - probabilities).abs().max() <= 2 / 255  # rounding, and the arithmetic of another machine
    sure = probabilities.topk(2).values.diff(dim=1).abs()[:, 0] > 0.01
    assert (found.argmax(dim=1) == probabilities.argmax(dim=1))[sure].all()


def test_the_script_is_short_and_sound():
    text = (HERE / "explorer.js").read_text()
    assert text.count("\n") < 300
    if node := shutil.which("node"):
        subprocess.run([node, "--check", str(HERE / "explorer.js")], check=True)


def test_split_and_live_network_agree_with_pytorch(page, cifar):
    images = to_float(cifar["test"][0][100:150])
    low, high = split(images, 7)
    mean = feed_images(high, "mean", add_mean=True, colour=MEAN)
    ours = page.evaluate(
        """images => images.map(image => {
            const { low, high } = hfcExplorer.split(Float32Array.from(image), 7);
            const feeds = ["max", "mean"].map(feed => hfcExplorer.fed(high, feed, true));
            return [low, high, ...feeds].map(part => Array.from(part));
        })""",
        images[:5].flatten(1).tolist(),
    )
    expected = torch.stack([part[:5].flatten(1) for part in (low, high, feed_images(high, "max"), mean)], dim=1)
    assert (torch.tensor(ours) - expected).abs().max() < 1e-5

    fed = torch.cat([images[:10], mean[-10:]])
    found = page.evaluate(
        """async images => {
            const tensors = await hfcExplorer.loadNetwork();
            return images.map(image => Array.from(hfcExplorer.logits(tensors, Float32Array.from(image))));
        }""",
        fed.flatten(1).tolist(),
    )
    exact = logits(explorer.runs()["vanilla"].model(), fed)
    assert (torch.tensor(found) - exact).abs().max() < 0.002
    assert torch.equal(torch.tensor(found).argmax(dim=1), exact.argmax(dim=1))


def test_slider_and_switches_move_picture_and_answer(page):
    state = f"[{CANVAS % 'hfc'}, document.querySelector('[data-part=hfc] div').textContent]"
    before = page.evaluate(state)
    page.focus("[name=radius]")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    after = page.evaluate(state)
    assert page.text_content("output") == "14"
    assert before[0] != after[0]
    assert before[1] != after[1]
    page.check("#hfc-explorer [value=raw]")
    raw = page.evaluate(state)
    assert raw[0] != after[0]
    page.check("#hfc-explorer [name=stretch]")
    stretched = page.evaluate(state)
    assert stretched[0] != raw[0]
    assert stretched[1] == raw[1]
    page.check("#hfc-explorer [value=batch]")
    assert page.evaluate(state)[1] != raw[1]
    page.wait_for_function(f"document.querySelector('{SAID}').textContent.includes('from the HFC')")


def test_a_toggle_moves_the_gap(page):
    numbers = explorer.measured()["gap"]

    def gap(feed, batch, plain):
        return [f"{numbers[f'{plain} {batch} {feed} {radius}'][0]:+.2f}" for radius in (4, 8, 12, 16)]

    def shown():
        cells = page.locator("#hfc-gap tbody tr:last-child td").all_inner_texts()
        return [cell.split()[0].replace("\N{MINUS SIGN}", "-").replace(".", "0.", 1) for cell in cells]

    assert shown() == gap("max", "batch", "running")
    counts = {explorer.NAMES[one]: number for one, number in explorer.measured()["seeds"].items()}
    legend = page.locator("#hfc-gap li").all_inner_texts()
    assert legend == [f"{name} ({counts[name]} seeds)" for name in ("Vanilla", "BatchNorm")]
    line = page.locator("#hfc-gap polyline").first.get_attribute("points")
    page.check("#hfc-gap [value=matched]")
    assert shown() == gap("max", "batch", "matched")
    assert page.locator("#hfc-gap polyline").first.get_attribute("points") != line
    page.click("text=Mean colour, running averages")
    assert shown() == gap("mean", "running", "running")
    page.check("#hfc-gap [value=matched]")
    page.check("#hfc-gap [name=others]")
    assert "Not measured this way: Dropout, Mix-up" in page.text_content("#hfc-gap [role=status]")


def test_a_readers_own_image_is_split_and_classified(page, cifar, tmp_path):
    image = cifar["test"][0][150]
    wide = np.zeros((32, 40, 3), np.uint8)
    wide[:, 4:36] = image.permute(1, 2, 0).numpy()  # the central square is the image
    Image.fromarray(wide).save(tmp_path / "own.png")
    page.set_input_files("[type=file]", tmp_path / "own.png")
    page.wait_for_function(f"document.querySelector('{SAID}').textContent.includes('Computed in this page')")
    answer = logits(explorer.runs()["vanilla"].model(), to_float(image[None])).softmax(dim=1)
    expected = f"{explorer.CLASSES[answer.argmax()]} {100 * answer.max().item():.0f} %"
    assert " ".join(page.locator("[data-part=image] .hfc-line").first.inner_text().split()) == expected
    (tmp_path / "broken.png").write_text("no picture")
    page.set_input_files("[type=file]", tmp_path / "broken.png")
    page.wait_for_function(f"document.querySelector('{SAID}').textContent.includes('did not work')")


def test_the_page_fits_a_phone_and_dark_pictures_have_the_same_pixels(page):
    # As the book's theme darkens pictures, and more so.
    page.add_style_tag(content="html[data-theme=dark] :is(img, canvas, svg) { filter: brightness(.8) contrast(1.2); }")
    shots = []
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        shot = page.locator("[data-part=hfc] canvas").screenshot()
        shots.append(np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")))
    assert shots[0].std() > 5
    assert np.array_equal(*shots)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
