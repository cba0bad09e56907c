"""The values that the paper published, in [0, 1], each with where we read it; others are not available to us."""

from typing import NamedTuple


class Published(NamedTuple):
    """A published value, in [0, 1], and where it was read."""

    value: float
    source: str


# End of training of each network of Fig. 4.
FIGURE = "read off the paper's Fig. 5, to about .03"
_COLUMNS = ("train", "test", "L4", "L8", "L12", "L16", "H4", "H8", "H12", "H16")
_FIG4 = {
    "vanilla": (0.92, 0.84, 0.22, 0.54, 0.80, 0.83, 0.10, 0.10, 0.16, 0.13),
    "dropout": (0.90, 0.83, 0.22, 0.55, 0.78, 0.82, 0.21, 0.22, 0.19, 0.13),
    "mixup": (0.76, 0.85, 0.26, 0.57, 0.80, 0.84, 0.48, 0.34, 0.15, 0.12),
    "batchnorm": (0.96, 0.85, 0.38, 0.70, 0.81, 0.84, 0.65, 0.54, 0.39, 0.18),
    "adversarial": (0.69, 0.69, 0.55, 0.67, 0.69, 0.69, 0.17, 0.10, 0.10, 0.10),
}


def fig4_value(variant: str, measure: str) -> Published | None:
    """The accuracy of a network of Fig. 4 (the paper's Fig. 5) at the end of training; None where there is none.

    Args:
        variant: "vanilla", "dropout", "mixup", "batchnorm" or "adversarial".
        measure: "train", "test", or a band and radius such as "L4" or "H12".
    """
    values = dict(zip(_COLUMNS, _FIG4.get(variant, ()), strict=False))
    return Published(values[measure], FIGURE) if measure in values else None


def fig4_difference(variant: str, measure: str) -> float | None:
    """A network's `fig4_value` minus vanilla's; None where the paper lacks either."""
    ours, vanilla = fig4_value(variant, measure), fig4_value("vanilla", measure)
    return ours.value - vanilla.value if ours and vanilla else None


TABLE1 = "Table 1 of the paper, quoted by a third party"
_TABLE1 = {"train": (0.967, 0.979, 0.979, 0.984), "test": (0.617, 0.715, 0.752, 0.771)}
# Of the networks trained on the HFC we know only ranges over the radii.
TABLE1_HFC = {"train": ".97 to .99 (all radii)", "test": ".09 to .20 (all radii)"}
TABLE1_HFC_AT_MOST = 0.20
MISALIGNED = 0.06  # "~600" of 10,000 test images at r = 12, the blog version


def table1_value(variant: str, measure: str) -> Published | None:
    """The accuracy of a network of Table 1; None where there is none, as for all networks trained on the HFC.

    Args:
        variant: "lfc4" to "lfc16", what it was trained on.
        measure: "train", or "test" for original test images.
    """
    values = {f"lfc{radius}": value for radius, value in zip((4, 8, 12, 16), _TABLE1.get(measure, ()), strict=False)}
    return Published(values[variant], TABLE1) if variant in values else None


TABLE2 = "Table 2 of the paper, quoted by a third party"
_TABLE2 = {  # (variant, defense, strength, attack, eps)
    ("vanilla", "none", 0, "fgsm", 0.03): 0.107,
    ("vanilla", "none", 0, "pgd", 0.03): 0.003,
    ("vanilla", "rule", 1, "fgsm", 0.03): 0.171,
    ("adversarial", "none", 0, "fgsm", 0.03): 0.435,
    ("adversarial", "none", 0, "pgd", 0.03): 0.403,
}


def table2_value(variant: str, defense: str, strength: float, attack: str, eps: float) -> Published | None:
    """The accuracy in a cell of Table 2; None where there is none.

    Args:
        variant: a network of `defense_recipes`; the paper's natural one is "vanilla".
        defense, strength: as in `Defense`; the paper's smoothing is "rule".
        attack, eps: as in `Attack`.
    """
    value = _TABLE2.get((variant, defense, strength, attack, eps))
    return None if value is None else Published(value, TABLE2)
