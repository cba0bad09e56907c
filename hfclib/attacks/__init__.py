"""Attacks on a network, and how it is scored under them."""

from hfclib.attacks.auto import apgd, strongest
from hfclib.attacks.boundary import fab
from hfclib.attacks.gradient import fgsm, pgd
from hfclib.attacks.random_search import square
from hfclib.attacks.robustness import clean_correct, robust_accuracy, robust_correct, robust_table, smallest_eps

__all__ = [
    "apgd",
    "clean_correct",
    "fab",
    "fgsm",
    "pgd",
    "robust_accuracy",
    "robust_correct",
    "robust_table",
    "smallest_eps",
    "square",
    "strongest",
]
