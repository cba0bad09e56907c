"""The list of departures names the runs that are stored, and says "untested" where none is."""

from hfclib.paper import departures
from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.presets import fig4_recipes

RECIPE = fig4_recipes("narrow")["vanilla"]


def test_a_departure_names_the_seeds_that_are_stored(published_folder):
    for seed in (0, 4):
        (published_folder / "runs" / RECIPE.run_name(seed)).mkdir(parents=True)
    tested = departures.departures_table()["tested by"]
    assert len(tested) == len(departures.DEPARTURES)
    others = "narrow-batchnorm (not stored), narrow-dropout (not stored), narrow-mixup (not stored)"
    assert tested["schedule and length"] == f"narrow-vanilla (seed 0, 4), {others}"
    wider = ", ".join(f"{name} (not stored)" for name in ("narrow-vanilla_w32", "narrow-batchnorm_w32"))
    assert tested["width of the network"].startswith(f"untested: {wider}")
    assert tested["BatchNorm at test time"] == "\u2013"


def test_a_test_of_the_width_that_changes_the_schedule_too_says_so():
    wide, usual = fig2_recipes("laptop")["fullwidth"], fig2_recipes("laptop")["batchnorm"]
    same_but_for_width = usual.with_(name=wide.name, width=wide.model.width)
    assert wide.model.norm == "batch"
    assert same_but_for_width != wide
    table = departures.departures_table()
    assert table.loc["width of the network", "how"].endswith("; with BatchNorm and another schedule")
    assert table.loc["mix-up", "paper"] == "alpha .5 (code: Beta(1, 1), one draw a batch)"
