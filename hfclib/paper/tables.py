"""From runs to tidy tables of accuracies, and from these to tables of text.

A table of text is a dictionary, by place in its index, of cells by column. `text_table` makes the frame. Most cells are
contrasts, in the words of `claims`: `contrast_text` writes one, `contrast_rows` many, and they say what becomes of a
missing run.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from hfclib.conditions import PAPER_RADII, BnStats, Condition
from hfclib.paper.claims import Contrast, evaluate
from hfclib.paper.intervals import Estimate, MissingRunError, image_error, interval
from hfclib.paper.measurements import each_run, measurements
from hfclib.runs.store import Run
from hfclib.transforms import Feed

Measured = Literal["authors", "controlled"]
# The authors' code divides a band by its maximum in the standard runs, and not in the adversarial ones.
TableFeed = Feed | Literal["authors"]
Rows = Mapping[Hashable, Mapping[Hashable, object]]  # of a table: by place in its index, cells by column
# What is fed and how BatchNorm normalises, by the names in claims: as in the authors' code, and alike for all networks.
CONDITIONS: dict[Measured, tuple[TableFeed, BnStats]] = {
    "authors": ("authors", "batch"),
    "controlled": ("mean", "running"),
}
CONDITION_TITLES: dict[Measured, str] = {"authors": "measured as the authors did", "controlled": "mean colour added"}


def gather(runs: Mapping[str, Sequence[Run]], which: str = "curves") -> pd.DataFrame:
    """One table of the `measurements` of several variants.

    Args:
        runs: the runs of each variant.
        which: "curves" (after each epoch) or "final" (after training).
    Returns:
        The rows of all runs with the recipe's train_band, train_radius, rescale and adversarial.
        Conditions that a run records once because they are equivalent (`Condition.canonical`) are spelled out.
    Raises:
        ValueError: another table, or no run at all.
    """
    if which not in ("curves", "final"):
        raise ValueError(f"expected which, curves or final, got {which!r}")
    parts = []
    for number, (variant, run) in enumerate(each_run(runs)):
        names = ("train_band", "train_radius", "rescale", "adversarial")
        stored = run.recipe.to_dict()
        rows = measurements(getattr(run, which), variant, run).assign(**{name: stored[name] for name in names})
        parts.append(rows.assign(batch_norm=run.batch_norm, number=number))
    if not parts:
        raise ValueError("expected at least one run, got none")
    rows = pd.concat(parts, ignore_index=True)
    for other in ({"feed": "mean"}, {"bn_stats": "batch"}):
        rows = pd.concat([rows, _same_under(other, rows)], ignore_index=True)
    return rows.sort_values("number", kind="stable", ignore_index=True).drop(columns=["batch_norm", "number"])


def _same_under(other: Mapping[str, str], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose condition is equivalent to its change by `other`, with that change."""
    groups = rows.groupby([*Condition._fields, "batch_norm"], sort=False, dropna=False)
    same = []
    for *fields, batch_norm in groups.groups:
        old = Condition(*fields)
        new = old._replace(**other)
        same.append(old != new and old.canonical(batch_norm) == new.canonical(batch_norm))
    recorded = (rows["band"] == "x") | rows["radius"].isin(PAPER_RADII)
    return rows[recorded & np.array(same)[groups.ngroup()]].assign(**other)


def select(table: pd.DataFrame, radii: Sequence[int], feed: TableFeed, bn_stats: BnStats) -> pd.DataFrame:
    """The accuracies in a table from `gather` under one condition, with a column `cell`.

    Args:
        table: from `gather`.
        radii: runs record all radii raw with running averages, and other conditions at r = 4, 8, 12, 16 only. At
            other radii the raw, running rows are returned, and their columns feed and bn_stats say so.
        feed, bn_stats: of the bands; whole images are always fed raw. "authors" is "max", but "raw" for adversarial
            training.
    Returns:
        Rows whose cell is "train", "test", "clean" (`measurements`), or a band and radius such as "L4" or "H12"; none
        of images under attack, none of bands of training images.
    """
    fed = np.where(table["adversarial"] == "none", "max", "raw") if feed == "authors" else feed
    exact = (table["feed"] == fed) & (table["bn_stats"] == bn_stats) & table["radius"].isin(PAPER_RADII)
    other = (table["feed"] == "raw") & (table["bn_stats"] == "running") & ~table["radius"].isin(PAPER_RADII)
    bands = (table["split"] == "test") & (table["band"] != "x") & table["radius"].isin(radii) & (exact | other)
    whole = (table["band"] == "x") & (table["feed"] == "raw") & (table["bn_stats"] == bn_stats)
    accuracies = (table["attack"] == "none") & table["measure"].isin(["accuracy", "clean accuracy"])
    rows = drop_duplicate_conditions(table[accuracies & (whole | bands)])
    return rows.assign(cell=cell_names(rows))


def cell_names(rows: pd.DataFrame) -> pd.Series:
    """What a claim calls each of some `measurements`, such as "test", "clean", "H4" or "misaligned8"."""
    radius = rows["radius"].astype(str)
    letters = rows["measure"].where(rows["measure"] != "accuracy", rows["band"].map({"lfc": "L", "hfc": "H"}))
    images = rows["split"].where(rows["measure"] != "clean accuracy", "clean")
    return (letters + radius).where(rows["radius"].notna(), images)


def table_cells(
    table: pd.DataFrame, conditions: Mapping[str, tuple[TableFeed, BnStats]] = MappingProxyType(CONDITIONS)
) -> pd.DataFrame:
    """The cells of claims (`claims.CELL_COLUMNS`) of a table from `gather`: whole images, and bands as in `conditions`.

    Whole images are measured with running averages.
    """
    radii = table["radius"].dropna().unique()
    whole = select(table, [], "raw", "running").assign(measured="")
    bands = [
        select(table, radii, *condition).query("band != 'x'").assign(measured=name)
        for name, condition in conditions.items()
    ]
    rows = pd.concat([whole, *bands], ignore_index=True)
    return cells_of_shares(rows.assign(measure=rows["cell"], sample=rows["split"]))


def cells_of_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells of claims whose value is a share of n images, with the error of the images' draw."""
    return rows.assign(image_sd=image_error(rows["value"], rows["n"])) if "n" in rows else rows


def drop_duplicate_conditions(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table from `gather`, each condition once.

    A network trained on a band divided by its maximum has that band twice: the first row is the one in float32.
    """
    return rows.drop_duplicates(rows.columns.difference(["value"]).tolist())


def band_names(radii: Sequence[int]) -> list[str]:
    """The cells of `select` on bands, LFC first."""
    return [f"{band}{radius}" for band in "LH" for radius in radii]


def decimals(value: float, places: int = 3) -> str:
    """A number as text, without a zero before the point."""
    # A mean of few accuracies is often a tie, such as .5325, which must not hang on the order of a sum.
    return re.sub(r"^(-?)0\.", r"\1.", f"{round(value, 9):z.{places}f}")


def mean_sd(values: pd.Series, places: int = 3) -> str:
    """Mean ± sample standard deviation over seeds, as text; a single seed has no spread."""
    spread = f"\u00a0±\u00a0{decimals(values.std(), places)}" if len(values) > 1 else ""
    return decimals(values.mean(), places) + spread


def with_interval(mean: float, low: float, high: float, beside: float = 0.0) -> str:
    """The text "mean [low, high]", which does not break; the mean alone where the interval is infinite.

    Three decimals; four where an end would round to 0, or to the number that stands `beside` the text, and is another.
    """
    if not np.isfinite(low):
        return decimals(mean)
    alike = any(end != other and decimals(end) == decimals(other) for end in (low, high) for other in (0.0, beside))
    places = 4 if alike else 3
    return f"{decimals(mean, places)} [{decimals(low, places)}, {decimals(high, places)}]".replace(" ", "\u00a0")


def in_words(estimate: Estimate, beside: float = 0.0) -> str:
    """An estimate as the text of `with_interval`."""
    return with_interval(estimate.mean, estimate.low, estimate.high, beside)


def estimate_cell(
    statistic: Callable[..., Estimate], table: pd.DataFrame, without: str | None, **options: object
) -> str | None:
    """A statistic of a table `in_words`; `without` where a run is missing."""
    try:
        return in_words(statistic(table, **options))
    except MissingRunError:
        return without


def mean_text(values: pd.Series, places: int = 3) -> str:
    """Mean over seeds, as text."""
    return decimals(values.mean(), places)


def contrast_text(
    contrast: str,
    cells: pd.DataFrame,
    measured: str = "",
    *,
    without: str | None = None,
    alone: Callable[[pd.Series], str] = mean_text,
) -> str | None:
    """A contrast as text.

    Args:
        contrast, cells, measured: as in `claims.evaluate`.
        without: what is returned where a run is missing.
        alone: writes a contrast that is a single cell, from its values over all seeds. Others are written `in_words`.
    """
    parsed = Contrast(contrast)
    if len(parsed.cells) > 1 or contrast != ".".join(parsed.cells[0]):
        return estimate_cell(partial(evaluate, parsed), cells, without, measured=measured)
    variant, measure = parsed.cells[0]
    own = (cells["variant"] == variant) & (cells["measure"] == measure) & cells["measured"].isin([measured, ""])
    values = cells.loc[own, "value"].dropna()
    return alone(values) if len(values) else without


def contrast_rows(
    rows: Rows, cells: pd.DataFrame, measured: str = "", *, seeds: bool = False, **options: object
) -> Rows:
    """Rows of a `text_table` whose cells are contrasts.

    Args:
        rows: by place in the table, contrasts by column; "" stays as it is.
        cells, measured, options: as in `contrast_text`. Without the option `without`, a row that lacks a run is left
            out.
        seeds: add a column with the number of seeds of the last contrast.
    """
    texts = {
        place: {name: text and contrast_text(text, cells, measured, **options) for name, text in contrasts.items()}
        for place, contrasts in rows.items()
    }
    texts = {place: row for place, row in texts.items() if None not in row.values()}
    for place, row in texts.items() if seeds else ():
        row["seeds"] = evaluate(list(rows[place].values())[-1], cells, measured).seeds
    return texts


def text_table(rows: Rows, names: Sequence[str], caption: str = "") -> pd.DataFrame:
    """A table to read, with a dash in the cells that a row lacks.

    Args:
        rows: cells by column, by place in the index. A place is a tuple where there are several `names`; so may columns
            be.
        names: of the levels of the index.
        caption: what `show_table` writes above it.
    """
    index = pd.MultiIndex.from_tuples(rows, names=names) if len(names) > 1 else pd.Index(list(rows), name=names[0])
    table = pd.DataFrame(list(rows.values()), index, dtype=object).fillna("\u2013")
    table = table.set_axis(pd.Index(list(table)), axis=1)  # tuples become levels
    table.attrs["caption"] = caption
    return table


def over_seeds_table(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Values of some `measurements` over seeds, for each combination of columns: mean, and low and high at 95 %."""
    groups = rows.groupby(list(keys), observed=True, sort=False)["value"]
    means = [(*key, *interval(values)) for key, values in groups]
    return pd.DataFrame(means, columns=[*keys, "mean", "low", "high"]).astype({key: rows[key].dtype for key in keys})


def by_seed(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Some `measurements`: seeds in rows, and in columns the variants and cells, or what stands in these columns."""
    return rows.pivot(index="seed", columns=list(columns or ("variant", "cell")), values="value")


def at_end(final: pd.DataFrame, what: str, measured: Measured = "authors") -> pd.DataFrame:
    """What the claims compare, of networks after training: one row per seed, one column per stored variant.

    Args:
        final: a table from `gather(runs, "final")`.
        what: "train" or "test" accuracy on whole images, "gap", the former less the latter, or "hfc", the mean of the
            accuracies on the HFC at r = 4 and 8.
        measured: a key of `CONDITIONS`: how the HFC is fed, and which statistics BatchNorm uses, on whole images too.
    """
    by_cell = by_seed(select(final, (4, 8), *CONDITIONS[measured]), "cell", "variant")
    if what == "gap":
        return by_cell["train"] - by_cell["test"]
    return (by_cell["H4"] + by_cell["H8"]) / 2 if what == "hfc" else by_cell[what]
