"""Small images in the place of the test images of CIFAR-10, on which attacks take milliseconds."""

import pytest


@pytest.fixture
def attacked_images(monkeypatch):
    """Sets the test images (N, C, H, W) uint8 that networks are attacked on, and their labels (N,)."""

    def choose(images, labels):
        monkeypatch.setattr("hfclib.paper.defense.trials.embedded", lambda split: {"test": (images, labels)}[split])

    return choose
