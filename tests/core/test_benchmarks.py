"""The benchmarks at a tiny size: both ways of each comparison do the same work. Speed is not tested here."""

import importlib
import itertools
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import measure, reports, training
from benchmarks import split as split_benchmark
from benchmarks.measure import PROMISES, Promise, Ratio
from hfclib import split
from hfclib.attacks.gradient import pgd
from hfclib.data.cifar import to_float
from hfclib.reporting.parts import heat_map
from hfclib.training.recipe import Recipe

CPU = torch.device("cpu")
TINY = Recipe("tiny").with_(width=2, batch_size=8, learning_rate=1e-3)


@pytest.fixture
def pictures(cifar):
    return tuple(part[:32] for part in cifar["train"])


# ---- split


def test_numpy_way_gives_the_same_bands(cifar):
    images, radius = to_float(cifar["test"][0][:5]), split_benchmark.RADIUS
    bands = split_benchmark.numpy_split(images.numpy(), radius)
    plain = split_benchmark.plain_split(images, radius)
    for ours, other, third in zip(split(images, radius), bands, plain, strict=True):
        assert abs(ours.numpy() - other).max() < 1e-5
        assert abs(third.numpy() - other).max() < 1e-5


def test_split_benchmark_runs_as_a_command(capsys):
    assert split_benchmark.main(["--images", "8", "--large", "2", "--repeats", "1"]) in (0, 1)
    said = capsys.readouterr().out
    for words in ("8 images: NumPy", "2 images of 224 x 224", "bfloat16 arithmetic:", "at least 35x", "at least 2x"):
        assert words in said


# ---- memory, and the heat map


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="resource is a module of Unix")
def test_a_stream_of_large_images_takes_little_memory():
    """More images than are promised the memory: what was kept of each would show."""
    call = [sys.executable, "-m", "benchmarks.memory", "--images", "900"]
    made = subprocess.run(call, capture_output=True, text=True, cwd=Path(measure.__file__).parents[1])
    assert made.returncode == 0, made.stdout + made.stderr
    assert "900 images, 8 rows" in made.stdout
    assert "kept" in made.stdout


def test_both_heat_maps_are_the_same(cifar):
    benchmark = importlib.import_module("benchmarks.heat_map")
    model, images, labels = TINY.build().eval(), to_float(cifar["test"][0][:20]), cifar["test"][1][:20]
    plain = benchmark.plain_heat_map(model, images, labels, grid=5)
    ours = heat_map(model, images, labels, grid=5, norm=benchmark.NORM, seed=0)
    assert len(plain) == 25
    for row in ours:
        for sign in (1, -1):
            assert plain[sign * row["row"], sign * row["column"]] == pytest.approx(row["error"], abs=1e-6)


def test_heat_map_benchmark_runs_as_a_command(capsys):
    benchmark = importlib.import_module("benchmarks.heat_map")
    assert benchmark.main(["--images", "4", "--grid", "3", "--repeats", "1"]) in (0, 1)
    assert "4 images, 3 x 3 frequencies" in capsys.readouterr().out


# ---- training


def test_plain_loader_gives_the_same_images(pictures):
    images, labels = pictures
    batches = list(training.plain_loader(images, labels, TINY, 0))
    made, answers = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert [len(answer) for _, answer in batches] == [8] * 4
    assert made.dtype == torch.float32
    assert batches[0][0].is_contiguous()
    assert sorted(answers.tolist()) == sorted(labels.tolist())
    originals = {image.numpy().tobytes(): int(label) for image, label in zip(to_float(images), labels, strict=True)}
    assert [originals[image.numpy().tobytes()] for image in made] == answers.tolist()


def test_plain_augmentation_crops_and_flips_as_ours(pictures):
    """Every augmented picture is one of the 162 crops and flips that hfclib draws from."""
    images, labels = (part[:4] for part in pictures)
    padded = np.pad(to_float(images).numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    allowed = set()
    for image, top, left in itertools.product(padded, range(9), range(9)):
        crop = image[:, top : top + 32, left : left + 32]
        allowed |= {crop.tobytes(), crop[:, :, ::-1].tobytes()}
    ours = training.our_batches(images, labels, TINY.with_(batch_size=4, augment=True), CPU)
    plain = training.endless(training.plain_loader(images, labels, TINY.with_(batch_size=4, augment=True), 0))
    for way in (ours, plain):
        drawn = {image.numpy().tobytes() for batch, _ in itertools.islice(way, 10) for image in batch}
        assert drawn <= allowed
        assert len(drawn) > 20


def test_both_loops_start_from_the_same_network_and_make_the_same_steps(in_float32, pictures):
    images, labels = pictures
    ours, plain = (training.network(TINY, CPU, layout) for layout in (torch.channels_last, torch.contiguous_format))
    our_step, plain_step = training.our_step(ours, TINY), training.plain_step(plain, TINY, CPU)
    for _ in range(3):
        batch = to_float(images)
        loss = our_step(batch.contiguous(memory_format=torch.channels_last), labels)
        assert loss == pytest.approx(plain_step(batch, labels), rel=1e-4)
    assert ours.training
    assert plain.training
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.contiguous(), other, rtol=1e-3, atol=1e-4)


def test_batches_never_end(pictures):
    images, labels = pictures
    for way in (
        training.our_batches(images, labels, TINY, CPU),
        training.endless(training.plain_loader(images, labels, TINY, 0)),
    ):
        seen = torch.cat([answers for _, answers in itertools.islice(way, 8)])
        assert sorted(seen.tolist()) == sorted(torch.cat([labels, labels]).tolist())


def test_training_benchmark_runs_as_a_command(capsys):
    arguments = ["--preset", "smoke", "--variant", "batchnorm", "--steps", "1", "--repeats", "1", "--workers", "0"]
    assert training.main(arguments) in (0, 1)
    said = capsys.readouterr().out
    for words in ("smoke-batchnorm on", "steps/s", PROMISES["training"].name, PROMISES["data"].name, "at most 10 %"):
        assert words in said


# ---- attacks


def test_every_attack_makes_the_same_images(other_libraries, pictures):
    images, labels = to_float(pictures[0][:8]), pictures[1][:8]
    model, settings = TINY.build().eval(), {"eps": 0.05, "alpha": 0.02, "steps": 3}
    ours = partial(pgd, random_start=False, **settings)
    made = {
        name: other_libraries.in_batches(way, model, images, labels, 5)
        for name, way in (
            ("ours", ours),
            ("Foolbox", partial(other_libraries.foolbox_pgd, **settings)),
            ("torchattacks", partial(other_libraries.torchattacks_pgd, **settings)),
        )
    }
    for other in ("Foolbox", "torchattacks"):
        assert ((made["ours"] - made[other]).abs() <= 1e-5).float().mean() >= 0.99
    assert (made["ours"] - images).abs().amax(dim=(1, 2, 3)).min() > 0.04


def test_attack_benchmark_compares_all_three_promises(other_libraries, pictures, capsys):
    model = TINY.build().eval()
    images = to_float(pictures[0])
    labels = model(images).argmax(dim=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ratios = other_libraries.compare(model, images, labels, eps=0.03, alpha=0.01, steps=3, repeats=2, batch_size=20)
    assert [ratio.promise for ratio in ratios] == [PROMISES[f"pgd{name}"] for name in ("", "_stopping", "_accuracy")]
    assert all(ratio.value > 0 for ratio in ratios[:2])
    said = capsys.readouterr().out
    shares = re.findall(r"(.*): \d+ images/s .*, robust accuracy (\d\.\d+)", said)
    assert [name for name, _ in shares] == ["torchattacks", "Foolbox", "hfclib", "hfclib, stopping"]
    values = [float(share) for _, share in shares]
    assert ratios[2].value == pytest.approx(100 * (max(values) - min(values)), abs=0.11)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_attack_benchmark_runs_as_a_command(other_libraries, capsys):
    arguments = ["--images", "4", "--batch-size", "2", "--steps", "1", "--repeats", "1"]
    assert other_libraries.main(arguments) in (0, 1)
    said = capsys.readouterr().out
    assert "laptop-batchnorm on" in said
    assert "at most 0.5" in said


# ---- measuring


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_promise_is_kept_or_missed_by_kind_of_processor(bf16_instructions, capsys, has_bf16):
    bf16_instructions(avx512=has_bf16)
    bound = 2.2 if has_bf16 else 1.4
    for value, at_least, kept in [
        (bound + 0.3, True, True),
        (bound, True, True),
        (bound - 0.01, True, False),
        (bound + 0.3, False, False),
        (bound, False, True),
    ]:
        ratio = Ratio(Promise("name", 2.2, 1.4, at_least), value, CPU)
        assert ratio.kept() == kept
        assert ("MISSED" in ratio.line()) != kept
        assert f"{bound}x" in ratio.line()
        assert measure.report([ratio, Ratio(Promise("other", 1, 1), 1, CPU)]) == (0 if kept else 1)
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 3
        assert f"processor {'with' if has_bf16 else 'without'} bfloat16" in said[0]


@pytest.mark.slow
def test_report_benchmark_runs_as_a_command(capfd):
    assert reports.main(["--images", "2", "--steps", "0", "--pictures", "3"]) in (0, 1)
    said = capfd.readouterr().out
    assert PROMISES["report_memory"].name in said
    assert re.search(rf"{PROMISES['quick'].name} +\d+\.\d s +at most 60 s", said)


def test_readme_has_the_table_of_promises():
    rows = (
        (Path(measure.__file__).parent / "README.md").read_text().split("|---|---|---|---|---|\n")[1].split("\n\n")[0]
    )
    table = [[cell.strip() for cell in row.split("|")[1:4]] for row in rows.splitlines()]
    found = [(float(first), float(second), "at least" in name) for name, first, second in table]
    assert found == [(one.with_bf16, one.without, one.at_least) for one in PROMISES.values()]


def test_ways_take_turns_after_a_warm_up():
    calls = []
    seconds = measure.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3)
    assert calls == list("abababab")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for times in seconds.values() for second in times)


def test_ratios_are_compared_turn_by_turn():
    assert measure.median_ratio([2, 30, 8], [1, 10, 2]) == 3
