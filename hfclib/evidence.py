"""What the published runs say about the claims: one table a figure, for the scoreboard and the README."""

import pandas as pd

from hfclib import claims_defense, figures, judgement, predictions, tables, tables_kernels, tables_misalignment, trials
from hfclib.data import embedded
from hfclib.obtain import stored
from hfclib.parameters import NOTEBOOKS

# The claims that the README shows; the book's scoreboard has all.
HEADLINES = (
    "fig1-lfc-exceeds-hfc-4", "fig1-grows-8", "fig1-hfc-4", "fig2-count-batchnorm-raw", "fig2-count-fullwidth-raw",
    "fig2-svd-batchnorm", "fig3-roughness-adversarial", "fig3-roughness-adversarial_batchnorm",
    *(f"fig4-{panel}-H{radius}-{version}" for version in ("as-published", "controlled")
      for panel in ("batchnorm", "mixup", "dropout") for radius in (4, 8)),
    "defense-adversarial-pgd", "defense-rule-fgsm", "defense-rule-marginal", "defense-input-unaware",
    "defense-input-aware",
)  # fmt: skip


def published() -> dict[str, pd.DataFrame]:
    """The tables that `claims.scoreboard` takes, from stored runs at "laptop"; nothing is trained.

    Returns:
        By figure: "fig1" and "fig4" final accuracies, "fig2" counts of misaligned images, "fig3" measured kernels,
        "defense" trials at that notebook's defaults, as far as they are stored too. A figure without any is left out.
    """
    found = {}
    for figure, seeds in (("fig1", (0,)), ("fig4", figures.PUBLISHED_SEEDS)):
        recipes = figures.recipes(figure, "laptop") | (figures.fig1_scale() if figure == "fig1" else {})
        runs = stored(recipes, seeds)
        if runs:
            found[figure] = tables.gather(runs, "final")
    if shown := stored(figures.fig2(), (0,)):
        answers = {panel: {one.seed: predictions.of(one) for one in ones} for panel, ones in shown.items()}
        found["fig2"] = tables_misalignment.misaligned(answers, embedded("test")[1])
    if kernels := stored(figures.fig3(), figures.PUBLISHED_SEEDS):
        found["fig3"] = tables_kernels.kernels(kernels)
    if len(attacked := _attacked()):
        found["defense"] = attacked
    return found


def _attacked() -> pd.DataFrame:
    """The stored trials of the chapter on defenses; attacks take minutes, and none is run."""
    runs = stored(figures.defense(), figures.PUBLISHED_SEEDS)
    rho, eps, steps, images = (NOTEBOOKS["defense"][name].default for name in ("rho", "eps", "steps", "n_images"))
    table = trials.table(runs, rho, eps, steps, images=images, compute=False)
    wanted = claims_defense.to_judge(judgement.gains(table))
    judged = trials.judged(runs, wanted, steps, images=images, compute=False)
    return pd.concat([table, judged], ignore_index=True)
