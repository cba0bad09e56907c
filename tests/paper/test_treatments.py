"""Fixed moments in the chapter on BatchNorm: the probe, the treatments on a small network, tables and figure."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import nn

import hfclib
from hfclib._files import data_folder
from hfclib.data import embedded, to_float
from hfclib.models import resnet18
from hfclib.moments import matched, recalibrate_batchnorm
from hfclib.paper import treatments
from hfclib.paper.batch_statistics import PAIR
from hfclib.paper.intervals import image_error
from hfclib.paper.presets import TITLES
from hfclib.paper.tables import decimals, with_interval
from hfclib.paper.treatments import SOURCE, TREATED_RADII, TREATMENTS
from hfclib.transforms import feed_images
from tests.paper.tidy import welch


@pytest.fixture(scope="module")
def runs():
    return treatments.published_pair()


# ---- measuring


@pytest.mark.parametrize("penalty", [0.3, 1.0])
def test_the_probe_is_the_minimum_that_another_solver_finds(penalty):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    features = rng.normal(size=(60, 4)) * [1, 5, 0.2, 0] + 2 + np.eye(4)[labels]
    features[:, 3] = 7  # constant, so that its weight is 0
    std = np.array([*features.std(axis=0)[:3], 1])
    inputs = (features - features.mean(axis=0)) / std

    def loss(values):
        weight, bias = values[:12].reshape(3, 4), values[12:]
        logits = inputs @ weight.T + bias
        return (logsumexp(logits, axis=1) - logits[np.arange(60), labels]).sum() + penalty / 2 * (weight**2).sum()

    best = minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-6}).x
    weight, bias = treatments.fit_probe(torch.from_numpy(features), torch.from_numpy(labels), penalty=penalty)
    assert weight.numpy() == pytest.approx(best[:12].reshape(3, 4) / std, abs=1e-4)
    ours = torch.softmax(torch.from_numpy(features) @ weight.T + bias, dim=1)
    theirs = np.exp(inputs @ best[:12].reshape(3, 4).T + best[12:])
    assert ours.numpy() == pytest.approx(theirs / theirs.sum(axis=1, keepdims=True), abs=1e-4)


def test_a_batch_of_one_class_leaves_out_classes_with_one_image():
    labels = torch.tensor([3, 1, 3, 0, 1, 1])
    assert [places.tolist() for places in treatments.by_class(labels)] == [[1, 4, 5], [0, 2]]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_treatments_of_a_small_network_are_those_of_the_public_calls(norm):
    torch.manual_seed(0)
    model = resnet18(8, norm).eval()
    reference, labels = torch.rand(300, 3, 8, 8), torch.arange(300) % 10
    hfcs = feed_images(hfclib.split(reference, 2)[1], "max")
    train, test = (hfcs[:200], labels[:200]), (hfcs[200:], labels[200:])
    if norm == "batch":
        fixed, batch, how = recalibrate_batchnorm(model, train[0]), model, "batch"
    else:
        fixed, batch, how = matched(model, reference, source=train[0]), matched(model, reference), "running"
    own, of_source = (hfclib.logits(model, part) for part in (test[0], train[0]))
    expected = {
        "none": own,
        "centred": own - of_source.mean(dim=0),
        "fixed": hfclib.logits(fixed, test[0]),
        "batch": hfclib.logits(batch, test[0], bn_stats=how),
    }
    one_class = [test[1] == label for label in range(10)]
    alone = torch.cat([hfclib.logits(batch, test[0][places], bn_stats=how) for places in one_class])
    order = torch.cat([places.nonzero().squeeze(1) for places in one_class])
    right = {name: right_by_treatment.argmax(dim=1) == test[1] for name, right_by_treatment in expected.items()}
    right["one_class"] = alone.argmax(dim=1) == test[1][order]
    before = copy.deepcopy(model)
    bodies = (treatments._Body(network, reference) for network in (model, resnet18(8, norm).eval()))
    right_by_treatment = treatments._all_right(*bodies, train, test)
    assert set(right_by_treatment) == set(TREATMENTS)
    for name, correct in right.items():  # all but a few, which bfloat16 decides
        assert (right_by_treatment[name] == correct).double().mean() >= 0.95, name
    assert not torch.equal(right["fixed"], right["none"])
    # A network without its last layer gives the features of which a probe is fitted.
    before.fc = nn.Identity()
    weight, bias = treatments.fit_probe(hfclib.logits(before, train[0]), train[1])
    probed = (hfclib.logits(before, test[0]).double() @ weight.T + bias).argmax(dim=1) == test[1]
    assert (right_by_treatment["probe"] == probed).double().mean() >= 0.9


def test_features_get_the_moments_of_the_reference():
    torch.manual_seed(0)
    source, reference = 3 * torch.randn(500, 2) + 5, torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    found = treatments._given_moments(source, source, reference)
    assert found.mean(dim=0).tolist() == pytest.approx([2, 4], abs=1e-5)
    assert found.std(dim=0, correction=0).tolist() == pytest.approx([1, 1e-5**0.5], rel=1e-4)


# ---- what is stored


def test_every_stored_table_is_whole_and_says_where_it_comes_from(runs):
    assert {variant: len(ones) for variant, ones in runs.items()} == dict.fromkeys(PAIR, 3)
    wanted = [(treatment, "hfc", radius, "max", 10_000) for radius in TREATED_RADII for treatment in TREATMENTS]
    for run in runs.all():
        rows = treatments.stored(run)
        assert list(rows.drop(columns="accuracy").itertuples(index=False, name=None)) == wanted, run.path.name
        assert rows["accuracy"].between(0, 1).all()
        origin = json.loads((data_folder() / "treatments" / f"{run.path.name}.json").read_text())
        assert len(origin["commit"]) == 40, origin["commit"]


@pytest.mark.slow
def test_a_stored_number_from_the_weights(runs):
    """In float32 in place of bfloat16, by the public calls."""
    run, (images, labels) = runs["vanilla"][0], embedded("test")
    train = to_float(embedded("train")[0])
    test, source = (feed_images(hfclib.split(part, 4)[1], "max") for part in (to_float(images), train[:SOURCE]))
    by_hand = hfclib.accuracy(matched(run.model(), train, source=source), test, labels)
    stored = treatments.stored(run).query("treatment == 'fixed' and radius == 4")["accuracy"].item()
    assert by_hand == pytest.approx(stored, abs=0.006)


# ---- tables and figures


def by_hand():
    values = {"vanilla": {"none": (0.2, 0.3), "fixed": (0.5, 0.6)}, "batchnorm": {"fixed": (0.7, 0.75)}}
    return pd.DataFrame(
        {"variant": variant, "treatment": treatment, "radius": 4, "value": accuracy, "seed": seed}
        | {"n": 2_000, "draw": variant}
        for variant, treatments in values.items()
        for treatment, accuracies in treatments.items()
        for seed, accuracy in enumerate(accuracies)
    )


def test_the_table_has_means_and_leads_over_independent_samples():
    table = treatments.treatment_table(by_hand())
    assert list(table.index) == [(4, "fixed moments")]  # no other treatment has both networks
    by_scipy = welch([0.7, 0.75], [0.5, 0.6])
    counts = pd.Series([2_000, 2_000])
    errors = [image_error(pd.Series(ones), counts).mean() for ones in ((0.5, 0.6), (0.7, 0.75))]
    half = np.hypot(by_scipy.high - by_scipy.mean, 1.959964 * np.linalg.norm(errors))
    expected = [".550", ".725", with_interval(0.175, 0.175 - half, 0.175 + half), 2]
    assert table.loc[(4, "fixed moments")].tolist() == expected


def test_the_published_table_has_all_treatments_and_the_figure_draws_its_means(runs):
    rows = treatments.treatment_results(runs)
    table = treatments.treatment_table(rows)
    assert list(table.index) == [(radius, name) for radius in TREATED_RADII for name in TREATMENTS.values()]
    assert (table["seeds"] == 3).all()
    figure = treatments.treatment_figure(rows)
    assert [ax.get_title() for ax in figure.axes] == [f"r = {radius}" for radius in TREATED_RADII]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(TREATMENTS.values())
    for ax, radius in zip(figure.axes, TREATED_RADII, strict=True):
        drawn = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == len(TREATMENTS)]
        for variant, values in zip(PAIR, drawn, strict=True):
            here = rows[(rows["radius"] == radius) & (rows["variant"] == variant)]
            means = here.groupby("treatment")["value"].mean()[list(TREATMENTS)]
            assert values == pytest.approx(means.to_numpy())
            assert list(table.loc[radius, TITLES[variant]]) == list(map(decimals, means))


def test_without_a_stored_table_only_seeds_of_the_parameter_are_measured(runs, published_folder, monkeypatch):
    measured = []

    def measure(run):
        measured.append(run.seed)
        return pd.DataFrame([{"treatment": "none"}])

    monkeypatch.setattr(treatments, "measure_treatments", measure)
    assert treatments.treatment_results(runs).empty
    assert list(treatments.treatment_results(runs, compute=[1])["variant"]) == list(PAIR)
    assert measured == [1, 1]
