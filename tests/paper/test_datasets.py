"""The chapter on other data, on tables made by hand."""

import pytest
import torch

from hfclib.conditions import PAPER_RADII
from hfclib.data import DATA_SETS
from hfclib.paper import datasets
from hfclib.paper.datasets import DATASETS, SETS, datasets_recipes
from hfclib.paper.intervals import MissingRunError
from hfclib.paper.names import DATA_NAMES
from hfclib.paper.presets import PRESETS, fig4_recipes
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import store_record, weights_of
from hfclib.runs.store import Run, stored_weights
from tests.paper.tidy import tidy

CLAIMS = {claim.id.removeprefix("datasets-"): claim for claim in DATASETS.claims}


def rows(data, variant, seed, **accuracies):
    """Rows of the chapter's table: `test`, `train`, "L4" and so on, halved on the HFC with the mean colour."""
    measured = []
    for name, accuracy in accuracies.items():
        band = {"L": "lfc", "H": "hfc", "M": None}.get(name[0], "x")
        radius = None if band == "x" else int(name[1:])
        for feed, bn_stats in [("raw", "running"), ("raw", "batch"), ("max", "batch"), ("mean", "running")]:
            if (band == "x" and feed != "raw") or (band is None and (feed, bn_stats) != ("raw", "running")):
                continue
            row = {"split": "train" if name == "train" else "test", "band": band, "radius": radius}
            row["measure"] = "misaligned" if band is None else "accuracy"
            row["value"] = accuracy / 2 if (band, feed) == ("hfc", "mean") else accuracy
            row |= {"feed": feed, "bn_stats": bn_stats, "train_band": "x", "train_radius": 0, "rescale": "none"}
            row["adversarial"] = "none"
            measured.append(row | {"data": data, "variant": variant, "seed": seed})
    return measured


@pytest.fixture
def measured():
    """Three seeds: BatchNorm is .3 ahead on the HFC of MNIST."""
    table = []
    for seed in range(3):
        more = 0.01 * seed
        for data in ("cifar10", "mnist"):
            table += rows(data, "vanilla", seed, train=0.9, test=0.8, H4=0.2, H8=0.1, M8=0.05 if data != "mnist" else 0)
            table += rows(data, "batchnorm", seed, train=0.9, test=0.8, H4=0.5 + more, H8=0.4 + more)
            table += rows(data, "hfc4max", seed, test=0.3) + rows(data, "hfc8max", seed, test=0.2)
    return tidy(table)


# ---- recipes


def test_the_data_set_is_the_only_change_but_for_crop_flip_and_length():
    networks = {}
    for preset in PRESETS:
        variants = datasets_recipes(preset)
        plain = {name: recipe for name, recipe in variants.items() if "-" not in name}
        assert set(fig4_recipes(preset)) <= set(plain) or preset == "smoke"
        for name, recipe in plain.items():
            assert recipe == fig4_recipes(preset).get(name, recipe)
            if name.endswith("max"):
                own = recipe.data
                assert (own.train_band, own.train_radius, own.rescale) == (name[:3], int(name[3]), "max")
            for word, data in list(SETS.items())[1:]:
                other = variants[f"{word}-{name}"]
                kept = {field: recipe.to_dict()[field] for field in ("name", "augment", "epochs", "train_images")}
                assert other.data.dataset == data
                assert other.with_(dataset="cifar10", **kept) == recipe
                networks[data, other.model] = other
    for recipe in networks.values():
        assert recipe.build()(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_the_command_knows_every_data_set():
    assert tuple(DATA_SETS) == DATA_NAMES


# ---- the table


def test_runs_are_sorted_by_data_and_misaligned_images_counted_on_their_own_test_set(random_run, own_home):
    made = random_run("vanilla", 0)
    (made.path / "weights.safetensors").write_bytes(b"of which no predictions are stored")
    recipe = datasets_recipes("smoke")["mnist-vanilla"]
    path = own_home / "runs" / recipe.run_name(0)
    path.mkdir(parents=True)
    torch.save(stored_weights(recipe.build()), path / "weights.safetensors")
    run = Run(recipe, 0, made.curves, made.final, made.provenance, path)
    labels = DATA_SETS["mnist"].embedded("test")[1][:50].to(torch.uint8)
    wrong = (labels + 1) % 10
    low = torch.where(torch.arange(50) < 10, wrong, labels)  # ten images are right but for their LFC
    names = {"x 0": labels, "lfc 8": low, "hfc 8": labels.clone()}
    store_record("predictions", path.name, {f"{k} raw running": v for k, v in names.items()}, weights_of(path))
    table = datasets.datasets_table(Runs({"vanilla": [made], "mnist-vanilla": [run]}))
    assert set(table["data"]) == {"cifar10", "mnist"}
    assert set(table["variant"]) == {"vanilla"}
    counts = datasets.misaligned_counts(table, 8)
    assert counts.to_dict("index") == {("MNIST", "Vanilla"): {"r = 8": "2000"}}
    store_record("predictions", made.path.name, {"x 0 raw running": labels}, weights_of(made.path))  # and of no band
    assert "misaligned" not in set(datasets.datasets_table(Runs({"vanilla": [made]}))["band"])


# ---- claims


def test_the_claims_on_a_table_with_known_answers(measured):
    expected = {
        "mnist-batchnorm": (0.31, "reproduced"),
        "mnist-batchnorm-controlled": (0.155, "reproduced"),
        "mnist-hfc": (0.25, "not reproduced in our set-up"),
        "mnist-misaligned": (0.05, "reproduced"),
    }
    for name, (mean, verdict) in expected.items():
        estimate = DATASETS.estimate(CLAIMS[name], measured)
        assert (estimate.mean, estimate.seeds) == (pytest.approx(mean), 3), name
        assert CLAIMS[name].judge(estimate) == verdict, name
    for name in set(CLAIMS) - set(expected):  # on Fashion-MNIST
        with pytest.raises(MissingRunError):
            DATASETS.estimate(CLAIMS[name], measured)


# ---- what is shown


def test_the_tables_say_what_is_known_and_what_is_not_trained(measured):
    assert list(datasets.misaligned_counts(measured[measured["band"] == "x"], 8).index) == ["not stored"]
    by_network = datasets.heuristics_table(measured)
    assert by_network.loc[("MNIST", "BatchNorm"), "H4"] == ".510\u00a0±\u00a0.010"
    assert ("Fashion-MNIST", "Vanilla") not in by_network.index


def test_figures_draw_what_is_stored_and_name_the_rest(measured):
    shown = datasets.heuristics_rows(measured)
    axes = datasets.heuristics_figure(shown).axes
    assert len(axes) == 4  # of two data sets under two conditions: nothing of Fashion-MNIST is in the table
    texts = ["\n".join(text.get_text() for text in ax.texts) for ax in axes]
    assert [("BatchNorm" in text, "Dropout" in text) for text in texts[:2]] == [(False, True)] * 2
    assert len(datasets.examples_of_bands(8).axes) == 18
    assert set(PAPER_RADII) == set(shown.query("band == 'hfc'")["radius"]) | {12, 16}


def test_without_such_networks_the_tables_say_so(measured):
    others = measured.head(1).assign(variant="a network of no table")
    assert list(datasets.heuristics_table(others).index) == ["not stored"]
    assert list(datasets.trained_on_bands(others).index) == ["not stored"]
    assert list(datasets.misaligned_counts(others.assign(measure="misaligned"), 8).index) == ["not stored"]
    table = datasets.trained_on_bands(measured[measured["variant"] != "hfc4max"])
    assert list(table.index) == [("CIFAR-10", "HFC, r = 8"), ("MNIST", "HFC, r = 8")]


def test_the_legend_names_what_any_panel_shows(measured):
    kept = measured[(measured["data"] != "cifar10") | (measured["variant"] != "batchnorm")]
    figure = datasets.heuristics_figure(datasets.heuristics_rows(kept))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(texts) == ["BatchNorm", "Vanilla", "chance (.10)"]
