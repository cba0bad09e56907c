"""What is stored beside a run is of one EVALUATION_VERSION, and results that are pinned here are those of that version.

Network and images are closed forms, so that they are the same on every processor. Processors differ by their rounding
in float32, about 1e-6. The two largest logits of an image differ by 1e-4 at least, so predictions are the same too.
"""

import pytest
import torch
from torch import nn

from hfclib.batching import logits
from hfclib.conditions import BN_STATS, Condition, iter_inputs
from hfclib.frequency import split
from hfclib.metrics import band_accuracy, misaligned
from hfclib.moments import matched, recalibrate_batchnorm
from hfclib.runs.predictions import EVALUATION_VERSION, prediction_conditions

COLOUR = (0.5, 0.45, 0.4)
SIZE, RADII, TOLERANCE = 16, (2, 5), 5e-4
RAISE = (
    "what hfclib.metrics or hfclib.moments computes has changed, so answers stored beside runs are no longer those "
    "of the code: raise EVALUATION_VERSION in hfclib/runs/predictions.py, and pin the new results here"
)


def waves(*shape: int, pace: float) -> torch.Tensor:
    """Values between -1 and 1 that look irregular."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(pace * count + 0.37 * torch.sin(0.011 * pace * count)).view(shape)


@pytest.fixture(scope="module")
def images():
    """(104, 3, 16, 16) in [0, 1]: smooth, with fine detail; more than a batch of 100."""
    smooth = waves(104, 3, 1, 1, pace=1.3) * waves(104, 3, SIZE, SIZE, pace=0.021)
    return (0.5 + 0.3 * smooth + 0.19 * waves(104, 3, SIZE, SIZE, pace=2.7)).float()


def network(norm: bool) -> nn.Sequential:
    """Two convolutions and a linear layer to ten classes."""
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2)]
    model = nn.Sequential(*(one for one in layers if norm or not isinstance(one, nn.BatchNorm2d)))
    model.extend([nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 10)])
    state = {
        name: waves(*tensor.shape, pace=0.9 + 0.13 * place) * (0.9 if tensor.ndim > 1 else 0.4)
        for place, (name, tensor) in enumerate(model.state_dict().items())
        if tensor.is_floating_point()
    }
    state |= {name: tensor.abs() + 0.3 for name, tensor in state.items() if name.endswith("running_var")}
    model.load_state_dict(model.state_dict() | {name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def summary(values: torch.Tensor) -> list[float]:
    """Numbers that a change of values (N, ...) moves: the first value, the last, mean, and spread over N."""
    values = values.double().view(len(values), -1)
    return [values[0, -1].item(), values[-1, -1].item(), values.mean().item(), values.std(dim=0).mean().item()]


def results(images: torch.Tensor) -> dict[str, list[float]]:
    """What evaluation computes: logits under each condition, accuracies, misaligned images, matched moments."""
    normed, plain = network(norm=True), network(norm=False)
    conditions = [*prediction_conditions(True, RADII, RADII), *(Condition(band, 2) for band in ("svd_low", "svd_high"))]
    fed = iter_inputs(images, conditions, COLOUR)
    computed = {
        " ".join(map(str, one)): summary(logits(normed, inputs, bn_stats=one.bn_stats))
        for one, inputs in zip(conditions, fed, strict=True)
    }
    labels = logits(normed, images).argmax(dim=1)
    labels[::4] = (labels[::4] + 1) % 10
    for feed in ("raw", "max", "mean"):
        for bn_stats in BN_STATS:
            options = {"feed": feed, "bn_stats": bn_stats, "colour": COLOUR}
            table = band_accuracy(normed, images, labels, list(RADII), **options)
            computed[f"accuracy {feed} {bn_stats}"] = table["accuracy"].tolist()
    for cut in ("fourier", "svd"):
        computed[f"misaligned {cut}"] = summary(misaligned(normed, images, labels, 2, cut=cut))
    for where in ("all", "first", "input"):
        computed[f"matched {where}"] = summary(logits(matched(plain, images[:7], where=where), images[5:]))
    hfcs = split(images[:20], 2)[1]
    computed["matched source"] = summary(logits(matched(plain, images[:7], source=hfcs), images[5:]))
    computed["recalibrated"] = summary(logits(recalibrate_batchnorm(normed, hfcs), images[5:]))
    return computed


PINNED = {  # by version
    1: {
        "x None raw running": [0.4485, 0.357, 0.0327, 0.0552],
        "x None raw batch": [0.5139, 0.2359, 0.0368, 0.0994],
        "hfc 2 raw running": [0.408, 0.3514, 0.0239, 0.0285],
        "lfc 2 raw running": [0.3948, 0.3879, 0.0332, 0.0265],
        "hfc 2 max running": [0.5308, 0.2989, 0.0248, 0.1032],
        "lfc 2 max running": [0.3953, 0.3909, 0.0373, 0.0358],
        "hfc 2 mean running": [0.4197, 0.387, 0.0304, 0.0317],
        "hfc 2 raw batch": [0.5352, -0.1112, 0.0238, 0.2765],
        "lfc 2 raw batch": [0.4363, 0.3624, 0.0357, 0.0373],
        "hfc 2 max batch": [0.524, -0.0864, 0.0237, 0.2787],
        "lfc 2 max batch": [0.4347, 0.361, 0.0357, 0.0371],
        "hfc 2 mean batch": [0.6677, 0.4118, 0.0504, 0.11],
        "hfc 5 raw running": [0.405, 0.3538, 0.0239, 0.0279],
        "lfc 5 raw running": [0.3949, 0.3926, 0.0333, 0.0296],
        "hfc 5 max running": [0.546, 0.2903, 0.0239, 0.1228],
        "lfc 5 max running": [0.3917, 0.4043, 0.0368, 0.0393],
        "hfc 5 mean running": [0.4366, 0.3946, 0.0298, 0.0266],
        "hfc 5 raw batch": [0.6295, -0.0192, 0.025, 0.2304],
        "lfc 5 raw batch": [0.431, 0.387, 0.037, 0.0413],
        "hfc 5 max batch": [0.6458, -0.0077, 0.0251, 0.2307],
        "lfc 5 max batch": [0.4303, 0.3865, 0.037, 0.042],
        "hfc 5 mean batch": [0.6759, 0.4152, 0.0495, 0.1064],
        "svd_low 2 raw running": [0.3892, 0.4127, 0.033, 0.0311],
        "svd_high 2 raw running": [0.3916, 0.343, 0.0239, 0.0299],
        "accuracy raw running": [0.5192, 0.4231, 0.5288, 0.3846],
        "accuracy raw batch": [0.4904, 0.2981, 0.5673, 0.2788],
        "accuracy max running": [0.5096, 0.4519, 0.5, 0.4423],
        "accuracy max batch": [0.4519, 0.2981, 0.5577, 0.2788],
        "accuracy mean running": [0.5192, 0.4423, 0.5288, 0.4327],
        "accuracy mean batch": [0.4904, 0.4519, 0.5673, 0.4519],
        "misaligned fourier": [0.0, 0.0, 0.1731, 0.3801],
        "misaligned svd": [0.0, 0.0, 0.2019, 0.4034],
        "matched all": [0.9643, 0.1325, 0.0445, 0.7946],
        "matched first": [0.9304, 0.1657, 0.0439, 0.7379],
        "matched input": [0.8571, 0.2857, 0.0463, 0.7036],
        "matched source": [1.7896, 0.1406, 0.065, 2.5104],
        "recalibrated": [0.7944, 0.3447, 0.0538, 0.2387],
    }
}


def check(images: torch.Tensor) -> None:
    pinned, computed = PINNED[EVALUATION_VERSION], results(images)
    assert computed.keys() == pinned.keys(), RAISE
    moved = {name for name, values in computed.items() if values != pytest.approx(pinned[name], abs=TOLERANCE)}
    assert not moved, f"{RAISE} (moved: {', '.join(sorted(moved))})"


def test_what_evaluation_computes_is_that_of_its_version(images):
    check(images)


CHANGES = {
    "zeros are fed": ("hfclib.conditions.feed_images", lambda band, *args, **options: band * 0),
    "another cut": ("hfclib.conditions.split", lambda images, radius: split(images, radius + 0.5)),
    "another SVD": ("hfclib.conditions.svd_split", lambda images, radius, **options: split(images, radius)),
    "other moments": ("hfclib.moments.EPS", 0.1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_computed_asks_for_another_version(images, monkeypatch, change):
    monkeypatch.setattr(*CHANGES[change])
    with pytest.raises(AssertionError, match="raise EVALUATION_VERSION"):
        check(images)
