"""The chapter on defenses: the paper's section 6.2 and Table 2, and the ideas of the authors' blog post."""

from hfclib.paper.defense.claims import DEFENSE, needs_strong_attack
from hfclib.paper.defense.judgement import gains, verdicts_on_gains
from hfclib.paper.defense.plots import claimed_figure, filter_figure
from hfclib.paper.defense.setup import defense_recipes
from hfclib.paper.defense.tables import (
    attack_chain,
    claimed_and_left,
    filter_by_radius,
    filter_story,
    filter_table,
    scale_story,
    table2_rows,
    verdict_counts,
    verdict_story,
)
from hfclib.paper.defense.trials import strong_trials, trials_table

__all__ = [
    "DEFENSE",
    "attack_chain",
    "claimed_and_left",
    "claimed_figure",
    "defense_recipes",
    "filter_by_radius",
    "filter_figure",
    "filter_story",
    "filter_table",
    "gains",
    "needs_strong_attack",
    "scale_story",
    "strong_trials",
    "table2_rows",
    "trials_table",
    "verdict_counts",
    "verdict_story",
    "verdicts_on_gains",
]
