"""Which images stay correct, attack by attack; what is stored, and what is refused."""

import itertools
import re
import warnings
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hfclib.attacks.gradient import fgsm, pgd
from hfclib.attacks.random_search import square
from hfclib.attacks.robustness import clean_correct, robust_correct
from hfclib.frequency import split
from hfclib.paper.defense.setup import (
    CLEAN,
    NONE,
    Attack,
    Defense,
    all_defenses,
    attacks_before,
    long_attacks,
    table_attacks,
)
from hfclib.paper.defense.trials import (
    TRIAL_COLUMNS,
    _compute,
    _max_runtime,
    _trial_name,
    _with_those_before,
    smallest_eps_table,
    strong_trials,
    trial_rows,
    trials_of,
    trials_table,
)
from hfclib.runs.predictions import store_record, weights_of
from hfclib.runs.store import Run, RunError
from hfclib.training.recipe import Recipe

RECIPE = Recipe("tiny")
EPS, STEPS, IMAGES = 0.01, 2, 24
RULE, FILTERED = Defense("normalised", 0.1), Defense("input", 3.0)
FGSM, PGD, SQUARE = Attack("fgsm", EPS, 1), Attack("pgd", EPS, STEPS), Attack("square", EPS, STEPS)
SOME = [(NONE, CLEAN), (NONE, FGSM), (RULE, CLEAN), (RULE, PGD)]


@pytest.fixture(scope="module")
def pictures():
    """Bytes, small, so that an attack takes milliseconds."""
    return torch.randint(0, 256, (IMAGES, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def network(weights):
    """The network of every stored run here; attacks on it take milliseconds."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 10))
    network.load_state_dict(weights)
    return network.eval()


@pytest.fixture(scope="module")
def weights(pictures):
    """Random weights with several predicted classes, curved enough that longer attacks fool more images."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.weight": (4, 3, 3, 3), "0.bias": (4,), "3.weight": (10, 256), "3.bias": (10,)}
    drawn = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    drawn["0.weight"] *= 10
    drawn["3.bias"] -= network(drawn)(pictures / 255).mean(dim=0).detach()
    return drawn


class SmallRun(Run):
    """A run of the small network."""

    def model(self):
        return network(load_file(self.path / "weights.safetensors"))


class Unasked(Run):
    """A run whose network nobody may ask."""

    def model(self):
        pytest.fail("the network was built")


def stored_run(folder, weights, seed=0, recipe=RECIPE):
    """A run that was never trained."""
    path = folder / recipe.run_name(seed)
    path.mkdir(parents=True)
    save_file(weights, path / "weights.safetensors")
    return SmallRun(recipe, seed, None, None, {}, path)


@pytest.fixture
def run(tmp_path, weights):
    return stored_run(tmp_path / "store", weights)


@pytest.fixture(scope="module")
def labels(weights, pictures):
    """The network's own predictions, but for every sixth."""
    correct_in = network(weights)(pictures / 255).argmax(dim=1)
    correct_in[::6] = (correct_in[::6] + 1) % 10
    return correct_in


@pytest.fixture(autouse=True)
def _surroundings(attacked_images, pictures, labels, published_folder, in_float32):
    """Small images, no published files, and float32 everywhere."""
    attacked_images(pictures, labels)


@pytest.fixture
def computed(monkeypatch):
    """The trials that were computed, call by call."""
    calls, compute = [], _compute

    def recording(run, wanted, *args, **options):
        calls.append(list(wanted))
        return compute(run, wanted, *args, **options)

    monkeypatch.setattr("hfclib.paper.defense.trials._compute", recording)
    return calls


@pytest.fixture
def mine(own_home, run):
    return own_home / "attacks" / f"{run.path.name}.safetensors"


def correct_in(run, wanted, images=IMAGES):
    return trials_of(run, wanted, images=images, progress=False)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[trial], other[trial]) for trial in one)


# ---- which images stay correct


def by_hand(model, plain, images, labels, claimed):
    """Which images are correct after each attack, by method: every call with its numbers written out."""

    def single(model, images, labels, **options):
        return pgd(model, images, labels, eps=0.01, alpha=0.0125, steps=2, seed=0, **options)

    def several(model, images, labels, **options):
        return pgd(model, images, labels, eps=0.01, alpha=0.0125, steps=4, restarts=5, seed=0, **options)

    def on_plain(model, images, labels, *, loss, seed, indices):
        options = {"eps": 0.01, "alpha": 0.0125, "steps": 4, "restarts": 5, "loss": loss}
        return pgd(plain, images, labels, seed=seed, indices=indices, **options)

    attacks = {
        "fgsm": partial(fgsm, eps=0.01),
        "pgd": single,
        "unaware": lambda model, images, labels, indices: single(plain, images, labels, indices=indices),
        "restarts": several,
        "margin": partial(several, loss="margin"),
        "transfer": [partial(on_plain, loss="margin", seed=0), partial(on_plain, loss="cross_entropy", seed=1)],
        "square": partial(square, eps=0.01, queries=100, seed=0),
    }
    before = {"restarts": ["clean", *claimed], "margin": ["restarts"], "transfer": ["margin"], "square": ["transfer"]}
    right = {"clean": model(images).argmax(dim=1) == labels}
    for method, attack in attacks.items():
        correct = torch.stack([right[earlier] for earlier in before.get(method, ["clean"])]).all(dim=0)
        right[method] = correct.clone()
        right[method][correct] = robust_correct(model, images[correct], labels[correct], attack)
    return right


class Filtered(nn.Module):
    """A network on the LFC of its images at r = 3."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(split(images, 3)[0])


@pytest.mark.parametrize("defense", [NONE, FILTERED])
def test_trials_are_those_worked_out_by_hand(run, pictures, labels, defense):
    attacks = [*table_attacks(defense, [EPS], STEPS), *long_attacks(EPS, STEPS)]
    kept = correct_in(run, [(defense, attack) for attack in attacks])
    model, claimed = run.model(), ["fgsm", "pgd"]
    if defense == FILTERED:
        model, claimed = Filtered(model), [*claimed, "unaware"]
    expected = by_hand(model, run.model(), pictures / 255, labels, claimed)
    assert list(kept) == [(defense, attack) for attack in attacks]
    for (_, attack), correct in kept.items():
        assert correct.dtype == torch.bool
        assert correct.tolist() == expected[attack.method].tolist(), attack.method
    if defense == NONE:
        assert expected["clean"].sum() == 20
        assert torch.equal(expected["transfer"], expected["margin"])  # which is not run again
        assert expected["pgd"].sum() > expected["restarts"].sum() > expected["margin"].sum() > 0
    else:
        assert expected["clean"].sum() > expected["unaware"].sum() > expected["pgd"].sum() > 0


@pytest.mark.parametrize("defense", [NONE, RULE, FILTERED])
def test_an_image_that_an_earlier_attack_fooled_stays_fooled(run, attacked_images, pictures, monkeypatch, defense):
    """Attacks that fool one image each, which is told by its label, and are shown no image that is fooled already."""
    fools = {"clean": 0, "fgsm": 1, "pgd": 2, "unaware": 3, "restarts": 4, "margin": 5, "transfer": 6, "square": 7}
    shown = {}

    def fooling(network, images, labels, method="clean", **options):
        assert options == ({} if method == "clean" else {"amp": True})
        shown[method] = set(labels.tolist())
        return labels != fools[method]

    attacked_images(pictures, torch.arange(IMAGES))
    monkeypatch.setattr("hfclib.paper.defense.trials.attack_functions", lambda attack, undefended: attack.method)
    for name in ("clean_correct", "robust_correct"):
        monkeypatch.setattr(f"hfclib.paper.defense.trials.{name}", fooling)
    fooled = {"clean": {0}, "fgsm": {0, 1}, "pgd": {0, 2}, "unaware": {0, 3}, "restarts": {0, 1, 2, 4}}
    if defense == FILTERED:
        fooled["restarts"].add(3)
    fooled["margin"] = fooled["restarts"] | {5}
    fooled["transfer"] = fooled["margin"] | ({6} if defense != NONE else set())  # it is the margin's, and not run
    fooled["square"] = fooled["transfer"] | {7}
    kept = correct_in(run, [(defense, attack) for attack in (*table_attacks(defense, [EPS], 1), *long_attacks(EPS, 1))])
    for (_, attack), correct in kept.items():
        assert set((~correct).nonzero().flatten().tolist()) == fooled[attack.method], attack.method
    methods = {attack.method for _, attack in kept} - ({"transfer"} if defense == NONE else set())
    assert shown == {method: set(range(IMAGES)) - (fooled[method] - {fools[method]}) for method in methods}


def test_a_network_with_no_image_left_is_no_error(run):
    strong = [(NONE, attack) for attack in long_attacks(0.5, 1)]
    assert [int(correct.sum()) for correct in correct_in(run, strong).values()] == [0, 0, 0, 0]


def test_trials_that_others_build_on_come_first_and_once():
    for defense in (NONE, RULE, FILTERED):
        chain = [(defense, own) for own in (*table_attacks(defense, [EPS], STEPS), *long_attacks(EPS, STEPS))]
        for wanted in ([chain[-1]], chain, chain[::-1], [chain[-2], chain[1], chain[-1], chain[-1]]):
            ordered = _with_those_before(wanted)
            assert len(ordered) == len(set(ordered))
            assert set(ordered) == set(chain)
            for place, (own, attack) in enumerate(ordered):
                assert {(own, earlier) for earlier in attacks_before(own, attack)} <= set(ordered[:place])
        assert _with_those_before(chain) == chain


def test_every_eps_and_number_of_steps_has_a_chain_of_its_own():
    wanted = list(itertools.product([NONE], long_attacks(0.1, 3) + long_attacks(0.2, 3) + long_attacks(0.1, 4)))
    ordered = _with_those_before(wanted)
    assert len(ordered) == len(set(ordered)) == 1 + 2 + 3 + 12  # clean, FGSM at two eps, PGD in three ways, and wanted
    assert len({_trial_name(trial, 7) for trial in ordered}) == len(ordered)


# ---- stored


def test_a_second_call_reads_the_record_and_computes_nothing(run, mine, computed):
    first = correct_in(run, SOME)
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]
    again = correct_in(Unasked(**vars(run)), SOME)
    assert same(again, first)
    assert {correct.dtype for correct in again.values()} == {torch.bool}
    assert list(correct_in(run, SOME[::-1])) == SOME[::-1]
    assert computed == [SOME]


def test_one_byte_per_image_under_readable_names(run, mine):
    correct_in(run, SOME)
    stored = load_file(mine)
    assert set(stored) == {
        "none 0 clean 0 0 24",
        "none 0 fgsm 0.01 1 24",
        "normalised 0.1 clean 0 0 24",
        "normalised 0.1 pgd 0.01 2 24",
    }
    assert {(tensor.dtype, tuple(tensor.shape)) for tensor in stored.values()} == {(torch.uint8, (IMAGES,))}


def test_only_missing_trials_are_computed_and_nothing_is_lost(run, mine, computed):
    first = correct_in(run, SOME[:2])
    assert list(correct_in(run, SOME[1:])) == SOME[1:]
    longer = (RULE, Attack("restarts", EPS, STEPS))
    assert list(correct_in(run, [longer])) == [longer]
    assert computed == [SOME[:2], SOME[2:], [(RULE, FGSM), longer]]  # PGD and clean, on which it builds, were there
    stored = load_file(mine)
    assert set(stored) == {_trial_name(trial, IMAGES) for trial in [*SOME, (RULE, FGSM), longer]}
    assert same(correct_in(run, SOME[:2]), first)


def test_the_order_of_what_is_asked_does_not_matter(run, mine):
    wanted = [*SOME, (NONE, SQUARE._replace(steps=1)), (FILTERED, PGD)]
    forth = correct_in(run, wanted)
    mine.unlink()
    back = correct_in(run, wanted[::-1])
    assert list(back) == wanted[::-1]
    assert all(torch.equal(back[trial], forth[trial]) for trial in wanted)


def test_another_number_of_images_is_another_entry(run, mine, computed):
    few, all_of_them = correct_in(run, SOME, images=10), correct_in(run, SOME)
    assert computed == [SOME, SOME]
    assert {len(correct) for correct in few.values()} == {10}
    assert {len(correct) for correct in all_of_them.values()} == {IMAGES}
    assert torch.equal(few[NONE, CLEAN], all_of_them[NONE, CLEAN][:10])  # the first ones
    assert len(load_file(mine)) == 2 * len(SOME)
    assert same(correct_in(run, SOME, images=10), few)
    assert len(computed) == 2


def test_published_trials_come_first(run, mine, computed, published_folder):
    first = correct_in(run, SOME)
    path = published_folder / "attacks" / mine.name
    path.parent.mkdir(parents=True)
    mine.rename(path)
    before = path.read_bytes()
    assert same(correct_in(run, SOME), first)
    assert not mine.exists()
    correct_in(run, [(NONE, PGD)])
    assert computed == [SOME, [(NONE, PGD)]]
    assert path.read_bytes() == before
    assert _trial_name((NONE, PGD), IMAGES) in load_file(mine)


def test_an_interrupted_run_keeps_what_was_done(run, mine, computed, monkeypatch):
    expected, calls = correct_in(run, SOME), []
    mine.unlink()

    def stopping(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return clean_correct(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("hfclib.paper.defense.trials.clean_correct", stopping)  # of the first trial and the third
        with pytest.raises(KeyboardInterrupt):
            correct_in(run, SOME)
    done = set(load_file(mine))
    assert done == {_trial_name(trial, IMAGES) for trial in SOME[:2]}
    assert same(correct_in(run, SOME), expected)
    assert not {_trial_name(trial, IMAGES) for trial in computed[-1]} & done


def test_trials_under_a_longer_attack_are_another_entry(run, mine, computed, monkeypatch):
    chain = [(NONE, attack) for attack in long_attacks(EPS, 1)]
    correct_in(run, [*SOME[:2], *chain])
    usual = set(load_file(mine))
    assert not any(word in name for name in usual for word in ("restarts 5", "longer", "queries"))
    for name, value in (("QUERIES", 60), ("RESTARTS", 6)):
        with monkeypatch.context() as patch:
            for module in ("setup", "trials"):
                patch.setattr(f"hfclib.paper.defense.{module}.{name}", value)
            correct_in(run, [*SOME[:2], *chain])
    pgd = (NONE, PGD._replace(steps=1))
    assert computed == [[*SOME[:2], pgd, *chain], chain[-1:], chain]
    more = {f"none 0 {one} 0.01 1 24 restarts 6" for one in ("restarts", "margin", "transfer", "square")}
    assert set(load_file(mine)) == usual | {"none 0 square 0.01 1 24 queries 60"} | more


def test_trials_of_an_earlier_version_of_the_attacks_are_made_again(run, mine, computed):
    """Under a defense "transfer" and "square" have a second version; without one they are as they were."""
    wanted = [(one, Attack(method, EPS, 1)) for one in (NONE, RULE) for method in ("margin", "transfer", "square")]
    names = [_trial_name(trial, IMAGES) for trial in wanted]
    earlier = [name.removesuffix(" v2") for name in names]
    assert [name != old for name, old in zip(names, earlier, strict=True)] == [False] * 4 + [True] * 2
    first = correct_in(run, wanted)
    stored = load_file(mine)
    for name, old in zip(names[4:], earlier[4:], strict=True):
        stored[old] = 1 - stored.pop(name)
    mine.unlink()
    store_record("attacks", run.path.name, stored, weights_of(run.path))
    assert same(correct_in(run, wanted), first)
    assert computed[1:] == [wanted[4:]]
    assert {*names, *earlier} <= set(load_file(mine))  # nothing is lost


def test_a_damaged_record_is_refused_by_name_and_kept(run, mine):
    correct_in(run, SOME[:2])
    whole = mine.read_bytes()
    for at in (0, 40, len(whole) // 2, -1):
        content = bytearray(whole)
        content[at] ^= 1
        mine.write_bytes(content)
        for wanted in (SOME[:2], SOME):
            with pytest.raises(RunError, match=rf"(?s){re.escape(str(mine))}.*delete it"):
                correct_in(run, wanted)
        assert mine.read_bytes() == content


@pytest.mark.parametrize("progress", [False, True])
def test_bad_trials_are_refused_before_anything_is_computed(run, mine, progress):
    class Silent(Run):
        def model(self):
            model = SmallRun.model(self)
            model.register_forward_pre_hook(lambda *_: pytest.fail("the network was asked"))
            return model

    run = Silent(**vars(run))
    for images in (0, -1, 10_001):
        with pytest.raises(ValueError, match="expected images, from 1 to 10000"):
            trials_of(run, SOME, images=images, progress=progress)
    bad = [
        ((NONE, Attack("cw", EPS, 1)), "method of an attack, one of fgsm"),
        ((Defense("blur", 1.0), CLEAN), "method of a defense, one of none"),
        ((Defense("rule", -1.0), CLEAN), "finite rho"),
        ((Defense("input", -1.0), FGSM), "finite radius"),
    ]
    for trial, message in bad:
        with pytest.raises(ValueError, match=message):
            trials_of(run, [*SOME, trial], images=IMAGES, progress=progress)
    assert not mine.exists()


# ---- what is said


def test_how_long_it_takes_is_said_only_before_something_is_computed(run, capsys):
    trials_of(run, SOME, images=IMAGES)
    pattern = rf"4 attacks on {re.escape(run.path.name)} to run on cpu, .*: at most \d+\.\d minutes\n"
    assert re.fullmatch(pattern, capsys.readouterr().out)
    trials_of(run, SOME, images=IMAGES)
    assert capsys.readouterr().out == ""
    trials_of(run, [(RULE, FGSM)], images=IMAGES, progress=False)
    assert "".join(capsys.readouterr()) == ""


def test_the_most_it_takes_counts_passes(monkeypatch, run, pictures):
    """A pass of 8 images takes 4 seconds of this clock, so one of all 24 takes 12."""
    ticks = itertools.count(step=4)
    monkeypatch.setattr("hfclib.paper.defense.trials.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    counts = {
        "clean": 1,
        "fgsm": 3 + 1,
        "pgd": 3 * 7 + 1,
        "unaware": 3 * 7 + 1,
        "restarts": 3 * 5 * 2 * 7 + 1,
        "margin": 3 * 5 * 2 * 7 + 1,
        "transfer": 2 * 3 * 5 * 2 * 7 + 1,
        "square": 50 * 7 + 1,
    }
    for method, count in counts.items():
        attack = CLEAN if method == "clean" else Attack(method, EPS, 1 if method == "fgsm" else 7)
        assert _max_runtime(run.model(), pictures[:8] / 255, [(RULE, attack)], 24) == pytest.approx(12 * count)
    wanted = [(NONE, FGSM), (RULE, FGSM), (RULE, CLEAN)]
    assert _max_runtime(run.model(), pictures[:8] / 255, wanted, 24) == pytest.approx(12 * 9)


def test_a_flat_gradient_is_no_warning_here(tmp_path, weights, labels, pictures):
    """It is what some defenses do, and why the later attacks are there."""
    sharp = {name: tensor * 10_000 if name.startswith("3.") else tensor for name, tensor in weights.items()}
    run = stored_run(tmp_path / "sharp", sharp)
    with pytest.warns(UserWarning, match="the gradient is exactly zero"):
        pgd(run.model(), pictures / 255, run.model()(pictures / 255).argmax(dim=1), eps=EPS, alpha=EPS, steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert correct_in(run, [(NONE, PGD), (NONE, SQUARE)])[NONE, PGD].sum() > 0


def test_other_warnings_come_through(run):
    class Softmax(Run):
        def model(self):
            return nn.Sequential(SmallRun.model(self), nn.Softmax(dim=1)).eval()

    with pytest.warns(UserWarning, match="seems to return probabilities"):
        correct_in(Softmax(**vars(run)), [(NONE, FGSM)])


# ---- tables


@pytest.fixture
def two(tmp_path, weights):
    """Runs of two recipes; all answers of the second's seed 0 are one class on from the others'."""
    other = weights | {name: weights[name].roll(1, dims=0).contiguous() for name in ("3.weight", "3.bias")}
    ones = [
        stored_run(tmp_path / "store", one, seed, RECIPE.with_(norm="batch"))
        for seed, one in ((0, other), (1, weights))
    ]
    return {"vanilla": [stored_run(tmp_path / "store", weights)], "batchnorm": ones}


def test_the_table_has_one_row_per_trial(two):
    eps = [EPS, 2 * EPS]
    rows = trials_table(two, [0.1], eps, 1, images=8, progress=False)
    assert list(rows.columns) == [*TRIAL_COLUMNS, "images", "accuracy", "correct"]
    trials_of_one = [(defense, attack) for defense in all_defenses([0.1]) for attack in table_attacks(defense, eps, 1)]
    expected = [
        (variant, run.seed, *defense, *attack)
        for variant, ones in two.items()
        for run in ones
        for defense, attack in trials_of_one
    ]
    assert list(rows[TRIAL_COLUMNS].itertuples(index=False, name=None)) == expected
    assert set(rows["images"]) == {8}
    for row in rows.itertuples():
        assert len(row.correct) == 8
        assert {type(one) for one in row.correct} == {bool}
        assert row.accuracy == pytest.approx(sum(row.correct) / 8)
    for variant, ones in two.items():
        for run in ones:
            stored = correct_in(run, trials_of_one, images=8)
            own = rows[(rows["variant"] == variant) & (rows["seed"] == run.seed)]
            assert own["correct"].tolist() == [tuple(correct.tolist()) for correct in stored.values()]
    clean = rows[(rows["attack"] == "clean") & (rows["defense"] == "none")].set_index(["variant", "seed"])["accuracy"]
    assert clean["vanilla", 0] == clean["batchnorm", 1] == pytest.approx(6 / 8)
    assert clean["batchnorm", 0] < 0.5


def test_strong_trials_have_four_rows_for_each_that_is_wanted(two, computed):
    wanted = pd.DataFrame(
        [
            ("vanilla", 0, "none", 0.0, EPS),
            ("batchnorm", 1, "normalised", 0.1, EPS),
            ("batchnorm", 1, "normalised", 0.1, 2 * EPS),
            ("batchnorm", 1, "none", 0.0, EPS),
        ],
        columns=["variant", "seed", "defense", "strength", "eps"],
    )
    rows = strong_trials(two, wanted, 1, images=8, progress=False)
    assert list(rows.columns) == [*TRIAL_COLUMNS, "images", "accuracy", "correct"]
    expected = [
        (*row[:4], method, row[4], 1)
        for row in wanted.itertuples(index=False, name=None)
        for method in ("restarts", "margin", "transfer", "square")
    ]
    assert list(rows[TRIAL_COLUMNS].itertuples(index=False, name=None)) == expected
    assert len(computed) == 2  # the other run is not asked
    for row in rows.itertuples():
        (run,) = (one for one in two[row.variant] if one.seed == row.seed)
        trial = Defense(row.defense, row.strength), Attack(row.attack, row.eps, row.steps)
        assert row.correct == tuple(correct_in(run, [trial], images=8)[trial].tolist())
        assert row.accuracy == pytest.approx(sum(row.correct) / 8)
        assert row.images == 8


def test_rows_are_of_the_trials_that_are_wanted_of_each_network(two):
    wanted = {"batchnorm": [(RULE, PGD), (NONE, CLEAN)], "penalised": SOME}
    rows = trial_rows(two, lambda variant, seed: wanted.get(variant, []), images=8, progress=False)
    expected = [("batchnorm", seed, *defense, *attack) for seed in (0, 1) for defense, attack in ((RULE, PGD), SOME[0])]
    assert list(rows[TRIAL_COLUMNS].itertuples(index=False, name=None)) == expected
    for row in rows.itertuples():
        (run,) = (one for one in two[row.variant] if one.seed == row.seed)
        trial = Defense(row.defense, row.strength), Attack(row.attack, row.eps, row.steps)
        assert row.correct == tuple(correct_in(run, [trial], images=8)[trial].tolist())
    stored = trial_rows(two, lambda variant, seed: [(RULE, PGD), (FILTERED, PGD)], images=8, compute=False)
    assert set(stored["variant"]) == {"batchnorm"}
    assert set(stored["defense"]) == {RULE.method}  # what is not stored is left out


def test_no_strong_trials_wanted_is_no_error(two, computed):
    empty = pd.DataFrame(columns=["variant", "seed", "defense", "strength", "eps"])
    rows = strong_trials(two, empty, 1, images=8)
    assert len(rows) == 0
    assert list(rows.columns) == [*TRIAL_COLUMNS, "images", "accuracy", "correct"]
    assert computed == []


def test_the_smallest_eps_fools_and_a_smaller_one_does_not(run, pictures, labels):
    table = smallest_eps_table({"vanilla": run}, IMAGES)
    model, images, eps = run.model(), pictures / 255, torch.tensor(table["vanilla"].to_numpy())
    correct = model(images).argmax(dim=1) == labels
    assert torch.equal(eps == 0, ~correct)
    fooled = correct & eps.isfinite()
    assert fooled.sum() > 5

    def left(factor):
        tried = eps[fooled] * factor
        attack = {"eps": tried, "alpha": tried / 2, "steps": 5, "seed": 0}
        adv_images = pgd(model, images[fooled], labels[fooled], **attack)
        return (model(adv_images).argmax(dim=1) == labels[fooled]).float().mean()

    assert left(2) < 0.1 < left(0.5)
    assert smallest_eps_table({"vanilla": Unasked(**vars(run))}, IMAGES).equals(table)
