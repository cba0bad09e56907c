"""hfclib.attacks.robustness: scores by hand and in any batches, and smallest perturbations by formula."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hfclib.attacks.auto import apgd, strongest
from hfclib.attacks.gradient import fgsm, pgd
from hfclib.attacks.random_search import square
from hfclib.attacks.robustness import (
    clean_correct,
    robust_accuracy,
    robust_correct,
    robust_table,
    smallest_eps,
)


@pytest.fixture
def network():
    """Two classes; the label of an image is that of the larger half of the weighted sum, by a known lead."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, bias=False))
    network[1].weight.data = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
    return network


@pytest.fixture
def pictures():
    """Images far from the sides of the box, so that it never matters."""
    return 0.4 + 0.2 * torch.rand(30, 3, 4, 4, generator=torch.Generator().manual_seed(2))


def needed(network, images):
    """The smallest eps that fools a linear network of two classes: its lead by the weights' difference in L1."""
    logits, weight = network(images).detach(), network[1].weight.detach()
    return (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()


def test_robust_images_are_known_by_formula(network, pictures):
    labels = network(pictures).argmax(dim=1)
    labels[:5] = 1 - labels[:5]  # wrong to begin with
    eps = needed(network, pictures).median().item()
    expected = (needed(network, pictures) > eps * 1.001) & (torch.arange(30) >= 5)
    assert 5 < expected.sum() < 20
    for attack in (partial(fgsm, eps=eps * 1.001), partial(pgd, eps=eps * 1.001, alpha=eps / 3, steps=8)):
        assert torch.equal(robust_correct(network, pictures, labels, attack), expected)
        assert robust_accuracy(network, pictures, labels, attack) == pytest.approx(expected.float().mean().item())


def test_scores_do_not_depend_on_the_batch_size(network, pictures):
    attack = partial(pgd, eps=0.02, alpha=0.001, steps=1)
    labels = network(pictures).argmax(dim=1)
    labels[::4] = 1 - labels[::4]

    def correct(size):
        return robust_correct(network, pictures, labels, partial(attack, seed=0), batch_size=size)

    assert 0 < correct(30).sum() < 22
    for size in (1, 7, 512):
        assert torch.equal(correct(size), correct(30))


def test_of_several_attacks_all_must_fail(network, pictures):
    labels = network(pictures).argmax(dim=1)
    seen = []

    def spoils(start, stop):
        def attack(model, images, labels):
            seen.append(len(images))
            return torch.stack(
                [
                    1 - image if any(torch.equal(image, one) for one in pictures[start:stop]) else image
                    for image in images
                ]
            )

        return attack

    fooled = network(1 - pictures).argmax(dim=1) != labels
    assert fooled.sum() > 5
    right = robust_correct(network, pictures, labels, [spoils(0, 12), spoils(8, 20)])
    expected = ~fooled | (torch.arange(30) >= 20)
    assert torch.equal(right, expected)
    assert seen == [30, 30 - int(fooled[:12].sum())]  # the second attack gets what the first has left


def test_a_loader_and_a_list_of_eps(network, pictures):
    labels = network(pictures).argmax(dim=1)
    lead = needed(network, pictures)
    eps = [lead.quantile(share).item() for share in (0.2, 0.5, 0.8)]
    expected = [(lead > one).float().mean().item() for one in eps]
    exact = partial(fgsm, eps=0)
    loader = DataLoader(TensorDataset(pictures, labels), batch_size=8)
    for data in ((pictures, labels), (loader,)):
        assert robust_accuracy(network, *data, attacks=exact, eps=eps) == pytest.approx(expected)
        assert robust_accuracy(network, *data, attacks=[exact, lambda m, x, y: x], eps=eps[1]) == pytest.approx(
            expected[1]
        )
    few = pictures[:3], labels[:3]  # as many as eps
    expected = robust_accuracy(network, *few, attacks=exact, eps=eps)
    for several in (np.array(eps), torch.tensor(eps, dtype=torch.float64), tuple(eps)):
        assert robust_accuracy(network, *few, attacks=exact, eps=several) == expected
    by_default = robust_accuracy(network, [{"image": pictures, "label": labels}])
    assert by_default == robust_accuracy(network, pictures, labels, partial(pgd, eps=8 / 255, alpha=2 / 255, steps=10))


def test_a_table_has_one_row_per_attack(network, pictures):
    labels = network(pictures).argmax(dim=1)
    labels[:4] = 1 - labels[:4]
    lead = needed(network, pictures)[4:]
    eps = lead.quantile(0.3).item(), lead.quantile(0.8).item()
    left = [int((lead > number).sum()) for number in eps]

    def idle(model, images, labels):
        return images

    attacks = [idle, partial(fgsm, eps=1, targeted=False), partial(pgd, steps=3, seed=5)]
    loader = DataLoader(TensorDataset(pictures, labels), batch_size=8)
    table = robust_table(network, loader, attacks=iter(attacks), eps=eps)
    assert table.columns.tolist() == ["attack", "eps", "images", "fooled", "accuracy"]
    assert table["attack"].tolist() == ["none", *["idle", "fgsm(targeted=False)", "pgd(steps=3)"] * 2]
    assert table["images"].tolist() == [30, 26, 26, left[0], 26, 26, left[1]]
    assert table["fooled"].tolist() == [4, 0, 26 - left[0], 0, 0, 26 - left[1], 0]
    assert table["accuracy"].tolist() == pytest.approx(
        [26 / 30, *(some / 30 for number in left for some in (26, number, number))]
    )
    assert table["eps"].fillna(-1).tolist() == [0, *(some for number in eps for some in (-1, number, number))]
    shares = robust_accuracy(network, loader, attacks=attacks, eps=eps)
    assert table["accuracy"].tolist()[3::3] == pytest.approx(shares)

    own = robust_table(network, pictures, labels, [pgd, partial(pgd, norm="l2", eps=0.25), partial(idle)])
    assert own["eps"].tolist()[:3] == [0, 8 / 255, 0.25]
    assert own["attack"].tolist() == ["none", "pgd", "pgd(norm=l2)", "idle"]


def test_the_table_of_the_strongest_attack_names_its_three(network, pictures):
    labels = network(pictures).argmax(dim=1)
    eps = needed(network, pictures).quantile(0.5).item()
    table = robust_table(network, pictures, labels, strongest(eps, steps=5, queries=9, seed=0))
    assert table["attack"].tolist() == ["none", "apgd(steps=5)", "apgd(steps=5, targets=9)", "square(queries=9)"]
    assert table["eps"].tolist() == [0, eps, eps, eps]
    assert table["images"].tolist() == [30, 30, 15, 15]
    assert table["accuracy"].tolist() == [1, 0.5, 0.5, 0.5]


def test_attacks_may_come_from_an_iterator(network, pictures):
    labels = network(pictures).argmax(dim=1)
    eps = needed(network, pictures).quantile(0.5).item()
    loader = DataLoader(TensorDataset(pictures, labels), batch_size=8)
    many = robust_accuracy(network, loader, attacks=iter([partial(fgsm, eps=0)]), eps=[eps, eps])
    assert many == [robust_accuracy(network, loader, attacks=partial(fgsm, eps=eps))] * 2
    assert many[0] < 1
    assert robust_correct(network, pictures, labels, iter([partial(fgsm, eps=0)]), eps=eps).float().mean() == many[0]


def test_images_that_exceed_1_by_rounding_are_attacked(network, pictures):
    pictures = pictures.clone()
    pictures[0, 0, 0, 0] = 1 + 1.2e-7
    labels = network(pictures).argmax(dim=1)
    assert robust_accuracy(network, pictures, labels, partial(fgsm, eps=0.0)) == 1
    assert (smallest_eps(network, pictures, labels, lambda m, x, y, eps: x) == torch.inf).all()


def test_clean_accuracy_is_asked_for_by_name(network, pictures):
    labels = network(pictures).argmax(dim=1)
    labels[:6] = 1 - labels[:6]
    for size in (7, 512):
        assert clean_correct(network, pictures, labels, batch_size=size).tolist() == [False] * 6 + [True] * 24


def test_a_network_in_training_mode_is_attacked_in_evaluation_mode(pictures):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    asked = []

    def attack(model, images, labels):
        asked.append(model.training)
        model(images)
        return images

    robust_correct(network, pictures, torch.zeros(30, dtype=torch.int64), attack)
    assert not any(asked)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Untouched(nn.Module):
    """A network that must not be asked."""

    def forward(self, images):
        raise AssertionError("the network was asked")


def test_what_can_not_be_scored_is_refused_before_any_work(pictures):
    """A targeted attack leaves a network that it never fools as accurate as it was, and so does no attack at all."""
    labels = torch.zeros(30, dtype=torch.int64)
    for attacks, options, error, message in [
        *[(bad, {}, ValueError, "^expected at least one attack, got none: ") for bad in ([], (), iter([]))],
        *[
            (partial(attack, targeted=True), {"eps": 0.1}, ValueError, "^expected attacks that are not targeted, ")
            for attack in (pgd, fgsm, square)
        ],
        ([partial(pgd), partial(pgd, targeted=True)], {}, ValueError, "not targeted"),
        ("pgd", {}, TypeError, "^expected attacks, functions such as hfclib.pgd, got 'pgd'$"),
        (["pgd", "apgd"], {}, TypeError, "functions such as hfclib.pgd, got 'pgd'$"),
        (None, {}, TypeError, "functions such as hfclib.pgd, got None$"),
        (pgd, {"eps": "8/255"}, TypeError, "^expected eps, a number such as 8 / 255, got '8/255'$"),
        (pgd, {"eps": -1}, ValueError, "^expected eps, finite and at least 0, got -1$"),
        (pgd, {"eps": math.nan}, ValueError, "^expected eps, finite and at least 0, got nan$"),
        (pgd, {"eps": 8}, ValueError, "^expected eps of at most 1, such as 8 / 255"),
        *[
            (partial(attack, norm="l2"), {}, ValueError, "^expected eps with the norm l2, which has no default")
            for attack in (pgd, fgsm, apgd)
        ],
        (partial(pgd, steps=-1), {}, ValueError, "steps, a whole number"),
        (partial(square, queries=0), {}, ValueError, "queries, a whole number"),
    ]:
        with pytest.raises(error, match=message) as raised:
            robust_correct(Untouched(), pictures, labels, attacks, **options)
        assert "\n" not in str(raised.value)
    for eps, error, message in [
        (["8/255"], TypeError, "^expected eps, a number such as 8 / 255, got '8/255'$"),
        ([], ValueError, "^expected eps, one number or several, got an empty list$"),
    ]:
        with pytest.raises(error, match=message):
            robust_accuracy(Untouched(), pictures, labels, eps=eps)
    with pytest.raises(ValueError, match="not targeted"):
        smallest_eps(Untouched(), pictures, labels, partial(pgd, targeted=True))


def test_of_several_eps_a_bad_one_is_refused_before_the_work_on_the_others(network, pictures):
    asked = []
    network.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    with pytest.raises(ValueError, match=r"^expected eps of at most 1, such as 8 / 255"):
        robust_accuracy(network, pictures, torch.zeros(30, dtype=torch.int64), eps=[1 / 255, 8])
    assert sum(asked) < len(pictures)


def test_an_eps_given_to_robust_accuracy_is_that_of_an_l2_attack(network, pictures):
    labels = network(pictures).argmax(dim=1)
    assert robust_accuracy(network, pictures, labels, partial(pgd, norm="l2"), eps=3) == 0
    assert robust_accuracy(network, pictures, labels, partial(pgd, norm="l2", eps=3)) == 0
    assert robust_accuracy(network, pictures, labels, partial(fgsm, norm="l2"), eps=0) == 1


def test_no_images_are_no_error(network):
    for attacks in [
        partial(fgsm, eps=0.1),
        [partial(pgd, eps=0.1, alpha=0.1, steps=1), partial(square, eps=0.1, queries=2)],
    ]:
        none = torch.rand(0, 3, 4, 4), torch.zeros(0, dtype=torch.int64)
        right = robust_correct(network, *none, attacks)
        assert right.shape == (0,)
        assert right.dtype == torch.bool


def test_options_reach_attacks_that_have_them_and_no_others(network, pictures):
    labels, given = network(pictures).argmax(dim=1), []

    def with_both(model, images, labels, *, stop_early, amp):
        given.append((stop_early, amp))
        return images

    def with_none(model, images, labels):
        given.append(())
        return images

    def with_any(model, images, labels, *, indices, **others):
        assert indices.tolist() == list(range(30))
        return with_both(model, images, labels, **others)

    attacks = [with_both, with_none, with_any]
    assert robust_accuracy(network, pictures, labels, attacks) == 1
    assert robust_accuracy(network, pictures, labels, attacks, stop_early=False, amp=True) == 1
    assert given == [(True, False), (), (True, False), (False, True), (), (False, True)]


def test_transfer_is_scored_on_the_network_given(network, pictures):
    labels = network(pictures).argmax(dim=1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, bias=False))
    other[1].weight.data = -network[1].weight.data  # its attacks make ours more certain
    assert robust_accuracy(network, pictures, labels, partial(fgsm, eps=0.2)) == 0
    assert robust_accuracy(network, pictures, labels, lambda model, x, y: fgsm(other, x, y, eps=0.2)) == 1


def test_the_smallest_eps_of_a_linear_network(network, pictures):
    labels = network(pictures).argmax(dim=1)
    labels[:3] = 1 - labels[:3]
    exact = needed(network, pictures)
    highest = exact[3:].quantile(0.8).item()

    def attack(model, images, labels, eps):
        return pgd(model, images, labels, eps=eps, alpha=eps / 2, steps=3, random_start=False)

    smallest = smallest_eps(network, pictures, labels, attack, highest=highest, rounds=10, batch_size=7)
    assert (smallest[:3] == 0).all()
    within = exact[3:] < highest * (1 - 1e-4)
    assert (smallest[3:][~within & (exact[3:] > highest * (1 + 1e-4))] == math.inf).all()
    assert within.sum() > 15
    over = smallest[3:][within] - exact[3:][within]
    assert over.min() > -1e-5
    assert over.max() < highest / 2**10 + 1e-5
    coarse = smallest_eps(network, pictures, labels, attack, highest=highest, rounds=0)
    tried = torch.tensor(highest).item()
    assert set(coarse.unique().tolist()) == {0.0, tried, math.inf}


def test_the_smallest_eps_of_an_attack_with_random_starts_does_not_depend_on_the_batch_size(network, pictures):
    labels = network(pictures).argmax(dim=1)

    def smallest_in_batches(size):
        def attack(model, images, labels, eps, indices):
            return pgd(model, images, labels, eps=eps, alpha=eps / 10, steps=2, seed=0, indices=indices)

        return smallest_eps(network, pictures, labels, attack, rounds=5, batch_size=size)

    torch.testing.assert_close(smallest_in_batches(4), smallest_in_batches(30))


def test_bad_arguments(network, pictures):
    for options, error, message in [
        ({"batch_size": 0}, ValueError, "batch_size, a whole number of at least 1"),
        ({"attacks": lambda model, x, y: x[:1]}, ValueError, r"images \(30, 3, 4, 4\) from the attack, got \(1, 3"),
        ({"attacks": lambda model, x, y: x + 1}, ValueError, r"images in \[0, 1\] from the attack"),
        ({"attacks": lambda model, x, y: x * math.nan}, ValueError, r"images in \[0, 1\] from the attack"),
        ({"images": torch.rand(30, 3, 4, 4) + 1}, ValueError, r"images in \[0, 1\]"),
        ({"images": torch.rand(0, 3, 4, 4), "labels": torch.zeros(0).long()}, ValueError, "at least one image"),
        ({"labels": torch.full((30,), 2)}, ValueError, "labels below 2, the number of logits, got 2"),
        ({"attacks": lambda model, x, y: x, "eps": 0.1}, ValueError, "the keyword eps, got eps = 0.1"),
    ]:
        good = {"images": pictures, "labels": network(pictures).argmax(dim=1), "attacks": fgsm}
        with pytest.raises(error, match=message):
            robust_accuracy(network, **good | options)


def test_bad_searches(network, pictures):
    for options, message in [
        *[({"highest": bad}, "highest, finite and above 0") for bad in (0, math.nan, math.inf)],
        ({"rounds": -1}, "rounds, a whole"),
    ]:
        labels = network(pictures).argmax(dim=1)
        with pytest.raises(ValueError, match=message):
            smallest_eps(network, pictures, labels, lambda model, x, y, eps: fgsm(model, x, y, eps=eps), **options)


def test_a_search_with_a_bad_attack_is_refused_before_the_work(pictures):
    labels = torch.zeros(len(pictures), dtype=torch.int64)
    for attack, highest in ((partial(pgd, steps=-1), 0.5), (pgd, 2)):
        with pytest.raises(ValueError, match=r"expected (steps|eps)"):
            smallest_eps(Untouched(), pictures, labels, attack, highest=highest)
