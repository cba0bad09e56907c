"""Tables made by hand, in the form that `hfclib.paper.measurements` gives to stored ones; Welch's interval; drawing."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from hfclib.paper.intervals import Estimate
from hfclib.paper.show import show_figure


def tidy(rows: Iterable[Mapping]) -> pd.DataFrame:
    """Rows of accuracies without an attack, after training unless they have an epoch; a radius of None is none."""
    table = pd.DataFrame(rows)
    usual = {"epoch": None, "attack": "none", "eps": 0.0, "measure": "accuracy"}
    table = table.assign(**{name: value for name, value in usual.items() if name not in table})
    return table.astype({"epoch": "Int64", "radius": "Int64"})


def welch(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean of the first less that of the second, over networks that have nothing in common, by Welch's formula.

    One network tells nothing of chance in training: its interval is infinite.
    """
    mean, counts = np.mean(first) - np.mean(second), (len(first), len(second))
    if min(counts) == 1:
        return Estimate(mean, -np.inf, np.inf, 1)
    errors = [np.var(part, ddof=1) / len(part) for part in (first, second)]
    freedom = sum(errors) ** 2 / sum(error**2 / (count - 1) for error, count in zip(errors, counts, strict=True))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(errors))
    return Estimate(mean, mean - half, mean + half, min(counts))


def drawn(figure: Figure) -> bool:
    """Draw for real: warnings of the layout come only then, and are errors."""
    return show_figure(figure).data.startswith("<svg")


def as_stored(board: pd.DataFrame) -> pd.DataFrame:
    """A scoreboard as `scoreboard.csv` has it: text, of the columns that are stored."""
    columns = ["verdict", "size", "ours", "seeds", "paper", "first", "first verdict"]
    return board[columns].astype(str).replace("\u00a0", " ", regex=True)


def stored_scoreboard() -> pd.DataFrame:
    """The scoreboard of all published runs, as it is stored."""
    return pd.read_csv(Path(__file__).with_name("scoreboard.csv"), index_col="id", dtype=str, keep_default_na=False)
