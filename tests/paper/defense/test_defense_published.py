"""The published trials are those of the published weights."""

import pytest
import torch

from hfclib._files import data_folder
from hfclib.devices import gains_from_bf16
from hfclib.paper.defense.setup import CLEAN, NONE, Attack, Defense
from hfclib.paper.defense.trials import _compute, _with_those_before, trials_of
from hfclib.runs.store import load

PUBLISHED = sorted((data_folder() / "attacks").glob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_trials_are_those_of_the_weights(path, in_bf16, all_threads):
    images = 500 if gains_from_bf16(torch.device("cpu")) else 100  # without bfloat16, attacks take long
    run = load(data_folder() / "runs" / path.stem)
    wanted = [
        (NONE, CLEAN),
        (NONE, Attack("fgsm", 0.03, 1)),
        (Defense("rule", 1.0), Attack("pgd", 0.03, 20)),
        (Defense("input", 8.0), Attack("unaware", 0.03, 20)),
    ]
    if run.seed in (1, 2):  # attacks in many steps take long
        wanted = wanted[:2]
    stored = trials_of(run, wanted, images=500, compute=False)
    assert {(NONE, CLEAN), (NONE, Attack("fgsm", 0.03, 1))} <= set(stored)  # some have no others
    made = dict(_compute(run, _with_those_before(stored), {}, images=images, progress=False))
    for trial in stored:
        assert (made[trial] != stored[trial][:images]).sum() <= images / 50, trial  # another machine rounds otherwise
