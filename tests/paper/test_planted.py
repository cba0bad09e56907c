"""The chapter on a planted signal, on tables made by hand."""

import pytest
import torch

from hfclib.paper import planted
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.planted import PLANTED, SIGNAL_NETWORKS, planted_recipes
from hfclib.paper.presets import PRESETS, fig4_recipes
from hfclib.runs.collect import Runs
from hfclib.training.recipe import RADII
from tests.paper.tidy import tidy

CLAIMS = {claim.id.removeprefix("datasets-planted-"): claim for claim in PLANTED.claims}


def rows(variant, seed, **accuracies):
    """Rows of the chapter's table: `test`, `clean`, "L4" and so on."""
    measured = []
    for name, accuracy in accuracies.items():
        radius = int(name[1:]) if name[0] == "L" else None
        row = {"split": "test", "band": "lfc" if radius else "x", "radius": radius, "value": accuracy, "feed": "raw"}
        row |= {"measure": "clean accuracy" if name == "clean" else "accuracy", "adversarial": "none"}
        row |= {"variant": variant, "seed": seed}
        measured += [row | {"bn_stats": bn_stats} for bn_stats in ("running", "batch")]
        if radius:  # with the mean colour an LFC is what it is raw
            measured.append(row | {"feed": "mean", "bn_stats": "running"})
    return measured


def lfc(step_at, low, high):
    """Accuracies on the LFC at every radius: `low`, and from `step_at` on `high`."""
    return {f"L{radius}": high if radius >= step_at else low for radius in RADII}


@pytest.fixture
def measured():
    """Three seeds with BatchNorm: a signal lifts .8 to .995, and is in the LFC from r = 16 on."""
    table = []
    for seed in range(3):
        table += rows("batchnorm", seed, test=0.8, **lfc(1, 0, 0.78))
        table += rows("planted_batchnorm", seed, test=0.995, clean=0.6, **lfc(16, 0.59, 0.98))
    return tidy(table)


def test_the_signal_is_the_only_change():
    for preset in PRESETS:
        variants = planted_recipes(preset)
        for name in SIGNAL_NETWORKS:
            assert variants[name] == fig4_recipes(preset)[name]
            signal = variants[f"planted-{name}"]
            assert signal.data.planted == 2 / 255
            assert signal.with_(name=variants[name].name, planted=0) == variants[name]


def test_the_table_names_networks_as_the_claims_do(random_run):
    run = random_run("vanilla", 0)
    table = planted.planted_results(Runs({"vanilla": [run], "planted-vanilla": [run]}))
    assert set(table["variant"]) == {"vanilla", "planted_vanilla"}
    assert set(PLANTED.cell_variants("smoke")) >= set(table["variant"])


def test_the_claims_on_a_table_with_known_answers(measured):
    expected = {
        "batchnorm-test": (0.995, "reproduced"),
        "batchnorm-clean": (0.2, "reproduced"),
        "batchnorm-L12": ((0.995 - 0.59) - (0.8 - 0.78), "reproduced"),
        "batchnorm-L20": ((0.995 - 0.98) - (0.8 - 0.78), "reproduced"),
    }
    for name, (mean, verdict) in expected.items():
        estimate = PLANTED.estimate(CLAIMS[name], measured)
        assert (estimate.mean, estimate.seeds) == (pytest.approx(mean), 3), name
        assert CLAIMS[name].judge(estimate) == verdict, name
    assert len(CLAIMS) == 2 * len(expected)
    for name in set(CLAIMS) - set(expected):  # without BatchNorm
        with pytest.raises(MissingRunError):
            PLANTED.estimate(CLAIMS[name], measured)


def test_a_signal_that_the_lfc_shows_everywhere_is_not_given_away(measured):
    seen = measured.copy()
    seen.loc[measured["variant"].str.startswith("planted") & (seen["band"] == "lfc"), "value"] = 0.98
    claim = CLAIMS["batchnorm-L12"]
    assert claim.judge(PLANTED.estimate(claim, seen)) == "contradicted"


def test_the_table_has_what_is_trained(measured):
    table = planted.planted_table(measured)
    assert table.loc[("with BatchNorm", "L12")].tolist()[:2] == [".590\u00a0±\u00a0.000", ".780\u00a0±\u00a0.000"]
    assert table.loc[("with BatchNorm", "L12")].iloc[2].startswith(".385")
    assert set(table.index.get_level_values("network")) == {"with BatchNorm"}  # the others are not trained


def test_the_figure_draws_what_is_stored(measured):
    with_norm, _ = planted.planted_figure(planted.planted_rows(measured)).axes
    curves = [list(line.get_ydata()) for line in with_norm.lines if len(line.get_ydata()) == len(RADII)]
    assert [0.59] * 15 + [0.98] * 7 in curves


def test_taking_the_signal_away_and_giving_that_of_another_class():
    class ReadsTheSignal(torch.nn.Module):
        def forward(self, images):
            patterns = planted.planted(torch.zeros(10, 3, 32, 32, dtype=torch.uint8), torch.arange(10), 1.0)
            return torch.einsum("nchw,kchw->nk", images, patterns)

    class Reader:
        def model(self):
            return ReadsTheSignal().eval()

    table = planted.swapped(Runs({name: [Reader()] for name in ("planted-batchnorm", "planted-vanilla")}), count=100)
    assert float(table.loc[("with BatchNorm", "that of the next class"), "the signal's class"]) > 0.7
    assert float(table.loc[("with BatchNorm", "its own"), "own class"]) > 0.7
    assert float(table.loc[("with BatchNorm", "none"), "own class"]) < 0.3
