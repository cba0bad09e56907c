"""The chapter on object detection (paper, section 7): RetinaNet on images and on their low and high frequencies.

`bccd` reads the pictures, `detector` trains, `measure` evaluates, `store` keeps runs, `claims` judges, `show` draws,
and `coco` is the paper's own experiment. On a command line: `python -m hfclib.paper.detection`.
"""

from hfclib.paper.detection.claims import DETECTION_CLAIMS as DETECTION_CLAIMS
from hfclib.paper.detection.coco import evaluate_coco as evaluate_coco
