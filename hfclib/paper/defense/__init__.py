"""The chapter on defenses: the paper's section 6.2 and Table 2, and the ideas of the authors' blog post."""

from hfclib.paper.defense.claims import (
    DEFENSE,
    beside_autoattack,
    needs_strong_attack,
    rule_by_network,
    table2_narrow,
    trials_over_seeds,
)
from hfclib.paper.defense.judgement import gains, outcomes_of_gains
from hfclib.paper.defense.plots import claimed_figure, filter_figure, smallest_eps_figure
from hfclib.paper.defense.tables import (
    attack_chain,
    claimed_and_left,
    filter_by_radius,
    five_rows,
    outcome_counts,
    table2_rows,
)
from hfclib.paper.defense.trials import smallest_eps_table, strong_trials, trials_table

__all__ = ["DEFENSE", "attack_chain", "claimed_and_left", "claimed_figure", "filter_by_radius", "filter_figure"]
__all__ += ["five_rows", "gains", "needs_strong_attack", "outcome_counts", "outcomes_of_gains"]
__all__ += ["rule_by_network", "smallest_eps_figure", "smallest_eps_table", "strong_trials", "table2_narrow"]
__all__ += ["beside_autoattack", "table2_rows", "trials_over_seeds", "trials_table"]
