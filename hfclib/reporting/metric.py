"""Any classifier as a module, and its accuracy by frequency band as a metric with `update`, `compute` and `reset`."""

import dis
import inspect
import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import NormalDist
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hfclib.batching import BATCH_SIZE, Labels, batch_size_of, evaluated_batches, logits
from hfclib.conditions import (
    BN_STATS,
    PAPER_RADII,
    BnStats,
    Condition,
    iter_inputs,
    uses_batch_statistics,
)
from hfclib.frequency import each_radius
from hfclib.transforms import FEEDS, Feed

# The feed of each band by which a network is summed up, with running averages.
READ: dict[str, Feed] = {"lfc": "raw", "hfc": "mean"}
_DEPTH, _MANY = 6, 100  # of references that are followed from a callable, and of the elements of a container


class Classifier(nn.Module):
    """Any classifier as a module from images (N, C, H, W) in [0, 1] to logits (N, classes).

    Args:
        model: a module or any callable. The logits are what it returns, or in it what is called "logits", or the first
            of a tuple, unless another could be them, of another shape or with other answers; an array of NumPy becomes
            a tensor. A module is fed the type of its weights, on their device; another callable gets images on the CPU.
            The modules that a callable refers to (as a bound method, by its closure, defaults, attributes and the
            globals that its code loads) are put into evaluation mode, and have the statistics that are asked for. Where
            none is found, test-batch statistics are refused, and so are dropout, and a BatchNorm in training mode, as
            they run.
        mean, std: of the normalisation that the model expects, one number per channel, applied after every split.
    """

    def __init__(
        self, model: Callable, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not callable(model):
            told = f"got {model!r}" if isinstance(model, str) else f"got {type(model).__name__}"
            raise TypeError(f"expected a model, a module or a function from images to logits, {told}")
        if (mean is None) != (std is None):
            raise ValueError("expected mean and std, or neither")
        if mean is not None and std is not None and not (min(std) > 0 and 0 <= min(mean) <= max(mean) <= 1):
            told = f"{list(mean)} and {list(std)}"
            raise ValueError(f"expected mean, numbers in [0, 1] as of pixels, and std, numbers above 0, got {told}")
        self.model = model
        # No parts of this module: the callable keeps the device and the type of what it calls.
        self.modules_behind = () if isinstance(model, nn.Module) else tuple(_modules_behind(model))
        self.no_module_found = not isinstance(model, nn.Module) and not self.modules_behind
        self.mean, self.std = (None if values is None else [float(value) for value in values] for values in (mean, std))

    @classmethod
    def of(
        cls, model: Callable, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> "Classifier":
        """The model if it is a `Classifier`, which then has its own mean and std, else one of it."""
        if not isinstance(model, cls):
            return cls(model, mean, std)
        if mean is not None or std is not None:
            raise ValueError("expected no mean and std beside a Classifier, which has its own")
        return model

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Raises:
            ValueError: another number of channels than that of mean and std, or a callable with a BatchNorm in training
                mode.
        """
        if self.mean is not None and self.std is not None:
            if not len(self.mean) == len(self.std) == images.shape[1]:
                counts = f"{len(self.mean)} and {len(self.std)}"
                raise ValueError(f"expected mean and std for {images.shape[1]} channels, got {counts} numbers")
            mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
            images = (images - mean) / std
        weights = (weight for weight in self.parameters() if weight.is_floating_point())
        with nullcontext() if isinstance(self.model, nn.Module) else _WithoutTraining():
            output = self.model(images.to(next(weights, images)))
        if isinstance(output, Mapping):
            if "logits" not in output:
                raise TypeError(f"expected logits from the model, got a mapping of {', '.join(map(str, output))}")
            output = output["logits"]
        elif hasattr(output, "logits"):
            output = output.logits
        elif isinstance(output, tuple | list):
            _check_one_is_meant([_tensor(part) for part in output])
            output = output[0]
        return _tensor(output)


def _tensor(output: Any) -> Any:
    """What a model returned, an array of NumPy as a tensor: ONNX Runtime returns those."""
    return torch.from_numpy(output) if isinstance(output, np.ndarray) else output


def _check_one_is_meant(parts: Sequence[Any]) -> None:
    """Refuse several outputs that could be the logits: features, or those of another head with other answers."""
    several = [part for part in parts if isinstance(part, Tensor) and part.ndim == 2]
    shapes = [tuple(part.shape) for part in several]
    if len(set(shapes)) > 1 or any((part.argmax(dim=1) != several[0].argmax(dim=1)).any() for part in several[1:]):
        found = " and ".join(map(str, sorted(shapes)))
        raise TypeError(f"expected logits from the model, got {found}: give a function that picks the logits")


_DROPOUTS = F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout


class _WithoutTraining(TorchFunctionMode):
    """Refuses a BatchNorm that would normalise by the batch and change its running averages, and dropout."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.batch_norm, *_DROPOUTS):
            bound = inspect.signature(func).bind(*args, **kwargs or {})
            bound.apply_defaults()
            given = bound.arguments
            layer = "BatchNorm" if func is F.batch_norm else "dropout"
            if given["training"] and (layer == "dropout" or given["running_mean"] is not None):
                advice = "call its eval() before, or give the module itself"
                raise ValueError(f"expected a callable with {layer} in evaluation mode, got training mode: {advice}")
        return func(*args, **kwargs or {})


def _modules_behind(model: Callable) -> Iterator[nn.Module]:
    """The modules that a callable refers to, found in its object, closure, defaults, attributes and global names."""
    met, waiting = set(), [(model, 0)]
    while waiting:
        value, depth = waiting.pop(0)
        if id(value) in met or depth > _DEPTH:
            continue
        met.add(id(value))
        if isinstance(value, nn.Module):
            yield value
        else:
            waiting += [(other, depth + 1) for other in _referred(value)]


def _referred(value: object) -> list:
    """What an object refers to, as far as a network may be there."""
    if isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        closure = {name: cell.cell_contents for name, cell in cells if cell != CellType()}
        inside = str(value.__globals__.get("__name__")).partition(".")[0] == "torch"  # there is none of the user's
        known = ChainMap(closure, {} if inside else value.__globals__)
        loaded = [other for code in _codes(value.__code__) for other in _loaded(code, known)]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return [*closure.values(), *loaded, *defaults, vars(value)]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, list | tuple | set | dict):
        return list(value.values() if isinstance(value, dict) else value) if len(value) <= _MANY else []
    if isinstance(value, type | ModuleType | Tensor):
        return []
    call = inspect.getattr_static(type(value), "__call__", None)
    parts = [item for kind in type(value).__mro__ for item in vars(kind).items()]
    of_class = [part for _, part in parts if isinstance(part, nn.Module)]
    in_slots = [getattr(value, name, None) for name, part in parts if isinstance(part, MemberDescriptorType)]
    return [*getattr(value, "__dict__", {}).values(), *in_slots, *of_class, call]


def _loaded(code: CodeType, known: Mapping[str, object]) -> Iterator[object]:
    """The variables from outside that code loads; of a module, the networks and functions that it takes from it."""
    last = None
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
            last = known.get(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(last, ModuleType):
            last = getattr(last, step.argval, None)
        else:
            last = None
        if last is not None and not isinstance(last, ModuleType):
            yield last


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def counted(correct: int, images: int, intervals: int = 1) -> dict:
    """The columns of a share: images, correct, accuracy, and its 95 % Wilson interval, low and high.

    Args:
        correct, images: of so many.
        intervals: so many that all hold at once in 95 % of cases (Bonferroni).
    """
    # By hand, since scipy.stats takes half a second to import and is in no core dependency.
    square = NormalDist().inv_cdf(1 - 0.025 / intervals) ** 2
    centre = (correct + square / 2) / (images + square)
    half = math.sqrt(square * (correct * (images - correct) / images + square / 4)) / (images + square)
    # The interval holds the share, which rounding must not undo where none or all are right: plots take no less.
    share = correct / images
    low, high = max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)
    return {"images": images, "correct": correct, "accuracy": share, "low": low, "high": high}


def chance_p_value(correct: int, images: int, chance: float) -> float:
    """The one-sided p-value of a binomial test: how likely what is right with probability `chance` is so as often."""
    if chance >= 1:
        return 1.0
    hit, miss = math.log(chance), math.log1p(-chance)
    ways = (
        math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1) for k in range(correct, images + 1)
    )
    terms = (math.exp(way + k * hit + (images - k) * miss) for k, way in enumerate(ways, correct))
    return min(math.fsum(terms), 1.0)


class BandAccuracy:
    """Accuracy on whole images and on their bands, in the manner of a metric of torchmetrics; only counts are kept.

    Args:
        model: any classifier, see `Classifier`.
        radii, feeds, bn_stats: as in `band_accuracy`, feeds and bn_stats one or several. "batch" has the statistics of
            each 100 images, of one call of `update`.
        colour: what "mean" adds, a number per channel, such as `mean_colour` finds; "mean" needs it, since a batch does
            not know the mean of those to come.
        mean, std: see `Classifier`; not with a model that is one.
        batch_size: images at once, where no result hangs on it; with test-batch statistics it is 100 always.
        by_class: count each class too, see `by_class_counts`.
    Raises:
        ValueError: other feeds or statistics, a radius between 0 and 1, or feed "mean" without a colour.
    """

    def __init__(
        self,
        model: Callable,
        radii: float | Sequence[float] = PAPER_RADII,
        *,
        feeds: Feed | Sequence[Feed] = ("mean",),
        bn_stats: BnStats | Sequence[BnStats] = ("running",),
        colour: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = BATCH_SIZE,
        by_class: bool = False,
    ) -> None:
        self.model = Classifier.of(model, mean, std)
        self.batch_size, self.counts_classes = batch_size, by_class
        self.colour = None if colour is None else [float(value) for value in colour]
        batch_norm = uses_batch_statistics(self.model)
        feeds = (feeds,) if isinstance(feeds, str) else tuple(feeds)
        bn_stats = (bn_stats,) if isinstance(bn_stats, str) else tuple(bn_stats)
        for name, given, known in (("feeds", feeds, FEEDS), ("bn_stats", bn_stats, BN_STATS)):
            if not given or set(given) - set(known):
                raise ValueError(f"expected {name}, of {', '.join(known)}, got {given}")
        if colour is None and "mean" in feeds:
            advice = 'hfclib.mean_colour finds it in images or a loader, and feeds="raw" does without'
            raise ValueError(f'expected colour, the mean of your images, with feed "mean", got none: {advice}')
        wanted = [Condition("x", bn_stats=statistics) for statistics in bn_stats]
        for radius in each_radius(radii):
            wanted += [Condition(band, radius, feed, s) for band in ("lfc", "hfc") for feed in feeds for s in bn_stats]
        self.wanted = list(dict.fromkeys(condition.canonical(batch_norm) for condition in wanted))
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.classes = self.images = 0
        self.correct, self.top5 = [0] * len(self.wanted), [0] * len(self.wanted)
        self.by_class: dict[int, list[int]] = {}  # class: images, then correct ones by condition

    def counts(self) -> dict:
        """All that is kept, for `add`: whole numbers and lists of them."""
        counts = {name: getattr(self, name) for name in ("images", "classes", "correct", "top5")}
        rows = [[number, *self.by_class[number]] for number in sorted(self.by_class)]
        return counts | {"by_class": rows} if self.counts_classes else counts

    def add(self, counts: Mapping) -> None:
        """Add the `counts` of another metric, such as another process's, with the same settings."""
        self.images, self.classes = self.images + counts["images"], max(self.classes, counts["classes"])
        self.correct = [kept + added for kept, added in zip(self.correct, counts["correct"], strict=True)]
        self.top5 = [kept + added for kept, added in zip(self.top5, counts["top5"], strict=True)]
        for number, *row in counts.get("by_class", ()):
            known = self.by_class.get(number, [0] * len(row))
            self.by_class[number] = [kept + added for kept, added in zip(known, row, strict=True)]

    def update(self, images: Tensor | Iterable, labels: Labels = None) -> None:
        """Count a batch, or all of an iterable of batches; arguments and errors as in `hfclib.batching.batches`.

        A batch that raises an error is not counted.
        """
        statistics: BnStats = "batch" if any(condition.bn_stats == "batch" for condition in self.wanted) else "running"
        fitting = batch_size_of(self.model, self.batch_size)
        for part, classes in evaluated_batches(self.model, images, labels, statistics, BATCH_SIZE):
            inputs = iter_inputs(part, self.wanted, self.colour or ())
            counts: dict = {"images": len(part), "classes": 0, "correct": [], "top5": []}
            right = []
            for condition, fed in zip(self.wanted, inputs, strict=True):
                size = BATCH_SIZE if condition.bn_stats == "batch" else fitting
                scores = logits(self.model, fed, bn_stats=condition.bn_stats, batch_size=size)
                counts["classes"] = scores.shape[1]
                right.append(scores.argmax(dim=1) == classes)
                counts["correct"].append(int(right[-1].sum()))
                best = scores.topk(min(5, scores.shape[1])).indices
                counts["top5"].append(int((best == classes[:, None]).any(dim=1).sum()))
            if self.counts_classes:
                counts["by_class"] = _by_class(classes.cpu(), torch.stack(right).cpu())
            self.add(counts)

    def by_class_counts(self) -> pd.DataFrame:
        """One row per class and condition: class, the columns of the condition, images, correct; needs `by_class`."""
        rows = [
            {"class": number, **condition._asdict(), "images": images, "correct": correct}
            for number, (images, *counts) in sorted(self.by_class.items())
            for condition, correct in zip(self.wanted, counts, strict=True)
        ]
        return pd.DataFrame(rows, columns=["class", *Condition._fields, "images", "correct"])

    def compute(self) -> pd.DataFrame:
        """The table of all batches so far.

        Returns:
            One row per condition: band ("x" for whole images, "lfc", "hfc"), radius (0 with "x"), feed, bn_stats, the
            columns of `counted`, and top5, the share with the label among five largest logits; NaN with fewer than 10
            classes.
        Raises:
            ValueError: no batch yet.
        """
        if self.images == 0:
            raise ValueError("expected a batch before the table: call update first")
        counts = pd.DataFrame([counted(correct, self.images) for correct in self.correct])
        top5 = pd.Series(self.top5) / self.images if self.classes >= 10 else math.nan
        wanted = [condition._replace(radius=condition.radius or 0) for condition in self.wanted]
        return pd.concat([pd.DataFrame(wanted), counts], axis=1).assign(top5=top5)


def _by_class(classes: Tensor, right: Tensor) -> list[list[int]]:
    """For each class its number, its images, and those right under each condition; right is (conditions, N)."""
    rows = []
    for number in classes.unique().tolist():
        mine = classes == number
        rows.append([number, int(mine.sum()), *right[:, mine].sum(dim=1).tolist()])
    return rows
