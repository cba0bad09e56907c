"""hfclib.plots_misalignment: right axes, units and values, and no complaint at the edges. `plots` is in test_tables."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from hfclib.data.cifar import CLASSES
from hfclib.paper.fig2 import classes_figure, counts_figure, misaligned_by_class, misaligned_counts, pattern
from hfclib.paper.show import show_figure
from hfclib.paper.style import FIG2_TITLES
from hfclib.paper.tradeoff import (
    changed_figure,
    changed_radius,
    changed_share,
    distance_table,
    distances,
    distances_figure,
    ruled_out_curves,
    ruled_out_figure,
)
from hfclib.training.recipe import RADII

EPS = (2 / 255, 8 / 255)


def drawn(figure):
    """Draw for real: warnings of the layout come only then, and are errors."""
    return show_figure(figure).data.startswith(b"\x89PNG")


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def labelled(ax):
    """The lines of a variant by their legend texts."""
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


# ---- counts of misaligned images


def test_counts_have_a_panel_a_feed_and_kind_of_statistics(answers, true_classes):
    table = misaligned_counts(answers, true_classes, RADII)
    figure = counts_figure(table)
    assert len(figure.axes) == 6
    titles = [ax.get_title() for ax in figure.axes]
    assert len(set(titles)) == 6
    assert all("running averages" in title for title in titles[:3])
    assert all("statistics of the test batch" in title for title in titles[3:])
    assert [title.split(";")[0] for title in titles[:3]] == [title.split(";")[0] for title in titles[3:]]
    assert [ax.get_xlabel() for ax in figure.axes[3:]] == ["Radius (DFT bins)"] * 3
    assert figure.get_supylabel() == "Misaligned images of 60"
    assert legend(figure) == [*FIG2_TITLES.values(), "the paper's “~600” (r = 12)"]
    conditions = [(feed, bn_stats) for bn_stats in ("running", "batch") for feed in ("raw", "max", "mean")]
    for ax, (feed, bn_stats) in zip(figure.axes, conditions, strict=True):
        lines = labelled(ax)
        assert set(lines) == set(legend(figure))
        for variant, title in FIG2_TITLES.items():
            shown = lines[title]
            everywhere = variant != "fullwidth" or (feed, bn_stats) == ("raw", "running")
            assert list(shown.get_xdata()) == (list(RADII) if everywhere else [4, 8, 12, 16])
            expected = [
                pattern(answers[variant], true_classes, radius, feed=feed, bn_stats=bn_stats).sum()
                for radius in shown.get_xdata()
            ]
            assert list(shown.get_ydata()) == expected
        assert set(lines["the paper's “~600” (r = 12)"].get_ydata()) == {0.06 * 60}
    assert drawn(figure)


def test_every_count_is_within_the_frame(answers, true_classes):
    # The largest count is in the last variant, which must not be cut off at the first one's.
    table = misaligned_counts({"batchnorm": answers["batchnorm"]}, true_classes, RADII)
    last = (table["feed"] == "mean") & (table["bn_stats"] == "batch")
    figure = counts_figure(table.assign(misaligned=[9_000 if one else 5 for one in last]))
    assert drawn(figure)
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low == 0
        assert high > 9_000


def test_counts_of_one_network_or_of_none_misaligned(answers, true_classes):
    table = misaligned_counts({"vanilla": answers["vanilla"]}, true_classes, RADII).assign(misaligned=0)
    figure = counts_figure(table)
    assert legend(figure) == ["Vanilla, width 16", "the paper's “~600” (r = 12)"]
    assert all(not labelled(ax)["Vanilla, width 16"].get_ydata().any() for ax in figure.axes)
    assert drawn(figure)


def test_a_network_has_one_colour_and_marker_everywhere(answers, true_classes):
    table = misaligned_counts(answers, true_classes, RADII)
    alone = counts_figure(table[table["variant"] == "fullwidth"])
    together = counts_figure(table)
    looks = []
    for figure in (alone, together):
        for ax in figure.axes:
            line = labelled(ax)["BatchNorm, width 64"]
            looks.append((line.get_color(), line.get_marker()))
    assert len(set(looks)) == 1
    lines = [labelled(together.axes[0])[title] for title in FIG2_TITLES.values()]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 3


@pytest.mark.parametrize("variants", [("vanilla",), ("vanilla", "batchnorm", "fullwidth")])
def test_bars_by_class(answers, true_classes, variants):
    found = {variant: pattern(answers[variant], true_classes, 12) for variant in variants}
    table = misaligned_by_class(found, true_classes)
    figure = classes_figure(table, 12)
    (ax,) = figure.axes
    assert ax.get_xlabel() == "True class"
    assert ax.get_ylabel() == "Misaligned images at r = 12"
    assert [text.get_text() for text in ax.get_xticklabels()] == list(CLASSES)
    assert legend(figure) == [FIG2_TITLES[variant] for variant in variants]
    assert len(ax.containers) == len(variants)
    places = []
    for bars, variant in zip(ax.containers, variants, strict=True):
        assert [bar.get_height() for bar in bars] == table[variant].tolist()
        centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
        assert np.abs(np.array(centres) - range(10)).max() < 0.4
        places += [(round(bar.get_x(), 6), round(bar.get_x() + bar.get_width(), 6)) for bar in bars]
    places.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(places))  # no bar hides another
    assert table.to_numpy().sum() > 0
    assert drawn(figure)


def test_no_misaligned_image_at_all(true_classes):
    figure = classes_figure(misaligned_by_class({"vanilla": torch.zeros(60).bool()}, true_classes), 22)
    assert drawn(figure)


# ---- the trade-off


@pytest.mark.parametrize("count", [1, 12])
def test_distances_have_their_units_and_marked_sizes(images, count):
    found = distances(images[:count], (1, 2, 3, 4))
    table = distance_table(found, (1, 2, 3, 4))
    figure = distances_figure(table, EPS)
    left, right = figure.axes
    assert left.get_ylabel() == "L2 distance (pixels in [0, 1])"
    assert right.get_ylabel() == "Linf distance (pixels in [0, 1])"
    for ax, metric in ((left, "l2"), (right, "linf")):
        assert ax.get_xlabel() == "Radius (DFT bins)"
        assert ax.get_yscale() == "log"
        median = labelled(ax)["median"]
        assert list(median.get_xdata()) == [1, 2, 3, 4]
        assert list(median.get_ydata()) == pytest.approx(np.median(found[metric].double().numpy(), axis=1).tolist())
        ninety, half = ax.collections
        lowest, low, high, highest = (
            reach(shade.get_paths()[0].vertices[:, 1])
            for shade, reach in ((ninety, min), (half, min), (half, max), (ninety, max))
        )
        assert lowest <= low <= high <= highest
    marked = [line.get_ydata()[0] for line in right.get_lines() if line.get_linestyle() == "--"]
    assert marked == list(EPS)
    assert [text.get_text() for text in right.texts] == ["2/255", "8/255"]
    assert not left.texts
    assert legend(figure) == ["90 % of images", "half of them", "median"]
    assert drawn(figure)


@pytest.mark.parametrize("variants", [("vanilla",), ("vanilla", "batchnorm", "fullwidth")])
def test_changed_answers_by_radius(answers, variants):
    changed = {variant: changed_radius(answers[variant], RADII) for variant in variants}
    figure = changed_figure(changed_share(changed, RADII))
    (ax,) = figure.axes
    assert ax.get_xlabel() == "Radius (DFT bins)"
    assert ax.get_ylabel().startswith("Share of test images with ")
    for variant in variants:
        line = labelled(ax)[FIG2_TITLES[variant]]
        expected = [
            (answers[variant].on("lfc", radius) != answers[variant].on("x")).float().mean().item() for radius in RADII
        ]
        assert list(line.get_xdata()) == list(RADII)
        assert list(line.get_ydata()) == pytest.approx(expected)
    assert ax.get_ylim() == (0, 1)
    assert drawn(figure)


@pytest.mark.parametrize("variants", [("vanilla",), ("vanilla", "batchnorm", "fullwidth")])
@pytest.mark.parametrize("count", [1, 12])
def test_shares_that_are_ruled_out(images, variants, count):
    distance = distances(images[:count], (1, 2, 3))
    changed = {variant: torch.rand(3, count) < 0.5 for variant in variants}
    curves = ruled_out_curves(distance, changed, points=7)
    figure = ruled_out_figure(curves, EPS)
    left, right = figure.axes
    assert left.get_xlabel() == "eps, L2 distance (pixels in [0, 1])"
    assert right.get_xlabel() == "eps, Linf distance (pixels in [0, 1])"
    assert figure.get_supylabel() == "Share of test images ruled out"
    for ax, metric in ((left, "l2"), (right, "linf")):
        assert ax.get_xscale() == "log"
        for variant in variants:
            line = labelled(ax)[FIG2_TITLES[variant]]
            own = curves[(curves["metric"] == metric) & (curves["variant"] == variant)]
            assert len(own) == 7
            assert list(line.get_xdata()) == own["eps"].tolist()
            assert list(line.get_ydata()) == own["share"].tolist()
    assert [text.get_text() for text in right.texts] == ["2/255", "8/255"]
    assert not left.texts
    assert drawn(figure)
