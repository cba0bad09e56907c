"""A chapter of the book: all that pages, tests and commands need to know of it.

To add one, write `hfclib/paper/NAME.py`, which reads from top to bottom: recipes, measurements, tables, drawings,
claims, and last the `Chapter`. Enter it in `names.CHAPTER_PLACES`, and write `notebooks/NAME.ipynb`, whose first two
library calls are `check(globals())` and `obtain(settings)`. `tests/paper/test_toy_chapter.py` adds a small one.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from hfclib.paper.claims import Claim, check_cells, claims_of, main_of
from hfclib.paper.intervals import Estimate, MissingRunError
from hfclib.paper.parameters import Parameters, check_parameters, refusal
from hfclib.paper.presets import Preset
from hfclib.paper.tables import CONDITIONS, table_cells
from hfclib.paper.verdicts import ENOUGH
from hfclib.runs.collect import Runs, obtain, published_runs
from hfclib.runs.store import WEIGHTS, folders, is_published
from hfclib.training.recipe import Recipe

Source = Literal["training", "afterwards", "predictions", "weights", "images"]
OWN_RUNS = (
    "Not all runs of this notebook are published ones. So its tables and claims about their preset are about these "
    "runs alone, and those about another preset are about published runs."
)

# What figures are drawn from when their page runs, and what the page does then.
SOURCES: dict[Source, str] = {
    "training": "stored: reads what was measured after training, which is kept with each run",
    "afterwards": "stored: reads what was measured later, from the weights of the runs",
    "predictions": "recomputed from stored predictions of the networks",
    "weights": "recomputed from the weights",
    "images": "recomputed from the images; no network is behind it",
}


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A chapter: its question, its networks, its parameters and its claims.

    Attributes:
        name: of its notebook; `hfc train` and `hfc run` take it.
        question: that it answers, the title of its notebook.
        topic: the same in a word or two.
        paper, blog: where they are about it, such as "Fig. 5"; "" for nowhere.
        builds_on: chapters to read first, by name.
        figures: by the name that `show_provenance` gives, what each figure is drawn from; see `SOURCES`.
        recipes: from a preset to the recipes of its networks, by variant.
        parameters: of its notebook.
        titles: what tables of all networks call the chapter's own, by variant.
        required: variants without which the notebook shows nothing. The others are shown with the seeds that are
            stored, left out where none is, and trained only with `retrain`.
        needs_weights: variants of which the notebook needs the first seed's weights; a run may be stored as tables
            alone.
        evidence: from runs to the table on which the claims are judged; trains nothing.
        claimed: as `recipes`, of the networks that the claims are about, where these are more than the notebook's.
        cells: from that table to the cells of `claims` (CELL_COLUMNS), where these are not those of `table_cells`;
            "measured" is "" where it makes no difference.
        measures: the measures of the cells, a regular expression.
        conditions: what a claim's `measured` may be.
        functions: statistics of claims that are no contrast, by name: from that table to an Estimate.
        cell_variants: the networks of the cells, where they have other names than the variants.
    """

    name: str
    question: str
    topic: str
    paper: str
    blog: str = ""
    builds_on: tuple[str, ...] = ()
    figures: Mapping[str, Source] = field(default_factory=dict)
    recipes: Callable[[Preset], dict[str, Recipe]]
    parameters: type[Parameters]
    titles: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    needs_weights: tuple[str, ...] = ()
    evidence: Callable[[Runs], pd.DataFrame] | None = None
    claimed: Callable[[Preset], dict[str, Recipe]] | None = None
    cells: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    measures: str = r"train|test|[LH]\d+"
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    functions: Mapping[str, Callable[[pd.DataFrame], Estimate]] | None = None
    cell_variants: Callable[[Preset], Collection[str]] | None = None

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims that this chapter tests."""
        return claims_of(self.name)

    def check_claims(self) -> None:
        """Raise a ValueError if a claim is about what the chapter does not measure, or not just one is the main one."""
        if self.claims:
            main_of(self.claims)
        for preset in {claim.preset for claim in self.claims}:
            variants = (self.cell_variants or self.claimed or self.recipes)(preset)
            own = [claim for claim in self.claims if claim.preset == preset]
            check_cells(own, variants, self.measures, self.conditions, self.functions or {})

    def estimates(
        self, table: pd.DataFrame, claims: Iterable[Claim] | None = None
    ) -> dict[str, tuple[Estimate, Estimate]]:
        """The statistics of claims, by id, of those whose runs are there: from the first seeds, and from all.

        The first seeds are the lowest ENOUGH, which every rule was written for; where a statistic has no other networks
        both are one Estimate.

        Args:
            table: of `evidence`.
            claims: None takes all of the chapter.
        """
        claims, estimates = list(self.claims if claims is None else claims), {}
        cells = self._cells(table) if any(claim.contrast for claim in claims) else pd.DataFrame({"seed": []})
        lowest = cells[cells["seed"].isin(sorted(cells["seed"].unique())[:ENOUGH])]
        for claim in claims:
            with contextlib.suppress(MissingRunError):
                if claim.function:
                    estimates[claim.id] = (self.functions[claim.function](table),) * 2
                else:
                    first = estimate = claim.estimate(cells)
                    with contextlib.suppress(MissingRunError):  # the lowest seeds are not those of its networks
                        if estimate.seeds >= ENOUGH and (early := claim.estimate(lowest)) != estimate:
                            first = early
                    estimates[claim.id] = first, estimate
        return estimates

    def _cells(self, table: pd.DataFrame) -> pd.DataFrame:
        return (self.cells or table_cells)(table)

    def estimate(self, claim: Claim, table: pd.DataFrame) -> Estimate:
        """The statistic of one claim.

        Args:
            claim: of this chapter.
            table: of `evidence`.
        Raises:
            MissingRunError: no seed has all of its runs.
        """
        return self.functions[claim.function](table) if claim.function else claim.estimate(self._cells(table))

    def check(self, namespace: Mapping[str, object]) -> Parameters:
        """Check the notebook's parameters, before any work.

        Args:
            namespace: the notebook's `globals()`, or a dictionary of parameters.
        Raises:
            ValueError: as `check_parameters`; or seeds whose runs, or the weights that the notebook asks for, are not
                stored while `retrain` is off.
        """
        settings = check_parameters(self.parameters, namespace)
        if not settings.retrain and (missing := self._not_stored(settings.preset, settings.all_seeds)):
            name = "seeds" if "seeds" in self.parameters.model_fields else "seed"
            value = namespace.get(name, getattr(settings, name))
            allowed = "seeds whose runs are stored, or retrain = True, which trains them"
            said = f"{allowed}; not stored at preset {settings.preset}: {', '.join(missing)}"
            raise refusal(self.parameters, name, value, said)
        return settings

    def obtain(self, settings: Parameters) -> Runs:
        """The chapter's runs: loaded; trained where `retrain` says so. A line says where some are not published."""
        wanted = self.wanted(settings)
        options = {"optional": set(wanted) - set(self.required), "needs_weights": self.needs_weights}
        runs = obtain(wanted, settings.all_seeds, retrain=settings.retrain, **options)
        if self.is_own(settings.preset, runs):
            print(OWN_RUNS)
        return runs

    def wanted(self, settings: Parameters) -> dict[str, Recipe]:
        """The recipes whose runs a notebook with these parameters shows."""
        return self.recipes(settings.preset)

    def published_runs(self, preset: Preset = "laptop") -> Runs:
        """All published runs of a preset; your own folder is not read."""
        return published_runs(self.recipes(preset))

    def published(self, preset: Preset = "laptop") -> pd.DataFrame | None:
        """The table on which claims about a preset are judged, from all published runs; None where there are none."""
        runs = published_runs(self.claimed(preset)) if self.claimed else self.published_runs(preset)
        return self.evidence(runs) if runs else None

    def is_own(self, preset: Preset, runs: Runs) -> bool:
        """Whether a notebook's runs are of a preset and some are not published: retrained, or of a seed of yours."""
        recipes = self.recipes(preset)
        return any(
            run.recipe == recipes.get(variant) and not is_published(run.path)
            for variant, ones in runs.items()
            for run in ones
        )

    def judged(self, preset: Preset, runs: Runs) -> Runs:
        """The runs on which a notebook judges claims about a preset, and over whose seeds its tables take means.

        Args:
            preset: of the networks.
            runs: of the notebook, from `obtain`.
        Returns:
            All published runs of the preset. Where `is_own`, these `runs` alone: published numbers are mixed with yours
            only if the notebook's parameters name the seeds of both.
        """
        return runs if self.is_own(preset, runs) else self.published_runs(preset)

    def folders(self) -> list[Path]:
        """Where its runs are looked for: the published ones, then your own."""
        return folders()

    def _not_stored(self, preset: Preset, seeds: tuple[int, ...]) -> list[str]:
        """The missing runs of networks that are required, all runs of a seed that no network has, and the weights
        that the notebook asks for, where a run is stored as tables alone.
        """

        def stored(name: str) -> bool:
            return any((folder / name).exists() for folder in self.folders())

        jobs = [
            (variant, seed, recipe.run_name(seed)) for variant, recipe in self.recipes(preset).items() for seed in seeds
        ]
        missing = [job for job in jobs if not stored(job[2])]
        known = {seed for _, seed, _ in set(jobs) - set(missing)}
        loaded = [
            name for variant, seed, name in jobs if variant in self.needs_weights and seed == seeds[0] and stored(name)
        ]
        return [
            *(name for variant, seed, name in missing if variant in self.required or seed not in known),
            *(weights for name in loaded if not stored(weights := f"{name}/{WEIGHTS}")),
        ]
