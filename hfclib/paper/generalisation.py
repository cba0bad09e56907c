"""The chapter on the paper's title: do networks that generalise better read more of the HFC?

It compares recipes, from the accuracies that are stored with their runs; nothing is trained or measured for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from hfclib.charts import CHART, NETWORK_COLOURS, Look, chance, chance_handle, drawn_in, legend, panels
from hfclib.conditions import PAPER_RADII
from hfclib.paper.all_networks import SET_UPS, USABLE, network_name, networks_recipes, norm_of
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import Estimate, MissingRunError, rank_correlation
from hfclib.paper.measurements import preset_of
from hfclib.paper.parameters import PaperRadius, SeveralSeeds
from hfclib.paper.presets import Preset, base_recipe, stated_recipes
from hfclib.paper.tables import CONDITIONS, decimals, estimate_cell, gather, in_words, select, text_table
from hfclib.paper.verdicts import ENOUGH
from hfclib.runs.collect import Runs
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# ---- recipes


def rule_recipes() -> dict[str, Recipe]:
    """The six recipes of the rule that was committed before any run of them had ended, from two presets."""
    stated = stated_recipes("paper") | stated_recipes("narrow")
    return {name: recipe for name, recipe in stated.items() if name.endswith(("_16", "_w32", "_cropped"))}


def generalisation_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The book's recipes on CIFAR-10 that train on whole images with natural labels, and not against attacks.

    Left out are a planted signal, training on one band or on an amplified HFC, and other data. "laptop" has those of
    "narrow" and "authors" as well, as narrow_vanilla and so on, and the `rule_recipes`.
    """
    later = rule_recipes() if preset == "laptop" else {}
    hashes = {recipe.hash for recipe in later.values()}
    whole = {
        variant: recipe
        for variant, recipe in networks_recipes(preset).items()
        if (recipe.data.train_band, recipe.attack, recipe.data.labels) == ("x", None, "natural")
        and recipe.hash not in hashes
    }
    return whole | later


def part_of(recipe: Recipe) -> str:
    """What a recipe is to the chapter: "rule" for one of the `rule_recipes`; "rescaled" where training images are
    divided by their maximum, as in the authors' code, so that test images as they are differ; else "compared".
    """
    if recipe.hash in {other.hash for other in rule_recipes().values()}:
        return "rule"
    return "compared" if recipe.data.rescale == "none" else "rescaled"


_FAMILIES = {  # the look of each family that is drawn
    "vanilla, heuristics": Look(NETWORK_COLOURS["vanilla"], "o", ""),
    "normalisation": Look(NETWORK_COLOURS["batchnorm"], "s", ""),
    "batch size": Look(NETWORK_COLOURS["dropout"], "D", ""),
    "optimiser": Look(NETWORK_COLOURS["adversarial"], "v", ""),
    "architecture": Look(NETWORK_COLOURS["adversarial_batchnorm"], "^", ""),
    "fewer images": Look(NETWORK_COLOURS["penalised"], "X", ""),
    SET_UPS["narrow"]: Look(NETWORK_COLOURS["mixup"], "P", ""),
    "judged by the rule": Look("0.1", "*", ""),
}


def family_of(recipe: Recipe) -> str:
    """What a recipe changes, in a word or two; the first that fits."""
    if part_of(recipe) == "rule":
        return "judged by the rule"
    preset = preset_of(recipe)
    if preset in SET_UPS:
        return SET_UPS[preset]
    changes = {"fewer images": "train_images", "normalisation": "norm", "architecture": "arch"}
    changes |= {"optimiser": "optimizer", "batch size": "batch_size"}
    stored, base = recipe.to_dict(), base_recipe(preset).to_dict()
    families = (name for name, field in changes.items() if stored[field] != base[field])
    return next(families, "vanilla, heuristics")


# ---- the table

_PLACE = ["variant", "family", "part", "norm", "plain"]
# How the HFC is fed, and what BatchNorm normalises by, with what a measure's name ends in.
_CONDITIONS = {"": CONDITIONS["controlled"], " raw": ("raw", "running"), " authors": CONDITIONS["authors"]}


def generalisation_table(runs: Runs) -> pd.DataFrame:
    """The chapter's table: accuracies of the stored runs.

    Args:
        runs: by variant of `generalisation_recipes`.
    Returns:
        One row per network and measure: variant, family (`family_of`), part (`part_of`), norm (`norm_of`), plain (the
        variant that differs in having no normalisation; "" where none is stored), seed, measure, value [0, 1].
        Measures are "train", "test", "L4" to "H16" (bands of all test images, running averages, the mean colour added
        to the HFC), and these followed by " raw" (without the colour) or " authors" (measured as the authors did).
    """
    final = gather(runs, "final")
    rows = []
    for ending, condition in _CONDITIONS.items():
        measured = select(final, PAPER_RADII, *condition)
        measured = measured if ending == "" else measured[measured["band"] != "x"]
        rows.append(measured.assign(measure=measured["cell"] + ending))
    recipes = {variant: ones[0].recipe for variant, ones in runs.items()}
    places = {
        "family": {variant: family_of(recipe) for variant, recipe in recipes.items()},
        "part": {variant: part_of(recipe) for variant, recipe in recipes.items()},
        "norm": {variant: norm_of(ones[0]) for variant, ones in runs.items()},
        "plain": _plain_variants(recipes),
    }
    table = pd.concat(rows, ignore_index=True)
    table = table.assign(**{name: table["variant"].map(by_variant) for name, by_variant in places.items()})
    return table[[*_PLACE, "seed", "measure", "value"]]


def _plain_variants(recipes: Mapping[str, Recipe]) -> dict[str, str]:
    by_hash = {recipe.hash: variant for variant, recipe in recipes.items()}
    return {
        variant: by_hash.get(recipe.with_(norm="none").hash, "") if recipe.model.norm != "none" else ""
        for variant, recipe in recipes.items()
    }


def per_recipe(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: one row per recipe of a `generalisation_table`, by variant.

    Returns:
        family, part, norm, plain, a column per measure, and gap (train less test). Recipes with a test accuracy below
        USABLE are left out, but for those of the rule.
    """
    by_seed = table.pivot_table("value", [*_PLACE, "seed"], "measure", sort=False)
    means = by_seed.groupby(_PLACE, sort=False).mean().reset_index(_PLACE[1:]).rename_axis(columns=None)
    means["gap"] = means["train"] - means["test"]
    return means[(means["test"] >= USABLE) | (means["part"] == "rule")]


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `per_recipe` over which the chapter's correlations are."""
    return rows[rows["part"] == "compared"]


# ---- statistics


def correlation(rows: pd.DataFrame, measure: str, against: str = "test", control: str | None = None) -> Estimate:
    """The `rank_correlation` over recipes of two columns of `per_recipe`, with a third as control.

    Raises:
        MissingRunError: as `rank_correlation`.
    """
    return rank_correlation(rows[against], rows[measure], None if control is None else rows[control])


def line(rows: pd.DataFrame, measure: str) -> tuple[pd.Series, float]:
    """How far recipes lie above the least-squares line of a measure against the test accuracy.

    Args:
        rows: of `per_recipe`. The line is through those without normalisation.
        measure: one of their columns.
    Returns:
        The residual of every row, and the standard deviation of those without normalisation about the line, with two
        degrees of freedom less than recipes.
    Raises:
        MissingRunError: fewer than ENOUGH of them have different test accuracies.
    """
    plain = rows["norm"] == "none"
    if rows.loc[plain, "test"].nunique() < ENOUGH:
        raise MissingRunError(f"fewer than {ENOUGH} recipes without normalisation are stored")
    slope, intercept = np.polyfit(rows.loc[plain, "test"], rows.loc[plain, measure], 1)
    residuals = rows[measure] - (slope * rows["test"] + intercept)
    return residuals, float(np.sqrt(np.sum(residuals[plain] ** 2) / (plain.sum() - 2)))


def _claimed(table: pd.DataFrame, *, measure: str, against: str = "test", sign: int = 1) -> Estimate:
    rows = compared(per_recipe(table))
    return rank_correlation(sign * rows[against], rows[measure])


def _ruled(table: pd.DataFrame, *, measure: str, sign: int = 1) -> Estimate:
    rows = per_recipe(table)
    rows = rows[rows["part"] == "rule"]
    if len(rows) < len(rule_recipes()):
        raise MissingRunError("a recipe of the rule has no stored run")
    return rank_correlation(sign * rows["test"], rows[measure])


_FUNCTIONS = {
    "H4": partial(_claimed, measure="H4"),
    "H8": partial(_claimed, measure="H8"),
    "less_L4": partial(_claimed, measure="L4", sign=-1),
    "H4_authors": partial(_claimed, measure="H4 authors"),
    "gap_H4": partial(_claimed, measure="H4", against="gap", sign=-1),
    "rule_H4": partial(_ruled, measure="H4"),
    "rule_less_L4": partial(_ruled, measure="L4", sign=-1),
}


# ---- what the notebook shows

_NOT_MEASURED = "too few recipes"
_FED = {
    "HFC, mean colour added": "H{}",
    "HFC as it is, nearly black": "H{} raw",
    "HFC as the authors measure it": "H{} authors",
    "LFC": "L{}",
}
HIGH_ACCURACY = 0.7  # of the recipes that the table of robustness shows by themselves


def correlation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The `correlation` of test accuracy with the accuracy on a band, by how it is fed and by radius, as text; below
    it the mean accuracies on the bands.

    Args:
        rows: those that are compared, of `per_recipe`.
    """
    columns = {radius: f"r = {radius}" for radius in PAPER_RADII}
    table = {
        name: {
            text: estimate_cell(correlation, rows, _NOT_MEASURED, measure=measure.format(radius))
            for radius, text in columns.items()
        }
        for name, measure in _FED.items()
    }
    for name in ("HFC, mean colour added", "LFC") if len(rows) else ():
        means = {text: decimals(rows[_FED[name].format(radius)].mean()) for radius, text in columns.items()}
        table[f"mean accuracy: {name}"] = means
    return text_table(table, ["rank correlation with test accuracy"])


def robustness_table(rows: pd.DataFrame, radii: Sequence[int]) -> pd.DataFrame:
    """The `correlation` with the accuracy on both bands at some radii under other choices, as text.

    Args:
        rows: all of `per_recipe`.
    Returns:
        One row per choice; columns recipes (their number), then the HFC, mean colour added, and the LFC by radius.
    """
    own = compared(rows)
    normal = own["norm"] == "none"
    choices = {
        "all": (own, {}),
        "at equal training accuracy": (own, {"control": "train"}),
        "gap (training less test accuracy) in place of test accuracy": (own, {"against": "gap"}),
        "no normalisation": (own[normal], {}),
        f"test accuracy {decimals(HIGH_ACCURACY, 1)} or more": (own[own["test"] >= HIGH_ACCURACY], {}),
        f"with those of {SET_UPS['authors']}": (rows[rows["part"].isin(["compared", "rescaled"])], {}),
    }
    measures = {f"{band}FC, r = {radius}": f"{band}{radius}" for band in "HL" for radius in radii}
    table = {}
    for choice, (chosen, options) in choices.items():
        cells = {
            name: estimate_cell(correlation, chosen, _NOT_MEASURED, measure=measure, **options)
            for name, measure in measures.items()
        }
        table[choice] = {"recipes": str(len(chosen)), **cells}
    left_out = {name: _without_each_family(own, measure) for name, measure in measures.items()}
    for choice, place in (("one family left out: smallest", 0), ("one family left out: largest", -1)):
        cells = {name: texts[place] if texts else _NOT_MEASURED for name, texts in left_out.items()}
        table[choice] = {"recipes": "", **cells}
    return text_table(table, ["choice"])


def family_correlations(rows: pd.DataFrame, measure: str) -> dict[str, Estimate]:
    """The `correlation` without each family of recipes, by that family, the smallest first."""
    estimates = {}
    for family in rows["family"].unique():
        try:
            estimates[family] = correlation(rows[rows["family"] != family], measure)
        except MissingRunError:
            continue
    return dict(sorted(estimates.items(), key=lambda item: item[1].mean))


def _without_each_family(rows: pd.DataFrame, measure: str) -> list[str]:
    estimates = family_correlations(rows, measure)
    return [f"{in_words(estimate)} (without {family})" for family, estimate in estimates.items()]


def batchnorm_table(rows: pd.DataFrame, radii: tuple[int, ...] = (4, 8)) -> pd.DataFrame:
    """BatchNorm's lead on the HFC (mean colour), and what is left of it at equal test accuracy (`line`), as text.

    Args:
        rows: those that are compared, of `per_recipe`.
    Returns:
        One row per recipe with BatchNorm, and as the last one the standard deviation of the others about the line.
        "Lead" is over the recipe that differs in having no normalisation.
    """
    normed = rows[rows["norm"] == "batch"]
    columns, spreads = {"test accuracy": normed["test"].map(decimals)}, {}
    for radius in radii:
        measure, above = f"H{radius}", f"above the line, r = {radius}"
        lead = normed[measure] - normed["plain"].map(rows[measure])
        columns[f"lead, r = {radius}"] = lead.map(decimals).where(lead.notna(), "\u2013")
        try:
            residuals, spread = line(rows, measure)
            columns[above], spreads[above] = residuals[normed.index].map(decimals), decimals(spread)
        except MissingRunError:
            columns[above] = spreads[above] = _NOT_MEASURED
    table = pd.DataFrame(columns, normed.index, dtype=object).rename(index=network_name)
    table.loc["no normalisation: standard deviation about the line"] = pd.Series(spreads)
    return table.astype(object).fillna("").rename_axis("recipe")


def scatter_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """What `scatter_figure` draws of `per_recipe`: one row per recipe, band and radius, without the rescaled ones.

    Columns: variant, family, part, test, measure, value.
    """
    measures = [f"{band}{radius}" for band in "HL" for radius in PAPER_RADII]
    drawn = rows[rows["part"] != "rescaled"].rename_axis("variant").reset_index()
    place = ["variant", "family", "part", "test"]
    return drawn.reindex(columns=[*place, *measures]).melt(place, measures, "measure", "value")


def scatter_figure(drawn: pd.DataFrame, radius: int) -> Figure:
    """The accuracy on a band against the test accuracy, one point per recipe: one panel per band and radius.

    Args:
        drawn: of `scatter_rows`. The correlation in a title is over those that are compared.
        radius: whose panels have bold titles and frames.
    """
    shown = [(f"{band}{at}", f"{name}, r = {at}", at) for at in PAPER_RADII for band, name in _BAND_NAMES.items()]
    with drawn_in(CHART):
        figure, axes = panels(
            [title for _, title, _ in shown],
            height=2.1,
            beside=2,
            xlabel="Test accuracy",
            ylabel="Accuracy on the band",
        )
        for ax, (measure, title, at) in zip(axes, shown, strict=True):
            points = drawn[drawn["measure"] == measure]
            for family, look in _FAMILIES.items():
                own = points[points["family"] == family]
                ax.plot(own["test"], own["value"], look.marker, color=look.colour, ms=6, alpha=0.8)
            ax.axline((0, 0), slope=1, color="0.3", lw=1, ls="--")
            chance(ax)
            text = estimate_cell(correlation, points[points["part"] == "compared"], "", measure="value")
            text = f": {text.split()[0]}" if text else ""
            ax.set_title(title + text, fontweight="bold" if at == radius else "normal")
            for spine in ax.spines.values():
                spine.set_linewidth(2 if at == radius else 0.8)
            ax.set(xlim=(0.4, 1), ylim=(0, 1), xticks=[0.5, 0.7, 0.9])
        handles = [look.handle(family) for family, look in _FAMILIES.items() if (drawn["family"] == family).any()]
        handles += [Look("0.3", dashes="--").handle("as on whole images", lw=1), chance_handle()]
        legend(figure, handles)
    return figure


_BAND_NAMES = {"H": "HFC", "L": "LFC"}


# ---- the chapter


class GeneralisationParameters(SeveralSeeds):
    """The parameters of `notebooks/generalisation.ipynb`."""

    radius: PaperRadius = Field(
        4, title="whose panels are marked, and at which the correlation is computed by hand and under other choices"
    )


GENERALISATION = Chapter(
    name="generalisation",
    question="Do networks that generalise better read more of the HFC?",
    topic="generalisation",
    paper="title",
    figures={"generalisation-scatter": "training"},
    recipes=generalisation_recipes,
    parameters=GeneralisationParameters,
    required=("vanilla",),
    evidence=generalisation_table,
    functions=_FUNCTIONS,
)
