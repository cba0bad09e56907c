"""hfclib.reporting: the parts against NumPy, the folder, going on after a stop, and the two commands."""

import copy
import itertools
import json
import os
import re
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from PIL import Image
from scipy.stats import binomtest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import hfclib
from hfclib._files import data_folder
from hfclib.data.cifar import to_float
from hfclib.reporting import parts
from hfclib.reporting.figures import card, energy_figure, heat_map_figure, points_figure
from hfclib.reporting.limits import Limit
from hfclib.reporting.make import make_report
from hfclib.reporting.metric import counted
from hfclib.reporting.named import named_data, named_model
from hfclib.reporting.names import check_model, package_models
from hfclib.reporting.stored import read_report
from hfclib.runs.ray import ray_map
from hfclib.runs.store import load

FAST = {"images": 24, "grid": 3, "steps": 1, "radii": [2, 3]}


@pytest.fixture(autouse=True)
def _few_images_are_enough(caplog):
    caplog.set_level("INFO")


@pytest.fixture
def network():
    found = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10, bias=False))
    found[1].weight.data.normal_()
    return found


@pytest.fixture
def data(network):
    images = torch.rand(120, 3, 8, 8)
    return images, torch.where(torch.rand(120) < 0.8, network(images).argmax(dim=1), 0)


# ---- the parts


def test_the_heat_map_of_an_image_of_one_row_has_cells_to_see():
    (cells,) = (
        heat_map_figure([{"row": 0, "column": column, "error": 0.9} for column in (-2, -1, 0)]).axes[0].collections
    )
    assert np.unique(cells.get_coordinates()[..., 1]).tolist() == [-0.5, 0.5]
    assert np.unique(cells.get_coordinates()[..., 0]).tolist() == [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]


def test_heat_map_of_a_stored_network_is_that_of_an_independent_construction(cifar):
    (path,) = (data_folder() / "runs").glob("laptop-batchnorm-0-*")
    network = load(path).model().eval()
    images, labels = to_float(cifar["test"][0][:25]), cifar["test"][1][:25]
    rows = parts.heat_map(network, images, labels, grid=7, norm=4, seed=3)
    assert [(row["row"], row["column"]) for row in rows] == list(parts.frequencies(32, 32, 7))
    assert {(row["row"], row["column"]) for row in rows} >= {(0, 0), (5, 5), (-16, 5), (16, 16)}
    generator = torch.Generator().manual_seed(3)
    signs = (torch.randint(0, 2, (25, 3, 1, 1), generator=generator) * 2 - 1).numpy()
    expected = []
    for row in rows[:20]:
        spectrum = np.zeros((32, 32))
        spectrum[row["row"] % 32, row["column"] % 32] = spectrum[-row["row"] % 32, -row["column"] % 32] = 1
        plane = np.fft.ifft2(spectrum).real
        noisy = images.numpy() + 4 * signs * plane / np.linalg.norm(plane)
        with torch.no_grad():
            predictions = network(torch.from_numpy(noisy).float()).argmax(dim=1)
        expected.append((predictions != labels).double().mean().item())
    assert [row["error"] for row in rows[:20]] == pytest.approx(expected)
    assert len(set(expected)) > 5


def test_parts_are_measured_in_full_precision(in_bf16, monkeypatch):
    """Where the processor has bfloat16 too: it would change predictions of some networks."""
    asked = []

    class Watched(nn.Linear):
        def forward(self, x):
            asked.append(super().forward(x.flatten(1)).dtype)
            return super().forward(x.flatten(1))

    counts = parts._correct(Watched(12, 10), torch.rand(200, 3, 2, 2), torch.zeros(200, dtype=torch.int64))
    assert counts["images"] == 200
    assert set(asked) == {torch.float32}


@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_large_logits_that_are_all_alike_are_asked_again_in_float32(in_bf16, offset):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    network[1].bias.data += offset
    images = torch.rand(400, 3, 2, 2)
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    assert parts._correct(network, images, labels)["correct"] == 400


def test_a_network_of_half_precision_is_asked_as_it_is(in_bf16):
    layers = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 10)
    network = hfclib.Classifier(nn.Sequential(*layers).half().eval())
    images = torch.rand(20, 3, 2, 2)
    labels = hfclib.logits(network, images).argmax(dim=1)
    assert parts._correct(network, images, labels)["correct"] == 20


def test_no_image_is_asked_alone_where_logits_depend_on_the_batch(in_bf16):
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(12, 10))
    images = torch.rand(200, 3, 2, 2)
    labels = hfclib.logits(network, images).argmax(dim=1)
    assert parts._correct(network, images, labels)["correct"] == 200


def test_plot_shows_a_table_with_intervals(network, data):
    images, labels = data
    tables = [hfclib.band_accuracy(network, images, labels, radii) for radii in ([2, 3], [1.0, 2.5])]
    metric = hfclib.BandAccuracy(network, [2, 3], feeds=("raw", "mean"), colour=[0.5] * 3)
    metric.update(images, labels)
    tables.append(metric.compute())
    for table, curves in zip(tables, (2, 2, 3), strict=True):
        figure = hfclib.plot(table)
        (axes,) = figure.axes
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("radius (DFT bins)", "accuracy")
        assert not axes.child_axes
        assert len(axes.containers) == curves
        bands = table[table["band"] == "lfc"]
        line, _, (bars,) = next(one for one in axes.containers if one.get_label().startswith("LFC"))
        assert line.get_xdata() == pytest.approx(bands["radius"].astype(float))
        assert line.get_ydata() == pytest.approx(bands["accuracy"])
        for row, (low, high) in zip(bands.itertuples(), (path[:, 1] for path in bars.get_segments()), strict=True):
            interval = counted(round(row.accuracy * row.images), row.images)
            assert (low, high) == pytest.approx((interval["low"], interval["high"]))
    shuffled = hfclib.plot(hfclib.band_accuracy(network, images, labels, [3, 1, 2]))
    assert {tuple(line.get_xdata()) for line, *_ in shuffled.axes[0].containers} == {(1, 2, 3)}


@pytest.mark.drawn
def test_shares_of_nyquist_stand_beside_the_bins(network, data, tmp_path):
    axes = hfclib.plot(hfclib.band_accuracy(network, *data, [1, 2]), side=8).axes[0]
    (above,) = axes.child_axes
    assert above.get_xlabel() == "share of Nyquist"
    axes.figure.draw_without_rendering()
    assert above.get_xlim() == pytest.approx([end / 4 for end in axes.get_xlim()])
    row = {"radius": 2, "share": 0.5, "low": 0.4, "high": 0.6, "bins": 0.3, "from_bins": 2.0, "to_bins": 4.0}
    (above,) = energy_figure([row], {}, 8).axes[0].child_axes
    assert above.get_xlabel() == "share of Nyquist"
    (label,) = points_figure("noise", [row], {}, 8).axes[0].get_xticklabels()
    assert label.get_text() == "2 to 4\n(50% to 100%)"
    made = make_report(network, data, tmp_path, **FAST | {"radii": 2.5})
    assert re.search(r"(within|beyond) radius 2.5 \(62% of Nyquist\) it is right for", made.content["summary"])
    assert "lies at or beyond radius 2.5 (62% of Nyquist)" in made.content["summary"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("<th>radius</th>\n      <th>of Nyquist</th>") == 3  # accuracy, energy, misaligned
    assert len(re.findall(r"<td>2.50*</td>\n      <td>0.6250*</td>", page)) == 3 + 1 + 1


@pytest.mark.drawn
def test_a_report_on_larger_images_cuts_at_shares_of_nyquist_in_bins(tmp_path):
    images, labels = torch.rand(8, 3, 40, 64), torch.arange(8) % 2
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    options = {name: value for name, value in FAST.items() if name != "radii"}
    made = make_report(network, (images, labels), tmp_path, **options)
    assert made.content["key"]["settings"]["radii"] == [2.5, 5, 10, 15]
    high = hfclib.split(images, 10)[1] + torch.tensor(made.content["key"]["settings"]["colour"]).view(3, 1, 1)
    assert made.value("hfc", 10) == pytest.approx(hfclib.accuracy(network, high, labels))
    assert Limit.parse("hfc@10.0 < 1").fails(made)


def test_a_share_in_place_of_a_radius_is_refused_before_the_work(network, data, tmp_path):
    for use in (
        lambda: make_report(network, data, tmp_path / "report", **FAST | {"radii": [0.25, 0.5]}),
        lambda: hfclib.BandAccuracy(network, 0.25, feeds="raw"),
        lambda: Limit.parse("hfc@0.25 > .4"),
    ):
        with pytest.raises(ValueError, match=r"0 or at least 1, got 0.25: hfclib.nyquist\(share, images\) converts"):
            use()
    assert not (tmp_path / "report").exists()


def test_noise_of_a_band_has_its_norm_and_no_other_frequency(data):
    seen = []

    class Watching(nn.Module):
        def forward(self, images):
            seen.extend([images] * (len(images) == 20))  # some are looked at again in full precision
            return images.flatten(1)[:, :10]

    images, labels = data[0][:20], torch.zeros(20, dtype=torch.int64)
    rows = parts.band_noise(Watching(), images, labels, [2, 3], norm=1.5, seed=0)
    assert [(row["from_bins"], row["to_bins"]) for row in rows] == [(0, 2), (2, 3), (3, pytest.approx(8 * 2**0.5))]
    for row, noisy in zip(rows, seen, strict=True):
        noise = (noisy - images).double().numpy()
        assert np.linalg.norm(noise, axis=(2, 3)) == pytest.approx(1.5, abs=1e-4)
        spectrum = np.abs(np.fft.fftshift(np.fft.fft2(noise), axes=(2, 3)))
        distance = np.hypot(*np.ogrid[-4:4, -4:4])
        outside = (distance < row["from_bins"]) | (distance >= row["to_bins"])
        assert spectrum[..., outside].max() < 1e-4


def test_parts_are_the_same_with_another_default_device(network, data):
    few = data[0][:12], data[1][:12]
    measures = (
        partial(parts.heat_map, network, *few, grid=3, norm=2, seed=0),
        partial(parts.band_noise, network, *few, [2, 3], norm=2, seed=0),
        partial(parts.phase_or_amplitude, network, *few, seed=0),
    )
    expected = [measure() for measure in measures]
    with torch.device("meta"):
        assert [measure() for measure in measures] == expected


def test_energy_of_an_attack_by_radius(data):
    images = torch.full((20, 3, 8, 8), 0.5)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(3, 4, 4)  # frequency (4, 4), at distance 5.7

    class Checked(nn.Module):
        def forward(self, x):
            score = (x * checks).sum(dim=(1, 2, 3))
            return torch.stack([score + 10, -score], dim=1)

    options = {"eps": 1, "steps": 8}
    rows = parts.attack_energy(Checked(), images, torch.zeros(20, dtype=torch.int64), [1, 5, 6], **options)
    with torch.inference_mode():
        again = parts.attack_energy(Checked(), images, torch.zeros(20, dtype=torch.int64), [1, 5, 6], **options)
    assert again == rows
    assert [row["share"] for row in rows] == pytest.approx([1, 1, 0], abs=1e-3)
    assert [row["bins"] for row in rows] == [63 / 64, 1 - np.mean(np.hypot(*np.ogrid[-4:4, -4:4]) < 5), 0]
    assert rows[0]["robust_correct"] == 0


def test_predictions_follow_what_a_network_reads():
    known, labels = torch.rand(4, 3, 8, 8), torch.arange(4).repeat(6)
    reads = {
        "phase": lambda images: torch.view_as_real(torch.fft.fft2(images) / torch.fft.fft2(images).abs()),
        "amplitude": lambda images: torch.fft.fft2(images).abs(),
    }

    def nearest(read):  # the known image that is nearest in what the network reads; class 4 is of no image
        def scores(images):
            return nn.functional.pad(-torch.cdist(read(images).flatten(1), read(known).flatten(1)), (0, 1), value=-1e9)

        return hfclib.Classifier(scores)

    for follows, read in reads.items():
        rows = parts.phase_or_amplitude(nearest(read), known[labels], labels, seed=0)
        assert {row["follows"]: row["correct"] for row in rows} == {
            **dict.fromkeys(reads, 0),
            "neither": 0,
            follows: 24,
        }
    other = hfclib.Classifier(lambda images: nn.functional.one_hot(torch.full((len(images),), 4), 5).float())
    rows = parts.phase_or_amplitude(other, known[labels], labels, seed=0)
    assert [(row["follows"], row["correct"]) for row in rows] == [("phase", 0), ("amplitude", 0), ("neither", 24)]
    assert rows[2] == {"follows": "neither", **counted(24, 24)}
    assert parts.phase_or_amplitude(other, known, torch.zeros(4, dtype=torch.int64), seed=0) == []
    many = labels.repeat(25)  # partners are drawn for 256 images at a time
    rows = parts.phase_or_amplitude(nearest(reads["amplitude"]), known[many], many, seed=0)
    assert {row["follows"]: row["correct"] for row in rows} == {"phase": 0, "amplitude": 600, "neither": 0}


# ---- the folder


def test_a_loader_may_fill_the_same_memory_again(network, data, tmp_path):
    class Refilled:
        def __iter__(self):
            images, labels = torch.empty(7, 3, 8, 8), torch.empty(7, dtype=torch.int64)
            for start in range(0, len(data[1]) - 6, 7):
                yield images.copy_(data[0][start : start + 7]), labels.copy_(data[1][start : start + 7])

    count = len(data[1]) // 7 * 7
    made = hfclib.make_report(network, Refilled(), tmp_path / "refilled", **FAST)
    expected = hfclib.make_report(network, (data[0][:count], data[1][:count]), tmp_path / "whole", **FAST)
    assert made.content["parts"] == expected.content["parts"]


@pytest.mark.drawn
def test_numbers_of_a_report_are_those_of_band_accuracy(network, data, tmp_path):
    made = hfclib.make_report(network, DataLoader(TensorDataset(*data), batch_size=7), tmp_path / "report", **FAST)
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    assert stored == made.content
    assert read_report(tmp_path / "report" / "report.json").content == stored
    assert made.value("test") == pytest.approx(hfclib.accuracy(network, *data), abs=1e-7)
    colour = stored["key"]["settings"]["colour"]
    assert colour == pytest.approx(data[0].mean(dim=(0, 2, 3)).tolist())
    table = made.table()
    for feed in ("raw", "mean"):
        for row in hfclib.band_accuracy(network, *data, [2, 3], feed=feed, colour=colour).itertuples():
            key = (row.band, row.radius, "raw" if row.band == "lfc" else feed)
            accuracy = table[table[["band", "radius", "feed"]].apply(tuple, axis=1) == key]["accuracy"].item()
            assert accuracy == pytest.approx(row.accuracy, abs=1e-7)
            if row.band == "lfc" or feed == "mean":
                assert made.value(row.band, row.radius) == accuracy
    for rows in (rows for part, rows in stored["parts"].items() if part not in ("classes", "pictures")):
        assert all(row["low"] <= row.get("accuracy", row.get("share")) <= row["high"] for row in rows)
        assert all(row["images"] in (24, 120) for row in rows)
    for part, rows in stored["parts"].items():
        assert len(pd.read_csv(tmp_path / "report" / f"{part}.csv")) == len(rows)
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.search(r"https?:|//|url\(\s*[^#\s]|@import", re.sub(r"base64,[^\"]+", "", page))
    assert "prefers-color-scheme:dark" in page
    assert page.count("<svg") >= 4
    assert f"{made.value('test'):.1%}" in page
    assert stored["key"]["weights_sha256"] in page
    with Image.open(tmp_path / "report" / "card.png") as card:
        assert card.size == (1200, 630)
        assert 0.02 < (np.asarray(card.convert("L")) < 200).mean() < 0.3  # letters and curves on white


def test_statistics_of_the_batch_and_matched_moments(tmp_path):
    data = torch.rand(30, 3, 8, 8), torch.arange(30) % 4
    for norm, other in ((nn.BatchNorm2d(4), "batch"), (nn.Identity(), "matched")):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))
        table = hfclib.make_report(network, data, tmp_path / other, **FAST).table()
        assert set(table["bn_stats"]) == {"running", other}
        helped = hfclib.matched(network, data[0][:24]) if other == "matched" else network
        options = {"bn_stats": "batch"} if other == "batch" else {}
        expected = hfclib.band_accuracy(helped, *data, [2, 3], **options)["accuracy"]
        found = table.query("bn_stats == @other and feed == 'raw' and band != 'x'")["accuracy"]
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-7)
    one_by_one = hfclib.make_report(helped, data, tmp_path / "one by one", batch_size=1, **FAST)  # as large as ever
    assert one_by_one.table().equals(hfclib.make_report(helped, data, tmp_path / "usual", **FAST).table())


def test_the_mean_colour_is_that_of_all_images_and_they_are_read_for_it_once(network, tmp_path, caplog):
    images = torch.rand(120, 3, 8, 8) * torch.linspace(0.1, 1, 120).view(120, 1, 1, 1)
    pairs, read = list(zip(images.split(30), (torch.arange(120) % 10).split(30), strict=True)), []

    class Counting:
        def __iter__(self):
            return (read.append(number) or batch for number, batch in enumerate(pairs))

    data = Counting()
    made = make_report(network, data, tmp_path, **FAST)
    assert made.content["key"]["settings"]["colour"] == pytest.approx(images.mean(dim=(0, 2, 3)).tolist())
    assert "reading the images once for their mean colour" in caplog.text
    read.clear()
    assert make_report(network, data, tmp_path, **FAST).content == made.content
    assert read == [0, 0, 1, 2, 3]  # the colour is stored, and all the data are compared


@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_finished_report_is_not_given_for_data_that_have_changed_after_the_first(network, data, tmp_path, what):
    images, labels = (part.clone() for part in data)
    make_report(network, data, tmp_path, **FAST)
    if what == "images":
        images[24:100] = 0
    else:
        labels[24:100] = (labels[24:100] + 1) % 10
    (tmp_path / "report.html").write_text("as it was")
    with pytest.raises(ValueError, match="the data are not those that the report was begun with"):
        make_report(network, (images, labels), tmp_path, **FAST)
    assert (tmp_path / "report.html").read_text() == "as it was"
    make_report(network, [(images, labels)], tmp_path / "new", **FAST)  # and a new folder has them


@pytest.fixture
def stored_at_once(monkeypatch):
    """A report is stored after every batch, and not only when some seconds have passed."""
    monkeypatch.setattr("hfclib.reporting.counting.STORED_EVERY", -1)


def test_the_mean_colour_of_a_stopped_report_is_of_the_data_that_are_counted(network, tmp_path, stored_at_once):
    images, labels = torch.rand(330, 3, 8, 8), torch.arange(330) % 10

    def stopping(function, items):
        yield from itertools.islice(map(function, items), 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_report(network, (images, labels), tmp_path, engine=stopping, **FAST)
    images[300:] = 0  # of which none was counted
    with pytest.raises(ValueError, match="not those that the report was begun with"):
        make_report(network, (images, labels), tmp_path, **FAST)


def test_the_gate_does_not_pass_on_pictures_that_have_changed_since(hfc, pictures, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 2))\n"
    )
    words = ["report", "mine:build", "--data", pictures, "--size", 16, "--images", 2, "--grid", 3, "--steps", 1]
    assert hfc(*words).exit_code == 0
    last = named_data(str(pictures), sizes=(16, 16)).files[-1]
    Image.new("RGB", (90, 70)).save(last)
    result = hfc(*words)
    assert result.exit_code == 2
    assert "the data are not those that the report was begun with" in result.output


def stop_at(patch, name):
    """Ctrl-C when this part is measured."""
    measure = parts.ReportPart.measure

    def stopping(part, subject):
        if part.name == name:
            raise KeyboardInterrupt
        return measure(part, subject)

    patch.setattr(parts.ReportPart, "measure", stopping)


def test_a_stopped_report_goes_on_with_the_missing_parts(network, data, tmp_path, monkeypatch):
    whole = make_report(network, data, tmp_path / "whole", **FAST)

    with monkeypatch.context() as patch:
        stop_at(patch, "noise")
        with pytest.raises(KeyboardInterrupt):
            make_report(network, data, tmp_path / "stopped", **FAST)
    half = json.loads((tmp_path / "stopped" / "report.json").read_text())
    assert list(half["parts"]) == ["accuracy", "classes", "heat_map"]
    with pytest.raises(ValueError, match="not a finished report"):
        read_report(tmp_path / "stopped" / "report.json")
    with monkeypatch.context() as patch:
        stop_at(patch, "heat_map")  # it is stored
        made = make_report(network, data, tmp_path / "stopped", **FAST)
    assert made.content == whole.content
    for options, images in (({**FAST, "grid": 5}, data[0]), (FAST, 1 - data[0]), ({**FAST, "images": 20}, data[0])):
        with pytest.raises(ValueError, match=r"has a report of another (settings|first_images_sha256).*choose another"):
            make_report(network, (images, data[1]), tmp_path / "stopped", **options)
    with pytest.raises(ValueError, match=r"first_images_sha256.* \(shuffled data are others each time\)"):
        make_report(network, tuple(part.flip(0) for part in data), tmp_path / "stopped", **FAST)


def test_a_report_goes_on_within_the_accuracy(network, tmp_path, stored_at_once):
    images, labels = torch.rand(330, 3, 8, 8), torch.arange(330) % 10
    whole = make_report(network, (images, labels), tmp_path / "whole", **FAST)
    counted = []

    def stopping(function, items):
        yield from itertools.islice(map(function, items), 2)
        raise KeyboardInterrupt

    def watching(function, items):
        return (counted.append(item) or function(item) for item in items)

    with pytest.raises(KeyboardInterrupt):
        make_report(network, (images, labels), tmp_path / "report", engine=stopping, **FAST)
    changed = images.clone()
    changed[150] = 0
    with pytest.raises(ValueError, match="not those that the report was begun with"):
        make_report(network, (changed, labels), tmp_path / "report", **FAST)
    made = make_report(network, (images, labels), tmp_path / "report", engine=watching, **FAST)
    assert made.content == whole.content
    assert [len(batch[1]) for batch in counted[:2]] == [100, 30]
    assert len(counted) == 2 + len(made.table("heat_map"))


@pytest.mark.slow
def test_two_workers_of_ray_of_which_one_is_killed_count_the_same(network, data, tmp_path):
    pytest.importorskip("ray")
    driver, marker = os.getpid(), tmp_path / "killed"

    def dying(images):
        if os.getpid() != driver and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return network(images).detach()

    data = [(part, classes) for part, classes in zip(data[0].split(30), data[1].split(30), strict=True)] * 4
    alone = make_report(dying, data, tmp_path / "alone", **FAST)
    with ray_map(workers=2) as engine:
        made = make_report(dying, data, tmp_path / "ray", engine=engine, **FAST)
    assert marker.exists()
    assert made.content == alone.content


def test_what_a_report_refuses(network, data, tmp_path):
    images, labels = data
    sizes, told = [data, (images[:, :, :4], labels)], r"expected images of one size, got \(3, 8, 8\) and \(3, 4, 8\)"
    for given, options, message in [
        (iter([data]), {}, "can be read more than once"),
        (sizes, {"images": 200}, told),
        (sizes, {"images": 20}, told),
        ((images, labels[:, None]), {}, r"got labels \(120, 1\)"),
        ((images * 255, labels), {}, r"expected images in \[0, 1\]"),
        ((images[:1], labels[:1]), {}, "at least two images, got 1"),
        ("folder", {}, r"got the name 'folder': hfclib.reporting.named.named_data\(folder"),
        ((images[:, :, :4], labels), {}, r"the model fails on images \(2, 3, 4, 8\), torch.float32: mat1 and mat2"),
        (data, {"limits": ["hfc@8 > .4"]}, r"a limit at a radius of \[2, 3\], got 8"),
        (data, {"limits": ["hfc@1 > .4"], "radii": [2.0, 2.5]}, r"a limit at a radius of \[2, 2.5\], got 1"),
        (data, {"limits": ["hfc > .4"]}, "expected a limit such as hfc@8 > .4"),
        (data, {"colour": [0.5]}, r"expected colour, one number per channel \(3\), got 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_report(network, given, tmp_path / "refused", **{**FAST, **options})
    for model, given, message in [
        ("resnet50", data, "expected a model, a module or a function from images to logits, got 'resnet50'"),
        (network, None, "or batches of them, got NoneType alone"),
        (network, images, "or batches of them, got Tensor alone"),
    ]:
        with pytest.raises(TypeError, match=message):
            make_report(model, given, tmp_path / "refused", **FAST)
    with pytest.warns(UserWarning, match="seems to return probabilities"):
        make_report(nn.Sequential(network, nn.Softmax(dim=1)), data, tmp_path / "softmax", **FAST)


def test_batches_of_other_sizes_are_refused(tmp_path):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    data = [(torch.rand(30, 3, side, side), torch.arange(30) % 2) for side in (8, 9)]
    with pytest.raises(ValueError, match=r"expected images of one size, got \(3, 8, 8\) and \(3, 9, 9\)"):
        make_report(network, data, tmp_path, **FAST)


def test_a_callable_that_returns_numpy_is_measured(network, data, tmp_path):
    weight = network[1].weight.detach().numpy().T

    def session(images):  # as ONNX Runtime's run does
        return [images.numpy().reshape(len(images), -1) @ weight]

    made = make_report(session, data, tmp_path, **FAST)
    assert made.value("test") == hfclib.accuracy(network, *data) > 0.5
    assert hfclib.accuracy(hfclib.Classifier(session), *data) == made.value("test")


def test_a_network_that_guesses_is_told_before_the_work(network, data, tmp_path, caplog):
    make_report(network, data, tmp_path / "trained", **FAST)
    assert "guessing" not in caplog.text
    make_report(network, (data[0], data[1].roll(1)), tmp_path / "guesses", **FAST)
    assert re.search(r"\d+ of the first 24 images are right, indistinguishable from chance", caplog.text)


@pytest.mark.drawn
@pytest.mark.parametrize("correct", [0, 7])
def test_of_a_network_at_chance_the_page_claims_nothing(network, data, tmp_path, correct):
    predicted = network(data[0][:40]).argmax(dim=1)
    labels = torch.where(torch.arange(40) < correct, predicted, (predicted + 1) % 10)
    made = make_report(network, (data[0][:40], labels), tmp_path, **FAST)
    most = labels.bincount().max().item() / 40
    p = binomtest(correct, 40, max(most, 0.1), alternative="greater").pvalue
    said = f"not better than chance on whole images (one-sided binomial test, p = {p:.2g}): nothing follows"
    assert said in made.content["summary"]
    for finding in ("harms most", "reads more", "reads about", "perturbation", "follows the phases"):
        assert finding not in made.content["summary"]
    page = (tmp_path / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == ["Accuracy by band"]
    (text,) = [text.get_text() for text in card(made).texts if "chance" in text.get_text()]
    assert " ".join(text.split()).startswith("The network is not better than chance")


def test_of_a_network_that_is_always_right_the_summary_claims_something(network, data, tmp_path):
    made = make_report(network, (data[0][:40], network(data[0][:40]).argmax(dim=1)), tmp_path, **FAST)
    assert "harms most" in made.content["summary"]
    assert "not better than chance" not in made.content["summary"]


@pytest.mark.drawn
def test_the_page_says_which_mean_colour_it_is(network, data, tmp_path):
    make_report(network, data, tmp_path / "found", **FAST)
    shown = ", ".join(f"{value:.3f}" for value in data[0].mean(dim=(0, 2, 3)).tolist())
    assert f"The mean colour ({shown}) is that of all 120 images." in (tmp_path / "found" / "report.html").read_text()
    make_report(network, data, tmp_path / "given", colour=[0.5, 0.25, 0.5], **FAST)
    page = (tmp_path / "given" / "report.html").read_text()
    assert "The mean colour (0.500, 0.250, 0.500) was given." in page
    with pytest.raises(ValueError, match="a report of another settings"):  # and not the one with the colour given
        make_report(network, data, tmp_path / "given", **FAST)


@pytest.mark.drawn
def test_other_networks_are_drawn_behind(network, data, tmp_path):
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    others = [make_report(other, data, tmp_path / "second", name="second", **FAST)]
    content = json.loads(json.dumps(others[0].content))
    content["key"]["settings"] |= {"name": "third", "norm": 2}
    others.append(replace(others[0], content=content))
    alone = make_report(network, data, tmp_path / "report", **FAST)
    assert "second" not in (tmp_path / "report" / "report.html").read_text()
    files = [tmp_path / "second" / "report.json", others[1], others[1]]
    made = make_report(network, data, tmp_path / "report", compare=files, **FAST)
    assert made.content == alone.content  # measured once
    drawn = (tmp_path / "report" / "report.html").read_text()
    # In the figures of the bands, of the noise, of the energy and of the phase; another norm is another noise.
    assert [drawn.count(name) for name in ("LFC, second<", "HFC, second<", ">second<", ">third<")] == [1, 1, 3, 1]
    assert drawn.count("HFC, third (3)<") == 1
    table, behind = alone.table(), {"second": others[0].table()}
    line, *_ = next(one for one in hfclib.plot(table, behind).axes[0].containers if one.get_label() == "HFC, second")
    assert line.get_ydata() == pytest.approx([others[0].value("hfc", radius) for radius in (2, 3)])
    assert line.get_zorder() < 2
    (tmp_path / "old.json").write_text(json.dumps({**others[0].content, "schema": 2}))
    (tmp_path / "cut.json").write_text(json.dumps(others[0].content)[:-9])
    for compared, message in [
        (tmp_path / "old.json", "old.json is not a finished report .schema 2, expected a finished report of schema 3"),
        (tmp_path / "cut.json", "cut.json is not a finished report"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_report(network, data, tmp_path / "none", compare=[compared], **FAST)
        assert not (tmp_path / "none").exists()


@pytest.mark.drawn
def test_a_function_without_a_gradient(network, data, tmp_path):
    made = make_report(lambda images: network(images).detach(), data, tmp_path / "report", **FAST)
    assert made.content["parts"]["energy"] == []
    assert made.value("test") == pytest.approx(hfclib.accuracy(network, *data), abs=1e-7)
    assert made.value("lfc", 2) < 1
    fewer = data[0][:90], data[1][:90]
    with pytest.raises(ValueError, match="a report of another settings"):
        make_report(lambda images: network(images).detach(), fewer, tmp_path / "report", **FAST)


def test_rules(network, data, tmp_path):
    made = make_report(network, data, tmp_path / "report", **FAST)
    value = made.value("hfc", 3)
    for text, fails in [
        (f"hfc@3 > {value - 0.01:.3f}", True),
        (f"hfc @ 3>{value + 0.01:.3f}", False),
        (f"hfc@3<{value + 0.01:.3f}", True),
        ("lfc@2 > 1", False),
        ("test < .1", False),
    ]:
        assert Limit.parse(text).fails(made) is fails, text
    assert Limit.parse("lfc@2.5<.5") == Limit("lfc", 2.5, "<", 0.5)
    assert Limit.parse("hfc@4 > 41.3 %") == Limit.parse("hfc@4 > 41.3%") == Limit("hfc", 4, ">", 0.413)
    for never in ("hfc@4 > 40", "test < 1.01", "test < 101 %"):
        with pytest.raises(ValueError, match=f"a limit of at most 1, or in percent such as 40 %, got '{never}'"):
            Limit.parse(never)
    other = replace(made, content=json.loads(json.dumps(made.content)))
    other.content["parts"]["accuracy"][0]["accuracy"] += 0.25
    both = hfclib.reporting.compare(made, other)
    assert both["difference"].tolist() == pytest.approx([0.25] + [0] * (len(both) - 1))
    with pytest.raises(ValueError, match="no hfc at radius 1"):
        made.value("hfc", 1)
    with pytest.raises(ValueError, match="no hfc at radius None"):
        made.value("hfc")
    mixed = make_report(network, data, tmp_path / "mixed", **FAST | {"radii": [1, 2.5]})
    assert Limit.parse("lfc@1 < .001").fails(mixed) is (mixed.value("lfc", 1) < 0.001)
    assert mixed.table()["radius"].unique().tolist() == [0, 1, 2.5]
    one_bin = hfclib.band_accuracy(network, *data, 1, colour=mixed.content["key"]["settings"]["colour"])["accuracy"]
    assert mixed.value("hfc", 1.0) == pytest.approx(one_bin[1].item(), abs=1e-7)


# ---- names and commands


@pytest.fixture
def pictures(tmp_path):
    """An ImageFolder of 20 made images of different sizes in two classes."""
    generator = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (70 + number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def ten_classes(monkeypatch):
    """Networks by name have 10 classes in place of 1,000, so that accuracies are not all zero."""
    monkeypatch.setattr(torchvision.models, "get_model", partial(torchvision.models.get_model, num_classes=10))
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, num_classes=10))


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:mobilenet_v3_small",
        pytest.param("timm:vit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_networks_of_other_packages_on_a_folder_at_224_pixels(hfc, ten_classes, tmp_path, name):
    torch.manual_seed(0)
    spec = named_model(name)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    resize = v2.Compose(
        [v2.ToImage(), v2.Resize(spec.sizes[0]), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)]
    )

    def predictions(batch):
        with torch.no_grad():
            return spec.model.eval()((batch - mean) / std).argmax(dim=1)

    generator, images = np.random.default_rng(0), []
    for number in range(16):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((240, 230 + number))
        images.append(resize(coarse))
        label = number if number < 10 else int(predictions(images[-1][None]))
        (tmp_path / "pictures" / str(label)).mkdir(parents=True, exist_ok=True)
        coarse.save(tmp_path / "pictures" / str(label) / f"{number}.png")
    images = torch.stack(images)
    labels = torch.cat([torch.arange(10), predictions(images[10:])])
    small = ["--images", 4, "--grid", 3, "--steps", 1, "--radii", "28", "--out", "made"]
    words = ["report", name, "--data", tmp_path / "pictures", *small]
    result = hfc(*words, "--fail-if", "test > 1")
    assert result.exit_code == 0, result.output
    made = read_report(tmp_path / "made" / "report.json")
    settings = made.content["key"]["settings"]
    assert (settings["size"], settings["classes"], settings["known_images"]) == ([3, 224, 224], 10, 16)
    low, high = hfclib.split(images, 28)  # a quarter of Nyquist
    colour = torch.tensor(settings["colour"]).view(3, 1, 1)
    for band, radius, fed in (("test", None, images), ("lfc", 28, low), ("hfc", 28, high + colour)):
        share = (predictions(fed) == labels).double().mean().item()
        assert made.value(band, radius) == pytest.approx(share, abs=1e-7)
    assert 6 / 16 <= made.value("test") < 1
    assert all(0 < row["share"] < 1 for row in made.content["parts"]["energy"])
    network = hfclib.Classifier(spec.model, spec.mean, spec.std)
    data = named_data(str(tmp_path / "pictures"), sizes=spec.sizes).batches
    table = hfclib.band_accuracy(network, data, radii=28, feed="mean", colour=settings["colour"])
    assert table["accuracy"].tolist() == pytest.approx([made.value("lfc", 28), made.value("hfc", 28)])
    assert made.table()["top5"].notna().all()
    again = hfc(*words, "--fail-if", "test < 1")  # stored already, so that only the exit status is new
    assert again.exit_code == 1, again.output
    assert "accuracy is stored" in again.output
    (tmp_path / "old.json").write_text('{"schema": 1}')
    refused = hfc(*words, "--compare", "made/report.json", "--compare", "old.json")
    assert refused.exit_code == 2
    assert "old.json is not a finished report" in refused.output
    assert "accuracy is stored" not in refused.output
    table = hfc("compare", "made/report.json", "made/report.json")
    assert table.exit_code == 0
    assert "difference" in table.output


def test_a_function_of_a_package_and_ctrl_c(hfc, pictures, tmp_path, monkeypatch):
    code = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 2))\n"
    (tmp_path / "mine.py").write_text(code)
    words = ["report", "mine:build", "--data", pictures, "--size", 16, "--images", 4, "--grid", 3, "--steps", 1]

    with monkeypatch.context() as patch:
        stop_at(patch, "heat_map")
        result = hfc(*words)
    assert result.exit_code == 130, result.output
    assert "stopped; the same command goes on with the missing parts" in result.output
    assert (tmp_path / "report-mine-build" / "accuracy.csv").exists()
    torch.rand(1)
    result = hfc(*words)  # its weights are random, and drawn alike each time
    assert result.exit_code == 0, result.output
    assert "accuracy is stored" in result.output
    assert not (tmp_path / "report-mine-build" / "report.lock").exists()


def test_of_two_reports_in_one_folder_the_second_waits(network, data, tmp_path, caplog):
    def at_work(*inputs):
        if not second.ident:
            second.start()
            second.join(timeout=0.5)
            assert second.is_alive()
        return map(*inputs)

    second = threading.Thread(target=make_report, args=(network, data, tmp_path), kwargs=FAST)
    make_report(network, data, tmp_path, engine=at_work, **FAST)
    second.join()
    assert f"another process is at {tmp_path / 'report'}: waiting" in caplog.text
    assert caplog.text.count("is stored") == 7


@pytest.mark.drawn
def test_broken_images_are_refused_or_skipped_and_counted(hfc, pictures, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 2))\n"
    )
    whole = (pictures / "b" / "1.png").read_bytes()
    (pictures / "b" / "1.png").write_bytes(whole[: len(whole) // 2])  # cut off
    flipped = bytearray((pictures / "a" / "2.png").read_bytes())
    flipped[len(flipped) // 2] ^= 255  # a chunk whose sum is wrong
    (pictures / "a" / "2.png").write_bytes(flipped)
    words = ["report", "mine:build", "--data", pictures, "--size", 16, "--images", 4, "--grid", 3, "--steps", 1]
    refused = hfc(*words)
    assert refused.exit_code == 2
    assert re.search(r"[12].png can't be read as an image .* and 1 more: repair .* pass --skip-broken", refused.output)
    assert not (tmp_path / "report-mine-build").exists()
    result = hfc(*words, "--skip-broken")
    assert result.exit_code == 0, result.output
    for name in ("1.png", "2.png"):
        assert re.search(f"skipped: .*{name} can't be read", result.output)
    stored = read_report(tmp_path / "report-mine-build" / "report.json").content
    assert stored["key"]["settings"]["skipped_images"] == 2
    assert stored["parts"]["accuracy"][0]["images"] == 18
    assert "skipped_images" in (tmp_path / "report-mine-build" / "report.html").read_text()
    for _ in range(2):  # the second finds the report of the first
        result = hfc(*words[:6], "--skip-broken", "--quick")
        assert result.exit_code == 0, result.output


def test_unknown_models_and_data(hfc, pictures, monkeypatch):
    (pictures / "a" / "broken.png").write_bytes(b"no image")
    classes = pictures.parent / "classes.csv"
    classes.write_text("a,0\nb,1\n")
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    for words, message in [
        (["laptop-vanila-0", "--data", "cifar10-test"], "expected one stored run.*near: .*laptop-vanilla-0"),
        (["laptop-batchnorm", "--data", "cifar10-test"], "near: .*laptop-batchnorm-0.*laptop-batchnorm-1"),
        (["torchvision:resnet19", "--data", "cifar10-test"], "expected a model of torchvision.*resnet18"),
        (["timm:vit_tiny", "--data", "cifar10-test"], "pip install timm"),
        (["torchvision:resnet18", "--data", "nowhere", "--weights", "V9"], "a folder of images, got 'nowhere'"),
        (["torchvision:resnet18", "--data", "cifar10-test", "--weights", "V9"], "one of IMAGENET1K_V1, .*got 'V9'"),
        (
            ["laptop-vanilla-0", "--data", "cifar10-test", "--fail-if", "hfc@3 > 0", "--radii", "4"],
            "radius of .4., got 3",
        ),
        (["laptop-vanilla-0", "--data", "cifar10-test", "--compare", classes], "classes.csv is not a finished report"),
        (["laptop-mnist-vanilla-0", "--data", "cifar10-test"], r"the model fails on images \(2, 3, 32, 32\)"),
        (["nowhere:build", "--data", "cifar10-test"], "expected package.module:build"),
        (["laptop-vanilla-0", "--data", "cifar10-test", "--address", "auto"], "an address with ray only"),
        (["laptop-vanilla-0", "--data", "cifar10-test", "--size", "32"], "--size with a folder of images only"),
        (
            ["laptop-vanilla-0", "--data", "cifar10-test", "--out", "made", "--summary", "made/report.json"],
            "another file than those of the report, got made/report.json",
        ),
        (
            ["laptop-vanilla-0", "--data", "cifar10-test", "--junit", "a.json", "--summary", "./a.json"],
            "two files for --junit and --summary",
        ),
        (["laptop-vanilla-0", "--data", pictures, "--out", pictures / "made"], "a report outside the images in"),
        (["laptop-vanilla-0", "--data", "nowhere"], "expected cifar10-test or a folder of images, got 'nowhere'"),
        (["laptop-vanilla-0", "--data", pictures], "expected 10 folders in .*, one per logit, got 2: --class-map FILE"),
        (["laptop-vanilla-0", "--data", pictures, "--class-map", classes], "broken.png can't be read as an image"),
        (["laptop-vanilla-0", "--data", pictures, "--radii", "4;8"], "expected numbers such as 4,8"),
        (["laptop-vanilla-0", "--data", pictures, "--radii", "4,4"], "expected different radii"),  # and not broken.png
        (["laptop-vanilla-0", "--data", pictures, "--radii", "0.25"], "0 or at least 1, got 0.25: hfclib.nyquist"),
        (["laptop-vanilla-0", "--data", pictures, "--mean", "0.5,0.5,0.5"], "expected --mean and --std"),
    ]:
        result = hfc("report", *words)
        assert result.exit_code == 2, result.output
        assert re.search(message, result.output), result.output
        assert len(result.output.splitlines()) == 1


def test_names_of_other_packages_are_read_from_their_files():
    assert package_models("torchvision") == sorted(torchvision.models.list_models())
    assert set(package_models("timm")) > set(timm.list_models())  # and former names
    for known in ("timm:resnet50.a1_in1k", "timm:tv_resnet50", "timm:hf-hub:someone/network", "json:loads"):
        check_model(known)
    with pytest.raises(ValueError, match="expected a model of timm, got 'resnet5O'; near: resnet50"):
        check_model("timm:resnet5O")


def test_without_a_checkout_an_unknown_run_says_where_published_ones_are(published_folder):
    with pytest.raises(ValueError, match="near: none; published runs come with a checkout of the repository"):
        check_model("laptop-vanilla-0")


def test_a_limit_that_is_met_has_status_1_and_any_error_2(hfc, pictures, tmp_path):
    code = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 2))\n"
    (tmp_path / "mine.py").write_text(code)
    words = ["report", "mine:build", "--data", pictures, "--size", 16, "--images", 2, "--grid", 3, "--steps", 1]
    assert hfc(*words, "--fail-if", "test > 0%").exit_code == 1
    assert hfc(*words, "--fail-if", "test > 100 %").exit_code == 0
    assert hfc(*words, "--fail-if", "test > 40").exit_code == 2
    (tmp_path / "broken.py").write_text("def build():\n    return lambda images: {}['unexpected']\n")
    result = hfc("report", "broken:build", *words[2:])
    assert result.exit_code == 2
    assert "KeyError: 'unexpected'" in result.output
    assert hfc("compare", "mine.py", "mine.py").exit_code == 2


def solid_pictures(root, names):
    """One folder per name, with two pictures of one grey; the networks of `brightness` know the place of each."""
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (16, 16), (10 * place + number,) * 3).save(root / name / f"{number}.png")


def brightness(classes):
    """A network that is right for class p if the mean of an image is nearest to 10 p / 255."""
    return lambda images: -(images.mean(dim=(1, 2, 3))[:, None] * 25.5 - torch.arange(classes)).abs()


def test_folders_of_numbers_are_sorted_as_numbers(tmp_path, caplog):
    solid_pictures(tmp_path / "data", [str(number) for number in range(1, 13)])
    given = named_data(str(tmp_path / "data"), network=hfclib.Classifier(brightness(12)))
    assert hfclib.accuracy(hfclib.Classifier(brightness(12)), given.batches) == 1
    assert "12 classes, in the order of the logits, sorted as numbers: 1, 2, 3" in caplog.text
    (tmp_path / "data" / "01").mkdir()
    with pytest.raises(ValueError, match=r"folders of different numbers in .*, got 01, 1, 2"):
        named_data(str(tmp_path / "data"))


def test_folders_that_are_not_the_classes_are_refused_before_they_are_opened(tmp_path):
    solid_pictures(tmp_path / "data" / "val", ["n01", "n02", "n03"])
    for file in sorted((tmp_path / "data").rglob("*.png"))[1:]:  # one shows how many logits the network has
        file.write_bytes(b"what can't be opened")
    (tmp_path / "data" / "train" / "n01").mkdir(parents=True)
    (tmp_path / "wrong.json").write_text('{"n01": 0, "n02": "one"}')
    (tmp_path / "less.csv").write_text("folder,index\nn01,0\n")
    (tmp_path / "high.csv").write_text("n01,0\nn02,1\nn03,10\n")
    (tmp_path / "twice.csv").write_text("n01,0\nn02,1\nn03,2\nn01,3\n")
    (tmp_path / "twice.json").write_text('{"n01": 0, "n02": 1, "n03": 2, "n01": 3}')
    network = hfclib.Classifier(brightness(10))
    for folder, file, message in [
        ("data", None, r"got parts of a data set, train, val: pass one of them, such as .*val"),
        ("data/val", None, "expected 10 folders in .*val, one per logit, got 3: --class-map FILE"),
        ("data/val", "wrong.json", "expected a class map, JSON or CSV from folder to class index, in .*wrong.json"),
        *(("data/val", f"twice.{kind}", f"twice.{kind}: a folder stands there twice") for kind in ("csv", "json")),
        ("data/val", "less.csv", "expected each of the 3 folders in .*less.csv, it lacks n02, n03"),
        (
            "data/val",
            "high.csv",
            "expected class indices below 10, the number of logits, in .*high.csv, got 10 for n03",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            named_data(str(tmp_path / folder), network=network, class_map=file and tmp_path / file)
    with pytest.raises(ValueError, match="class map with a folder of images only"):
        named_data("cifar10-test", class_map=tmp_path / "high.csv")


@pytest.mark.parametrize("file", ["classes.json", "classes.csv"])
def test_a_class_map_gives_some_classes_of_a_network_their_logits(tmp_path, file, caplog):
    solid_pictures(tmp_path / "data", "abc")
    classes = {"c": 2, "a": 0, "b": 1, "z": 19}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    lines = ["folder,class", *(f"{name}, {index}" for name, index in classes.items())]
    (tmp_path / "classes.csv").write_text("\n".join(lines))
    network = hfclib.Classifier(brightness(20))
    given = named_data(str(tmp_path / "data"), network=network, class_map=tmp_path / file)
    assert hfclib.accuracy(network, given.batches) == 1
    assert "3 classes, by the class map: a (0), b (1), c (2)" in caplog.text


def test_reports_of_other_data_are_not_compared(network, data, tmp_path, hfc):
    images, labels = data
    first = make_report(network, data, tmp_path / "first", **FAST)
    changed = images.clone()
    changed[60] = 0  # not among the first
    second = make_report(network, (changed, labels), tmp_path / "second", **FAST)
    message = "expected reports of the same images and labels, that of a network is of others"
    with pytest.raises(ValueError, match=message):
        hfclib.reporting.compare(first, second)
    result = hfc("compare", "first/report.json", "second/report.json")
    assert result.exit_code == 2
    assert message in result.output
    with pytest.raises(ValueError, match=message):
        make_report(network, data, tmp_path / "third", compare=[second], **FAST)
    assert not (tmp_path / "third").exists()


def test_reports_with_other_mean_colours_are_not_compared(network, data, tmp_path):
    first, second = (make_report(network, data, tmp_path / str(c), colour=[c] * 3, **FAST) for c in (0.2, 0.5))
    with pytest.raises(ValueError, match="expected reports that add the same mean colour, got"):
        hfclib.reporting.compare(first, second)
    with pytest.raises(ValueError, match="expected reports that add the same mean colour, got"):
        make_report(network, data, tmp_path / "third", compare=first, **FAST)  # one needs no list
    first.content["key"]["settings"]["colour"] = [0.5]  # of a network that takes grey
    with pytest.raises(ValueError, match="expected reports that add the same mean colour, got"):
        hfclib.reporting.compare(first, second)


def test_threads_count_as_one_does(network, tmp_path):
    images, labels = torch.rand(530, 3, 8, 8), torch.arange(530) % 10
    reports = []
    with ThreadPoolExecutor(4) as pool:
        for engine in (map, pool.map):
            folder = tmp_path / str(len(reports))
            reports.append(make_report(network, (images, labels), folder, engine=engine, parts=["accuracy"], **FAST))
    assert reports[0].content["parts"] == reports[1].content["parts"]


def test_data_in_the_order_of_classes_are_told(network, data, tmp_path, caplog):
    images, labels = data
    told = "the first 24 images are in the order of their classes"
    make_report(network, data, tmp_path / "mixed", parts=["accuracy"], **FAST)
    assert told not in caplog.text
    order = labels.argsort()
    make_report(network, (images[order], labels[order]), tmp_path / "sorted", parts=["accuracy"], **FAST)
    assert told in caplog.text


def test_reports_of_the_same_pictures_in_other_sizes_are_compared(pictures, tmp_path):
    digests, reports = [], []
    for size, seed in ((16, 0), (24, 1)):
        given = named_data(str(pictures), sizes=(size, size), seed=seed)
        network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2))
        digests.append(given.pictures_sha256)
        reports.append(make_report(network, given, tmp_path / str(size), compare=reports[-1:], **FAST))
    assert digests[0] == digests[1]
    assert len(hfclib.reporting.compare(*reports)) == 7
    fewer = named_data(str(pictures), sizes=(16, 16), limit=19).pictures_sha256
    (pictures / "a" / "0.png").rename(pictures / "b" / "0.png")
    assert len({digests[0], fewer, named_data(str(pictures), sizes=(16, 16)).pictures_sha256}) == 3


def test_the_energy_is_measured_of_the_network_as_it_is_and_of_images_that_move(data):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10)).train()
    labels = network.eval()(data[0]).argmax(dim=1)
    before = copy.deepcopy(network.train().state_dict())
    rows = parts.attack_energy(network, data[0], labels, [2], eps=0.1, steps=1)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    dark = data[0].clone()
    dark[:20] = 0
    dead = nn.Sequential(nn.Threshold(0.01, 0), nn.Flatten(), nn.Linear(192, 10, bias=False))  # no gradient at 0
    (row,) = parts.attack_energy(dead, dark, labels, [2], eps=0.1, steps=1)
    assert rows[0]["images"] == 120
    assert row["images"] == 100


@pytest.mark.drawn
def test_one_image_that_moves_has_no_interval_and_the_report_is_valid_json(data, tmp_path, monkeypatch):
    monkeypatch.setattr("hfclib.reporting.answer.is_guessing", lambda content: False)  # so that the page has all parts
    images = torch.zeros_like(data[0])
    images[7] = data[0][7]
    dead = nn.Sequential(nn.Threshold(0.01, 0), nn.Flatten(), nn.Linear(192, 10, bias=False))  # no gradient at 0
    # Of a black image all logits are alike, and class 0 is predicted. The first 24 are wrong already, for PGD.
    labels = (torch.arange(120) < 24).long()
    labels[7] = dead(images[7:8]).argmax()
    made = make_report(dead, (images, labels), tmp_path, **FAST)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert content == made.content
    for row in content["parts"]["energy"]:
        assert (row["images"], row["low"], row["high"]) == (1, None, None)
        assert 0 < row["share"] < 1
    assert (tmp_path / "report.html").read_text().count("<td>not measured</td>") == 2 * len(FAST["radii"])


def test_a_report_of_another_network_of_equal_weights_is_refused(network, data, tmp_path):
    for radius in (1, 3):
        filtered = nn.Sequential(hfclib.LowPass(radius), network)
        if radius == 1:
            made = hfclib.make_report(filtered, data, tmp_path, **FAST)
    assert made.value("test") != hfclib.accuracy(filtered, *data)
    with pytest.raises(ValueError, match="first_predictions_sha256"):
        hfclib.make_report(filtered, data, tmp_path, **FAST)


def test_a_report_of_another_function_is_refused(network, data, tmp_path):
    """Two functions have no weights of their own; those of the modules behind them differ, and no prediction does."""
    hfclib.make_report(lambda images: network(images), data, tmp_path, **FAST)
    louder = copy.deepcopy(network)
    louder[1].weight.data.mul_(2)
    with pytest.raises(ValueError, match="weights_sha256"):
        hfclib.make_report(lambda images: louder(images), data, tmp_path, **FAST)


def test_loaders_that_leave_one_image(network, data, tmp_path):
    dataset = TensorDataset(*(tensor[:101] for tensor in data))
    made = hfclib.make_report(network, DataLoader(dataset, 20), tmp_path / "linear", **FAST)  # it has no statistics
    assert made.content["key"]["settings"]["known_images"] == 101
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))
    for number, batches in enumerate((DataLoader(dataset, 20), tuple(DataLoader(dataset, 1)))):
        made = hfclib.make_report(convolution, batches, tmp_path / f"convolution-{number}", **FAST)
        assert made.table().query("bn_stats == 'matched'")["images"].tolist() == [101] * 7


def test_a_folder_is_read_as_the_stored_network_expects(hfc, pictures):
    spec = named_model("laptop-mnist-vanilla-0")
    assert (spec.sizes, spec.mode) == ((28, 28), "L")
    batch, _ = next(iter(named_data(str(pictures), sizes=spec.sizes, mode=spec.mode).batches))
    assert batch.shape[1:] == (1, 28, 28)
    assert named_model("laptop-vanilla-0").sizes == (32, 32)


def test_images_of_no_known_size_are_taken_as_they_are_if_they_are_alike(pictures, tmp_path, caplog):
    with pytest.raises(ValueError, match="different sizes: pass --size"):
        named_data(str(pictures))
    named_data(str(pictures), sizes=(80, 64))
    assert "images of 70 pixels are enlarged to 80" in caplog.text
    for name in ("ants", "bees"):
        (tmp_path / "alike" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "alike" / name / "0.png")
    assert next(iter(named_data(str(tmp_path / "alike")).batches))[0].shape == (2, 3, 20, 30)


def test_images_of_timm_are_squashed_if_its_weights_ask_for_it(pictures, monkeypatch):
    model = timm.create_model("resnet10t")
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: model)
    for mode, resize in (("center", 200), ("squash", (200, 200))):
        model.pretrained_cfg = model.pretrained_cfg | {"crop_mode": mode, "crop_pct": 0.8, "input_size": (3, 160, 160)}
        assert named_model("timm:resnet10t").sizes == (resize, 160)
    assert next(iter(named_data(str(pictures), sizes=((50, 50), 50)).batches))[0].shape[1:] == (3, 50, 50)
    model.pretrained_cfg = model.pretrained_cfg | {"crop_mode": "border"}
    with pytest.raises(ValueError, match="centre cut out, got 'border'"):
        named_model("timm:resnet10t")


@pytest.mark.drawn
def test_a_quantised_network_is_reported_and_other_files_are_left_alone(data, tmp_path):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, that its quantisation moves to another package
        quantised = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})
        made = make_report(quantised, data, tmp_path / "made", **FAST)
    assert made.value("test") == pytest.approx(hfclib.accuracy(quantised, *data))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "accuracy.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"has accuracy.csv and no report: choose another folder"):
        make_report(plain, data, tmp_path / "mine", **FAST)
    assert (tmp_path / "mine" / "accuracy.csv").read_text() == "mine"


THIRD = """
import torch
from torch import nn

class Third(nn.Module):
    seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        return 9 * torch.eye(10)[3].expand(len(images), 10)
"""


def test_a_size_leaves_pictures_of_that_size_as_they_are(hfc, tmp_path):
    """They are seen by a network that is always for the class 3."""
    pixels = torch.randint(0, 256, (24, 24, 3), dtype=torch.uint8).numpy()
    (tmp_path / "one" / "class").mkdir(parents=True)
    (tmp_path / "one.json").write_text('{"class": 3, "another": 4}')
    for number in range(2):
        Image.fromarray(pixels).save(tmp_path / "one" / "class" / f"{number}.png")
    (tmp_path / "third.py").write_text(THIRD)
    words = ["--size", 24, "--class-map", tmp_path / "one.json", "--images", 2, "--grid", 3, "--parts", "noise"]
    result = hfc("report", "third:Third", "--data", tmp_path / "one", *words)
    assert result.exit_code == 0, result.output
    assert read_report(tmp_path / "report-third-Third" / "report.json").value("test") == 1
    expected = torch.from_numpy(pixels).permute(2, 0, 1).expand(2, -1, -1, -1) / 255
    seen = [images for images in sys.modules["third"].Third.seen if images.shape == expected.shape]
    assert any(torch.allclose(images, expected) for images in seen)


def test_a_classifier_has_its_own_mean_and_std(network, data, tmp_path):
    given = {"mean": [0.1, 0.2, 0.3], "std": np.full(3, 0.5)}
    with pytest.raises(ValueError, match="a Classifier, which has its own"):
        hfclib.BandAccuracy(hfclib.Classifier(network), 2, feeds="raw", **given)
    with pytest.raises(ValueError, match="a Classifier, which has its own"):
        make_report(hfclib.Classifier(network), data, tmp_path, **given, **FAST)
    options = FAST | {"seed": np.int64(1), "eps": np.float32(0.3), "colour": data[0].mean(dim=(0, 2, 3))}
    found = make_report(hfclib.Classifier(network, **given), data, tmp_path, **options)
    assert found.content["key"]["settings"]["mean"] == [0.1, 0.2, 0.3]
    assert found.content["key"]["settings"]["std"] == [0.5] * 3


class Recurrent(nn.Module):
    """A network that runs one convolution twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return self.conv(self.conv(images)).mean(dim=(2, 3))


class OutOfMemory(nn.Module):
    def forward(self, images):
        raise torch.OutOfMemoryError("out of memory")


def test_a_callable_of_numpy_and_a_network_without_matched_moments_are_reported(data, tmp_path):
    weight = np.random.default_rng(0).random((3 * 64, 10), np.float32)
    labels = data[1] % 3

    def outside(images):
        return torch.from_numpy(images.numpy().reshape(-1, 192) @ weight)

    with pytest.raises(RuntimeError, match="out of memory"):
        parts.attack_energy(OutOfMemory(), *data, [2], eps=0.1, steps=1)
    models = {"outside": outside, "recurrent": Recurrent()}
    reports = [make_report(model, (data[0], labels), tmp_path / name, **FAST) for name, model in models.items()]
    assert [bool(found.content["parts"]["energy"]) for found in reports] == [False, True]
    assert all(set(found.table()["bn_stats"]) == {"running"} for found in reports)


def test_16_bits_per_pixel_are_read_as_8_and_an_unknown_range_is_refused(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (2, 40, 40))
    for name in ("ants", "bees"):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(values):
            Image.fromarray(picture.astype(np.uint16)).save(tmp_path / name / f"{number}.png")
    ((images, _),) = named_data(str(tmp_path), sizes=(40, 40)).batches
    assert images.mean().item() == pytest.approx(values.mean() / 65535, abs=1e-3)
    Image.fromarray(values[0].astype(np.float32)).save(tmp_path / "ants" / "float.tiff")
    with pytest.raises(ValueError, match="no known range"):
        named_data(str(tmp_path), sizes=(40, 40))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_are_refused_before_the_work(data, tmp_path, value):
    def lost(images):
        return torch.full((len(images), 10), value)

    with pytest.raises(ValueError, match="expected logits below infinity from the model"):
        make_report(lost, data, tmp_path / "report", **FAST)
    assert not (tmp_path / "report").exists()
    with pytest.raises(ValueError, match="std, numbers above 0"):
        hfclib.Classifier(lost, [0.5] * 3, [0.2, 0.2, 0.0])


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"grid": 1}, "grid, a whole"), ({"steps": -1}, "steps, a whole"), ({"images": "all"}, "images, a whole")]
    + [({name: value}, f"{name}, finite") for name in ("norm", "eps") for value in (-1, float("nan"))]
    + [({"eps": "8/255"}, "eps, a number such as 8 / 255, got '8/255'")],
)
def test_settings_that_can_not_be_measured_are_refused_before_the_work(network, data, tmp_path, setting, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make_report(network, data, tmp_path / "report", **FAST | setting)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("radii", [[], 0, 9, -1, [2, 2], [2, 2.0]])
def test_radii_that_leave_no_two_parts_are_refused_before_the_work(network, data, tmp_path, radii):
    with pytest.raises(ValueError, match=r"radii above 0|different radii|finite radius"):
        make_report(network, data, tmp_path / "report", **FAST | {"radii": radii})
    assert not (tmp_path / "report").exists()


def test_a_damaged_report_is_named_and_a_missing_table_written_again(network, data, tmp_path):
    make_report(network, data, tmp_path, **FAST)
    (tmp_path / "noise.csv").unlink()
    make_report(network, data, tmp_path, **FAST)
    assert (tmp_path / "noise.csv").exists()
    file = tmp_path / "report.json"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"report.json is damaged .*: delete it"):
        make_report(network, data, tmp_path, **FAST)
    file.write_text("{}")  # another tool's
    with pytest.raises(ValueError, match=r"report.json is no report: choose another folder"):
        make_report(network, data, tmp_path, **FAST)


def test_hidden_folders_are_no_classes_and_other_files_are_named(pictures, caplog):
    whole = named_data(str(pictures), sizes=(16, 16))
    (pictures / ".thumbs").mkdir()
    Image.new("RGB", (16, 16)).save(pictures / ".thumbs" / "1.png")
    Image.new("RGB", (16, 16)).save(pictures / "b" / "moving.gif")
    (pictures / "a" / "notes.txt").write_text("mine")
    again = named_data(str(pictures), sizes=(16, 16))
    count, more = (sum(len(labels) for _, labels in one.batches) for one in (whole, again))
    assert more == count + 1
    assert "2 classes, in the order of the logits: a, b" in caplog.text
    assert "left out 1 files that are no pictures" in caplog.text


def test_weights_are_of_other_packages_and_a_function_gives_a_model():
    with pytest.raises(ValueError, match="weights with torchvision:NAME or timm:NAME only"):
        named_model("laptop-vanilla-0", "DEFAULT")
    for name, message in (("json:loads", "TypeError"), ("builtins:list", r"gave \[\]")):
        with pytest.raises(ValueError, match=message):
            named_model(name)
