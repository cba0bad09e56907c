"""A chapter of the book: its networks, its notebook's parameters and its claims.

To add one, write `hfclib/paper/NAME.py`, which reads from top to bottom: recipes, measurements, tables, drawings,
claims, and last the `Chapter`. Enter it in `names.CHAPTER_PLACES`, and write `notebooks/NAME.ipynb`, whose first two
library calls are `check(globals())` and `obtain(settings)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hfclib.paper.parameters import Parameters, check_parameters, refusal
from hfclib.paper.presets import Preset
from hfclib.paper.verdicts import Claim
from hfclib.runs.collect import Runs, obtain, stored_runs
from hfclib.runs.store import WEIGHTS, folders
from hfclib.training.recipe import Recipe


@dataclass(frozen=True)
class Chapter:
    """A chapter: its networks, its parameters and its claims.

    Attributes:
        name: of its notebook; `hfc train` and `hfc run` take it.
        recipes: from a preset to the recipes of its networks, by variant.
        parameters: of its notebook.
        optional: variants that are shown with the seeds that are stored, and left out where none is. They are trained
            only with `retrain`.
        asked: variants whose network, that of the first seed, the notebook asks; a run may be stored as tables alone.
        claims: of the paper, as far as this chapter tests them.
        evidence: from the published runs to the table on which the claims are judged; trains nothing.
    """

    name: str
    recipes: Callable[[Preset], dict[str, Recipe]]
    parameters: type[Parameters]
    optional: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    evidence: Callable[[Runs], pd.DataFrame] | None = None

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
        """The chapter's runs: loaded; trained where `retrain` says so."""
        recipes = self.recipes(settings.preset)
        return obtain(recipes, settings.all_seeds, retrain=settings.retrain, optional=self.optional)

    def published(self, preset: Preset = "laptop") -> pd.DataFrame | None:
        """The table on which the claims about a preset are judged, from all stored runs; None where there are none."""
        runs = stored_runs(self.recipes(preset))
        return self.evidence(runs) if runs else None

    def folders(self) -> list[Path]:
        """Where its runs are looked for: the published ones, then your own."""
        return folders()

    def _not_stored(self, preset: Preset, seeds: tuple[int, ...]) -> list[str]:
        """The missing runs of networks that are not optional, all runs of a seed that no network has, and the weights
        that the notebook asks for, where a run is stored as tables alone.
        """

        def stored(name: str) -> bool:
            return any((folder / name).exists() for folder in self.folders())

        jobs = [
            (variant, seed, recipe.run_name(seed)) for variant, recipe in self.recipes(preset).items() for seed in seeds
        ]
        missing = [job for job in jobs if not stored(job[2])]
        known = {seed for _, seed, _ in set(jobs) - set(missing)}
        asked = [name for variant, seed, name in jobs if variant in self.asked and seed == seeds[0] and stored(name)]
        return [
            *(name for variant, seed, name in missing if variant not in self.optional or seed not in known),
            *(weights for name in asked if not stored(weights := f"{name}/{WEIGHTS}")),
        ]
