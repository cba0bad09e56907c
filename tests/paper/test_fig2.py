"""hfclib.paper.fig2: counts and tables are what stored predictions say, and figures show them."""

import itertools
import re
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from hfclib import logits, split
from hfclib.charts import NETWORK_COLOURS
from hfclib.conditions import BN_STATS, PAPER_RADII, Condition
from hfclib.data.cifar import CLASSES, MEAN
from hfclib.frequency import svd_split
from hfclib.metrics import misaligned
from hfclib.paper.fig2 import (
    FIG2,
    all_counts,
    confidence_table,
    confidences,
    counts_at,
    counts_figure,
    counts_of_all_seeds,
    cuts_of_all_seeds,
    examples_figure,
    extremes_of_counts,
    gallery_figure,
    most_confident,
)
from hfclib.paper.intervals import MissingRunError, interval
from hfclib.paper.misalignment import counts_over_seeds, network_titles, stored_misaligned, stored_predictions
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import Predictions, prediction_conditions
from hfclib.training.recipe import RADII
from hfclib.transforms import FEEDS, feed_images, rescaled
from tests.paper.tidy import drawn

CONDITIONS = list(itertools.product(FEEDS, BN_STATS))
TITLES = {"vanilla": "Vanilla, width 16", "batchnorm": "BatchNorm, width 16", "fullwidth": "BatchNorm, width 64"}
pytestmark = pytest.mark.usefixtures("in_float32")  # bfloat16 would round differently in another batch


@pytest.fixture(params=[False, True], ids=["plain", "batchnorm"])
def model(request):
    """Ten classes from images of 8 x 8, with BatchNorm and averages unlike those of the images, or without."""
    norm = nn.BatchNorm2d(3)
    norm.running_mean.uniform_(0.2, 0.8)
    norm.running_var.uniform_(0.05, 0.3)
    return nn.Sequential(*[norm] * request.param, nn.Flatten(), nn.Linear(192, 10))


@pytest.fixture
def counts(answers, true_classes):
    return counts_over_seeds({variant: {3: one} for variant, one in answers.items()}, true_classes)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def shown(ax):
    """The picture in a panel, as (3, H, W)."""
    (picture,) = ax.get_images()
    return torch.from_numpy(np.asarray(picture.get_array())).permute(2, 0, 1)


def written(share):
    return f"{share:.2f}".replace("0.", ".", 1)


# ---- measurements


def test_what_stored_predictions_say_is_what_the_network_says(model):
    images, batch_norm = torch.rand(60, 3, 8, 8), isinstance(model[0], nn.BatchNorm2d)
    labels = torch.where(torch.rand(60) < 0.7, logits(model, images).argmax(1), torch.randint(0, 10, (60,)))
    made = {}
    for band, radius, feed, bn_stats in prediction_conditions(batch_norm, (1, 3, 4), (1, 3, 4)):
        cut = svd_split if band.startswith("svd") else split
        part = images if band == "x" else cut(images, radius)[band in ("hfc", "svd_high")]
        fed = feed_images(part, feed, add_mean=band == "hfc", colour=MEAN)
        made[band, radius, feed, bn_stats] = logits(model, fed, bn_stats=bn_stats).argmax(dim=1).to(torch.uint8)
    stored = Predictions(made, batch_norm)
    for feed, bn_stats in CONDITIONS:
        total = 0
        for radius in (1, 3, 4):
            expected = misaligned(model, images, labels, radius, feed=feed, bn_stats=bn_stats, colour=MEAN)
            assert torch.equal(stored_misaligned(stored, labels, radius, feed=feed, bn_stats=bn_stats), expected)
            total += expected.sum()
        assert total > 0, (feed, bn_stats)
    by_svd = misaligned(model, images, labels, 4, cut="svd")
    assert torch.equal(stored_misaligned(stored, labels, 4, cut="svd"), by_svd)
    with pytest.raises(KeyError):
        stored_misaligned(stored, labels, 7)


def test_counts_are_the_sums_over_images_of_every_recorded_condition(answers, true_classes, counts):
    keys = ["seed", "cut", "variant", "radius", "feed", "bn_stats"]
    assert not counts.duplicated(keys).any()
    # No statistics without BatchNorm; the wide network beside raw, running at the paper's four radii only.
    sizes = counts.groupby(["cut", "variant"]).size().to_dict()
    fourier = {"vanilla": 22 * 3, "batchnorm": 22 * 3 * 2, "fullwidth": 22 + 4 * 5}
    assert sizes == {("fourier", variant): size for variant, size in fourier.items()} | {
        ("svd", variant): len(PAPER_RADII) for variant in fourier
    }
    assert set(counts.query("cut == 'svd'")["radius"]) == set(PAPER_RADII)
    for row in counts.itertuples():
        one, options = answers[row.variant], {"cut": row.cut, "feed": row.feed, "bn_stats": row.bn_stats}
        assert row.misaligned == stored_misaligned(one, true_classes, row.radius, **options).sum()
        assert row.correct == (one.on("x", bn_stats=row.bn_stats) == true_classes).sum()
        assert (row.images, row.seed) == (60, 3)
    assert counts["misaligned"].sum() > 0


def test_variants_may_have_several_and_different_seeds(answers, true_classes):
    counts = counts_over_seeds(
        {"vanilla": {4: answers["vanilla"], 0: answers["batchnorm"]}, "batchnorm": {1: answers["batchnorm"]}},
        true_classes,
    )
    assert counts.groupby("variant")["seed"].unique().map(list).to_dict() == {"vanilla": [0, 4], "batchnorm": [1]}
    alone = counts_over_seeds({"vanilla": {4: answers["vanilla"]}}, true_classes)
    own = counts.query("variant == 'vanilla' and seed == 4").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, alone)


def test_by_chance_is_the_mean_over_shuffled_predictions_for_the_high_part():
    labels = torch.tensor([0, 1, 2, 0, 1])
    x, low, high = torch.tensor([0, 1, 2, 1, 1]), torch.tensor([1, 1, 0, 1, 0]), torch.tensor([0, 2, 2, 1, 0])

    def count(high):
        parts = {("x", None): x, ("lfc", 4): low, ("hfc", 4): high}
        stored = Predictions({(*key, "raw", "running"): part for key, part in parts.items()}, batch_norm=False)
        return counts_over_seeds({"vanilla": {0: stored}}, labels).query("feed == 'raw'").iloc[0]

    shuffled = [
        sum(x[i] == labels[i] and low[i] != labels[i] and high[order[i]] == labels[i] for i in range(5))
        for order in itertools.permutations(range(5))
    ]
    assert count(high)["by_chance"] == pytest.approx(np.mean(shuffled))
    assert count(high)["misaligned"] == 2
    constant = count(torch.zeros_like(high))
    assert constant["by_chance"] == constant["misaligned"] == 1  # one class for everything: all of it is chance


def test_confidences_are_those_of_the_whole_test_set(model):
    images, indices = torch.rand(130, 3, 8, 8), [120, 3, 99, 3, 100]
    lfc, hfc = split(images, 2.5)
    for feed, bn_stats in CONDITIONS:
        parts, values = confidences(model, images, indices, 2.5, feed=feed, bn_stats=bn_stats)
        coloured = feed_images(hfc, feed, add_mean=True, colour=MEAN)
        fed = {"image": images, "LFC": feed_images(lfc, feed), "HFC": coloured}
        assert list(parts) == list(values) == list(fed)
        for name, everything in fed.items():
            torch.testing.assert_close(parts[name], everything[indices])
            expected = logits(model, everything, bn_stats=bn_stats).softmax(dim=1)[indices]
            torch.testing.assert_close(values[name], expected)


def test_with_batch_statistics_only_the_blocks_that_are_needed_are_seen(channel_means):
    seen, images = [], torch.rand(330, 3, 8, 8)
    channel_means.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    confidences(channel_means, images, [250, 10, 210], 2.5, bn_stats="batch")
    confidences(channel_means, images, [320], 2.5, bn_stats="batch")
    confidences(channel_means, images, [250, 10, 210], 2.5)
    assert seen == [100] * 6 + [30] * 3 + [3] * 3


def test_the_most_confident_come_first(channel_means):
    """Six images whose HFC has most of one colour, more of it from image to image; the first two are not misaligned."""
    wave = (-1.0) ** torch.arange(8)
    images = torch.full((6, 3, 8, 8), 0.5)
    misaligned_images, labels = torch.tensor([False, False, True, True, True, True]), torch.tensor([0, 1, 0, 1, 2, 0])
    order = [5, 2, 4, 3]
    for place, index in enumerate(order):
        images[index, labels[index]] += 0.1 * (4 - place) * wave
    # The mean over a channel of its HFC is 0: the network looks at the first column only.
    network = nn.Sequential(nn.AvgPool2d((8, 1)), nn.Flatten(), nn.Linear(24, 3, bias=False))
    network[2].weight.data = torch.eye(3).repeat_interleave(8, dim=1) * (torch.arange(24) % 8 == 0)
    indices, values = most_confident(network, images, labels, misaligned_images, 3, count=9)
    assert indices == order
    _, expected = confidences(network, images, order, 3)
    for name, part in expected.items():
        torch.testing.assert_close(values[name], part)
    assert most_confident(network, images, labels, misaligned_images, 3, count=2)[0] == [5, 2]
    assert most_confident(network, images, labels, misaligned_images, 3, count=2, without=[5, 1, 0])[0] == [2, 4]
    assert most_confident(network, images, labels, misaligned_images, 3, count=9, without=range(6)) == ([], {})


# ---- tables


def test_the_table_of_one_seed_refuses_several(answers, true_classes):
    two = counts_over_seeds({"vanilla": {0: answers["vanilla"], 4: answers["vanilla"]}}, true_classes)
    with pytest.raises(ValueError, match="expected counts of one seed, got those of 0, 4"):
        counts_at(two, 12, TITLES)


def test_confidences_as_rows():
    values = {part: torch.rand(2, len(CLASSES)) for part in ("image", "LFC", "HFC")}
    rows = confidence_table([3, 1], values)
    assert list(rows.columns) == ["image", "part", *CLASSES]
    assert list(zip(rows["image"], rows["part"], strict=True)) == [(image, part) for image in (3, 1) for part in values]
    torch.testing.assert_close(torch.tensor(rows[list(CLASSES)].to_numpy()[4]).float(), values["LFC"][1])
    assert list(confidence_table([], {}).columns) == ["image", "part", *CLASSES]


def test_counts_at_one_radius_beside_the_paper(answers, true_classes, counts):
    for radius in (12, 8):
        shown = counts_at(counts, radius, TITLES)
        assert list(shown.index) == list(itertools.product(("running", "batch"), ("raw", "mean", "max")))
        assert list(shown.columns) == [*TITLES.values(), "blog"]
        for (bn_stats, feed), row in shown.iterrows():
            for variant, title in TITLES.items():  # without BatchNorm both rows have the one count
                stats = bn_stats if variant != "vanilla" else "running"
                own = counts.query(f"variant == '{variant}' and radius == {radius} and cut == 'fourier'")
                (one,) = own.query(f"feed == '{feed}' and bn_stats == '{stats}'").itertuples()
                assert row[title] == f"{one.misaligned} (by chance {one.by_chance:.0f})"
        assert set(shown["blog"]) == ({"~600"} if radius == 12 else {"not available to us"})
    shown = counts_at(counts, 7, TITLES)["BatchNorm, width 64"]  # recorded raw, running only
    expected = int(stored_misaligned(answers["fullwidth"], true_classes, 7).sum())
    assert shown["running", "raw"].startswith(f"{expected} (by chance ")
    assert set(shown.drop(("running", "raw"))) == {"not measured"}
    alone = counts_at(counts.query("variant == 'vanilla'"), 12, TITLES)
    assert alone.loc["running"].equals(alone.loc["batch"])


def test_titles_have_the_width_of_the_preset(answers, true_classes, counts):
    assert network_titles("laptop") == TITLES
    assert network_titles("narrow", "_w32") == {"vanilla": "Vanilla, width 32", "batchnorm": "BatchNorm, width 32"}
    assert network_titles("paper") == {"vanilla": "Vanilla, width 64", "batchnorm": "BatchNorm, width 64"}
    assert network_titles("authors") == {"vanilla": "Vanilla, ResNet-32", "batchnorm": "BatchNorm, ResNet-32"}
    titles = network_titles("smoke")
    assert list(titles.values()) == ["Vanilla, width 4", "BatchNorm, width 4", "BatchNorm, width 8"]
    assert list(counts_at(counts, 12, titles)) == [*titles.values(), "blog"]
    assert set(legend(counts_figure(counts, titles))) >= set(titles.values())


# ---- figures


@pytest.fixture
def published_counts(monkeypatch):
    """Sets the tables of counts that the chapter has published, by preset."""

    def choose(**tables):
        published_only = SimpleNamespace(published=tables.get, is_own=lambda preset, runs: False)
        monkeypatch.setattr("hfclib.paper.fig2.FIG2", published_only)
        monkeypatch.setattr("hfclib.paper.fig2.stated_pair", lambda preset, end: Runs())

    return choose


def test_counts_of_all_seeds_and_what_exceeds_chance(published_counts):
    """Two vanilla networks, one with BatchNorm; rows at another radius and under another feed are left out."""
    rows = [
        ("vanilla", 0, "fourier", "running", 70, 60.0, 0),
        ("vanilla", 1, "fourier", "running", 90, 76.0, 2),
        ("batchnorm", 1, "fourier", "running", 120, 99.7, 3),
        ("batchnorm", 1, "fourier", "batch", 200, 70.0, 1),
        ("batchnorm", 1, "svd", "running", 130, 131.0, 0),
    ]
    table = pd.DataFrame(rows, columns=["variant", "seed", "cut", "bn_stats", "misaligned", "by_chance", "eight"])
    table = table.assign(radius=12, feed="raw", images=400)
    table = pd.concat([table, table.assign(radius=8, misaligned=0), table.assign(feed="max", misaligned=0)])
    published_counts(laptop=table, narrow=table[table["variant"] == "vanilla"].query("seed == 0"))
    counts = all_counts("laptop", Runs())
    said = extremes_of_counts(counts, 12)  # the SVD's 3 of the eight and 130 images do not count
    numbers = ("r = 12", "from 0 to 200", "at most 3", "none under 2 of 4 networks", "at most 3 under the others")
    assert re.search(".*".join(map(re.escape, numbers)), said)
    shown = counts_of_all_seeds(counts, 12)
    plain, normed = TITLES["vanilla"], TITLES["batchnorm"]
    assert shown.index.tolist() == [
        ("our schedule", plain, "LFC and HFC, running"),
        ("our schedule", normed, "LFC and HFC, running"),
        ("our schedule", normed, "LFC and HFC, test batch"),
        ("our schedule", normed, "truncated SVD, running"),
        ("as stated", plain, "LFC and HFC, running"),
    ]
    low, high = 12 - 12.7062 * 2, 12 + 12.7062 * 2  # of 10 and 14: Student's t, one degree of freedom
    assert shown["beyond chance"].tolist() == [
        f"12.0\u00a0[{low:.1f},\u00a0{high:.1f}]",
        "20.3",
        "130.0",
        "-1.0",
        "10.0",
    ]
    eight = shown["of the paper's eight (of eight random images)"]
    low, high = 1 - 12.7062 * 1, 1 + 12.7062 * 1  # of 0 and 2
    assert eight.tolist() == [  # in brackets 8 times 80, 120, 200, 130 and 70 of 400
        f"1.0\u00a0[{low:.1f},\u00a0{high:.1f}] (1.6)",
        "3.0 (2.4)",
        "1.0 (4.0)",
        "0.0 (2.6)",
        "0.0 (1.4)",
    ]
    assert shown["seed 0"].tolist() == ["70 (60)", *["\u2013"] * 3, "70 (60)"]
    assert shown["seed 1"].tolist()[1:4] == ["120 (100)", "200 (70)", "130 (131)"]


def test_counts_have_a_panel_per_feed_and_kind_of_statistics(answers, true_classes, counts):
    figure = counts_figure(counts, TITLES)  # which has those of the SVD as well
    titles = [ax.get_title() for ax in figure.axes]
    assert len(set(titles)) == len(figure.axes) == 6
    assert all("running averages" in title for title in titles[::2])
    assert all("test-batch statistics" in title for title in titles[1::2])
    assert [ax.get_xlabel() for ax in figure.axes] == [""] * 4 + ["Radius (DFT bins)"] * 2
    assert figure.get_supylabel() == "Misaligned images of 60"
    assert legend(figure) == [*TITLES.values(), "the blog's “~600” (r = 12)"]
    looks = set()
    for ax, (feed, bn_stats) in zip(figure.axes, itertools.product(FEEDS, BN_STATS), strict=True):
        *lines, paper, _ = ax.lines
        lines = dict(zip(TITLES.values(), lines, strict=True))
        for variant, title in TITLES.items():
            everywhere = variant != "fullwidth" or (feed, bn_stats) == ("raw", "running")
            radii = list(RADII) if everywhere else [4, 8, 12, 16]
            options = {"feed": feed, "bn_stats": bn_stats}
            expected = [stored_misaligned(answers[variant], true_classes, r, **options).sum() for r in radii]
            assert (list(lines[title].get_xdata()), list(lines[title].get_ydata())) == (radii, expected)
            looks.add((title, lines[title].get_color(), lines[title].get_marker()))
        assert set(paper.get_ydata()) == {0.06 * 60}
    assert len(looks) == len({look[1:] for look in looks}) == 3  # a network looks the same in every panel
    assert drawn(figure)


def test_over_seeds_a_line_is_their_mean_and_a_shade_their_range(counts):
    two = pd.concat([counts, counts.assign(misaligned=counts["misaligned"] + 4, seed=4)])
    figure = counts_figure(two, TITLES, [("raw", "running")])
    (ax,) = figure.axes
    rows = counts.query("variant == 'batchnorm' and cut == 'fourier' and feed == 'raw' and bn_stats == 'running'")
    line = next(line for line in ax.lines if line.get_color() == NETWORK_COLOURS["batchnorm"])
    np.testing.assert_allclose(line.get_ydata(), rows["misaligned"] + 2)
    heights = [shade.get_paths()[0].vertices[:, 1] for shade in ax.collections]
    assert any({*rows["misaligned"], *rows["misaligned"] + 4} == set(height) for height in heights)
    assert drawn(figure)


def test_every_count_is_within_the_frame(counts):
    # The largest count is in the last panel, which must not be cut off at the first one's.
    counts = counts.query("cut == 'fourier' and variant == 'batchnorm'")
    last = (counts["feed"] == "mean") & (counts["bn_stats"] == "batch")
    figure = counts_figure(counts.assign(misaligned=[9_000 if one else 5 for one in last]), TITLES)
    assert drawn(figure)
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low == 0
        assert high > 9_000
    assert drawn(counts_figure(counts.assign(misaligned=0), TITLES))


@pytest.mark.parametrize("count", [1, 3])
def test_a_row_per_image_with_its_parts_and_confidences(images, count):
    indices, labels = [11, 2, 5][:count], torch.tensor([4, 4, 9])
    lfc, hfc = split(images[indices], 3)
    parts = {"image": images[indices], "LFC": lfc, "HFC": hfc}
    values = {name: torch.rand(count, 10).softmax(dim=1) for name in parts}
    values["image"][0] = torch.eye(10)[4]
    figure = examples_figure(labels, indices, parts, values, network="Vanilla")
    assert "Vanilla" in figure.get_suptitle()
    rows = np.array(figure.axes).reshape(count, 7)
    titles = ["Image", "confidence", "LFC\nas fed", "confidence", "HFC\nas fed", "confidence", "HFC\nstretched"]
    assert [ax.get_title() for ax in rows[0]] == titles
    assert not any(ax.get_title() for ax in rows[1:].flat)
    colours = {True: set(), False: set()}
    for row, line in enumerate(rows):
        assert line[0].get_ylabel() == f"{CLASSES[labels[row]]}\n(no. {indices[row]})"
        assert torch.equal(shown(line[6]), rescaled(hfc[[row]], "range")[0])
        for column, name in ((0, "image"), (2, "LFC"), (4, "HFC")):
            assert torch.equal(shown(line[column]), parts[name][row].clamp(0, 1))
            likeliest, ax = values[name][row].topk(3), line[column + 1]
            assert [bar.get_width() for bar in ax.patches] == pytest.approx(likeliest.values.tolist())
            assert (
                ax.get_ylim()[1] < ax.patches[0].get_y() < ax.patches[2].get_y() < ax.get_ylim()[0]
            )  # likeliest on top
            for bar, text, value, number in zip(ax.patches, ax.texts, *(x.tolist() for x in likeliest), strict=True):
                true = number == labels[row].item()
                assert text.get_text() == f"{CLASSES[number]} {written(value)}"
                assert text.get_fontweight() == ("bold" if true else "normal")
                colours[true].add(bar.get_facecolor())
    assert len(colours[True]) == len(colours[False]) == 1  # the true class has a colour of its own
    assert colours[True] != colours[False]
    assert drawn(figure)


def test_a_gallery_shows_three_pictures_per_image_with_the_predictions(images):
    count, across, lines = 5, 4, 2
    indices, labels = list(range(20, 20 + count)), torch.full((count,), 4)
    lfc, hfc = split(images[:count], 3)
    parts = {"image": images, "LFC": lfc.clamp(0, 1), "HFC": rescaled(hfc, "range")}
    values = {name: torch.rand(count, 10).softmax(dim=1) for name in parts}
    values["HFC"][0] = torch.eye(10)[4]
    figure = gallery_figure(images[:count], labels, indices, 3, values, across=across, network="Vanilla")
    assert len({ax.get_subplotspec().rowspan.start for ax in figure.axes}) == lines
    used = [ax for ax in figure.axes if ax.get_images()]
    assert len(used) == 3 * count
    colours = {True: set(), False: set()}
    for number in range(count):
        trio = used[3 * number : 3 * number + 3]
        assert trio[0].get_title() == f"no. {indices[number]}"
        for ax, (name, pictures) in zip(trio, parts.items(), strict=True):
            torch.testing.assert_close(shown(ax), pictures[number])
            value, predicted = values[name][number].max(dim=0)
            assert ax.get_xlabel() == f"{CLASSES[predicted]}\n{written(value.item())}"
            colours[predicted.item() == 4].add(mpl.colors.to_rgba(ax.xaxis.label.get_color()))
    assert len(colours[True]) == len(colours[False]) == 1
    assert colours[True] != colours[False]
    assert drawn(figure)


def test_where_no_image_is_misaligned_the_gallery_says_so(images):
    figure = gallery_figure(images[:0], torch.zeros(0, dtype=torch.int64), [], 22, {}, network="Vanilla")
    assert figure.get_suptitle() == "Network: Vanilla\nNo image is misaligned at this radius."
    assert not any(ax.get_images() for ax in figure.axes)
    assert drawn(figure)


# ---- claims

CLAIMS = {claim.id.removeprefix("fig2-"): claim for claim in FIG2.claims}


def evidence(rows: dict[tuple, list[int]]) -> pd.DataFrame:
    """Counts of misaligned images among 10,000, by (variant, cut, radius, feed, bn_stats) and seed; one is in eight."""
    names = ("variant", "cut", "radius", "feed", "bn_stats", "images", "misaligned", "eight", "seed")
    made = [
        (*key, 10_000, value, value // 100, seed) for key, values in rows.items() for seed, value in enumerate(values)
    ]
    return pd.DataFrame(made, columns=names)


def test_claims_are_about_vanilla_fed_raw_at_radius_12():
    counts = {
        ("vanilla", "fourier", 12, "raw", "running"): [600, 800, 600],
        ("vanilla", "svd", 12, "raw", "running"): [200, 400, 300],
        ("vanilla", "fourier", 12, "max", "running"): [30, 30, 30],
        ("vanilla", "fourier", 11, "raw", "running"): [9000, 9000, 9000],
        ("batchnorm", "fourier", 12, "raw", "running"): [1500, 1500, 1500],
        ("batchnorm", "svd", 12, "raw", "running"): [0, 0, 0],
    }
    table = evidence(counts)
    for name, values, shares, verdict in (
        ("count", [0.06, 0.08, 0.06], [[0.06, 0.08, 0.06]], "reproduced"),
        ("count-narrow", [0.06, 0.08, 0.06], [[0.06, 0.08, 0.06]], "reproduced"),
        ("eight", [6 / 8, 1, 6 / 8], [], "inconclusive"),  # the paper's own images, and no sample
        ("svd", [0.04, 0.04, 0.03], [[0.06, 0.08, 0.06], [0.02, 0.04, 0.03]], "reproduced"),
    ):
        estimate = FIG2.estimate(CLAIMS[name], table)
        mean, _, high = interval(values)
        errors = [np.mean([(share * (1 - share) / 10_000) ** 0.5 for share in ones]) for ones in shares]
        half = np.hypot(high - mean, 1.959964 * np.linalg.norm(errors))
        assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(
            (mean, mean - half, mean + half), abs=2e-6
        ), name
        assert (estimate.seeds, CLAIMS[name].judge(estimate)) == (3, verdict), name
        with pytest.raises(MissingRunError):
            FIG2.estimate(CLAIMS[name], table.query("variant != 'vanilla'"))
    with pytest.raises(MissingRunError):
        FIG2.estimate(CLAIMS["svd"], table.query("cut != 'svd'"))
    all_eight = evidence({("vanilla", "fourier", 12, "raw", "running"): [800, 800, 800]})
    assert CLAIMS["eight"].judge(FIG2.estimate(CLAIMS["eight"], all_eight)) == "reproduced"


def test_the_eight_images_of_the_paper_are_counted():
    """Correct on all images and on no LFC; the HFC is read at two of the eight and at two images beside them."""
    labels = torch.zeros(9000, dtype=torch.int64)
    x, low, high = torch.zeros(9000, dtype=torch.uint8), *torch.ones(2, 9000, dtype=torch.uint8)
    high[[95, 8501, 96, 0]] = 0

    def count(images):
        parts = {("x", None): x, ("lfc", 12): low, ("hfc", 12): high}
        classes = {(*key, "raw", "running"): part[:images] for key, part in parts.items()}
        one = Predictions(classes, batch_norm=False)
        row = counts_over_seeds({"vanilla": {0: one}}, labels[:images]).query("feed == 'raw'").iloc[0]
        return row["misaligned"], row["eight"]

    assert count(9000) == (4, 2)
    assert count(8501) == (3, 1)  # the last of the eight is not among them
    assert count(90) == (1, 0)


def test_stored_predictions_leave_out_runs_without_those_on_whole_images(answers, answered):
    """A training alone records those on the bands, by which nothing can be counted."""
    bands = {condition: classes for condition, classes in answers["batchnorm"].classes.items() if condition.band != "x"}
    records = {0: answers["batchnorm"].classes, 1: {}, 2: {Condition("x"): torch.zeros(60)}, 3: bands}
    runs = {"batchnorm": [answered(records[seed], seed=seed, batch_norm=True) for seed in records], "vanilla": []}
    kept = stored_predictions(runs)
    assert {variant: list(ones) for variant, ones in kept.items()} == {"batchnorm": [0, 2]}
    one = kept["batchnorm"][0]
    for condition in (("hfc", 8, "max", "batch"), ("svd_low", 12), ("x",)):
        assert torch.equal(one.on(*condition), answers["batchnorm"].on(*condition))
    assert not kept["batchnorm"][2].has("hfc", 8)
    with_running = Predictions(bands | {Condition("x"): torch.zeros(60)}, batch_norm=True)
    counts = counts_over_seeds({"batchnorm": {0: with_running}}, torch.zeros(60, dtype=torch.int64))
    assert set(counts["bn_stats"]) == {"running"}


def test_the_two_cuts_beyond_chance_under_the_same_networks(published_counts):
    """A network without counts of one cut is left out of both; other radii, feeds and statistics too."""
    rows = [
        ("vanilla", 0, "fourier", 70, 60.0),
        ("vanilla", 1, "fourier", 90, 76.0),
        ("vanilla", 2, "fourier", 500, 76.0),
        ("vanilla", 0, "svd", 61, 60.02),
        ("vanilla", 1, "svd", 76, 77.0),
        ("batchnorm", 0, "fourier", 120, 99.0),
        ("batchnorm", 0, "svd", 98, 98.04),
    ]
    table = pd.DataFrame(rows, columns=["variant", "seed", "cut", "misaligned", "by_chance"])
    table = table.assign(radius=8, feed="raw", bn_stats="running")
    others = [{"radius": 7}, {"feed": "max"}, {"bn_stats": "batch"}]
    table = pd.concat([table, *(table.assign(misaligned=0, **other) for other in others)])
    published_counts(laptop=table)
    shown = cuts_of_all_seeds(all_counts("laptop", Runs()))
    plain, normed = TITLES["vanilla"], TITLES["batchnorm"]
    assert shown.index.tolist() == [("our schedule", plain, 8), ("our schedule", normed, 8)]
    assert shown.loc["our schedule", normed, 8].tolist() == ["21.0", "0.0", "-21.0"]
    differences = [0.98 - 10, -1 - 14]
    mean, half = sum(differences) / 2, 12.7062 * abs(differences[0] - differences[1]) / 2
    cells = shown.loc["our schedule", plain, 8]
    assert cells["Fourier split"].startswith("12.0\u00a0[")
    assert cells["SVD less Fourier"] == f"{mean:.1f}\u00a0[{mean - half:.1f},\u00a0{mean + half:.1f}]"
