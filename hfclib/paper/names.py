"""Names of presets and chapters, as plain data: the command line reads them without importing PyTorch."""

from collections.abc import Collection
from typing import Literal, get_args

from hfclib._names import nearest

Preset = Literal["smoke", "laptop", "narrow", "paper", "authors"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

DATA_NAMES = ("cifar10", "mnist", "fashion-mnist")

# Where each `Chapter` is defined, in the order of the book; a notebook of the same name belongs to each.
CHAPTER_PLACES = {
    "fig1": "hfclib.paper.fig1:FIG1",
    "generalisation": "hfclib.paper.generalisation:GENERALISATION",
    "fig2": "hfclib.paper.fig2:FIG2",
    "tradeoff": "hfclib.paper.tradeoff:TRADEOFF",
    "labels": "hfclib.paper.labels:LABELS",
    "training": "hfclib.paper.training:TRAINING",
    "fig4": "hfclib.paper.fig4:FIG4",
    "batchnorm": "hfclib.paper.batchnorm:BATCHNORM",
    "networks": "hfclib.paper.networks:NETWORKS",
    "datasets": "hfclib.paper.datasets:DATASETS",
    "planted": "hfclib.paper.planted:PLANTED",
    "fig3": "hfclib.paper.fig3:FIG3",
    "defense": "hfclib.paper.defense.claims:DEFENSE",
    "detection": "hfclib.paper.detection.chapter:DETECTION",
}
# Further networks of the chapters on BatchNorm and on heuristics, under names of their own for `hfc train`.
EXPERIMENT_PLACES = {
    "fig6": "hfclib.paper.batchnorm:fig6_recipes",
    "louder": "hfclib.paper.batchnorm:amplified_recipes",
    "ablation": "hfclib.paper.fig4:ablation_recipes",
    "stated": "hfclib.paper.presets:stated_recipes",
}
# What `hfc train` knows: detectors have recipes of another kind, and are trained by their notebook; "networks" and
# "generalisation" have the recipes of all chapters.
_NOT_TRAINED = "detection", "networks", "generalisation"
TRAINED = tuple(name for name in (*CHAPTER_PLACES, *EXPERIMENT_PLACES) if name not in _NOT_TRAINED)


def check_choice(kind: str, name: str, allowed: Collection[str]) -> None:
    """Refuse a name that is not allowed.

    Raises:
        ValueError: says what `kind` of name was expected, what is allowed, and the nearest allowed name.
    """
    if name not in allowed:
        raise ValueError(f"expected {kind}, one of {', '.join(allowed)}, got {name!r}{nearest(name, allowed)}")
