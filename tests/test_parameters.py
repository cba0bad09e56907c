import numpy as np
import pytest

from hfclib import parameters
from hfclib.obtain import Runs


def test_defaults_and_one_number_in_place_of_a_list():
    assert parameters.fig4({}).radius == (4, 8, 12, 16)
    assert parameters.fig4({"radius": 8, "seeds": 1}).radius == (8,)
    assert parameters.fig4({"radius": [7, 22], "seeds": 1}).seeds == (1,)


def test_only_plain_values_of_a_namespace_are_parameters():
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


BAD = {
    "radius": [0, -3, 23, 99, 8.0, 7.5, float("nan"), float("inf"), "abc", "8", "[4, 8]", "4,8", True, None, [], {},
               [4, 4], [4, "x"], [4, 0], [1, 2, 3, 4, 5, 6, 7], [[4]], 10**9],
    "seeds": [-1, 1.0, "0", None, [], [0, 0], [0, -1], 10_000, True, float("nan"), list(range(101))],
    "feed": ["", "Raw", "mean ", 1, None, ["raw"], "maximum", float("nan")],
    "bn_stats": ["", "none", "Batch", 0, None, ["batch"]],
    "preset": ["", "tiny", "LAPTOP", 1, None, ["smoke"]],
    "retrain": ["yes", "true", 1, 0, None, []],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_with_its_name_the_value_and_what_is_allowed(name, value):
    with pytest.raises(ValueError, match=f"^parameter {name} = ") as refusal:
        parameters.fig4({name: value})
    assert repr(value) in str(refusal.value)
    assert "expected" in str(refusal.value)


@pytest.mark.parametrize("name", ["raduis", "radii", "seed", "bnstats", "x"])
def test_an_unknown_name_is_refused_with_those_allowed(name):
    with pytest.raises(ValueError, match=f"unknown parameter {name} = 8.*allowed: radius, feed, bn_stats"):
        parameters.fig4({name: 8})


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match="did you mean radius"):
        parameters.fig4({"raduis": 8})


def test_a_list_given_as_text_is_told_how_lists_are_given():
    with pytest.raises(ValueError, match='-y "radius'):
        parameters.fig4({"radius": "[4, 8]"})
