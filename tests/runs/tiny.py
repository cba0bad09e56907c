"""The smallest training that draws all random numbers at once: three epochs of four steps."""

from hfclib.training.recipe import Recipe

FILES = ["curves.csv", "final.csv", "run.json", "weights.safetensors"]  # of a stored run
TINY = Recipe("tiny").with_(
    width=2,
    norm="batch",
    dropout=0.5,
    mixup_alpha=0.5,
    epochs=3,
    batch_size=32,
    learning_rate=1e-3,
    schedule="one_cycle",
    augment=True,
    train_images=100,
    eval_images=20,
    final_images=30,
)
