"""The Square attack: random search that uses logits only, so that no masked gradient can stop it."""

import torch
from torch import Tensor, nn

from hfclib.attacks import checks
from hfclib.attacks.checks import DEFAULT_EPS
from hfclib.attacks.gradient import margin
from hfclib.attacks.rng import PerImageRNG
from hfclib.conditions import evaluating

# The shares of the queries after which the squares halve their area, from the published table.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_BLOCK = 256  # queries whose random numbers are drawn at once


def square_side(query: int, queries: int, height: int, width: int, area: float) -> int:
    """Side in pixels of the square that number `query`, from 0, changes; the first ones cover the share `area`."""
    halvings = sum(query > share * queries for share in _HALVINGS)
    side = round((area / 2**halvings * height * width) ** 0.5)
    return min(max(side, 1), height, width)


@torch.no_grad()
def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor = DEFAULT_EPS,
    queries: int = 5_000,
    area: float = 0.8,
    targeted: bool = False,
    seed: int | None = None,
    indices: Tensor | None = None,
    amp: bool = False,
) -> Tensor:
    """Random search in the corners of the Linf ball: one square at a time, kept if the margin shrinks.

    The search starts from vertical stripes, one pixel wide, of +eps or -eps in each channel. Each query draws a square
    at a random place and +eps or -eps for each of its channels; squares get smaller. A fooled image is left alone.

    Args:
        model, images, labels, eps, targeted: as in `pgd`, with the Linf norm; eps has to be a number, or (N,).
        queries: how often each image may be shown to the model, 1 or more; the start is the first. Confirmations in
            full precision with `amp` are not counted.
        area: share of the image that the first squares cover, in (0, 1].
        seed, indices, amp: as in `pgd`.
    Returns:
        adv_images like images: in [0, 1], within eps of images up to rounding (1e-6); raises and warns as `pgd`.
    Source: Andriushchenko et al., ECCV 2020, with the margin as loss; first area and schedule of AutoAttack.
    """
    labels, eps = checks.check_batch(images, labels), checks.per_image("eps", eps, images, "linf")
    checks.check_count("queries", queries, 1)
    if not 0 < area <= 1:
        raise ValueError(f"expected area, a share in (0, 1], got {area!r}")
    count, channels, height, width = images.shape
    rng, active = PerImageRNG(count, seed, indices), torch.arange(count, device=images.device)
    if count == 0:
        return images.clone()
    low, high = (images - eps).clamp(0, 1), (images + eps).clamp(0, 1)
    with evaluating(model):
        best = torch.where(rng.numbers(active, (channels, 1, width)) < 0.5, low, high)
        logits = checks.forward(model, best, labels, amp=amp)
        checks.warn_if_probabilities(logits)
        sign = 1 if targeted else -1
        loss = sign * margin(logits, labels)  # how far the attack is from success: below 0 the image is fooled
        fooled = checks.confirm_in_fp32(model, best, labels, loss < 0, targeted=targeted, amp=amp)
        for query in range(1, queries):
            active = active[~fooled[active]]
            if len(active) == 0:
                break
            place = (query - 1) % _BLOCK
            if place == 0:
                drawn = images.new_empty(count, _BLOCK, 2 + channels, dtype=torch.float32)
                drawn[active] = rng.numbers(active, drawn.shape[1:])
            numbers = drawn[active, place]
            side = square_side(query, queries, height, width, area)
            inside = _inside(numbers[:, :2], side, height, width)
            corner = torch.where(numbers[:, 2:, None, None] < 0.5, low[active], high[active])
            tried = torch.where(inside, corner, best[active])
            tried_loss = sign * margin(checks.forward(model, tried, labels[active], amp=amp), labels[active])
            better = tried_loss < loss[active]
            changed = active[better]
            best[changed], loss[changed] = tried[better], tried_loss[better]
            if len(changed):
                fooled[changed] = checks.confirm_in_fp32(
                    model, best[changed], labels[changed], loss[changed] < 0, targeted=targeted, amp=amp
                )
    return best


def _inside(place: Tensor, side: int, height: int, width: int) -> Tensor:
    """Pixels (N, 1, H, W) of squares whose top left corner is at `place` (N, 2) in [0, 1) of its possible range."""
    top, left = ((place[:, axis] * (size - side + 1)).long()[:, None] for axis, size in enumerate((height, width)))
    rows, columns = (torch.arange(size, device=place.device)[None] for size in (height, width))
    down, across = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
    return down[:, None, :, None] & across[:, None, None, :]
