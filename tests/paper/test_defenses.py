"""hfclib.defenses: each defense by an independent computation, which network an attack sees, and the flat control."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from hfclib.attacks.gradient import fgsm, pgd
from hfclib.attacks.random_search import square
from hfclib.attacks.robustness import robust_correct
from hfclib.frequency import split
from hfclib.paper.defense.setup import (
    CLEAN,
    NONE,
    Attack,
    Defense,
    all_defenses,
    attack_function,
    attacks_before,
    defended,
    long_attacks,
    table_attacks,
)

METHODS = ["fgsm", "pgd", "unaware", "restarts", "margin", "transfer", "square"]
LONG = ["restarts", "margin", "transfer", "square"]
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
    """Two convolutions, and what makes a mode of training differ from evaluation."""
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


class Bends(nn.Module):
    """A small smooth network whose answers to an image don't depend on the other images of a batch, bit for bit."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(48, 6, generator=generator))
        self.second = nn.Parameter(torch.randn(6, 4, generator=generator))

    def forward(self, images):
        hidden = torch.tanh((images.flatten(1)[:, :, None] * self.first).sum(dim=1))
        return (hidden[:, :, None] * self.second).sum(dim=1)


class Never(nn.Module):
    """A network that must not be asked."""

    def forward(self, images):
        pytest.fail("the network was asked")


@pytest.fixture
def pictures():
    """Some of their pixels are 0 and 1."""
    return torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(5)).round(decimals=1)


@pytest.fixture
def answers(pictures):
    return Bends(1)(pictures).argmax(dim=1)


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


@pytest.mark.parametrize("rho", [0.1, 1.0])
def test_rules_are_equation_3_in_the_first_layer(network, images, rho):
    for method, gain in (("rule", 1), ("normalised", 1 + 8 * rho)):
        expected = with_first_kernels(network, lambda plane, gain=gain: neighbours_added(plane, rho) / gain, images)
        found = defended(network, Defense(method, rho))(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert (found - network(images)).abs().max() > 0.05


@pytest.mark.parametrize("radius", [4.0, 12.0])
def test_filtered_kernels_are_low_passed_in_the_first_layer(network, images, radius):
    expected = with_first_kernels(network, lambda plane: low_passed(plane, radius), images)
    found = defended(network, Defense("kernels", radius))(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - network(images)).abs().max() > 0.05


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_a_filtered_input_is_the_lfc(network, images, radius):
    found = defended(network, Defense("input", radius))(images)
    torch.testing.assert_close(found, network(split(images, radius)[0]))
    assert (found - network(images)).abs().max() > 0.05


@pytest.mark.parametrize("rho", [0.1, 1.0])
def test_scaled_logits_are_those_times_the_gain_and_no_answer_changes(network, images, rho):
    logits, found = network(images), defended(network, Defense("scale", rho))(images)
    torch.testing.assert_close(found, (1 + 8 * rho) * logits)
    assert torch.equal(found.argmax(dim=1), logits.argmax(dim=1))


@pytest.mark.parametrize(
    "defense",
    [NONE, Defense("rule"), Defense("normalised"), Defense("scale"), Defense("kernels", 23.0), Defense("input", 23.0)],
)
def test_nothing_happens_at_strength_0_nor_above_the_largest_radius(network, images, defense):
    torch.testing.assert_close(defended(network, defense)(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("defense", EVERY, ids=lambda defense: defense.method)
def test_the_model_given_stays_as_it_is_and_the_defended_one_is_in_evaluation_mode(network, images, defense):
    network.train()
    network[4].eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    found = defended(network, defense)
    assert not any(part.training for part in found.modules())
    found(images)
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("defense", EVERY, ids=lambda defense: defense.method)
def test_an_attack_sees_through_every_defense(network, images, defense):
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(defended(network, defense)(images)[:, 0].sum(), images)
    assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("defense", "error", "message"),
    [
        (Defense("blur", 1.0), ValueError, "method of a defense, one of none, rule, normalised, .*, got 'blur'"),
        (Defense("rule", -1.0), ValueError, "finite rho of at least 0, got -1"),
        (Defense("normalised", "1"), TypeError, "expected rho, a number"),
        (Defense("kernels", float("nan")), ValueError, "finite radius"),
        (Defense("input", -1.0), ValueError, "finite radius"),
    ],
)
def test_bad_defenses(network, defense, error, message):
    with pytest.raises(error, match=message):
        defended(network, defense)


# ---- what is put to what


def test_the_rows_of_the_table():
    expected = {
        NONE,
        *(Defense(method, rho) for method in ("rule", "normalised", "scale") for rho in (0.1, 0.5, 1)),
        *(Defense("kernels", radius) for radius in (4, 8, 12)),
        *(Defense("input", radius) for radius in (4, 8, 12, 16)),
    }
    found = all_defenses()
    assert found[0] == NONE
    assert len(found) == len(expected)
    assert set(found) == expected
    by_rho = [one for one in all_defenses((0.2,)) if one.method not in ("none", "kernels", "input")]
    assert by_rho == [("rule", 0.2), ("normalised", 0.2), ("scale", 0.2)]


def test_the_columns_of_the_table():
    for defense in EVERY:
        found = table_attacks(defense, [0.1, 0.2], 7)
        claimed = ["pgd", "unaware"] if defense.method == "input" else ["pgd"]
        expected = [("clean", 0, 0)]
        for eps in (0.1, 0.2):
            expected += [("fgsm", eps, 1), *((method, eps, 7) for method in claimed)]
        assert found == expected


def test_later_attacks_follow_earlier_ones():
    assert long_attacks(0.1, 7) == [(method, 0.1, 7) for method in LONG]
    for defense in EVERY:
        assert attacks_before(defense, CLEAN) == []
        for method in ("fgsm", "pgd", "unaware"):
            assert attacks_before(defense, Attack(method, 0.1, 7)) == [CLEAN]
        assert attacks_before(defense, Attack("restarts", 0.1, 7)) == table_attacks(defense, [0.1], 7)
        for earlier, later in itertools.pairwise(long_attacks(0.1, 7)):
            assert attacks_before(defense, later) == [earlier]


# ---- attacks


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", [0.0, 0.03, 0.5])
def test_within_the_ball_and_the_box(pictures, answers, method, eps):
    adv_images = attack_function(Attack(method, eps, 2), Bends(2))(Bends(1), pictures, answers)
    assert adv_images.min() >= 0
    assert adv_images.max() <= 1
    assert (adv_images.double() - pictures.double()).abs().max() <= eps + 1e-6
    assert (adv_images != pictures).any() == (eps > 0)


def test_each_attack_is_what_it_is_said_to_be(pictures, answers):
    """By calls with all numbers written out; each number matters, for no two attacks are alike."""
    asked, plain, eps = Bends(1), Bends(2), 0.02

    def seeded(attack, network, **options):
        return attack(network, pictures, answers, eps=eps, generator=torch.Generator().manual_seed(0), **options)

    table, judgement = {"alpha": 0.025, "steps": 2}, {"alpha": 0.025, "steps": 4, "restarts": 5}  # alpha: 2.5 eps / 2
    expected = {
        "fgsm": fgsm(asked, pictures, answers, eps=eps),
        "pgd": seeded(pgd, asked, **table),
        "unaware": seeded(pgd, plain, **table),
        "restarts": seeded(pgd, asked, **judgement),
        "margin": seeded(pgd, asked, **judgement, loss="margin"),
        "transfer": seeded(pgd, plain, **judgement, loss="margin"),
        "square": seeded(square, asked, queries=100),
    }
    assert list(expected) == METHODS
    for method, adv_images in expected.items():
        attack = Attack(method, eps, 1 if method == "fgsm" else 2)
        assert torch.equal(attack_function(attack, plain)(asked, pictures, answers), adv_images), method
    for one, other in itertools.combinations(METHODS, 2):
        assert not torch.equal(expected[one], expected[other]), (one, other)
    for options in ({"steps": 2}, {"alpha": 0.0125}, {"restarts": 1}):
        assert not torch.equal(seeded(pgd, asked, **judgement | options), expected["restarts"])


@pytest.mark.parametrize("method", ["unaware", "transfer"])
def test_an_attack_on_the_undefended_network_asks_no_other(pictures, answers, method):
    attack = attack_function(Attack(method, 0.1, 3), Bends(2))
    assert attack(Never(), pictures, answers).shape == pictures.shape


@pytest.mark.parametrize("method", ["unaware", "transfer"])
def test_an_attack_on_the_undefended_network_goes_on_where_that_is_fooled_already(pictures, method):
    plain, shown = Bends(2), []

    class Sure(nn.Module):
        """Right about everything, whatever it is shown."""

        def forward(self, images):
            shown.append(images.clone())
            return nn.functional.one_hot(labels, 4) * 10.0

    labels = (plain(pictures).argmax(dim=1) + 1) % 4  # the undefended network is wrong from the start
    assert robust_correct(Sure(), pictures, labels, attack_function(Attack(method, 0.1, 3), plain)).all()
    options = {"steps": 3} if method == "unaware" else {"steps": 6, "restarts": 5, "loss": "margin"}
    expected = pgd(
        plain, pictures, labels, eps=0.1, alpha=0.25 / 3, generator=torch.Generator().manual_seed(0), **options
    )
    assert torch.equal(shown[-1], expected)


@pytest.mark.parametrize("method", ["fgsm", "pgd", "restarts", "margin", "square"])
def test_the_other_attacks_never_ask_the_undefended_network(pictures, answers, method):
    attack = attack_function(Attack(method, 0.1, 1), Never())
    assert attack(Bends(1), pictures, answers).shape == pictures.shape


@pytest.mark.parametrize("method", ["pgd", "unaware", "restarts", "margin", "transfer", "square"])
def test_random_numbers_are_the_same_for_every_function(pictures, answers, method):
    def attacked():
        return attack_function(Attack(method, 0.02, 1), Bends(2))(Bends(1), pictures, answers)

    adv_images = attacked()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert torch.equal(attacked(), adv_images)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", ["pgd", "unaware", "restarts", "margin", "transfer", "square"])
def test_random_numbers_are_others_for_every_image(pictures, answers, method):
    attack = attack_function(
        Attack(method, 0.02, 0), Bends(2)
    )  # the start alone, which steps would lead to the same corner
    first, second = (attack(Bends(1), pictures[:6], answers[:6]) for _ in range(2))
    assert (first != second).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_attacked_alike_in_every_batch(pictures, answers, method):
    def function_anew():
        return attack_function(Attack(method, 0.3 if method in ("unaware", "transfer") else 0.02, 1), Bends(2))

    def attacked(size):
        attack, batches = function_anew(), zip(pictures.split(size), answers.split(size), strict=True)
        return torch.cat([attack(Bends(1), *batch) for batch in batches])

    assert torch.equal(attacked(5), attacked(12))
    verdicts = [robust_correct(Bends(1), pictures, answers, function_anew(), batch_size=size) for size in (5, 12)]
    assert torch.equal(*verdicts)
    assert 0 < verdicts[0].sum() < 12


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_fast_arithmetic_reaches_every_attack(pictures, answers, monkeypatch, method, amp):
    asked = []

    def recording(model, images, labels, *, amp=False):
        asked.append(amp)
        return model(images)

    for module in ("gradient", "random_search"):
        monkeypatch.setattr(f"hfclib.attacks.{module}.forward", recording)
    robust_correct(Bends(1), pictures, answers, attack_function(Attack(method, 0.02, 1), Bends(2)), amp=amp)
    assert any(asked) == amp


def test_bad_attacks():
    for bad in (CLEAN, Attack("cw", 0.1, 1)):
        with pytest.raises(ValueError, match=f"method of an attack, one of fgsm, pgd, .*, got '{bad.method}'"):
            attack_function(bad, Never())


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
    """A gain by PGD that is none: the control's point. Its answers are those of the network that PGD fools wholly."""
    network, pictures, labels = saturated
    scaled = defended(network, Defense("scale", 1.0))

    def left(model, *methods):
        attacks = [attack_function(Attack(method, 0.1, 1 if method == "fgsm" else 4), network) for method in methods]
        return int(robust_correct(model, pictures, labels, attacks).sum())

    assert left(network) == left(scaled) == 20
    assert left(network, "pgd") == left(network, "fgsm") == 0
    for method in ("fgsm", "pgd", "restarts"):
        with pytest.warns(UserWarning, match="the gradient is exactly zero everywhere for 20 of 20 images"):
            assert left(scaled, method) == 20
    for method in ("margin", "transfer", "unaware"):
        assert left(scaled, method) == 0


def test_square_needs_no_gradient(saturated):
    network, pictures, labels = saturated
    scaled = defended(network, Defense("scale", 1.0))
    found = robust_correct(scaled, pictures, labels, attack_function(Attack("square", 0.1, 4), network))
    assert found.sum() < 10
    assert torch.equal(
        found, robust_correct(network, pictures, labels, attack_function(Attack("square", 0.1, 4), network))
    )
