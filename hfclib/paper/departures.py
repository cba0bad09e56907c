"""Every way in which the published runs depart from the paper, each with the runs that test whether it matters."""

import pandas as pd

from hfclib.paper.registry import RECIPES
from hfclib.runs.store import folders, stored_seeds
from hfclib.training.recipe import Recipe

_NARROW = ("fig4", "narrow", ("vanilla", "batchnorm", "dropout", "mixup"))
_WIDER = (
    ("stated", "narrow", ("vanilla_w32", "batchnorm_w32")),
    ("stated", "paper", ("vanilla_16", "batchnorm_16", "vanilla_cropped4", "batchnorm_cropped4")),
    ("stated", "paper", ("vanilla_cropped30", "batchnorm_cropped30")),
)
_AUTHORS = ("fig4", "authors", ("vanilla", "batchnorm"))
_EVERY, _UNTRAINED = "every stored run is measured in each way", "(not stored)"
# What, in the paper, here, how it is tested or why it is not, and the networks that show whether it matters: a name of
# `RECIPES`, the preset, and variants.
DEPARTURES = (
    (
        "width of the network",
        "64",
        "16",
        "alone, as stated (16 epochs) and with crop and flip (4 and 30); with BatchNorm and another schedule",
        *_WIDER,
        ("fig2", "laptop", ("fullwidth",)),
    ),
    ("architecture", "ResNet-18 (text), ResNet-32 (code)", "ResNet-18", "the code's network", _AUTHORS),
    (
        "schedule and length",
        "Adam at 1e-4, batches of 100, 100 epochs",
        "one cycle to 1e-3, batches of 128, 16 epochs",
        "the schedule as stated",
        _NARROW,
    ),
    (
        "augmentation",
        "none (crop and flip in the code's adversarial runs)",
        "crop and flip",
        "taken back alone, and together with the schedule; alone with the schedule as stated",
        ("ablation", "laptop", ("vanilla_noaug", "batchnorm_noaug")),
        _NARROW,
        ("stated", "narrow", ("vanilla_cropped", "batchnorm_cropped")),
    ),
    (
        "adversarial training",
        "PGD, eps 8/255 (text) or .03 in 10 steps (code)",
        "one step of 10/255 from a random start",
        "the same in 7 steps of 2/255, or as in the code",
        ("defense", "narrow", ("adversarial",)),
        ("defense", "authors", ("adversarial",)),
    ),
    ("mix-up", "alpha .5 (code: Beta(1, 1), one draw a batch)", "alpha .5", "Beta(1, 1)", (*_AUTHORS[:2], ("mixup",))),
    (
        "dropout",
        "fully connected layers (code: last map)",
        "what enters the last layer",
        "the last map",
        (*_AUTHORS[:2], ("dropout",)),
    ),
    (
        "scale of a band in training (Table 1)",
        "standard pixel range (code: divided by its maximum)",
        "both; for the LFC the maximum at r = 4 and 8 only",
        "the band divided by its maximum",
        ("fig1", "laptop", tuple(f"hfc{radius}max" for radius in (4, 8, 12, 16))),
        ("datasets", "laptop", ("lfc4max", "lfc8max")),
    ),
    (
        "scale of whole training images",
        "not stated (code: divided by their maximum, but for adversarial training)",
        "as they are, in [0, 1]",
        "the image divided by its maximum",
        _AUTHORS,
    ),
    (
        "scale of a band at test time",
        "“standard pixel scale” (code: divided by its maximum)",
        "raw, max and mean",
        _EVERY,
    ),
    ("BatchNorm at test time", "running averages (code: the test batch's)", "both", _EVERY),
    ("bins at distance r", "kept (code: not kept)", "not kept", "untested: inclusive=True is an option"),
    ("initial weights", "Xavier", "Xavier, uniform", "untested: the paper does not say which form"),
    (
        "arithmetic",
        "not stated",
        "bfloat16 where the processor has it",
        "changes accuracies by .0013 (on 1,000 images .005), once by .0052",
    ),
    ("stored weights", "not stated", "16-bit floats", "final values are those of the stored weights"),
    (
        "accuracy after each epoch",
        "not stated",
        "on 500 images (100 for BatchNorm at width 64 by another schedule)",
        "final values are on 10,000 (1,000 after four or sixteen epochs at width 64)",
    ),
    ("attacked images", "a subset that is not named", "the first 500 test images", "intervals cover the draw"),
    (
        "batch sizes, rates of optimisers",
        "not available to us (code: SGD .01, AdaDelta .1)",
        "ours",
        "untested: none is tuned",
    ),
    (
        "training on shuffled labels (the paper's Fig. 3)",
        "50,000 images; Adam at 1e-4, batches of 100; 100 epochs, shuffled 300",
        "5,000 images, batches of 64; 3e-4 for 60 epochs, with BatchNorm .001 for 20",
        "untested: a command is there",
    ),
    (
        "smallest eps that fools a network",
        "a library's defaults, images not named (code)",
        "PGD of 5 steps, bisection, the first 100 images",
        "untested: an attack of more steps would find smaller ones",
    ),
    (
        "sizes of LeNet, AlexNet and VGG (section 5.1)",
        "not stated",
        "those for images of 32 x 32; VGG-11 with half the channels",
        "untested",
    ),
    ("steps of PGD at test time", "not stated", "20, random start", "the strong attack takes 40, five times"),
    ("singular values kept", "not stated", "as many as match the LFC's energy", "untested"),
    ("rough kernels: penalty, and filter", "form and weight not stated", "ours; the penalty has weight 10", "untested"),
    ("detector and pictures", "RetinaNet-50 on COCO", "a small one on blood cells", "untested: a command is there"),
    ("seeds", "one, not fixed", "three or more of most recipes, one of the others", "intervals over seeds"),
)


def _with_seeds(recipe: Recipe) -> str:
    seeds = ", ".join(map(str, stored_seeds(recipe, folders()[:1])))
    return f"{recipe.name} (seed {seeds})" if seeds else f"{recipe.name} {_UNTRAINED}"


def departures_table() -> pd.DataFrame:
    """`DEPARTURES`, one row each, with the published runs that test it, or "untested" where none is published."""
    rows = {}
    for what, paper, here, how, *tests in DEPARTURES:
        names = [
            _with_seeds(RECIPES[name](preset)[variant]) for name, preset, variants in tests for variant in variants
        ]
        tested = "untested: " if names and all(name.endswith(_UNTRAINED) for name in names) else ""
        rows[what] = (paper, here, tested + (", ".join(names) or "\u2013"), how)
    columns = ["paper", "published runs", "tested by", "how"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("departure")
