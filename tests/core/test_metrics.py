"""hfclib.metrics: accuracies by hand, the mean colour, and what a run records."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import FrozenBatchNorm2d

import hfclib
from hfclib import Classifier, accuracy, band_accuracy, robust_accuracy, split
from hfclib.conditions import Condition
from hfclib.data.cifar import MEAN
from hfclib.metrics import CURVE_COLUMNS, curve_rows, training_band_rows
from hfclib.transforms import FEEDS, feed_images


@pytest.fixture
def network():
    """A linear network on 8x8 images, whose answers on every band differ from those on the images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def test_pixels_beyond_the_limit_are_refused_with_the_limit(channel_means, images, labels):
    with pytest.raises(ValueError, match=r"in \[0, 1\], got values from"):
        band_accuracy(channel_means, images + 1, labels)
    with pytest.raises(ValueError, match=r"bands in \[-100, 100\] or images in \[0, 1\], got"):
        accuracy(channel_means, images * 255 + 1, labels)


def test_accuracy_by_hand(channel_means, images, labels):
    assert accuracy(channel_means, images, labels) == 1
    assert accuracy(channel_means, images, (labels + 1) % 3) == 0
    some = labels.clone()
    some[:3] = (some[:3] + 1) % 3
    assert accuracy(channel_means, images, some, batch_size=5) == pytest.approx(9 / 12)


@pytest.mark.parametrize("feed", FEEDS)
def test_band_accuracy_equals_a_loop_over_images(network, feed):
    images = torch.rand(40, 3, 8, 8)
    labels = network(images).argmax(dim=1)
    weight, bias = (p.detach().double().numpy() for p in network[1].parameters())
    table = band_accuracy(network, images, labels, [1, 2.5, 4], feed=feed, colour=MEAN)
    assert table[["radius", "band"]].values.tolist() == [[r, b] for r in (1, 2.5, 4) for b in ("lfc", "hfc")]
    for row in table.itertuples():
        right = 0
        for image, label in zip(images.double().numpy(), labels, strict=True):
            spectrum = np.fft.fftshift(np.fft.fft2(image), axes=(1, 2))
            down, across = np.ogrid[-4:4, -4:4]
            keep = (np.hypot(down, across) < row.radius) == (row.band == "lfc")
            fed = np.fft.ifft2(np.fft.ifftshift(spectrum * keep, axes=(1, 2))).real
            if feed == "max":
                fed = fed / fed.max()
            if feed == "mean" and row.band == "hfc":
                fed = fed + np.array(MEAN)[:, None, None]
            right += int((weight @ fed.ravel() + bias).argmax() == label)
        assert row.accuracy == pytest.approx(right / 40, abs=1e-6)
        assert (row.feed, row.bn_stats, row.images) == (feed, "running", 40)
    assert table["accuracy"].nunique() > 2


@pytest.mark.parametrize("feed", FEEDS)
def test_at_radius_0_the_hfc_is_the_image_which_has_its_colour(network, feed):
    images = torch.rand(40, 3, 8, 8)
    images = images / images.amax(dim=(1, 2, 3), keepdim=True)  # "max" leaves them as they are
    labels = torch.where(torch.rand(40) < 0.7, network(images).argmax(dim=1), 0)
    high = band_accuracy(network, images, labels, [0], feed=feed).set_index("band").at["hfc", "accuracy"]
    assert high == accuracy(network, images, labels) > 0.5
    found = hfclib.misaligned(network, images, labels, 0, feed=feed)
    low = network(torch.zeros_like(images)).argmax(dim=1)
    assert torch.equal(found, (network(images).argmax(dim=1) == labels) & (low != labels))


def test_band_accuracy_passes_statistics_on(normed, images, labels):
    table = band_accuracy(normed, images, labels, [2], bn_stats="batch")
    lfc = split(images, 2)[0]
    assert table["accuracy"][0] == pytest.approx(accuracy(normed, lfc, labels, bn_stats="batch"))
    assert set(table["bn_stats"]) == {"batch"}


def test_band_accuracy_refuses(channel_means, images, labels):
    for options, error, message in [
        ({"radii": [-1]}, ValueError, "radius of at least 0"),
        ({"radii": ["4"]}, TypeError, "must be real number"),
        ({"feed": "min"}, ValueError, "expected feed"),
        ({"bn_stats": "test"}, ValueError, "expected bn_stats, one of running, batch, got 'test'"),
    ]:
        with pytest.raises(error, match=message):
            band_accuracy(channel_means, images, labels, **options)


def test_statistics_that_can_not_be_chosen_are_refused_before_images_are_read_for_their_colour(channel_means):
    class Unread:
        def __iter__(self):
            raise AssertionError("read")

    frozen = nn.Sequential(FrozenBatchNorm2d(3), channel_means)
    for network, bn_stats in ((channel_means, "test"), (frozen, "batch")):
        with pytest.raises(ValueError, match="expected bn_stats"):
            band_accuracy(network, Unread(), bn_stats=bn_stats)


def test_accuracies_are_exact():
    images, labels = torch.rand(60, 3, 4, 4), torch.arange(60) // 54

    def first(x):  # class 0 for every image and band
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    model = Classifier(first)
    assert accuracy(model, images, labels) == 54 / 60 >= 0.9
    assert band_accuracy(model, images, labels, 2)["accuracy"].tolist() == [0.9, 0.9]
    assert robust_accuracy(model, images, labels, lambda model, images, labels, **options: images) == 0.9


def test_the_mean_colour_may_be_given_or_estimated_for_any_number_of_channels(caplog):
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)), torch.rand(60, 1, 8, 8)
    network[1].weight.data.normal_()
    labels = network(images).argmax(dim=1)
    with pytest.raises(ValueError, match=r"expected colour, one number per channel \(1\), got 3"):
        band_accuracy(network, images, labels, 2, colour=MEAN)
    caplog.set_level("INFO")
    estimated = band_accuracy(network, images, labels, 2)
    assert "the mean colour of 60 images is" in caplog.text
    given = band_accuracy(network, images, labels, 2, colour=images.mean(dim=(0, 2, 3)).tolist())
    assert estimated.equals(given)
    assert not estimated.equals(band_accuracy(network, images, labels, 2, colour=[0.9]))
    white = torch.full_like(images, 1 + 1.2e-7)
    assert len(band_accuracy(network, white, network(white).argmax(dim=1), 2)) == 2
    with pytest.raises(ValueError, match=r"colour, numbers in \[0, 1\] as of pixels, got \[102"):
        band_accuracy(network, images, labels, 2, colour=[102.0])


@pytest.fixture
def dark_first():
    """Images that get brighter, with a network whose answer to an HFC hangs on the colour that it gets."""
    images = torch.rand(60, 3, 8, 8) * torch.linspace(0.05, 1, 60).view(60, 1, 1, 1)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    network[2].weight.data.copy_(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    network[2].bias.data.copy_(torch.tensor([0.0, 0.5]))
    return network, images, torch.zeros(60, dtype=torch.int64)


def test_the_mean_colour_is_that_of_all_images_in_any_order(dark_first):
    network, images, labels = dark_first
    expected = band_accuracy(network, images, labels, 2)
    assert expected["accuracy"][1] == 1  # the mean of all is bright enough for class 0, that of the first is not
    for order in (torch.arange(60), torch.arange(60).flip(0), torch.randperm(60)):
        loader = DataLoader(TensorDataset(images[order], labels), batch_size=7)
        assert band_accuracy(network, loader, radii=2).equals(expected)
    found = [hfclib.mean_colour(given) for given in (images, loader)]
    assert found[0] == pytest.approx(images.double().mean(dim=(0, 2, 3)).tolist(), abs=1e-6)
    assert found[1] == pytest.approx(found[0], abs=1e-6)
    with pytest.raises(ValueError, match=r"seem to be \(N, H, W, C\)"):
        hfclib.mean_colour(images.permute(0, 2, 3, 1))


def test_without_a_colour_data_must_be_the_same_twice(dark_first):
    network, images, labels = dark_first
    pairs = list(zip(images.split(20), labels.split(20), strict=True))
    for use in (lambda data: band_accuracy(network, data, radii=2), hfclib.mean_colour):
        with pytest.raises(ValueError, match=r"expected colour, or data that can be read .*got an iterator"):
            use(pair for pair in pairs)
    for feed in ("raw", "max"):  # to which no colour is added
        once = band_accuracy(network, (pair for pair in pairs), radii=2, feed=feed)
        assert once.equals(band_accuracy(network, images, labels, 2, feed=feed))

    class Shrinking:
        left = 3

        def __iter__(self):
            self.left -= 1
            return iter(pairs[: self.left + 1])

    with pytest.raises(ValueError, match="same images each time they are read, got 40 and then 20: give colour"):
        band_accuracy(network, Shrinking(), radii=2)
    for none, error in (([], ValueError), (images[:0], ValueError), ((images * 255).byte(), TypeError)):
        with pytest.raises(error, match=r"at least one image|float images"):
            hfclib.mean_colour(none)


# ---- what a run records


def parts(train, test):
    return {("train", Condition("x")): train, ("test", Condition("x")): test}


@pytest.mark.parametrize(("batch_norm", "count"), [(False, 2 + 56), (True, 4 + 76)])
def test_curve_rows(normed, channel_means, images, labels, batch_norm, count):
    network = normed if batch_norm else channel_means
    rows = curve_rows(
        network, parts((images[:7], labels[:7]), (images, labels)), (images, labels), range(1, 23), colour=MEAN
    )
    assert len(rows) == count
    assert all(set(row) == set(CURVE_COLUMNS) for row in rows)
    keys = [tuple(row[c] for c in CURVE_COLUMNS[:5]) for row in rows]
    assert len(set(keys)) == count
    assert {row["images"] for row in rows if row["split"] == "train"} == {7}
    assert {row["images"] for row in rows if row["split"] == "test"} == {12}
    assert {row["radius"] for row in rows if row["band"] == "x"} == {-1}
    assert [row["split"] for row in rows if row["band"] == "x"] == ["train"] * (1 + batch_norm) + ["test"] * (
        1 + batch_norm
    )
    assert all(row["split"] == "test" for row in rows if row["band"] != "x")


def test_curve_rows_measure_what_they_say(network):
    images = torch.rand(40, 3, 8, 8)
    labels = network(images).argmax(dim=1)
    whole = parts((images[:9], (labels[:9] + 1) % 4), (images, labels))
    rows = curve_rows(network, whole, (images, labels), [2, 4], colour=MEAN, exact=True)
    measured = {tuple(row[c] for c in CURVE_COLUMNS[:4]): row["accuracy"] for row in rows}
    assert measured["train", "x", -1, "raw"] == 0
    assert measured["test", "x", -1, "raw"] == 1
    for feed in FEEDS:
        hfc = accuracy(network, feed_images(split(images, 4)[1], feed, add_mean=True, colour=MEAN), labels, amp=True)
        assert measured["test", "hfc", 4, feed] == np.float32(hfc)
    assert measured["test", "lfc", 2, "raw"] == np.float32(accuracy(network, split(images, 2)[0], labels, amp=True))


def test_only_exact_rows_keep_whole_images_in_full_precision(in_bf16, channel_means, images, labels):
    fast = []

    def observe(model, given):
        if len(given[0]) > 2:  # so many are only a check
            fast.append(torch.is_autocast_enabled("cpu"))

    channel_means.register_forward_pre_hook(observe)
    for exact in (False, True):
        fast.clear()
        rows = curve_rows(
            channel_means, parts((images, labels), (images, labels)), (images, labels), [4], colour=MEAN, exact=exact
        )
        assert fast == [not exact] * 2 + [True] * (len(rows) - 2)


@pytest.mark.parametrize("normed", [False, True])
def test_training_bands_are_measured_with_each_kind_of_statistics_that_the_network_has(normed, in_float32):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), *([nn.BatchNorm2d(4)] if normed else []), nn.Flatten(), nn.Linear(144, 4)]
    model, images, labels = nn.Sequential(*layers).eval(), torch.rand(40, 3, 8, 8), torch.arange(40) % 4
    rows = training_band_rows(model, images, labels, radii=[2])
    expected = [(statistics, band) for statistics in ["running", "batch"][: 1 + normed] for band in ("lfc", "hfc")]
    assert [(row["bn_stats"], row["band"]) for row in rows] == expected
    for row, (statistics, band) in zip(rows, expected, strict=True):
        fed = split(images, 2)[band == "hfc"]
        assert row["accuracy"] == pytest.approx(accuracy(model, fed, labels, bn_stats=statistics))
        assert (row["split"], row["radius"], row["images"]) == ("train", 2, 40)
