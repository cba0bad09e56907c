"""The paper's claims that were tested, and the scoreboard of what came of them; the rule is in `verdicts`."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise

import pandas as pd

from hfclib import published, tables_kernels
from hfclib.claims_defense import DEFENSE_CLAIMS
from hfclib.tables import CONDITIONS, FIG2_TITLES, by_seed, decimals, difference, interval, with_interval
from hfclib.verdicts import MARGIN, Claim, Estimate, MissingRunError, share_of, verdict

CHANCE = 0.1


def _slug(version: str) -> str:
    return version.replace("'", "").replace(" ", "-")


# ---- Fig. 4: a heuristic against vanilla


def _over_seeds(values: pd.Series) -> Estimate:
    if values.empty:
        raise MissingRunError("no seed has all the runs of the claim")
    return Estimate(*interval(values), seeds=len(values))


def _fig4_difference(final: pd.DataFrame, *, panel: str, measure: str, version: str) -> Estimate:
    return _over_seeds(difference(final, panel, measure, *CONDITIONS[version]))


def _fig4_claims() -> Iterator[Claim]:
    sentences = {
        "batchnorm": "BatchNorm makes the network more accurate on the HFC at r = {r} than vanilla training does",
        "mixup": "Mix-up makes the network more accurate on the HFC at r = {r} than vanilla training does",
        "dropout": "Dropout does not change the accuracy on the HFC at r = {r}",
    }
    for version in CONDITIONS:
        for panel, sentence in sentences.items():
            for radius in (4, 8):
                measure = f"H{radius}"
                yield Claim(
                    id=f"fig4-{panel}-{measure}-{_slug(version)}",
                    figure="fig4",
                    section="section 5.2, Fig. 5",
                    text=sentence.format(r=radius),
                    version=version,
                    relation="does not differ" if panel == "dropout" else "exceeds",
                    statistic=partial(_fig4_difference, panel=panel, measure=measure, version=version),
                    paper=decimals(published.fig4_difference(panel, measure), 2),
                )


# ---- Fig. 4: adversarial training, beside other things on whole images


def _fig4_loss(final: pd.DataFrame) -> Estimate:
    return _over_seeds(-difference(final, "adversarial", "test", *CONDITIONS["controlled"]))


def _fig4_gap(final: pd.DataFrame) -> Estimate:
    train, test = (difference(final, "adversarial", one, *CONDITIONS["controlled"]) for one in ("train", "test"))
    return _over_seeds(test - train)


def _over_chance(final: pd.DataFrame, *, measure: str, version: str) -> Estimate:
    accuracies = by_seed(final, measure, *CONDITIONS[version])
    return _over_seeds(accuracies.reindex(columns=["adversarial"])["adversarial"].dropna() - CHANCE)


def _adversarial_claims() -> Iterator[Claim]:
    shared = {"figure": "fig4", "section": "section 5.2, Fig. 5"}
    paper = {measure: published.fig4_difference("adversarial", measure) for measure in ("train", "test")}
    yield Claim(id="fig4-adversarial-test-whole-images", **shared, version="whole images", relation="exceeds",
                text="Adversarial training makes the network less accurate on test images than vanilla training does",
                statistic=_fig4_loss, paper=decimals(-paper["test"], 2))  # fmt: skip
    yield Claim(id="fig4-adversarial-gap-whole-images", **shared, version="whole images", relation="exceeds",
                text="Adversarial training narrows the gap between training and test accuracy",
                statistic=_fig4_gap, paper=decimals(paper["test"] - paper["train"], 2))  # fmt: skip
    for version in CONDITIONS:
        yield Claim(id=f"fig4-adversarial-H4-{_slug(version)}", **shared, version=version,
                    relation="exceeds", text="On the HFC at r = 4 an adversarially trained network exceeds chance",
                    statistic=partial(_over_chance, measure="H4", version=version),
                    paper=decimals(published.fig4("adversarial", "H4").value - CHANCE, 2))  # fmt: skip
        for measure in ("H12", "H16"):
            yield Claim(id=f"fig4-adversarial-{measure}-{_slug(version)}", **shared, version=version,
                        relation="at most", bound=MARGIN,
                        text=f"On the HFC at r = {measure[1:]} an adversarially trained network is at most .05 above "
                        "chance", statistic=partial(_over_chance, measure=measure, version=version),
                        paper=decimals(published.fig4("adversarial", measure).value - CHANCE, 2))  # fmt: skip


# ---- Fig. 1: the networks of Table 1


def _on_originals(final: pd.DataFrame, *, panels: tuple[str, ...]) -> Estimate:
    rows = final[(final["split"] == "test") & (final["band"] == "x") & (final["bn_stats"] == "running")]
    wide = rows.pivot_table(index="seed", columns="panel", values="accuracy").reindex(columns=list(panels)).dropna()
    return share_of(wide, int(rows["images"].max()))


def _fig1_claims() -> Iterator[Claim]:
    shared = {"figure": "fig1", "section": "section 4.1, Table 1"}
    radii = (4, 8, 12, 16)
    # The rule for the authors' scaling was committed before its networks were trained.
    for scaling, suffix in (("original images", ""), ("original images, HFC divided by its maximum", "max")):
        for radius in radii:
            yield Claim(
                id=f"fig1-lfc-exceeds-hfc-{radius}{suffix}", **shared, version=scaling, relation="exceeds",
                text=f"On original images a network trained on the LFC at r = {radius} is more accurate than one "
                "trained on the HFC",
                statistic=partial(_on_originals, panels=(f"lfc{radius}", f"hfc{radius}{suffix}")),
            )  # fmt: skip
        for radius in radii:
            yield Claim(
                id=f"fig1-hfc-{radius}{suffix}", **shared, version=scaling, relation="at most",
                bound=published.TABLE1_HFC_AT_MOST, paper=".09 to .20",
                text=f"Trained on the HFC at r = {radius} a network is right on at most .20 of original images",
                statistic=partial(_on_originals, panels=(f"hfc{radius}{suffix}",)),
            )  # fmt: skip
    for smaller, larger in pairwise(radii):
        step = published.table1(f"lfc{larger}", "test").value - published.table1(f"lfc{smaller}", "test").value
        yield Claim(
            id=f"fig1-grows-{larger}", **shared, version="original images", relation="exceeds",
            text=f"On original images a network trained on the LFC at r = {larger} is more accurate than one at "
            f"r = {smaller}",
            statistic=partial(_on_originals, panels=(f"lfc{larger}", f"lfc{smaller}")), paper=decimals(step),
        )  # fmt: skip


# ---- Fig. 2: misaligned images

# None of its networks is trained adversarially, so that the authors' feed is the same for all.
# How Fig. 2 itself was fed is not published.
_FIG2_CONDITIONS = {
    "raw": ("raw", "running"),
    "authors' code": ("max", "batch"),
    "controlled": CONDITIONS["controlled"],
}


def _misaligned(counts: pd.DataFrame, *, panel: str, cuts: tuple[str, ...], version: str) -> Estimate:
    feed, bn_stats = _FIG2_CONDITIONS[version]
    rows = counts[(counts["panel"] == panel) & (counts["radius"] == 12) & (counts["feed"] == feed)]
    stats = set(rows["bn_stats"])
    rows = rows[rows["bn_stats"] == (bn_stats if bn_stats in stats else "running")]
    shares = rows.assign(share=rows["misaligned"] / rows["images"])
    wide = shares.pivot_table(index="seed", columns="cut", values="share").reindex(columns=list(cuts)).dropna()
    return share_of(wide, int(rows["images"].max()) if len(rows) else 0)


def _fig2_claims() -> Iterator[Claim]:
    for panel, title in FIG2_TITLES.items():
        for version in _FIG2_CONDITIONS:
            yield Claim(
                id=f"fig2-count-{panel}-{_slug(version)}", figure="fig2", section="blog",
                text=f"About 600 of 10,000 test images (.06) are misaligned at r = 12: {title}", version=version,
                relation="about", bound=published.MISALIGNED, paper=decimals(published.MISALIGNED, 2),
                statistic=partial(_misaligned, panel=panel, cuts=("fourier",), version=version),
            )  # fmt: skip
        yield Claim(
            id=f"fig2-svd-{panel}", figure="fig2", section="section 8", version="raw", relation="exceeds",
            text="Cut by a truncated SVD, fewer images are misaligned than cut by the Fourier transform, at r = 12: "
            f"{title}",
            statistic=partial(_misaligned, panel=panel, cuts=("fourier", "svd"), version="raw"),
        )  # fmt: skip


# ---- Fig. 3: the first layer's kernels


def _fig3_claims() -> Iterator[Claim]:
    pairs = {"3 x 3": ("vanilla", "adversarial"), "3 x 3, BatchNorm": ("batchnorm", "adversarial_batchnorm"),
             "5 x 5": ("vanilla5", "adversarial5")}  # fmt: skip
    words = {
        "roughness": "the first layer's kernels are smoother",
        "share": f"a smaller share of the first layer's kernels' energy is at r = {tables_kernels.RADIUS} or more",
    }
    for measure, text in words.items():
        shared = {"figure": "fig3", "relation": "exceeds"}
        for version, (natural, attacked) in pairs.items():
            yield Claim(
                id=f"fig3-{measure}-{attacked}", **shared, section="section 6, Fig. 7", version=version,
                text=f"After adversarial training {text} than after natural training",
                statistic=partial(tables_kernels.contrast, signs={natural: 1, attacked: -1}, measure=measure),
            )  # fmt: skip
        yield Claim(
            id=f"fig3-{measure}-clearer", **shared, section="appendix", version="5 x 5 less 3 x 3",
            text=f"That {text} after adversarial training is clearer in kernels of 5 x 5 than of 3 x 3",
            statistic=partial(tables_kernels.contrast, measure=measure,
                              signs={"vanilla5": 1, "adversarial5": -1, "vanilla": -1, "adversarial": 1}),
        )  # fmt: skip


CLAIMS: tuple[Claim, ...] = (*_fig1_claims(), *_fig2_claims(), *_fig3_claims(), *_fig4_claims(),
                             *_adversarial_claims(), *DEFENSE_CLAIMS)  # fmt: skip


def scoreboard(evidence: Mapping[str, pd.DataFrame], version: str | None = None) -> pd.DataFrame:
    """All claims about the given figures, or those of one version, as a reader's table.

    Args:
        evidence: by figure: the final accuracies from `tables.gather` for "fig1" and "fig4", the counts with a column
            seed from `tables_misalignment.misaligned` for "fig2", the kernels from `tables_kernels.kernels` for "fig3",
            the trials from `trials.table` and `trials.judged`, one below the other, for "defense".
        version: only claims tested under this condition.
    Returns:
        Index the claim's id; columns claim, version, section, paper, ours ("mean [low, high]"), interval (over what),
        verdict, figure. A claim whose runs are missing is there, with the verdict "run missing".
    """
    rows = {}
    for claim in CLAIMS:
        if claim.figure not in evidence or version not in (None, claim.version):
            continue
        try:
            found = claim.statistic(evidence[claim.figure])
            ours = with_interval(found.mean, found.low, found.high)
            judged = verdict(claim.relation, found.low, found.high, claim.bound)
            over = found.what
        except MissingRunError:
            ours, judged, over = "not measured", "run missing", "none"
        rows[claim.id] = (claim.text, claim.version, claim.section, claim.paper or "not published", ours, over, judged,
                          claim.figure)  # fmt: skip
    columns = ["claim", "version", "section", "paper", "ours", "interval", "verdict", "figure"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("id")
