"""Recipes: everything that decides a network's weights."""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Literal

from torch import nn

from hfclib.models import NORMS, NormLayer, alexnet, lenet, resnet18, resnet32, vgg11

# Part of every hash. Raise it when training code changes what a recipe produces.
TRAINING_VERSION = 1
ARCHITECTURES = ("resnet18", "resnet32", "lenet", "alexnet", "vgg11")
OPTIMIZERS = ("adam", "sgd", "sgd_plain", "adagrad", "adadelta", "rmsprop")
RADII = tuple(range(1, 23))  # every radius at which a 32x32 image can be split in two
SMALLER_SIZES = tuple(range(8, 32))  # three halvings leave at least one pixel


@dataclass(frozen=True)
class Recipe:
    """How a network is built, trained and measured. Equal recipes and seeds give equal runs.

    Attributes:
        name: what people call it, such as "laptop-batchnorm"; not part of the hash.
        arch: "resnet18"; "resnet32", "lenet" and "alexnet", for which width is not used; or "vgg11". The last three are
            in `models`; they have no dropout, no other first layer, and take no smaller images, and only "vgg11" has
            a norm.
        width: channels of the first stage.
        norm: "none", "batch" (BatchNorm) or "group" (GroupNorm, `GROUPS`).
        dropout: drop probability in [0, 1).
        dropout_at: "features" (paper) or "map" (authors' code).
        mixup_alpha: parameter of mix-up's Beta(alpha, alpha), one draw a batch; 0 turns mix-up off.
        epochs: passes over the training images.
        batch_size: images a step.
        optimizer: "adam" (paper), "sgd" with Nesterov momentum .9, or "sgd_plain" without momentum, "adagrad",
            "adadelta", "rmsprop" (paper, section 5.1), with PyTorch's own settings beyond the learning rate.
        learning_rate: of the optimizer; the peak when the schedule is "one_cycle".
        weight_decay: L2 penalty that the optimizer adds to the gradient of every parameter.
        schedule: "constant", or "one_cycle" (a fifth of the steps rising, then a cosine to nearly zero).
        augment: random crop with 4 pixels of zero padding, and horizontal flip.
        early_sizes: side in pixels, 8 to 31, to which images are shrunk in each of the first epochs, which then take
            less time; later epochs train on images as they are, and so does at least the last. Needs whole images, no
            rescaling and no attack.
        label_smoothing: share of a label, in [0, 1), that is spread evenly over all classes in the training loss
            (Szegedy et al. 2016).
        rescale: what is done to each training image, last: "none"; "max" divides it by its own maximum (authors' code);
            "range" maps its own minimum and maximum to 0 and 1, the standard pixel range (our reading of the paper's
            section 4.1).
        train_band: "x" to train on whole images, "lfc" or "hfc" to train on that band of them (paper, Table 1).
        train_radius: at which radius the band is split off, a whole number of DFT bins; 0 with "x".
        adversarial: "none"; "single_step" trains on images attacked by one step of PGD (Wong et al. 2020), "pgd" by
            several (paper). Both need whole images and no mix-up.
        adv_eps, adv_alpha: size of the attack in Linf and of its steps, in units of pixels in [0, 1]; above 0, or 0
            with "none".
        adv_steps: steps of the attack: 1 with "single_step", 0 with "none".
        adv_random_start: start the attack at a random point of the ball, not at the image (the authors' code).
        stem_kernel: side of the first layer's kernels, 3 or 5.
        smoothness_penalty: weight in the loss of the mean squared difference of horizontally and vertically adjacent
            weights of the first layer (`smoothness_penalty`); 0 turns it off.
        labels: "natural", or "shuffled": the labels of the training images are dealt out among them at random, the same
            way for every seed (`SHUFFLE_SEED`), and the network is trained and measured on those; the labels
            of test images stay natural (paper, Fig. 3).
        train_bands: also measure the LFC and HFC of the training images, raw, at r = 4, 8, 12, 16, with the labels that
            the network was trained on: after each epoch and at the end (paper, Fig. 3). Needs train_band "x".
        train_images: how many training images; 50,000 is all, up to 5,000 come with the package.
        eval_images: test and training images measured after each epoch: the first so many of each set.
        final_images: test images measured after the last epoch.
    """

    name: str
    arch: Literal["resnet18", "resnet32", "lenet", "alexnet", "vgg11"] = "resnet18"
    width: int = 64
    norm: NormLayer = "none"
    dropout: float = 0.0
    dropout_at: Literal["features", "map"] = "features"
    mixup_alpha: float = 0.0
    epochs: int = 100
    batch_size: int = 100
    optimizer: Literal["adam", "sgd", "sgd_plain", "adagrad", "adadelta", "rmsprop"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "one_cycle"] = "constant"
    augment: bool = False
    early_sizes: tuple[int, ...] = ()
    label_smoothing: float = 0.0
    rescale: Literal["none", "max", "range"] = "none"
    train_band: Literal["x", "lfc", "hfc"] = "x"
    train_radius: int = 0
    adversarial: Literal["none", "single_step", "pgd"] = "none"
    adv_eps: float = 0.0
    adv_alpha: float = 0.0
    adv_steps: int = 0
    adv_random_start: bool = True
    stem_kernel: Literal[3, 5] = 3
    smoothness_penalty: float = 0.0
    labels: Literal["natural", "shuffled"] = "natural"
    train_bands: bool = False
    train_images: int = 50_000
    eval_images: int = 500
    final_images: int = 10_000

    def __post_init__(self) -> None:
        choices = {
            "arch": ARCHITECTURES,
            "norm": NORMS,
            "dropout_at": ("features", "map"),
            "schedule": ("constant", "one_cycle"),
            "rescale": ("none", "max", "range"),
            "optimizer": OPTIMIZERS,
            "train_band": ("x", "lfc", "hfc"),
            "labels": ("natural", "shuffled"),
            "adversarial": ("none", "single_step", "pgd"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"expected {field}, one of {', '.join(allowed)}, got {getattr(self, field)!r}")
        for field in ("width", "epochs", "batch_size", "train_images", "eval_images", "final_images"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"expected {field}, a whole number of at least 1, got {value!r}")
        radii = (0,) if self.train_band == "x" else RADII
        if type(self.train_radius) is not int or self.train_radius not in radii:
            expected = f"from {RADII[0]} to {RADII[-1]}" if len(radii) > 1 else '0 with train_band "x"'
            raise ValueError(f"expected train_radius, a whole number, {expected}, got {self.train_radius!r}")
        for field in ("augment", "adv_random_start", "train_bands"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"expected {field}, True or False, got {getattr(self, field)!r}")
        if type(self.stem_kernel) is not int or self.stem_kernel not in (3, 5):
            raise ValueError(f"expected stem_kernel, 3 or 5, got {self.stem_kernel!r}")
        if not isinstance(self.name, str) or not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"expected name of letters, digits, '.', '_' and '-', got {self.name!r}")
        for field in (
            "dropout",
            "mixup_alpha",
            "learning_rate",
            "weight_decay",
            "label_smoothing",
            "adv_eps",
            "adv_alpha",
            "smoothness_penalty",
        ):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"expected {field}, a finite number of at least 0, got {value!r}")
            object.__setattr__(self, field, float(value))  # 1 and 1.0 are equal, and so must be their hashes
        for field in ("dropout", "label_smoothing"):
            if getattr(self, field) >= 1:
                raise ValueError(f"expected {field} in [0, 1), got {getattr(self, field)!r}")
        if self.learning_rate == 0:
            raise ValueError(f"expected a positive learning_rate, got {self.learning_rate!r}")
        if self.train_bands and self.train_band != "x":
            raise ValueError(f'expected train_band "x" with train_bands, got {self.train_band!r}')
        self._check_sizes()
        self._check_attack()
        self._check_architecture()

    def _check_sizes(self) -> None:
        if not isinstance(self.early_sizes, tuple | list):
            raise ValueError(f"expected early_sizes, a size for each of the first epochs, got {self.early_sizes!r}")
        object.__setattr__(self, "early_sizes", tuple(self.early_sizes))  # a list when it comes from JSON
        for size in self.early_sizes:
            if type(size) is not int or size not in SMALLER_SIZES:
                raise ValueError(f"expected early_sizes from {SMALLER_SIZES[0]} to {SMALLER_SIZES[-1]}, got {size!r}")
        if not self.early_sizes:
            return
        if len(self.early_sizes) >= self.epochs:
            raise ValueError(f"expected fewer early_sizes than epochs, got {len(self.early_sizes)} of {self.epochs}")
        if (self.train_band, self.rescale, self.adversarial) != ("x", "none", "none"):
            raise ValueError(
                "expected whole images, not rescaled and not attacked, with early_sizes, got "
                f"train_band={self.train_band!r}, rescale={self.rescale!r} and "
                f"adversarial={self.adversarial!r}"
            )

    def _check_architecture(self) -> None:
        if self.arch.startswith("resnet"):
            return
        lacking = ("dropout", "dropout_at", "stem_kernel", "early_sizes")
        for field in lacking if self.arch == "vgg11" else ("norm", *lacking):
            value, default = getattr(self, field), type(self).__dataclass_fields__[field].default
            if value != default:
                raise ValueError(f'expected {field} = {default!r} with arch "{self.arch}", got {value!r}')

    def _check_attack(self) -> None:
        if self.adversarial == "none":
            for field in ("adv_eps", "adv_alpha", "adv_steps", "adv_random_start"):
                value, default = getattr(self, field), type(self).__dataclass_fields__[field].default
                if value != default:
                    raise ValueError(f'expected {field} = {default} with adversarial "none", got {value!r}')
            return
        for field in ("adv_eps", "adv_alpha"):
            if not getattr(self, field):
                raise ValueError(f"expected {field} above 0 with adversarial training, got 0")
        steps, single = self.adv_steps, self.adversarial == "single_step"
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1 or (single and steps > 1):
            expected = '1 with "single_step"' if single else "a whole number of at least 1"
            raise ValueError(f"expected adv_steps, {expected}, got {steps!r}")
        if self.mixup_alpha or self.train_band != "x":
            raise ValueError(
                "expected no mix-up and whole images with adversarial training, "
                f"got mixup_alpha={self.mixup_alpha} and train_band={self.train_band!r}"
            )

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

    def run_name(self, seed: int) -> str:
        """Folder name of the run of this recipe with `seed`."""
        return f"{self.name}-{seed}-{self.hash}"

    def whole_epochs(self, epochs: int) -> float:
        """How many epochs on 32 x 32 images would take as long as the first `epochs` epochs, as pixels go."""
        return epochs - sum(1 - (size / 32) ** 2 for size in self.early_sizes[:epochs])

    def build(self) -> nn.Module:
        """A network with freshly drawn weights, on the CPU."""
        if self.arch == "vgg11":
            return vgg11(self.width, self.norm)
        if self.arch in ("lenet", "alexnet"):
            return lenet() if self.arch == "lenet" else alexnet()
        if self.arch == "resnet32":
            return resnet32(self.norm, self.dropout, dropout_at=self.dropout_at, stem_kernel=self.stem_kernel)
        return resnet18(self.width, self.norm, self.dropout, dropout_at=self.dropout_at, stem_kernel=self.stem_kernel)

    def to_dict(self) -> dict:
        """The fields as plain values, for JSON."""
        return asdict(self)
