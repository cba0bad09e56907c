"""What `hfc report` can be asked for: batches, devices, files of weights, parts, a quick answer, no labels."""

import json
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hfclib
from hfclib.batching import BATCH_SIZE
from hfclib.reporting import ReportSettings, parts, read_report
from hfclib.reporting.answer import nearest_radius
from hfclib.reporting.datasets import DatasetSpec
from hfclib.reporting.named import named_data, named_model
from hfclib.reporting.page import html
from hfclib.reporting.settings import LARGEST_BATCH, PART_NAMES

FAST = {"images": 24, "grid": 3, "steps": 1, "radii": [2, 3]}
BUILD = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear({inputs}, 2))\n"


class Watched(nn.Module):
    """A small network that notes the size of each batch."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return self.layers(images)

    def give_all_answers(self, images):
        """A network with one answer for nearly all images is not better than chance, even if it is always right."""
        self.layers[-1].bias.data -= self(images).mean(dim=0)


@pytest.fixture
def data():
    return torch.rand(130, 3, 8, 8), torch.arange(130) % 5


@pytest.fixture
def pictures(tmp_path):
    """A folder of 12 grey pictures in two classes, some dark and some bright."""
    generator = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "pictures" / ("dark", "bright")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 100, (16, 16), dtype=np.uint8) + np.uint8(150 * (number % 2))
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_the_largest_batch_is_that_of_the_statistics():
    assert LARGEST_BATCH == BATCH_SIZE
    assert [part for part in PART_NAMES if part != "accuracy"] == [part.name for part in parts.REPORT_PARTS]


def test_smaller_batches_change_no_number(data, tmp_path):
    network = Watched().double()  # so that no last bit decides
    whole = hfclib.make_report(network, data, tmp_path / "whole", **FAST)
    network.sizes.clear()
    made = hfclib.make_report(network, data, tmp_path / "small", batch_size=7, **FAST)
    assert made.content["parts"] == whole.content["parts"]
    by_batch = [size for size in network.sizes if size > 7]
    assert by_batch
    assert set(by_batch) == {100, 30, 24}  # matched moments, which are those of 100 images, by those of the first


def test_smaller_batches_change_no_answer_that_hangs_on_the_batch(data, tmp_path):
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(192, 5)).double()
    whole, made = (
        hfclib.make_report(network, data[0], tmp_path / str(size), batch_size=size, unlabelled=True, **FAST)
        for size in (100, 7)
    )
    assert made.content["parts"] == whole.content["parts"]


def test_no_image_is_attacked_alone_where_logits_depend_on_the_batch():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12, track_running_stats=False), nn.Linear(12, 5))
    (row,) = parts.attack_energy(network, torch.rand(101, 3, 2, 2), torch.arange(101) % 5, [1], eps=0.1, steps=1)
    assert row["images"] == 101


def test_data_with_labels_are_not_taken_for_data_without(data, tmp_path):
    with pytest.raises(ValueError, match="a DatasetSpec without labels, as of named_data"):
        hfclib.make_report(Watched(), DatasetSpec([data], count=130), tmp_path, unlabelled=True, **FAST)


def test_memory_of_an_attack_is_what_the_layers_keep(data):
    network, images = Watched(), data[0]
    kept = 4 * (3 * 64 + 4 * 36) / 1e6  # the image, and the output of ReLU, which the last layer is fed too
    size, megabytes = parts.attack_batch(network, images)
    assert size == 100
    assert megabytes == pytest.approx(100 * kept, rel=0.01)
    size, megabytes = parts.attack_batch(network, images, memory=25 * kept)
    assert size == 25
    assert megabytes == pytest.approx(25 * kept, rel=0.01)
    assert parts.attack_batch(network, images, memory=0)[0] == 1
    assert (
        parts.attack_batch(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()), images)[0] == 100
    )
    network.sizes.clear()
    options = {"eps": 0.1, "steps": 2, "batch_size": 25}
    rows = parts.attack_energy(network, *data, [2], **options)
    assert max(network.sizes) == 25
    (whole,) = parts.attack_energy(network, *data, [2], **options | {"batch_size": 100})
    assert rows[0]["share"] == pytest.approx(whole["share"], rel=1e-4)


def test_memory_is_said_at_the_start(data, tmp_path, caplog):
    caplog.set_level("INFO")
    hfclib.make_report(Watched(), data, tmp_path, **FAST)
    assert "PGD in batches of 100: about 1 MB for their gradients" in caplog.text
    assert caplog.text.index("PGD in batches") < caplog.text.index("1 of 7: accuracy")


@pytest.mark.drawn
def test_parts_can_be_chosen_and_added_later(data, tmp_path):
    network = Watched()
    network.give_all_answers(data[0])
    data = data[0], network(data[0]).argmax(dim=1)
    first = hfclib.make_report(network, data, tmp_path, parts=["noise"], **FAST)
    assert list(first.content["parts"]) == ["accuracy", "classes", "noise"]
    page = (tmp_path / "report.html").read_text()
    assert "Accuracy under noise" in page
    assert "Fourier heat map" not in page
    later = hfclib.make_report(network, data, tmp_path, parts=["noise", "phase"], **FAST)
    assert list(later.content["parts"]) == ["accuracy", "classes", "noise", "phase"]
    assert later.content["parts"]["noise"] == first.content["parts"]["noise"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ["noise", "nose"]}, r"expected parts, of accuracy, heat_map, .*, got nose"),
        ({"batch_size": 101}, "batch_size of at most 100, got 101"),
        ({"batch_size": 0}, "batch_size, a whole number of at least 1, got 0"),
        ({"limits": ["hfc@5 > .1"], "radii": [4]}, r"a limit at a radius of \[4\], got 5"),
        ({"radii": "4"}, "expected radii, numbers in DFT bins, got '4'"),
        ({"colour_": 1}, "colour_"),
    ],
)
def test_settings_are_refused_when_they_are_made(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ReportSettings(**options)


def test_a_file_of_weights_for_a_named_network(tmp_path):
    torch.manual_seed(0)
    trained = torchvision.models.get_model("squeezenet1_1", num_classes=3).eval()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in trained.state_dict().items()}}, tmp_path / "w.pt"
    )
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    image = torch.rand(1, 3, 64, 64)
    for file in ("w.pt", "w.safetensors"):
        spec = named_model("torchvision:squeezenet1_1", str(tmp_path / file))
        assert torch.equal(spec.model.eval()(image), trained(image))
        assert spec.sizes == (256, 224)
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "other.pt")
    torch.save(nn.Linear(3, 4), tmp_path / "pickled.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for file, message in [
        ("other.pt", r"expected the weights of that model in .*other.pt: it lacks .*; it has besides bias, weight"),
        ("pickled.pt", "expected a file of weights, of safetensors or of torch.save, got .*pickled.pt: "),
        ("text.pt", "expected a file of weights"),
        ("none.pt", "expected a file of weights, got .*none.pt, which is not there"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            named_model("torchvision:squeezenet1_1", str(tmp_path / file))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="weights with torchvision:NAME or timm:NAME only"):
        named_model("laptop-vanilla-0", str(tmp_path / "w.pt"))


@pytest.mark.drawn
def test_grey_pictures_for_a_network_of_one_channel(hfc, pictures, tmp_path):
    (tmp_path / "grey.py").write_text(BUILD.format(inputs=256))
    words = ["report", "grey:build", "--data", pictures, "--images", 4, "--grid", 3, "--steps", 1, "--parts", "noise"]
    result = hfc(*words)
    assert result.exit_code == 0, result.output
    assert "the network takes one channel: pictures are read in grey" in result.output
    assert read_report(tmp_path / "report-grey-build" / "report.json").content["key"]["settings"]["size"] == [1, 16, 16]
    (tmp_path / "neither.py").write_text(BUILD.format(inputs=512))
    result = hfc("report", "neither:build", "--data", pictures)
    assert result.exit_code == 2
    assert "the model fails on images (2, 3, 16, 16)" in result.output.splitlines()[-1]


def test_a_quick_answer_takes_as_many_images_as_fit_and_keeps_their_number(hfc, pictures, tmp_path, monkeypatch):
    (tmp_path / "grey.py").write_text(BUILD.format(inputs=256))
    seconds = [0.25]  # for one image
    monkeypatch.setattr("hfclib.reporting.make.seconds_per_image", lambda *given: seconds[0])
    monkeypatch.setattr("hfclib.reporting.commands.QUICK_SECONDS", 0.25 * 9 * 25)
    many = named_data("cifar10-test", limit=60).batches
    torch.manual_seed(0)
    words = ["report", "laptop-vanilla-0", "--data", "cifar10-test", "--quick"]
    result = hfc(*words)
    assert result.exit_code == 0, result.output
    made = read_report(tmp_path / "report-laptop-vanilla-0-quick" / "report.json")
    assert list(made.content["parts"]) == ["accuracy", "classes"]
    assert made.content["parts"]["accuracy"][0]["images"] == 25
    network = named_model("laptop-vanilla-0").model
    assert made.value("test") == hfclib.accuracy(network, many[0][0][:25], many[0][1][:25])
    assert set(made.table()["feed"]) == {"raw", "mean"}
    assert not ((made.table()["band"] == "hfc") & (made.table()["feed"] == "raw")).any()
    seconds[0] = 0.5
    again = hfc(*words)  # on another day the machine is slower
    assert again.exit_code == 0, again.output
    assert "accuracy is stored" in again.output
    assert hfc(*words, "--limit", 30).exit_code == 0
    fewer = hfc(*words, "--limit", 10)
    assert fewer.exit_code == 2
    assert "choose another folder" in fewer.output
    both = hfc(*words, "--parts", "noise")
    assert both.exit_code == 2
    assert "expected quick, which measures the accuracy alone, or parts, not both" in both.output


@pytest.mark.drawn
def test_pictures_without_labels_count_where_the_answer_is_that_for_the_whole(hfc, pictures, tmp_path):
    torch.manual_seed(0)
    (tmp_path / "grey.py").write_text(BUILD.format(inputs=256))
    (pictures / "dark" / "loose").mkdir()
    Image.new("L", (16, 16), 90).save(pictures / "dark" / "loose" / "x.png")
    (pictures / "dark" / "above").symlink_to(pictures)  # whose pictures count once
    words = ["report", "grey:build", "--data", pictures, "--unlabelled", "--radii", "2,4", "--images", 8, "--grid", 3]
    result = hfc(*words, "--steps", 1, "--name", "a grey one")
    assert result.exit_code == 0, result.output
    made = read_report(tmp_path / "report-grey-build" / "report.json")
    assert made.content["key"]["settings"]["name"] == "a grey one"
    assert "<h1>What a grey one reads on pictures</h1>" in (tmp_path / "report-grey-build" / "report.html").read_text()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2)).eval()
    images = torch.cat([batch for batch, _ in named_data(str(pictures), mode="L", unlabelled=True).batches])
    assert len(images) == 13
    answers = network(images).argmax(dim=1)
    low = hfclib.split(images, 4)[0]
    assert made.value("lfc", 4) == (network(low).argmax(dim=1) == answers).double().mean().item()
    assert made.value("test") == 1
    assert sum(row["images"] for row in made.content["parts"]["classes"] if row["radius"] == 4) == 13
    refused = hfc(*words, "--class-map", tmp_path / "grey.py")
    assert refused.exit_code == 2
    assert "expected --unlabelled or --class-map, not both" in refused.output
    api = hfclib.make_report(
        network, images, tmp_path / "api", unlabelled=True, images=8, grid=3, steps=1, radii=[2, 4]
    )
    assert api.value("lfc", 4) == made.value("lfc", 4)


def test_the_device_is_chosen_by_name(hfc, pictures, tmp_path):
    (tmp_path / "grey.py").write_text(BUILD.format(inputs=256))
    words = ["report", "grey:build", "--data", pictures, "--parts", "accuracy"]
    assert hfc(*words, "--device", "cpu", "--workers", 0).exit_code == 0
    for device, message in [("gpu", "expected device, such as cpu, cuda, cuda:1 or mps, got 'gpu'")] + (
        [] if torch.cuda.is_available() else [("cuda", "expected a device of this machine, got cuda: ")]
    ):
        result = hfc(*words, "--device", device)
        assert result.exit_code == 2
        assert message in result.output.splitlines()[-1]


@pytest.mark.parametrize("kind", [tuple, list, TensorDataset, dict, "list of labels"])
def test_images_without_labels_come_in_any_usual_batches(kind, tmp_path):
    images, network, sizes = torch.rand(60, 3, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), []
    network.register_forward_hook(lambda module, given, scores: sizes.append(len(scores)))
    first, second = images[:40], images[40:]
    data = {
        tuple: (first, second),
        list: [(first,), (second,)],
        TensorDataset: DataLoader(TensorDataset(images), 40),
        dict: [{"pixel_values": first}, {"pixel_values": second}],
        "list of labels": (images, [0] * 60),
    }[kind]
    quick = {"unlabelled": True, "quick": True, "radii": [2], "batch_size": 8}
    made = hfclib.make_report(network, data, tmp_path, **quick)
    assert made.content["parts"]["accuracy"][0]["images"] == 60
    assert max(sizes) == 8


def test_worker_processes_read_the_same_pictures(pictures):
    alone, helped = (list(named_data(str(pictures), mode="L", workers=workers).batches) for workers in (0, 1))
    for (images, labels), (same, as_labels) in zip(alone, helped, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(labels, as_labels)


def test_limits_are_told_to_continuous_integration(hfc, pictures, tmp_path):
    (tmp_path / "grey.py").write_text(BUILD.format(inputs=256))
    words = ["report", "grey:build", "--data", pictures, "--parts", "accuracy", "--radii", 4]
    limits = ["--fail-if", "test < 101 %"], ["--fail-if", "test > 0%", "--fail-if", "lfc@4 > 100%"]
    files = ["--junit", "made/junit.xml", "--summary", "made/summary.json"]
    assert hfc(*words, *limits[0]).exit_code == 2
    useless = hfc(*words, "--unlabelled", "--fail-if", "test < 90%")
    assert useless.exit_code == 2
    assert "expected a limit on lfc or hfc" in useless.output
    result = hfc(*words, *limits[1], *files)
    assert result.exit_code == 1, result.output
    suite = ElementTree.parse(tmp_path / "made" / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    cases = {case.get("name"): case.find("failure") for case in suite.iter("testcase")}
    told = json.loads((tmp_path / "made" / "summary.json").read_text())
    value = read_report(tmp_path / "report-grey-build" / "report.json").value("test")
    assert cases["lfc@4 > 100%"] is None
    assert cases["test > 0%"].get("message") == f"test > 0%: it is {value:.4f}"
    assert told["failed"]
    failed = [(result["limit"], result["failed"]) for result in told["limits"]]
    assert failed == [("test > 0%", True), ("lfc@4 > 100%", False)]
    assert told["accuracy"]["accuracy"] == value
    assert hfc(*words, *files).exit_code == 0
    suite = ElementTree.parse(tmp_path / "made" / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")


@pytest.mark.drawn
def test_classes_are_counted_and_shown_with_their_pictures(data, tmp_path):
    network = Watched()
    network.give_all_answers(data[0])
    predicted = network(data[0]).argmax(dim=1)
    labels = torch.where(torch.arange(130) < 100, predicted, (predicted + 1) % 5)
    made = hfclib.make_report(network, (data[0], labels), tmp_path, **FAST)
    low, high = hfclib.split(data[0], 3)
    colour = torch.tensor(made.content["key"]["settings"]["colour"]).view(3, 1, 1)
    with torch.no_grad():
        seen = {"whole": predicted, "lfc": network(low).argmax(1), "hfc": network(high + colour).argmax(1)}
    for row in (row for row in made.content["parts"]["classes"] if row["radius"] == 3):
        mine = labels == row["class"]
        assert row["images"] == mine.sum()
        assert [row[name] for name in seen] == [int((some[mine] == row["class"]).sum()) for some in seen.values()]
    rows = [row for row in made.content["parts"]["pictures"] if row["radius"] == 3]
    assert [[row[name] for name in ("label", *seen)] for row in rows] == [
        [int(some[number]) for some in (labels, *seen.values())] for number in range(24)
    ]
    page = (tmp_path / "report.html").read_text()
    assert "Classes that hang on the high frequencies" in page
    assert re.search(r"<summary>Wrong as they are: \d+ of the first 24 pictures</summary>", page)
    radius = nearest_radius(made.content)
    here = [row for row in made.content["parts"]["pictures"] if row["radius"] == radius]
    failing = [row for row in here if row["label"] != row["whole"] or row["label"] != row["lfc"]]
    assert 0 < len(failing) <= page.count("data:image/png;base64")


def test_the_page_opens_with_the_answer_and_links_back(data, tmp_path):
    network = Watched()
    network.give_all_answers(data[0])
    labels = network(data[0]).argmax(dim=1)
    made = hfclib.make_report(network, (data[0], labels), tmp_path, name="mine", **FAST)
    made.content["data_name"] = "photographs"
    page = html(made, data[0][:24], back=("../report.html", "Report on your network"))
    places = [
        page.index(text)
        for text in (
            '<a href="../report.html">Report on your network</a>',
            "<h1>What mine reads on photographs</h1>",
            '<p id="answer">',
            '<p id="number">Crossing radius: <b>',
            "<figure><svg",
            '<p id="robust">Is it robust? Under PGD',
            "<h2>Accuracy by band</h2>",
        )
    ]
    assert places == sorted(places)
    assert "<title>What mine reads on photographs</title>" in page
    before_first_table = page[: page.index("<table")]
    assert before_first_table.endswith("rows</summary>")  # folded


def test_h_is_help_and_the_shell_completes_names(hfc):
    for words in (["-h"], ["report", "-h"], ["train", "-h"]):
        result = hfc(*words)
        assert result.exit_code == 0
        assert "Usage" in result.output
    for typed, expected in [
        ("train fi", "fig4"),
        ("report laptop-batchnorm-", "laptop-batchnorm-0-"),
        ("rep", "report"),
    ]:
        words = f"hfc {typed}"
        environment = {"_HFC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        code = "import sys; sys.argv[0] = 'hfc'; from hfclib.cli import app; app(prog_name='hfc')"
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
        )
        assert expected in done.stdout, done.stderr
