"""Training a network by a recipe, with checkpoints from which it resumes."""

from hfclib.training.loop import Progress, TrainingError, fit
from hfclib.training.recipe import AttackConfig, DataConfig, ModelConfig, OptimizerConfig, Recipe

__all__ = ["AttackConfig", "DataConfig", "ModelConfig", "OptimizerConfig"]
__all__ += ["Progress", "Recipe", "TrainingError", "fit"]
