"""hfclib.conditions: BatchNorm's statistics at test, and modes that are restored."""

import threading
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from hfclib import accuracy, logits
from hfclib.conditions import BN_STATS, Condition, iter_inputs, uses_batch_statistics


class WithoutEvaluation(nn.Module):
    def train(self, mode=True):
        raise NotImplementedError("as an exported program does")


def test_modes_are_as_before_where_one_part_has_no_evaluation_mode(images):
    network = nn.Sequential(nn.Dropout(), WithoutEvaluation())
    with pytest.raises(ValueError, match="got an exported program"):
        logits(network, images)
    assert [module.training for module in network.modules()] == [True] * 3


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
    """While one thread measures with test-batch statistics, another gets the logits of the running averages."""
    expected, measured = logits(normed, images), []
    inside, done = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def forward(self, maps):
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                assert done.wait(60)
            return maps

    network = nn.Sequential(normed[0], Waiting(), normed[1]).eval()
    other = threading.Thread(target=lambda: measured.append(logits(network, images, bn_stats="batch")))
    other.start()
    assert inside.wait(60)
    torch.testing.assert_close(logits(network, images), expected)
    assert network[0].running_mean is not None
    done.set()
    other.join()
    torch.testing.assert_close(measured[0], logits(normed, images, bn_stats="batch"))
    assert not torch.allclose(measured[0], expected, atol=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about its own compiler
def test_statistics_of_the_batch_reach_a_compiled_network(normed, images):
    compiled = torch.compile(normed, backend="eager")
    for bn_stats in ("running", "batch", "running"):
        torch.testing.assert_close(
            logits(compiled, images, bn_stats=bn_stats), logits(normed, images, bn_stats=bn_stats)
        )


class DirectNorm(nn.BatchNorm2d):
    """By another function than PyTorch's own layer."""

    def forward(self, maps):
        arguments = self.weight, self.bias, self.running_mean, self.running_var, False, 0.1, self.eps, False
        return torch.batch_norm(maps, *arguments)


class OwnNorm(nn.Module):
    """No BatchNorm of PyTorch's, but with averages as it has."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3, 1, 1))

    def forward(self, maps):
        return maps - self.running_mean


class NamedNorm(nn.BatchNorm2d):
    """With a forward of its own, and arguments by name."""

    def forward(self, maps):
        return F.batch_norm(maps, running_var=self.running_var, running_mean=self.running_mean)


def test_a_batch_norm_with_a_forward_of_its_own_has_its_statistics_chosen(images):
    expected = F.batch_norm(images, None, None, training=True)
    torch.testing.assert_close(
        logits(nn.Sequential(NamedNorm(3), nn.Flatten()), images, bn_stats="batch"), expected.flatten(1)
    )


def test_statistics_that_can_not_be_chosen_are_refused(normed, images, labels):
    frozen = nn.Sequential(FrozenBatchNorm2d(3), normed[1])
    both = nn.Sequential(normed[0], *frozen)
    for network in (frozen, both):
        assert not uses_batch_statistics(network)
        assert accuracy(network, images, labels) >= 0
        with pytest.raises(ValueError, match=r'bn_stats "running", got "batch" with a FrozenBatchNorm2d, which'):
            accuracy(network, images, labels, bn_stats="batch")

    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = normed[0]

        def forward(self, maps):
            norm = self.norm
            arguments = norm.weight, norm.bias, norm.running_mean, norm.running_var, False, 0.1, norm.eps, False
            return normed[1](torch.batch_norm(maps, *arguments))

    torch.testing.assert_close(logits(Direct(), images), logits(normed, images))
    with pytest.raises(ValueError, match=r'bn_stats "running" with a model whose BatchNorm layers are not called, or'):
        logits(Direct(), images, bn_stats="batch")
    own = nn.Sequential(OwnNorm(), nn.Flatten())
    for other in (nn.Sequential(DirectNorm(3), normed), nn.Sequential(OwnNorm(), normed), own):
        assert torch.isfinite(logits(other, images)).all()
        with pytest.raises(ValueError, match=r'bn_stats "running" with a model whose BatchNorm layers are not called'):
            logits(other, images, bn_stats="batch")
    split_up = nn.DataParallel(normed)
    split_up.device_ids = [0, 1]
    with pytest.raises(ValueError, match="DataParallel, which cuts batches up: give its module"):
        logits(split_up, images, bn_stats="batch")


def test_who_uses_batch_statistics(normed, channel_means):
    assert uses_batch_statistics(normed)
    assert uses_batch_statistics(nn.BatchNorm1d(2))
    assert not uses_batch_statistics(channel_means)
    assert not uses_batch_statistics(nn.GroupNorm(1, 3))


def test_a_band_is_not_fed_without_a_radius(images):
    (whole,) = iter_inputs(images, [Condition("x")], ())
    assert torch.equal(whole, images)
    with pytest.raises(ValueError, match="expected a radius in DFT bins with the band hfc, got none"):
        list(iter_inputs(images, [Condition("hfc")], ()))
