"""hfclib.batching: logits, any iterable of batches, one batch at a time, and what is refused."""

import warnings
from collections import UserDict
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hfclib
from hfclib import Classifier, accuracy, band_accuracy, logits, pgd, robust_accuracy, split
from hfclib._files import data_folder, load_tensors
from hfclib.batching import batch_sizes, whole_batches
from hfclib.data.cifar import MEAN


def test_a_network_that_changes_its_input_leaves_the_callers_images_alone(channel_means, images, labels):
    class InPlace(nn.Module):
        def forward(self, images):
            return channel_means(images.sub_(0.5).mul_(2))

    in_place, before = InPlace(), images.clone()
    for _ in range(2):
        assert accuracy(in_place, images, labels) == 1
    options = {"colour": [0.2, 0.5, 0.7], "feed": "mean"}
    expected = band_accuracy(channel_means, images, labels, [1, 2, 3], **options)
    assert band_accuracy(in_place, images, labels, [1, 2, 3], **options).equals(expected)
    attack = partial(pgd, eps=0.02, alpha=0.01, steps=3, random_start=False)
    expected = robust_accuracy(channel_means, images, labels, attack)
    assert robust_accuracy(in_place, images, labels, attack) == expected
    assert torch.equal(images, before)


def test_a_callable_may_return_the_same_memory_each_time(channel_means, images, labels):
    class OneBuffer(nn.Module):
        buffer = torch.empty(5, 3)

        def forward(self, images):
            return self.buffer[: len(images)].copy_(channel_means(images))

    assert accuracy(OneBuffer(), images, labels, batch_size=5) == 1


def test_what_is_no_tensor_of_logits_is_named_before_the_work(channel_means, images, labels):
    class Pair(nn.Module):
        def forward(self, images):
            return channel_means(images), images

    for measure in (accuracy, robust_accuracy):
        with pytest.raises(TypeError, match=r"got tuple: hfclib\.Classifier finds them in it"):
            measure(Pair(), images, labels)
    with pytest.raises(TypeError, match="got tuple"):
        pgd(Pair(), images, labels)
    assert accuracy(Classifier(Pair()), images, labels) == 1


def test_another_number_of_logits_than_images_is_refused(images, labels):
    class Mean(nn.Module):
        def forward(self, images):
            return images.mean(dim=(0, 2, 3), keepdim=True)[..., 0, 0]

    with pytest.raises(ValueError, match=r"got \(1, 3\) for 2 images"):
        accuracy(Mean(), images, labels)


def test_logits_do_not_depend_on_the_batch_size(normed, images):
    for batch_size in [1, 5, 12, 100]:
        torch.testing.assert_close(logits(normed, images, batch_size=batch_size), normed.eval()(images).detach())


def test_logits_keep_double_precision(channel_means, images):
    assert logits(channel_means, images).dtype == torch.float32
    assert logits(channel_means, images.double()).dtype == torch.float64
    exact = hfclib.Classifier(lambda x: channel_means(x).double() + 1e8)
    assert torch.equal(logits(exact, images), channel_means(images).double() + 1e8)


def test_bad_images(channel_means):
    for images, options, error, message in [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {}, TypeError, "float images"),
        (torch.rand(3, 8, 8), {}, ValueError, r"\(N, C, H, W\)"),
        (torch.rand(0, 3, 8, 8), {}, ValueError, "at least one image"),
        (torch.rand(2, 3, 8, 8), {"batch_size": 0}, ValueError, "batch_size, .* at least 1"),
    ]:
        with pytest.raises(error, match=message):
            logits(channel_means, images, **options)


def test_bfloat16_changes_published_accuracies_as_little_as_the_docstring_of_logits_says(cifar):
    labels, changes = cifar["test"][1], []
    for path in (data_folder() / "float32").glob("*.safetensors"):
        exact, rounded = (load_tensors(data_folder() / kind / path.name)[0] for kind in ("float32", "predictions"))
        for condition in exact.keys() & rounded.keys():
            right = [(answers[condition] == labels).double().mean() for answers in (exact, rounded)]
            changes.append(abs(right[0] - right[1]).item())
    assert len(changes) == 70
    assert max(changes) == pytest.approx(0.0013)
    assert "by up to .0013; the most that we met is .0052" in logits.__doc__


@pytest.mark.parametrize("loader", [False, True])
def test_the_statistics_of_images_warn_of_a_wrong_scale(channel_means, images, labels, loader):
    def given(some):
        return ([(some, labels)],) if loader else (some, labels)

    with pytest.warns(UserWarning, match=r"values from .* to 0.00\d+; they seem to be divided by 255 twice"):
        accuracy(channel_means, *given(images / 255))
    with pytest.warns(UserWarning, match="seem to be divided by 255 twice"):
        band_accuracy(channel_means, *given(images / 255), radii=2)
    for mean, std in ((0.45, 0.225), (0.5, 0.5)):
        with pytest.warns(UserWarning, match="they seem to be normalised: give hfclib.Classifier the mean and std"):
            accuracy(channel_means, *given((images - mean) / std))
    accuracy(channel_means, *given(torch.zeros_like(images)))  # and warnings are errors here
    for band in split(images, 1):
        accuracy(channel_means, *given(band))


def test_what_a_model_can_not_be_fed_is_one_line(images, labels):
    def plain(x):
        return x.mean(dim=(2, 3))

    for measure in (accuracy, partial(band_accuracy, radii=2), robust_accuracy):
        for given in ((images, labels), ([(images, labels)],)):
            with pytest.raises(TypeError, match=r"got function: hfclib.Classifier\(model\) makes one of any callable"):
                measure(plain, *given)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10)).eval()
    network(images)
    size = tuple(images.shape[2:])
    for given, told in (
        (images[:, :1], rf"\(2, 1, {size[0]}, {size[1]}\), torch.float32: .* to have 3 channels, but got 1 channels"),
        (images.half(), "torch.float16"),
        (images.double(), "torch.float64"),
    ):
        with pytest.raises(ValueError, match=f"the model fails on images .*{told}") as caught:
            accuracy(network, given, labels)
        assert "\n" not in str(caught.value)


def test_what_is_no_batch_is_one_line(channel_means, images):
    with_index = [(images, torch.arange(len(images)), torch.zeros(len(images), dtype=torch.int64))]
    wrong = ("folder", "text"), (images, "Tensor"), ([1, 2], "int"), ([(images,)], "tuple"), (with_index, "3 values")
    for given, kind in wrong:
        with pytest.raises(TypeError, match=f"images and labels, or batches of both, got {kind} in place of a batch"):
            accuracy(channel_means, given)


# ---- iterables of batches


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
    in_sevens, all_at_once = (
        band_accuracy(network, loader, radii=[2], colour=MEAN),
        band_accuracy(network, *data, [2], colour=MEAN),
    )
    assert in_sevens.equals(all_at_once)


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
        measured, expected = (
            band_accuracy(network, *given, radii=[2], bn_stats="batch", colour=MEAN) for given in ((loader,), data)
        )
        assert measured.equals(expected)


def test_empty_batches_and_radii_of_numpy(network, data):
    images, labels = data
    pairs = [(images[:9], labels[:9]), (images[:0], labels[:0])]
    assert accuracy(network, pairs) == accuracy(network, images[:9], labels[:9])
    for radii in (np.int64(2), np.array([2]), np.array([2.5], np.float32), torch.tensor([2.5])):
        table = band_accuracy(network, images, labels, radii)
        assert table.equals(band_accuracy(network, images, labels, np.asarray(radii).item()))


def test_logits_can_be_computed_with(network, data):
    answers = hfclib.logits(network, data[0][:5])
    scale = torch.ones((), requires_grad=True)
    answers += 1
    nn.functional.cross_entropy(answers * scale, data[1][:5]).backward()
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
