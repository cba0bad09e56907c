"""Matched moments: the counterpart of BatchNorm's test-batch statistics for a network without BatchNorm.

With test-batch statistics, BatchNorm gives each channel the moments that the next layer was trained on.
`matched` does the same to any network: at each place where BatchNorm would sit, each channel of the current batch gets
the mean and the standard deviation that clean reference images have there. Instead of the current batch's own moments
it can take off those of fixed images; `recalibrate_batchnorm` is the counterpart for a network with BatchNorm. Then no
test batch is needed.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hfclib.batching import BATCH_SIZE, check_pixels
from hfclib.conditions import evaluating, uses_batch_statistics
from hfclib.devices import arithmetic, device_of
from hfclib.frequency import check_images
from hfclib.models import PreactBlock, ResNet

Where = Literal["all", "first", "input"]
EPS = 1e-5  # added to each variance, as in PyTorch's BatchNorm


def norm_places(model: nn.Module) -> list[nn.Module]:
    """The modules whose output BatchNorm would normalise: every Conv2d, or in a ResNet-32 its (empty) norm layers."""
    blocks = [module for module in model.modules() if isinstance(module, PreactBlock)]
    if blocks:
        last = next(module for module in model.modules() if isinstance(module, ResNet)).norm2
        return [*(norm for block in blocks for norm in (block.norm1, block.norm2)), last]
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


@contextmanager
def _hooked(places: Iterable[nn.Module], hook: Callable, *, before: bool = False) -> Iterator[None]:
    with ExitStack() as handles:
        if not torch.compiler.is_compiling():  # a compiled network ignores hooks that come after its first pass
            handles.enter_context(torch.compiler.set_stance("force_eager"))
        for place in places:
            register = place.register_forward_pre_hook if before else place.register_forward_hook
            handles.enter_context(register(hook))
        yield


def _double(maps: Tensor) -> Tensor:
    return (maps.cpu() if maps.device.type == "mps" else maps).double()  # which MPS does not have


def _mean_var(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of maps (N, C, ...), without Bessel's correction: (C,) float32 each."""
    wide = _double(maps)
    var, mean = torch.var_mean(wide, dim=[0, *range(2, wide.ndim)], correction=0)
    return mean.float(), var.float()


class Matched(nn.Module):
    """A network that gives each batch the channel moments of reference images; made by `matched`.

    The moments are buffers, and so part of its `state_dict`: "mean_0" and "std_0" of the first place, and so on; with
    a source also "source_mean_0" and "source_var_0".

    Attributes:
        by_batch: whether the moments that are taken off are those of the current batch, so that an image's logits
            depend on its batch.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.pixels = model, nn.Identity()
        self.by_batch = True
        self.places: list[nn.Module] = []

    @property
    def moments(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """The mean and the standard deviation, (C,) each, by place."""
        return {
            place: (self.get_buffer(f"mean_{number}"), self.get_buffer(f"std_{number}"))
            for number, place in enumerate(self.places)
        }

    def add(self, place: nn.Module, mean: Tensor, std: Tensor) -> None:
        """Add a place with its moments, (C,) float32."""
        self.register_buffer(f"mean_{len(self.places)}", mean)
        self.register_buffer(f"std_{len(self.places)}", std)
        self.places.append(place)

    @torch.inference_mode(False)
    @torch.no_grad()
    def fix_source(self, images: Tensor) -> None:
        """Take off the moments of these images (N, C, H, W) from now on, in place of each batch's own.

        Each place is measured with those before it already corrected, in one pass over all the images; see `source` of
        `matched`, also for what is refused.
        """
        _check_source(images)
        numbers, device = {place: number for number, place in enumerate(self.places)}, device_of(self.model)

        def record(place: nn.Module, _: tuple, maps: Tensor) -> Tensor:
            for name, moment in zip(("mean", "var"), _mean_var(maps), strict=True):
                self.register_buffer(f"source_{name}_{numbers[place]}", moment)
            return self._standardised(numbers[place], maps, by_batch=False)

        with evaluating(self.model), arithmetic(device, amp=False), _hooked(self.places, record):
            self.model(self.pixels(images.to(device, copy=True)))
        self.by_batch = False

    def _standardised(self, number: int, maps: Tensor, by_batch: bool) -> Tensor:
        def buffer(name: str) -> Tensor:
            return self.get_buffer(f"{name}_{number}").to(maps.device, torch.float32)

        mean, var = (None, None) if by_batch else (buffer("source_mean"), buffer("source_var"))
        # Not the function of BatchNorm, which `evaluating` replaces: fixed moments stay so with bn_stats="batch".
        factors, cudnn = (buffer("std"), buffer("mean")), torch.backends.cudnn.enabled
        return torch.batch_norm(maps.float(), *factors, mean, var, by_batch, 0.1, EPS, cudnn).to(maps.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W); ValueError for fewer than 2 images where no source is fixed."""
        if self.by_batch and len(images) < 2:
            raise ValueError(f"expected batches of at least 2 images to take moments of, got {len(images)}")
        numbers = {place: number for number, place in enumerate(self.places)}

        def standardise(place: nn.Module, _: tuple, maps: Tensor) -> Tensor:
            return self._standardised(numbers[place], maps, self.by_batch)

        with _hooked(self.places, standardise):
            return self.model(self.pixels(images))


@torch.inference_mode(False)  # no attack could differentiate by moments that are made in that mode
@torch.no_grad()
def matched(model: nn.Module, reference: Tensor, *, where: Where = "all", source: Tensor | None = None) -> Matched:
    """A network with the counterpart of BatchNorm's test-batch statistics.

    `hfclib.accuracy(matched(model, reference), images, labels)` is the counterpart of `bn_stats="batch"`. The batch
    size matters, as it does there; 100 is the default of `accuracy`. With `source` an image's logits do not depend on
    its batch; the counterpart is then `recalibrate_batchnorm(model, source)`.

    Args:
        model: without BatchNorm, from (N, C, H, W) to (N, classes); it is neither changed nor copied. While the
            result runs, no other thread may use it.
        reference: (N, C, H, W) float in [0, 1], clean training images, 1 or more. A normalisation is the model's own,
            as in `accuracy`.
        where: "all" places where BatchNorm would sit (`norm_places`); "first" those with maps as large as the
            first one's, in `resnet18` the stem and the first stage; "input" the pixels and no other place.
        source: (N, C, H, W) float from -100 to 100, 2 or more images like those that are to be classified, such as the
            HFCs of training images, fed as those are. Their moments take the place of the batch's: each layer's are
            taken with the layers before it already corrected, in one pass over all of them, so 1,000 images of 32 x 32
            pixels are enough, and many more need much memory.
    Returns:
        A module that replaces x by (x - mean of the batch) / sd of the batch * sd + mean of the reference, per channel
        over (N, H, W); 1e-5 is added to each variance. With `source`, mean and sd are the source's in place of the
        batch's, and batches of one image are allowed; without it they are refused.
    Raises:
        TypeError, ValueError: a bad reference, or one that leaves [0, 1]; a bad source, or one of another shape than
            the reference; another `where`; or the model has BatchNorm, no convolution, or one that runs more than once
            per pass.
    Source: ours.
    """
    _check_matched(model, reference, where, source)
    network = Matched(model)
    places: list[nn.Module] = [network.pixels] if where == "input" else norm_places(model)
    if len(reference) == 0 or not places:
        raise ValueError(f"expected reference images and convolutions, got {len(reference)} and {len(places)}")
    for place, mean, std in _reference_moments(network, places, reference, first=where == "first"):
        network.add(place, mean, std)
    if not network.places:
        raise ValueError("expected convolutions that run, got none that does in a pass")
    if source is not None:
        network.fix_source(source)
    return network


def _check_matched(model: nn.Module, reference: Tensor, where: Where, source: Tensor | None) -> None:
    check_images(reference)
    check_pixels(reference)
    if source is not None:
        _check_source(source)
        if source.shape[1:] != reference.shape[1:]:
            shapes = f"{tuple(source.shape[1:])} and {tuple(reference.shape[1:])}"
            raise ValueError(f"expected source and reference images of one shape, got {shapes}")
    if where not in get_args(Where):
        raise ValueError(f"expected where, one of {', '.join(get_args(Where))}, got {where!r}")
    if uses_batch_statistics(model):
        raise ValueError('expected a network without BatchNorm; for one with it, use bn_stats="batch"')


def _reference_moments(
    network: Matched, places: list[nn.Module], reference: Tensor, *, first: bool
) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """The places that run, with mean and standard deviation, (C,) float32 each.

    With `first`, those with maps as large as the first one's.
    """
    sums: dict[nn.Module, Tensor] = {}
    counts: Counter[nn.Module] = Counter()  # of maps, which are more than the images where a network cuts these up
    sizes: dict[nn.Module, torch.Size] = {}
    met: set[nn.Module] = set()
    again: set[nn.Module] = set()

    def add(place: nn.Module, _: tuple, maps: Tensor) -> None:
        (again if place in met else met).add(place)
        wide = _double(maps)
        sizes[place] = maps.shape[2:]
        counts[place] += len(maps)
        sums[place] = sums.get(place, 0) + torch.stack([wide, wide.square()]).mean(dim=(3, 4)).sum(dim=1)

    device = device_of(network.model)
    with evaluating(network.model), arithmetic(device, amp=False), _hooked(places, add):
        for batch in reference.split(BATCH_SIZE):
            met.clear()
            network.model(network.pixels(batch.to(device, copy=True)))  # which some networks change
    moments = []
    for place, total in sums.items():
        if not first or sizes[place] == next(iter(sizes.values())):
            if place in again:
                raise ValueError("expected convolutions that run once per pass, got one whose moments change in a pass")
            mean, square = total / counts[place]
            moments.append((place, mean.float(), ((square - mean.square()).clamp(min=0) + EPS).sqrt().float()))
    return moments


def _check_source(images: Tensor) -> None:
    check_images(images)
    if len(images) < 2:
        raise ValueError(f"expected 2 source images or more to take moments of, got {len(images)}")
    check_pixels(images, max_abs=100)


@torch.inference_mode(False)
@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, source: Tensor) -> nn.Module:
    """A copy of a network with BatchNorm whose running averages are the statistics of fixed images.

    The counterpart of `matched` with a source: each layer's are taken with the layers before it already recalibrated,
    as `bn_stats="batch"` does with one batch of these images.

    Args:
        model: with BatchNorm layers that keep running averages and run once per pass; it is not changed.
        source: (N, C, H, W) float from -100 to 100, 2 or more images, in one pass; as in `matched`.
    Returns:
        A copy in evaluation mode. Variances are without Bessel's correction, as in the normalisation of a batch.
    Raises:
        TypeError, ValueError: a bad source; the model has no BatchNorm, frozen BatchNorm, BatchNorm without running
            averages, or one that does not run once per pass.
    Source: adaptation to a shift by the statistics of BatchNorm, Schneider et al. 2020, Nado et al. 2020.
    """
    _check_source(source)
    if not uses_batch_statistics(model):
        raise ValueError("expected a network with BatchNorm that is not frozen; for one without it, use `matched`")
    changed = copy.deepcopy(model)
    norms = [module for module in changed.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if any(norm.running_mean is None for norm in norms):
        raise ValueError("expected BatchNorm that keeps running averages, got one that takes each batch's statistics")
    runs: Counter[nn.Module] = Counter()

    def record(norm: nn.Module, inputs: tuple) -> None:
        runs[norm] += 1
        for name, moment in zip(("running_mean", "running_var"), _mean_var(inputs[0]), strict=True):
            norm.get_buffer(name).copy_(moment)

    device = device_of(changed)
    changed.eval()
    with arithmetic(device, amp=False), _hooked(norms, record, before=True):
        changed(source.to(device, copy=True))
    if {runs[norm] for norm in norms} != {1}:
        raise ValueError("expected BatchNorm layers that run once per pass, got one that does not")
    return changed
