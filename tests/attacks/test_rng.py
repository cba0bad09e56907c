"""hfclib.attacks.rng: the random numbers of an image depend on the seed and its index alone, in any batch."""

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hfclib import apgd, pgd, robust_accuracy, square, strongest
from hfclib.attacks.rng import PerImageRNG
from hfclib.attacks.robustness import robust_correct, smallest_eps
from tests.attacks.test_gradient import Bends


@pytest.fixture
def network():
    return Bends()


@pytest.fixture
def pictures():
    return torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def labels(network, pictures):
    return network(pictures).argmax(dim=1)


WEAK = {
    "pgd": partial(pgd, alpha=0.001, steps=1, seed=0),
    "apgd": partial(apgd, steps=1, seed=0),
    "square": partial(square, queries=3, seed=0),
}


def recorded(attack, starts):
    """The attack, which keeps each adversarial image at the place of its image in the data."""

    def recording(model, images, labels, *, eps, indices):
        adv_images = attack(model, images, labels, eps=eps, indices=indices)
        starts[eps][indices] = adv_images
        return adv_images

    return recording


@pytest.mark.parametrize("name", WEAK)
def test_a_prediction_that_turns_over_changes_no_other_images_attack(network, pictures, labels, name):
    kept = []
    for first in (labels[0], (labels[0] + 1) % 4):
        starts = {0.05: torch.zeros_like(pictures)}
        classes = torch.cat([first[None], labels[1:]])
        robust_correct(network, pictures, classes, recorded(WEAK[name], starts), eps=0.05)
        kept.append(starts[0.05])
    assert not torch.equal(kept[0][0], kept[1][0])  # wrong without an attack, it is not attacked
    torch.testing.assert_close(kept[1][1:], kept[0][1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", WEAK)
def test_each_eps_of_several_gives_what_it_gives_alone(network, pictures, labels, name):
    values = [0.02, 0.05, 0.08]
    together, alone = ({eps: torch.zeros_like(pictures) for eps in values} for _ in range(2))
    shares = robust_accuracy(network, pictures, labels, recorded(WEAK[name], together), eps=values)
    assert shares == [
        robust_accuracy(network, pictures, labels, recorded(WEAK[name], alone), eps=eps) for eps in values
    ]
    assert all(torch.equal(together[eps], alone[eps]) for eps in values)
    assert len(set(shares)) > 1


def test_a_loaders_batches_change_nothing(network, pictures, labels):
    """Of two attacks the second is run on what the first leaves, in each batch."""
    attacks = [WEAK["pgd"], WEAK["square"]]
    kept = []
    for size in (40, 7, 1):
        starts = [{0.05: torch.zeros_like(pictures)} for _ in attacks]
        loader = DataLoader(TensorDataset(pictures, labels), batch_size=size)
        chain = [recorded(attack, some) for attack, some in zip(attacks, starts, strict=True)]
        share = robust_accuracy(network, loader, attacks=chain, eps=0.05, batch_size=size)
        kept.append((share, *(some[0.05] for some in starts)))
    assert 0 < kept[0][0] < 1
    for share, *starts in kept[1:]:
        assert share == kept[0][0]
        for some, expected in zip(starts, kept[0][1:], strict=True):
            torch.testing.assert_close(some, expected, rtol=0, atol=1e-6)


def test_without_a_seed_one_is_drawn_for_all_images_and_eps(network, pictures, labels):
    attack = partial(pgd, alpha=0.001, steps=1)
    shares = []
    for size in (40, 7):
        torch.manual_seed(3)
        shares.append(robust_accuracy(network, pictures, labels, attack, eps=[0.03, 0.05, 0.08], batch_size=size))
    assert shares[0] == shares[1]
    torch.manual_seed(3)
    first = smallest_eps(network, pictures, labels, attack, rounds=4, batch_size=7)
    torch.manual_seed(3)
    torch.testing.assert_close(smallest_eps(network, pictures, labels, attack, rounds=4), first)
    assert not torch.equal(smallest_eps(network, pictures, labels, attack, rounds=4), first)


def test_the_attacks_of_strongest_have_seeds_of_their_own():
    seeds = [attack.keywords["seed"] for attack in strongest(seed=5)]
    assert seeds == [5, 6, 7]
    assert [attack.keywords["seed"] for attack in strongest()] == [None] * 3


def test_numbers_are_those_of_the_index():
    every = torch.arange(20)
    whole = PerImageRNG(20, 1).numbers(every, (4,))
    seeds = torch.randint(2**62, (20,), generator=torch.Generator().manual_seed(1)).tolist()  # as of published attacks
    assert torch.equal(whole, torch.stack([torch.rand(4, generator=torch.Generator().manual_seed(s)) for s in seeds]))
    some = torch.tensor([7, 3, 19])
    assert torch.equal(PerImageRNG(3, 1, some).numbers(torch.arange(3), (4,)), whole[some])
    assert torch.equal(PerImageRNG(20, 1).numbers(some, (4,)), whole[some])
    assert len(whole.unique()) == 80
    assert not (PerImageRNG(20, 2).numbers(every, (4,)) == whole).any()
    going_on = PerImageRNG(20, 1)
    going_on.numbers(some, (4,))
    assert torch.equal(going_on.numbers(every, (4,))[0], whole[0])
    assert not torch.equal(going_on.numbers(some, (4,)), whole[some])


def test_another_default_device_changes_nothing():
    expected = PerImageRNG(5, 1).numbers(torch.arange(5), (4,))
    every = torch.arange(5)
    torch.set_default_device("meta")
    try:
        made, drawn = PerImageRNG(5, 1).numbers(every, (4,)), PerImageRNG(5, None).numbers(every, (4,))
    finally:
        torch.set_default_device(None)
    assert torch.equal(made, expected)
    assert drawn.device.type == "cpu"


def test_bad_seeds_and_indices(network, pictures, labels):
    for options, message in [
        *[({"seed": bad}, "expected seed, a whole number of at least 0, got") for bad in (-1, 0.5, 2**64)],
        ({"seed": torch.Generator()}, "expected seed, a whole number"),
        ({"indices": torch.arange(39)}, r"expected indices, one whole number per image, got \(39,\)"),
        ({"indices": torch.rand(40)}, r"got \(40,\) of torch.float32 for 40 images"),
        ({"indices": torch.arange(-1, 39)}, "expected indices from 0 to 100000000, got -1 to 38"),
        ({"indices": torch.arange(40) + 2**40}, "expected indices from 0"),
    ]:
        for attack in WEAK.values():
            with pytest.raises(ValueError, match=message):
                attack(network, pictures, labels, eps=0.05, **options)
    with pytest.raises(ValueError, match="expected indices, one whole number per image"):
        robust_correct(network, pictures, labels, WEAK["pgd"], eps=0.05, indices=torch.arange(39))
