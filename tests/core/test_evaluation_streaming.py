"""hfclib.evaluation on any iterable of batches: equal to tensors, one batch at a time, and what is refused."""

import warnings
from collections import UserDict

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hfclib
from hfclib import accuracy, band_accuracy, robust_accuracy
from hfclib.data import MEAN
from hfclib.evaluation import batch_sizes, whole_batches


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)).eval()


@pytest.fixture
def data(network):
    images = torch.rand(250, 3, 8, 8)
    return images, torch.where(torch.rand(250) < 0.7, network(images).argmax(dim=1), 0)


def test_batches_give_what_tensors_give(network, data):
    images, labels = data
    pairs = list(zip(images.split(100), labels.split(100), strict=True))
    ways = [
        lambda: pairs,
        lambda: DataLoader(TensorDataset(*data), batch_size=100),
        lambda: (pair for pair in pairs),
        lambda: [{"pixel_values": part, "labels": classes.tolist()} for part, classes in pairs],
        lambda: [{"image": part, "label": classes.numpy()} for part, classes in pairs],
        lambda: [UserDict(index=0, image=part, label=classes) for part, classes in pairs],
    ]
    for way in ways:
        for bn_stats in ("running", "batch"):
            expected = accuracy(network, images, labels, bn_stats=bn_stats)
            assert accuracy(network, way(), bn_stats=bn_stats) == expected
            table = band_accuracy(network, images, labels, [2, 3], bn_stats=bn_stats, colour=MEAN)
            assert band_accuracy(network, way(), radii=[2, 3], bn_stats=bn_stats, colour=MEAN).equals(table)
    assert 0.2 < expected < 1


def test_other_batch_sizes_give_the_same_with_running_statistics(network, data):
    loader = DataLoader(TensorDataset(*data), batch_size=7)
    assert accuracy(network, loader) == accuracy(network, *data)
    one, all_at_once = (
        band_accuracy(network, loader, radii=[2], colour=MEAN),
        band_accuracy(network, *data, [2], colour=MEAN),
    )
    assert one.equals(all_at_once)


def test_one_batch_is_in_memory_at_a_time(channel_means):
    alive = []

    def stream():
        for _ in range(5):
            images = torch.rand(4, 3, 8, 8)
            alive.append(images.untyped_storage()._weak_ref())
            yield images, torch.zeros(4, dtype=torch.int64)
            del images
            free = [torch.UntypedStorage._expired(reference) for reference in alive[:-1]]
            assert all(free)

    assert len(band_accuracy(channel_means, stream(), radii=[2], colour=[0.5] * 3)) == 2
    assert len(alive) == 5
    for reference in alive:
        torch.UntypedStorage._free_weak_ref(reference)


def test_radii_are_bins_of_any_type_and_may_be_one(network, data):
    images, labels = data
    table = band_accuracy(network, images, labels, [1, 3])
    assert band_accuracy(network, images, labels, 3)["accuracy"].tolist() == table["accuracy"].tolist()[2:]
    column = pd.Series([1, np.nan, 3]).dropna()
    for radii in ([1.0, 3.0], column, column.to_numpy()):
        pd.testing.assert_frame_equal(band_accuracy(network, images, labels, radii), table, check_dtype=False)
    converted = band_accuracy(network, images, labels, hfclib.nyquist(0.75, images))
    assert converted["accuracy"].tolist() == table["accuracy"].tolist()[2:]
    with pytest.raises(ValueError, match=r"in DFT bins, 0 or at least 1, got 0\.75"):
        band_accuracy(network, images, labels, [0.75])


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


def test_labels_may_be_a_list_or_an_array(network, data):
    images, labels = data
    for given in (labels.tolist(), labels.numpy(), labels.numpy().astype(np.uint8), labels.to(torch.int16)):
        assert accuracy(network, images, given) == accuracy(network, images, labels)


def test_what_is_refused_before_the_work(network):
    asked = []
    network.register_forward_pre_hook(lambda module, images: asked.append(len(images[0])))
    images, labels = torch.rand(12, 3, 8, 8), torch.zeros(12, dtype=torch.int64)
    holed = images.clone()
    holed[3, 0, 0, 0] = torch.nan
    for given, classes, error, message in [
        (images, labels[:, None], ValueError, r"one label per image, got labels \(12, 1\) for 12 images"),
        (images, nn.functional.one_hot(labels, 4), ValueError, r"got labels \(12, 4\)"),
        (images, labels[:11], ValueError, r"got labels \(11,\) for 12 images"),
        (images, labels[:1], ValueError, r"got labels \(1,\) for 12 images"),  # which would broadcast
        (images, labels.float(), TypeError, "whole numbers, got torch.float32"),
        (images, labels - 1, ValueError, "at least 0, got -1"),
        (images, labels + 4, ValueError, r"labels below 4, the number of logits, got 4"),
        (images * 255, labels, ValueError, r"images in \[0, 1\], got values from"),
        (holed, labels, ValueError, "got values from nan to nan"),
        (images.movedim(1, -1), labels, ValueError, r"which seem to be \(N, H, W, C\)"),
        ((images * 255).to(torch.uint8), labels, TypeError, "float images"),
        (images[:0], labels[:0], ValueError, "at least one image"),
        (images[0], labels, ValueError, r"\(N, C, H, W\)"),
    ]:
        for measure in (accuracy, band_accuracy):
            with pytest.raises(error, match=message):
                measure(network, given, classes)
            with pytest.raises(error, match=message):
                measure(network, [(given, classes)])
    with pytest.raises(ValueError, match=r"images in \[0, 1\], got values from -1.9"):
        band_accuracy(network, images * 4 - 2, labels)
    assert sum(asked) <= 8  # two images show how many classes there are
    for measure in (accuracy, band_accuracy):
        with pytest.raises(ValueError, match="at least one image, got none"):
            measure(network, [])
        with pytest.raises((ValueError, TypeError)):
            measure(network, images)


def test_the_statistics_of_a_batch_are_those_of_100_images_in_any_loader(network, data):
    for size in (30, 101, 150):
        loader = DataLoader(TensorDataset(*data), batch_size=size)
        assert accuracy(network, loader, bn_stats="batch") == accuracy(network, *data, bn_stats="batch")
        found, expected = (
            band_accuracy(network, *given, radii=[2], bn_stats="batch", colour=MEAN) for given in ((loader,), data)
        )
        assert found.equals(expected)


def test_empty_batches_and_radii_of_numpy(network, data):
    images, labels = data
    pairs = [(images[:9], labels[:9]), (images[:0], labels[:0])]
    assert accuracy(network, pairs) == accuracy(network, images[:9], labels[:9])
    for radii in (np.int64(2), np.array([2]), np.array([2.5], np.float32), torch.tensor([2.5])):
        table = band_accuracy(network, images, labels, radii)
        assert table.equals(band_accuracy(network, images, labels, np.asarray(radii).item()))


def test_logits_can_be_computed_with(network, data):
    found = hfclib.logits(network, data[0][:5])
    scale = torch.ones((), requires_grad=True)
    found += 1
    nn.functional.cross_entropy(found * scale, data[1][:5]).backward()
    assert scale.grad.isfinite()
    with pytest.raises(ValueError, match="batches of 2 images or more"):
        hfclib.logits(network, data[0], bn_stats="batch", batch_size=1)


def test_other_keys_are_named(network, data):
    with pytest.raises(ValueError, match="keys image or images or pixel_values and label or labels, got img, label"):
        accuracy(network, [{"img": data[0], "label": data[1]}])


class Viewing(nn.Module):
    """A network of its own kind: contiguous maps only, and made at its first pass."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.LazyLinear(4)

    def forward(self, images):
        return self.linear(self.conv(images).view(len(images), -1))


def test_a_network_may_flatten_by_view_and_can_be_trained_afterwards(data):
    network = Viewing()
    scores = hfclib.logits(network, data[0])
    torch.testing.assert_close(scores, network(data[0]))
    nn.functional.cross_entropy(network(data[0]), data[1]).backward()
    assert hfclib.pgd(network, data[0][:2], data[1][:2], steps=1).shape == (2, 3, 8, 8)


def test_frozen_networks_are_measured_and_exported_ones_as_functions(network, data):
    examples = (data[0][:2],)
    exported = torch.export.export(network, examples, dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of PyTorch, about its own compiler
        frozen = torch.jit.freeze(torch.jit.trace(network, examples))
    for other in (frozen, hfclib.Classifier(lambda images: exported(images))):
        assert accuracy(other, *data) == pytest.approx(accuracy(network, *data), abs=0.01)
    with pytest.raises(ValueError, match="got an exported program: give"):
        accuracy(exported, *data)
    with pytest.raises(ValueError, match="TorchScript model, whose BatchNorm can't be switched"):
        accuracy(frozen, *data, bn_stats="batch")


def test_a_last_image_alone_joins_the_batch_before_it(network, data):
    for count, sizes in {0: [], 1: [1], 99: [99], 100: [100], 101: [101], 102: [100, 2], 201: [100, 101]}.items():
        assert batch_sizes(count, 100) == sizes
    images, labels = (tensor[:101] for tensor in data)
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for size in (1, 50, 100):
        seen.clear()
        loader = DataLoader(TensorDataset(images, labels), batch_size=size)
        assert accuracy(network, loader, bn_stats="batch") == accuracy(network, images, labels, bn_stats="batch")
        assert set(seen) == {2, 101}  # the first two images are looked at first
    for count in (2, 100, 201, 250):
        stream = whole_batches(((images[:1], labels[:1]) for _ in range(count)), 100)
        assert [len(part) for part, _ in stream] == batch_sizes(count, 100)
    with pytest.raises(ValueError, match="batches of 2 images or more"):
        accuracy(network, images[:1], labels[:1], bn_stats="batch")


def test_batchnorm_without_running_averages_is_evaluated_in_batches_of_100(network, data):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    images, labels = (tensor[:120] for tensor in data)
    loader = DataLoader(TensorDataset(images, labels), batch_size=7)
    assert accuracy(network, loader) == accuracy(network, images, labels)
    with pytest.raises(ValueError, match="do not depend on the batch"):
        robust_accuracy(network, images, labels)


def test_logits_of_another_shape_are_named(data):
    with pytest.raises(ValueError, match=r"logits \(N, classes\) from the model, got \(2, 3, 8, 8\)"):
        accuracy(nn.Identity(), torch.rand(4, 3, 8, 8), data[1][:4])
    sigmoid = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    with pytest.raises(ValueError, match=r"from the model, got \(2, 1\) for 2 images; classes are 2 or more"):
        accuracy(sigmoid, torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))


def test_images_may_exceed_1_by_rounding(network, data):
    images, labels = data[0].clone(), data[1]
    images[0] = 1 + 1.2e-7
    band_accuracy(network, images, labels, 2)
    images[0] = 1.01
    with pytest.raises(ValueError, match=r"to 1\.01"):
        band_accuracy(network, images, labels, 2)
