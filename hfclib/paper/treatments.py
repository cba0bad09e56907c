"""Is it the test batch that helps? What fixed moments, and less, do for the HFC: a part of the chapter on BatchNorm.

`python -m hfclib.paper.treatments` measures the stored vanilla and BatchNorm networks whose weights are kept. It writes
one table per network to `data/treatments`, with a description of where it comes from. Networks whose table is there
already are skipped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfclib.batching import logits
from hfclib.charts import CHANCE, CHART, drawn_in, intervals, legend, network_looks, panels
from hfclib.conditions import uses_batch_statistics
from hfclib.data.cifar import embedded, to_float
from hfclib.devices import best_device
from hfclib.frequency import split
from hfclib.moments import EPS, matched, recalibrate_batchnorm
from hfclib.paper.batch_statistics import PAIR
from hfclib.paper.batchnorm import all_recipes, lead_over
from hfclib.paper.measurements import measurements
from hfclib.paper.presets import TITLES
from hfclib.paper.stored_tables import publish_tables, stored_table
from hfclib.paper.tables import cells_of_shares, contrast_rows, over_seeds_table, text_table
from hfclib.runs.collect import Runs, published_runs
from hfclib.runs.store import Run
from hfclib.training.loop import as_trained, initial_model
from hfclib.transforms import feed_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TREATED_RADII = (4, 8)
SOURCE = 1_000  # training HFCs whose moments are fixed: the first of the embedded training images
TREATMENTS = {  # of the HFC of test images, or of what a network makes of it
    "none": "none",
    "centred": "logits centred",
    "features": "features standardised",
    "fixed": "fixed moments",
    "batch": "test batch",
    "one_class": "test batch, one class",
    "probe": "probe",
    "probe_fixed": "probe, fixed moments",
    "random": "probe, untrained",
    "random_fixed": "probe, untrained, fixed moments",
}

Probe = tuple[Tensor, Tensor]  # weight (classes, F) and bias (classes,), float64


# ---- measuring


def fit_probe(features: Tensor, labels: Tensor, *, penalty: float = 1.0) -> Probe:
    """A linear probe: multinomial logistic regression on standardised features, by L-BFGS from zero.

    Args:
        features: (N, F) float.
        labels: (N,) int64, from 0.
        penalty: half of it times the sum of squared weights is added to the sum of the cross-entropies, as 1 / C in
            scikit-learn, whose default is 1 too. The bias has no penalty.
    Returns:
        Weight and bias for the features as they are. The minimum is unique, so there is no seed.
    Raises:
        RuntimeError: it did not converge.
    """
    features = features.double()
    std, mean = torch.std_mean(features, dim=0, correction=0)
    std = torch.where(std > 0, std, 1)  # a feature that is constant, and so 0 here
    inputs, classes, count = (features - mean) / std, int(labels.max()) + 1, len(labels)
    weight = torch.zeros(classes, inputs.shape[1], dtype=torch.float64, device=inputs.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=inputs.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=5_000, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(inputs, weight, bias), labels) + penalty / 2 / count * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
        loss()
    if (most := max(part.grad.abs().max().item() for part in (weight, bias))) > 1e-4:
        raise RuntimeError(f"expected logistic regression to converge, got a gradient of {most:.1g}")
    weight, bias = weight.detach(), bias.detach()
    return weight / std, bias - weight @ (mean / std)


def by_class(labels: Tensor) -> Iterator[Tensor]:
    """The places of the images of each class that has two or more, (n,) int64 each."""
    for label in labels.unique():
        places = (labels == label).nonzero().squeeze(1)
        if len(places) > 1:
            yield places


def measure_treatments(run: Run) -> pd.DataFrame:
    """The accuracy of a network on the HFC of test images at TREATED_RADII, max feed, under each of TREATMENTS.

    "fixed" gives each channel the moments of SOURCE training HFCs in place of a batch's: for vanilla `matched` with a
    source, for BatchNorm `recalibrate_batchnorm`. "batch" and "one_class" take those of test batches of 100, of all
    classes or of one. "centred" takes the mean logits of the same training HFCs off the logits. "features" gives the
    pooled features, from the moments of these HFCs, those of clean training images. A "probe" is a `fit_probe` on the
    pooled features of all embedded training HFCs; "random" is one on the network before its training.

    Args:
        run: of a ResNet with its weights.
    Returns:
        Columns treatment, band, radius, feed, images (their number) and accuracy [0, 1].
    """
    images, labels = (part[: run.recipe.final_images] for part in embedded("test"))
    train, classes = (part[: run.recipe.data.train_images] for part in embedded("train"))
    images, reference = to_float(images), as_trained(train, run.recipe)
    trained = _Body(run.model(), reference)
    random = _Body(initial_model(run.recipe, run.seed).eval(), reference)
    rows = []
    for radius in TREATED_RADII:
        test, source = (feed_images(split(whole, radius)[1], "max") for whole in (images, to_float(train)))
        right = _all_right(trained, random, (source, classes), (test, labels))
        for treatment, correct in ((name, right[name]) for name in TREATMENTS):
            row = {"treatment": treatment, "band": "hfc", "radius": radius, "feed": "max"}
            rows.append(row | {"images": len(correct), "accuracy": correct.double().mean().item()})
    return pd.DataFrame(rows)


class _Body:
    """A ResNet (`model`, which is changed) cut before its last linear layer, which is the head.

    Its methods take HFCs (N, C, H, W) and return pooled features (N, F), on the CPU.
    """

    def __init__(self, model: nn.Module, reference: Tensor) -> None:
        self.head, model.fc = model.fc.requires_grad_(False), nn.Identity()
        self.model = model.to(best_device())
        self.normed = uses_batch_statistics(model)
        self.matched = None if self.normed else matched(self.model, reference)
        self.of_reference = self.untouched(reference)

    def untouched(self, images: Tensor) -> Tensor:
        return logits(self.model, images, amp=True)

    def by_batch(self, images: Tensor) -> Tensor:
        if self.normed:
            return logits(self.model, images, bn_stats="batch", amp=True)
        return logits(self.matched, images, amp=True)

    def fixed(self, source: Tensor) -> Callable[[Tensor], Tensor]:
        """The method whose moments are those of the source."""
        if self.normed:
            network = recalibrate_batchnorm(self.model, source)
        else:
            network = copy.deepcopy(self.matched)
            network.fix_source(source)
        return partial(logits, network, amp=True)


Fed = tuple[Tensor, Tensor]  # HFCs (N, C, H, W) and labels (N,)


def _all_right(trained: _Body, random: _Body, train: Fed, test: Fed) -> dict[str, Tensor]:
    """Which of the test HFCs are right, by treatment, (N,) bool; "one_class" has them in the order of their classes."""
    (hfcs, labels), source, right = test, train[0][:SOURCE], {}
    kept = {}
    for name, body in {"probe": trained, "random": random}.items():
        for ending, features in {"": body.untouched, "_fixed": body.fixed(source)}.items():
            of_train, of_test = features(train[0]), features(hfcs)
            weight, bias = fit_probe(of_train, train[1])
            right[name + ending] = F.linear(of_test.double(), weight, bias).argmax(dim=1) == labels
            kept[name + ending] = of_train[:SOURCE], of_test
    head, (of_source, untouched) = trained.head, kept["probe"]
    answers = {
        "none": head(untouched),
        "centred": head(untouched) - head(of_source).mean(dim=0),
        "features": head(_given_moments(untouched, of_source, trained.of_reference)),
        "fixed": head(kept["probe_fixed"][1]),
        "batch": head(trained.by_batch(hfcs)),
    }
    right |= {name: answer.argmax(dim=1) == labels for name, answer in answers.items()}
    one_class = [head(trained.by_batch(hfcs[places])).argmax(dim=1) == labels[places] for places in by_class(labels)]
    return right | {"one_class": torch.cat(one_class)}


def _given_moments(features: Tensor, source: Tensor, reference: Tensor) -> Tensor:
    """Features (N, F) that are given, from the moments of the source's features, those of the reference's."""
    var, mean = torch.var_mean(source, dim=0, correction=0)
    wanted_var, wanted_mean = torch.var_mean(reference, dim=0, correction=0)
    return F.batch_norm(features, mean, var, (wanted_var + EPS).sqrt(), wanted_mean, training=False, eps=EPS)


stored = partial(stored_table, "treatments")


def treatment_results(runs: Runs, *, compute: Collection[int] = ()) -> pd.DataFrame:
    """The stored tables of the PAIR's runs (`measure_treatments`), as `measurements`.

    Args:
        runs: by variant.
        compute: the seeds of which to measure what is not stored; it takes minutes per network and is not kept.
    """
    parts = []
    for variant, run in ((name, run) for name in PAIR for run in runs.get(name, ())):
        rows = stored(run)
        if rows is None and run.seed in compute and run.has_weights:
            rows = measure_treatments(run)
        if rows is not None:
            parts.append(measurements(rows, variant, run))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# ---- what the notebook shows


def treatment_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracies by radius and treatment, and BatchNorm's lead, as text.

    Args:
        rows: of `treatment_results`.
    Returns:
        Means over seeds; the lead with its 95 % interval over seeds and images (`claims.evaluate`).
    """
    measure = rows["treatment"] + "_" + rows["radius"].astype(str)
    cells = cells_of_shares(rows.assign(measure=measure, measured="", sample="test"))
    leads = {
        (radius, name): lead_over(*(f"{variant}.{treatment}_{radius}" for variant in PAIR))
        for radius, (treatment, name) in product(TREATED_RADII, TREATMENTS.items())
    }
    return text_table(contrast_rows(leads, cells, seeds=True), ["r", "treatment"]).rename(columns=TITLES)


def treatment_figure(rows: pd.DataFrame) -> Figure:
    """Means over seeds with 95 % intervals (Student's t) of `treatment_results`, one panel per radius."""
    names = list(TREATMENTS.values())
    rows = rows.assign(treatment=rows["treatment"].map(TREATMENTS), radius=rows["radius"].astype(int))
    means = over_seeds_table(rows, ["radius", "treatment", "variant"])
    means = means.astype({"treatment": pd.CategoricalDtype(names)})
    looks = network_looks(PAIR)
    with drawn_in(CHART):
        figure, axes = panels([f"r = {radius}" for radius in TREATED_RADII], height=4, beside=1)
        for ax, radius in zip(axes, TREATED_RADII, strict=True):
            intervals(ax, means[means["radius"] == radius], "treatment", "variant", looks, dodge=0.3)
            ax.axvline(CHANCE, color="0.3", lw=1, ls="--")
            ax.set(xlim=(0, 1), xlabel="Accuracy")
        legend(figure, [look.handle(TITLES[variant]) for variant, look in looks.items()])
    return figure


def published_pair() -> Runs:
    """The published vanilla and BatchNorm networks of the preset "laptop" whose weights are kept."""
    return published_runs({variant: all_recipes()[variant] for variant in PAIR}).with_weights()


if __name__ == "__main__":
    publish_tables("treatments", published_pair(), lambda run, variant: measure_treatments(run))
