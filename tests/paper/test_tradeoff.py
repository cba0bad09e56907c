"""hfclib.paper.tradeoff: the corollary itself by brute force, its numbers by a closed form, and its figures.

The closed form. An image x = 1/2 + a cos(2 pi w / 16) + b cos(8 pi w / 16) has one low frequency, 1, and one high one,
4, of known amplitudes, in every row and channel. A radius up to 1 takes both away, one in (1, 4] only the high one, a
larger one nothing. A linear network whose weights are the same two cosines has the score alpha a + beta b + c, without
the terms of what was taken away.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hfclib import logits, split
from hfclib.conditions import PAPER_RADII
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.misalignment import network_titles
from hfclib.paper.tradeoff import (
    TRADEOFF,
    changed_by_run,
    changed_radius,
    distances,
    ruled_out,
    ruled_out_curves,
    ruled_out_figure,
    ruled_out_table,
    steps_table,
)
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import Predictions
from hfclib.training.recipe import RADII as ALL_RADII
from tests.paper.tidy import drawn

TITLES = network_titles()
METRICS = ("l2", "linf")
SIZE, COUNT = 16, 500
RADII = (1, 2, 4, 5)
ALPHA, BETA, SHIFT = 1.0, 0.8, 0.03
EPS = {"l2": (0.5, 1.0, 2.0, 3.0, 4.5, 6.0), "linf": (0.03, 0.1, 0.2, 0.3, 0.4)}


class Waves(NamedTuple):
    a: np.ndarray
    b: np.ndarray
    images: Tensor
    model: nn.Module


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.25, 0.25, (2, COUNT))
    low, high = (np.cos(2 * math.pi * frequency * np.arange(SIZE) / SIZE) for frequency in (1, 4))
    rows = 0.5 + a[:, None] * low + b[:, None] * high
    images = torch.tensor(rows, dtype=torch.float32)[:, None, None].expand(COUNT, 3, SIZE, SIZE).contiguous()
    pixels = 3 * SIZE * SIZE
    weight = np.broadcast_to((ALPHA * low + BETA * high) * 2 / pixels, (3, SIZE, SIZE))
    layer = nn.Linear(pixels, 2)
    with torch.no_grad():  # the class is 1 where the score is above zero, else 0
        layer.weight.copy_(torch.stack([torch.zeros(pixels), torch.tensor(weight.reshape(-1).copy())]))
        layer.bias.copy_(torch.tensor([0.0, SHIFT]))
    return Waves(a, b, images, nn.Sequential(nn.Flatten(), layer))


def taken(a, b, radius):
    """The amplitudes that a radius takes away."""
    return (a if radius <= 1 else 0 * a), (b if radius <= 4 else 0 * b)


def distances_in_closed_form(a, b):
    by_metric = {metric: [] for metric in METRICS}
    for radius in RADII:
        low, high = taken(a, b, radius)
        by_metric["l2"].append(np.sqrt((low**2 + high**2) / 2 * 3 * SIZE * SIZE))
        # Where the low wave is at +1 or -1 (w = 0 and 8) the high one is at +1: one of the two has the larger sum.
        by_metric["linf"].append(np.abs(low) + np.abs(high))
    return {metric: np.stack(rows) for metric, rows in by_metric.items()}


def changed_in_closed_form(a, b):
    score = ALPHA * a + BETA * b + SHIFT
    left = [score - ALPHA * low - BETA * high for low, high in (taken(a, b, radius) for radius in RADII)]
    return np.stack([(score > 0) != (one > 0) for one in left])


def ruled_out_in_closed_form(a, b, metric, eps):
    far, other = distances_in_closed_form(a, b)[metric], changed_in_closed_form(a, b)
    return [
        np.mean(
            [any(f <= one and c for f, c in zip(*column, strict=True)) for column in zip(far.T, other.T, strict=True)]
        )
        for one in eps
    ]


def predicted(model, images):
    def classes(seen):
        return logits(model, seen).argmax(dim=1).to(torch.uint8)

    found = {("lfc", radius, "raw", "running"): classes(split(images, radius)[0]) for radius in RADII}
    return Predictions({("x", None, "raw", "running"): classes(images), **found}, batch_norm=False)


def test_distances_have_the_closed_form(waves):
    measured, expected = distances(waves.images, RADII), distances_in_closed_form(waves.a, waves.b)
    assert set(measured) == set(METRICS)
    for metric in METRICS:
        assert measured[metric].shape == (len(RADII), COUNT)
        np.testing.assert_allclose(measured[metric].numpy(), expected[metric], rtol=1e-4, atol=1e-5)


def test_changed_predictions_have_the_closed_form(waves):
    changed = changed_radius(predicted(waves.model, waves.images), RADII)
    expected = changed_in_closed_form(waves.a, waves.b)
    assert changed.dtype == torch.bool
    assert changed.numpy().tolist() == expected.tolist()
    assert expected.sum(axis=1).tolist()[0] > expected.sum(axis=1).tolist()[1] > 0 == expected[-1].sum()
    assert (expected[1] == expected[2]).all()  # bins at exactly the radius are high


def test_from_r_14_on_predictions_are_compared_in_float32(answered):
    for kind, image, lfc in (("predictions", [0, 1], [0, 0]), ("float32", [3, 3], [0, 3])):
        classes = {("x",): torch.tensor(image)} | {("lfc", radius): torch.tensor(lfc) for radius in ALL_RADII}
        run = answered(classes, kind=kind)
    changed = changed_by_run(run)
    assert changed[:13].tolist() == [[False, True]] * 13
    assert changed[13:].tolist() == [[True, False]] * 9
    assert changed_by_run(run, torch.tensor([0, 1])).sum() == 13


@pytest.mark.parametrize("metric", METRICS)
def test_the_share_ruled_out_has_the_closed_form(waves, metric):
    distance, where = (
        distances(waves.images, RADII)[metric],
        changed_radius(predicted(waves.model, waves.images), RADII),
    )
    found = ruled_out(distance, where, EPS[metric])
    expected = ruled_out_in_closed_form(waves.a, waves.b, metric, EPS[metric])
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 4
    assert max(expected) < 1


def test_only_images_that_are_correct_count_if_asked(waves):
    predictions = predicted(waves.model, waves.images)
    everywhere, correct = changed_radius(predictions, RADII), torch.arange(COUNT) % 3 > 0
    labels = torch.where(correct, predictions.on("x"), 1 - predictions.on("x"))
    assert torch.equal(changed_radius(predictions, RADII, labels), everywhere & correct)
    assert everywhere[:, ~correct].any()
    with pytest.raises(KeyError):
        changed_radius(predictions, (2, 3))


@pytest.mark.parametrize("metric", METRICS)
def test_at_a_ruled_out_image_the_lfc_is_within_eps_and_gets_another_prediction(waves, metric):
    """Corollary 1 by brute force: an attacker who may only try the LFCs."""
    distance, where = (
        distances(waves.images, RADII)[metric],
        changed_radius(predicted(waves.model, waves.images), RADII),
    )
    norm = {
        "l2": lambda difference: difference.square().sum().sqrt(),
        "linf": lambda difference: difference.abs().max(),
    }
    predictions = logits(waves.model, waves.images).argmax(dim=1)
    for eps in EPS[metric]:
        fooled = []
        for image, prediction in zip(waves.images[:120], predictions, strict=False):
            tried = [split(image[None], radius)[0] for radius in RADII]
            near = [changed for changed in tried if norm[metric](image - changed[0]) <= eps]
            fooled.append(any(logits(waves.model, changed).argmax() != prediction for changed in near))
        found = [ruled_out(distance[:, [n]], where[:, [n]], [eps]).item() for n in range(120)]
        assert found == [float(changed) for changed in fooled]
    assert 0 < sum(fooled) < len(fooled)


# ---- each function


@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 10**6), st.lists(st.floats(0, 2), min_size=1, max_size=5))
def test_ruled_out_equals_a_loop(radii, count, seed, eps):
    generator = torch.Generator().manual_seed(seed)
    distance = torch.rand(radii, count, generator=generator, dtype=torch.float64) * 2
    where = torch.rand(radii, count, generator=generator) < 0.4
    expected = []
    for size in eps:
        hits = 0
        for image in range(count):
            for radius in range(radii):
                if where[radius, image] and distance[radius, image] <= size:
                    hits += 1
                    break
        expected.append(hits / count)
    assert ruled_out(distance, where, eps).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_distance_of_exactly_eps_counts():
    distance = torch.tensor([[8 / 255, 9 / 255]])
    assert ruled_out(distance, torch.ones(1, 2, dtype=torch.bool), [8 / 255]).tolist() == [0.5]
    assert ruled_out(torch.zeros(1, 2), torch.tensor([[True, False]]), [0]).tolist() == [0.5]


def test_refusals(images):
    for eps in ([-0.1], [0.1, -1e-9], [float("nan")]):
        with pytest.raises(ValueError, match="expected every eps to be at least 0"):
            ruled_out(torch.rand(2, 3), torch.ones(2, 3, dtype=torch.bool), eps)
    for first, second in (((2, 3), (3, 2)), ((2, 3), (2, 4)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))):
        with pytest.raises(ValueError, match=r"expected \(R, N\) twice"):
            ruled_out(torch.rand(first), torch.ones(second, dtype=torch.bool), [0.1])
    with pytest.raises(ValueError, match="at least 0"):
        distances(images, (4, -1))
    with pytest.raises(TypeError, match="float images"):
        distances(images.mul(255).to(torch.uint8), (4,))


def test_distances_are_to_the_unclipped_lfc(images):
    measured = distances(images, (0, 2, 3.5))
    for row, radius in enumerate((0, 2, 3.5)):
        for number, image in enumerate(images):
            difference = (image - split(images, radius)[0][number]).double().numpy()
            assert measured["l2"][row, number].item() == pytest.approx(np.linalg.norm(difference), abs=1e-5)
            assert measured["linf"][row, number].item() == pytest.approx(np.abs(difference).max(), abs=1e-6)
    assert measured["l2"][0].tolist() == pytest.approx(images.flatten(1).norm(dim=1).tolist())


def test_curves_are_ruled_out_on_a_grid(waves):
    distance, where = (
        distances(waves.images, RADII[:3]),
        changed_radius(predicted(waves.model, waves.images), RADII[:3]),
    )
    none = torch.zeros_like(where)
    rows = ruled_out_curves(distance, {"vanilla": [where], "batchnorm": [none]}, points=9)
    assert list(rows["metric"].unique()) == list(METRICS)
    for metric in METRICS:
        own = rows[rows["metric"] == metric].pivot(index="eps", columns="variant", values="share")
        sizes = own.index.to_numpy()
        assert len(sizes) == 9
        assert sizes[0] == pytest.approx(max(distance[metric].min().item(), 1e-4))
        assert sizes[-1] == pytest.approx(distance[metric].max().item())
        steps = np.diff(np.log(sizes))
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
        assert own["vanilla"].tolist() == ruled_out(distance[metric], where, sizes.tolist()).tolist()
        assert not own["batchnorm"].any()
        assert own["vanilla"].is_monotonic_increasing
        assert own["vanilla"].iloc[-1] > 0.2
    assert len(ruled_out_curves(distance, {"vanilla": [where]}).query("metric == 'l2'")) == 80


def test_curves_start_above_zero_where_an_image_is_its_own_lfc(waves):
    distance = distances(waves.images, RADII)
    assert distance["l2"].min() < 1e-4
    rows = ruled_out_curves(distance, {"vanilla": [torch.zeros(4, COUNT, dtype=torch.bool)]}, points=3)
    assert rows.loc[rows["metric"] == "l2", "eps"].min() == pytest.approx(1e-4)


# ---- the claim


def test_the_claim_is_about_images_that_a_network_classifies_correctly(answered, cifar):
    """Networks that are right about all of the first test images, or every other one, by NumPy's LFC."""
    images, labels = (part[:200] for part in cifar["test"])
    half = torch.where(torch.arange(200) % 2 == 0, labels, (labels + 1) % 10)
    same = torch.rand(4, 200, generator=torch.Generator().manual_seed(0)) < 0.8  # predictions for the image and its LFC

    def classes(whole):
        on_lfc = {("lfc", r): torch.where(same[i], whole, (whole + 2) % 10) for i, r in enumerate(PAPER_RADII)}
        return {("x",): whole, **on_lfc}

    part = classes(labels)
    del part["lfc", 16]  # a network of which a radius is missing is left out
    vanilla = [answered(known, seed=seed) for seed, known in enumerate((classes(labels), part, classes(half)))]
    runs = Runs({"vanilla": vanilla, "batchnorm": [answered(classes(half), seed=3)]})
    evidence = TRADEOFF.evidence(runs)
    assert evidence[["variant", "seed"]].to_numpy().tolist() == [["vanilla", 0], ["vanilla", 2], ["batchnorm", 3]]
    assert set(evidence["n"]) == {200}
    down, across = np.ogrid[-16:16, -16:16]
    spectrum, ruled = np.fft.fftshift(np.fft.fft2(images.numpy() / 255), axes=(2, 3)), np.zeros(200, bool)
    for radius, equal in zip(PAPER_RADII, same.numpy(), strict=True):
        hfc = np.fft.ifft2(np.fft.ifftshift(spectrum * (np.hypot(down, across) >= radius), axes=(2, 3))).real
        ruled |= (abs(hfc).max(axis=(1, 2, 3)) <= 8 / 255) & ~equal
    right = (half == labels).numpy()
    shares = ruled.mean(), (ruled & right).mean()
    assert evidence["value"].to_numpy() == pytest.approx([shares[0], shares[1], shares[1]])
    assert shares[0] > shares[1] > 0
    (claim,) = TRADEOFF.claims
    rows = pd.DataFrame(
        {"variant": ["vanilla"] * 3 + ["batchnorm"], "seed": [0, 1, 2, 0], "value": [0.1, 0.2, 0.3, 0.9]}
    )
    estimate = TRADEOFF.estimate(claim, rows)
    assert (estimate.mean, estimate.seeds) == (pytest.approx(0.2), 3)
    assert claim.judge(estimate) == "inconclusive"  # .2 +- .248
    with pytest.raises(MissingRunError):
        TRADEOFF.estimate(claim, rows.query("variant == 'batchnorm'"))


# ---- tables: three radii, four images, worked out by hand

FAR = torch.tensor([[5, 9, 9, 9], [3, 4, 6, 9], [1, 2, 5, 9.0]]) / 255
OTHER = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 1]]).bool()
NEVER = torch.zeros(3, 4, dtype=torch.bool)


def test_the_table_of_shares():
    shares = ruled_out_table(
        FAR, {"vanilla": [OTHER, NEVER], "batchnorm": [NEVER]}, [0.5 / 255, 2 / 255, 3 / 255, 6 / 255, 9 / 255], TITLES
    )
    assert list(shares.index) == ["0.5/255", "2/255", "3/255", "6/255", "9/255"]
    means = [".000", ".125", ".250", ".375", ".500"]  # of the shares .000, .250, .500, .750, 1.000 and none
    spreads = [".000", ".177", ".354", ".530", ".707"]
    assert shares["Vanilla, width 16"].tolist() == list(map("{}\u00a0±\u00a0{}".format, means, spreads))
    assert shares["BatchNorm, width 16"].tolist() == [".000"] * 5


def test_the_table_of_steps():
    distance = torch.tensor([[2.0, 9.0, 5.0], [1.0, 7.0, 8.0]]) / 255
    where = torch.tensor([[True, True, False], [False, True, False]])
    steps = steps_table(distance, {"vanilla": [where, where, ~where]}, (4, 8), TITLES)
    assert steps.index.tolist() == [4, 8]
    assert steps["median distance (Linf)"].tolist() == ["5/255", "7/255"]
    assert steps["within 8/255"].tolist() == [".667", "1.000"]
    rest = [".556", ".444"]  # (.667 + .667 + .333) / 3, and what is left
    assert steps["prediction changes: Vanilla, width 16"].tolist() == rest
    smaller = {"vanilla": "Vanilla, width 4"}
    assert "prediction changes: Vanilla, width 4" in steps_table(distance, {"vanilla": [where]}, (4, 8), smaller)
    assert list(ruled_out_table(distance, {"vanilla": [where]}, [0.5], smaller)) == ["Vanilla, width 4"]
    one = pd.DataFrame({"metric": ["l2", "linf"], "variant": "vanilla", "eps": 0.1, "share": 0.5})
    (legend,) = ruled_out_figure(one, [], smaller).legends
    assert [text.get_text() for text in legend.get_texts()] == ["Vanilla, width 4"]


# ---- figures

MARKED = (2 / 255, 8 / 255)


def test_the_figure_of_shares_that_are_ruled_out(images, answers):
    variants = ("vanilla", "batchnorm", "fullwidth")
    changed = {variant: changed_radius(answers[variant], ALL_RADII) for variant in variants}
    curves = ruled_out_curves(distances(images, ALL_RADII), {one: [mask[:, :12]] for one, mask in changed.items()}, 7)
    figure = ruled_out_figure(curves, MARKED, TITLES)
    left, right = figure.axes
    assert [ax.get_title() for ax in (left, right)] == ["L2 distance", "Linf distance"]
    assert [ax.get_xlabel() for ax in (left, right)] == ["eps (pixels in [0, 1])"] * 2
    assert figure.get_supylabel() == "Share of test images ruled out"
    for ax, metric in ((left, "l2"), (right, "linf")):
        assert ax.get_xscale() == "log"
        for variant, line in zip(variants, ax.lines, strict=False):
            own = curves[(curves["metric"] == metric) & (curves["variant"] == variant)]
            assert len(own) == 7
            assert list(line.get_xdata()) == own["eps"].tolist()
            assert list(line.get_ydata()) == own["share"].tolist()
    marked = [line.get_xdata()[0] for line in right.lines[len(variants) :]]
    assert (marked, len(left.lines)) == (pytest.approx(MARKED), len(variants))
    assert drawn(figure)
