"""Batch size, optimiser and architecture (the paper's Fig. 4 and section 5.1): do they change the use of the HFC?

Networks have no BatchNorm, as vanilla has none, so a measurement does not depend on the test batch.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from hfclib.paper.intervals import Estimate, over_seeds
from hfclib.paper.presets import Preset, base_recipe, fig4_recipes
from hfclib.paper.tables import CONDITIONS, by_seed
from hfclib.paper.verdicts import Claim
from hfclib.training.recipe import Recipe


def training_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Vanilla of Fig. 4 and one change of it each: of the batch size, the optimiser or the architecture.

    - batch32, batch64, batch256, batch512: images a batch, at as many epochs, and so at fewer steps the larger they
      are; a size that is vanilla's own is left out. steps512 has 512 images a batch and as many steps as vanilla.
    - sgd (without momentum), adagrad, adadelta, rmsprop. Learning rates 1e-2, 1e-2, 1e-1, 1e-3, which the preset's
      schedule takes as it takes Adam's: the peak of "one_cycle", or the constant rate.
    - lenet, alexnet, vgg (`models`). VGG-11 starts with as many channels as the preset's ResNet, at "laptop" with 32:
      2.3 M parameters, at which an image costs as much time as with the ResNet-18 of width 16.

    Source: paper, section 5.1 and Fig. 4, which publish neither sizes of batches nor settings; learning rates of SGD
    and AdaDelta from comments in the authors' code, the others ours. No network has BatchNorm, as vanilla has none.
    """
    base, vanilla = base_recipe(preset), fig4_recipes(preset)["vanilla"]
    changes = {f"batch{size}": {"batch_size": size} for size in (32, 64, 256, 512) if size != vanilla.batch_size}
    changes["steps512"] = {"batch_size": 512, "epochs": round(vanilla.epochs * 512 / vanilla.batch_size)}
    changes |= {
        "sgd": {"optimizer": "sgd_plain", "learning_rate": 1e-2},
        "adagrad": {"optimizer": "adagrad", "learning_rate": 1e-2},
        "adadelta": {"optimizer": "adadelta", "learning_rate": 1e-1},
        "rmsprop": {"optimizer": "rmsprop", "learning_rate": 1e-3},
        "lenet": {"arch": "lenet"},
        "alexnet": {"arch": "alexnet"},
        "vgg": {"arch": "vgg11", "width": 32 if preset == "laptop" else vanilla.width},
    }
    variants = {
        variant: replace(vanilla, name=f"{base.name}-{variant}", **change) for variant, change in changes.items()
    }
    return {"vanilla": vanilla, **variants}


# ---- claims: written before any network of this chapter but vanilla was trained

HFC = "measured as the authors did, mean of H4 and H8"
SMALL, LARGE = ("batch32", "batch64"), ("batch256", "batch512")
OTHER_OPTIMIZERS = ("vanilla", "adagrad", "adadelta", "rmsprop")  # vanilla has Adam
OTHER_ARCHITECTURES = ("lenet", "alexnet", "vgg")  # vanilla is a ResNet


def at_end(final: pd.DataFrame, what: str) -> pd.DataFrame:
    """What the claims compare, of networks after training: one row per seed, one column per stored variant.

    Args:
        final: a table from `gather(runs, "final")`.
        what: "train" or "test" accuracy on whole images, "gap", the former less the latter, or "hfc", the mean of the
            accuracies on the HFC at r = 4 and 8, divided by its own maximum, as the authors' code feeds it.
    """
    feed, bn_stats = CONDITIONS["measured as the authors did"]
    terms = {"gap": {"train": 1, "test": -1}, "hfc": {"H4": 0.5, "H8": 0.5}}.get(what, {what: 1})
    return sum(weight * by_seed(final, measure, feed, bn_stats) for measure, weight in terms.items())


def _batches(final: pd.DataFrame, *, what: tuple[str, ...]) -> Estimate:
    """Small batches less large ones, by seed; of several quantities the smallest difference.

    Each side is the mean of two sizes; a seed that lacks one of the four has no value.
    """
    differences = {}
    for one in what:
        wide = at_end(final, one).reindex(columns=[*SMALL, *LARGE])
        sides = (wide[list(names)].mean(axis=1, skipna=False) for names in (SMALL, LARGE))
        differences[one] = next(sides) - next(sides)
    return over_seeds(pd.DataFrame(differences).min(axis=1, skipna=False))


def _leads(final: pd.DataFrame, *, what: str, variant: str, others: tuple[str, ...], sign: int = 1) -> Estimate:
    """A variant less each of the others, times `sign`, by seed: the smallest of these; none where a run is missing."""
    wide = at_end(final, what).reindex(columns=[variant, *others])
    return over_seeds(wide[list(others)].rsub(wide[variant], axis=0).mul(sign).min(axis=1, skipna=False))


def _claims() -> Iterator[Claim]:
    claim = partial(Claim, figure="training", relation="exceeds")
    batches = partial(claim, section="section 5.1, Fig. 4")
    rows = {
        "accuracy": (
            "Small batches give a higher accuracy on training and on test images than large ones",
            ("train", "test"),
            "whole images, the smaller of two differences",
        ),
        "gap": (
            "Large batches have a smaller gap between training and test accuracy than small ones",
            ("gap",),
            "whole images",
        ),
        "hfc": ("Large batches make a network less accurate on the HFC than small ones do", ("hfc",), HFC),
    }
    for name, (text, what, version) in rows.items():
        yield batches(
            id=f"training-batch-{name}",
            text=text,
            version=f"32 and 64 less 256 and 512 at equal epochs; {version}",
            statistic=partial(_batches, what=what),
        )
    yield claim(
        id="training-steps-hfc",
        section="ours",
        text="At as many steps, batches of 512 make a network less accurate on the HFC than batches of 128 do",
        version=HFC,
        statistic=partial(_leads, what="hfc", variant="vanilla", others=("steps512",)),
    )
    others = "LeNet, AlexNet and VGG"
    for what, text, sign, version in (
        ("test", f"A ResNet is more accurate on test images than {others}", 1, "whole images"),
        ("gap", f"A ResNet has a smaller gap between training and test accuracy than {others}", -1, "whole images"),
        ("hfc", f"A ResNet is less accurate on the HFC than {others}", -1, HFC),
    ):
        yield claim(
            id=f"training-resnet-{what}",
            section="section 5.1",
            text=text,
            version=f"{version}; the smallest of three differences",
            statistic=partial(_leads, what=what, variant="vanilla", others=OTHER_ARCHITECTURES, sign=sign),
        )
    yield claim(
        id="training-sgd-hfc",
        section="section 5.1",
        text="SGD makes a network more accurate on the HFC than Adam, AdaGrad, AdaDelta and RMSprop do",
        version=f"{HFC}; the smallest of four differences",
        statistic=partial(_leads, what="hfc", variant="sgd", others=OTHER_OPTIMIZERS),
    )


CLAIMS = tuple(_claims())
