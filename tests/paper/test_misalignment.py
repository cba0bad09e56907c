"""hfclib.misalignment against a loop over images in NumPy, on networks whose every answer can be worked out by hand."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

import hfclib
from hfclib import logits, split
from hfclib.data.cifar import CLASSES, MEAN
from hfclib.evaluation import BANDS, BN_STATS, PAPER_RADII, misaligned
from hfclib.frequency import svd_split
from hfclib.paper.fig2 import (
    confidence_table,
    confidences,
    count_by_radius,
    misaligned_by_class,
    misaligned_counts,
    most_confident,
    pattern,
)
from hfclib.runs.predictions import Predictions, prediction_conditions
from hfclib.training.recipe import RADII
from hfclib.transforms import FEEDS, feed_images

COUNT, BATCH = 60, 25  # the last batch is a smaller one


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """No bfloat16, also where the processor has it: it would round otherwise in another batch."""
    monkeypatch.setattr("hfclib.devices.gains_from_bf16", lambda device: False)


@pytest.fixture
def images():
    return torch.rand(COUNT, 3, 8, 8)


def linear():
    """A linear network, little of whose answer hangs on the brightness: it differs on every part of an image."""
    layer = nn.Linear(192, 4, bias=False)
    by_channel = layer.weight.data.view(4, 3, 64)
    by_channel -= 0.9 * by_channel.mean(dim=2, keepdim=True)
    return nn.Sequential(nn.Flatten(), layer)


def normed():
    """The same behind a BatchNorm with averages unlike those of the images."""
    norm = nn.BatchNorm2d(3)
    for tensor, low, high in (
        (norm.running_mean, 0.2, 0.8),
        (norm.running_var, 0.05, 0.3),
        (norm.weight.data, 0.5, 2),
        (norm.bias.data, -0.5, 0.5),
    ):
        tensor.uniform_(low, high)
    return nn.Sequential(norm, *linear())


NETWORKS = {"linear": linear, "batchnorm": normed}


@pytest.fixture(params=NETWORKS)
def model(request):
    return NETWORKS[request.param]()


@pytest.fixture
def labels(model, images):
    """Three of four are the answers to the images, with running statistics, the others those to their HFC."""
    on_images, on_hfc = (logits(model, seen).argmax(dim=1) for seen in (images, split(images, 2.5)[1]))
    return torch.where(torch.rand(COUNT) < 0.75, on_images, on_hfc)


# ---- by hand


def fourier_by_hand(image, radius):
    spectrum = np.fft.fftshift(np.fft.fft2(image), axes=(1, 2))
    down, across = np.ogrid[-4:4, -4:4]
    low = np.fft.ifft2(np.fft.ifftshift(spectrum * (np.hypot(down, across) < radius), axes=(1, 2))).real
    return low, image - low


def svd_by_hand(image, radius):
    energy = np.square(fourier_by_hand(image, radius)[0]).sum()
    factors = [np.linalg.svd(matrix) for matrix in image]
    lows = [np.stack([(u[:, :rank] * s[:rank]) @ vh[:rank] for u, s, vh in factors]) for rank in range(9)]
    low = min(lows, key=lambda low: abs(np.square(low).sum() - energy))
    return low, image - low


def fed_by_hand(part, feed, is_high):
    if feed == "max":
        return part / part.max()
    return part + np.array(MEAN)[:, None, None] if feed == "mean" and is_high else part


def answers_by_hand(model, stack, bn_stats, batch):
    """The answers to a list of images (3, 8, 8), one after the other; statistics are those of each batch's images."""
    norm = model[0] if isinstance(model[0], nn.BatchNorm2d) else None
    weight = model[-1].weight.detach().double().numpy()
    answers = []
    for number, image in enumerate(stack):
        if norm is not None:
            mean, var = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
            if bn_stats == "batch":
                start = number // batch * batch
                seen = np.stack(stack[start : start + batch])
                mean, var = seen.mean(axis=(0, 2, 3)), seen.var(axis=(0, 2, 3))
            scale, shift = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
            mean, var, scale, shift = (values[:, None, None] for values in (mean, var, scale, shift))
            image = (image - mean) / np.sqrt(var + norm.eps) * scale + shift
        answers.append(int((weight @ image.ravel()).argmax()))
    return answers


def by_hand(model, images, labels, radius, cut, feed, bn_stats, batch=BATCH):
    """Image by image: right, right by the high part alone, wrong by the low part alone."""
    whole = list(images.double().numpy())
    halves = [(fourier_by_hand if cut == "fourier" else svd_by_hand)(image, radius) for image in whole]
    lows, highs = ([fed_by_hand(pair[side], feed, side == 1) for pair in halves] for side in (0, 1))
    on_x, on_low, on_high = (answers_by_hand(model, stack, bn_stats, batch) for stack in (whole, lows, highs))
    found = []
    for label, x, low, high in zip(labels.tolist(), on_x, on_low, on_high, strict=True):
        found.append(x == label and high == label and low != label)
    return found


# ---- misaligned


@pytest.mark.parametrize("bn_stats", BN_STATS)
@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("cut", BANDS)
def test_misaligned_equals_a_loop_over_images(model, images, labels, cut, feed, bn_stats):
    total = 0
    for radius in (1, 2.5, 4):
        expected = by_hand(model, images, labels, radius, cut, feed, bn_stats)
        found = misaligned(model, images, labels, radius, cut=cut, feed=feed, bn_stats=bn_stats, batch_size=BATCH)
        assert found.tolist() == expected
        assert found.dtype == torch.bool
        total += sum(expected)
    assert 0 < total < 3 * COUNT


def test_the_batch_matters_with_batch_statistics_only(images):
    model = normed()
    labels = logits(model, images).argmax(dim=1)
    for bn_stats, alike in (("running", True), ("batch", False)):
        found = [misaligned(model, images, labels, 2.5, bn_stats=bn_stats, batch_size=size) for size in (7, 60)]
        assert torch.equal(*found) == alike


def test_the_batch_is_the_authors_hundred_unless_told():
    images = torch.rand(130, 3, 8, 8)
    model = normed()
    labels = logits(model, images, bn_stats="batch").argmax(dim=1)
    expected = by_hand(model, images, labels, 2.5, "fourier", "raw", "batch", batch=100)
    assert misaligned(model, images, labels, 2.5, bn_stats="batch").tolist() == expected
    assert sum(expected)


def test_radius_zero_leaves_nothing_in_the_lfc(model, images, labels):
    on_nothing = logits(model, torch.zeros_like(images)).argmax(dim=1)
    right = logits(model, images).argmax(dim=1) == labels
    assert torch.equal(misaligned(model, images, labels, 0), right & (on_nothing != labels))
    assert not misaligned(model, images, labels, 6).any()  # and there nothing is left in the HFC


def test_bins_at_exactly_the_radius_count_if_asked(model, images, labels):
    strict, inclusive = (misaligned(model, images, labels, 2, inclusive=inclusive) for inclusive in (False, True))
    assert torch.equal(inclusive, misaligned(model, images, labels, 2.1))
    assert torch.equal(strict, misaligned(model, images, labels, 1.9))
    assert not torch.equal(strict, inclusive)


@pytest.mark.parametrize("bn_stats", BN_STATS)
def test_what_is_known_of_the_images_is_taken_for_granted(model, images, labels, bn_stats):
    right = logits(model, images, bn_stats=bn_stats, batch_size=BATCH).argmax(dim=1) == labels
    options = {"bn_stats": bn_stats, "batch_size": BATCH}
    expected = misaligned(model, images, labels, 2.5, **options)
    kept = right.clone()
    assert torch.equal(misaligned(model, images, labels, 2.5, right=right, **options), expected)
    assert torch.equal(right, kept)
    everywhere = misaligned(model, images, labels, 2.5, right=torch.ones(COUNT, dtype=torch.bool), **options)
    assert torch.equal(everywhere & right, expected)
    assert (everywhere & ~right).any()
    nowhere = torch.zeros(COUNT, dtype=torch.bool)
    assert not misaligned(model, images, labels, 2.5, right=nowhere, **options).any()


def test_the_network_is_asked_no_more_than_needed(images, monkeypatch):
    model = linear()
    labels = logits(model, images).argmax(dim=1)
    asked = []
    monkeypatch.setattr(
        "hfclib.evaluation.logits", lambda m, x, **options: asked.append(len(x)) or logits(m, x, **options)
    )
    misaligned(model, images, labels, 2.5)
    misaligned(model, images, labels, 2.5, right=torch.arange(COUNT) < 9)
    whole, high, low, high_of_nine, low_of_nine = asked
    assert whole == high == COUNT
    assert low < COUNT
    assert low_of_nine < high_of_nine == 9


@pytest.mark.parametrize("amp", [False, True])
def test_fast_arithmetic_is_passed_on(monkeypatch, images, amp):
    model, used = linear(), []
    monkeypatch.setattr("hfclib.devices.autocast", lambda device: used.append(device) or nullcontext())
    misaligned(model, images, logits(model, images).argmax(dim=1), 2.5, amp=amp)
    assert len(used) == (3 if amp else 0)


def test_the_public_name():
    assert hfclib.misaligned is misaligned


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(COUNT, 3, 8, 8, dtype=torch.uint8)}, TypeError, "float images"),
        ({"images": torch.rand(3, 8, 8)}, ValueError, r"\(N, C, H, W\)"),
        ({"images": [[0.5]]}, TypeError, "a float tensor"),
        ({"images": torch.rand(0, 3, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}, None, ""),
        ({"labels": torch.zeros(59, dtype=torch.int64)}, ValueError, "got 59 labels for 60 images"),
        ({"labels": torch.zeros(61, dtype=torch.int64)}, ValueError, "got 61 labels for 60 images"),
        ({"radius": -1}, ValueError, "at least 0"),
        ({"radius": float("inf")}, ValueError, "finite radius"),
        ({"radius": "12"}, TypeError, "a number of DFT bins"),
        ({"cut": "wavelet"}, ValueError, "expected cut, one of fourier, svd, got 'wavelet'"),
        ({"feed": "min"}, ValueError, "expected feed"),
        ({"bn_stats": "none"}, ValueError, "expected bn_stats"),
        ({"batch_size": 0}, ValueError, "batch_size >= 1"),
        ({"right": torch.ones(COUNT, dtype=torch.int64)}, ValueError, r"expected right, \(\d+,\) bool, got .*int64"),
        ({"right": torch.ones(COUNT - 1, dtype=torch.bool)}, ValueError, "expected right"),
    ],
)
def test_refusals(images, change, error, message):
    arguments = {"images": images, "labels": torch.zeros(COUNT, dtype=torch.int64), "radius": 4} | change
    if error is None:
        assert misaligned(linear(), **arguments).shape == (0,)
    else:
        with pytest.raises(error, match=message):
            misaligned(linear(), **arguments)


@pytest.mark.parametrize("bn_stats", BN_STATS)
@pytest.mark.parametrize("feed", FEEDS)
def test_count_by_radius(model, images, labels, feed, bn_stats):
    expected = [sum(by_hand(model, images, labels, radius, "fourier", feed, bn_stats, batch=100)) for radius in (1, 3)]
    assert count_by_radius(model, images, labels, (1, 3), feed=feed, bn_stats=bn_stats) == expected
    assert sum(expected)


def test_count_by_radius_asks_about_whole_images_once(images, monkeypatch):
    model = linear()
    labels = logits(model, images).argmax(dim=1)
    asked = []

    def recording(m, x, **options):
        asked.append(torch.equal(x, images))
        assert options["amp"]
        return logits(m, x, **options)

    for where in ("evaluation", "paper.fig2"):
        monkeypatch.setattr(f"hfclib.{where}.logits", recording)
    count_by_radius(model, images, labels, (1, 2, 3))
    assert asked.count(True) == 1
    assert len(asked) == 7


# ---- stored answers


def asked_by_hand(model, images, batch_norm):
    """What `predictions_of` would store, with the functions that it does not use."""
    answers = {}
    for band, radius, feed, bn_stats in prediction_conditions(batch_norm):
        if band == "x":
            fed = images
        else:
            cut = svd_split if band.startswith("svd") else split
            part = cut(images, radius)[0 if band in ("lfc", "svd_low") else 1]
            fed = feed_images(part, feed, add_mean=band == "hfc")
        answers[band, radius, feed, bn_stats] = logits(model, fed, bn_stats=bn_stats).argmax(dim=1).to(torch.uint8)
    return Predictions(answers, batch_norm)


@pytest.fixture
def stored(model, images):
    return asked_by_hand(model, images, isinstance(model[0], nn.BatchNorm2d))


@pytest.mark.parametrize("bn_stats", BN_STATS)
@pytest.mark.parametrize("feed", FEEDS)
def test_the_pattern_of_stored_answers_is_the_misaligned(model, images, labels, stored, feed, bn_stats):
    found = {radius: pattern(stored, labels, radius, feed=feed, bn_stats=bn_stats) for radius in (1, 3, 4)}
    for radius, mask in found.items():
        assert torch.equal(mask, misaligned(model, images, labels, radius, feed=feed, bn_stats=bn_stats))
    assert any(mask.any() for mask in found.values())


def test_so_it_is_for_the_svd(model, images, labels, stored):
    assert torch.equal(pattern(stored, labels, 4, cut="svd"), misaligned(model, images, labels, 4, cut="svd"))
    assert not torch.equal(pattern(stored, labels, 4, cut="svd"), pattern(stored, labels, 4))


@pytest.mark.parametrize("options", [{"feed": "max"}, {"bn_stats": "batch"}, {"cut": "svd"}])
def test_a_pattern_that_was_not_recorded(answers, true_classes, options):
    with pytest.raises(KeyError):
        pattern(answers["fullwidth"], true_classes, 7, **options)


def test_counts_are_the_sums_of_the_patterns(answers, true_classes):
    table = misaligned_counts(answers, true_classes, RADII)
    assert list(table.columns) == [
        "variant",
        "cut",
        "radius",
        "feed",
        "bn_stats",
        "images",
        "right",
        "misaligned",
        "by_chance",
    ]
    assert not table.duplicated(["variant", "radius", "feed", "bn_stats"]).any()
    rows = table.groupby("variant", sort=False).size().to_dict()
    # No statistics without BatchNorm; the wide network beside raw, running at the paper's four radii only.
    assert rows == {"vanilla": 22 * 3, "batchnorm": 22 * 3 * 2, "fullwidth": 22 + 4 * 5}
    assert table["misaligned"].sum() > 0
    for row in table.itertuples():
        mask = pattern(answers[row.variant], true_classes, row.radius, feed=row.feed, bn_stats=row.bn_stats)
        assert row.misaligned == mask.sum()
        assert row.right == (answers[row.variant].on("x", bn_stats=row.bn_stats) == true_classes).sum()
        assert (row.images, row.cut) == (60, "fourier")


def test_counts_by_the_svd_are_there_at_the_papers_radii(answers, true_classes):
    table = misaligned_counts(answers, true_classes, RADII, cut="svd")
    assert sorted(zip(table["variant"], table["radius"], strict=True)) == sorted(
        (variant, radius) for variant in answers for radius in PAPER_RADII
    )
    assert set(zip(table["cut"], table["feed"], table["bn_stats"], strict=True)) == {("svd", "raw", "running")}
    expected = pattern(answers["vanilla"], true_classes, 8, cut="svd").sum()
    assert table.query("variant == 'vanilla' and radius == 8")["misaligned"].item() == expected


def test_by_chance_is_the_mean_over_shuffled_answers_to_the_high_part():
    labels = torch.tensor([0, 1, 2, 0, 1])
    x, low, high = torch.tensor([0, 1, 2, 1, 1]), torch.tensor([1, 1, 0, 1, 0]), torch.tensor([0, 2, 2, 1, 0])
    stored = Predictions(
        {("x", 0, "raw", "running"): x, ("lfc", 4, "raw", "running"): low, ("hfc", 4, "raw", "running"): high},
        batch_norm=False,
    )
    shuffled = [
        sum(x[i] == labels[i] and low[i] != labels[i] and high[order[i]] == labels[i] for i in range(5))
        for order in itertools.permutations(range(5))
    ]
    row = misaligned_counts({"vanilla": stored}, labels, (4,)).query("feed == 'raw'").iloc[0]
    assert row["by_chance"] == pytest.approx(np.mean(shuffled))
    assert row["misaligned"] == 2
    constant = Predictions(stored.classes | {("hfc", 4, "raw", "running"): torch.zeros(5)}, batch_norm=False)
    row = misaligned_counts({"vanilla": constant}, labels, (4,)).query("feed == 'raw'").iloc[0]
    assert row["by_chance"] == row["misaligned"] == 1  # one answer to everything: all of it is chance


def test_by_class():
    labels = torch.tensor([0, 0, 3, 3, 3, 9])
    found = {"vanilla": torch.tensor([1, 0, 1, 1, 0, 0]).bool(), "batchnorm": torch.zeros(6, dtype=torch.bool)}
    table = misaligned_by_class(found, labels)
    assert list(table.index) == list(CLASSES)
    assert table["vanilla"].tolist() == [1, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    assert table["batchnorm"].tolist() == [0] * 10


# ---- ask


@pytest.mark.parametrize("bn_stats", BN_STATS)
@pytest.mark.parametrize("feed", FEEDS)
def test_ask_shows_what_is_fed_and_how_sure_the_network_is(model, feed, bn_stats):
    images, indices = torch.rand(130, 3, 8, 8), [120, 3, 99, 3, 100]
    parts, sure = confidences(model, images, indices, 2.5, feed=feed, bn_stats=bn_stats)
    lfc, hfc = split(images, 2.5)
    fed = {"image": images, "LFC": feed_images(lfc, feed), "HFC": feed_images(hfc, feed, add_mean=True)}
    assert list(parts) == list(sure) == list(fed)
    for name, whole in fed.items():
        torch.testing.assert_close(parts[name], whole[indices])
        expected = logits(model, whole, bn_stats=bn_stats).softmax(dim=1)[indices]  # every image in its test batch
        torch.testing.assert_close(sure[name], expected)
        torch.testing.assert_close(sure[name].sum(dim=1), torch.ones(5))


def test_with_batch_statistics_only_the_blocks_that_are_needed_are_seen(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "hfclib.paper.fig2.logits", lambda m, x, **options: seen.append(len(x)) or logits(m, x, **options)
    )
    images = torch.rand(330, 3, 8, 8)
    confidences(normed(), images, [250, 10, 210], 2.5, bn_stats="batch")
    confidences(normed(), images, [320], 2.5, bn_stats="batch")
    confidences(normed(), images, [250, 10, 210], 2.5)
    confidences(linear(), images, [250, 10], 2.5, bn_stats="batch")
    assert seen == [200] * 3 + [30] * 3 + [3] * 3 + [2] * 3


@pytest.mark.parametrize("bn_stats", BN_STATS)
def test_ask_about_nothing(model, images, bn_stats):
    parts, sure = confidences(model, images, [], 2.5, bn_stats=bn_stats)
    assert {name: part.shape for name, part in parts.items()} == dict.fromkeys(("image", "LFC", "HFC"), (0, 3, 8, 8))
    assert {name: values.shape for name, values in sure.items()} == dict.fromkeys(("image", "LFC", "HFC"), (0, 10))


def test_a_pattern_of_the_paper_can_be_read_off_the_confidences(model, images, labels):
    masked = misaligned(model, images, labels, 2.5).nonzero().squeeze(1).tolist()
    assert masked
    _, sure = confidences(model, images, masked, 2.5)
    right = {name: values.argmax(dim=1) == labels[masked] for name, values in sure.items()}
    assert right["image"].all()
    assert right["HFC"].all()
    assert not right["LFC"].any()


def test_the_surest_come_first(monkeypatch, images, labels):
    """Six images of the classes below; number 1 is not misaligned, and 0 and 4 are alike."""
    true = torch.tensor([0, 1, 1, 0, 2, 1])
    confidence = torch.full((6, len(CLASSES)), 0.0)
    confidence[range(6), true] = torch.tensor([0.5, 0.99, 0.1, 0.7, 0.5, 0.9])
    asked = []

    def ask(model, images, indices, radius, **options):
        asked.append((radius, options))
        return {}, {"image": -confidence[indices], "HFC": confidence[indices]}

    monkeypatch.setattr("hfclib.paper.fig2.confidences", ask)
    found = torch.tensor([True, False, True, True, True, True])
    numbers, sure = most_confident(linear(), images[:6], true, found, 3, count=9, feed="max", bn_stats="batch")
    assert numbers == [5, 3, 0, 4, 2]
    assert torch.equal(sure["HFC"], confidence[numbers])
    assert torch.equal(sure["image"], -confidence[numbers])
    assert asked == [(3, {"feed": "max", "bn_stats": "batch"})]
    assert most_confident(linear(), images[:6], true, found, 3, count=2)[0] == [5, 3]
    assert most_confident(linear(), images[:6], true, found, 3, count=2, without=[5, 1, 0])[0] == [3, 4]
    assert most_confident(linear(), images[:6], true, found, 3, count=9, without=range(6))[0] == []


def test_confidences_as_rows():
    sure = {part: torch.rand(2, len(CLASSES)) for part in ("image", "LFC", "HFC")}
    rows = confidence_table([3, 1], sure)
    assert list(rows.columns) == ["image", "part", *CLASSES]
    assert list(zip(rows["image"], rows["part"], strict=True)) == [(image, part) for image in (3, 1) for part in sure]
    torch.testing.assert_close(torch.tensor(rows[list(CLASSES)].to_numpy()[4]).float(), sure["LFC"][1])
    assert confidence_table([], {name: values[:0] for name, values in sure.items()}).empty
