"""Under which conditions a network is measured: what it is fed, and how its BatchNorm normalises.

Two choices change what is measured:

- feed: "raw" is the band as `split` returns it; "max" divides it by the image's own maximum (the authors' standard
  runs); "mean" adds the mean colour of the data set to an HFC, so that its mean is that of an image.
- bn_stats: BatchNorm normalises by its "running" averages (standard), or by the statistics of each test "batch" of 100
  images (the authors' code).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from inspect import signature
from itertools import product
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.overrides import TorchFunctionMode

from hfclib.devices import check_module
from hfclib.frequency import split, svd_split
from hfclib.transforms import FEEDS, Feed, feed_images

Cut = Literal["fourier", "svd"]
BANDS: dict[Cut, tuple[str, str]] = {"fourier": ("lfc", "hfc"), "svd": ("svd_low", "svd_high")}
PAPER_RADII = (4, 8, 12, 16)
BnStats = Literal["running", "batch"]
BN_STATS: tuple[BnStats, ...] = get_args(BnStats)


class Condition(NamedTuple):
    """What a network is fed, and how its BatchNorm normalises; `feed` and `bn_stats` as above."""

    band: str  # "x" for whole images, "lfc", "hfc", "svd_low" or "svd_high"
    radius: float | None = None  # of the cut, in DFT bins; None with "x"
    feed: Feed | Literal["range"] = "raw"  # "range" names what a network was trained on, which is not fed here
    bn_stats: BnStats = "running"

    def canonical(self, batch_norm: bool) -> "Condition":
        """The one of several equivalent conditions that is measured and stored."""
        # A low part with the mean colour is the raw one, and without BatchNorm both kinds of statistics are one.
        same = self.band in ("lfc", "svd_low") and self.feed == "mean"
        return self._replace(feed="raw" if same else self.feed, bn_stats=self.bn_stats if batch_norm else "running")


def band_conditions(
    radii: Iterable[float], batch_norm: bool, other_radii: Iterable[float] | None = None
) -> Iterator[Condition]:
    """The canonical conditions, by radius: raw bands with running averages at `radii`, all others at `other_radii`.

    By default the other radii are those of PAPER_RADII among `radii`.
    """
    radii = list(radii)
    others = [radius for radius in PAPER_RADII if radius in radii] if other_radii is None else list(other_radii)
    for radius, bn_stats, feed, band in product(sorted({*radii, *others}), BN_STATS, FEEDS, ("hfc", "lfc")):
        condition = Condition(band, radius, feed, bn_stats)
        listed = radii if (feed, bn_stats) == ("raw", "running") else others
        if radius in listed and condition == condition.canonical(batch_norm):
            yield condition


def iter_inputs(images: Tensor, conditions: Iterable[Condition], colour: Sequence[float]) -> Iterator[Tensor]:
    """What a network is fed under each condition, one after the other; images are split once for a radius in a row.

    Raises:
        ValueError: a band without a radius, or as `feed_images`.
    """
    factors, cut, parts = None, None, {}
    for band, radius, feed, _ in conditions:
        if band == "x":
            yield feed_images(images, feed, colour=colour)
            continue
        if radius is None:
            raise ValueError(f"expected a radius in DFT bins with the band {band}, got none")
        svd = band.startswith("svd")
        if (svd, radius) != cut:
            if svd and factors is None:
                factors = torch.linalg.svd(images, full_matrices=False)
            low, high, *_ = svd_split(images, radius, factors=factors) if svd else split(images, radius)
            cut, parts = (svd, radius), dict(zip(BANDS["svd" if svd else "fourier"], (low, high), strict=True))
        yield feed_images(parts[band], feed, add_mean=lacks_mean(band, radius), colour=colour)


def lacks_mean(band: str, radius: float) -> bool:
    """Whether the feed "mean" adds a colour to a band: to an HFC, but at radius 0, where it is the whole image."""
    return band in ("hfc", "svd_high") and radius > 0


class _BatchStatistics(TorchFunctionMode):
    """In this thread alone, each call of BatchNorm's function normalises by the batch; no module is changed.

    Attributes:
        met: the running means with which it was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met: list[Tensor | None] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.batch_norm:
            call = _BATCH_NORM.bind(*args, **kwargs or {}).arguments
            self.met.append(call["running_mean"])
            return func(**call | {"running_mean": None, "running_var": None, "training": True})
        return func(*args, **kwargs or {})


_BATCH_NORM = signature(F.batch_norm)


@contextmanager
def evaluating(model: nn.Module, bn_stats: BnStats = "running") -> Iterator[Callable[[], None]]:
    """A context with the model in evaluation mode, which is restored, and BatchNorm with the chosen statistics.

    It gives a function to call after a pass of the model: a ValueError if "batch" was asked for, and the model has a
    BatchNorm that did not run as PyTorch's own function in this thread.

    Other threads may use the model meanwhile, if it was in evaluation mode before: then nothing of it changes.

    Raises:
        ValueError: another bn_stats, or "batch" with a model whose statistics can't be chosen: TorchScript, an exported
            program, frozen BatchNorm, several GPUs (DataParallel), or a callable in which no module is found.
    """
    if bn_stats not in BN_STATS:
        raise ValueError(f"expected bn_stats, one of {', '.join(BN_STATS)}, got {bn_stats!r}")
    roots = [model, *_hidden(model)]
    modes = [(module, module.training) for module in _all_modules(model) if hasattr(module, "training")]
    if bn_stats == "batch":
        _check_statistics_can_be_chosen(model)
    try:
        for root in roots:
            try:
                root.eval()
            except NotImplementedError as error:  # of an exported program
                advice = "give hfclib.Classifier a function that calls it, if it was exported in evaluation mode"
                told = f"expected a model with an evaluation mode, got an exported program: {advice}"
                if root is model:
                    raise ValueError(told) from error
                if bn_stats == "batch":
                    raise ValueError(f'expected bn_stats "running" with an exported program, {_FIXED}') from error
        with _BatchStatistics() if bn_stats == "batch" else nullcontext() as statistics:
            yield partial(_check_met, model, statistics)
    finally:
        for module, mode in modes:  # by its own method, since some merge or split their weights there
            if module.training != mode:
                with suppress(NotImplementedError):  # of an exported program
                    module.train(mode)
        for module, mode in modes:
            module.training = mode


def _check_met(model: nn.Module, statistics: _BatchStatistics | None) -> None:
    if statistics is None:
        return
    # PyTorch's own forward calls its function; another, of a layer with such averages, may not, and must have been met.
    others = [module for module in _all_modules(model) if getattr(module.forward, "__func__", None) not in _FORWARDS]
    kept = [mean for mean in (getattr(module, "running_mean", None) for module in others) if isinstance(mean, Tensor)]
    unmet = any(all(mean is not one for one in statistics.met) for mean in kept)
    if unmet or (uses_batch_statistics(model) and not statistics.met):
        told = "a model whose BatchNorm layers are not called, or in another thread or by another function"
        raise ValueError(f'expected bn_stats "running" with {told}')


_FORWARDS = _BatchNorm.forward, _InstanceNorm.forward
_FIXED = "whose BatchNorm can't be switched"


def _check_statistics_can_be_chosen(model: nn.Module) -> None:
    for module in _all_modules(model):
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f'expected bn_stats "running" with a TorchScript model, {_FIXED}')
        if _is_frozen_norm(module):
            found = f"{type(module).__name__}, which normalises by its running averages always"
            raise ValueError(f'expected bn_stats "running", got "batch" with a {found}')
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError('expected bn_stats "running" with DataParallel, which cuts batches up: give its module')
        if getattr(module, "no_module_found", False):
            advice = "give the module itself, or a function that refers to it"
            raise ValueError(f'expected bn_stats "running" with a callable in which no module is found: {advice}')


def _hidden(model: nn.Module) -> list[nn.Module]:
    """The modules that callables within the model refer to, which are not parts of it; see `Classifier`."""
    check_module(model)
    return [hidden for module in model.modules() for hidden in getattr(module, "modules_behind", ())]


def _all_modules(model: nn.Module) -> list[nn.Module]:
    """The parts of the model, then those of the modules that callables within it refer to."""
    return list(dict.fromkeys(module for root in [model, *_hidden(model)] for module in root.modules()))


def _is_frozen_norm(module: nn.Module) -> bool:
    # Torchvision, timm and Detectron2 have a class of this name each, none of them a BatchNorm of PyTorch.
    return any(kind.__name__.startswith("FrozenBatchNorm") for kind in type(module).__mro__)


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in _all_modules(model) if isinstance(module, _BatchNorm)]


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether the model has a BatchNorm layer, so that `bn_stats` makes a difference.

    Beside frozen BatchNorm layers, whose statistics can't be chosen, the others count as frozen too.
    """
    return bool(_batch_norms(model)) and not any(map(_is_frozen_norm, _all_modules(model)))


def depends_on_batch(model: nn.Module) -> bool:
    """Whether an image's logits depend on its batch: by `matched`, or by a BatchNorm that keeps no running averages."""
    matched = any(getattr(module, "by_batch", False) for module in _all_modules(model))
    return matched or any(norm.running_mean is None for norm in _batch_norms(model))
