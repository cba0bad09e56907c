"""The networks: ResNet-18 for 32x32 images, the authors' ResNet-32, LeNet, AlexNet and VGG-11.

All take images (N, 3, H, W) in [0, 1], and return logits (N, num_classes): 32 x 32, but for the ResNets, which take
any size, and any number of channels. To normalise pixels, put a module in front:
`nn.Sequential(torchvision.transforms.v2.Normalize(mean, std), resnet18())`. Attack sizes and radii then still refer to
pixels in [0, 1].
"""

import math
from collections import OrderedDict
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

NormLayer = Literal["none", "batch", "group"]
DropoutAt = Literal["features", "map"]
NORMS: tuple[NormLayer, ...] = get_args(NormLayer)
GROUPS = 8  # of channels in a GroupNorm layer, or the largest divisor of 8 that divides the number of channels too


class GroupNorm(nn.GroupNorm):
    """GroupNorm in float32 for maps of any type: on CPUs PyTorch's bfloat16 kernel takes several times as long."""

    def forward(self, maps: Tensor) -> Tensor:
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
        self, block, widths, depth, norm, dropout, dropout_at, num_classes=10, stem_kernel=3, in_channels=3
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


def resnet18(
    width: int = 64, norm: NormLayer = "none", dropout: float = 0.0, *, dropout_at: DropoutAt = "features", **options
) -> ResNet:
    """ResNet-18 for 32x32 images: 3x3 stem, four stages of two blocks at widths w, 2w, 4w, 8w.

    Args:
        width: channels of the first stage (64: 11.2 M parameters; 16: 0.70 M).
        norm: "batch" for BatchNorm, "group" for GroupNorm (Wu and He 2018; up to GROUPS groups of channels), "none" for
            convolutions with a bias instead.
        dropout: the share that is dropped in training, in [0, 1).
        dropout_at: "features" drops what enters the last linear layer (paper), "map" the last feature map (code).
        options: num_classes (10); stem_kernel (3), the side of the first layer's kernels, odd; in_channels (3).
    Raises:
        ValueError: another norm or dropout_at, or an even stem_kernel.
    Source: paper, section 4.2.
    """
    widths = width, 2 * width, 4 * width, 8 * width
    return ResNet(BasicBlock, widths, 2, norm, dropout, dropout_at, **options)


def resnet32(norm: NormLayer = "none", dropout: float = 0.0, *, dropout_at: DropoutAt = "map", **options) -> ResNet:
    """The authors' network: pre-activation ResNet-32, widths 16, 32, 64, five blocks per stage, 0.46 M parameters.

    Arguments and errors as in `resnet18`. No convolution has a bias.
    Source: the authors' code (the paper's text says ResNet-18).
    """
    return ResNet(PreactBlock, (16, 32, 64), 5, norm, dropout, dropout_at, **options)


def _plain(features: list[nn.Module], classifier: list[nn.Module]) -> nn.Sequential:
    parts = {"features": nn.Sequential(*features), "flatten": nn.Flatten(), "classifier": nn.Sequential(*classifier)}
    model = nn.Sequential(OrderedDict(parts))
    xavier_(model)
    return model


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, channels, kernel, stride, padding), nn.ReLU()]


def lenet(*, num_classes: int = 10) -> nn.Sequential:
    """LeNet-5 with ReLU and maximum pooling: two 5x5 convolutions, three linear layers, 62,006 parameters.

    Source: LeCun et al. 1998, whose network has tanh and averages; the paper, section 5.1, names LeNet only.
    """
    features = [*_conv(3, 6, 5), nn.MaxPool2d(2), *_conv(6, 16, 5), nn.MaxPool2d(2)]
    linear = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)]
    return _plain(features, linear)


def alexnet(*, num_classes: int = 10) -> nn.Sequential:
    """AlexNet for 32x32 images: five convolutions, the first 11x11 with stride 4, one linear layer, 2.47 M parameters.

    Source: Krizhevsky et al. 2012, with the paddings and the single linear layer that are usual for CIFAR-10, and so
    without their dropout; the paper, section 5.1, names AlexNet only.
    """
    features = [*_conv(3, 64, 11, 4, 5), nn.MaxPool2d(2), *_conv(64, 192, 5, 1, 2), nn.MaxPool2d(2)]
    features += [*_conv(192, 384, 3, 1, 1), *_conv(384, 256, 3, 1, 1), *_conv(256, 256, 3, 1, 1), nn.MaxPool2d(2)]
    return _plain(features, [nn.Linear(256, num_classes)])


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
