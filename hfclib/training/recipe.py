"""Recipes: everything that decides a network's weights."""

import hashlib
import json
from dataclasses import asdict, fields
from typing import Annotated, Literal, Self

import torch
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import nn

from hfclib.data import DATA_SETS
from hfclib.models import REGISTERED, SETTINGS, DropoutAt, NormLayer, find_network

TRAINING_VERSION = 1  # part of every hash: raise it when training code changes what a recipe produces
RADII = DATA_SETS["cifar10"].radii  # 1 to 22

Optimizer = Literal["adam", "sgd", "sgd_plain", "adagrad", "adadelta", "rmsprop"]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
# Three halvings of 8 pixels leave one. A list is accepted because JSON has no tuples.
Sizes = Annotated[tuple[Annotated[int, Field(strict=True, ge=8, le=31)], ...], Field(strict=False)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Recipe:
    """How a network is built, trained and measured. Equal recipes and seeds give equal runs.

    A value that is not allowed raises a ValueError that names the field, what is wrong, and the value.

    Attributes:
        name: such as "laptop-batchnorm"; not part of the hash.
        arch: name of a network of `hfclib.models`, or of one of yours (`register_network`). What its builder does not
            take keeps its default: "lenet", "alexnet", "vgg11" have no dropout, stem_kernel and early_sizes, and only
            "vgg11" a norm.
        width: channels of the first stage; not used by "resnet32", "lenet" and "alexnet", whose builders take none.
        norm: "none", "batch" (BatchNorm) or "group" (GroupNorm, `GROUPS`).
        dropout, dropout_at: drop probability; where: "features" (paper) or "map" (authors' code).
        mixup_alpha: parameter of mix-up's Beta(alpha, alpha), one draw per batch; 0 turns mix-up off.
        optimizer: "adam" (paper), "sgd" (Nesterov momentum .9), or of section 5.1 "sgd_plain", "adagrad", "adadelta",
            "rmsprop"; other settings are PyTorch's own.
        learning_rate: the peak when the schedule is "one_cycle".
        weight_decay: L2 penalty that the optimizer adds to the gradient of every parameter.
        schedule: "constant", or "one_cycle" (a fifth of the steps rising, then a cosine to nearly zero).
        augment: random crop with 4 pixels of zero padding, and horizontal flip.
        early_sizes: sides in pixels, 8 to 31, of images in the first epochs; fewer than epochs, no rescaling or attack.
        label_smoothing: share of a label that is spread over all classes in the loss (Szegedy et al. 2016).
        rescale: what is done to each training image, last: "max" divides it by its own maximum (authors' code);
            "range" maps its own minimum and maximum to 0 and 1 (our reading of section 4.1).
        train_band: "x" to train on whole images, "lfc" or "hfc" to train on that band of them (paper, Table 1),
            "sum" on the LFC plus train_scale times the HFC.
        train_radius: at which radius the band is split off, a whole number of DFT bins; 0 with "x".
        train_scale: what "sum" multiplies the HFC by; 1 with the other bands.
        adversarial: "single_step" trains on images attacked by one step of PGD (Wong et al. 2020), "pgd" by several
            (paper). Both need whole images and no mix-up.
        adv_eps, adv_alpha: size of the attack in Linf and of its steps, in units of pixels in [0, 1]; 0 with "none".
        adv_steps: steps of the attack: 1 with "single_step", 0 with "none".
        adv_random_start: start the attack at a random point of the ball, not at the image (the authors' code).
        stem_kernel: side of the first layer's kernels, 3 or 5.
        smoothness_penalty: weight in the loss of `smoothness_penalty` of the first layer; 0 turns it off.
        labels: "shuffled" permutes the training labels, alike for every seed; test images keep theirs (Fig. 3).
        train_bands: also measure the raw bands of training images at r = 4, 8, 12, 16; needs train_band "x" (Fig. 3).
        data: "cifar10", "mnist" or "fashion-mnist" (`DATA_SETS`); the last two exclude augment and early_sizes.
        planted: amplitude of the pattern that each class has in training and test images (`planted`), in units of
            pixels in [0, 1]; 0 turns it off. It takes natural labels and no adversarial training.
        train_images: how many training images; 50,000 is all, of other sets 60,000; up to 5,000 come with the code.
        eval_images: test and training images measured after each epoch: the first so many of each set.
        final_images: test images measured after the last epoch.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    arch: str = "resnet18"
    width: Count = 64
    norm: NormLayer = "none"
    dropout: Share = 0.0
    dropout_at: DropoutAt = "features"
    mixup_alpha: Number = 0.0
    epochs: Count = 100
    batch_size: Count = 100
    optimizer: Optimizer = "adam"
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-4
    weight_decay: Number = 0.0
    schedule: Literal["constant", "one_cycle"] = "constant"
    augment: bool = False
    early_sizes: Sizes = ()
    label_smoothing: Share = 0.0
    rescale: Literal["none", "max", "range"] = "none"
    train_band: Literal["x", "lfc", "hfc", "sum"] = "x"
    train_radius: Annotated[int, Field(ge=0, le=RADII[-1])] = 0
    train_scale: Number = 1.0
    adversarial: Literal["none", "single_step", "pgd"] = "none"
    adv_eps: Number = 0.0
    adv_alpha: Number = 0.0
    adv_steps: Annotated[int, Field(ge=0)] = 0
    adv_random_start: bool = True
    stem_kernel: Annotated[int, Field(ge=3, le=5)] = 3  # as a Literal it would accept 3.0
    smoothness_penalty: Number = 0.0
    labels: Literal["natural", "shuffled"] = "natural"
    train_bands: bool = False
    data: Literal["cifar10", "mnist", "fashion-mnist"] = "cifar10"
    planted: Number = 0.0
    train_images: Count = 50_000
    eval_images: Count = 500
    final_images: Count = 10_000

    def __post_init__(self) -> None:
        whole, attacked = self.train_band == "x", self.adversarial != "none"
        self._require("stem_kernel", self.stem_kernel != 4, "3 or 5")
        radii = DATA_SETS[self.data].radii
        allowed = f'0 with train_band "x", 1 to {radii[-1]} with others'
        self._require("train_radius", self.train_radius in ((0,) if whole else radii), allowed)
        self._require("train_band", whole or not self.train_bands, '"x" with train_bands')
        if self.train_band != "sum":
            self._require_default("train_scale", f'train_band "{self.train_band}"')
        if self.early_sizes:
            self._require("early_sizes", len(self.early_sizes) < self.epochs, "fewer of them than epochs")
            for field in ("train_band", "rescale", "adversarial"):
                self._require_default(field, "early_sizes")
        if attacked:
            self._require("adv_eps", self.adv_eps > 0, "above 0 with adversarial training")
            self._require("adv_alpha", self.adv_alpha > 0, "above 0 with adversarial training")
            most = 1 if self.adversarial == "single_step" else self.adv_steps
            self._require("adv_steps", 1 <= self.adv_steps <= most, '1 with "single_step", at least 1 with "pgd"')
        for field in ("train_images", "eval_images", "final_images") if self.norm == "batch" else ():
            self._require(field, getattr(self, field) > 1, "2 or more with BatchNorm")
        attack = ("adv_eps", "adv_alpha", "adv_steps", "adv_random_start")
        for field in ("mixup_alpha", "train_band") if attacked else attack:
            self._require_default(field, f'adversarial "{self.adversarial}"')
        for field in ("augment", "early_sizes") if self.data != "cifar10" else ():
            self._require_default(field, f'data "{self.data}"')
        for field in ("labels", "adversarial") if self.planted else ():
            self._require_default(field, "planted")
        self._check_network()

    def _check_network(self) -> None:
        network = find_network(self.arch)
        lacking = [field for field in SETTINGS if field not in (*network.settings, "width", "in_channels")]
        if "in_channels" not in network.settings and len(DATA_SETS[self.data].mean) != 3:
            lacking.append("data")
        for field in lacking + ["early_sizes"] * (not network.any_size):
            self._require_default(field, f'arch "{self.arch}"')

    def _require(self, field: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"expected {field}, {wanted}, got {getattr(self, field)!r}")

    def _require_default(self, field: str, setting: str) -> None:
        default = type(self).__dataclass_fields__[field].default
        self._require(field, getattr(self, field) == default, f"{default!r} with {setting}")

    @property
    def radii(self) -> tuple[int, ...]:
        """Every whole radius at which an image of its data set has two parts."""
        return DATA_SETS[self.data].radii

    @property
    def hash(self) -> str:
        """Ten hexadecimal digits of what decides the result.

        Only fields that differ from their defaults count, so that a later field whose default keeps the old behaviour
        leaves the hashes of published runs as they are.
        """
        changed = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name != "name" and getattr(self, f.name) != f.default
        }
        text = json.dumps({"training_version": TRAINING_VERSION, **changed}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def run_name(self, seed: int | str) -> str:
        """Folder name of the run of this recipe with `seed`, or a pattern of such names."""
        return f"{self.name}-{seed}-{self.hash}"

    def whole_epochs(self, epochs: int) -> float:
        """How many epochs on 32 x 32 images would take as long as the first `epochs` epochs, as pixels go."""
        return epochs - sum(1 - (size / 32) ** 2 for size in self.early_sizes[:epochs])

    def build(self) -> nn.Module:
        """A network with freshly drawn weights, on the CPU; channels_last, which is faster."""
        with torch.device("cpu"):  # whatever the default device is
            return self._network().to(memory_format=torch.channels_last)

    def _network(self) -> nn.Module:
        network = find_network(self.arch)
        values = asdict(self) | {"in_channels": len(DATA_SETS[self.data].mean)}
        built = network.build(**{setting: values[setting] for setting in network.settings})
        if not isinstance(built, nn.Module):
            raise TypeError(f"expected an nn.Module of the builder of {self.arch!r}, got {type(built).__name__}")
        return built

    def to_dict(self) -> dict:
        """The fields as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The recipe of fields from `to_dict`. Its network need not be registered: what is stored of it can be read."""
        return (cls if values.get("arch", cls.arch) in REGISTERED else _Unregistered)(**values)


_init = Recipe.__init__


def _init_in_one_line(self: Recipe, *args: object, **values: object) -> None:
    try:
        _init(self, *args, **values)
    except ValidationError as error:
        found = [(".".join(map(str, one["loc"])), one["msg"], one["input"]) for one in error.errors()]
        told = [f"{at}: {what}, got {value!r}" if at else what.split(", ", 1)[1] for at, what, value in found]
        raise ValueError(f"refused recipe: {'; '.join(told)}") from None


Recipe.__init__ = _init_in_one_line


class _Unregistered(Recipe):
    """A stored recipe whose network this process does not know, and therefore neither checks nor builds."""

    def _check_network(self) -> None:
        pass
