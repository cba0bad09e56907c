"""`hfclib.misaligned` against a loop over images in NumPy, on networks whose predictions can be worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from hfclib import logits, split
from hfclib.conditions import BANDS, BN_STATS
from hfclib.data.cifar import MEAN
from hfclib.metrics import misaligned
from hfclib.transforms import FEEDS

COUNT, BATCH = 60, 25  # the last batch is a smaller one
pytestmark = pytest.mark.usefixtures("in_float32")  # bfloat16 would round differently in another batch


@pytest.fixture
def images():
    return torch.rand(COUNT, 3, 8, 8)


def linear():
    """A linear network that depends little on the brightness, so that it differs on every part of an image."""
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


@pytest.fixture
def model():
    return normed()


@pytest.fixture
def labels(model, images):
    """Three of four are the predictions for the images, with running averages, the others those for their HFC."""
    on_images, on_hfc = (logits(model, seen).argmax(dim=1) for seen in (images, split(images, 2.5)[1]))
    return torch.where(torch.rand(COUNT) < 0.75, on_images, on_hfc)


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


def predictions_by_hand(model, stack, bn_stats, batch):
    """The predictions for images (3, 8, 8), one after the other; statistics are those of each batch's images."""
    norm = model[0] if isinstance(model[0], nn.BatchNorm2d) else None
    weight = model[-1].weight.detach().double().numpy()
    predictions = []
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
        predictions.append(int((weight @ image.ravel()).argmax()))
    return predictions


def by_hand(model, images, labels, radius, cut, feed, bn_stats, batch=BATCH):
    """Image by image: correct, correct by the high part alone, wrong by the low part alone."""
    whole = list(images.double().numpy())
    halves = [(fourier_by_hand if cut == "fourier" else svd_by_hand)(image, radius) for image in whole]
    lows, highs = ([fed_by_hand(pair[side], feed, side == 1) for pair in halves] for side in (0, 1))
    on_x, on_low, on_high = (predictions_by_hand(model, stack, bn_stats, batch) for stack in (whole, lows, highs))
    by_image = []
    for label, x, low, high in zip(labels.tolist(), on_x, on_low, on_high, strict=True):
        by_image.append(x == label and high == label and low != label)
    return by_image


@pytest.mark.parametrize("cut", BANDS)
def test_misaligned_equals_a_loop_over_images(model, images, labels, cut):
    for feed in FEEDS:
        for bn_stats in BN_STATS:
            total = 0
            for radius in (1, 2.5, 4):
                expected = by_hand(model, images, labels, radius, cut, feed, bn_stats)
                options = {"cut": cut, "feed": feed, "bn_stats": bn_stats, "batch_size": BATCH, "colour": MEAN}
                found = misaligned(model, images, labels, radius, **options)
                assert found.dtype == torch.bool
                assert found.tolist() == expected, (feed, bn_stats, radius)
                total += sum(expected)
            assert 0 < total < 3 * COUNT


def test_without_a_colour_the_mean_is_that_of_the_images(model, images, labels):
    own = images.mean(dim=(0, 2, 3)).tolist()
    chosen = misaligned(model, images / 2, labels, 2, feed="mean")
    assert torch.equal(chosen, misaligned(model, images / 2, labels, 2, feed="mean", colour=[mean / 2 for mean in own]))
    high = split(images / 2, 2)[1] + torch.tensor(own).view(3, 1, 1) / 2
    by_high = logits(model, high).argmax(dim=1) == labels
    assert not (chosen & ~by_high).any()


def test_the_radius_is_in_bins_whatever_its_type(model, images, labels):
    assert torch.equal(misaligned(model, images, labels, 1.0), misaligned(model, images, labels, 1))
    with pytest.raises(ValueError, match=r"expected one radius, got \[1, 2\]"):
        misaligned(model, images, labels, [1, 2])
    with pytest.raises(ValueError, match=r"in DFT bins, 0 or at least 1, got 0\.5"):
        misaligned(model, images, labels, 0.5)


def test_the_batch_matters_with_batch_statistics_only_and_is_one_hundred():
    images, model = torch.rand(130, 3, 8, 8), normed()
    labels = logits(model, images).argmax(dim=1)
    for bn_stats, alike in (("running", True), ("batch", False)):
        found = [misaligned(model, images, labels, 2.5, bn_stats=bn_stats, batch_size=size) for size in (7, 60)]
        assert torch.equal(*found) == alike
    labels = logits(model, images, bn_stats="batch").argmax(dim=1)
    expected = by_hand(model, images, labels, 2.5, "fourier", "raw", "batch", batch=100)
    assert misaligned(model, images, labels, 2.5, bn_stats="batch").tolist() == expected
    assert sum(expected)


def test_the_extremes_of_the_radius(model, images, labels):
    on_nothing = logits(model, torch.zeros_like(images)).argmax(dim=1)
    correct = logits(model, images).argmax(dim=1) == labels
    assert torch.equal(misaligned(model, images, labels, 0), correct & (on_nothing != labels))
    assert not misaligned(model, images, labels, 6).any()  # nothing is left in the HFC
    assert torch.equal(*(misaligned(model, images, labels, radius) for radius in (2, 1.9)))  # strict


def test_refusals(images):
    labels = torch.zeros(COUNT, dtype=torch.int64)
    for change, error, message in (
        ({"images": torch.zeros(COUNT, 3, 8, 8, dtype=torch.uint8)}, TypeError, "float images"),
        ({"images": torch.rand(3, 8, 8)}, ValueError, r"\(N, C, H, W\)"),
        ({"images": [[0.5]]}, TypeError, "a float tensor"),
        ({"images": images[:0], "labels": labels[:0]}, ValueError, "at least one image"),
        ({"labels": labels[1:]}, ValueError, r"got labels \(59,\) for 60 images"),
        ({"labels": labels[:, None]}, ValueError, r"got labels \(60, 1\) for 60 images"),
        ({"radius": -1}, ValueError, "at least 0"),
        ({"radius": float("inf")}, ValueError, "finite radius"),
        ({"radius": "12"}, TypeError, "must be real number"),
        ({"cut": "wavelet"}, ValueError, "expected cut, one of fourier, svd, got 'wavelet'"),
        ({"feed": "min"}, ValueError, "expected feed"),
        ({"bn_stats": "none"}, ValueError, "expected bn_stats"),
    ):
        with pytest.raises(error, match=message):
            misaligned(linear(), **({"images": images, "labels": labels, "radius": 4} | change))


def test_images_beyond_the_range_and_labels_beyond_the_classes_are_refused(channel_means, images, labels):
    with pytest.raises(ValueError, match=r"images in \[0, 1\]"):
        misaligned(channel_means, images * 5 - 2, labels, 2)
    with pytest.raises(ValueError, match="the number of logits"):
        misaligned(channel_means, images, labels + 99, 2)
