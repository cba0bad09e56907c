"""What the claims of the paper's section 7 are judged on."""

import pandas as pd

MATCHED_RADIUS = 48  # keeps .168 of the DFT bins of our 240 x 180, as r = 128 does of 640 x 480, COCO's commonest size
PAPER_DETECTION = {"mAP x": 0.356, "mAP lfc": 0.275, "mAP hfc": 0.107, "better lfc": 1684 / 5000}  # COCO, r = 128


def detection_cells(results: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims at the matched radius: "mAP_x", "mAP_lfc", "mAP_hfc", "better_lfc", "better_mirror"...

    Bands are fed raw; with the mean colour added the measure ends with "_mean".
    """
    rows = results[results["radius"].isna() | (results["radius"] == MATCHED_RADIUS)]
    cells = rows.melt(["seed", "band", "feed"], ["mAP", "better"], "measure", "value")
    end = cells["feed"].map({"raw": "", "mean": "_mean"})
    return cells.assign(measure=cells["measure"] + "_" + cells["band"] + end, variant="detector", measured="")
