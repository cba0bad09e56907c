"""hfclib.evaluation: BatchNorm's statistics at test, and accuracies by hand."""

import threading
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from hfclib import Classifier, accuracy, band_accuracy, logits, pgd, robust_accuracy, split
from hfclib._files import data_folder, load_tensors
from hfclib.data.cifar import MEAN
from hfclib.evaluation import (
    BN_STATS,
    CURVE_COLUMNS,
    Part,
    curve_rows,
    uses_batch_statistics,
)
from hfclib.transforms import FEEDS, feed_images


@pytest.fixture
def network():
    """A linear network on 8x8 images, whose answers on every band differ from those on the images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


@pytest.fixture
def normed(channel_means):
    """BatchNorm with averages far from those of the images, then the channel means."""
    norm = nn.BatchNorm2d(3)
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.5, 2)
    return nn.Sequential(norm, channel_means)


class WithoutEvaluation(nn.Module):
    def train(self, mode=True):
        raise NotImplementedError("as an exported program does")


def test_modes_are_as_before_where_one_part_has_no_evaluation_mode(images):
    network = nn.Sequential(nn.Dropout(), WithoutEvaluation())
    with pytest.raises(ValueError, match="got an exported program"):
        logits(network, images)
    assert [module.training for module in network.modules()] == [True] * 3


def test_a_network_that_changes_its_input_leaves_the_callers_images_alone(channel_means, images, labels):
    class InPlace(nn.Module):
        def forward(self, images):
            return channel_means(images.sub_(0.5).mul_(2))

    found, before = InPlace(), images.clone()
    for _ in range(2):
        assert accuracy(found, images, labels) == 1
    options = {"colour": [0.2, 0.5, 0.7], "feed": "mean"}
    expected = band_accuracy(channel_means, images, labels, [1, 2, 3], **options)
    assert band_accuracy(found, images, labels, [1, 2, 3], **options).equals(expected)
    attack = partial(pgd, eps=0.02, alpha=0.01, steps=3, random_start=False)
    expected = robust_accuracy(channel_means, images, labels, attack)
    assert robust_accuracy(found, images, labels, attack) == expected
    assert torch.equal(images, before)


def test_a_callable_may_return_the_same_memory_each_time(channel_means, images, labels):
    class OneBuffer(nn.Module):
        buffer = torch.empty(5, 3)

        def forward(self, images):
            return self.buffer[: len(images)].copy_(channel_means(images))

    assert accuracy(OneBuffer(), images, labels, batch_size=5) == 1


def test_a_layer_that_merges_its_weights_for_evaluation_is_taken_back_to_training(images):
    class Merging(nn.Linear):
        merged = False

        def train(self, mode=True):
            self.merged = not mode
            return super().train(mode)

    network = nn.Sequential(nn.Flatten(), Merging(192, 4), nn.Sequential(Merging(4, 4), nn.Dropout()))
    network[2][1].eval()
    network[2].training = False  # alone, as a frozen part may be
    for count in (1, 2):
        logits(network, images)
        modes = [module.training for module in network.modules()]
        assert modes == [True, True, True, False, True, False], count
        assert not network[1].merged
        assert not network[2][0].merged


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


def test_pixels_beyond_the_limit_are_refused_with_the_limit(channel_means, images, labels):
    with pytest.raises(ValueError, match=r"in \[0, 1\], got values from"):
        band_accuracy(channel_means, images + 1, labels)
    with pytest.raises(ValueError, match=r"bands in \[-100, 100\] or images in \[0, 1\], got"):
        accuracy(channel_means, images * 255 + 1, labels)


# ---- statistics and modes


def test_batch_statistics_are_those_of_each_hundred_images(normed):
    images = torch.randn(250, 3, 8, 8)
    norm = normed[0]
    expected = []
    for start in (0, 100, 200):
        batch = images[start : start + 100].double()
        mean = batch.mean(dim=(0, 2, 3), keepdim=True)
        var = ((batch - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        scale, shift = (x.detach().double().view(1, 3, 1, 1) for x in (norm.weight, norm.bias))
        expected.append(((batch - mean) / (var + norm.eps).sqrt() * scale + shift).mean(dim=(2, 3)))
    torch.testing.assert_close(
        logits(normed, images, bn_stats="batch").double(), torch.cat(expected), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_averages_are_as_before(normed, images, fails):
    for bn_stats in BN_STATS:

        class Failing(nn.Module):
            def forward(self, x):
                assert not self.training
                raise ArithmeticError("on purpose")

        network = nn.Sequential(normed, nn.Dropout(0.5), Failing() if fails else nn.Identity()).train()
        network[1].eval()  # a part that its owner froze
        modes = [module.training for module in network.modules()]
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with pytest.raises(ArithmeticError) if fails else nullcontext():
            logits(network, images, bn_stats=bn_stats)
        assert [module.training for module in network.modules()] == modes
        assert network.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
        assert isinstance(normed[0].running_mean, torch.Tensor)


def test_statistics_of_the_batch_leave_other_threads_alone(normed, images):
    """While one thread measures with the statistics of the batch, another gets the logits of the running averages."""
    expected, found = logits(normed, images), []
    inside, done = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def forward(self, maps):
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                assert done.wait(60)
            return maps

    network = nn.Sequential(normed[0], Waiting(), normed[1]).eval()
    other = threading.Thread(target=lambda: found.append(logits(network, images, bn_stats="batch")))
    other.start()
    assert inside.wait(60)
    torch.testing.assert_close(logits(network, images), expected)
    assert network[0].running_mean is not None
    done.set()
    other.join()
    torch.testing.assert_close(found[0], logits(normed, images, bn_stats="batch"))
    assert not torch.allclose(found[0], expected, atol=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about its own compiler
def test_statistics_of_the_batch_reach_a_compiled_network(normed, images):
    compiled = torch.compile(normed, backend="eager")
    for bn_stats in ("running", "batch", "running"):
        torch.testing.assert_close(
            logits(compiled, images, bn_stats=bn_stats), logits(normed, images, bn_stats=bn_stats)
        )


def test_statistics_that_can_not_be_chosen_are_refused(normed, images, labels):
    frozen = nn.Sequential(FrozenBatchNorm2d(3), normed[1])
    both = nn.Sequential(normed[0], *frozen)
    for network in (frozen, both):
        assert not uses_batch_statistics(network)
        assert accuracy(network, images, labels) >= 0
        with pytest.raises(ValueError, match=r'bn_stats "running", got "batch" with a FrozenBatchNorm2d, which'):
            accuracy(network, images, labels, bn_stats="batch")
    split_up = nn.DataParallel(normed)
    split_up.device_ids = [0, 1]
    with pytest.raises(ValueError, match="DataParallel, which cuts batches up: give its module"):
        logits(split_up, images, bn_stats="batch")


def test_who_uses_batch_statistics(normed, network):
    assert uses_batch_statistics(normed)
    assert uses_batch_statistics(nn.BatchNorm1d(2))
    assert not uses_batch_statistics(network)
    assert not uses_batch_statistics(nn.GroupNorm(1, 3))


# ---- logits and accuracy


def test_logits_do_not_depend_on_the_batch_size(normed, images):
    for batch_size in [1, 5, 12, 100]:
        torch.testing.assert_close(logits(normed, images, batch_size=batch_size), normed.eval()(images).detach())


def test_logits_of_double_images_are_float32(channel_means, images):
    assert logits(channel_means, images.double()).dtype == torch.float32


def test_bad_images(channel_means):
    for images, options, error, message in [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {}, TypeError, "float images"),
        (torch.rand(3, 8, 8), {}, ValueError, r"\(N, C, H, W\)"),
        (torch.rand(0, 3, 8, 8), {}, ValueError, "at least one image"),
        (torch.rand(2, 3, 8, 8), {"batch_size": 0}, ValueError, "batch_size, .* at least 1"),
    ]:
        with pytest.raises(error, match=message):
            logits(channel_means, images, **options)


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


def test_bfloat16_changes_published_accuracies_as_little_as_the_docstring_of_logits_says(cifar):
    labels, changes = cifar["test"][1], []
    for path in (data_folder() / "float32").glob("*.safetensors"):
        exact, rounded = (load_tensors(data_folder() / kind / path.name)[0] for kind in ("float32", "predictions"))
        for condition in exact.keys() & rounded.keys():
            right = [(answers[condition] == labels).double().mean() for answers in (exact, rounded)]
            changes.append(abs(right[0] - right[1]).item())
    assert len(changes) == 30
    assert max(changes) == pytest.approx(0.0012)
    assert "by up to .0012; the most that we met is .0052" in logits.__doc__


# ---- what a run records


def parts(train, test):
    return [Part("train", *train), Part("test", *test)]


@pytest.mark.parametrize(("batch_norm", "count"), [(False, 2 + 56), (True, 4 + 76)])
def test_curve_rows(normed, channel_means, images, labels, batch_norm, count):
    network = normed if batch_norm else channel_means
    rows = curve_rows(network, parts((images[:7], labels[:7]), (images, labels)), (images, labels), range(1, 23))
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
    rows = curve_rows(network, whole, (images, labels), [2, 4], exact=True)
    measured = {tuple(row[c] for c in CURVE_COLUMNS[:4]): row["accuracy"] for row in rows}
    assert measured["train", "x", -1, "raw"] == 0
    assert measured["test", "x", -1, "raw"] == 1
    for feed in FEEDS:
        hfc = accuracy(network, feed_images(split(images, 4)[1], feed, add_mean=True, colour=MEAN), labels, amp=True)
        assert measured["test", "hfc", 4, feed] == np.float32(hfc)
    assert measured["test", "lfc", 2, "raw"] == np.float32(accuracy(network, split(images, 2)[0], labels, amp=True))


def test_only_exact_rows_keep_whole_images_in_full_precision(monkeypatch, channel_means, images, labels):
    used = []
    monkeypatch.setattr("torch.autocast", lambda device, *_, **how: used.append(device) or nullcontext())
    counts = []
    for exact in (False, True):
        curve_rows(channel_means, parts((images, labels), (images, labels)), (images, labels), [4], exact=exact)
        counts.append(len(used))
        used.clear()
    assert counts[0] == counts[1] + 2


def test_accuracies_are_exact():
    images, labels = torch.rand(60, 3, 4, 4), torch.arange(60) // 54

    def first(x):  # class 0 for every image and band
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    model = Classifier(first)
    assert accuracy(model, images, labels) == 54 / 60 >= 0.9
    assert band_accuracy(model, images, labels, 2)["accuracy"].tolist() == [0.9, 0.9]
    assert robust_accuracy(model, images, labels, lambda model, images, labels, **options: images) == 0.9


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
