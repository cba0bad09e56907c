"""Tables made by hand, in the form that `hfclib.paper.measurements` gives to stored ones."""

from collections.abc import Iterable, Mapping

import pandas as pd


def tidy(rows: Iterable[Mapping]) -> pd.DataFrame:
    """Rows of accuracies without an attack, after training unless they have an epoch; a radius of None is none."""
    table = pd.DataFrame(rows)
    usual = {"epoch": None, "attack": "none", "eps": 0.0, "measure": "accuracy"}
    table = table.assign(**{name: value for name, value in usual.items() if name not in table})
    return table.astype({"epoch": "Int64", "radius": "Int64"})
