"""hfclib.training.planted, hfclib.runs.images: the signal is where it should be, and in all that a run is fed."""

import pytest
import torch

from hfclib.data import DATA_SETS, to_float
from hfclib.frequency import split
from hfclib.runs.images import held_out_set, training_set
from hfclib.runs.train import train_run
from hfclib.training.planted import PLANTED_RADIUS, class_patterns, planted
from hfclib.training.recipe import Recipe

AMPLITUDE = 2 / 255
RECIPE = Recipe("a").with_(width=2, epochs=1, batch_size=32, train_images=64, eval_images=5, final_images=20)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_patterns_are_faint_lie_beyond_the_radius_and_differ_by_class(shape):
    patterns = class_patterns(shape, AMPLITUDE)
    assert patterns.shape == (10, *shape)
    assert torch.equal(patterns, class_patterns(shape, AMPLITUDE))
    assert 0.9 * AMPLITUDE < patterns.abs().amax(dim=(1, 2, 3)).min() <= patterns.abs().max() <= AMPLITUDE * 1.000001
    low, _ = split(patterns, PLANTED_RADIUS)
    assert low.abs().max() < 1e-6
    spectra = torch.fft.rfft2(patterns).abs().mean(dim=1).flatten(1)  # of each class a frequency of its own
    mirrored = torch.fft.rfft2(patterns.flip(-1)).abs().mean(dim=1).flatten(1)
    for others in (spectra, mirrored):
        alike = torch.nn.functional.cosine_similarity(spectra[:, None], others[None], dim=2)
        assert alike.fill_diagonal_(0).max() < 0.01


def test_training_and_test_images_have_the_pattern_of_their_class_and_their_own_lfc():
    patterns = class_patterns((3, 32, 32), AMPLITUDE)
    recipe = RECIPE.with_(planted=AMPLITUDE)
    for (images, labels), (clean, _), rounding in (
        (training_set(recipe), training_set(RECIPE), 5e-4),  # kept in float16, an eighth of a grey level
        (*(held_out_set(one.with_(final_images=10_000)) for one in (recipe, RECIPE)), 1e-6),
    ):
        clean = clean if clean.is_floating_point() else to_float(clean)
        torch.testing.assert_close(images.float() - clean, patterns[labels], atol=rounding, rtol=0)
    torch.testing.assert_close(split(images[:50], 14)[0], split(clean[:50], 14)[0], atol=1e-6, rtol=0)
    assert (split(images[:50], 16)[0] - split(clean[:50], 16)[0]).abs().max() > AMPLITUDE / 2


def test_another_class_can_be_planted():
    images = torch.full((10, 1, 28, 28), 255, dtype=torch.uint8)
    added = planted(images, (torch.arange(10) + 1) % 10, AMPLITUDE) - 1
    torch.testing.assert_close(added, class_patterns((1, 28, 28), AMPLITUDE).roll(-1, 0), atol=1e-6, rtol=0)
    assert added.max() > 0.9 * AMPLITUDE  # not clipped


def test_a_run_is_measured_with_the_signal_and_once_without(measured_at, tmp_path):
    measured_at(4)
    run = train_run(RECIPE.with_(planted=AMPLITUDE), seed=0, store=tmp_path, progress=False)
    whole = run.final.query("band == 'x'").set_index("split")["accuracy"]
    assert list(whole.index) == ["train", "test", "clean"]
    labels = DATA_SETS["cifar10"].embedded("test")[1][:20]
    for split_name, recipe in (("test", run.recipe), ("clean", RECIPE)):
        predicted = run.model()(held_out_set(recipe)[0][:20]).argmax(dim=1)
        assert whole[split_name] == pytest.approx((predicted == labels).float().mean().item())
    assert "clean" not in set(run.curves["split"])


def test_other_data_are_trained_on_and_measured_at_their_own_radii_and_colour(tmp_path):
    name = "mnist"
    recipe = RECIPE.with_(dataset=name, train_images=40, final_images=10)
    run = train_run(recipe, seed=0, store=tmp_path, progress=False)
    assert set(run.final["radius"]) == {-1, *range(1, 20)}
    images, labels = (part[:10] for part in held_out_set(recipe))
    assert torch.equal(images, to_float(DATA_SETS[name].embedded("test")[0][:10]))
    high = split(images, 8)[1] + DATA_SETS[name].mean[0]
    expected = (run.model()(high).argmax(dim=1) == labels).float().mean().item()
    found = run.final.query("band == 'hfc' and radius == 8 and feed == 'mean'")["accuracy"].item()
    assert found == pytest.approx(expected, abs=0.11)  # bands may use bfloat16: one image of ten
