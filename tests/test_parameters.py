"""hfclib.parameters: every wrong input of every notebook is refused at once, and notebooks and checks agree."""

import ast
import json
import math
import re
import time
from datetime import date
from pathlib import Path

import numpy as np
import papermill
import pytest

from hfclib import data, figures, parameters, predictions, runs, training
from hfclib.obtain import Runs
from hfclib.parameters import NOTEBOOKS, check

FOLDER = Path(__file__).parents[1] / "notebooks"
NAN, INF = float("nan"), float("inf")
STORED = "seeds whose runs are stored"


def kind(parameter):
    """What a parameter takes, by its default."""
    default = parameter.default
    if isinstance(default, bool):
        return "switch"
    if isinstance(default, str):
        return "choice"
    if isinstance(default, int | float):
        return "whole" if isinstance(default, int) else "number"
    return "numbers" if isinstance(default[0], float) else "wholes"


# Wrong for every parameter of a kind...
BAD = {
    "switch": ["yes", "true", "True", "", "0", 1, 0, 1.0, NAN, None, [], [True], (True,), {}, {True}, np.True_],
    "choice": ["", " ", "none of them", "RAW", "Laptop", "raw ", "raw,max", 1, 0, 0.5, True, NAN, INF, None, [],
               ["raw"], ("laptop",), {"a": "raw"}, {"raw"}, b"raw"],
    "whole": [-1, 10**9, -(10**9), 8.0, 7.5, NAN, INF, -INF, "", "abc", "8", "1e1", "1,2", True, False, None, [], [8],
              [1, 2], (8,), {}, {8}, 8j, b"8", range(8), np.int64(8), date(2020, 1, 1)],
    "number": [-0.1, 10**9, -(10**9), 1e300, NAN, INF, -INF, "", "abc", "1", "1.0", "1,0", True, False, None, [], [1.0],
               [1, 2], (1.0,), {}, {1.0}, 1j, b"1", range(1), np.array(1.0), np.float32(1), date(2020, 1, 1)],
    "wholes": [-1, 10**9, -(10**9), 8.0, 7.5, NAN, INF, -INF, "", "abc", "8", "[4, 8]", "4,8", True, None, [], (), {},
               {"a": 4}, [4, 4], [4, "x"], ["4", "8"], [4, -1], [4, 8.0], [4, True], [4, NAN], [4, None], [[4]], [[]],
               list(range(1, 1000)), {4, 8}, range(4), np.arange(4), np.int64(8), 8j, b"8"],
    "numbers": [-0.1, 1e9, -1e9, NAN, INF, -INF, "", "abc", "0.1", "8/255", "[0.1, 0.2]", "0.1,0.2", True, False, None,
                [], (), {}, {"a": 0.1}, [0.1, 0.1], [0.1, "x"], ["0.1"], [0.1, -0.1], [0.1, True], [0.1, NAN],
                [0.1, INF], [0.1, None], [[0.1]], [i / 1000 for i in range(1000)], {0.1}, 0.1j, b"0.1",
                np.array([0.1, 0.2])],
}  # fmt: skip
# ... and wrong only for those of a name: the smallest and largest that are allowed, and how many may be listed.
LIMITS = {"radius": (1, 22, 6), "seed": (0, 9_999, 1), "seeds": (0, 9_999, 100), "indices": (0, 9_999, 12),
          "eps": (0, 1, 8), "rho": (0, 10, 1), "steps": (1, 1000, 1), "n_images": (1, 10_000, 1)}  # fmt: skip
# Those of the notebook on defenses differ, and its smallest eps stands for all above 0.
OWN_LIMITS = {("defense", "eps"): (1e-9, 0.5, 4), ("defense", "rho"): (0, 10, 6)}


def limits(notebook, name):
    return OWN_LIMITS.get((notebook, name), LIMITS[name])


def step_of(notebook, name):
    """A number's distance from its limits where they are to be passed."""
    low, high, _ = limits(notebook, name)
    return (high - low) / 1000 if name in ("eps", "rho") else 1


def beyond(notebook, name):
    """Just beyond the limits of a parameter, alone and in a list, and one too many."""
    low, high, most = limits(notebook, name)
    step = step_of(notebook, name)
    many = [low + number * step for number in range(most + 1)]
    return [low - step, high + step, [high, high + step], [low, low - step], many]


def misspelt(name):
    return [name + "s", name + "_", name[:-1], name[1:], name.upper(), name[1] + name[0] + name[2:]]


def cases():
    """(notebook, its namespace, the start of what is said) of every wrong input."""
    for notebook, known in NOTEBOOKS.items():
        for name, parameter in known.items():
            values = BAD[kind(parameter)] + (beyond(notebook, name) if name in LIMITS else [])
            values += [0, 0.0, [0.03, 0]] if (notebook, name) == ("defense", "eps") else []
            for value in values:
                yield notebook, {"retrain": True, name: value}, f"parameter {name} = {value!r}: expected "
            for wrong in misspelt(name):
                if wrong not in known and not wrong.startswith("_"):  # which is no notebook's to check
                    yield notebook, {"retrain": True, wrong: 8}, f"unknown parameter {wrong} = 8"
        (name,) = {"seed", "seeds"} & set(known)
        lists = [[0, 77], [77, 78]] if name == "seeds" else []
        for seed in (77, 9_999, *lists):
            yield notebook, {name: seed}, f"parameter {name} = {seed!r}: expected {STORED}"
        for preset in ("smoke", "paper", "authors"):
            yield notebook, {"preset": preset}, f"parameter {name} = {known[name].default!r}: expected {STORED}"


CASES = list(cases())


def label(part):
    return part if isinstance(part, str) else None


@pytest.fixture
def no_data(monkeypatch):
    """Whatever loads images or runs fails the test."""

    def refused(*args, **options):
        pytest.fail("data was loaded")

    for module in (data, predictions, runs, training):
        monkeypatch.setattr(module, "embedded", refused)
    for module, name in ((data, "_load"), (runs, "load"), (runs, "find"), (runs, "train")):
        monkeypatch.setattr(module, name, refused)


@pytest.mark.parametrize(("notebook", "namespace", "said"), CASES, ids=label)
def test_a_wrong_input_is_refused_at_once_with_its_name_its_value_and_what_is_allowed(no_data, notebook, namespace,
                                                                                      said):  # fmt: skip
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"^{re.escape(said)}") as refusal:
        check(notebook, namespace)
    assert time.monotonic() - start < 10
    allowed = str(refusal.value).removeprefix(said)
    assert len(allowed) > 8
    assert STORED in said or "stored" not in allowed, "the value itself was taken for a good one"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_at_least_sixty_wrong_inputs_are_tried_on_each_notebook(notebook):
    assert len([case for case in CASES if case[0] == notebook]) >= 60


def test_every_parameter_that_has_limits_is_tried_beyond_them():
    numbers = {name for known in NOTEBOOKS.values() for name, parameter in known.items()
               if kind(parameter) in ("whole", "number", "wholes", "numbers")}  # fmt: skip
    assert numbers == set(LIMITS)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_limits_themselves_are_allowed(notebook):
    for name, parameter in NOTEBOOKS[notebook].items():
        if name in LIMITS:
            low, high, most = limits(notebook, name)
            step = step_of(notebook, name)
            many = [low + number * step for number in range(most)]
            as_list = isinstance(parameter.default, tuple)
            for value in [low, high, *([[low, high], tuple(many), many] if as_list else [])]:
                found = getattr(check(notebook, {"retrain": True, name: value}), name)
                listed = value if isinstance(value, list | tuple) else [value]
                assert found == (tuple(listed) if as_list else value)
                assert type(found[0] if as_list else found) is type(
                    parameter.default[0] if as_list else parameter.default
                )


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_what_is_allowed_is_named(notebook):
    choices = {"preset": "one of smoke, laptop, narrow, paper, authors", "feed": "one of raw, max, mean",
               "bn_stats": "one of running, batch", "retrain": "True or False",
               "radius": "a whole number of DFT bins, from 1 to 22", "seed": "a whole number, from 0 to 9999",
               "seeds": "a whole number, from 0 to 9999, or a list of up to 100 different ones",
               "indices": "the number of a test image, from 0 to 9999, or a list of up to 12 different ones",
               "rho": "a weight of the neighbours, from 0 to 10",
               "eps": "a distance in pixels of [0, 1], from 0 to 1, or a list of up to 8 different ones",
               "steps": "a number of steps of PGD, from 1 to 1000",
               "n_images": "a number of test images, from 1 to 10000"}  # fmt: skip
    if notebook == "defense":
        choices |= {"rho": "a weight of the neighbours, from 0 to 10, or a list of up to 6 different ones",
                    "eps": "a distance in pixels of [0, 1], above 0, up to 0.5, or a list of up to 4 "
                    "different ones"}  # fmt: skip
    for name in NOTEBOOKS[notebook]:
        with pytest.raises(ValueError, match=re.escape(f"expected {choices[name]}")):
            check(notebook, {name: None})


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_an_unknown_name_is_refused_with_those_allowed_and_the_nearest_one(notebook):
    with pytest.raises(ValueError, match=f"allowed: {', '.join(NOTEBOOKS[notebook])}$"):
        check(notebook, {"x": 8})
    for name in NOTEBOOKS[notebook]:
        with pytest.raises(ValueError, match=rf"did you mean {name}\?"):
            check(notebook, {f"{name}x": 8})


def test_a_list_given_as_text_is_told_how_lists_are_given():
    with pytest.raises(ValueError, match='-y "radius'):
        check("fig4", {"radius": "[4, 8]"})


def test_only_plain_values_of_unknown_names_are_parameters():
    namespace = {
        "np": np,
        "runs": Runs(vanilla=[]),
        "In": [],
        "Out": {},
        "_7": 3,
        "f": len,
        "array": np.zeros(2),
        "radius": 5,
    }
    assert parameters.given(namespace, ("radius",)) == {"radius": 5}


@pytest.mark.parametrize("value", [{4, 8}, range(3), np.int64(8), 8j, b"8", date(2020, 1, 1)], ids=repr)
def test_a_known_name_counts_whatever_its_value(value):
    """Otherwise the notebook would go on with the default, and say nothing."""
    assert parameters.given({"radius": value}, ("radius",)) == {"radius": value}


# ---- stored runs


def store(folder, figure, preset, seeds, without=()):
    """Folders by the names of runs: the check looks no further."""
    for panel, recipe in figures.recipes(figure, preset).items():
        for seed in seeds:
            if (panel, seed) not in without:
                (folder / recipe.run_name(seed)).mkdir(parents=True)


@pytest.mark.parametrize("notebook", [name for name in NOTEBOOKS if name != "fig1"])
def test_a_run_that_is_not_stored_is_named(notebook, own_home):
    figure = "fig2" if notebook == "tradeoff" else notebook
    panel, recipe = next(iter(figures.recipes(figure, "smoke").items()))
    several = "seeds" in NOTEBOOKS[notebook]
    namespace = {"preset": "smoke", **({"seeds": [3, 5]} if several else {"seed": 5})}
    store(own_home / "runs", figure, "smoke", (3, 5) if several else (5,), without=[(panel, 5)])
    with pytest.raises(ValueError, match=rf"not stored at preset smoke: {re.escape(recipe.run_name(5))}$"):
        check(notebook, namespace)
    assert check(notebook, namespace | {"retrain": True}).retrain is True
    (own_home / "runs" / recipe.run_name(5)).mkdir()
    found = check(notebook, namespace)
    assert (found.seeds == (3, 5)) if several else (found.seed == 5)


@pytest.mark.parametrize("notebook", ["fig2", "tradeoff"])
def test_a_panel_that_takes_hours_may_be_missing(notebook, own_home):
    store(own_home / "runs", "fig2", "laptop", [7], without=[("fullwidth", 7)])
    assert check(notebook, {"seed": 7}).seed == 7


def test_table_1_does_with_the_networks_that_are_there_for_any_seed(own_home):
    recipes = figures.fig1("smoke")
    store(own_home / "runs", "fig1", "smoke", [3, 5], without=[(panel, 5) for panel in recipes])
    missing = ", ".join(recipe.run_name(5) for recipe in recipes.values())
    with pytest.raises(ValueError, match=rf"not stored at preset smoke: {re.escape(missing)}$"):
        check("fig1", {"preset": "smoke", "seeds": [3, 5]})  # no network has the second
    (own_home / "runs" / recipes["hfc12"].run_name(5)).mkdir()
    assert check("fig1", {"preset": "smoke", "seeds": [3, 5]}).seeds == (3, 5)


@pytest.mark.parametrize("adversarial", [(), (3,), (3, 5)])
def test_kernels_of_robust_networks_may_be_missing_but_not_those_of_natural_ones(own_home, adversarial):
    recipes = figures.fig3("smoke")
    without = [(panel, seed) for panel in recipes for seed in (3, 5)
               if panel not in ("vanilla", "batchnorm") and seed not in adversarial]  # fmt: skip
    store(own_home / "runs", "fig3", "smoke", [3, 5], without=without)
    asked = {"preset": "smoke", "seeds": [3, 5]}
    assert check("fig3", asked).seeds == (3, 5)
    (own_home / "runs" / recipes["batchnorm"].run_name(5)).rmdir()
    with pytest.raises(ValueError, match=rf"not stored at preset smoke: {recipes['batchnorm'].run_name(5)}$"):
        check("fig3", asked)


def test_published_runs_count_too(monkeypatch, own_home, tmp_path):
    monkeypatch.setattr(runs, "data_folder", lambda: tmp_path / "data")
    store(tmp_path / "data" / "runs", "fig4", "paper", [0])
    assert check("fig4", {"preset": "paper", "seeds": 0}).preset == "paper"


# ---- the notebooks


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_without_any_parameter_the_defaults_count(monkeypatch, notebook, tmp_path):
    monkeypatch.setattr(runs, "data_folder", lambda: tmp_path / "data")
    known = NOTEBOOKS[notebook]
    seeds = known["seeds"].default if "seeds" in known else [known["seed"].default]
    store(tmp_path / "data" / "runs", "fig2" if notebook == "tradeoff" else notebook, "laptop", seeds)
    assert vars(check(notebook, {})) == {name: parameter.default for name, parameter in known.items()}


def test_the_notebooks_are_those_that_are_checked():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_defaults_are_those_of_the_parameters_cell(notebook):
    cell = papermill.inspect_notebook(str(FOLDER / f"{notebook}.ipynb"))
    defaults = {name: ast.literal_eval(one["default"]) for name, one in cell.items()}
    assert list(defaults) == list(NOTEBOOKS[notebook])
    for name, parameter in NOTEBOOKS[notebook].items():
        assert parameter.check(name, defaults[name]) == parameter.default
        kinds = {"switch": "bool", "choice": "str", "whole": "int", "number": "float", "wholes": "list",
                 "numbers": "list"}  # fmt: skip
        assert cell[name]["inferred_type_name"] == kinds[kind(parameter)]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_check_is_a_notebooks_first_call(notebook):
    cells = [cell for cell in json.loads((FOLDER / f"{notebook}.ipynb").read_text())["cells"]
             if cell["cell_type"] == "code"]  # fmt: skip
    imports, values, work = ("".join(cell["source"]) for cell in cells[:3])
    assert all(isinstance(line, ast.Import | ast.ImportFrom) for line in ast.parse(imports).body)
    assert all(isinstance(line, ast.AnnAssign) for line in ast.parse(values).body)
    assert work.startswith(f'settings = parameters.check("{notebook}", globals())')


def test_the_marked_sizes_are_whole_255ths():
    assert [round(255 * eps, 9) for eps in NOTEBOOKS["tradeoff"]["eps"].default] == [2, 4, 8, 16]
    assert all(math.isfinite(eps) for eps in NOTEBOOKS["tradeoff"]["eps"].default)


# ---- run again in a session


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_check_may_run_again_after_the_notebook_has_set_names_of_its_own(notebook):
    cells = json.loads((FOLDER / f"{notebook}.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    stored = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    own = {node.id for node in stored if isinstance(node.ctx, ast.Store)} - set(NOTEBOOKS[notebook])
    namespace = {name: list(one.default) if isinstance(one.default, tuple) else one.default
                 for name, one in NOTEBOOKS[notebook].items()}  # fmt: skip
    first = check(notebook, namespace)
    namespace |= {name: [1] for name in own}
    assert check(notebook, namespace) == first
    name = next(iter(NOTEBOOKS[notebook]))
    with pytest.raises(ValueError, match=f"unknown parameter {name}s"):
        check(notebook, namespace | {f"{name}s": 1})
