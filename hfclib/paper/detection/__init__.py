"""The chapter on object detection (paper, section 7): RetinaNet on images and on their low and high frequencies.

`bccd` reads the pictures, `detector` trains, `measure` evaluates, `store` keeps runs, `claims` judges, `plots` draws,
and `coco` is the paper's own experiment: `python -m hfclib.paper.detection FOLDER`.
"""

from hfclib.paper.detection import measure, plots
from hfclib.paper.detection.chapter import DETECTION, gather_detections
from hfclib.paper.detection.store import evaluation_data

__all__ = ["DETECTION", "evaluation_data", "gather_detections", "measure", "plots"]
