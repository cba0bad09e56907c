"""The explorer of the landing page: its stored answers, and the page in a real browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from book.explorer import explorer
from hfclib import split
from hfclib.batching import logits
from hfclib.data import MEAN, embedded, to_float
from hfclib.paper.tables import decimals
from hfclib.runs.predictions import weights_of
from hfclib.transforms import feed_images

HERE = Path(explorer.__file__).parent
CANVAS = "document.querySelector('[data-part=%s] canvas').toDataURL()"
SAID = "#hfc-explorer [role=status]"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFCLIB_HOME", str(tmp_path_factory.mktemp("home")))
        return explorer.write_page(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture
def page(browser, address):
    """The page on a phone, as it stands when it has been drawn; it asks no other machine for anything."""
    opened = browser.new_page(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
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
    flat = np.frombuffer(base64.b64decode(stored["answers"]), np.uint8)
    answers = torch.tensor(flat.reshape(len(explorer.NETWORKS), len(explorer.IMAGES), -1, 2))
    images = to_float(cifar["test"][0])
    # BatchNorm with the statistics of the first batch, whose images 0 to 39 are the last 40: the HFC with the mean.
    fed = feed_images(split(images[:100], 8)[1], "mean", add_mean=True, colour=MEAN)
    probabilities = logits(runs["batchnorm"].model(), fed, bn_stats="batch").softmax(dim=1)[:40]
    condition = 1 + 5 * 7 + 4  # the image, five conditions at each smaller radius, and the fifth at this one
    classes, percents = answers[2, 8:, condition].long().T
    top = probabilities.topk(2).values
    sure = top[:, 0] - top[:, 1] > 0.01
    assert sure.sum() > 30
    assert torch.equal(classes[sure], probabilities.argmax(dim=1)[sure])
    # Rounding to whole percent, and the arithmetic of another machine.
    assert (percents / 100 - top[:, 0]).abs().max() <= 0.01


def test_the_landing_pages_sentence_says_what_is_stored():
    stored = base64.b64decode(json.loads(explorer.ANSWERS.read_text())["answers"])
    answers = np.frombuffer(stored, np.uint8).reshape(len(explorer.NETWORKS), len(explorer.IMAGES), -1, 2)
    blur, detail = answers[0, 0, [1 + 5 * 7, 1 + 5 * 7 + 4]]  # vanilla, the frog, r = 8: the LFC raw, the HFC on grey
    said = re.findall(r"“(\w+)” \((\d+) %\)", (HERE.parent / "index.md").read_text())
    assert said == [(explorer.CLASSES[label], str(percent)) for label, percent in (detail, blur)]


@pytest.mark.parametrize("name", ["explorer.js", "gap.js", "worker.js"])
def test_a_script_is_short_and_sound(name):
    assert (HERE / name).read_text().count("\n") < 250
    if node := shutil.which("node"):
        subprocess.run([node, "--check", str(HERE / name)], check=True)


def test_a_percent_is_rounded_once(page):
    """A confidence of 92.4 % was stored as 236 / 255, which is 93 %."""
    shown = page.locator("[data-part=hfc] .hfc-answer").first.inner_text()
    image = to_float(embedded("test")[0][95:96])
    high = feed_images(split(image, 8)[1], "mean", add_mean=True, colour=MEAN)
    exact = logits(explorer.runs()["vanilla"].model(), high).softmax(dim=1)[0]
    assert " ".join(shown.split()) == f"Vanilla frog ✓ {100 * exact.max():.0f} %"


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
    live = page.evaluate(
        """async images => {
            const answers = images.map(image => hfcExplorer.logits(Float32Array.from(image)));
            return (await Promise.all(answers)).map(answer => Array.from(answer));
        }""",
        fed.flatten(1).tolist(),
    )
    exact = logits(explorer.runs()["vanilla"].model(), fed)
    assert (torch.tensor(live) - exact).abs().max() < 0.002
    assert torch.equal(torch.tensor(live).argmax(dim=1), exact.argmax(dim=1))
    shown = page.evaluate("logits => logits.map(hfcExplorer.answer)", live)
    assert [label for label, _ in shown] == exact.argmax(dim=1).tolist()
    assert (torch.tensor([percent for _, percent in shown]) - 100 * exact.softmax(dim=1).amax(dim=1)).abs().max() < 0.6


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
    assert not page.is_visible("#hfc-more")
    page.click("text=More >> nth=0")
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


def predictions(page, part):
    """What stands under a picture: the class that each network names."""
    lines = page.locator(f"[data-part={part}] .hfc-answer").all()
    return {line.locator("> span").first.inner_text(): line.locator("b").inner_text() for line in lines}


def test_the_situations_are_as_they_are_told(page):
    def told():
        return page.inner_text(".hfc-tried")

    assert told() == "Vanilla and BatchNorm call the blur a dog, and the rest a frog."
    for part, name in (("lfc", "dog"), ("hfc", "frog")):
        found = predictions(page, part)
        assert {found["Vanilla"], found["BatchNorm"]} == {name}
    page.click("text=Nearly black")
    assert "only BatchNorm names the ship" in told()
    assert [name for name, label in predictions(page, "hfc").items() if label == "ship"] == ["BatchNorm"]
    page.click("text=More >> nth=0")
    page.check("#hfc-explorer [value=mean]")
    assert told() == ""
    assert predictions(page, "hfc")["Vanilla"] == "ship"
    page.click("text=Trained against attacks")
    assert "reads the blur and not the rest" in told()
    right = {
        part: {name for name, label in predictions(page, part).items() if label == "frog"} for part in ("lfc", "hfc")
    }
    assert right == {"lfc": {"Adversarial training"}, "hfc": {"Vanilla", "BatchNorm"}}
    assert page.locator("[name=try][aria-pressed=true]").all_inner_texts() == ["Trained against attacks"]


def test_the_page_says_what_classes_there_are(page):
    assert f"ten classes: {', '.join(explorer.CLASSES)}." in page.inner_text("#hfc-explorer")


def test_the_slide_moves_the_lead(page):
    numbers = explorer.measured()

    def gap(feed, batch, plain):
        return [numbers["gap"][f"{plain} {batch} {feed} {radius}"][0] for radius in (4, 8, 12, 16)]

    def shown():
        cells = page.locator("#hfc-gap tbody tr:last-child td").all_text_contents()
        return [float(cell.split("[")[0].replace("\N{MINUS SIGN}", "-")) for cell in cells]

    def said(name):
        return re.search(rf"{name} ([^,]*\d)", page.inner_text("#hfc-gap [role=status]"))[1]

    before, after = (numbers["accuracy"][f"vanilla running {feed} 4"][0] for feed in ("max", "mean"))
    assert shown() == pytest.approx(gap("max", "batch", "running"), abs=0.0051)
    assert said("vanilla") == decimals(before, 2)
    counts = {explorer.TITLES[variant]: number for variant, number in numbers["seeds"].items()}
    legend = page.locator("#hfc-gap li").all_inner_texts()
    assert legend == [f"{name} ({counts[name]} seeds)" for name in ("Vanilla", "BatchNorm")]
    line = page.locator("#hfc-gap polyline").first.get_attribute("points")
    page.click("text=with the mean colour added")
    assert shown() == pytest.approx(gap("mean", "running", "running"), abs=0.0051)
    assert said("vanilla") == f"from {decimals(before, 2)} to {decimals(after, 2)}"
    dotted, drawn = page.locator("#hfc-gap polyline").all()[:2]
    assert dotted.get_attribute("points") == line
    heights = [float(one.get_attribute("points").split()[0].split(",")[1]) for one in (dotted, drawn)]
    assert heights[0] - heights[1] == pytest.approx(285 * (after - before))  # the line jumps up
    page.click("#hfc-gap summary")
    page.check("#hfc-gap [value=matched]")
    assert shown() == pytest.approx(gap("mean", "running", "matched"), abs=0.0051)
    page.check("#hfc-gap [name=others]")
    assert "Not measured this way: Dropout, Mix-up" in page.inner_text("#hfc-gap [role=status]")


def test_the_lead_slides_unless_the_reader_wants_no_motion(page):
    height = "document.querySelectorAll('#hfc-gap circle')[0].cy.baseVal.value"
    page.emulate_media(reduced_motion="no-preference")
    first = page.evaluate(height)
    at_once = page.evaluate(f"document.querySelector('#hfc-gap [value^=mean]').click(), {height}")
    assert at_once == pytest.approx(first, abs=1)
    page.wait_for_function(f"{height} < {first - 50}")


def test_a_number_that_rounds_to_zero_has_no_sign(page):
    cells = page.evaluate(
        """() => {
            for (const key in hfcData.gap) hfcData.gap[key] = [-0.004, -0.006, 0.004];
            document.querySelector("#hfc-gap [value^=mean]").click();
            return document.querySelector("#hfc-gap tbody tr:last-child td").textContent;
        }"""
    )
    assert cells == ".00[\N{MINUS SIGN}.01, .00]"


@pytest.fixture
def own(cifar, tmp_path):
    """(the path of a picture that is test image 150 with stripes beside it, the image, the path of a broken picture)"""
    image = cifar["test"][0][150]
    wide = np.zeros((32, 40, 3), np.uint8)
    wide[:, 4:36] = image.permute(1, 2, 0).numpy()  # the central square is the image
    Image.fromarray(wide).save(tmp_path / "own.png")
    (tmp_path / "broken.png").write_text("no picture")
    return tmp_path / "own.png", image, tmp_path / "broken.png"


def wait_for(page, text):
    page.wait_for_function(f"document.querySelector('{SAID}').textContent.includes('{text}')")


def test_a_readers_own_image_is_split_and_classified(page, own):
    path, image, broken = own
    page.set_input_files("[type=file]", path)
    wait_for(page, "Computed in this page")
    model = explorer.runs()["vanilla"].model()
    low, high = split(to_float(image[None]), 8)
    fed = {"image": to_float(image[None]), "lfc": low, "hfc": feed_images(high, "mean", add_mean=True, colour=MEAN)}
    for part, images in fed.items():
        answer = logits(model, images).softmax(dim=1)
        expected = f"Vanilla {explorer.CLASSES[answer.argmax()]} {100 * answer.max().item():.0f} %"
        assert " ".join(page.locator(f"[data-part={part}] .hfc-answer").first.inner_text().split()) == expected
    page.set_input_files("[type=file]", broken)
    wait_for(page, "did not work")


def test_the_average_of_a_large_picture_is_exact(page, own):
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(picture).save(own[0])
    page.set_input_files("[type=file]", own[0])
    wait_for(page, "Computed in this page")
    expected = picture.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
    data = page.evaluate(CANVAS % "image").split(",")[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert np.abs(shown - expected).max() <= 0.51


def test_a_broken_file_while_the_network_computes_is_told(page, own):
    path, _, broken = own
    page.set_input_files("[type=file]", path)
    wait_for(page, "Computing in this page")
    page.set_input_files("[type=file]", broken)
    page.wait_for_function("document.querySelectorAll('.hfc-answer').length === 3")  # the picture before is answered
    wait_for(page, "did not work")
    page.wait_for_timeout(500)  # longer than what is told waits
    assert "did not work" in page.text_content(SAID)


def test_the_page_goes_on_while_the_network_computes(page):
    """On the page's own thread no timer would run between the question and the answer."""
    ticks = page.evaluate(
        """async () => {
            await hfcExplorer.logits(new Float32Array(3072)); // loaded
            let ticks = 0, over = false;
            const tick = () => { ticks++; if (!over) setTimeout(tick); };
            setTimeout(tick);
            await Promise.all(Array.from({ length: 10 }, () => hfcExplorer.logits(new Float32Array(3072))));
            over = true;
            return ticks;
        }"""
    )
    assert ticks > 20  # ten answers, each of a message that is a task of its own


def box(page, selector):
    return page.evaluate("one => document.querySelector(one).getBoundingClientRect().toJSON()", selector)


def test_slider_and_picture_are_on_one_screen_of_a_phone_and_controls_fit_a_finger(page):
    slider, picture = box(page, "[name=radius]"), box(page, "[data-part=hfc] canvas")
    top, bottom = min(slider["top"], picture["top"]), max(slider["bottom"], picture["bottom"])
    assert bottom - top < 844
    page.click("text=More >> nth=0")
    page.click("#hfc-gap summary")
    small = page.evaluate(
        """() => [...document.querySelectorAll(".hfc-box :is(button, select, label, summary, [type=range])")]
            .filter(one => one.getBoundingClientRect().height < 40).map(one => one.outerHTML)"""
    )
    assert small == []


def test_pictures_are_large_and_controls_are_one_row_on_a_desktop(page):
    page.set_viewport_size({"width": 1000, "height": 800})
    pictures = page.locator("#hfc-explorer canvas").all()
    assert [picture.bounding_box()["width"] >= 220 for picture in pictures] == [True] * 4
    controls = ["[name=radius]", "[name=image]", ".hfc-button", "[name=more]"]
    boxes = [box(page, f"#hfc-explorer {one}") for one in controls]
    assert max(one["top"] for one in boxes) < min(one["bottom"] for one in boxes)
    assert min(one["top"] for one in boxes) > max(one.bounding_box()["y"] for one in pictures) + 220


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
