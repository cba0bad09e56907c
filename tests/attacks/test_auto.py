"""hfclib.attacks.auto: ball and box, the published schedule, optima by formula, and torchattacks' APGD."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hfclib import HighPass, apgd, pgd, robust_accuracy, strongest
from hfclib._files import data_folder
from hfclib.attacks.auto import _apgd_steps, _ApgdState, _checkpoints
from hfclib.attacks.robustness import robust_correct
from hfclib.data.cifar import to_float
from hfclib.runs.store import load


@pytest.fixture
def linear():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10)).eval()
    return network.requires_grad_(False)


@given(
    seed=st.integers(0, 2**40),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 1),
    steps=st.integers(1, 9),
    targets=st.integers(0, 20),
    band=st.sampled_from([None, HighPass(2)]),
)
def test_within_the_ball_and_the_box_and_alike_in_every_batch(seed, norm, eps, steps, targets, band):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 3, 4, 4, generator=generator).round(decimals=1)
    labels = torch.arange(6) % 4
    weight = torch.randn(48, 4, generator=generator)
    network = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(48, 4, bias=False))
    network[2].weight.data = weight.T
    options = {"eps": eps, "steps": steps, "norm": norm, "targets": targets, "band": band}
    whole, halves = (
        torch.cat(
            [
                apgd(network, *block, seed=seed, indices=indices, **options)
                for *block, indices in zip(
                    *(some.split(size) for some in (images, labels, torch.arange(6))), strict=True
                )
            ]
        )
        for size in (6, 2)
    )
    assert whole.min() >= 0
    assert whole.max() <= 1
    delta = (whole.double() - images.double()).flatten(1)
    assert (delta.abs().max() if norm == "linf" else delta.norm(dim=1).max()) <= eps + 1e-6
    assert (network(whole).argmax(dim=1) != labels).tolist() == (network(halves).argmax(dim=1) != labels).tolist()


def test_checkpoints_are_the_published_ones():
    expected = [0, 22]  # each lies as far beyond the last as that did, less 3, and 6 at least
    while (following := expected[-1] + max(expected[-1] - expected[-2] - 3, 6)) <= 100:
        expected.append(following)
    assert sorted(_checkpoints(100)) == expected[1:]
    assert sorted(_checkpoints(1)) == [1]


class Wavy(nn.Module):
    """A smooth network of many hills that takes every image for class 0, and keeps what it is shown."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = (
            nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((48, 40), (40, 3))
        )
        self.shown = []

    def forward(self, images):
        self.shown.append(images.detach().clone())
        logits = 0.1 * torch.sin(2 * images.flatten(1) @ self.first) @ self.second
        return logits + torch.tensor([8.0, 0.0, 0.0], dtype=torch.float64)


@pytest.fixture
def double_precision():
    """torchattacks makes tensors of the default type; in float64 rounding does not turn the sign of a gradient."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [100, 37])
def test_each_step_is_that_of_autoattack(other_libraries, double_precision, norm, steps):
    """From the same start, all points that the network is shown; torchattacks' APGD is a copy of AutoAttack's."""
    count, eps = 40, {"linf": 0.05, "l2": 0.3}[norm]
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 4, 4, generator=generator)
    labels = torch.zeros(count, dtype=torch.int64)
    library = other_libraries.torchattacks.APGD(Wavy(), norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=steps)
    best = library.attack_single_run(images, labels)[0]
    expected = torch.stack(library.model.shown)
    losses = [nn.functional.cross_entropy(library.model(some), labels, reduction="none") for some in expected[:2]]
    assert (losses[1] > losses[0]).all()  # a first step that does not rise is counted by AutoAttack as one that does

    ours, eps = Wavy(), torch.full((count, 1, 1, 1), eps)
    adv_images = images.clone()
    state = _ApgdState(torch.arange(count), images, labels, eps, points=expected[0], aim=None)
    _apgd_steps(ours, state, steps, adv_images, norm=norm, band=None, amp=False)
    torch.testing.assert_close(torch.stack(ours.shown), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(adv_images, best, rtol=0, atol=1e-6)
    assert len(set((2 * eps / state.step).log2().flatten().tolist())) > 2  # steps were halved, not equally often


def test_the_attacks_find_every_image_of_a_linear_network_that_can_be_fooled(linear):
    """In the middle of [0, 1] a lead over a class shrinks by eps times the L1 distance of the two rows of weights."""
    images, eps = 0.4 + 0.2 * torch.rand(60, 3, 8, 8), 0.006
    logits, weight = linear(images), linear[1].weight
    labels = logits.argmax(dim=1)
    reach = eps * (weight[labels][:, None] - weight[None]).abs().sum(dim=2)
    rest = (logits.gather(1, labels[:, None]) - logits - reach).scatter(1, labels[:, None], 1.0).min(dim=1).values
    assert rest.abs().min() > 1e-5
    assert 10 < (rest > 0).sum() < 50
    for attacks in (partial(apgd, eps=eps, targets=9), strongest(eps, queries=20)):
        assert torch.equal(robust_correct(linear, images, labels, attacks), rest > 0)
    for other in (0.0, 0.05):
        expected = 1 if other == 0 else 0
        assert robust_accuracy(linear, images, labels, strongest(queries=20), eps=other) == expected
    left = [robust_correct(linear, images, labels, attack).sum() for attack in strongest(eps, queries=20)]
    assert left[1] < left[0]  # the cross-entropy may climb towards the wrong class


def test_as_strong_as_that_of_torchattacks_and_stronger_than_pgd(other_libraries, cifar):
    (path,) = (data_folder() / "runs").glob("laptop-adversarial_batchnorm-0-*")
    network, eps = load(path).model().eval(), 12 / 255
    images, labels = to_float(cifar["test"][0][:60]), cifar["test"][1][:60]
    library = other_libraries.torchattacks.APGD(network, eps=eps, steps=25, n_restarts=1, seed=0)
    theirs = lambda model, x, y: library(x, y).clamp(0, 1)  # noqa: E731
    ours = partial(apgd, eps=eps, steps=25, seed=0)
    left, expected = (robust_correct(network, images, labels, attack).sum().item() for attack in (ours, theirs))
    assert 3 < expected < 40
    assert left <= expected + 1
    plain = partial(pgd, eps=eps, steps=5, seed=0)
    assert left <= robust_correct(network, images, labels, plain).sum().item()


def test_of_two_classes_the_wrong_one_is_aimed_at_however_many_targets_are_asked_for():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False)).eval()
    network[1].weight.data = torch.tensor([[1.0], [-1.0]]).expand(2, 12).clone()
    images, labels = torch.full((3, 3, 2, 2), 0.05), torch.zeros(3, dtype=torch.int64)  # they sum to .6, and may to -.6
    network[1].bias = nn.Parameter(torch.tensor([0.0, 0.9]))  # wrong where they sum to less than .45
    adv_images = apgd(network, images, labels, eps=0.05, steps=5, targets=9, seed=0)
    assert (network(adv_images).argmax(dim=1) == 1).all()


def test_bad_arguments(linear):
    for options, message in [
        ({"eps": 8}, "expected eps of at most 1"),
        ({"steps": 0}, "steps, a whole number of at least 1"),
        ({"targets": -1}, "targets, a whole number of at least 0"),
        ({"norm": "l1"}, "norm, linf or l2, got 'l1'"),
        ({"norm": "l2"}, "expected eps with the norm l2, which has no default"),
    ]:
        with pytest.raises(ValueError, match=message):
            apgd(linear, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), **options)


def test_no_images_are_no_error(linear):
    for targets in (0, 2):
        none = torch.rand(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64)
        assert apgd(linear, *none, eps=0.1, steps=2, targets=targets).shape == (0, 3, 8, 8)
