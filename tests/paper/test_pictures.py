"""hfclib.pictures: which picture stands where, what is written beside it, and no complaint at the edges."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

from hfclib import split
from hfclib.data.cifar import CLASSES
from hfclib.paper.fig1 import bands_figure, hypothesis_figure
from hfclib.paper.fig2 import confidences, examples_figure, gallery_figure, most_confident
from hfclib.paper.show import show_figure
from hfclib.transforms import FEEDS, rescaled


class TenMeans(torch.nn.Module):
    """Ten logits, each the mean of some rows of a channel."""

    def forward(self, images):
        return 20 * torch.cat([images.mean(dim=3)[:, :, :3].flatten(1), images.mean(dim=(2, 3))[:, :1]], dim=1)


@pytest.fixture
def model():
    return TenMeans()


def drawn(figure):
    """Draw for real: warnings of the layout come only then, and are errors."""
    return show_figure(figure).data.startswith(b"\x89PNG")


def shown(ax):
    """The picture in a variant, as (3, H, W)."""
    (picture,) = ax.get_images()
    return torch.from_numpy(np.asarray(picture.get_array())).permute(2, 0, 1)


def written(share):
    return f"{share:.2f}".replace("0.", ".", 1)


# ---- the paper's figure


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("feed", FEEDS)
def test_a_row_an_image_with_its_parts_and_confidences(model, images, count, feed):
    indices = [11, 2, 5][:count]
    labels = [4, 4, 9]
    parts, sure = confidences(model, images, indices, 3, feed=feed)
    figure = examples_figure(labels, indices, parts, sure)
    rows = np.array(figure.axes).reshape(count, 7)
    assert [ax.get_title() for ax in rows[0]] == [
        "Image",
        "confidence",
        "LFC, as fed",
        "confidence",
        "HFC, as fed",
        "confidence",
        "HFC, stretched",
    ]
    assert not any(ax.get_title() for ax in rows[1:].flat)
    colours = {True: set(), False: set()}
    for row, line in enumerate(rows):
        assert line[0].get_ylabel() == f"{CLASSES[labels[row]]}\n(no. {indices[row]})"
        assert torch.equal(shown(line[0]), images[indices[row]])
        assert torch.equal(shown(line[2]), parts["LFC"][row].clamp(0, 1))
        assert torch.equal(shown(line[4]), parts["HFC"][row].clamp(0, 1))
        assert torch.equal(shown(line[6]), rescaled(parts["HFC"][row][None], "range")[0])
        for column, name in ((1, "image"), (3, "LFC"), (5, "HFC")):
            likeliest = sure[name][row].topk(3)
            bars, texts = line[column].patches, line[column].texts
            assert [bar.get_width() for bar in bars] == pytest.approx(likeliest.values.tolist())
            for bar, text, value, number in zip(bars, texts, *(x.tolist() for x in likeliest), strict=True):
                assert text.get_text() == f"{CLASSES[number]} {written(value)}"
                colours[number == labels[row]].add(bar.get_facecolor())
    assert len(colours[True]) == len(colours[False]) == 1  # the true class has a colour of its own
    assert colours[True] != colours[False]
    assert drawn(figure)


def test_the_true_class_stands_out_and_the_surest_class_is_on_top(images):
    confidence = torch.tensor([[0.0, 0.7, 0, 0, 0.2, 0, 0, 0.1, 0, 0]])
    parts = dict.fromkeys(("image", "LFC", "HFC"), images[:1])
    figure = examples_figure([4], [0], parts, dict.fromkeys(parts, confidence))
    ax = figure.axes[1]
    assert [text.get_text() for text in ax.texts] == ["automobile .70", "deer .20", "horse .10"]
    first, second, third = (bar.get_facecolor() for bar in ax.patches)
    assert first == third != second
    assert [text.get_fontweight() for text in ax.texts] == ["normal", "bold", "normal"]
    top, bottom = ax.get_ylim()[1], ax.get_ylim()[0]
    assert top < ax.patches[0].get_y() < ax.patches[2].get_y() < bottom


# ---- the gallery


@pytest.mark.parametrize(("count", "across", "lines"), [(1, 4, 1), (4, 4, 1), (5, 4, 2), (3, 1, 3)])
def test_a_gallery_shows_three_pictures_an_image_with_the_answers(model, images, count, across, lines):
    indices, labels = list(range(20, 20 + count)), [4] * count
    _, sure = confidences(model, images, range(count), 3)
    sure["HFC"][0] = torch.eye(10)[4]  # one that is surely right
    figure = gallery_figure(images[:count], labels, indices, 3, sure, across=across)
    assert len({ax.get_subplotspec().rowspan.start for ax in figure.axes}) == lines
    used = [ax for ax in figure.axes if ax.get_images()]
    assert len(used) == 3 * count
    lfc, hfc = split(images[:count], 3)
    colours = {True: set(), False: set()}
    for number in range(count):
        trio = used[3 * number : 3 * number + 3]
        assert f"no. {indices[number]}" in (trio[0].get_title(), trio[0].get_title(loc="left"))
        expected = (images[number], lfc[number].clamp(0, 1), rescaled(hfc, "range")[number])
        for ax, picture, name in zip(trio, expected, ("image", "LFC", "HFC"), strict=True):
            torch.testing.assert_close(shown(ax), picture)
            value, answer = sure[name][number].max(dim=0)
            assert ax.get_xlabel() == f"{CLASSES[answer]}\n{written(value.item())}"
            colours[answer.item() == 4].add(mpl.colors.to_rgba(ax.xaxis.label.get_color()))
    assert len(colours[True]) == len(colours[False]) == 1
    assert colours[True] != colours[False]
    assert drawn(figure)


def test_where_no_image_is_misaligned_the_gallery_says_so(model, images, labels):
    best, sure = most_confident(model, images, labels, torch.zeros(len(images), dtype=torch.bool), 22, count=12)
    assert best == []
    figure = gallery_figure(images[best], [], [], 22, sure)
    assert "No image is misaligned" in figure.get_suptitle()
    assert not any(ax.get_images() for ax in figure.axes)
    assert drawn(figure)


# ---- what networks are trained on


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("rescale", ["range", "max", "none"])
def test_every_column_shows_what_a_network_was_trained_on(images, count, rescale):
    figure = bands_figure(images[:count], (2, 3), rescale)
    rows = np.array(figure.axes).reshape(count, 5)
    assert [ax.get_title() for ax in rows[0]] == ["original", "LFC, r = 2", "LFC, r = 3", "HFC, r = 2", "HFC, r = 3"]
    for number, line in enumerate(rows):
        assert torch.equal(shown(line[0]), images[number])
        for ax, (band, radius) in zip(line[1:], ((0, 2), (0, 3), (1, 2), (1, 3)), strict=True):
            expected = rescaled(split(images[:count], radius)[band], rescale)[number].clamp(0, 1)
            torch.testing.assert_close(shown(ax), expected)
    assert drawn(figure)


# ---- the hypothesis


def test_the_diagram_holds_the_image_its_parts_and_both_readers(images):
    figure = hypothesis_figure(images[0], 3)
    (ax,) = figure.axes
    lfc, hfc = split(images[:1], 3)
    found = [torch.from_numpy(np.asarray(one.get_array())).permute(2, 0, 1) for one in ax.get_images()]
    for picture, expected in zip(found, (images[0], lfc[0].clamp(0, 1), rescaled(hfc, "range")[0]), strict=True):
        torch.testing.assert_close(picture, expected)
    texts = " ".join(text.get_text() for text in ax.texts)
    for word in ("image", "low-frequency", "high-frequency", "person", "network", "label", "gives", "is trained on"):
        assert word in texts
    arrows = [patch for patch in ax.patches if isinstance(patch, mpl.patches.FancyArrowPatch)]
    assert len(arrows) == 7
    assert drawn(figure)
