"""The list of departures names the runs that are stored, and says "untested" where none is."""

from hfclib.paper import departures
from hfclib.paper.presets import fig4_recipes

RECIPE = fig4_recipes("narrow")["vanilla"]


def test_a_departure_names_the_seeds_that_are_stored(monkeypatch):
    monkeypatch.setattr(departures, "find", lambda recipe, seed: recipe == RECIPE and seed in (0, 4))
    tested = departures.departures_table()["tested by"]
    assert len(tested) == len(departures.DEPARTURES)
    assert tested["schedule and length"] == "narrow-vanilla (seed 0, 4), narrow-batchnorm (not trained yet)"
    assert tested["width of the network"] == "untested: laptop-fullwidth (not trained yet)"
    assert tested["BatchNorm at test time"] == "\u2013"
