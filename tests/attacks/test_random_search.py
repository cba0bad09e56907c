"""hfclib.attacks.random_search: ball and box, any batches, the optimum of a linear network, and refusals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hfclib.attacks.gradient import margin
from hfclib.attacks.random_search import _inside, square, square_side


def linear(weight):
    network = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight), bias=False))
    network[1].weight.data = weight
    return network


@given(seed=st.integers(0, 2**40), eps=st.floats(0, 1), queries=st.integers(1, 30), area=st.floats(0.01, 1))
def test_within_the_ball_and_the_box_and_never_worse(seed, eps, queries, area):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 5, 6, generator=generator).round(decimals=1)
    labels, network = torch.arange(4), linear(torch.randn(4, 90, generator=generator))
    kept = {
        count: square(network, images, labels, eps=eps, queries=count, area=area, seed=seed) for count in (1, queries)
    }
    for adv_images in kept.values():
        assert adv_images.min() >= 0
        assert adv_images.max() <= 1
        assert (adv_images.double() - images.double()).abs().max() <= eps + 1e-6
    assert (margin(network(kept[queries]), labels) >= margin(network(kept[1]), labels)).all()


def test_it_starts_from_vertical_stripes():
    grey, labels = torch.full((8, 3, 5, 6), 0.5), torch.zeros(8, dtype=torch.int64)
    start = square(linear(torch.zeros(2, 90)), grey, labels, eps=0.1, queries=1) - grey
    torch.testing.assert_close(start.abs(), torch.full_like(start, 0.1))
    assert torch.equal(start, start[..., :1, :].expand_as(start))
    assert 20 < (start[..., 0, :] > 0).sum() < 124  # of 144 stripes


def test_an_image_is_attacked_alike_in_every_batch():
    """Also beyond the 256 queries whose random numbers are drawn at once. Some images are fooled, sooner or later."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 4, 4, generator=generator)
    network = linear(torch.randn(3, 48, generator=generator))
    labels = network(images).argmax(dim=1)

    def attacked(size):
        batches = zip(*(some.split(size) for some in (images, labels, torch.arange(6))), strict=True)
        options = {"eps": 0.06, "queries": 300, "seed": 1}
        return torch.cat([square(network, *batch, indices=indices, **options) for *batch, indices in batches])

    together = attacked(6)
    assert 0 < (network(together).argmax(dim=1) == labels).sum() < 6
    for size in (1, 4):
        assert torch.equal(attacked(size), together)


def test_the_optimum_of_a_linear_network_is_found():
    """At the best corner of the ball each pixel is eps against the sign of its weight; the label stays ahead there, so
    that the search goes on to the end."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 16, generator=generator)
    images, labels = 0.4 + 0.2 * torch.rand(5, 1, 4, 4, generator=generator), torch.zeros(5, dtype=torch.int64)
    network = nn.Sequential(linear(weight), nn.Identity())
    network[0][1].bias = nn.Parameter(torch.tensor([50.0, 0.0]))
    best = images + 0.1 * (weight[1] - weight[0]).sign().view(1, 1, 4, 4)
    adv_images = square(network, images, labels, eps=0.1, queries=600, seed=0)
    torch.testing.assert_close(adv_images, best, rtol=0, atol=1e-6)
    few = square(network, images, labels, eps=0.1, queries=3, seed=0)
    assert (margin(network(few), labels) < margin(network(best), labels) - 1e-3).all()


def test_it_sees_through_a_masked_gradient():
    """Rounded logits have no gradient: PGD stands still, the random search does not."""
    weight = torch.randn(3, 48, generator=torch.Generator().manual_seed(2))

    class Steps(nn.Module):
        def forward(self, images):
            return (images.flatten(1) @ weight.T * 4).round() / 4

    images = torch.rand(12, 3, 4, 4)
    labels = Steps()(images).argmax(dim=1)
    adv_images = square(Steps(), images, labels, eps=0.2, queries=300)
    assert (Steps()(adv_images).argmax(dim=1) != labels).float().mean() > 0.8


def test_no_image_is_shown_more_often_than_queries_and_none_after_it_is_fooled():
    weight, seen = torch.randn(3, 48, generator=torch.Generator().manual_seed(2)), []

    class Counting(nn.Module):
        def forward(self, images):
            seen.append(len(images))
            return images.flatten(1) @ weight.T

    images = torch.rand(10, 3, 4, 4)
    labels = (images.flatten(1) @ weight.T).argmax(dim=1)
    square(Counting(), images, labels, eps=0.0, queries=7)
    assert seen == [10] * 7
    seen.clear()
    square(Counting(), images, (labels + 1) % 3, eps=0.0, queries=7)
    assert seen == [10]


def test_squares_shrink_as_published():
    """AutoAttack's table for 10,000 queries, area .8 of 32 x 32."""
    sides = {query: square_side(query, 10_000, 32, 32, 0.8) for query in (0, 10, 11, 51, 201, 501, 1001, 2001, 8001)}
    expected = {0: 1, 10: 1, 11: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 2001: 64, 8001: 512}
    assert sides == {query: round(math.sqrt(0.8 * 1024 / share)) for query, share in expected.items()}
    assert square_side(9_999, 10_000, 4, 4, 0.01) == 1
    assert square_side(0, 100, 4, 9, 1) == 4


def test_squares_lie_anywhere_in_the_image_and_nowhere_else():
    for side in [1, 3, 6]:
        inside = _inside(torch.rand(4_000, 2), side, 6, 8)
        assert inside.shape == (4_000, 1, 6, 8)
        assert (inside.sum(dim=(1, 2, 3)) == side * side).all()
        corners = {
            (int(rows.nonzero()[0]), int(columns.nonzero()[0]))
            for rows, columns in zip(inside[:, 0].any(dim=2), inside[:, 0].any(dim=1), strict=True)
        }
        assert len(corners) == (7 - side) * (9 - side)


def test_fast_arithmetic_stops_only_where_full_precision_agrees(in_bf16):
    """Fast arithmetic takes every image for fooled from the start; asked again in full precision, none is."""
    asked = []

    class Deceived(nn.Module):
        def forward(self, images):
            fast = torch.is_autocast_enabled("cpu")
            asked.append((fast, len(images)))
            first = (images[:, 0, 0, 0] - 0.5) * (-1 if fast else 1)
            return torch.stack([first, -first], dim=1)

    network, images = Deceived(), torch.rand(6, 3, 4, 4)
    labels = network(images).argmax(dim=1)
    asked.clear()
    adv_images = square(network, images, labels, eps=0.0, queries=5, amp=True)
    assert asked == [(True, 6), (False, 6)] + [(True, 6)] * 4
    assert torch.equal(network(adv_images).argmax(dim=1), labels)


def test_modes_are_restored_and_probabilities_warned_of():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.BatchNorm1d(3), nn.Softmax(dim=1)).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.warns(UserWarning, match="seems to return probabilities"):
        square(network, torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64), eps=0.1, queries=3)
    assert network.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_bad_arguments():
    for options, error, message in [
        ({"eps": -1}, ValueError, "expected eps, finite and at least 0"),
        ({"eps": math.nan}, ValueError, "expected eps, finite"),
        ({"eps": 8}, ValueError, "expected eps of at most 1"),
        ({"queries": 0}, ValueError, "queries, a whole number of at least 1"),
        *[({"area": bad}, ValueError, r"area, a share in \(0, 1\]") for bad in (0, 1.1, math.nan)],
    ]:
        with pytest.raises(error, match=message):
            square(linear(torch.randn(3, 48)), torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), **{"eps": 0.1} | options)


def test_no_images_are_no_error():
    empty = torch.rand(0, 3, 4, 4), torch.zeros(0, dtype=torch.int64)
    assert square(linear(torch.randn(3, 48)), *empty, eps=0.1, queries=3).shape == (0, 3, 4, 4)


def test_another_default_type_of_pytorch_changes_nothing():
    torch.set_default_dtype(torch.float64)
    try:
        images = torch.rand(2, 3, 8, 8, dtype=torch.float32)
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).float()
        adv_images = square(network, images, torch.tensor([0, 1]), queries=5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert adv_images.dtype == torch.float32
