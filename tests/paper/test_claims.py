"""The file of claims: contrasts, what is refused and how, and the scoreboard that it gives."""

import re
from itertools import groupby
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from hfclib.paper.claims import CELL_COLUMNS, FILE, Contrast, check_cells, evaluate, load_claims, main_of
from hfclib.paper.intervals import Estimate, MissingRunError, over_seeds
from hfclib.paper.measurements import initial_draw
from hfclib.paper.paper_values import FIG4_VALUES
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import CLAIMS
from hfclib.training.loop import initial_model

VALUES = {("vanilla", "H4"): np.array([0.1, 0.2]), ("batchnorm", "H4"): np.array([0.5, np.nan]), ("mixup", "L8"): 2.0}
ENTRY = """# two claims
- id: fig4-one
  chapter: fig4
  section: section 5
  text: "BatchNorm is ahead"
  version: as it is
  contrast: batchnorm.H4 - vanilla.H4
  relation: exceeds
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batchnorm.H4 - vanilla.H4", [0.4, np.nan]),
        ("mean(vanilla.H4, 3 * vanilla.H4)", [0.2, 0.4]),
        ("max(vanilla.H4, batchnorm.H4)", [0.5, np.nan]),  # a missing run is no extreme
        ("min(vanilla.H4, .15)", [0.1, 0.15]),
        ("abs(vanilla.H4 - .15) / mixup.L8", [0.025, 0.025]),
        ("-(vanilla.H4 + 1)", [-1.1, -1.2]),
    ],
)
def test_a_contrast_is_arithmetic_on_arrays(text, expected):
    contrast = Contrast(text)
    assert contrast({cell: VALUES[cell] for cell in contrast.cells}) == pytest.approx(expected, nan_ok=True)


def test_a_contrast_lists_each_cell_once():
    assert Contrast("mean(a.H4 - b.H4, a.H4)").cells == (("a", "H4"), ("b", "H4"))


@pytest.mark.parametrize(
    "text",
    [
        "vanilla",
        "open('x')",
        "vanilla.H4.real",
        "vanilla.H4 ** 2",
        "vanilla['H4']",
        "max(vanilla.H4, key=1)",
        "'a'",
        "a.b -",
    ],
)
def test_nothing_but_arithmetic_is_a_contrast(text):
    with pytest.raises(ValueError, match="expected arithmetic on cells"):
        Contrast(text)


def cells(rows):
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def test_a_contrast_is_over_the_seeds_that_have_all_cells_of_the_condition():
    table = cells(
        [
            ("a", "H4", "authors", 0, 0.5),
            ("a", "H4", "authors", 1, 0.7),
            ("a", "H4", "authors", 2, 0.9),
            ("a", "H4", "controlled", 0, 99),
            ("b", "test", "", 1, 0.1),
            ("b", "test", "", 0, 0.2),
        ]
    )
    assert evaluate("a.H4 - b.test", table, "authors") == over_seeds([0.3, 0.6])
    assert evaluate("a.H4 - b.test", table, "controlled") == Estimate(pytest.approx(98.8), -np.inf, np.inf, 1)
    with pytest.raises(MissingRunError, match=r"no run has b\.H4, c\.H4"):
        evaluate("a.H4 - b.H4 - c.H4", table, "authors")
    with pytest.raises(MissingRunError, match="no seed"):
        evaluate("a.H4 - b.test", table[(table["seed"] == 2) | (table["variant"] == "b")], "authors")


def test_networks_of_other_initial_weights_are_not_paired():
    """Welch's interval of two samples, against SciPy's; seeds need not agree. An extreme is taken seed by seed."""
    first, second = [0.5, 0.7, 0.9, 0.6], [0.1, 0.2, 0.15]
    rows = [("a", "H4", "", seed, value, "one") for seed, value in enumerate(first)]
    rows += [("b", "H4", "", 5 + seed, value, "other") for seed, value in enumerate(second)]
    table = pd.DataFrame(rows, columns=[*CELL_COLUMNS, "draw"])
    estimate = evaluate("2 * a.H4 - b.H4 - .1", table)
    expected = stats.ttest_ind(2 * np.array(first), second, equal_var=False).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low - 0.1, expected.high - 0.1))
    assert estimate.seeds == 3
    assert estimate.p == pytest.approx(stats.ttest_ind(2 * np.array(first) - 0.1, second, equal_var=False).pvalue)
    with pytest.raises(MissingRunError, match="no seed"):
        evaluate("max(a.H4, b.H4)", table)


def test_the_draw_of_the_images_widens_an_interval():
    """Both networks lose .01 by the draw of the same images; what enters with one sign adds up before it is squared."""
    table = cells([(name, "H4", "", seed, value) for name, value in (("a", 0.6), ("b", 0.2)) for seed in range(3)])
    table = table.assign(image_sd=0.01, sample="test")
    for text, error in (("a.H4", 0.01), ("a.H4 - b.H4", 0.01 * 2**0.5), ("a.H4 + b.H4", 0.02), ("3 * a.H4", 0.03)):
        estimate = evaluate(text, table)
        assert estimate.high - estimate.mean == pytest.approx(1.959964 * error), text
    trained = table.assign(sample=table["variant"])  # other images each
    estimate = evaluate("a.H4 + b.H4", trained)
    assert estimate.high - estimate.mean == pytest.approx(1.959964 * 0.01 * 2**0.5)
    one = evaluate("a.H4 - .5", table[table["seed"] == 0], units="images")
    assert (one.low, one.high, one.seeds) == (pytest.approx(0.1 - 0.0196, abs=1e-5), pytest.approx(0.1196, abs=1e-5), 1)


def test_an_extreme_loses_by_the_draw_of_the_images_on_whichever_side_it_moves():
    """Two accuracies nearly as far from the paper's, both below it or both above: the largest distance may grow."""
    halves = []
    for a, b in ((0.48, 0.481), (0.52, 0.519)):
        table = cells([(name, "H4", "", seed, value) for name, value in (("a", a), ("b", b)) for seed in range(3)])
        estimate = evaluate("max(abs(a.H4 - .5), abs(b.H4 - .5))", table.assign(image_sd=0.01, sample="test"))
        halves.append(estimate.high - estimate.mean)
    assert halves[0] == pytest.approx(halves[1])
    assert halves[0] >= 1.96 * 0.0099


def test_an_interval_of_seeds_and_images_is_never_narrower_than_that_of_the_seeds():
    rows = [("a", "H4", "", seed, value) for seed, value in enumerate((0.1, 0.3, 0.2))]
    alone = evaluate("a.H4", cells(rows))
    for error in (1e-6, 0.01, 0.1, 1.0):
        estimate = evaluate("a.H4", cells(rows).assign(image_sd=error, sample="test"))
        squares = (alone.high - alone.mean) ** 2 + (1.959964 * error) ** 2
        assert (estimate.high - estimate.mean) ** 2 == pytest.approx(squares)


@pytest.mark.slow
def test_the_bound_on_the_images_covers_correlated_predictions():
    """Simulated: two networks of three seeds whose predictions on an image are correlated by its difficulty."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        difficulty = random.normal(size=400)
        rows = []
        for name, skill in (("a", 0.5), ("b", 0.0)):
            for seed in range(3):
                margin = skill + random.normal(scale=0.1) + difficulty + random.normal(size=400)
                share = float((margin > 0).mean())
                rows.append((name, "H4", "", seed, share, (share * (1 - share) / 400) ** 0.5, "test", name))
        table = pd.DataFrame(rows, columns=[*CELL_COLUMNS, "image_sd", "sample", "draw"])
        estimate = evaluate("a.H4 - b.H4", table)
        truth = NormalDist(0, (1 + 1 + 0.1**2) ** 0.5).cdf(0.5) - 0.5
        covered += estimate.low <= truth <= estimate.high
    assert covered / 400 >= 0.95


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"relation: exceeds": "relation: exceds"}, "line 2: expected relation, .*got 'exceds'; did you mean exceeds"),
        ({"chapter: fig4": "chapter: fig5"}, "line 2: expected chapter, .*got 'fig5'; did you mean fig4"),
        ({"version:": "versoin:"}, "line 2: .*unknown field, got 'versoin'; did you mean version"),
        ({"  text:": "  bound: much\n  text:"}, "line 2: bound: .*number"),
        ({"contrast: ": "contrast: open("}, "line 2: expected arithmetic on cells"),
        ({"  contrast: batchnorm.H4 - vanilla.H4\n": ""}, "line 2: expected a contrast or a function"),
        ({"  text:": "  bound: 0.1\n  text:"}, "line 2: expected no bound with 'exceeds'"),
        ({"relation: exceeds": "relation: about"}, "line 2: expected a bound above 0 with 'about', got 0"),
    ],
)
def test_a_claim_that_is_none_is_refused_with_its_line(tmp_path, change, said):
    file = tmp_path / "claims.yaml"
    file.write_text(ENTRY)
    assert [claim.id for claim in load_claims(file)] == ["fig4-one"]
    text = ENTRY
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        load_claims(file)


def test_two_claims_of_one_id_are_refused(tmp_path):
    (tmp_path / "claims.yaml").write_text(ENTRY + ENTRY.removeprefix("# two claims\n"))
    with pytest.raises(ValueError, match=r"claims.yaml, line 9: expected an id of its own, got 'fig4-one' again"):
        load_claims(tmp_path / "claims.yaml")


def test_a_claim_about_what_is_not_measured_is_refused(tmp_path):
    file = tmp_path / "claims.yaml"
    known = {"variants": ["vanilla", "batchnorm"], "measures": "H4", "conditions": ["authors"], "functions": ["shift"]}
    for change, said in (
        (
            ("batchnorm.H4", "bathnorm.H4"),
            "claims.yaml, line 2: fig4-one: unknown network, got 'bathnorm'; did you mean batchnorm",
        ),
        (("- vanilla.H4", "- vanilla.H44"), "line 2: fig4-one: unknown measure, not H4, got 'H44'; did you mean H4"),
        (("  relation", "  measured: author\n  relation"), "unknown condition, got 'author'; did you mean authors"),
        (("contrast: batchnorm.H4 - vanilla.H4", "function: shit"), "unknown function, got 'shit'; did you mean shift"),
    ):
        file.write_text(ENTRY)
        check_cells(load_claims(file), **known)
        file.write_text(ENTRY.replace(*change))
        with pytest.raises(ValueError, match=said):
            check_cells(load_claims(file), **known)


def test_published_differences_are_those_of_the_published_accuracies():
    """Each claim on heuristics whose cells the paper published, but for distances, has the paper's own contrast."""
    claims = [claim for claim in load_claims() if claim.chapter == "fig4" and claim.paper is not None]
    for claim in claims:
        (contrast,) = claim.contrasts
        values = {cell: FIG4_VALUES[cell[0].split("_")[0], cell[1]] for cell in contrast.cells}
        assert claim.paper == pytest.approx(contrast(values), abs=0.0005), claim.id


def test_draws_say_which_networks_start_from_the_same_weights():
    """Over all networks of the chapters: equal draws are equal weights, and others differ."""
    recipes = {
        recipe.hash: recipe
        for name in ("fig3", "datasets", "training")
        for recipe in CHAPTERS[name].recipes("smoke").values()
    }
    by_draw = {}
    for recipe in recipes.values():
        weights = [weight for weight in initial_model(recipe, 0).parameters() if weight.ndim > 1]
        by_draw.setdefault(initial_draw(recipe), []).append(weights)
    assert len(by_draw) > 5
    for same in by_draw.values():
        for weights in same[1:]:
            assert all(torch.equal(first, other) for first, other in zip(weights, same[0], strict=True))
    firsts = [same[0][-1] for same in by_draw.values()]
    for place, first in enumerate(firsts):
        assert not any(first.shape == other.shape and torch.equal(first, other) for other in firsts[:place])


def test_a_failure_that_a_departure_may_cause_names_it():
    """Claims of the paper on our networks all have one; only claims of ours may be contradicted."""
    assert all(claim.departure for claim in CLAIMS if claim.section != "ours")


def test_the_file_reads_as_a_list_of_entries_chapter_by_chapter():
    ids, claims = re.findall(r"^- id: (.+)$", FILE.read_text(), re.MULTILINE), load_claims()
    assert ids == [claim.id for claim in claims]
    assert sorted(name for name, _ in groupby(claims, key=lambda claim: claim.chapter)) == sorted(CHAPTERS)


def test_just_one_claim_of_a_chapter_is_its_main_one():
    claims = CHAPTERS["fig3"].claims
    assert main_of(claims).id == "fig3-roughness-adversarial"
    for marked, said in (((), "none"), (claims[:2], f"{claims[0].id}, {claims[1].id}")):
        wrong = [claim.model_copy(update={"main": claim in marked}) for claim in claims]
        with pytest.raises(ValueError, match=f"one claim of fig3 with main: true, got {said}$"):
            main_of(wrong)


def test_a_topic_belongs_to_one_chapter_and_there_are_not_too_many_to_read():
    topics = {(claim.topic or claim.text, claim.chapter) for claim in CLAIMS}
    assert len({topic for topic, _ in topics}) == len(topics) <= 40
