"""A network with BatchNorm, for the tests of what is measured."""

import pytest
from torch import nn


@pytest.fixture
def normed(channel_means):
    """BatchNorm with averages far from those of the images, then the channel means."""
    norm = nn.BatchNorm2d(3)
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.5, 2)
    return nn.Sequential(norm, channel_means)
