"""The chapter on object detection (paper, section 7): RetinaNet on images and on their low and high frequencies."""
