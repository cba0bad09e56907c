"""Matched moments: the help that BatchNorm gets from a test batch, for a network without BatchNorm.

With the statistics of the test batch, BatchNorm gives each channel the moments that the next layer was trained on.
`matched` does the same to any network: at each place where BatchNorm would sit, each channel of the current batch gets
the mean and the standard deviation that clean reference images have there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.devices import arithmetic, device_of
from hfclib.evaluation import BATCH_SIZE, check_pixels, evaluating, uses_batch_statistics
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
def _hooked(places: Iterable[nn.Module], hook: Callable) -> Iterator[None]:
    with ExitStack() as handles:
        if not torch.compiler.is_compiling():  # a compiled network ignores hooks that come after its first pass
            handles.enter_context(torch.compiler.set_stance("force_eager"))
        for place in places:
            handles.enter_context(place.register_forward_hook(hook))
        yield


class Matched(nn.Module):
    """A network that gives each batch the channel moments of reference images; made by `matched`.

    The moments are buffers, and so part of its `state_dict`: "mean_0" and "std_0" of the first place, and so on.
    """

    by_batch = True  # for `depends_on_batch`

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.pixels = model, nn.Identity()
        self.places: list[nn.Module] = []

    @property
    def moments(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """The mean and the standard deviation, (C,) each, by place."""
        names = [(f"mean_{number}", f"std_{number}") for number in range(len(self.places))]
        return {place: tuple(map(self.get_buffer, pair)) for place, pair in zip(self.places, names, strict=True)}

    def add(self, place: nn.Module, mean: Tensor, std: Tensor) -> None:
        """Add a place with its moments, (C,) float32."""
        self.register_buffer(f"mean_{len(self.places)}", mean)
        self.register_buffer(f"std_{len(self.places)}", std)
        self.places.append(place)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W); ValueError for fewer than 2 images."""
        if len(images) < 2:
            raise ValueError(f"expected batches of at least 2 images to take moments of, got {len(images)}")
        moments = self.moments

        def standardise(place: nn.Module, _: tuple, maps: Tensor) -> Tensor:
            mean, std = (moment.to(maps.device, torch.float32) for moment in moments[place])
            return F.batch_norm(maps.float(), None, None, std, mean, training=True, eps=EPS).to(maps.dtype)

        with _hooked(self.places, standardise):
            return self.model(self.pixels(images))


@torch.inference_mode(False)  # no attack could differentiate by moments that are made in that mode
@torch.no_grad()
def matched(model: nn.Module, reference: Tensor, *, where: Where = "all") -> Matched:
    """A network with the help that BatchNorm gets from a test batch.

    `hfclib.accuracy(matched(model, reference), images, labels)` is the counterpart of `bn_stats="batch"`. The batch
    size matters, as it does there; 100 is the default of `accuracy`.

    Args:
        model: without BatchNorm, from (N, C, H, W) to (N, classes); it is neither changed nor copied.
        reference: (N, C, H, W) float in [0, 1], clean training images, 1 or more. A normalisation is the model's own,
            as in `accuracy`.
        where: "all" places where BatchNorm would sit (`norm_places`); "first" those with maps as large as the
            first one's, in `resnet18` the stem and the first stage; "input" the pixels and no other place.
    Returns:
        A module that replaces x by (x - mean of the batch) / sd of the batch * sd + mean of the reference, per channel
        over (N, H, W); 1e-5 is added to each variance. Batches of one image are refused.
    Raises:
        TypeError, ValueError: a bad reference, or one that leaves [0, 1]; another `where`; or the model has BatchNorm,
            no convolution, or one that runs more than once per pass.
    Source: ours.
    """
    check_images(reference)
    check_pixels(reference)
    if where not in get_args(Where):
        raise ValueError(f"expected where, one of {', '.join(get_args(Where))}, got {where!r}")
    if uses_batch_statistics(model):
        raise ValueError('expected a network without BatchNorm; for one with it, use bn_stats="batch"')
    found = Matched(model)
    places = [found.pixels] if where == "input" else norm_places(model)
    if len(reference) == 0 or not places:
        raise ValueError(f"expected reference images and convolutions, got {len(reference)} and {len(places)}")
    sums: dict[nn.Module, Tensor] = {}
    counts: Counter[nn.Module] = Counter()  # of maps, which are more than the images where a network cuts these up
    sizes: dict[nn.Module, torch.Size] = {}
    met: set[nn.Module] = set()
    again: set[nn.Module] = set()

    def add(place: nn.Module, _: tuple, maps: Tensor) -> None:
        (again if place in met else met).add(place)
        wide = (maps.cpu() if maps.device.type == "mps" else maps).double()  # which MPS does not have
        sizes[place] = maps.shape[2:]
        counts[place] += len(maps)
        sums[place] = sums.get(place, 0) + torch.stack([wide, wide.square()]).mean(dim=(3, 4)).sum(dim=1)

    device = device_of(model)
    with evaluating(model), arithmetic(device, amp=False), _hooked(places, add):
        for batch in reference.split(BATCH_SIZE):
            met.clear()
            model(found.pixels(batch.to(device, copy=True)))  # which some networks change
    for place, total in sums.items():
        if where != "first" or sizes[place] == next(iter(sizes.values())):
            if place in again:
                raise ValueError("expected convolutions that run once per pass, got one whose moments change in a pass")
            mean, square = total / counts[place]
            found.add(place, mean.float(), ((square - mean.square()).clamp(min=0) + EPS).sqrt().float())
    if not found.places:
        raise ValueError("expected convolutions that run, got none that does in a pass")
    return found
