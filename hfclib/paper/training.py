"""Batch size, optimiser and architecture (the paper's Fig. 4 and section 5.1): do they change the use of the HFC?

Networks have no BatchNorm, as vanilla has none, so a measurement does not depend on the test batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import pandas as pd
from pydantic import Field

from hfclib.batching import batch_sizes
from hfclib.charts import CHANCE, CHART, PICTURES_WIDTH, VIBRANT, Look, blank, chance_handle, drawn_in, legend
from hfclib.paper.chapter import Chapter
from hfclib.paper.parameters import SeveralSeeds, choice, several
from hfclib.paper.presets import Preset, base_recipe, fig4_recipes
from hfclib.paper.tables import Measured, at_end, gather, mean_sd
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Choice = Literal["batch_size", "optimizer", "architecture"]
# The networks of each choice in the order of the figure, with their names there; {} is the size of the batches.
PANELS: dict[Choice, dict[str, str]] = {
    "batch_size": dict.fromkeys(("batch32", "batch64", "vanilla", "batch256", "batch512"), "{}")
    | {"steps512": "{}, equal steps"},
    "optimizer": {
        "vanilla": "Adam",
        "sgd": "SGD",
        "adagrad": "AdaGrad",
        "adadelta": "AdaDelta",
        "rmsprop": "RMSprop",
    },
    "architecture": {"vanilla": "ResNet", "lenet": "LeNet", "alexnet": "AlexNet", "vgg": "VGG"},
}
CHOICES: tuple[Choice, ...] = tuple(PANELS)


def training_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """Vanilla of Fig. 4 and one change of it each: of the batch size, the optimiser or the architecture.

    - batch32, batch64, batch256, batch512: images per batch, at as many epochs, and so at fewer steps the larger they
      are; a size that is vanilla's own is left out. steps512 has 512 images per batch and as many steps as vanilla.
    - sgd (without momentum), adagrad, adadelta, rmsprop. Learning rates 1e-2, 1e-2, 1e-1, 1e-3, which the preset's
      schedule takes as it takes Adam's: the peak of "one_cycle", or the constant rate.
    - lenet, alexnet, vgg (`models`). VGG-11 starts with as many channels as the preset's ResNet, at "laptop" with 32:
      2.3 M parameters, at which an image costs as much time as with the ResNet-18 of width 16.

    Source: paper, section 5.1 and Fig. 4, which publish neither sizes of batches nor settings; learning rates of SGD
    and AdaDelta from comments in the authors' code, the others ours. No network has BatchNorm, as vanilla has none.
    """
    base, vanilla = base_recipe(preset), fig4_recipes(preset)["vanilla"]
    changes = {f"batch{size}": {"batch_size": size} for size in (32, 64, 256, 512) if size != vanilla.data.batch_size}
    changes["steps512"] = {"batch_size": 512, "epochs": round(vanilla.epochs * 512 / vanilla.data.batch_size)}
    changes |= {
        "sgd": {"algorithm": "sgd_plain", "learning_rate": 1e-2},
        "adagrad": {"algorithm": "adagrad", "learning_rate": 1e-2},
        "adadelta": {"algorithm": "adadelta", "learning_rate": 1e-1},
        "rmsprop": {"algorithm": "rmsprop", "learning_rate": 1e-3},
        "lenet": {"network": "lenet"},
        "alexnet": {"network": "alexnet"},
        "vgg": {"network": "vgg11", "width": 32 if preset == "laptop" else vanilla.model.width},
    }
    variants = {variant: vanilla.with_(name=f"{base.name}-{variant}", **change) for variant, change in changes.items()}
    return {"vanilla": vanilla, **variants}


def chosen_recipes(preset: Preset, choices: Sequence[Choice]) -> dict[str, Recipe]:
    """Those of `training_recipes` that the panels of some choices show."""
    recipes, shown = training_recipes(preset), {variant for one in choices for variant in PANELS[one]}
    return {variant: recipe for variant, recipe in recipes.items() if variant in shown}


# ---- what the notebook shows

COMPARED: dict[str, tuple[str, Measured]] = {
    "train": ("train", "controlled"),
    "test": ("test", "controlled"),
    "gap": ("gap", "controlled"),
    "HFC, as the authors": ("hfc", "authors"),
    "HFC, mean colour added": ("hfc", "controlled"),
}
_TITLES = {"batch_size": "Batch size", "optimizer": "Optimiser", "architecture": "Architecture"}
_LOOKS = {"train": Look("0.6", "s", ""), "test": Look("black", "o", ""), "gap": Look("black", "D", "")}
_LOOKS |= {  # colours that no network has
    "HFC, as the authors": Look(VIBRANT["orange"], "^", ""),
    "HFC, mean colour added": Look(VIBRANT["teal"], "v", ""),
}
_AXES = {
    "Accuracy (share of images)": ("train", "test"),
    "Train less test accuracy": ("gap",),
    "Accuracy on the HFC": ("HFC, as the authors", "HFC, mean colour added"),
}


def network_names(recipes: Mapping[str, Recipe], panel: Choice) -> dict[str, str]:
    """What the networks of a choice are called in its panels, by variant, in their order; stored or not."""
    return {
        variant: name.format(recipes[variant].data.batch_size)
        for variant, name in PANELS[panel].items()
        if variant in recipes
    }


def results(final: pd.DataFrame, recipes: Mapping[str, Recipe], choices: Sequence[Choice]) -> pd.DataFrame:
    """What was measured of the networks after training.

    Args:
        final: a table from `gather(runs, "final")`.
        recipes: from `chosen_recipes`.
        choices: whose networks; one that belongs to several is in the table several times.
    Returns:
        One row per choice, network and seed: choice, network (its name there), variant, seed, steps (of the optimiser),
        and the columns of COMPARED: accuracies on whole images, the gap, and the mean of the accuracies on the HFC at
        r = 4 and 8, fed in two ways (`at_end`).
    """
    by_network = {name: at_end(final, *what).stack() for name, what in COMPARED.items()}
    measured = pd.concat(by_network, axis=1).dropna().reset_index()
    parts = []
    for panel in choices:
        for variant, name in network_names(recipes, panel).items():
            recipe, own = recipes[variant], measured[measured["variant"] == variant]
            steps = recipe.epochs * len(batch_sizes(recipe.data.train_images, recipe.data.batch_size))
            parts.append(own.assign(choice=panel, network=name, steps=steps))
    return pd.concat(parts, ignore_index=True)[["choice", "network", "variant", "seed", "steps", *COMPARED]]


def results_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`results` over seeds: index (choice, network), columns seeds, steps and COMPARED; mean ± sd as text."""
    groups = rows.assign(choice=rows["choice"].map(_TITLES)).groupby(["choice", "network"], sort=False)
    shown = {measure: (measure, mean_sd) for measure in COMPARED}
    return groups.agg(seeds=("seed", lambda seeds: ", ".join(map(str, seeds))), steps=("steps", "first"), **shown)


def results_figure(rows: pd.DataFrame, recipes: Mapping[str, Recipe]) -> Figure:
    """What was measured of the networks of each choice after training: a line of three panels per choice.

    Args:
        rows: from `results`.
        recipes: from `chosen_recipes`: a network without rows has "not stored" at its place.
    Returns:
        A Figure; points are single networks, and thin lines join those of one seed and of as many epochs.
    """
    choices = list(dict.fromkeys(rows["choice"]))
    names = {panel: network_names(recipes, panel) for panel in choices}
    with drawn_in(CHART):
        figure = blank(PICTURES_WIDTH, 1.6 + 0.42 * sum(map(len, names.values())))
        shared = {"sharex": "col", "sharey": "row", "height_ratios": [len(names[panel]) for panel in choices]}
        panels = figure.subplots(len(choices), len(_AXES), squeeze=False, **shared)
        for line, panel in zip(panels, choices, strict=True):
            places = dict(zip(names[panel], range(len(names[panel])), strict=True))
            own = rows[rows["choice"] == panel]
            for ax, measures in zip(line, _AXES.values(), strict=True):
                for measure, (_, network) in ((measure, part) for measure in measures for part in own.groupby("seed")):
                    look = _LOOKS[measure]
                    joined = network[network["variant"] != "steps512"]
                    ax.plot(joined[measure], joined["variant"].map(places), color=look.colour, lw=0.8, alpha=0.6)
                    ax.plot(network[measure], network["variant"].map(places), look.marker, color=look.colour, alpha=0.8)
                ax.set_ylim(len(places) - 0.5, -0.5)
                ax.set_yticks(range(len(places)), names[panel].values())
            for variant in set(places) - set(own["variant"]):
                line[0].text(0.5, places[variant], "not stored", color="0.4", ha="center", va="center")
            line[0].set_ylabel(_TITLES[panel])
            line[0].set(xlim=(0, 1), xticks=(0, 0.5, 1))
            line[2].set(xlim=(0, 1), xticks=(0, 0.5, 1))
            line[1].axvline(0, color="0.3", lw=1)
            line[2].axvline(CHANCE, color="0.3", lw=1, ls=":")
        figure.align_ylabels(panels[:, 0])
        for ax, title in zip(panels[-1], _AXES, strict=True):
            ax.set_xlabel(title)
        handles = [look.handle(name) for name, look in _LOOKS.items()]
        legend(figure, [*handles, chance_handle()], columns=3)
    return figure


# ---- the chapter


_CHOSEN = several(choice(Choice, CHOICES), len(CHOICES))


class TrainingParameters(SeveralSeeds):
    """The parameters of `notebooks/training.ipynb`."""

    choice: _CHOSEN = Field(CHOICES, title="what to compare")


class TrainingChapter(Chapter):
    """A chapter that obtains the networks of the chosen panels only."""

    def wanted(self, settings: TrainingParameters) -> dict[str, Recipe]:
        """The recipes of the chosen panels."""
        return chosen_recipes(settings.preset, settings.choice)


TRAINING = TrainingChapter(
    name="training",
    question="Do batch size, optimiser and architecture change how much of the HFC a network uses?",
    topic="training",
    paper="section 5.1, Fig. 4",
    figures={"training-results": "training"},
    recipes=training_recipes,
    parameters=TrainingParameters,
    titles={
        **{f"batch{size}": f"Batches of {size}" for size in (32, 64, 256, 512)},
        "steps512": "Batches of 512, equal steps",
        **{name: title for name, title in (PANELS["optimizer"] | PANELS["architecture"]).items() if name != "vanilla"},
    },
    required=("vanilla",),
    needs_weights=("vanilla",),
    evidence=partial(gather, which="final"),
)
