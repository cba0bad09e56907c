"""Defenses by independent computations, which network each attack uses, and the control whose gradient is flat."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from hfclib.attacks.gradient import fgsm, pgd
from hfclib.attacks.random_search import square
from hfclib.attacks.robustness import clean_correct, robust_correct
from hfclib.frequency import split
from hfclib.paper.defense.setup import (
    CLEAN,
    NONE,
    Attack,
    Defense,
    all_defenses,
    attack_functions,
    attacks_before,
    autoattack,
    defended,
    table_attacks,
)

METHODS = ["fgsm", "pgd", "unaware", "restarts", "margin", "transfer", "square"]
EVERY = [
    NONE,
    Defense("rule", 0.5),
    Defense("normalised", 0.5),
    Defense("kernels", 8.0),
    Defense("input", 2.0),
    Defense("scale", 0.5),
]


@pytest.fixture
def network():
    """Two convolutions, with BatchNorm and dropout, which behave otherwise in training mode."""
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.Tanh(),
        nn.Conv2d(5, 4, 3),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(144, 4),
    )
    network[1].running_mean += 0.1 * torch.randn(5)
    return network.eval()


class Smooth(nn.Module):
    """A small smooth network whose logits for an image do not depend on the other images of a batch, bit for bit."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(48, 6, generator=generator))
        self.second = nn.Parameter(torch.randn(6, 4, generator=generator))

    def forward(self, images):
        hidden = torch.tanh((images.flatten(1)[:, :, None] * self.first).sum(dim=1))
        return (hidden[:, :, None] * self.second).sum(dim=1)


@pytest.fixture
def pictures():
    """Some pixels are 0 or 1."""
    return torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(5)).round(decimals=1)


@pytest.fixture
def predictions(pictures):
    return Smooth(1)(pictures).argmax(dim=1)


# ---- defenses


def with_first_kernels(network, change, images):
    """The logits with each plane (k, k) of the first convolution's kernels put through `change`, a NumPy function."""
    weight = network[0].weight.detach().double().numpy()
    planes = [[change(plane) for plane in kernel] for kernel in weight]
    first = torch.nn.functional.conv2d(images, torch.tensor(np.array(planes)).float(), network[0].bias, padding=1)
    return network[1:](first)


def neighbours_added(plane, rho):
    """The paper's equation 3, weight by weight; the border is duplicated."""
    last, smoothed = len(plane) - 1, plane.copy()
    for i, j in itertools.product(range(len(plane)), repeat=2):
        around = [
            plane[min(max(i + a, 0), last), min(max(j + b, 0), last)]
            for a, b in itertools.product((-1, 0, 1), repeat=2)
            if a or b
        ]
        smoothed[i, j] += rho * sum(around)
    return smoothed


def low_passed(plane, radius):
    """The LFC of a kernel in a picture of 32 x 32, at the kernel's own place."""
    picture = np.zeros((32, 32))
    picture[: len(plane), : len(plane)] = plane
    frequencies = np.fft.fftfreq(32, 1 / 32)
    low = np.hypot(frequencies[:, None], frequencies[None]) < radius
    return np.fft.ifft2(np.fft.fft2(picture) * low).real[: len(plane), : len(plane)]


def expected_logits(network, images, method, strength):
    gain = 1 + 8 * strength
    if method == "input":
        return network(split(images, strength)[0])
    if method == "scale":
        return gain * network(images)
    changes = {
        "rule": lambda plane: neighbours_added(plane, strength),
        "normalised": lambda plane: neighbours_added(plane, strength) / gain,
        "kernels": lambda plane: low_passed(plane, strength),
    }
    return with_first_kernels(network, changes[method], images)


@pytest.mark.parametrize("method", ["rule", "normalised", "kernels", "input", "scale"])
def test_each_defense_by_an_independent_computation(network, images, method):
    logits = network(images)
    for strength in (4.0, 3.0) if method in ("kernels", "input") else (0.1, 1.0):
        answers = defended(network, Defense(method, strength))(images)
        torch.testing.assert_close(answers, expected_logits(network, images, method, strength), rtol=1e-4, atol=1e-5)
        assert (answers - logits).abs().max() > 0.05
        if method == "scale":
            assert torch.equal(answers.argmax(dim=1), logits.argmax(dim=1))


def test_nothing_happens_at_strength_0_nor_above_the_largest_radius(network, images):
    for method in ("none", "rule", "normalised", "scale", "kernels", "input"):
        defense = Defense(method, 23.0 if method in ("kernels", "input") else 0.0)
        torch.testing.assert_close(defended(network, defense)(images), network(images), rtol=1e-4, atol=1e-5)


def test_the_given_model_is_unchanged_and_the_defended_one_is_in_evaluation_mode(network, images):
    network.train()
    network[4].eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    for defense in EVERY:
        found = defended(network, defense)
        assert not any(part.training for part in found.modules())
        found(images)
        assert [part.training for part in network.modules()] == modes
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_every_defense_passes_a_gradient(network, images):
    images.requires_grad_()
    for defense in EVERY:
        (gradient,) = torch.autograd.grad(defended(network, defense)(images)[:, 0].sum(), images)
        assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_bad_defenses_and_attacks_are_refused(network):
    bad = [
        (Defense("blur", 1.0), ValueError, "method of a defense, one of none, rule, normalised, .*, got 'blur'"),
        (Defense("rule", -1.0), ValueError, "finite rho of at least 0, got -1"),
        (Defense("normalised", "1"), TypeError, "must be real number"),
        (Defense("kernels", float("nan")), ValueError, "finite radius"),
        (Defense("input", -1.0), ValueError, "finite radius"),
    ]
    for defense, error, message in bad:
        with pytest.raises(error, match=message):
            defended(network, defense)
    for attack in (CLEAN, Attack("cw", 0.1, 1)):
        with pytest.raises(ValueError, match=f"method of an attack, one of fgsm, pgd, .*, got '{attack.method}'"):
            attack_functions(attack, network)


# ---- the rows and columns of the table


def test_the_rows_of_the_table():
    expected = {
        NONE,
        *(Defense(method, rho) for method in ("rule", "normalised", "scale") for rho in (0.1, 0.5, 1)),
        *(Defense("kernels", radius) for radius in (4, 8, 12)),
        *(Defense("input", radius) for radius in (4, 8, 12, 16)),
    }
    defenses = all_defenses()
    assert defenses[0] == NONE
    assert len(defenses) == len(expected)
    assert set(defenses) == expected
    by_rho = [one for one in all_defenses((0.2,)) if one.method not in ("none", "kernels", "input")]
    assert by_rho == [("rule", 0.2), ("normalised", 0.2), ("scale", 0.2)]


def test_the_columns_of_the_table():
    for defense in EVERY:
        attacks = table_attacks(defense, [0.1, 0.2], 7)
        claimed = ["pgd", "unaware"] if defense.method == "input" else ["pgd"]
        expected = [("clean", 0, 0)]
        for eps in (0.1, 0.2):
            expected += [("fgsm", eps, 1), *((method, eps, 7) for method in claimed)]
        assert attacks == expected


# ---- attacks


def test_each_attack_is_what_it_is_said_to_be(pictures, predictions):
    """Each attack equals a call with all numbers written out, and no two attacks are alike."""
    asked, plain, eps = Smooth(1), Smooth(2), 0.02

    def several(attack, *calls):
        """The results of calls, with the seeds 0, 1, and so on."""
        return [
            attack(network, pictures, predictions, eps=eps, seed=seed, **more)
            for seed, (network, more) in enumerate(calls)
        ]

    table, longer = {"alpha": 0.025, "steps": 2}, {"alpha": 0.025, "steps": 4, "restarts": 5}  # alpha: 2.5 eps / 2
    margin = longer | {"loss": "margin"}
    expected = {
        "fgsm": [fgsm(asked, pictures, predictions, eps=eps)],
        "pgd": several(pgd, (asked, table)),
        "unaware": several(pgd, (plain, table)),
        "restarts": several(pgd, (asked, longer)),
        "margin": several(pgd, (asked, margin)),
        "transfer": several(pgd, (plain, margin), (plain, longer)),
        "square": several(square, (asked, {"queries": 100})),
    }
    assert list(expected) == METHODS
    for method, results in expected.items():
        attacks = attack_functions(Attack(method, eps, 1 if method == "fgsm" else 2), plain)
        for attack, adv_images in zip(attacks, results, strict=True):
            assert torch.equal(attack(asked, pictures, predictions), adv_images), method
    for one, other in itertools.combinations([one for results in expected.values() for one in results], 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("method", ["unaware", "transfer"])
def test_an_attack_on_the_undefended_network_goes_on_where_that_is_fooled_already(pictures, method):
    plain, shown = Smooth(2), []

    class Sure(nn.Module):
        """Correct on every image."""

        def forward(self, images):
            shown.append(images.clone())
            return nn.functional.one_hot(labels, 4) * 10.0

    labels = (plain(pictures).argmax(dim=1) + 1) % 4  # the undefended network is wrong from the start
    assert robust_correct(Sure(), pictures, labels, attack_functions(Attack(method, 0.1, 3), plain)).all()
    longer = {"steps": 6, "restarts": 5}
    parts = [{"steps": 3}] if method == "unaware" else [longer | {"loss": "margin"}, longer]
    usual = {"eps": 0.1, "alpha": 0.25 / 3}
    assert len(shown) == 1 + len(parts)  # the images themselves come first
    for seed, (adv_images, options) in enumerate(zip(shown[1:], parts, strict=True)):
        assert torch.equal(adv_images, pgd(plain, pictures, labels, seed=seed, **usual, **options))


def test_random_numbers_are_the_same_for_every_function_and_differ_between_images(pictures, predictions):
    for method in set(METHODS) - {"fgsm"}:
        torch.manual_seed(7)
        before = torch.get_rng_state()
        # Without steps the start alone is left; steps would lead different starts to the same corner.
        attacks = [attack_functions(Attack(method, 0.02, 0), Smooth(2))[0] for _ in range(2)]
        first, again = (attack(Smooth(1), pictures[:6], predictions[:6]) for attack in attacks)
        assert torch.equal(first, again)
        others = attacks[0](Smooth(1), pictures[:6], predictions[:6], indices=torch.arange(6, 12))
        assert (first != others).flatten(1).any(dim=1).all()
        assert torch.equal(torch.get_rng_state(), before)


def test_an_image_is_attacked_alike_in_every_batch(pictures, predictions):
    for method in METHODS:
        attack = Attack(method, 0.3 if method in ("unaware", "transfer") else 0.02, 1)
        outcomes = [
            robust_correct(Smooth(1), pictures, predictions, attack_functions(attack, Smooth(2)), batch_size=size)
            for size in (5, 12)
        ]
        assert torch.equal(*outcomes)
        assert 0 < outcomes[0].sum() < 12


def test_bfloat16_reaches_every_attack(pictures, predictions, in_bf16):
    fast = []

    class Observed(Smooth):
        def forward(self, images):
            fast.append(torch.is_autocast_enabled("cpu"))
            return super().forward(images)

    for method, amp in itertools.product(METHODS, (False, True)):
        fast.clear()
        attacks = attack_functions(Attack(method, 0.02, 1), Observed(2))
        robust_correct(Observed(1), pictures, predictions, attacks, amp=amp)
        assert any(fast) == amp


# ---- the control


@pytest.fixture
def saturated():
    """Two classes, images far from the sides of the box, and their labels. The label leads by 30 to 40, which float32's
    softmax can tell, but not 9 times that; the best step of .1 costs 48 of the lead."""
    signs = torch.randn(48, generator=torch.Generator().manual_seed(3)).sign()
    pictures = 0.48 + 0.04 * torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    network[1].weight.data = 5 * torch.stack([signs, -signs])
    network[1].bias.data = torch.tensor([35 - 5 * signs.sum(), 0.0])
    lead = network(pictures).diff(dim=1).neg()
    assert lead.min() > 30
    assert lead.max() < 40
    return network, pictures, torch.zeros(20, dtype=torch.int64)


def test_scaled_logits_flatten_the_cross_entropys_gradient_and_not_the_margins(saturated):
    """PGD reports a gain that does not exist: predictions are those of the network that PGD fools on every image."""
    network, pictures, labels = saturated
    scaled = defended(network, Defense("scale", 1.0))

    def left(model, *methods):
        wanted = [Attack(method, 0.1, 1 if method == "fgsm" else 4) for method in methods]
        attacks = [attack for one in wanted for attack in attack_functions(one, network)]
        return int(robust_correct(model, pictures, labels, attacks).sum())

    assert clean_correct(network, pictures, labels).all()
    assert clean_correct(scaled, pictures, labels).all()
    assert left(network, "pgd") == left(network, "fgsm") == 0
    for method in ("fgsm", "pgd", "restarts"):
        with pytest.warns(UserWarning, match="the gradient is exactly zero everywhere for 20 of 20 images"):
            assert left(scaled, method) == 20
    for method in ("margin", "transfer", "unaware"):
        assert left(scaled, method) == 0


def test_square_needs_no_gradient(saturated):
    network, pictures, labels = saturated
    scaled = defended(network, Defense("scale", 1.0))
    withstood, withstood_again = (
        robust_correct(model, pictures, labels, attack_functions(Attack("square", 0.1, 4), network))
        for model in (scaled, network)
    )
    assert torch.equal(withstood, withstood_again)
    assert withstood.sum() < 10


def test_autoattack_fools_exactly_the_images_of_a_linear_network_that_can_be_fooled(other_libraries):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)).eval()
    images, eps = 0.4 + 0.2 * torch.rand(40, 3, 8, 8), 0.01
    logits, weight = model(images).detach(), model[1].weight.detach()
    labels = logits.argmax(dim=1)
    # In the middle of [0, 1] the margin to a class shrinks by eps times the L1 distance of the two rows of weights.
    reach = eps * (weight[labels][:, None] - weight[None]).abs().sum(dim=2)
    closest = (logits.gather(1, labels[:, None]) - logits - reach).scatter(1, labels[:, None], 1.0).min(dim=1).values
    assert closest.abs().min() > 1e-4
    state = torch.random.get_rng_state()
    components = [attack_functions(attack, model)[0] for attack in autoattack(eps)]
    left = robust_correct(model, images, labels, components)
    assert left.tolist() == (closest > 0).tolist()
    assert 5 < left.sum() < 35
    assert torch.equal(torch.random.get_rng_state(), state)  # torchattacks seeds it


def test_each_component_of_autoattack_is_run_on_what_those_before_it_left():
    attacks = autoattack(0.03)
    assert attacks_before(NONE, attacks[0]) == [CLEAN]
    assert [attacks_before(NONE, attack) for attack in attacks[1:]] == [[attack] for attack in attacks[:-1]]
