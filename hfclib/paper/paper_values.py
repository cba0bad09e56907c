"""The values that the paper published, in [0, 1], and where we read them; others are not available to us.

- FIG4_VALUES: accuracy of the networks of Fig. 4 at the end of training, read off the paper's Fig. 5, to about .03. By
  variant and measure, which is "train", "test", or a band and radius such as "L4" or "H12".
- TABLE1_VALUES: accuracy of networks trained on the LFC, from Table 1, quoted by a third party. By variant, "lfc4" to
  "lfc16", and measure, "train", or "test" for original test images.
- TABLE2_VALUES: accuracy under attack, from Table 2, quoted by a third party. By network of `defense_recipes` (the
  paper's natural one is "vanilla"), method and strength of the `Defense` (the paper's smoothing is "rule"), method and
  eps of the `Attack`.
"""

_MEASURES = ("train", "test", "L4", "L8", "L12", "L16", "H4", "H8", "H12", "H16")
_FIG4 = {
    "vanilla": (0.92, 0.84, 0.22, 0.54, 0.80, 0.83, 0.10, 0.10, 0.16, 0.13),
    "dropout": (0.90, 0.83, 0.22, 0.55, 0.78, 0.82, 0.21, 0.22, 0.19, 0.13),
    "mixup": (0.76, 0.85, 0.26, 0.57, 0.80, 0.84, 0.48, 0.34, 0.15, 0.12),
    "batchnorm": (0.96, 0.85, 0.38, 0.70, 0.81, 0.84, 0.65, 0.54, 0.39, 0.18),
    "adversarial": (0.69, 0.69, 0.55, 0.67, 0.69, 0.69, 0.17, 0.10, 0.10, 0.10),
}
FIG4_VALUES = {(one, m): value for one, row in _FIG4.items() for m, value in zip(_MEASURES, row, strict=True)}


_TABLE1 = {"train": (0.967, 0.979, 0.979, 0.984), "test": (0.617, 0.715, 0.752, 0.771)}
TABLE1_VALUES = {
    (f"lfc{r}", m): value for m, row in _TABLE1.items() for r, value in zip((4, 8, 12, 16), row, strict=True)
}
# Of the networks trained on the HFC we know only ranges over the radii.
TABLE1_HFC = {"train": ".97 to .99 (all radii)", "test": ".09 to .20 (all radii)"}
TABLE1_HFC_AT_MOST = 0.20
MISALIGNED = 0.06  # "~600" of 10,000 test images at r = 12, the blog version
TABLE2_VALUES = {
    ("vanilla", "none", 0, "fgsm", 0.03): 0.107,
    ("vanilla", "none", 0, "pgd", 0.03): 0.003,
    ("vanilla", "rule", 1, "fgsm", 0.03): 0.171,
    ("adversarial", "none", 0, "fgsm", 0.03): 0.435,
    ("adversarial", "none", 0, "pgd", 0.03): 0.403,
}
