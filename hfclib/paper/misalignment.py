"""Misaligned images counted from stored predictions: the networks, and how many images under each condition."""

from collections.abc import Mapping
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from hfclib.conditions import BANDS, BN_STATS, BnStats, Condition, Cut
from hfclib.data.cifar import CLASSES
from hfclib.paper.presets import TITLES, Preset, base_recipe, fig4_recipes, pair_recipes
from hfclib.runs.collect import Runs
from hfclib.runs.predictions import Predictions, by_condition, load_record
from hfclib.training.recipe import RADII, Recipe
from hfclib.transforms import FEEDS, Feed

PAPER_INDICES = (95, 134, 633, 692, 2568, 4435, 8267, 8501)  # the test images of the paper's Fig. 2


def fig2_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks whose misaligned images are counted: vanilla and batchnorm of Fig. 4, and fullwidth.

    Source: paper, Fig. 2, which does not say how its network was trained. fullwidth is a ResNet-18 of the published
    width with BatchNorm and a schedule that reaches a common accuracy in little time, its early epochs on smaller
    images; only "smoke" and "laptop" have it.
    """
    variants, base = fig4_recipes(preset), base_recipe(preset)
    chosen = {variant: variants[variant] for variant in ("vanilla", "batchnorm")}
    sizes = {
        "laptop": {"width": 64, "epochs": 20, "early_sizes": (16,) * 8 + (24,) * 7, "eval_images": 100},
        "smoke": {"width": 8, "early_sizes": (16,)},
    }
    if preset in sizes:
        schedule = {"algorithm": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "label_smoothing": 0.1}
        chosen["fullwidth"] = base.with_(name=f"{base.name}-fullwidth", norm="batch", **schedule, **sizes[preset])
    return chosen


def network_titles(preset: Preset = "laptop", end: str = "") -> dict[str, str]:
    """What figures and tables call the networks of `fig2_recipes`, such as "BatchNorm, width 64".

    With an end these are those of `pair_recipes`.
    """
    recipes = pair_recipes(preset, end) if end else fig2_recipes(preset)
    models = {variant: recipe.model for variant, recipe in recipes.items()}
    sizes = {
        variant: "ResNet-32" if model.network == "resnet32" else f"width {model.width}"
        for variant, model in models.items()
    }
    kinds = {"none": TITLES["vanilla"], "batch": TITLES["batchnorm"]}
    return {variant: f"{kinds[models[variant].norm]}, {size}" for variant, size in sizes.items()}


def stored_predictions(runs: Runs) -> dict[str, dict[int, Predictions]]:
    """By variant and seed, the stored predictions, under whatever conditions; without those on whole images, none.

    Of a published run, these are the published ones.
    """
    predictions: dict[str, dict[int, Predictions]] = {}
    for variant, ones in runs.items():
        for run in ones:
            if Condition("x") in (classes := by_condition(load_record("predictions", run, beside=True))):
                predictions.setdefault(variant, {})[run.seed] = Predictions(classes, run.batch_norm)
    return predictions


def predicted_images(predictions: Mapping[str, Mapping[int, Predictions]]) -> int:
    """How many test images, the first ones, all of the `stored_predictions` are about."""
    return min((len(answers.on("x")) for by_seed in predictions.values() for answers in by_seed.values()), default=0)


def stored_misaligned(
    predictions: Predictions,
    labels: Tensor,
    radius: int,
    *,
    cut: Cut = "fourier",
    feed: Feed = "raw",
    bn_stats: BnStats = "running",
) -> Tensor:
    """`misaligned` from stored predictions, (N,) bool; KeyError if the condition was not recorded."""
    low, high = (predictions.on(band, radius, feed, bn_stats) == labels for band in BANDS[cut])
    return (predictions.on("x", bn_stats=bn_stats) == labels) & high & ~low


def counts_over_seeds(predictions: Mapping[str, Mapping[int, Predictions]], labels: Tensor) -> pd.DataFrame:
    """How many images are misaligned at each radius, under every condition that was recorded.

    Args:
        predictions: by variant and seed; variants may have different seeds.
        labels: (N,) of the images they were made on.
    Returns:
        One row per (seed, cut, variant, radius, feed, bn_stats): images (N), and as counts correct (on whole images),
        misaligned, eight (those of PAPER_INDICES), and by_chance: the mean count if the predictions for the high parts
        were shuffled among the images.
        A network that predicts one class for every HFC is correct on the images of that class without reading them. A
        network without BatchNorm has one row, "running", for both kinds of statistics.
    """
    rows, seeds = [], sorted({seed for ones in predictions.values() for seed in ones})
    for seed, cut, variant, radius, feed, bn_stats in product(seeds, BANDS, predictions, RADII, FEEDS, BN_STATS):
        answers = predictions[variant].get(seed)
        known = answers and (answers.batch_norm or bn_stats == "running") and answers.has("x", bn_stats=bn_stats)
        if not known or not all(answers.has(band, radius, feed, bn_stats) for band in BANDS[cut]):
            continue
        misaligned = stored_misaligned(answers, labels, radius, cut=cut, feed=feed, bn_stats=bn_stats)
        correct = answers.on("x", bn_stats=bn_stats) == labels
        low, high = (answers.on(band, radius, feed, bn_stats) for band in BANDS[cut])
        shares = torch.bincount(high, minlength=len(CLASSES)).double() / len(labels)
        key = {"variant": variant, "cut": cut, "radius": radius, "feed": feed, "bn_stats": bn_stats}
        counts = {"images": len(labels), "correct": int(correct.sum()), "misaligned": int(misaligned.sum())}
        counts["eight"] = int(misaligned[[index for index in PAPER_INDICES if index < len(misaligned)]].sum())
        by_chance = shares[labels[correct & (low != labels)]].sum().item()
        rows.append({**key, **counts, "by_chance": by_chance, "seed": seed})
    return pd.DataFrame(rows)
