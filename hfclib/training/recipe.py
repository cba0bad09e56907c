"""Recipes: everything that decides a network's weights.

A `Recipe` is made of the network (`ModelConfig`), the images that it trains on (`DataConfig`), the optimizer
(`OptimizerConfig`), and in adversarial training the attack (`AttackConfig`). Each checks its own fields when it is
made, and the recipe those that exclude each other. A value that is not allowed raises a ValueError that names the
field, what is wrong, and the value. `Recipe.with_` changes any of them by name::

    recipe = Recipe("mine").with_(network="resnet32", norm="batch", epochs=30, learning_rate=1e-3, augment=True)
    robust = recipe.with_(name="robust", attack=AttackConfig("pgd", eps=8 / 255, alpha=2 / 255, steps=7))
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Literal, Self, get_type_hints

import torch
from pydantic import BeforeValidator, Field, InstanceOf, TypeAdapter, ValidationError
from torch import nn

from hfclib._names import nearest
from hfclib.data import DATA_SETS
from hfclib.models import REGISTERED, DropoutAt, NormLayer, find_network

TRAINING_VERSION = 1  # part of every hash: raise it when training code changes what a recipe produces
RADII = DATA_SETS["cifar10"].radii  # 1 to 22

Optimizer = Literal["adam", "adamw", "sgd", "sgd_plain", "adagrad", "adadelta", "rmsprop"]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
# Three halvings of 8 pixels leave one. A list is accepted because JSON has no tuples.
_AS_TUPLE = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Sizes = Annotated[tuple[Annotated[int, Field(ge=8, le=31)], ...], _AS_TUPLE]


@cache
def _checks(config: type) -> dict[str, TypeAdapter]:
    types = get_type_hints(config, include_extras=True)
    return {field.name: TypeAdapter(types[field.name]) for field in fields(config)}


@dataclass(frozen=True)
class _Config:
    """What the parts of a recipe have in common: fields that are checked against their types when one is made."""

    def __post_init__(self) -> None:
        problems = []
        for field, check in _checks(type(self)).items():  # type: ignore[arg-type]  # classes are hashable
            try:  # a whole number becomes the float that it is equal to, so that equal recipes have equal hashes
                object.__setattr__(self, field, check.validate_python(getattr(self, field), strict=True))
            except ValidationError as error:
                for problem in error.errors():
                    place = ".".join(map(str, (field, *problem["loc"])))
                    problems.append(f"{place}: {problem['msg']}, got {problem['input']!r}")
        if problems:
            raise ValueError(f"refused recipe: {'; '.join(problems)}")
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"refused recipe: {error}") from None

    def _check(self) -> None:
        """Refuse values that exclude each other, though each is allowed by itself."""

    def _require(self, field: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"expected {field}, {wanted}, got {getattr(self, field)!r}")

    def _require_default(self, field: str, setting: str) -> None:
        default = {known.name: known.default for known in fields(self)}[field]
        self._require(field, getattr(self, field) == default, f"{default!r} with {setting}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Config):
    """The network, and what is set of it.

    Attributes:
        network: the name of one of `hfclib.models`, or of one of yours (`register_network`). What its builder does not
            take keeps its default: "lenet", "alexnet", "vgg11" have no dropout and no stem_kernel, and only "vgg11"
            has a norm.
        width: channels of the first stage; not used by networks whose builders take none, as "resnet32", "lenet" and
            "alexnet".
        norm: "none", "batch" (BatchNorm) or "group" (GroupNorm, `GROUPS`).
        dropout, dropout_at: drop probability; where: "features" (paper) or "map" (authors' code).
        stem_kernel: side of the first layer's kernels, 3 or 5.
    """

    network: str = "resnet18"
    width: Count = 64
    norm: NormLayer = "none"
    dropout: Share = 0.0
    dropout_at: DropoutAt = "features"
    stem_kernel: Annotated[int, Field(ge=3, le=5)] = 3  # as a Literal it would accept 3.0

    def _check(self) -> None:
        self._require("stem_kernel", self.stem_kernel != 4, "3 or 5")
        network = find_network(self.network)
        for setting in ("norm", "dropout", "dropout_at", "stem_kernel"):
            if setting not in network.settings:
                self._require_default(setting, f'network "{self.network}"')


class _Unregistered(ModelConfig):
    """Of a stored recipe whose network this process does not know: it is neither checked nor built."""

    def _check(self) -> None:
        if self.network in REGISTERED:
            super()._check()


@dataclass(frozen=True, kw_only=True)
class DataConfig(_Config):
    """The images that a network trains on, their labels, and what is done to them on the way.

    Attributes:
        dataset: "cifar10", "mnist" or "fashion-mnist" (`DATA_SETS`); the last two exclude augment and early_sizes.
        train_images: how many training images; 50,000 is all, of other sets 60,000; up to 5,000 come with the code.
        labels: "shuffled" permutes the training labels, alike for every seed; test images keep theirs (Fig. 3).
        planted: amplitude of the pattern that each class has in training and test images (`planted`), in units of
            pixels in [0, 1]; 0 turns it off. It takes natural labels and no adversarial training.
        train_band: "x" to train on whole images, "lfc" or "hfc" to train on that band of them (paper, Table 1),
            "sum" on the LFC plus train_scale times the HFC.
        train_radius: at which radius the band is split off, a whole number of DFT bins; 0 with "x".
        train_scale: what "sum" multiplies the HFC by; 1 with the other bands.
        batch_size: images per batch.
        augment: random crop with 4 pixels of zero padding, and horizontal flip.
        early_sizes: sides in pixels, 8 to 31, of images in the first epochs; fewer than epochs. They exclude rescaling,
            training on a band, adversarial training, and networks that take images of one size only.
        rescale: what is done to each training image, last: "max" divides it by its own maximum (authors' code);
            "range" maps its own minimum and maximum to 0 and 1 (our reading of section 4.1).
    """

    dataset: Literal["cifar10", "mnist", "fashion-mnist"] = "cifar10"
    train_images: Count = 50_000
    labels: Literal["natural", "shuffled"] = "natural"
    planted: Number = 0.0
    train_band: Literal["x", "lfc", "hfc", "sum"] = "x"
    train_radius: Annotated[int, Field(ge=0, le=RADII[-1])] = 0
    train_scale: Number = 1.0
    batch_size: Count = 100
    augment: bool = False
    early_sizes: Sizes = ()
    rescale: Literal["none", "max", "range"] = "none"

    def _check(self) -> None:
        whole, radii = self.train_band == "x", DATA_SETS[self.dataset].radii
        allowed = f'0 with train_band "x", 1 to {radii[-1]} with others'
        self._require("train_radius", self.train_radius in ((0,) if whole else radii), allowed)
        if self.train_band != "sum":
            self._require_default("train_scale", f'train_band "{self.train_band}"')
        for field in ("train_band", "rescale") if self.early_sizes else ():
            self._require_default(field, "early_sizes")
        for field in ("augment", "early_sizes") if self.dataset != "cifar10" else ():
            self._require_default(field, f'dataset "{self.dataset}"')
        if self.planted:
            self._require_default("labels", "planted")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(_Config):
    """The optimizer and its schedule.

    Attributes:
        algorithm: "adam" (paper), "adamw" (Loshchilov and Hutter 2019), "sgd" (Nesterov momentum .9), or of section 5.1
            "sgd_plain", "adagrad", "adadelta", "rmsprop"; other settings are PyTorch's own.
        learning_rate: the peak when the schedule is "one_cycle".
        weight_decay: L2 penalty that the optimizer adds to the gradient of every parameter; with "adamw" each step
            multiplies every parameter by 1 - learning rate x weight_decay instead.
        schedule: "constant", or "one_cycle" (a fifth of the steps rising, then a cosine to nearly zero).
    """

    algorithm: Optimizer = "adam"
    learning_rate: Positive = 1e-4
    weight_decay: Number = 0.0
    schedule: Literal["constant", "one_cycle"] = "constant"


@dataclass(frozen=True)
class AttackConfig(_Config):
    """The attack on the images of each step of adversarial training, in Linf.

    Attributes:
        method: "single_step" trains on images attacked by one step of PGD (Wong et al. 2020), "pgd" by several (paper).
        eps, alpha: size of the attack and of its steps, in units of pixels in [0, 1]; above 0, eps at most 1.
        steps: of the attack: 1 with "single_step".
        random_start: start at a random point of the ball, not at the image (the authors' code).
    """

    method: Literal["single_step", "pgd"]
    _: KW_ONLY
    eps: Annotated[float, Field(gt=0, le=1)]
    alpha: Positive
    steps: Count
    random_start: bool = True

    def _check(self) -> None:
        self._require("steps", self.method == "pgd" or self.steps == 1, '1 with "single_step"')


@dataclass(frozen=True)
class Recipe(_Config):
    """How a network is built, trained and measured. Equal recipes and seeds give equal runs.

    Attributes:
        name: such as "laptop-batchnorm"; not part of the hash.
        model, data, optimizer: see `ModelConfig`, `DataConfig`, `OptimizerConfig`.
        attack: of adversarial training (`AttackConfig`), which needs whole images and no mix-up; None without.
        epochs: of the training.
        mixup_alpha: parameter of mix-up's Beta(alpha, alpha), one draw per batch; 0 turns mix-up off.
        label_smoothing: share of a label that is spread over all classes in the loss (Szegedy et al. 2016).
        smoothness_penalty: weight in the loss of `smoothness_penalty` of the first layer; 0 turns it off.
        train_bands: also measure the raw bands of training images at r = 4, 8, 12, 16; needs train_band "x" (Fig. 3).
        eval_images: test and training images measured after each epoch: the first so many of each set.
        final_images: test images measured after the last epoch.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    _: KW_ONLY
    model: InstanceOf[ModelConfig] = ModelConfig()
    data: InstanceOf[DataConfig] = DataConfig()
    optimizer: InstanceOf[OptimizerConfig] = OptimizerConfig()
    attack: InstanceOf[AttackConfig] | None = None
    epochs: Count = 100
    mixup_alpha: Number = 0.0
    label_smoothing: Share = 0.0
    smoothness_penalty: Number = 0.0
    train_bands: bool = False
    eval_images: Count = 500
    final_images: Count = 10_000

    def _check(self) -> None:
        data = self.data
        data._require("train_band", data.train_band == "x" or not self.train_bands, '"x" with train_bands')
        if data.early_sizes:
            data._require("early_sizes", len(data.early_sizes) < self.epochs, "fewer of them than epochs")
            self._require_default("attack", "early_sizes")
        if self.attack:
            self._require_default("mixup_alpha", "an attack")
            for field in ("train_band", "planted"):
                data._require_default(field, "an attack")
        if self.model.norm == "batch":
            for config, field in ((data, "train_images"), (self, "eval_images"), (self, "final_images")):
                config._require(field, getattr(config, field) > 1, "2 or more with BatchNorm")
        if network := REGISTERED.get(self.model.network):
            if "in_channels" not in network.settings and len(DATA_SETS[data.dataset].mean) != 3:
                data._require_default("dataset", f'network "{network.name}"')
            if not network.any_size:
                data._require_default("early_sizes", f'network "{network.name}"')

    def with_(self, **changes: object) -> Self:
        """A copy with other values of some fields, those of `model`, `data` and `optimizer` included.

        Args:
            changes: by name, such as `epochs=3, width=16, attack=None`. No two fields of these four have one name.
        Raises:
            ValueError: a name that is no field, with the nearest one; a value that is not allowed.
        """
        own: dict[str, Any] = {}
        parts: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for field, value in changes.items():
            if field in _PART_OF:
                parts[_PART_OF[field]][field] = value
            elif field in self.__dataclass_fields__:
                own[field] = value
            else:
                hint = nearest(field, [*_PART_OF, *self.__dataclass_fields__])
                raise ValueError(f"refused recipe: {field} is no field of a recipe{hint}")
        own |= {part: replace(own.get(part, getattr(self, part)), **values) for part, values in parts.items()}
        return replace(self, **own)

    @property
    def radii(self) -> tuple[int, ...]:
        """Every whole radius at which an image of its data set has two parts."""
        return DATA_SETS[self.data.dataset].radii

    @property
    def hash(self) -> str:
        """Ten hexadecimal digits of what decides the result.

        Only fields that differ from their defaults count, so that a later field whose default keeps the old behaviour
        leaves the hashes of published runs as they are.
        """
        defaults = _stored_defaults()
        stored = self.to_dict()
        changed = {field: stored[field] for field, default in defaults.items() if stored[field] != default}
        text = json.dumps({"training_version": TRAINING_VERSION, **changed}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def run_name(self, seed: int | str) -> str:
        """Folder name of the run of this recipe with `seed`, or a pattern of such names."""
        return f"{self.name}-{seed}-{self.hash}"

    def whole_epochs(self, epochs: int) -> float:
        """How many epochs on 32 x 32 images would take as long as the first `epochs` epochs, as pixels go."""
        return epochs - sum(1 - (size / 32) ** 2 for size in self.data.early_sizes[:epochs])

    def build(self) -> nn.Module:
        """A network with freshly drawn weights, on the CPU; channels_last, which is faster.

        Raises:
            ValueError: its network is not registered in this process.
            TypeError: the network's builder returns something else.
        """
        network = find_network(self.model.network)
        values = vars(self.model) | {"in_channels": len(DATA_SETS[self.data.dataset].mean)}
        with torch.device("cpu"):  # whatever the default device is
            model = network.build(**{setting: values[setting] for setting in network.settings})
            if not isinstance(model, nn.Module):
                raise TypeError(f"expected an nn.Module of the builder of {network.name!r}, got {type(model).__name__}")
            return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap in its types

    def to_dict(self) -> dict:
        """All values under the names that they are stored by (`STORED_FIELDS`), for JSON."""
        return {
            field: _NO_ATTACK[field] if field in _NO_ATTACK and not self.attack else attrgetter(place)(self)
            for field, place in STORED_FIELDS.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """The recipe of which `to_dict` gives these values; what is not there, as in older runs, has its default.

        Its network need not be registered, so that what is stored of it can be read.

        Raises:
            TypeError, ValueError: a name that is not in `STORED_FIELDS`, no name, or a value that is not allowed.
        """
        if unknown := [field for field in values if field not in STORED_FIELDS]:
            raise ValueError(f"refused recipe: {', '.join(unknown)}: not among the fields that are stored")
        parts: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        every = {**_stored_defaults(), **values}
        for field, value in every.items():
            part, _, name = STORED_FIELDS[field].rpartition(".")
            parts[part][name] = value
        attacked = every["adversarial"] != "none"
        for field, value in () if attacked else _NO_ATTACK.items():
            if every[field] != value:
                told = f'expected {field}, {value!r} with adversarial "none", got {every[field]!r}'
                raise ValueError(f"refused recipe: {told}")
        model = ModelConfig if parts["model"]["network"] in REGISTERED else _Unregistered
        return cls(
            **parts[""],
            model=model(**parts["model"]),
            data=DataConfig(**parts["data"]),
            optimizer=OptimizerConfig(**parts["optimizer"]),
            attack=AttackConfig(**parts["attack"]) if attacked else None,
        )


# By the name that a field has in `run.json` and in the hash: where it is in a Recipe. The order is that of `run.json`.
STORED_FIELDS = {
    "name": "name",
    "arch": "model.network",
    "width": "model.width",
    "norm": "model.norm",
    "dropout": "model.dropout",
    "dropout_at": "model.dropout_at",
    "mixup_alpha": "mixup_alpha",
    "epochs": "epochs",
    "batch_size": "data.batch_size",
    "optimizer": "optimizer.algorithm",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "schedule": "optimizer.schedule",
    "augment": "data.augment",
    "early_sizes": "data.early_sizes",
    "label_smoothing": "label_smoothing",
    "rescale": "data.rescale",
    "train_band": "data.train_band",
    "train_radius": "data.train_radius",
    "train_scale": "data.train_scale",
    "adversarial": "attack.method",
    "adv_eps": "attack.eps",
    "adv_alpha": "attack.alpha",
    "adv_steps": "attack.steps",
    "adv_random_start": "attack.random_start",
    "stem_kernel": "model.stem_kernel",
    "smoothness_penalty": "smoothness_penalty",
    "labels": "data.labels",
    "train_bands": "train_bands",
    "data": "data.dataset",
    "planted": "data.planted",
    "train_images": "data.train_images",
    "eval_images": "eval_images",
    "final_images": "final_images",
}
# What is stored of a recipe whose attack is None.
_NO_ATTACK = {"adversarial": "none", "adv_eps": 0.0, "adv_alpha": 0.0, "adv_steps": 0, "adv_random_start": True}
# The part of a recipe that a field stands in, for those that `with_` takes by name.
_PART_OF = {
    field.name: part
    for part, config in (("model", ModelConfig), ("data", DataConfig), ("optimizer", OptimizerConfig))
    for field in fields(config)
}


@cache
def _stored_defaults() -> dict:
    """The stored value of every field but the name, in a recipe that sets nothing."""
    return {field: value for field, value in Recipe("any").to_dict().items() if field != "name"}
