"""The paper's older architectures in their usual forms for 32x32 images: LeNet, AlexNet and VGG-11.

As the networks of `models`, they take images in [0, 1] and return logits, start with the module that normalises pixels,
and have Xavier's weights. Their pictures have 32 x 32 pixels, or some more: the linear layers fit that size.
"""

from torch import Tensor, nn

from hfclib.models import NORMS, Norm, Normalize, norm_layer, xavier_


class Plain(nn.Module):
    """Convolutions, then linear layers; build one with `lenet`, `alexnet` or `vgg11`."""

    def __init__(self, features: list[nn.Module], classifier: list[nn.Module], normalize: Normalize | None) -> None:
        super().__init__()
        self.normalize = normalize or Normalize()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)
        xavier_(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, 3, 32, 32) in [0, 1]."""
        return self.classifier(self.features(self.normalize(images)).flatten(1))


def _check_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"expected num_classes, a whole number of at least 1, got {num_classes!r}")


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, channels, kernel, stride, padding), nn.ReLU()]


def lenet(*, num_classes: int = 10, normalize: Normalize | None = None) -> Plain:
    """LeNet-5 with ReLU and maximum pooling: two 5x5 convolutions, three linear layers, 62,006 parameters.

    Args:
        num_classes: logits returned, 1 or more.
        normalize: what to do to the pixels first; None leaves them in [0, 1].
    Raises:
        ValueError: an argument outside its range.
    Source: LeCun et al. 1998, whose network has tanh and averages; the paper, section 5.1, names LeNet only.
    """
    _check_classes(num_classes)
    features = [*_conv(3, 6, 5), nn.MaxPool2d(2), *_conv(6, 16, 5), nn.MaxPool2d(2)]
    linear = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)]
    return Plain(features, linear, normalize)


def alexnet(*, num_classes: int = 10, normalize: Normalize | None = None) -> Plain:
    """AlexNet for 32x32 images: five convolutions, the first 11x11 with stride 4, one linear layer, 2.47 M parameters.

    Arguments and errors as in `lenet`.
    Source: Krizhevsky et al. 2012, with the paddings and the single linear layer that are usual for CIFAR-10, and so
    without their dropout; the paper, section 5.1, names AlexNet only.
    """
    _check_classes(num_classes)
    features = [
        *_conv(3, 64, 11, 4, 5),
        nn.MaxPool2d(2),
        *_conv(64, 192, 5, 1, 2),
        nn.MaxPool2d(2),
        *_conv(192, 384, 3, 1, 1),
        *_conv(384, 256, 3, 1, 1),
        *_conv(256, 256, 3, 1, 1),
        nn.MaxPool2d(2),
    ]
    return Plain(features, [nn.Linear(256, num_classes)], normalize)


def vgg11(width: int = 64, norm: Norm = "none", *, num_classes: int = 10, normalize: Normalize | None = None) -> Plain:
    """VGG-11 for 32x32 images: eight 3x3 convolutions at widths w, 2w, 4w, 4w, 8w, 8w, 8w, 8w, one linear layer.

    Args:
        width: channels of the first convolution, 1 or more (64: 9.2 M parameters; 16: 0.58 M).
        norm: "batch" for BatchNorm and "group" for GroupNorm after each convolution; "none" for convolutions with a
            bias instead.
        num_classes, normalize: as in `lenet`.
    Raises:
        ValueError: an argument outside its range.
    Source: Simonyan and Zisserman 2015, configuration A, with the single linear layer that is usual for CIFAR-10; the
    paper, section 5.1, names VGG only.
    """
    if not (isinstance(width, int) and width >= 1):
        raise ValueError(f"expected width, a whole number of at least 1, got {width!r}")
    if norm not in NORMS:
        raise ValueError(f"expected norm, one of {', '.join(NORMS)}, got {norm!r}")
    _check_classes(num_classes)
    features, channels = [], 3
    for stage in ((1,), (2,), (4, 4), (8, 8), (8, 8)):
        for factor in stage:
            conv = nn.Conv2d(channels, factor * width, 3, 1, 1, bias=norm == "none")
            features += [conv, norm_layer(norm, factor * width), nn.ReLU()]
            channels = factor * width
        features.append(nn.MaxPool2d(2))
    return Plain(features, [nn.Linear(channels, num_classes)], normalize)
