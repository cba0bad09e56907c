"""The chapter on natural and shuffled labels, on tables made by hand."""

from itertools import chain
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from hfclib.conditions import Condition
from hfclib.paper import labels
from hfclib.paper.intervals import MissingRunError, interval
from hfclib.paper.labels import LABELS, LABELS_PUBLISHED
from hfclib.paper.tables import with_interval
from tests.paper.tidy import tidy

CLAIMS = {claim.id: claim for claim in LABELS.claims}


def rows(variant, seed, measure, accuracies, part="epoch", split="train"):
    """The rows of a table for one network and measure, epoch by epoch, or the one after training."""
    band, radius = (
        ("x", None) if measure in ("train", "test") else ({"L": "lfc", "H": "hfc"}[measure[0]], int(measure[1:]))
    )
    common = {"variant": variant, "seed": seed, "split": split, "band": band, "radius": radius, "cell": measure}
    common["n"] = 10**12  # whose draw makes no difference
    epochs = range(1, len(accuracies) + 1) if part == "epoch" else [None]
    return [common | {"epoch": epoch, "value": value} for epoch, value in zip(epochs, accuracies, strict=True)]


def network(variant, seed, shift=0.0):
    """A network at .1 to .9 on training images, with L4 at a third of that, L8 at half, L12 at 3/4, plus shift."""
    train = [0.1, 0.3, 0.5, 0.7, 0.9]
    measured = rows(variant, seed, "train", train) + rows(variant, seed, "train", [0.9], "end")
    for measure, share in (("L4", 1 / 3), ("L8", 1 / 2), ("L12", 3 / 4), ("L16", 1)):
        curve = [share * one + shift for one in train]
        measured += rows(variant, seed, measure, curve) + rows(variant, seed, measure, curve[-1:], "end")
    return measured


@pytest.fixture
def measured():
    """Three seeds of natural labels, .1 above shuffled ones on every band of training images, and .01 apart."""
    every = (network("natural", seed, 0.1 + 0.01 * seed) + network("shuffled", seed) for seed in (0, 1, 2))
    return tidy(chain.from_iterable(every))


# ---- equal training accuracy


def test_curves_are_interpolated_at_the_first_crossing():
    curves = rows("natural", 0, "train", [0.2, 0.6, 0.4, 0.8]) + rows("natural", 0, "L8", [0.1, 0.3, 0.9, 0.5])
    curves += rows("natural", 1, "train", [0.5, 0.6, 0.7, 0.75]) + rows("natural", 1, "L8", [0.2, 0.2, 0.4, 0.5])
    reached = labels.at_accuracy(tidy(curves), "natural", "L8", [0.3, 0.5, 0.6, 0.7, 0.9])
    # Seed 0 falls back after its second epoch: only the first crossing counts. It reaches .7 on the way from .4 to .8.
    assert reached[0].tolist() == pytest.approx([0.15, 0.25, 0.3, 0.6, float("nan")], nan_ok=True)
    # Seed 1 is at .5 after its first epoch, before which nothing is known.
    assert reached[1].tolist() == pytest.approx([float("nan"), float("nan"), 0.2, 0.4, float("nan")], nan_ok=True)


def test_the_figure_over_training_accuracy_has_each_seed_at_each_level_that_it_reaches(measured):
    over = labels.over_accuracy(measured, [8])
    assert set(over["measure"]) == {"L8"}  # no HFC in this table
    one = over.query("variant == 'shuffled' and seed == 1").set_index("train")["value"]
    assert one.to_dict() == pytest.approx({level: level / 2 for level in labels.LEVELS if level <= 0.9})


# ---- claims


def test_the_claims_on_a_table_with_known_answers(measured):
    for name in ("end-batchnorm", "equal"):
        claim = CLAIMS[f"labels-{name}"]
        estimate = LABELS.estimate(claim, measured)
        assert (estimate.mean, estimate.seeds) == (pytest.approx(0.11), 3)
        assert estimate.low == pytest.approx(0.11 - 4.30265 * 0.01 / 3**0.5, abs=1e-5)  # Student's t, 2 degrees
        assert claim.judge(estimate) == "reproduced", name
    plain = measured.assign(variant=measured["variant"] + "_plain")
    early = CLAIMS["labels-early"]
    assert LABELS.estimate(early, plain).mean == pytest.approx(0.1 / 3 - 0.1)  # one epoch of five
    assert early.judge(LABELS.estimate(early, plain)) == "reproduced"
    nearer = measured.copy()
    for kind, values in LABELS_PUBLISHED.items():
        for measure, value in values.items():
            at = (nearer["variant"] == kind) & (nearer["cell"] == measure) & nearer["epoch"].isna()
            nearer.loc[at, "value"] = value + (0.04 if (kind, measure) == ("shuffled", "L12") else 0.01)
    assert LABELS.estimate(CLAIMS["labels-levels-batchnorm"], nearer).mean == pytest.approx(0.04)
    nearer["variant"] += "_plain"
    assert LABELS.estimate(CLAIMS["labels-levels-plain"], nearer).mean == pytest.approx(0.04)


def test_a_peak_is_sought_in_the_other_seeds():
    """A peak that each seed has at another epoch is noise, and no fall."""
    noise = [[0.5, 0.3, 0.3, 0.3, 0.3, 0.3], [0.3, 0.5, 0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.5, 0.3, 0.3, 0.3]]
    fall, plain = CLAIMS["labels-fall-batchnorm"], CLAIMS["labels-fall-plain"]
    measured = tidy(chain.from_iterable(rows("natural", seed, "L4", one) for seed, one in enumerate(noise)))
    assert LABELS.estimate(fall, measured).mean == pytest.approx(0)
    same = [rows("natural", seed, "L4", [0.3, 0.5, 0.4, 0.3, 0.2, 0.1]) for seed in range(3)]
    real = tidy(chain.from_iterable(same))
    assert LABELS.estimate(fall, real).mean == pytest.approx(0.5 - 0.2)  # the mean of the last three epochs
    assert LABELS.estimate(plain, real.assign(variant="natural_plain")) == LABELS.estimate(fall, real)


def test_one_seed_has_no_other_in_which_to_seek_the_peak(measured):
    with pytest.raises(MissingRunError):
        LABELS.estimate(CLAIMS["labels-fall-batchnorm"], measured[measured["seed"] == 0])


def test_a_seed_counts_only_if_both_kinds_of_labels_have_it(measured):
    part = measured[(measured["variant"] == "natural") | (measured["seed"] == 2)]
    assert LABELS.estimate(CLAIMS["labels-end-batchnorm"], part).seeds == 1
    with pytest.raises(MissingRunError):
        LABELS.estimate(CLAIMS["labels-end-batchnorm"], measured[measured["variant"] == "natural"])


def test_the_paper_beside_the_claims():
    paper = {name.removeprefix("labels-"): claim.paper for name, claim in CLAIMS.items()}
    known = {"end": 0.12, "fall": 0.12, "levels": 0.0}
    both = {f"{name}-{kind}": value for name, value in known.items() for kind in ("batchnorm", "plain")}
    others = {"end-L4-batchnorm": 0.13, "end-plain-L4": 0.13, "end-L12-batchnorm": 0.01, "end-plain-L12": 0.01}
    assert paper == both | others | {"early": 0.0, "equal": None}


# ---- tables and figures


def test_tables_say_what_is_missing_and_what_is_not_reached(measured):
    end = labels.end_table(measured, [8])
    assert end.loc["L8", ("natural labels", "with BatchNorm")] == ".560\u00a0±\u00a0.010"
    differ = end["natural less shuffled"]
    assert differ["paper"].tolist() == [".01", ".12", "not in the paper"]
    assert differ.loc["L8", "with BatchNorm"] == with_interval(*interval([0.1, 0.11, 0.12]))
    equal = labels.equal_table(measured, [8], [0.5, 0.95])
    assert set(equal.index.get_level_values("networks")) == {"with BatchNorm"}  # the others are not trained
    plain = measured[measured["variant"] == "natural"].assign(variant="natural_plain")
    both = labels.equal_table(pd.concat([measured, plain]), [8])
    assert set(both.xs("shuffled", axis=1, level=1).loc[("without BatchNorm", "L8")]) == {"run missing"}
    assert equal.loc[("with BatchNorm", "L8"), ("training accuracy .5", "shuffled")].startswith(".250")
    assert set(equal.loc[("with BatchNorm", "L8")].iloc[3:]) == {"not reached"}


def test_bands_agree_with_the_image_where_the_network_predicts_the_same(answered):
    """Of four images the LFC is predicted as the image is, and the HFC as class 1."""
    whole = torch.tensor([1, 0, 1, 1])
    classes = {Condition("x"): whole}
    classes |= {Condition("lfc", r): whole for r in (4, 8)} | {Condition("hfc", r): torch.ones(4) for r in (4, 8)}
    stored, tables_only = answered(classes, seed=1, batch_norm=True), SimpleNamespace(seed=1, has_weights=False)
    agreed = labels.agreement({"natural": [stored], "shuffled": [tables_only]}, [4, 8])
    assert set(agreed["variant"]) == {"natural"}
    assert agreed.set_index("measure")["agreement"].to_dict() == {"L4": 1, "H4": 0.75, "L8": 1, "H8": 0.75}


def test_what_a_network_reads_of_test_images(measured):
    test = tidy(rows("shuffled", 0, "test", [0.1], "end", "test") + rows("shuffled", 0, "L8", [0.2], "end", "test"))
    agreed = pd.DataFrame([{"variant": "shuffled", "seed": 0, "measure": "L8", "agreement": 0.75}])
    table = labels.reading_table(pd.concat([measured, test]), agreed, [8])
    assert table.loc[("shuffled, with BatchNorm", "accuracy")].tolist() == [".100", ".200", "run missing"]
    assert table.loc[("shuffled, with BatchNorm", "same as image")].tolist() == ["", ".75", ""]


def test_figures_draw_means_and_published_ends(measured):
    (natural, shuffled, *_) = labels.epochs_figure(labels.epochs_rows(measured, [8]), [8]).axes
    assert any(list(line.get_ydata()) == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.45]) for line in shuffled.lines)
    for ax, expected in ((natural, {"s": 0.65, "o": 0.98}), (shuffled, {"s": 0.53, "o": 0.97})):
        assert {line.get_marker(): line.get_ydata()[0] for line in ax.lines if line.get_marker() in "so"} == expected
    (only,) = labels.over_accuracy_figure(labels.over_accuracy(measured, [8]), [8]).axes
    assert sorted(line.get_ydata()[0] for line in only.lines if line.get_marker() == "s") == [0.53, 0.65]
