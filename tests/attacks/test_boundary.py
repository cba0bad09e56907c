"""hfclib.attacks.boundary: FAB against a formula and against torchattacks itself, and what it leaves as it was."""

import sys
from functools import partial

import pytest
import torch
from torch import nn

from hfclib import robust_accuracy, robust_table, strongest
from hfclib.attacks import fab, robust_correct


@pytest.fixture
def torchattacks(other_libraries):
    return other_libraries.torchattacks


@pytest.fixture
def network():
    """Smooth, not linear, in training mode, with BatchNorm and dropout."""
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Dropout(), nn.Flatten(), nn.Linear(216, 5)
    return nn.Sequential(*layers)


@pytest.fixture
def images():
    return torch.rand(20, 3, 8, 8)


@pytest.fixture
def labels(network, images):
    """The predictions, but for the first three."""
    answers = network.eval()(images).argmax(dim=1)
    network.train()
    answers[:3] = (answers[:3] + 1) % 5
    return answers


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.012), ("l2", 0.15)])
def test_it_is_the_attack_of_torchattacks(torchattacks, network, images, labels, norm, eps):
    ours = fab(network, images, labels, eps=eps, norm=norm, steps=5, targets=4)
    network.eval()
    options = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "n_classes": 5, "multi_targeted": True}
    theirs = torchattacks.FAB(network, eps=eps, steps=5, **options)(images, labels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    moved = (ours != images).flatten(1).any(dim=1)
    assert 3 < moved.sum() < 17
    assert not moved[:3].any()  # wrong as they are
    assert moved.tolist() == (network(images).argmax(dim=1) != network(ours).argmax(dim=1)).tolist()
    delta = (ours.double() - images.double()).flatten(1)
    assert (delta.abs().max() if norm == "linf" else delta.norm(dim=1).max()) <= eps + 1e-6
    assert ours.min() >= 0
    assert ours.max() <= 1


def test_every_image_of_a_linear_network_that_can_be_fooled_is_found(torchattacks):
    """In the middle of [0, 1] a lead over a class shrinks by eps times the L1 distance of the two rows of weights."""
    network, eps = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), 0.006
    images = 0.4 + 0.2 * torch.rand(60, 3, 8, 8)
    logits, weight = network(images).detach(), network[1].weight.detach()
    labels = logits.argmax(dim=1)
    reach = eps * (weight[labels][:, None] - weight[None]).abs().sum(dim=2)
    rest = (logits.gather(1, labels[:, None]) - logits - reach).scatter(1, labels[:, None], 1.0).min(dim=1).values
    assert rest.abs().min() > 1e-5
    assert 10 < (rest > 0).sum() < 50
    for size in (25, 512):
        attack = partial(fab, eps=eps, steps=10)
        assert torch.equal(robust_correct(network, images, labels, attack, batch_size=size), rest > 0)


def test_targets_are_the_likeliest_wrong_classes(torchattacks):
    """Of three classes the second is nearer to the first by its logit, and the third by the way to it."""
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), torch.full((4, 3, 8, 8), 0.5)
    sides = torch.ones(192)
    sides[1::2] = -1  # so that the mean of an image does not matter
    network[1].weight.data = torch.stack([0 * sides, 0.01 * sides, 0.1 * sides])
    network[1].bias.data = torch.tensor([0.0, -0.1, -0.2])  # of which .1 / 1.92 and .2 / 19.2 have to be moved
    labels = torch.zeros(4, dtype=torch.int64)
    for targets, expected in ((1, 1), (2, 0)):
        attack = partial(fab, eps=0.02, steps=5, targets=targets)
        assert robust_accuracy(network, images, labels, attack) == expected


def test_model_and_random_numbers_are_as_before(torchattacks, network, images, labels):
    network[5].weight.grad = torch.ones_like(network[5].weight)
    modes = [module.training for module in network.modules()]
    before, expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}, torch.get_rng_state()
    with torch.inference_mode():
        in_inference = fab(network, images.clone(), labels.clone(), eps=0.02, steps=2)
    given = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fab(network, given, labels, eps=0.02, steps=2), in_inference)
    assert torch.equal(given, images)
    assert [module.training for module in network.modules()] == modes == [True] * 7
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [parameter.grad is None for parameter in network.parameters()] == [True] * 4 + [False, True]
    assert (network[5].weight.grad == 1).all()
    assert torch.equal(torch.get_rng_state(), expected)


def test_it_is_named_with_its_package_in_a_row_of_its_own(torchattacks, network, images, labels):
    attacks = strongest(0.02, steps=2, queries=2, fab=True, seed=0)
    table = robust_table(network, images, labels, attacks)
    own = f"fab(steps=2, targets=9) of torchattacks {torchattacks.__version__}"
    names = ["none", "apgd(steps=2)", "apgd(steps=2, targets=9)", own, "square(queries=2)"]
    assert table["attack"].tolist() == names
    assert table["eps"].tolist() == [0, 0.02, 0.02, 0.02, 0.02]
    without = robust_table(network, images, labels, strongest(0.02, steps=2, queries=2, seed=0))
    assert without["attack"].tolist() == [name for name in names if name != own]
    assert robust_accuracy(network, images, labels, attacks, eps=[0, 1])[0] == 17 / 20


def test_without_the_package_the_way_to_it_is_told_before_any_work(monkeypatch, network, images, labels):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    asked = []
    network.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    for attacks in (fab, strongest(fab=True)):
        with pytest.raises(ImportError, match=r"needs the package torchattacks.* install --no-deps 'torchattacks>=3"):
            robust_accuracy(network, images, labels, attacks)
    assert sum(asked) <= 4  # two images show how many classes there are


def test_bad_arguments(torchattacks, network, images, labels):
    for changes, error, message in [
        ({"images": images.double()}, TypeError, "float32 images, which torchattacks computes in, got torch.float64"),
        ({"images": images + 1}, ValueError, r"images in \[0, 1\]"),
        ({"labels": labels + 5}, ValueError, "labels below 5"),
        ({"eps": torch.full((20,), 0.1)}, TypeError, "expected eps, a number such as 8 / 255"),
        ({"eps": 2}, ValueError, "eps of at most 1"),
        ({"eps": None, "norm": "l2"}, ValueError, "expected eps with the norm l2, which has no default"),
        ({"norm": "l1"}, ValueError, "expected norm, linf or l2, got 'l1'"),
        ({"steps": 0}, ValueError, "steps, a whole number of at least 1"),
        ({"targets": 0}, ValueError, "targets, a whole number of at least 1"),
    ]:
        with pytest.raises(error, match=message):
            fab(network, **{"images": images, "labels": labels, "eps": 0.1} | changes)
    assert fab(network, images[:0], labels[:0], eps=0.1).shape == (0, 3, 8, 8)
    with pytest.warns(UserWarning, match="seems to return probabilities"):
        fab(nn.Sequential(network, nn.Softmax(dim=1)), images, labels, eps=0.1, steps=1)
