"""Recipes: everything that decides a network's weights, and the recipes of every figure at each preset."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from torch import nn

from hfclib.models import resnet18, resnet32

# Part of every hash. Raise it when training code changes what a recipe produces.
TRAINING_VERSION = 1
RADII = tuple(range(1, 23))  # every radius at which a 32x32 image can be split in two

PUBLISHED_SEEDS = (0, 1, 2)  # with which every panel at "laptop" is published in data/runs

Preset = Literal["smoke", "laptop", "paper", "authors"]
PRESETS: tuple[Preset, ...] = ("smoke", "laptop", "paper", "authors")


@dataclass(frozen=True)
class Recipe:
    """How a network is built, trained and measured. Equal recipes and seeds give equal runs.

    Attributes:
        name: what people call it, such as "laptop-batchnorm"; not part of the hash.
        arch: "resnet18" or "resnet32" (then width is not used).
        width: channels of the first stage.
        norm: "none" or "batch".
        dropout: drop probability in [0, 1).
        dropout_at: "features" (paper) or "map" (authors' code).
        mixup_alpha: parameter of mix-up's Beta(alpha, alpha), one draw a batch; 0 turns mix-up off.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam; the peak when the schedule is "one_cycle".
        schedule: "constant", or "one_cycle" (a fifth of the steps rising, then a cosine to nearly zero).
        augment: random crop with 4 pixels of zero padding, and horizontal flip.
        rescale: "none", or "max" to divide each training image by its own maximum (authors' code).
        train_images: how many training images; 50,000 is all, up to 5,000 come with the package.
        eval_images: test and training images measured after each epoch: the first so many of each set.
        final_images: test images measured after the last epoch.
    """

    name: str
    arch: Literal["resnet18", "resnet32"] = "resnet18"
    width: int = 64
    norm: Literal["none", "batch"] = "none"
    dropout: float = 0.0
    dropout_at: Literal["features", "map"] = "features"
    mixup_alpha: float = 0.0
    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 1e-4
    schedule: Literal["constant", "one_cycle"] = "constant"
    augment: bool = False
    rescale: Literal["none", "max"] = "none"
    train_images: int = 50_000
    eval_images: int = 500
    final_images: int = 10_000

    def __post_init__(self) -> None:
        choices = {"arch": ("resnet18", "resnet32"), "norm": ("none", "batch"), "dropout_at": ("features", "map"),
                   "schedule": ("constant", "one_cycle"), "rescale": ("none", "max")}  # fmt: skip
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"expected {field}, one of {', '.join(allowed)}, got {getattr(self, field)!r}")
        for field in ("width", "epochs", "batch_size", "train_images", "eval_images", "final_images"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"expected {field}, a whole number of at least 1, got {value!r}")
        if not isinstance(self.augment, bool):
            raise ValueError(f"expected augment, True or False, got {self.augment!r}")
        if not isinstance(self.name, str) or not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"expected name of letters, digits, '.', '_' and '-', got {self.name!r}")
        for field in ("dropout", "mixup_alpha", "learning_rate"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"expected {field}, a finite number of at least 0, got {value!r}")
            object.__setattr__(self, field, float(value))  # 1 and 1.0 are equal, and so must be their hashes
        if self.dropout >= 1:
            raise ValueError(f"expected dropout in [0, 1), got {self.dropout!r}")
        if self.learning_rate == 0:
            raise ValueError(f"expected a positive learning_rate, got {self.learning_rate!r}")

    @property
    def hash(self) -> str:
        """Ten hexadecimal digits of what decides the result.

        Only fields that differ from their defaults count, so that a later field whose default keeps the old behaviour
        leaves the hashes of published runs as they are.
        """
        changed = {f.name: getattr(self, f.name) for f in fields(self)
                   if f.name != "name" and getattr(self, f.name) != f.default}  # fmt: skip
        text = json.dumps({"training_version": TRAINING_VERSION, **changed}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def run_name(self, seed: int) -> str:
        """Folder name of the run of this recipe with `seed`."""
        return f"{self.name}-{seed}-{self.hash}"

    def build(self) -> nn.Module:
        """A network with freshly drawn weights, on the CPU."""
        if self.arch == "resnet32":
            return resnet32(self.norm, self.dropout, dropout_at=self.dropout_at)
        return resnet18(self.width, self.norm, self.dropout, dropout_at=self.dropout_at)

    def to_dict(self) -> dict:
        """The fields as plain values, for JSON."""
        return asdict(self)


_BASE: dict[Preset, Recipe] = {
    "smoke": Recipe(
        "smoke", width=4, epochs=2, batch_size=64, learning_rate=1e-3, schedule="one_cycle", augment=True,
        train_images=512, eval_images=100, final_images=200,
    ),
    "laptop": Recipe(
        "laptop", width=16, epochs=16, batch_size=128, learning_rate=1e-3, schedule="one_cycle", augment=True
    ),
    "paper": Recipe("paper"),
    "authors": Recipe("authors", arch="resnet32", rescale="max"),
}  # fmt: skip


def _preset(preset: str) -> Recipe:
    if preset not in PRESETS:
        raise ValueError(f"expected preset, one of {', '.join(PRESETS)}, got {preset!r}")
    return _BASE[preset]


def fig4(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The panels of Fig. 4 by heuristic: vanilla, dropout, mixup, batchnorm.

    Source: paper, section 5.2 and Fig. 5; the "authors" preset follows the code (dropout on the last feature map,
    mix-up from Beta(1, 1)).
    """
    base = _preset(preset)
    by_code = preset == "authors"
    changes = {
        "vanilla": {},
        "dropout": {"dropout": 0.5, "dropout_at": "map" if by_code else "features"},
        "mixup": {"mixup_alpha": 1.0 if by_code else 0.5},
        "batchnorm": {"norm": "batch"},
    }
    return {panel: replace(base, name=f"{base.name}-{panel}", **change) for panel, change in changes.items()}


FIGURES: dict[str, Callable[[Preset], dict[str, Recipe]]] = {"fig4": fig4}


def recipes(figure: str, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a figure, by panel.

    Raises:
        ValueError: no such figure or preset.
    """
    if figure not in FIGURES:
        raise ValueError(f"expected figure, one of {', '.join(FIGURES)}, got {figure!r}")
    return FIGURES[figure](preset)
