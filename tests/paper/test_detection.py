"""The chapter on detection: its data, its detector, its measures against cases worked out by hand, and its runs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.models.detection import retinanet_resnet50_fpn
from typer.testing import CliRunner

from hfclib.data import DataError, data_folder
from hfclib.paper.detection import bccd, claims, coco, detector, measure, store
from hfclib.paper.detection.__main__ import app
from hfclib.paper.detection.detector import PRESETS, Settings
from hfclib.paper.detection.measure import Condition

pytest.importorskip("pycocotools")
TINY = Settings(
    "tiny", width=8, pyramid=8, size=(64, 48), anchor=8, epochs=3, train_images=9, test_images=3, radii=(8, 13)
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A stored run of a few seconds."""
    return store.train(seed=1, settings=TINY, store=tmp_path_factory.mktemp("runs"), progress=False)


# The data


def test_both_splits_are_whole():
    for split, objects in ("trainval", 3941), ("test", 945):
        images, targets = bccd.load(split, size=(80, 60))
        assert images.shape == (bccd.IMAGES[split], 3, 60, 80)
        boxes = torch.cat([target["boxes"] for target in targets])
        labels = torch.cat([target["labels"] for target in targets])
        assert len(boxes) == len(labels) == objects
        assert set(labels.tolist()) == {1, 2, 3}
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.min() >= 0
        assert (boxes <= torch.tensor([80, 60, 80, 60])).all()


def test_boxes_are_resized_with_the_pictures():
    large, small = bccd.load("test", size=(640, 480), count=1), bccd.load("test", size=(160, 120), count=1)
    assert torch.equal(large[1][0]["boxes"], small[1][0]["boxes"] * 4)
    blocks = large[0].float().reshape(3, 120, 4, 160, 4).mean(dim=(2, 4))
    assert (blocks - small[0][0].float()).abs().mean() < 3


@pytest.mark.parametrize("name", list(bccd.SHA256))
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_data_file_is_named(name, damage, tmp_path):
    folder = shutil.copytree(data_folder() / "bccd", tmp_path / "bccd")
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "missing":
        (folder / name).write_bytes(content[:-9] if damage == "cut" else content.replace(b"1", b"2", 1))
    with pytest.raises(DataError, match=f"{name} .*restore"):
        bccd.load("test", folder=folder)


@pytest.mark.parametrize(("split", "size"), [("train", (80, 60)), ("test", (641, 480)), ("test", (0, 60))])
def test_a_bad_split_or_size_is_refused(split, size):
    with pytest.raises(ValueError, match="expected"):
        bccd.load(split, size=size)


# The detector


def test_the_laptop_detector_has_under_a_million_parameters():
    assert sum(one.numel() for one in detector.build(PRESETS["laptop"]).parameters()) == 971_544


def test_a_flip_moves_boxes_with_the_pixels():
    image, target = torch.zeros(3, 6, 8), {"boxes": torch.tensor([[1.0, 2, 3, 5]]), "labels": torch.tensor([1])}
    image[:, 2:5, 1:3] = 1
    for horizontal in False, True:
        for vertical in False, True:
            flipped, moved = detector.flipped(image, target, horizontal=horizontal, vertical=vertical)
            left, top, right, bottom = moved["boxes"][0].int().tolist()
            assert flipped[:, top:bottom, left:right].all()
            assert flipped.sum() == image.sum()


@pytest.mark.parametrize(
    "change",
    [
        {"width": 12},
        {"epochs": 0},
        {"epochs": True},
        {"batch_size": 2.5},
        {"learning_rate": 0.0},
        {"radii": ()},
        {"radii": (0,)},
        {"size": (20, 60)},
        {"size": (800, 60)},
        {"train_images": 293},
    ],
)
def test_bad_settings_are_refused(change):
    with pytest.raises(ValueError, match=f"expected .*{next(iter(change))}"):
        replace(TINY, **change)


# The measures


def objects(*boxes):
    """Targets of one image: boxes (left, top, right, bottom) of class 1."""
    return {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.ones(len(boxes), dtype=torch.int64)}


def found(*pairs):
    """Detections of one image: (box, score) of class 1, in order of score."""
    boxes = np.array([box for box, _ in pairs], dtype=np.float32).reshape(-1, 4)
    return {"boxes": boxes, "scores": np.array([score for _, score in pairs]), "labels": np.ones(len(pairs), int)}


FIRST, SECOND, NOWHERE = (0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 60, 60)


def test_map_of_a_case_worked_out_by_hand():
    # One of two objects is found exactly, then a box is nowhere: precision 1 up to recall 1/2, and nothing beyond it,
    # so 51 of the 101 recalls from 0 to 1 have precision 1 at each IoU.
    truth = measure.truth_of([objects(FIRST, SECOND)])
    scores = measure.score(truth, measure.results_of([found((FIRST, 0.9), (NOWHERE, 0.8))]))
    assert scores.mean == scores.at_50 == pytest.approx(51 / 101)
    assert scores.per_image == {(0, 1): pytest.approx(51 / 101)}


def test_map_counts_how_well_a_box_fits():
    # A box of 10 x 10 shifted by 2 overlaps in 80 of 120 pixels, IoU 2/3: right at .50, .55, .60 and .65 only.
    truth = measure.truth_of([objects(FIRST)])
    scores = measure.score(truth, measure.results_of([found(((2, 0, 12, 10), 0.9))]))
    assert (scores.mean, scores.at_50) == (pytest.approx(0.4), pytest.approx(1))
    assert scores.per_image[0, 1] == pytest.approx(0.4)


def test_a_wrong_box_that_is_surer_halves_the_precision():
    truth = measure.truth_of([objects(FIRST)])
    scores = measure.score(truth, measure.results_of([found((NOWHERE, 0.9), (FIRST, 0.8))]))
    assert scores.mean == pytest.approx(0.5)
    assert scores.per_image[0, 1] == pytest.approx(0.5)


def test_nothing_found_is_zero():
    scores = measure.score(measure.truth_of([objects(FIRST)]), [])
    assert scores == (0, 0, {(0, 1): 0})


def test_the_average_per_image_is_pycocotools_own_on_one_image():
    generator = np.random.default_rng(0)
    for _ in range(5):
        corners = generator.uniform(0, 40, (6, 2))
        truth = measure.truth_of([objects(*np.hstack([corners, corners + 10]).tolist())])
        shifted = np.vstack([corners, corners]) + generator.normal(0, 1.5, (12, 2))
        pairs = [((*corner, *corner + 10), score) for corner, score in zip(shifted, generator.random(12), strict=True)]
        scores = measure.score(truth, measure.results_of([found(*pairs)]))
        assert scores.per_image[0, 1] == pytest.approx(scores.mean)


def test_the_share_of_better_images_of_a_case_worked_out_by_hand():
    # Image 0: both objects are found on the LFC and one on the image. Image 1: the reverse. Image 2: the same twice.
    truth = measure.truth_of([objects(FIRST, SECOND)] * 3)
    one, both = found((FIRST, 0.9)), found((FIRST, 0.9), (SECOND, 0.8))
    lfc = Condition("lfc", "raw", 8)
    table = measure.table(
        truth, {Condition("x"): measure.results_of([one, both, one]), lfc: measure.results_of([both, one, one])}
    )
    assert list(table.columns) == measure.COLUMNS
    assert table["better"].tolist() == [0, pytest.approx(1 / 3)]
    assert table["worse"].tolist() == [0, pytest.approx(1 / 3)]
    assert table["images"].tolist() == [3, 3]


def test_a_gain_must_exceed_the_margin():
    image, other = {(0, 1): 0.5, (1, 1): 0.5, (1, 2): 0.3}, {(0, 1): 0.6, (1, 1): 0.5, (1, 2): 0.1}
    assert measure.better_images(image, other) == {0}
    assert measure.better_images(other, image) == {1}
    assert measure.better_images(image, other, margin=0.1) == set()


def test_what_is_fed():
    images, colour = torch.rand(2, 3, 12, 16), torch.tensor([0.2, 0.4, 0.6])
    lfc, hfc, mean = (measure.fed(images, Condition(*one, 4), colour) for one in measure.BANDS)
    assert torch.allclose(lfc + hfc, images, atol=1e-6)
    assert torch.allclose((mean - hfc)[:, :, 0, 0], colour.expand(2, 3), atol=1e-6)
    assert torch.equal(measure.fed(images, Condition("mirror"), colour).flip(-1), images)


def test_boxes_in_the_mirror_image_come_back():
    class Brightest(torch.nn.Module):
        def forward(self, images):
            places = [(one[0] > 0.5).nonzero() for one in images]
            boxes = [torch.cat([at.amin(0).flip(0), at.amax(0).flip(0) + 1]).float()[None] for at in places]
            return [{"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1)} for box in boxes]

    image = torch.zeros(1, 3, 20, 30)
    image[..., 4:9, 2:7] = 1
    for band in "x", "mirror":
        (one,) = measure.detect_in(Brightest(), image, Condition(band), torch.zeros(3))
        assert one["boxes"].tolist() == [[2, 4, 7, 9]]


# The claims


def table_of(better, mirror=0.1, seeds=(0, 1, 2)):
    rows = [
        ("x", "raw", 0, 0.5, 0),
        ("mirror", "raw", 0, 0.5, mirror),
        ("lfc", "raw", 48, 0.4, better),
        ("hfc", "raw", 48, 0.02, 0.1),
        ("hfc", "mean", 48, 0.1, 0.1),
    ]
    table = pd.DataFrame(rows, columns=["band", "feed", "radius", "mAP", "better"])
    moved = [table.assign(seed=seed, mAP=table["mAP"] + 0.002 * seed) for seed in seeds]
    return pd.concat(moved, ignore_index=True)


def test_each_claim_is_judged_by_its_rule():
    verdicts = claims.judge(table_of(better=0.3)).set_index("id")["verdict"].to_dict()
    assert verdicts.pop("detection-hfc-keeps") == "not reproduced here"
    assert set(verdicts.values()) == {"reproduced"}
    assert claims.judge(table_of(better=0.1)).set_index("id").loc["detection-better-on-lfc", "verdict"] != "reproduced"
    assert set(claims.judge(table_of(better=0.3, seeds=[0]))["verdict"]) == {"inconclusive"}


# Stored runs


def test_a_run_is_stored_and_its_results_come_again_from_its_weights(tiny):
    assert {path.name for path in tiny.path.iterdir()} == {"run.json", *store.FILES}
    assert len(tiny.losses) == TINY.epochs
    again = measure.measure(tiny.model(), *store.measured_images(TINY), measure.conditions(TINY.radii), progress=False)
    pd.testing.assert_frame_equal(again, tiny.results, check_dtype=False, rtol=1e-4, atol=1e-6)
    assert store.train(seed=1, settings=TINY, store=tiny.path.parent).provenance == tiny.provenance


def test_a_killed_training_goes_on_and_ends_in_the_same_weights(tiny, tmp_path):
    command = (
        "import os, sys, torch; torch.set_num_threads(1)\n"
        "from hfclib.paper.detection import detector, store\n"
        "save = detector.save_checkpoint\n"
        "def save_and_die(path, model, optimizer, progress):\n"
        "    save(path, model, optimizer, progress)\n"
        "    if progress.epoch == 2:\n"
        "        os._exit(9)\n"
        "detector.save_checkpoint = save_and_die\n"
        f"store.train(seed=1, settings=detector.Settings(**{vars(TINY)!r}), store=store.Path({str(tmp_path)!r}))\n"
    )
    killed = subprocess.run([sys.executable, "-c", command], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == 9
    assert list(tmp_path.glob("*.partial/checkpoint"))
    resumed = store.train(seed=1, settings=TINY, store=tmp_path, progress=False)
    for name in store.FILES:
        assert (resumed.path / name).read_bytes() == (tiny.path / name).read_bytes(), name
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    model = detector.build(TINY)
    optimizer = torch.optim.AdamW(model.parameters())
    path = tmp_path / "checkpoint"
    detector.save_checkpoint(path, model, optimizer, detector.Progress(epoch=1))
    assert detector.load_checkpoint(path, model, optimizer).epoch == 1
    whole = path.read_bytes()
    for damaged in whole[:-5], whole[:5000] + b"?" + whole[5001:], b"":
        path.write_bytes(damaged)
        with pytest.raises(detector.TrainingError, match=r"checkpoint is damaged .*delete it"):
            detector.load_checkpoint(path, model, optimizer)


@pytest.mark.parametrize("name", ["run.json", *store.FILES])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_file_of_a_run_is_named(name, damage, tiny, tmp_path):
    folder = shutil.copytree(tiny.path, tmp_path / tiny.path.name)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "missing":
        (folder / name).write_bytes(content[: len(content) // 2] if damage == "cut" else content.replace(b"1", b"2", 1))
    with pytest.raises(store.RunError, match=f"{name}.*restore"):
        store.load(folder)


def test_a_run_in_the_folder_of_another_is_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny.path, tmp_path / TINY.run_name(2))
    with pytest.raises(store.RunError, match=f"it belongs to {TINY.run_name(1)}"):
        store.load(folder)


@pytest.mark.parametrize(("preset", "seed"), [("large", 0), ("laptop", -1), ("laptop", 1.0), ("laptop", True)])
def test_a_bad_preset_or_seed_is_refused_before_any_work(preset, seed, own_home):
    with pytest.raises(ValueError, match="expected"):
        store.train(preset, seed=seed)
    assert not own_home.exists()


GOOD = {"radius": 48, "preset": "laptop", "seeds": [0, 1, 2], "retrain": False}


def test_good_parameters_of_the_notebook():
    assert vars(store.check(**GOOD)) == GOOD | {"seeds": (0, 1, 2)}
    assert store.check(**GOOD | {"seeds": 1}).seeds == (1,)
    assert store.check(**GOOD | {"preset": "smoke", "retrain": True}).radius == 48


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preset", "large"),
        ("preset", "paper"),
        ("seeds", []),
        ("seeds", [0, 0]),
        ("seeds", [-1]),
        ("seeds", True),
        ("seeds", "0"),
        ("radius", 47),
        ("radius", True),
        ("radius", "48"),
        ("retrain", 1),
    ],
)
def test_a_bad_parameter_of_the_notebook_is_named(name, value):
    with pytest.raises(ValueError, match=f"parameter {name} = .*expected"):
        store.check(**GOOD | {name: value})


def test_a_run_that_is_not_stored_is_named():
    with pytest.raises(ValueError, match=r"seeds = 4321: expected seeds whose runs are stored.*laptop-4321-"):
        store.check(**GOOD | {"seeds": 4321})


def test_the_published_results_come_again_from_the_published_weights():
    (run,) = store.obtain("laptop", [0])
    asked = [Condition("x"), Condition("lfc", "raw", 12), Condition("hfc", "mean", 12)]
    again = measure.measure(run.model(), *store.measured_images(run.settings), asked, progress=False)
    stored = run.results.merge(again, on=["band", "feed", "radius"], suffixes=("", "_again"))
    assert len(stored) == len(asked)
    assert (stored["mAP"] - stored["mAP_again"]).abs().max() < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_published_results_come_again(seed):
    (run,) = store.obtain("laptop", [seed])
    asked = measure.conditions(run.settings.radii)
    again = measure.measure(run.model(), *store.measured_images(run.settings), asked, progress=False)
    differences = (again[["mAP", "mAP50", "better", "worse"]] - run.results[["mAP", "mAP50", "better", "worse"]]).abs()
    assert (again[["band", "feed", "radius"]] == run.results[["band", "feed", "radius"]]).all(axis=None)
    assert differences[["mAP", "mAP50"]].max(axis=None) < 0.01
    assert differences.max(axis=None) < 0.1  # other arithmetic may turn a very small gain into a loss


# The notebook


NOTEBOOK = Path(__file__).parents[2] / "notebooks/detection.ipynb"


def test_the_answer_box_says_what_the_stored_runs_say():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    box, results = " ".join("".join(cells[0]["source"]).split()), store.gather(store.obtain("laptop", [0, 1, 2]))
    means = results.groupby(["band", "feed", "radius"])[["mAP", "better"]].mean()
    said = {
        "mAP {} on images": means.loc["x", "raw", 0]["mAP"],
        "{} on the LFC)": means.loc["lfc", "raw", 48]["mAP"],
        "is worth nothing ({})": means.loc["hfc", "raw", 48]["mAP"],
        "at r = 12 ({})": means.loc["lfc", "raw", 12]["mAP"],
        "On {} of the pictures an object is found better on the LFC": means.loc["lfc", "raw", 48]["better"],
        "But on {} of them": means.loc["mirror", "raw", 0]["better"],
    }
    for text, value in said.items():
        assert text.format(f"{value:.2f}".lstrip("0")) in box, text
    verdicts = claims.judge(results)["verdict"].value_counts()
    words = ["no", "one", "two", "three", "four", "five", "six"]
    assert f"Of six claims, {words[verdicts['reproduced']]} are reproduced" in box
    assert f"{words[verdicts['inconclusive']]} are inconclusive" in box


def test_the_notebook_trains_and_runs_at_smoke(tmp_path):
    words = ["-p", "preset", "smoke", "-p", "retrain", "True", "-p", "seeds", "0", "-p", "radius", "24"]
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(tmp_path / "out.ipynb"), *words]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=NOTEBOOK.parent, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 run(s) to train on" in (tmp_path / "out.ipynb").read_text()


# The paper's own experiment


@pytest.fixture
def made(tmp_path):
    """Three pictures in COCO's format, one without an object, and the folder of their detections."""
    folder = tmp_path / "coco"
    (folder / coco.PICTURES).mkdir(parents=True)
    (folder / coco.ANNOTATIONS).parent.mkdir()
    images = []
    for number, mode in enumerate(["RGB", "L", "RGB"]):
        name = f"{number:012d}.jpg"
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / coco.PICTURES / name)
        images.append({"id": 100 - number, "file_name": name, "width": 64, "height": 48})
    boxes = [
        {"id": 7, "image_id": 100, "category_id": 18, "bbox": [5, 5, 20, 20], "area": 300.5, "iscrowd": 0},
        {"id": 8, "image_id": 98, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 900, "iscrowd": 1},
        {"id": 9, "image_id": 98, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 900, "iscrowd": 0},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / coco.ANNOTATIONS).write_text(json.dumps(content))
    return folder, tmp_path / "out"


@pytest.fixture
def untrained():
    """The paper's network with random weights, on small images; it is sure enough of something to return boxes."""
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91, min_size=64, max_size=96)
    model.score_thresh = 0.0
    return model


def test_the_papers_code_path_streams_resumes_and_gives_the_same_table(made, untrained):
    folder, out = made
    table = coco.evaluate_coco(folder, radius=13, out=out, model=untrained, progress=False)
    assert table["images"].tolist() == [3] * 5
    assert table["band"].tolist() == ["x", "mirror", "lfc", "hfc", "hfc"]
    assert table["radius"].tolist() == [0, 0, 13, 13, 13]
    assert table["mAP"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(out / "results.csv"), table, check_dtype=False, atol=1e-5)
    whole = (out / "detections.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 4
    for torn in b"".join(lines[:2]), b"".join(lines[:3]) + lines[3][:40], lines[0]:
        (out / "detections.jsonl").write_bytes(torn)
        again = coco.evaluate_coco(folder, radius=13, out=out, model=untrained, progress=False)
        pd.testing.assert_frame_equal(again, table)
        assert (out / "detections.jsonl").read_bytes() == whole


def test_detections_of_something_else_or_damaged_ones_are_refused(made, untrained):
    folder, out = made
    coco.evaluate_coco(folder, radius=13, out=out, model=untrained, limit=1, progress=False)
    for change in {"radius": 14}, {"limit": 2}:
        with pytest.raises(DataError, match=r"detections\.jsonl holds detections of another"):
            coco.evaluate_coco(folder, **{"radius": 13, "limit": 1, **change}, out=out, model=untrained)
    path = out / "detections.jsonl"
    path.write_bytes(path.read_bytes().replace(b"score", b"scare", 1))
    with pytest.raises(DataError, match=r"detections\.jsonl is damaged in line 2"):
        coco.evaluate_coco(folder, radius=13, limit=1, out=out, model=untrained)


def test_a_missing_or_damaged_file_of_coco_is_named(made, untrained, tmp_path):
    folder, out = made
    with pytest.raises(DataError, match=r"instances_val2017\.json is missing.*val2017"):
        coco.evaluate_coco(tmp_path, model=untrained, out=out)
    picture = folder / coco.PICTURES / "000000000001.jpg"
    picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(DataError, match=r"000000000001\.jpg is missing or damaged"):
        coco.evaluate_coco(folder, radius=13, model=untrained, out=out, progress=False)


@pytest.mark.parametrize("bad", [{"radius": 0}, {"radius": -1}, {"radius": float("nan")}, {"limit": 0}])
def test_a_bad_radius_or_limit_is_refused(bad, made, untrained):
    with pytest.raises(ValueError, match="radius"):
        coco.evaluate_coco(made[0], out=made[1], model=untrained, **bad)


def test_the_command_line_names_a_missing_folder(tmp_path):
    done = CliRunner().invoke(app, ["coco", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "instances_val2017.json is missing" in str(done.exception) + done.output
