"""hfclib.tables_misalignment: what a reader sees is what the stored answers say."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from hfclib.data.cifar import CLASSES
from hfclib.evaluation import PAPER_RADII, misaligned
from hfclib.paper.fig2 import (
    counts_at,
    counts_by_cut,
    counts_figure,
    counts_over_seeds,
    example_table,
    misaligned_counts,
    pattern,
    recount,
)
from hfclib.paper.style import FIG2_TITLES
from hfclib.runs.predictions import Predictions
from hfclib.training.recipe import RADII


@pytest.fixture
def table(answers, true_classes):
    return counts_over_seeds({variant: {3: one} for variant, one in answers.items()}, true_classes)


def test_counts_of_both_cuts_and_every_seed(answers, true_classes):
    second = {
        variant: Predictions({key: (tensor + 1) % 10 for key, tensor in one.classes.items()}, one.batch_norm)
        for variant, one in answers.items()
    }
    found = counts_over_seeds({variant: {5: second[variant], 3: answers[variant]} for variant in answers}, true_classes)
    assert list(found.index) == list(range(len(found)))
    for seed, ones in ((3, answers), (5, second)):
        for cut in ("fourier", "svd"):
            rows = found[(found["seed"] == seed) & (found["cut"] == cut)].drop(columns="seed").reset_index(drop=True)
            pd.testing.assert_frame_equal(rows, misaligned_counts(ones, true_classes, RADII, cut=cut))
    assert len(found) == 2 * (66 + 132 + 42 + 3 * 4)


def test_panels_may_have_different_seeds(answers, true_classes):
    found = counts_over_seeds(
        {"vanilla": {0: answers["vanilla"]}, "batchnorm": {1: answers["batchnorm"]}}, true_classes
    )
    assert found.groupby("variant")["seed"].unique().map(list).to_dict() == {"vanilla": [0], "batchnorm": [1]}


def test_tables_of_one_seed_refuse_several(answers, true_classes):
    two = counts_over_seeds({"vanilla": {0: answers["vanilla"], 4: answers["vanilla"]}}, true_classes)
    for use in (
        counts_by_cut,
        lambda table: counts_at(table, 12),
        counts_figure,
        lambda table: recount({}, None, None, table, "raw", "running"),
    ):
        with pytest.raises(ValueError, match="expected counts of one seed, got those of 0, 4"):
            use(two)


# ---- image by image


@pytest.mark.parametrize(("feed", "bn_stats"), [("raw", "running"), ("max", "batch"), ("mean", "running")])
def test_eight_says_right_or_wrong_and_when_that_is_misaligned(answers, true_classes, feed, bn_stats):
    indices = list(range(60))
    found = example_table(answers, indices, true_classes, 12, feed, bn_stats)
    assert list(found.columns) == list(FIG2_TITLES.values())
    assert list(found.index) == [(index, CLASSES[index % 10]) for index in indices]
    words = {True: "right", False: "wrong"}
    for variant, one in answers.items():
        mask = pattern(one, true_classes, 12, feed=feed, bn_stats=bn_stats)
        assert mask.any()
        for index, text in zip(indices, found[FIG2_TITLES[variant]], strict=True):
            right = [
                words[int(one.on(band, radius, fed, bn_stats)[index]) == index % 10]
                for band, radius, fed in (("x", 0, "raw"), ("hfc", 12, feed), ("lfc", 12, feed))
            ]
            assert text == ", ".join(right) + (": misaligned" if mask[index] else "")


def test_images_beyond_those_that_were_asked_about(answers, true_classes):
    longer = torch.cat([true_classes, torch.tensor([7])])
    found = example_table({"vanilla": answers["vanilla"]}, [59, 60], longer, 12, "raw", "running")
    assert found["Vanilla, width 16"].tolist()[1] == "not asked"
    assert found["Vanilla, width 16"].tolist()[0] != "not asked"
    assert found.index.tolist() == [(59, CLASSES[9]), (60, CLASSES[7])]


def test_a_condition_that_a_network_was_not_asked_under(answers, true_classes):
    found = example_table(answers, [0], true_classes, 7, "max", "running")
    assert found["BatchNorm, width 64"].tolist() == ["not asked"]
    assert "not asked" not in found["BatchNorm, width 16"].tolist()


# ---- counts


@pytest.mark.parametrize("radius", [12, 8])
def test_counts_at_one_radius_beside_the_paper(answers, true_classes, table, radius):
    found = counts_at(table, radius)
    assert sorted(found.index) == sorted(
        (stats, feed) for stats in ("running", "batch") for feed in ("raw", "max", "mean")
    )
    assert list(found.columns) == [*FIG2_TITLES.values(), "paper"]
    for (bn_stats, feed), row in found.iterrows():
        for variant, title in FIG2_TITLES.items():  # without BatchNorm both rows have the one count
            stats = bn_stats if variant != "vanilla" else "running"
            same = {"variant": variant, "cut": "fourier", "radius": radius, "feed": feed, "bn_stats": stats}
            (one,) = table[(table[list(same)] == pd.Series(same)).all(axis=1)].itertuples()
            assert row[title] == f"{one.misaligned} (by chance {one.by_chance:.0f})"
    assert set(found["paper"]) == ({"~600"} if radius == 12 else {"not published"})


def test_a_count_that_was_not_made_is_no_other_count(answers, true_classes, table):
    found = counts_at(table, 7)["BatchNorm, width 64"]
    expected = int(pattern(answers["fullwidth"], true_classes, 7).sum())
    assert found["running", "raw"].startswith(f"{expected} (by chance ")
    assert set(found.drop(("running", "raw"))) == {"not asked"}


def test_counts_of_a_single_network_without_batchnorm(answers, true_classes):
    alone = counts_over_seeds({"vanilla": {0: answers["vanilla"]}}, true_classes)
    found = counts_at(alone, 12)
    assert len(found) == 6
    assert found.loc["running"].equals(found.loc["batch"])


def test_counts_by_cut(answers, true_classes, table):
    found = counts_by_cut(table)
    assert list(found.index) == list(PAPER_RADII)
    assert set(found.columns) == {
        f"{title}: {cut}" for title in FIG2_TITLES.values() for cut in ("Fourier split", "truncated SVD")
    }
    for variant, title in FIG2_TITLES.items():
        for cut, name in (("fourier", "Fourier split"), ("svd", "truncated SVD")):
            own = misaligned_counts({variant: answers[variant]}, true_classes, PAPER_RADII, cut=cut)
            own = own[(own["feed"] == "raw") & (own["bn_stats"] == "running")]
            expected = [pattern(answers[variant], true_classes, radius, cut=cut).sum().item() for radius in PAPER_RADII]
            chance = [f"{one:.0f}" for one in own["by_chance"]]
            texts = [f"{one} (by chance {other})" for one, other in zip(expected, chance, strict=True)]
            assert found[f"{title}: {name}"].tolist() == texts
            assert len(set(texts)) > 1
    assert counts_by_cut(table[table["variant"] == "vanilla"]).shape == (4, 2)


# ---- counting again


@pytest.mark.parametrize(("feed", "bn_stats"), [("raw", "running"), ("max", "batch")])
def test_recount_sets_counts_from_the_weights_beside_the_stored_ones(
    monkeypatch, answers, channel_means, feed, bn_stats
):
    monkeypatch.setattr("hfclib.devices.gains_from_bf16", lambda device: False)
    images, network = torch.rand(40, 3, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    labels = network(images).argmax(dim=1)
    stored = counts_over_seeds({variant: {0: one} for variant, one in answers.items()}, torch.arange(60) % 10)
    runs = {
        variant: SimpleNamespace(recipe=SimpleNamespace(norm=norm), model=lambda: network)
        for variant, norm in (("vanilla", "none"), ("batchnorm", "batch"))
    }
    found = recount(runs, images, labels, stored, feed, bn_stats)
    assert list(found.columns) == ["variant", "radius", "now", "stored"]
    assert list(found["radius"]) == list(RADII) * 2
    now = [int(misaligned(network, images, labels, radius, feed=feed).sum()) for radius in RADII]
    assert list(found["now"]) == now * 2
    assert sum(now) > 0
    for variant, statistics in (("vanilla", "running"), ("batchnorm", bn_stats)):
        own = stored.query(
            f"variant == '{variant}' and cut == 'fourier' and feed == '{feed}' and bn_stats == '{statistics}'"
        )
        assert list(found.loc[found["variant"] == variant, "stored"]) == list(own["misaligned"])
