"""The networks: ResNet-18 for 32x32 images, the authors' ResNet-32, LeNet, AlexNet and VGG-11; and those that you add.

A recipe names its network. `register_network` gives a name to a network of yours.

Those below all take images (N, 3, H, W) in [0, 1], and return logits (N, num_classes): 32 x 32, but for the ResNets,
which take any size, and any number of channels. To normalise pixels, put a module in front:
`nn.Sequential(torchvision.transforms.v2.Normalize(mean, std), resnet18())`. Attack sizes and radii then still refer to
pixels in [0, 1].
"""

import inspect
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from hfclib._names import nearest

NormLayer = Literal["none", "batch", "group"]
DropoutAt = Literal["features", "map"]
NORMS: tuple[NormLayer, ...] = get_args(NormLayer)
Builder = Callable[..., nn.Module]
# What a recipe sets of a network, by name, and the number of channels of its images.
SETTINGS = ("width", "norm", "dropout", "dropout_at", "stem_kernel", "in_channels")
GROUPS = 8  # of channels in a GroupNorm layer, or the largest divisor of 8 that divides the number of channels too


@dataclass(frozen=True)
class Network:
    """A network that recipes can name.

    Attributes:
        name, build, any_size: as in `register_network`.
        settings: those of `SETTINGS` that are arguments of `build`.
    """

    name: str
    build: Builder
    settings: tuple[str, ...]
    any_size: bool

    @property
    def is_own(self) -> bool:
        """Whether it is none of this module's, so that what the name means may change."""
        return self.build.__module__ != __name__


REGISTERED: dict[str, Network] = {}


def register_network(name: str, *, any_size: bool = False) -> Callable[[Builder], Builder]:
    """Give a network a name, under which recipes build it; a decorator, or a call for a network that you import.

    ::

        @register_network("mynet")
        def mynet(*, width=16, in_channels=3):
            layers = [nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            return nn.Sequential(*layers, nn.Linear(width, 10))

        register_network("theirs")(their_package.network)
        recipe = hfclib.Recipe("mine").with_(network="mynet", width=32)

    The builder is called with keyword arguments: those of `SETTINGS` that it has, all of them. It returns a network
    with freshly drawn weights, on the default device, from (N, in_channels, H, W) float32 in [0, 1] to (N, 10) logits.
    A recipe that sets what the builder does not take is refused, but for the width, which differs between presets.
    What the name means is not part of a recipe's hash: give another network another name. What is stored or under way
    of a network that answers otherwise by the same weights is refused. Processes that `sweep` starts
    have the networks of its jobs; another process that builds a stored network has to register it first.

    Args:
        name: letters, digits, "_", "-" and "."; not yet taken. A function that is defined again, as in a cell of a
            notebook that is run twice, takes the place of the old one.
        any_size: whether the network also takes images that are smaller than its data set's, as `early_sizes` has them.
    Raises:
        ValueError: the name is taken or not allowed, or the builder has a required argument that is not in `SETTINGS`.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(f"expected the name of a network, of letters, digits, '_', '-' and '.', got {name!r}")

    def registered(build: Builder) -> Builder:
        known = REGISTERED.get(name)
        if known and not _is_same_definition(known.build, build):
            raise ValueError(f"expected the name of a network that is not taken, got {name!r}, which is {known.build}")
        arguments = inspect.signature(build).parameters.values()
        variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        named = {argument.name for argument in arguments if argument.kind not in (*variadic, argument.POSITIONAL_ONLY)}
        for argument in arguments:
            needed = argument.default is argument.empty and argument.kind not in variadic
            if needed and argument.name not in named.intersection(SETTINGS):
                wanted = f"expected a default of every argument but {', '.join(SETTINGS)}"
                raise ValueError(f"{wanted}, got none of {argument.name!r} in the builder of {name!r}")
        settings = tuple(setting for setting in SETTINGS if setting in named)
        REGISTERED[name] = Network(name, build, settings, any_size)
        return build

    return registered


def _is_same_definition(first: Builder, second: Builder) -> bool:
    """Whether two builders are one function or class of a module, which may have been defined twice."""
    places = {(build.__module__, getattr(build, "__qualname__", "<none>")) for build in (first, second)}
    return first is second or (len(places) == 1 and "<" not in places.pop()[1])


def find_network(name: str) -> Network:
    """The network of a name; a ValueError that says which names there are, and the nearest, for another one."""
    if name not in REGISTERED:
        hint = nearest(name, REGISTERED) or "; networks of yours join them by hfclib.models.register_network"
        raise ValueError(f"expected network, one of {', '.join(REGISTERED)}, got {name!r}{hint}")
    return REGISTERED[name]


class GroupNorm(nn.GroupNorm):
    """GroupNorm in float32 for maps of any type: on CPUs PyTorch's bfloat16 kernel takes several times as long."""

    def forward(self, maps: Tensor) -> Tensor:
        """Normalised maps, like `maps`."""
        return super().forward(maps.float()).to(maps.dtype)


def norm_layer(norm: NormLayer, channels: int) -> nn.Module:
    """The layer that normalises maps of `channels` channels; the identity with "none", ValueError for another norm."""
    if norm not in NORMS:
        raise ValueError(f"expected norm, one of {', '.join(NORMS)}, got {norm!r}")
    if norm == "group":
        return GroupNorm(math.gcd(GROUPS, channels), channels)
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


class _Sliced(nn.Conv2d):
    """A 1x1 convolution that takes every other pixel first, if its stride is 2."""

    def forward(self, images: Tensor) -> Tensor:
        down, across = self.stride
        return F.conv2d(images[..., ::down, ::across], self.weight, self.bias)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, activation after the sum (He et al. 2016a)."""

    def __init__(self, in_channels: int, channels: int, stride: int, norm: NormLayer) -> None:
        super().__init__()
        bias = norm == "none"  # BatchNorm and GroupNorm have a shift of their own
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=bias)
        self.norm1 = norm_layer(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=bias)
        self.norm2 = norm_layer(norm, channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            # With few channels and a stride, the gradient of oneDNN's kernel writes beyond its memory (oneDNN #6035):
            # fewer than 8 on processors with AVX2, 16 with AVX-512.
            layer = _Sliced if in_channels < 16 else nn.Conv2d
            conv = layer(in_channels, channels, 1, stride, bias=bias)
            self.shortcut = nn.Sequential(conv, norm_layer(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class PreactBlock(nn.Module):
    """Norm, ReLU, convolution, twice; the shortcut has no weights: 2x2 average pool and zero channels.

    Source: the authors' code, as described in the book's page on differences.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, norm: NormLayer) -> None:
        super().__init__()
        self.norm1 = norm_layer(norm, in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm2 = norm_layer(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.stride, self.extra = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        if self.stride != 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)  # as many rows as the convolution gives at odd sizes
        if self.extra:
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return x + y


class ResNet(nn.Module):
    """A residual network for small images; build one with `resnet18` or `resnet32`."""

    def __init__(
        self,
        block: type[BasicBlock] | type[PreactBlock],
        widths: Sequence[int],
        depth: int,
        *,
        norm: NormLayer,
        dropout: float,
        dropout_at: DropoutAt,
        stem_kernel: int = 3,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        if stem_kernel % 2 == 0 or dropout_at not in ("features", "map"):
            expected = "expected stem_kernel, an odd number, and dropout_at, features or map"
            raise ValueError(f"{expected}, got {stem_kernel} and {dropout_at!r}")
        preact = block is PreactBlock
        bias = not preact and norm == "none"
        self.conv1 = nn.Conv2d(in_channels, widths[0], stem_kernel, 1, stem_kernel // 2, bias=bias)
        self.norm1 = nn.Identity() if preact else norm_layer(norm, widths[0])
        self.activation1 = nn.Identity() if preact else nn.ReLU()
        blocks, channels = [], widths[0]
        for stage, width in enumerate(widths):
            for index in range(depth):
                blocks.append(block(channels, width, 2 if stage and index == 0 else 1, norm))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.norm2 = norm_layer(norm, channels) if preact else nn.Identity()
        self.activation2 = nn.ReLU() if preact else nn.Identity()
        self.map_dropout = nn.Dropout(dropout if dropout_at == "map" else 0.0)
        self.feature_dropout = nn.Dropout(dropout if dropout_at == "features" else 0.0)
        self.fc = nn.Linear(channels, num_classes)
        xavier_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.activation1(self.norm1(self.conv1(images)))
        x = self.map_dropout(self.activation2(self.norm2(self.blocks(x))))
        return self.fc(self.feature_dropout(x.mean(dim=(2, 3))))


def xavier_(model: nn.Module) -> None:
    """Draw every weight from Xavier's (Glorot's) uniform distribution and set every bias to zero, in place.

    Source: paper, section 4.2 (Xavier); uniform rather than normal is our reading.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@register_network("resnet18", any_size=True)
def resnet18(
    width: int = 64,
    norm: NormLayer = "none",
    dropout: float = 0.0,
    *,
    dropout_at: DropoutAt = "features",
    stem_kernel: int = 3,
    in_channels: int = 3,
    num_classes: int = 10,
) -> ResNet:
    """ResNet-18 for 32x32 images: 3x3 stem, four stages of two blocks at widths w, 2w, 4w, 8w.

    Args:
        width: channels of the first stage (64: 11.2 M parameters; 16: 0.70 M).
        norm: "batch" for BatchNorm, "group" for GroupNorm (Wu and He 2018; up to GROUPS groups of channels), "none" for
            convolutions with a bias instead.
        dropout: the share that is dropped in training, in [0, 1).
        dropout_at: "features" drops what enters the last linear layer (paper), "map" the last feature map (code).
        stem_kernel: side of the first layer's kernels, odd.
        in_channels, num_classes: of the images; number of logits.
    Raises:
        ValueError: another norm or dropout_at, or an even stem_kernel.
    Source: paper, section 4.2.
    """
    options: dict = {"dropout_at": dropout_at, "stem_kernel": stem_kernel, "in_channels": in_channels}
    widths = width, 2 * width, 4 * width, 8 * width
    return ResNet(BasicBlock, widths, 2, norm=norm, dropout=dropout, num_classes=num_classes, **options)


@register_network("resnet32", any_size=True)
def resnet32(
    norm: NormLayer = "none",
    dropout: float = 0.0,
    *,
    dropout_at: DropoutAt = "map",
    stem_kernel: int = 3,
    in_channels: int = 3,
    num_classes: int = 10,
) -> ResNet:
    """The authors' network: pre-activation ResNet-32, widths 16, 32, 64, five blocks per stage, 0.46 M parameters.

    Arguments and errors as in `resnet18`. No convolution has a bias.
    Source: the authors' code (the paper's text says ResNet-18).
    """
    options: dict = {"dropout_at": dropout_at, "stem_kernel": stem_kernel, "in_channels": in_channels}
    return ResNet(PreactBlock, (16, 32, 64), 5, norm=norm, dropout=dropout, num_classes=num_classes, **options)


def _plain(features: list[nn.Module], classifier: list[nn.Module]) -> nn.Sequential:
    parts = {"features": nn.Sequential(*features), "flatten": nn.Flatten(), "classifier": nn.Sequential(*classifier)}
    model = nn.Sequential(OrderedDict(parts))
    xavier_(model)
    return model


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, channels, kernel, stride, padding), nn.ReLU()]


@register_network("lenet")
def lenet(*, num_classes: int = 10) -> nn.Sequential:
    """LeNet-5 with ReLU and maximum pooling: two 5x5 convolutions, three linear layers, 62,006 parameters.

    Source: LeCun et al. 1998, whose network has tanh and averages; the paper, section 5.1, names LeNet only.
    """
    features = [*_conv(3, 6, 5), nn.MaxPool2d(2), *_conv(6, 16, 5), nn.MaxPool2d(2)]
    linear = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)]
    return _plain(features, linear)


@register_network("alexnet")
def alexnet(*, num_classes: int = 10) -> nn.Sequential:
    """AlexNet for 32x32 images: five convolutions, the first 11x11 with stride 4, one linear layer, 2.47 M parameters.

    Source: Krizhevsky et al. 2012, with the paddings and the single linear layer that are usual for CIFAR-10, and so
    without their dropout; the paper, section 5.1, names AlexNet only.
    """
    features = [*_conv(3, 64, 11, 4, 5), nn.MaxPool2d(2), *_conv(64, 192, 5, 1, 2), nn.MaxPool2d(2)]
    features += [*_conv(192, 384, 3, 1, 1), *_conv(384, 256, 3, 1, 1), *_conv(256, 256, 3, 1, 1), nn.MaxPool2d(2)]
    return _plain(features, [nn.Linear(256, num_classes)])


@register_network("vgg11")
def vgg11(width: int = 64, norm: NormLayer = "none", *, num_classes: int = 10) -> nn.Sequential:
    """VGG-11 for 32x32 images: eight 3x3 convolutions at widths w, 2w, 4w, 4w, 8w, 8w, 8w, 8w, one linear layer.

    Args:
        width: channels of the first convolution (64: 9.2 M parameters; 16: 0.58 M).
        norm, num_classes: as in `resnet18`; raises as it does.
    Source: Simonyan and Zisserman 2015, configuration A, with the single linear layer that is usual for CIFAR-10; the
    paper, section 5.1, names VGG only.
    """
    features, channels = [], 3
    for stage in ((1,), (2,), (4, 4), (8, 8), (8, 8)):
        for factor in stage:
            conv = nn.Conv2d(channels, factor * width, 3, 1, 1, bias=norm == "none")
            features += [conv, norm_layer(norm, factor * width), nn.ReLU()]
            channels = factor * width
        features.append(nn.MaxPool2d(2))
    return _plain(features, [nn.Linear(channels, num_classes)])
