"""The published trials are those of the published weights."""

import pytest
import torch
from safetensors.torch import load_file

from hfclib._files import data_folder
from hfclib.devices import gains_from_bf16
from hfclib.paper.defense import DEFENSE, beside_autoattack, trials_over_seeds
from hfclib.paper.defense.setup import CLEAN, NONE, Attack, Defense
from hfclib.paper.defense.trials import _compute, _with_those_before, trials_of
from hfclib.paper.tables import decimals
from hfclib.runs.collect import Runs
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


def test_what_attacks_leave_is_recounted_from_the_stored_trials():
    table = beside_autoattack(Runs())
    assert list(table.index) == [0, 1, 2]
    for seed, row in table.iterrows():
        (path,) = (data_folder() / "attacks").glob(f"laptop-adversarial-{seed}-*.safetensors")
        trials = {tuple(name.split()[2:4]): trial for name, trial in load_file(path).items() if name[:7] == "none 0 "}
        names = {"clean": ("clean", "0"), "PGD": ("pgd", "0.03"), "strong attack": ("square", "0.03")}
        names |= {"APGD-T": ("apgd-t", "0.03"), "Square": ("square-5000", "0.03")}
        for column, name in names.items():
            assert row[column] == decimals(trials[name].float().mean().item()), (seed, column)
        assert (trials["apgd-t", "0.03"] >= trials["fab-t", "0.03"]).all()
        assert (trials["fab-t", "0.03"] >= trials["square-5000", "0.03"]).all()


def test_the_first_figure_has_every_seed_whose_trials_are_all_stored(monkeypatch):
    one = Runs({variant: ones[:1] for variant, ones in DEFENSE.published_runs("laptop").items()})
    monkeypatch.setattr("hfclib.paper.defense.trials._compute", None)  # nothing is computed
    arguments = one, DEFENSE.parameters()
    runs, weak, strong = trials_over_seeds(*arguments)
    assert {variant: [run.seed for run in ones] for variant, ones in runs.items()} == {
        "vanilla": [0, 1, 2],
        "adversarial": [0, 1, 2],
    }
    sizes = strong.groupby(["variant", "seed"]).size().unstack()
    assert (sizes.loc["vanilla"] == 4 * 7).all()  # four parts; no defense, rule, scale, and four radii
    assert (sizes.loc["adversarial"] == 4).all()
    assert set(weak["attack"]) == {"clean", "fgsm", "pgd", "unaware"}

    def without_one(run, wanted, **options):
        found = trials_of(run, wanted, **options)
        return dict(list(found.items())[1:]) if run.seed == 2 else found

    monkeypatch.setattr("hfclib.paper.defense.claims.trials_of", without_one)
    runs, weak, _ = trials_over_seeds(*arguments)
    assert set(weak["seed"]) == {run.seed for run in runs.all()} == {0, 1}
