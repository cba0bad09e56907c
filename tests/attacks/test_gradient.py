"""hfclib.attacks.gradient: ball and box, parity with other libraries, optima by formula, and refusals."""

import itertools
import math
import warnings
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hfclib import BandPass, Classifier, HighPass, LowPass, apgd, robust_accuracy, square
from hfclib._files import data_folder
from hfclib.attacks import fab
from hfclib.attacks import gradient as algorithm
from hfclib.attacks.gradient import direction, fgsm, margin, pgd, projected
from hfclib.attacks.rng import PerImageRNG
from hfclib.data.cifar import to_float
from hfclib.models import resnet18
from hfclib.runs.store import load

NORMS = ["linf", "l2"]


class Bends(nn.Module):
    """A small smooth network whose answers to an image don't depend on the other images of a batch, bit for bit."""

    def __init__(self, classes=4):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Parameter(torch.randn(48, 6, generator=generator))
        self.second = nn.Parameter(torch.randn(6, classes, generator=generator))

    def forward(self, images):
        flat = images.flatten(1)[:, :, None]
        hidden = torch.tanh((flat * self.first).sum(dim=1))
        return (hidden[:, :, None] * self.second).sum(dim=1)


@pytest.fixture
def small():
    return torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def answers(small):
    return Bends()(small).argmax(dim=1)


@pytest.fixture(scope="module")
def published():
    (path,) = (data_folder() / "runs").glob("laptop-batchnorm-0-*")
    return load(path).model()


def linear(weight, bias=None):
    """A linear network from (N, 3, 4, 4) with these weights (classes, 48)."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, len(weight)))
    network[1].weight.data, network[1].bias.data = weight, bias if bias is not None else torch.zeros(len(weight))
    return network


def distance(adv_images, images, norm):
    delta = (adv_images.double() - images.double()).flatten(1)
    return delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)


# ---- parity with other libraries


def test_adversarial_images_are_those_of_foolbox(other_libraries, published, cifar):
    for steps in [1, 10]:
        images, labels = to_float(cifar["test"][0][:12]), cifar["test"][1][:12]
        settings = {"eps": 8 / 255, "alpha": 2 / 255, "steps": steps}
        ours = pgd(published, images, labels, random_start=False, **settings)
        theirs = other_libraries.foolbox_pgd(published, images, labels, **settings)
        same = (ours - theirs).abs() <= 1e-5
        assert same.float().mean() >= 0.99
        assert distance(ours, images, "linf").min() > 7.9 / 255 * min(1, steps / 4)  # and they did attack
        torch.testing.assert_close(fgsm(published, images, labels, eps=2 / 255) if steps == 1 else ours, ours)


def test_defaults_are_those_of_torchattacks(other_libraries, published, cifar):
    images, labels = to_float(cifar["test"][0][:12]), cifar["test"][1][:12]
    library = other_libraries.torchattacks
    for targeted in (False, True):
        for ours, theirs in [
            (
                pgd(published, images, labels, random_start=False, targeted=targeted),
                library.PGD(published, random_start=False),
            ),
            (fgsm(published, images, labels, targeted=targeted), library.FGSM(published)),
        ]:
            if targeted:
                theirs.set_mode_targeted_by_label(quiet=True)
            assert ((ours - theirs(images, labels)).abs() <= 1e-5).float().mean() >= 0.99


# ---- ball, box, independence


@given(
    data=st.data(),
    norm=st.sampled_from(NORMS),
    loss=st.sampled_from(["cross_entropy", "margin"]),
    stop_early=st.booleans(),
    random_start=st.booleans(),
    steps=st.integers(0, 5),
)
def test_within_the_ball_and_the_box(data, norm, loss, stop_early, random_start, steps):
    seed = data.draw(st.integers(0, 2**40))
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 4, 4, generator=generator)
    images = data.draw(st.sampled_from([images, images.round(), images**8]))  # many pixels at or near the box's sides
    labels = torch.randint(0, 4, (4,), generator=generator)
    eps, alpha = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 3))
    band = data.draw(st.sampled_from([None, LowPass(1.5)]))
    adv_images = pgd(
        Bends(),
        images,
        labels,
        eps=eps,
        alpha=alpha,
        steps=steps,
        norm=norm,
        loss=loss,
        stop_early=stop_early,
        random_start=random_start,
        band=band,
        seed=seed,
    )
    assert adv_images.shape == images.shape
    assert adv_images.dtype == torch.float32
    assert adv_images.min() >= 0
    assert adv_images.max() <= 1
    assert distance(adv_images, images, norm).max() <= eps + 1e-6
    if steps == 0 and not random_start:
        assert torch.equal(adv_images, images)


@given(
    seed=st.integers(0, 2**40),
    norm=st.sampled_from(NORMS),
    split=st.integers(1, 9),
    stop_early=st.booleans(),
    restarts=st.integers(1, 3),
)
def test_an_image_is_attacked_alike_in_every_batch(seed, norm, split, stop_early, restarts):
    images = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(10) % 4

    def attacked(size):
        blocks = (some.split(size) for some in (images, labels, torch.arange(10)))
        return torch.cat(
            [
                pgd(
                    Bends(),
                    *batch,
                    indices=indices,
                    eps=0.3,
                    alpha=0.1,
                    steps=3,
                    norm=norm,
                    stop_early=stop_early,
                    restarts=restarts,
                    seed=seed,
                )
                for *batch, indices in zip(*blocks, strict=True)
            ]
        )

    whole = attacked(10)
    torch.testing.assert_close(attacked(split), whole, rtol=0, atol=1e-6)
    assert not torch.equal(whole, images)


@given(seed=st.integers(0, 2**40), norm=st.sampled_from(NORMS))
def test_same_seed_same_images_and_another_seed_others(seed, norm):
    images, labels = torch.full((3, 3, 4, 4), 0.5), torch.tensor([0, 1, 2])
    first, again, other = (
        pgd(
            Bends(),
            images,
            labels,
            eps=0.2,
            alpha=0.01,
            steps=1,
            norm=norm,
            seed=number,
        )
        for number in (seed, seed, seed + 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_a_seed_pytorchs_own_generator_is_drawn_from(small, answers):
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(pgd(Bends(), small, answers, eps=0.2, alpha=0.01, steps=1))
    assert torch.equal(*made)
    assert not torch.equal(made[0], pgd(Bends(), small, answers, eps=0.2, alpha=0.01, steps=1))


def test_starts_fill_the_ball_evenly():
    for norm in NORMS:
        images = torch.full((2_000, 3, 2, 2), 0.5)
        eps = torch.full((2_000, 1, 1, 1), 0.3)
        draws = PerImageRNG(2_000, 0)
        start = algorithm.start(images, eps, norm, draws, torch.arange(2_000))
        delta = (start - images).flatten(1)
        if norm == "linf":
            assert delta.std().item() == pytest.approx(0.3 / math.sqrt(3), rel=0.02)
            assert delta.abs().max() == pytest.approx(0.3, rel=0.01)
        else:  # in 12 dimensions, (length / eps)**12 of a point drawn evenly is even in [0, 1]
            shares = (delta.norm(dim=1) / 0.3) ** 12
            assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
            assert shares.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)
        assert delta.mean().abs() < 0.01


def test_eps_and_alpha_may_differ_between_images(small, answers):
    eps = torch.linspace(0, 0.2, 10)
    together = pgd(Bends(), small, answers, eps=eps, alpha=eps / 2, steps=3, random_start=False)
    for index, value in enumerate(eps.tolist()):
        alone = pgd(
            Bends(),
            small[index : index + 1],
            answers[index : index + 1],
            eps=value,
            alpha=value / 2,
            steps=3,
            random_start=False,
        )
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-6)


def test_a_targeted_attack_makes_the_model_predict_the_labels(small):
    network = Bends()
    scores = network(small).detach()
    labels = scores.topk(2).indices[:, 1]
    labels[0] = scores[0].argmax()  # predicted already
    for attack in (
        partial(pgd, steps=20, stop_early=True, random_start=False),
        partial(pgd, steps=20, loss="margin", restarts=3),
        partial(square, queries=400),
    ):
        found = network(attack(network, small, labels, eps=0.2, targeted=True)).argmax(dim=1) == labels
        assert found[0]
        assert found.sum() >= 8
    stopped = pgd(network, small, labels, eps=0.2, steps=20, stop_early=True, random_start=False, targeted=True)
    assert torch.equal(stopped[0], small[0])


def test_a_perturbation_stays_in_its_band(cifar, published):
    images, labels = to_float(cifar["test"][0][:6]), cifar["test"][1][:6]
    for norm, eps in (("linf", 8 / 255), ("l2", 0.5)):
        for band, steps in ((LowPass(8), 4), (HighPass(8), 4), (BandPass(4, 12), 0)):
            delta = pgd(published, images, labels, eps=eps, steps=steps, norm=norm, band=band) - images
            outside = (delta - band(delta)).square().sum() / delta.square().sum()
            assert outside < 2e-3
            assert distance(images + delta, images, norm).min() > 0.4 * eps
    free = pgd(published, images, labels) - images
    assert (free - LowPass(8)(free)).square().sum() > 0.1 * free.square().sum()


def test_doubles_stay_doubles(small, answers):
    adv_images = pgd(Bends().double(), small.double(), answers, eps=0.1, alpha=0.05, steps=3)
    assert adv_images.dtype == torch.float64
    assert distance(adv_images, small.double(), "linf").max() <= 0.1 + 1e-12


def test_no_images_are_no_error():
    empty = torch.rand(0, 3, 4, 4), torch.zeros(0, dtype=torch.int64)
    assert pgd(Bends(), *empty, eps=0.1, alpha=0.1, steps=2).shape == (0, 3, 4, 4)
    assert fgsm(Bends(), *empty, eps=0.1).shape == (0, 3, 4, 4)


# ---- optima by formula


def test_the_optimum_of_a_linear_network():
    """Of two classes, the worst in the Linf ball is eps against the sign of the weights' difference, in the L2 ball eps
    along it, both while no pixel meets the box."""
    for loss in ["cross_entropy", "margin"]:
        for steps in [1, 7]:
            weight = torch.randn(2, 48)
            images, labels = 0.4 + 0.2 * torch.rand(6, 3, 4, 4), torch.tensor([0, 1, 0, 1, 0, 1])
            towards = (weight[1] - weight[0]).view(3, 4, 4) * torch.tensor([1.0, -1.0]).repeat(3)[:, None, None, None]
            for norm in NORMS:
                unit = (
                    towards.sign() if norm == "linf" else towards / towards.flatten(1).norm(dim=1)[:, None, None, None]
                )
                adv_images = pgd(
                    linear(weight),
                    images,
                    labels,
                    eps=0.1,
                    alpha=0.1,
                    steps=steps,
                    norm=norm,
                    loss=loss,
                    random_start=False,
                )
                torch.testing.assert_close(adv_images, images + 0.1 * unit, rtol=0, atol=1e-6)


def test_fgsm_is_one_step_of_the_sign(small, answers):
    points = small.clone().requires_grad_()
    F.cross_entropy(Bends()(points), answers).backward()
    expected = (small + 0.1 * points.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(Bends(), small, answers, eps=0.1), expected, rtol=0, atol=1e-6)


def test_a_step_by_hand():
    images, moved = torch.tensor([[[[0.5, 0.95, 0.1]]]]), torch.tensor([[[[0.8, 0.5, -0.5]]]])
    eps = torch.tensor(0.1).view(1, 1, 1, 1)
    torch.testing.assert_close(projected(moved, images, eps, "linf"), torch.tensor([[[[0.6, 0.85, 0.0]]]]))
    length = math.sqrt(0.3**2 + 0.45**2 + 0.6**2)
    expected = torch.tensor([[[[0.5 + 0.03 / length, 0.95 - 0.045 / length, 0.1 - 0.06 / length]]]])
    torch.testing.assert_close(projected(moved, images, eps, "l2"), expected)
    gradient = torch.tensor([[[[3e-25, 0.0, -4e-25]]]])
    torch.testing.assert_close(direction(gradient, "l2"), torch.tensor([[[[0.6, 0.0, -0.8]]]]))
    torch.testing.assert_close(direction(gradient, "linf"), torch.tensor([[[[1.0, 0.0, -1.0]]]]))
    assert not direction(torch.zeros(1, 1, 1, 3), "l2").any()


def test_margin_by_hand():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0]])
    assert margin(logits, torch.tensor([1, 2])).tolist() == [-2, 2]


# ---- restarts, and stopping early


def test_restarts_keep_the_best_of_each_image(small, answers):
    """What restarts give is, image by image, the best of single starts drawn from the same streams."""
    network, settings = Bends(), {"eps": 0.12, "alpha": 0.02, "steps": 2}
    best = pgd(network, small, answers, restarts=4, seed=0, **settings)
    streams = PerImageRNG(10, 0)
    every, eps = torch.arange(10), torch.full((10, 1, 1, 1), 0.12)
    singles = []
    for _ in range(4):
        adv_images = algorithm.start(small, eps, "linf", streams, every)
        for _ in range(2):
            points = adv_images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(points), answers, reduction="sum"), points)
            adv_images = projected(adv_images + 0.02 * gradient.sign(), small, eps, "linf")
        singles.append(adv_images)
    losses = torch.stack([F.cross_entropy(network(one), answers, reduction="none") for one in singles]).detach()
    fooled = torch.stack([network(one).argmax(dim=1) != answers for one in singles])
    for index in range(10):
        ranked = max(range(4), key=lambda k: (bool(fooled[k, index]), losses[k, index].item()))
        torch.testing.assert_close(best[index], singles[ranked][index], rtol=0, atol=1e-6)
    assert len({losses[:, index].argmax().item() for index in range(10)}) > 1  # no single start was the best of all


def test_stopping_early_fools_no_fewer_and_stops_at_the_first_success(small):
    network, labels = Bends(), Bends()(small).argmax(dim=1)
    labels[:2] = (labels[:2] + 1) % 4  # wrong to begin with
    for amp, restarts in itertools.product((False, True), (1, 3)):
        settings = {"eps": 0.1, "alpha": 0.02, "steps": 6, "random_start": restarts > 1, "amp": amp}
        both = []
        for stop in (False, True):
            options = settings | {"stop_early": stop, "restarts": restarts, "seed": 2}
            both.append(pgd(network, small, labels, **options))
        wrong = [network(one).argmax(dim=1) != labels for one in both]
        assert not (wrong[0] & ~wrong[1]).any()
        assert 2 < wrong[1].sum() < 10
        if restarts == 1:
            assert torch.equal(both[1][:2], small[:2])
            for place in range(2, 10):  # each is the first of the images along its way that fools the network
                image, label, stopped = (values[place : place + 1] for values in (small, labels, both[1]))
                way = [pgd(network, image, label, **settings | {"steps": steps}) for steps in range(7)]
                first = next((point for point in way if network(point).argmax() != label), way[-1])
                torch.testing.assert_close(stopped, first, rtol=0, atol=1e-6)


def test_fewer_images_are_shown_to_the_network_when_stopping_early(small):
    seen = []

    class Counting(Bends):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images)

    labels = (Bends()(small).argmax(dim=1) + (torch.arange(10) < 6)) % 4
    pgd(Counting(), small, labels, eps=1e-4, alpha=1e-5, steps=3, random_start=False, stop_early=True)
    assert seen == [10, 4, 4]


def test_fast_arithmetic_stops_only_where_full_precision_agrees(small, answers, in_bf16):
    """Fast arithmetic that takes every image for fooled must not stop the attack."""

    class Deceived(Bends):
        def forward(self, images):
            logits = super().forward(images)
            return -logits if torch.is_autocast_enabled("cpu") else logits

    adv_images = pgd(
        Deceived(), small, answers, eps=0.01, alpha=0.01, steps=1, random_start=False, stop_early=True, amp=True
    )
    assert (adv_images != small).flatten(1).any(dim=1).all()


def test_fast_arithmetic_is_used_once_a_step_and_only_when_asked_for(small, answers, in_bf16):
    fast = []

    class Observed(Bends):
        def forward(self, images):
            fast.append(torch.is_autocast_enabled("cpu"))
            return super().forward(images)

    pgd(Observed(), small, answers, eps=0.1, alpha=0.1, steps=3)
    assert not any(fast)
    pgd(Observed(), small, answers, eps=0.1, alpha=0.1, steps=3, amp=True)
    assert sum(fast) == 3


# ---- the model is left as it was


def test_modes_averages_and_gradients_are_as_before(images):
    network = resnet18(2, "batch", 0.5).train()
    network.blocks[0].eval()  # a part that its owner froze
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    labels = torch.arange(12) % 10
    pgd(network, images, labels, eps=0.1, alpha=0.1, steps=2)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_batch_norm_uses_its_running_averages(images):
    network, labels = resnet18(2, "batch").train(), torch.arange(12) % 10
    for _ in range(3):
        network(torch.rand(20, 3, 8, 8))
    whole = pgd(network, images, labels, eps=0.1, alpha=0.02, steps=2, random_start=False)
    alone = pgd(network, images[:1], labels[:1], eps=0.1, alpha=0.02, steps=2, random_start=False)
    assert ((whole[:1] - alone).abs() <= 1e-5).float().mean() >= 0.99


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_need_no_gradient_mode(small, answers, context):
    expected = pgd(Bends(), small, answers, eps=0.1, alpha=0.05, steps=2, random_start=False)
    network = Bends()
    with context():
        images = small.clone()
        made = pgd(network, images, answers.clone(), eps=0.1, alpha=0.05, steps=2, random_start=False)
    assert torch.equal(made, expected)
    assert not made.requires_grad
    assert torch.equal(images, small)


# ---- refusals and warnings

GOOD = {"eps": 0.1, "alpha": 0.1, "steps": 1}


def test_bad_arguments():
    for images, labels, options, error, message in [
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [0, 1], {}, TypeError, "float images"),
        (torch.rand(2, 3, 4, 4).half(), [0, 1], {}, TypeError, "expected float32 images, got torch.float16"),
        (torch.rand(3, 4, 4), [0, 1, 2], {}, ValueError, r"\(N, C, H, W\)"),
        (torch.full((2, 3, 4, 4), 1.2), [0, 1], {}, ValueError, r"images in \[0, 1\], got values from 1.2 to 1.2"),
        (torch.full((2, 3, 4, 4), -0.1), [0, 1], {}, ValueError, r"images in \[0, 1\], got values from -0.1"),
        (torch.full((2, 3, 4, 4), math.nan), [0, 1], {}, ValueError, r"images in \[0, 1\], got values from nan"),
        (None, [0, 1, 2], {}, ValueError, r"one label per image, got labels \(3,\) for 2 images"),
        (None, [[0], [1]], {}, ValueError, r"one label per image, got labels \(2, 1\)"),
        (None, [0, -1], {}, ValueError, "labels of at least 0, got -1"),
        (None, [0, 4], {}, ValueError, "labels below 4, the number of logits, got 4"),
        (None, [0.0, 1.0], {}, TypeError, "labels, a tensor of whole numbers, got torch.float32"),
        (None, [True, False], {}, TypeError, "labels, a tensor of whole numbers, got torch.bool"),
        (None, None, {"eps": -0.1}, ValueError, "expected eps, finite and at least 0, got -0.1"),
        (None, None, {"eps": math.nan}, ValueError, "expected eps, finite"),
        (None, None, {"eps": math.inf}, ValueError, "expected eps, finite"),
        (None, None, {"eps": "8/255"}, TypeError, "^expected eps, one number or one per image, got '8/255'$"),
        (None, None, {"eps": None, "norm": "l2"}, ValueError, "^expected eps with the norm l2, which has no default"),
        (None, None, {"alpha": "2/255"}, TypeError, "^expected alpha, one number or one per image, got '2/255'$"),
        (None, None, {"steps": 2.5}, ValueError, "steps, a whole number of at least 0, got 2.5"),
        (None, None, {"eps": 8}, ValueError, "expected eps of at most 1, such as 8 / 255 .* got 8"),
        (
            None,
            None,
            {"eps": torch.rand(3)},
            ValueError,
            r"expected eps, one number or one per image, got shape \(3,\)",
        ),
        (None, None, {"alpha": -1.0}, ValueError, "expected alpha, finite and at least 0"),
        (None, None, {"alpha": torch.tensor([0.1, math.nan])}, ValueError, "expected alpha, finite"),
        (None, None, {"steps": -1}, ValueError, "steps, a whole number of at least 0"),
        (None, None, {"restarts": 0}, ValueError, "restarts, a whole number of at least 1"),
        (None, None, {"norm": "l1"}, ValueError, "norm, linf or l2.*got 'l1'"),
        (None, None, {"loss": "hinge"}, ValueError, "loss, cross_entropy or margin, got 'hinge'"),
    ]:
        images = torch.rand(2, 3, 4, 4) if images is None else images
        labels = torch.tensor([0, 1] if labels is None else labels)
        with pytest.raises(error, match=message):
            pgd(Bends(), images, labels, **GOOD | options)


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


def test_bad_models(small):
    for function, message in [
        (lambda x: x.mean(dim=(2, 3)) * math.nan, "below infinity"),
        (lambda x: x.mean(dim=(2, 3)) + math.inf, "below infinity"),
        (lambda x: x.mean(dim=(2, 3)) - math.inf, "minus infinity only"),
        (lambda x: x, r"logits \(10, classes\) from the model, got \(10, 3, 4, 4\)"),
        (lambda x: x.mean(dim=(2, 3))[:5], r"logits \(10, classes\)"),
        (lambda x: x.flatten(1)[:, :1], r"logits \(10, classes\) from the model, got \(10, 1\)"),
        (lambda x: x.mean(dim=(2, 3)).detach(), "attacks need gradients through PyTorch"),
    ]:
        with pytest.raises(ValueError, match=message):
            fgsm(Returns(function), small, torch.zeros(10, dtype=torch.int64), eps=0.1)


def test_a_masked_class_changes_no_image(small):
    """Its logit is minus infinity: the others are attacked as without it."""
    plain = Returns(lambda x: 9 * x.mean(dim=(2, 3)))
    masked = Returns(lambda x: F.pad(9 * x.mean(dim=(2, 3)), (0, 1), value=-math.inf))
    labels = torch.zeros(10, dtype=torch.int64)
    first, second = (pgd(network, small, labels, eps=0.1, alpha=0.05, steps=3, seed=0) for network in (plain, masked))
    assert torch.equal(first, second)


def test_probabilities_are_warned_of(small, answers):
    with pytest.warns(UserWarning, match="seems to return probabilities"):
        fgsm(nn.Sequential(Bends(), nn.Softmax(dim=1)), small, answers, eps=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fgsm(nn.Sequential(Bends(), nn.LogSoftmax(dim=1)), small, answers, eps=0.1)
        fgsm(nn.Sequential(Bends(), nn.Sigmoid()), small, answers, eps=0.1)


def test_vanished_gradients_are_warned_of_where_the_margin_still_has_one(small, answers):
    network = Bends()
    network.second.data *= 1e5
    with pytest.warns(UserWarning, match="gradient is exactly zero everywhere for 10 of 10 images"):
        still = pgd(network, small, answers, eps=0.1, alpha=0.02, steps=5, random_start=False)
    assert torch.equal(still, small)
    moved = pgd(network, small, answers, eps=0.1, alpha=0.02, steps=5, random_start=False, loss="margin")
    assert distance(moved, small, "linf").min() > 0


def test_a_flat_gradient_of_an_image_that_is_wrong_already_is_no_matter(small, answers):
    network = Bends()
    network.second.data *= 1e5
    for name in ("margin", "cross_entropy"):
        pgd(network, small, (answers + 1) % 4, eps=0.1, alpha=0.02, steps=1, random_start=False, loss=name)


class Outside(nn.Module):
    """Logits that a model computes outside PyTorch, cuts off, or makes of its weights alone."""

    def __init__(self, way):
        super().__init__()
        self.way, self.network = way, Bends()

    def forward(self, images):
        if self.way == "numpy":
            return torch.from_numpy(images.numpy().mean(axis=(2, 3)))
        if self.way == "array":
            return images.detach().numpy().mean(axis=(2, 3))
        return self.network(images.detach()) if self.way == "weights" else self.network(images).detach()


@pytest.mark.parametrize("attack", [pgd, fgsm, apgd, partial(apgd, targets=2), fab])
@pytest.mark.parametrize("way", ["numpy", "array", "weights", "detached"])
def test_logits_without_a_gradient_for_the_images_are_refused_in_one_line(small, attack, way, other_libraries):
    network = Classifier(Outside(way))
    labels = network(small).argmax(dim=1)
    with pytest.raises(ValueError, match=r"^attacks need gradients through PyTorch, .*: square does without$"):
        attack(network, small, labels, eps=0.1)
    with pytest.raises(ValueError, match="attacks need gradients through PyTorch"):
        robust_accuracy(network, small, labels, attack)
    if attack is pgd:
        assert 0 <= robust_accuracy(network, small, labels, partial(square, queries=3)) <= 1


def test_an_infinite_gradient_is_refused():
    class Root(nn.Sequential):
        def forward(self, images):
            return super().forward(images.sqrt())  # whose slope is infinite at 0

    network = Root(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(ValueError, match="finite gradient"):
        pgd(network, torch.zeros(1, 3, 2, 2), torch.tensor([0]), eps=0.5, norm="l2", random_start=False)


def test_a_perturbation_in_a_band_does_not_depend_on_images_of_other_gradients(published, cifar):
    images, labels = (part[:160] for part in cifar["test"])
    sure = nn.Sequential(published, Times(8))  # whose gradients differ by many powers of ten
    options = {"eps": 4 / 255, "band": LowPass(8), "alpha": 4 / 255, "steps": 1, "random_start": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the gradients of some vanish
        together = pgd(sure, to_float(images), labels, **options)
        parts = zip(to_float(images).split(40), labels.split(40), strict=True)
        apart = torch.cat([pgd(sure, *part, **options) for part in parts])
    assert ((together - apart).abs() > 1e-4).float().mean() < 1e-3


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits
