"""hfclib.reporting.metric: any classifier as a module, and accuracy by band as a metric."""

import copy
import json
from collections import OrderedDict
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from hfclib import BandAccuracy, Classifier, LowPass, accuracy, band_accuracy, logits
from hfclib.batching import whole_batches
from hfclib.conditions import uses_batch_statistics
from hfclib.reporting.metric import chance_p_value, counted


class Named(NamedTuple):
    features: torch.Tensor
    logits: torch.Tensor


@pytest.fixture
def network():
    found = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 12)).eval()
    found[-1].weight.data.normal_()
    return found


@pytest.fixture
def data(network):
    images = torch.rand(250, 3, 8, 8)
    return images, torch.where(torch.rand(250) < 0.7, network(images).argmax(dim=1), 0)


def test_the_metric_equals_band_accuracy_and_adds_columns(network, data):
    metric = BandAccuracy(network, [1, 3], feeds=("raw", "mean"), bn_stats=("running", "batch"), colour=(0.5,) * 3)
    for start, end in ((0, 100), (100, 200), (200, 250)):
        metric.update(data[0][start:end], data[1][start:end])
    table = metric.compute()
    for bn_stats in ("running", "batch"):
        for feed in ("raw", "mean"):
            expected = band_accuracy(network, *data, [1, 3], feed=feed, bn_stats=bn_stats, colour=(0.5,) * 3)
            for row in expected.itertuples():
                key = (row.band, row.radius, "raw" if row.band == "lfc" else feed, bn_stats)
                found = table[table[["band", "radius", "feed", "bn_stats"]].apply(tuple, axis=1) == key]
                assert found["accuracy"].item() == pytest.approx(row.accuracy, abs=1e-7)
        whole = table.query("band == 'x' and bn_stats == @bn_stats").squeeze()
        assert whole["accuracy"] == pytest.approx(accuracy(network, *data, bn_stats=bn_stats), abs=1e-7)
        assert whole["low"] < whole["accuracy"] < whole["high"]
    assert len(table) == 2 * (1 + 2 * 3)
    scores = network(data[0]).detach()
    ranks = (scores > scores.gather(1, data[1][:, None])).sum(dim=1)
    assert table["top5"][0] == pytest.approx((ranks < 5).double().mean().item())
    metric.reset()
    with pytest.raises(ValueError, match="call update first"):
        metric.compute()
    for some in (slice(100), slice(100, None)):
        part = copy.copy(metric)
        part.reset()
        part.update(data[0][some], data[1][some])
        metric.add(json.loads(json.dumps(part.counts())))
    assert metric.compute().equals(table)
    metric.reset()
    metric.update([data])  # an iterable of batches, as accuracy takes it
    assert metric.compute().equals(table)


def test_the_mean_feed_needs_a_colour_and_a_process_without_a_batch_adds_nothing(network, data):
    with pytest.raises(ValueError, match=r'expected colour, .* feed "mean", got none: hfclib.mean_colour finds it'):
        BandAccuracy(network, [2])
    BandAccuracy(network, [2], feeds=("raw", "max"))
    metric = BandAccuracy(network, [2], colour=[0.5] * 3)
    metric.update(*data)
    table = metric.compute()
    metric.add(BandAccuracy(network, [2], colour=[0.5] * 3).counts())
    assert metric.compute().equals(table)
    assert not table["top5"].isna().any()


def test_few_classes_have_no_top5_and_a_single_radius_will_do(channel_means, images, labels):
    metric = BandAccuracy(channel_means, 2, feeds="raw")
    metric.update(images, labels)
    table = metric.compute()
    assert table["top5"].isna().all()
    assert table["accuracy"][0] == 1


def test_any_classifier(network, data):
    images, labels = data
    expected = accuracy(network, images, labels)
    for wrap in (
        lambda scores: (scores, "features"),
        lambda scores: [scores],
        lambda scores: OrderedDict(logits=scores, loss=None),
        lambda scores: SimpleNamespace(logits=scores),
        lambda scores: Named(scores + 1e3 * torch.rand(scores.shape), scores),
    ):
        assert accuracy(Classifier(lambda x, wrap=wrap: wrap(network(x))), images, labels) == expected
    for wrap in (
        lambda scores: (scores, scores.softmax(dim=1)),
        lambda scores: {"logits": scores.detach().numpy()},
        lambda scores: SimpleNamespace(logits=scores.detach().numpy()),
    ):
        assert accuracy(Classifier(lambda x, wrap=wrap: wrap(network(x))), images, labels) == expected
    for wrap in (
        lambda scores: (images.flatten(1), scores),
        lambda scores: [scores, images.flatten(1)],
        lambda scores: [images.flatten(1).numpy(), scores.detach().numpy()],
        lambda scores: (scores.roll(1, dims=1), scores),
    ):
        with pytest.raises(TypeError, match=r"got \(.*\) and \(.*\): give a function that picks the logits"):
            accuracy(Classifier(lambda x, wrap=wrap: wrap(network(x))), images[:2], labels[:2])
    for dtype in (torch.bfloat16, torch.float64):
        other = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).to(dtype)
        by_hand = other(images.to(dtype)).argmax(dim=1)
        assert accuracy(Classifier(other), images, by_hand) == 1
        assert 0 < band_accuracy(Classifier(other), images, by_hand, 3)["accuracy"].max() <= 1


class Plain:
    """An object that is no module, with a network and a method."""

    def __init__(self, network):
        self.networks = {"main": network}

    def scores(self, images):
        return self.networks["main"](images)

    __call__ = scores


def service(network):
    """An object whose network belongs to its class."""

    class Service:
        held = network

        def __call__(self, images):
            return self.held(images)

    return Service()


HELD = {}


def by_global_name(images):
    return HELD["network"](images)


def without_a_trace(images):
    return globals()["HE" + "LD"]["network"](images)


def test_the_network_behind_a_callable_is_put_into_evaluation_mode(network, data):
    images = data[0]
    expected = {bn_stats: logits(network, images, bn_stats=bn_stats) for bn_stats in ("running", "batch")}
    assert not torch.allclose(expected["running"], expected["batch"], atol=0.01)
    HELD["network"] = network.train()
    network[0].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    for behind in (
        network.forward,
        lambda images: network(images),
        lambda images, one=network: one(images),
        lambda images: (lambda part: network(part))(images),
        partial(lambda one, images: one(images), network),
        Plain(network),
        Plain(network).scores,
        service(network),
        by_global_name,
    ):
        for bn_stats in ("running", "batch"):
            torch.testing.assert_close(logits(Classifier(behind), images, bn_stats=bn_stats), expected[bn_stats])
        assert uses_batch_statistics(Classifier(behind))
        assert [module.training for module in network.modules()] == modes
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    wrapped = nn.Sequential(LowPass(2), Classifier(network.forward))
    torch.testing.assert_close(logits(wrapped, images), logits(nn.Sequential(LowPass(2), network), images))


class Slotted:
    __slots__ = ("network",)

    def __init__(self, network):
        self.network = network

    def __call__(self, images):
        return self.network(images)


class Session:
    """Like ONNX Runtime's: its answers come from elsewhere, by a method with the name of a global."""

    def by_global_name(self, images):
        return images.mean(dim=(2, 3))


def test_a_callables_networks_are_those_that_it_refers_to_and_no_other(network, data, monkeypatch):
    HELD["network"] = network
    session, helpers = Session(), ModuleType("helpers")
    assert Classifier(lambda images: session.by_global_name(images)).no_module_found
    helpers.predict = lambda images: network(images)
    monkeypatch.setitem(globals(), "helpers", helpers)
    for behind in (Slotted(network), lambda images: helpers.predict(images)):
        assert Classifier(behind).modules_behind == (network,)


def test_a_callable_in_which_no_network_is_found_is_not_trusted(network, data):
    images, labels = data
    HELD["network"] = network.train()
    before = network[1].running_mean.clone(), network[1].running_var.clone()
    with pytest.raises(ValueError, match="BatchNorm in evaluation mode, got training mode: call its eval"):
        accuracy(Classifier(without_a_trace), images, labels)
    assert torch.equal(before[0], network[1].running_mean)
    assert torch.equal(before[1], network[1].running_var)
    network.eval()
    assert accuracy(Classifier(without_a_trace), images, labels) == accuracy(network, images, labels)
    for drop in (nn.functional.dropout, nn.functional.dropout2d):
        with pytest.raises(ValueError, match="dropout in evaluation mode, got training mode"):
            accuracy(Classifier(lambda images, drop=drop: network(drop(images))), images, labels)
    with pytest.raises(ValueError, match='"running" with a callable in which no module is found: give the module'):
        accuracy(Classifier(without_a_trace), images, labels, bn_stats="batch")
    exported = torch.export.export(network, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    behind = Classifier(lambda images: exported(images))
    assert accuracy(behind, images, labels) == accuracy(network, images, labels)
    with pytest.raises(ValueError, match='expected bn_stats "running" with an exported program'):
        accuracy(behind, images, labels, bn_stats="batch")


def test_normalisation_comes_after_the_split():
    images = torch.rand(40, 2, 8, 8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    mean, std = (0.4, 0.6), (0.2, 0.3)
    first, second = (torch.tensor(values).view(1, 2, 1, 1) for values in (mean, std))
    by_hand = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    by_hand.load_state_dict(network.state_dict())
    by_hand.register_forward_pre_hook(lambda module, given: (given[0] - first) / second)
    labels = by_hand(images).argmax(dim=1)
    expected = band_accuracy(by_hand, images, labels, [2, 3], feed="mean", colour=mean)
    assert band_accuracy(Classifier(network, mean, std), images, labels, [2, 3], feed="mean", colour=mean).equals(
        expected
    )
    with pytest.raises(ValueError, match="mean and std for 1 channels, got 2 and 2 numbers"):
        accuracy(Classifier(network, mean, std), images[:, :1], labels)
    with pytest.raises(ValueError, match="mean and std, or neither"):
        Classifier(network, mean)
    with pytest.raises(ValueError, match=r"mean, numbers in \[0, 1\] as of pixels, .*got \[124, 116\]"):
        Classifier(network, [124, 116], [58, 57])


def test_a_loader_is_regrouped_where_logits_depend_on_the_batch(network, data):
    loader = [(data[0][start : start + 32], data[1][start : start + 32]) for start in range(0, 250, 32)]
    metric = BandAccuracy(network, [2], feeds="raw", bn_stats="batch")
    metric.update([*loader[:7], (data[0][224:249], data[1][224:249]), (data[0][249:], data[1][249:])])
    table = metric.compute()
    assert table["accuracy"][0] == pytest.approx(accuracy(network, *data, bn_stats="batch"))
    expected = band_accuracy(network, *data, [2], feed="raw", bn_stats="batch")["accuracy"]
    assert table["accuracy"][1:].tolist() == pytest.approx(expected.tolist())


def test_a_batch_that_fails_is_not_counted(network, data):
    metric = BandAccuracy(network, [2], bn_stats=("running", "batch"), colour=[0.5] * 3)
    metric.update(data[0][:10], data[1][:10])
    before = metric.counts()
    with pytest.raises(ValueError, match="batches of 2 images or more"):
        metric.update(data[0][:1], data[1][:1])
    assert metric.counts() == before


def test_batches_of_any_size_are_made_whole():
    pairs = [(torch.rand(size, 1, 2, 2), torch.arange(size)) for size in (3, 250, 40, 1, 7)]
    whole = list(whole_batches(pairs, 100))
    assert [len(labels) for _, labels in whole] == [100, 100, 101]
    for number in (0, 1):
        assert torch.equal(torch.cat([pair[number] for pair in whole]), torch.cat([pair[number] for pair in pairs]))


def test_a_mapping_without_logits_is_named(data):
    class Segments(nn.Module):
        def forward(self, images):
            return {"out": images}

    with pytest.raises(TypeError, match="expected logits from the model, got a mapping of out"):
        BandAccuracy(Segments(), [2], colour=[0.5] * 3).update(*data)


def test_names_alone_and_numbers_of_numpy(network, data):
    metric = BandAccuracy(network, np.int64(2), feeds="raw", bn_stats="batch")
    metric.update(*data)
    assert metric.compute()[["band", "radius", "bn_stats"]].values.tolist() == [
        ["x", 0, "batch"],
        ["lfc", 2, "batch"],
        ["hfc", 2, "batch"],
    ]
    plain = BandAccuracy(nn.Sequential(nn.Flatten(), nn.Linear(192, 12)), 2, feeds="raw", bn_stats=("running", "batch"))
    assert {condition.bn_stats for condition in plain.wanted} == {"running"}
    for wrong in ({"feeds": "bright"}, {"bn_stats": ("running", "none")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BandAccuracy(network, **wrong)


@pytest.mark.parametrize(("correct", "images"), [(0, 1), (0, 50), (50, 50), (7, 9), (123, 10_000)])
def test_intervals_are_wilsons(correct, images):
    found, interval = counted(correct, images), binomtest(correct, images).proportion_ci(0.95, method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_an_interval_holds_its_share_where_none_or_all_are_right():
    """A plot draws the distances from the share, and Matplotlib refuses a negative one."""
    ends = [counted(correct, images) for images in range(1, 1001) for correct in (0, images)]
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in ends)


def test_a_colour_may_be_a_tensor(network, data):
    tables = []
    for colour in ((0.5, 0.25, 0.75), torch.tensor([0.5, 0.25, 0.75])):
        metric = BandAccuracy(network, 2, colour=colour)
        metric.update(*data)
        tables.append(metric.compute())
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("correct", "images", "chance"),
    [(0, 20, 0.5), (9, 20, 0.25), (20, 20, 0.1), (1040, 10_000, 0.1), (70, 50_000, 0.001), (91, 100, 0.9)],
)
def test_the_p_value_against_chance_is_that_of_scipy(correct, images, chance):
    expected = binomtest(correct, images, chance, alternative="greater").pvalue
    assert chance_p_value(correct, images, chance) == pytest.approx(expected, rel=1e-6)
