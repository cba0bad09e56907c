"""Every way in which the published runs depart from the paper, each with the runs that test whether it matters."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from hfclib.paper.batchnorm import ablation_recipes
from hfclib.paper.datasets import datasets_recipes
from hfclib.paper.fig1 import fig1_recipes
from hfclib.paper.fig2 import fig2_recipes
from hfclib.paper.presets import Preset, adversarial_recipes, fig4_recipes
from hfclib.runs.store import stored_seeds
from hfclib.training.recipe import Recipe

Networks = tuple[Callable[[Preset], Mapping[str, Recipe]], Preset, tuple[str, ...]]


class Departure(NamedTuple):
    """A departure from the paper.

    Args:
        what, paper, here: in words.
        tests: the networks that show whether it matters; none where every stored run is measured both ways.
        how: how they do, or why nothing does.
    """

    what: str
    paper: str
    here: str
    tests: tuple[Networks, ...]
    how: str


_NARROW: Networks = (fig4_recipes, "narrow", ("vanilla", "batchnorm", "dropout", "mixup"))
_AUTHORS: Networks = (fig4_recipes, "authors", ("vanilla", "batchnorm"))
_EVERY = "every stored run is measured both ways"
DEPARTURES = (
    Departure(
        "width of the network",
        "64",
        "16",
        ((fig2_recipes, "laptop", ("fullwidth",)),),
        "not by itself: with BatchNorm only, and with another schedule",
    ),
    Departure("architecture", "ResNet-18 (text), ResNet-32 (code)", "ResNet-18", (_AUTHORS,), "the code's network"),
    Departure(
        "schedule and length",
        "Adam at 1e-4, batches of 100, 100 epochs",
        "one cycle to 1e-3, batches of 128, 16 epochs",
        (_NARROW,),
        "the paper's schedule",
    ),
    Departure(
        "augmentation",
        "none (crop and flip in the code's adversarial runs)",
        "crop and flip",
        ((ablation_recipes, "laptop", ("vanilla_noaug", "batchnorm_noaug")), _NARROW),
        "taken back alone, and together with the schedule",
    ),
    Departure(
        "adversarial training",
        "PGD, eps 8/255 (text) or .03 in 10 steps (code)",
        "one step of 10/255 from a random start",
        ((adversarial_recipes, "narrow", ("adversarial",)), (adversarial_recipes, "authors", ("adversarial",))),
        "the same in 7 steps of 2/255, or as in the code",
    ),
    Departure(
        "mix-up",
        "alpha .5 (code: Beta(1, 1), one draw a batch)",
        "alpha .5",
        ((*_AUTHORS[:2], ("mixup",)),),
        "Beta(1, 1)",
    ),
    Departure(
        "dropout",
        "fully connected layers (code: last map)",
        "what enters the last layer",
        ((*_AUTHORS[:2], ("dropout",)),),
        "the last map",
    ),
    Departure(
        "scale of a band in training (Table 1)",
        "standard pixel range (code: divided by its maximum)",
        "both; for the LFC the maximum at r = 4 and 8 only",
        (
            (fig1_recipes, "laptop", tuple(f"hfc{radius}max" for radius in (4, 8, 12, 16))),
            (datasets_recipes, "laptop", ("lfc4max", "lfc8max")),
        ),
        "the band divided by its maximum",
    ),
    Departure(
        "scale of a band at test time",
        "“standard pixel scale” (code: divided by its maximum)",
        "raw, max and mean",
        (),
        _EVERY,
    ),
    Departure("BatchNorm at test time", "running averages (code: the test batch's)", "both", (), _EVERY),
    Departure("bins at distance r", "kept (code: not kept)", "not kept", (), "untested: inclusive=True is an option"),
    Departure("initial weights", "Xavier", "Xavier, uniform", (), "untested: the paper does not say which form"),
    Departure("arithmetic", "not stated", "bfloat16 where the processor has it", (), "tests hold it to float32"),
    Departure("accuracy after each epoch", "not stated", "on the first 500 images", (), "final values are on 10,000"),
    Departure(
        "attacked images", "a subset that is not named", "the first 500 test images", (), "intervals cover the draw"
    ),
    Departure(
        "batch sizes, rates of optimisers",
        "not available to us (code: SGD .01, AdaDelta .1)",
        "ours",
        (),
        "untested: none is tuned",
    ),
    Departure(
        "training on shuffled labels (the paper's Fig. 3)",
        "50,000 images; 100 epochs, shuffled 300",
        "5,000 images; 60 epochs, with BatchNorm 20",
        (),
        "untested: a command is there",
    ),
    Departure(
        "smallest eps that fools a network",
        "a library's defaults, images not named (code)",
        "PGD of 5 steps, bisection, the first 100 images",
        (),
        "untested: an attack of more steps would find smaller ones",
    ),
    Departure(
        "steps of PGD at test time", "not stated", "20, random start", (), "the strong attack takes 40, five times"
    ),
    Departure("singular values kept", "not stated", "as many as match the LFC's energy", (), "untested"),
    Departure("penalty on rough kernels", "form and weight not stated", "ours, weight 10", (), "untested"),
    Departure(
        "detector and pictures",
        "RetinaNet-50 on COCO",
        "a small one on blood cells",
        (),
        "untested: a command is there",
    ),
    Departure(
        "seeds",
        "one, not fixed",
        "0, 1, 2, or more, of the main networks; 0 of most others",
        (),
        "intervals over seeds",
    ),
)


_UNTRAINED = "(not stored)"


def _with_seeds(recipe: Recipe) -> str:
    seeds = ", ".join(map(str, stored_seeds(recipe)))
    return f"{recipe.name} (seed {seeds})" if seeds else f"{recipe.name} {_UNTRAINED}"


def departures_table() -> pd.DataFrame:
    """`DEPARTURES`, one row each, with the stored runs that test it, or "untested" where none is stored."""
    rows = {}
    for one in DEPARTURES:
        names = [
            _with_seeds(recipes(preset)[variant]) for recipes, preset, variants in one.tests for variant in variants
        ]
        tested = "untested: " if names and all(name.endswith(_UNTRAINED) for name in names) else ""
        rows[one.what] = (one.paper, one.here, tested + (", ".join(names) or "\u2013"), one.how)
    columns = ["paper", "published runs", "tested by", "how"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("departure")
