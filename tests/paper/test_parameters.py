"""The check of a notebook's parameters: what it refuses, in which words, and before which work."""

import ast
import json
import math
import re
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import papermill
import pytest

from hfclib.paper.bands import fig1_recipes
from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.parameters import check_parameters, given_parameters
from hfclib.paper.registry import CHAPTERS
from hfclib.runs import Runs
from hfclib.runs.store import WEIGHTS

FOLDER = Path(__file__).parents[2] / "notebooks"
NAN, INF = math.nan, math.inf
BAD_WHOLE = [-1, 10**9, 8.5, 8.0, NAN, INF, "", "abc", "8", True, None, {}, {8}, b"8", np.int64(8), date(2020, 1, 1)]
BAD_NUMBER = [-0.1, 1e9, NAN, INF, "", "abc", "1.0", True, None, {}, 1j, b"1"]
BAD_TEXT = ["", "Raw", "rwa", "raw ", 0, True, None, ["raw"], {"a": "raw"}, b"raw"]
BAD = {
    "preset": BAD_TEXT,
    "feed": BAD_TEXT,
    "bn_stats": BAD_TEXT,
    "shift": BAD_TEXT,
    "choice": [*BAD_TEXT, [], ["optimizer", "optimizer"], ["optimizer", "raw"], "optimizer, architecture"],
    "retrain": ["True", "", 1, 0, 1.0, None, [], [True]],
    "radius": [*BAD_WHOLE, 0, 23, [], [0], [4, 23], [4, 4], [4, "8"], "[4, 8]", [[4]], list(range(1, 8))],
    "seed": [*BAD_WHOLE, 10_000, [], [1, 2]],
    "seeds": [*BAD_WHOLE, 10_000, [], [-1], [1, 1], [1, "2"], "0,1", [[1]], list(range(101))],
    "indices": [*BAD_WHOLE, 10_000, [], [-1], [95, 95], list(range(13))],
    "rho": [*BAD_NUMBER, 10.1, []],
    "eps": [*BAD_NUMBER, 1.01, [], [-0.1], [0.1, 0.1], [0.1, NAN], [0.1, "0.2"], [0.01 * i for i in range(1, 10)]],
    "steps": [*BAD_WHOLE, 0, 1001, []],
    "n_images": [*BAD_WHOLE, 0, 10_001, []],
}


@pytest.fixture
def no_data(monkeypatch):
    """Whatever loads images or runs fails the test."""

    def refused(*args, **options):
        pytest.fail("data was loaded")

    of_data = ("data.DataSet.embedded", "data.DataSet.load")
    for where in (*of_data, "runs.store.load", "runs.collect.find", "runs.collect.train_run"):
        monkeypatch.setattr(f"hfclib.{where}", refused)


def test_a_wrong_value_is_refused_at_once_with_what_is_allowed(no_data):
    for notebook, chapter in CHAPTERS.items():
        for parameter, field in chapter.parameters.model_fields.items():
            for value in BAD[parameter]:
                said = re.escape(f"parameter {parameter} = {value!r}: expected ")
                with pytest.raises(ValueError, match=said) as refusal:
                    chapter.check({parameter: value})
                assert field.description in str(refusal.value), (notebook, parameter, value)


def test_what_is_allowed_is_named():
    for notebook, parameter, allowed in (
        ("fig4", "preset", "one of smoke, laptop, narrow, paper, authors"),
        ("fig2", "bn_stats", "one of running, batch"),
        ("fig4", "retrain", "True or False"),
        ("fig2", "radius", "a whole number of DFT bins, from 1 to 22"),
        ("fig4", "seeds", "a whole number, from 0 to 9999, or a list of up to 100 different ones"),
        ("fig3", "rho", "a weight of the neighbours, from 0 to 10"),
        ("defense", "eps", "a distance in pixels of [0, 1], above 0, up to 0.5, or a list of up to 4 different ones"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"parameter {parameter} = None: expected {allowed}") + "$"):
            CHAPTERS[notebook].check({parameter: None})
    with pytest.raises(ValueError, match='-y "radius'):  # a list given as text
        CHAPTERS["fig4"].check({"radius": "[4, 8]"})


def test_the_limits_themselves_are_allowed():
    for notebook, name, value, expected in (
        ("fig4", "radius", 1, (1,)),
        ("fig4", "radius", [4, 22], (4, 22)),
        ("fig4", "radius", (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6)),
        ("fig2", "radius", 22, 22),
        ("fig3", "rho", 10, 10.0),
        ("tradeoff", "eps", [0, 1], (0.0, 1.0)),
        ("defense", "eps", 0.5, (0.5,)),
        ("defense", "n_images", 10_000, 10_000),
    ):
        found = getattr(CHAPTERS[notebook].check({"retrain": True, name: value}), name)
        assert (found, type(found)) == (expected, type(expected))
    with pytest.raises(ValueError, match="above 0"):
        CHAPTERS["defense"].check({"eps": 0})


def test_an_unknown_name_is_refused_with_those_allowed_and_the_nearest_one():
    known = CHAPTERS["fig4"].parameters.model_fields
    with pytest.raises(ValueError, match=f"allowed: {', '.join(known)}$"):
        CHAPTERS["fig4"].check({"x": 8})
    for name in known:
        with pytest.raises(ValueError, match=rf"did you mean {name}\?"):
            CHAPTERS["fig4"].check({f"{name}x": 8})


def test_only_plain_values_of_unknown_names_are_parameters():
    others = {"np": np, "runs": Runs(vanilla=[]), "In": [], "Out": {}, "_7": 3, "f": len, "array": np.zeros(2)}
    assert given_parameters({**others, "radius": 5}, ("radius",)) == {"radius": 5}


# ---- stored runs


def put(folder, chapter, preset, seeds, without=()):
    """Folders by the names of runs, with weights: the check looks no further."""
    for variant, recipe in CHAPTERS[chapter].recipes(preset).items():
        for seed in seeds:
            if (variant, seed) not in without:
                (folder / recipe.run_name(seed)).mkdir(parents=True)
                (folder / recipe.run_name(seed) / WEIGHTS).touch()


@pytest.mark.parametrize("notebook", [name for name in CHAPTERS if name not in ("fig1", "labels", "datasets")])
def test_a_run_that_is_not_stored_is_named(notebook, own_home):
    chapter = CHAPTERS[notebook]
    variant, recipe = next(iter(chapter.recipes("smoke").items()))
    several = "seeds" in chapter.parameters.model_fields
    namespace = {"preset": "smoke", **({"seeds": [3, 5]} if several else {"seed": 5})}
    put(chapter.folders()[-1], notebook, "smoke", (3, 5) if several else (5,), without=[(variant, 5)])
    with pytest.raises(ValueError, match=rf"not stored at preset smoke: {re.escape(recipe.run_name(5))}$"):
        chapter.check(namespace)
    assert chapter.check(namespace | {"retrain": True}).retrain is True
    others = [(one, 5) for one in chapter.recipes("smoke") if one != variant]
    put(chapter.folders()[-1], notebook, "smoke", [5], without=others)
    assert chapter.check(namespace).all_seeds == ((3, 5) if several else (5,))


def test_weights_that_the_notebook_asks_for_must_be_kept_of_the_first_seed(own_home):
    """Also of networks that may be missing, as those of the chapter on labels."""
    for notebook, variant in (
        ("fig4", "batchnorm"),
        ("fig3", "vanilla"),
        ("labels", "shuffled"),
        ("datasets", "batchnorm"),
    ):
        put(own_home / "runs", notebook, "smoke", [3, 5])
        weights = f"{CHAPTERS[notebook].recipes('smoke')[variant].run_name(5)}/{WEIGHTS}"
        (own_home / "runs" / weights).unlink()
        assert CHAPTERS[notebook].check({"preset": "smoke", "seeds": [3, 5]}).seeds == (3, 5)
        with pytest.raises(ValueError, match=rf"not stored at preset smoke: {re.escape(weights)}$"):
            CHAPTERS[notebook].check({"preset": "smoke", "seeds": [5, 3]})
        shutil.rmtree(own_home)


def test_a_variant_that_takes_hours_may_be_missing(own_home):
    put(own_home / "runs", "fig2", "laptop", [7], without=[("fullwidth", 7)])
    assert CHAPTERS["fig2"].check({"seed": 7}).seed == 7
    assert CHAPTERS["tradeoff"].check({"seeds": 7}).seeds == (7,)


def test_table_1_does_with_the_networks_that_are_there_for_any_seed(own_home):
    recipes = fig1_recipes("smoke")
    put(own_home / "runs", "fig1", "smoke", [3, 5], without=[(variant, 5) for variant in recipes])
    with pytest.raises(ValueError, match=r"not stored at preset smoke: .*smoke-lfc4-5-"):
        CHAPTERS["fig1"].check({"preset": "smoke", "seeds": [3, 5]})  # no network has the second
    (own_home / "runs" / recipes["hfc12"].run_name(5)).mkdir()
    assert CHAPTERS["fig1"].check({"preset": "smoke", "seeds": [3, 5]}).seeds == (3, 5)


def test_kernels_of_robust_networks_may_be_missing_but_not_those_of_natural_ones(own_home):
    recipes = fig3_recipes("smoke")
    robust = [(variant, 5) for variant in recipes if variant not in ("vanilla", "batchnorm")]
    put(own_home / "runs", "fig3", "smoke", [3, 5], without=robust)
    asked = {"preset": "smoke", "seeds": [3, 5]}
    assert CHAPTERS["fig3"].check(asked).seeds == (3, 5)
    shutil.rmtree(own_home / "runs" / recipes["batchnorm"].run_name(5))
    with pytest.raises(ValueError, match=rf"not stored at preset smoke: {recipes['batchnorm'].run_name(5)}$"):
        CHAPTERS["fig3"].check(asked)


# ---- the notebooks


def code_of(notebook):
    """The source of a notebook's code cells."""
    cells = json.loads((FOLDER / f"{notebook}.ipynb").read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_defaults_are_those_of_the_parameters_cell():
    kinds = {bool: "bool", str: "str", int: "int", float: "float", tuple: "list"}
    for notebook, chapter in CHAPTERS.items():
        cell = papermill.inspect_notebook(str(FOLDER / f"{notebook}.ipynb"))
        defaults = {name: ast.literal_eval(parameter["default"]) for name, parameter in cell.items()}
        assert set(defaults) == set(chapter.parameters.model_fields), notebook
        usual = chapter.parameters()
        assert check_parameters(chapter.parameters, defaults) == usual
        for name, parameter in cell.items():
            assert parameter["inferred_type_name"] == kinds[type(getattr(usual, name))], (notebook, name)


def test_the_notebooks_are_those_that_are_checked():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(CHAPTERS)


def test_the_check_is_a_notebooks_first_call():
    for notebook in CHAPTERS:
        imports, values, work = code_of(notebook)[:3]
        assert all(isinstance(line, ast.Import | ast.ImportFrom) for line in ast.parse(imports).body), notebook
        assert all(isinstance(line, ast.AnnAssign) for line in ast.parse(values).body), notebook
        assert work.startswith(f"settings = {notebook}.{notebook.upper()}.check(globals())")


def test_a_check_may_run_again_after_the_notebook_has_set_names_of_its_own():
    for notebook, chapter in CHAPTERS.items():
        nodes = [node for node in ast.walk(ast.parse("\n".join(code_of(notebook)))) if isinstance(node, ast.Name)]
        own = {node.id for node in nodes if isinstance(node.ctx, ast.Store)} - set(chapter.parameters.model_fields)
        namespace = chapter.parameters().model_dump()
        first = check_parameters(chapter.parameters, namespace)
        namespace |= {name: [1] for name in own}
        assert check_parameters(chapter.parameters, namespace) == first, notebook
        with pytest.raises(ValueError, match="unknown parameter presets"):
            check_parameters(chapter.parameters, namespace | {"presets": 1})
