"""Whether a converted model still says what the original says.

Differences are taken relative to the largest value of the original's output, for a softmax over a thousand classes and
a logit live on different scales. The best class counts only where it leads clearly: an untrained model's scores are
all but equal, and which of them is largest by a hair means nothing. Pure functions of arrays.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from node.tensors import Array, Tensors

# The best class leads clearly when it is ahead of the second by this part of the output's largest value.
CLEAR_LEAD = 0.1
# Float arithmetic in another order differs by 1e-7 to 1e-3 of the largest value; a wrong operation or layout by 0.1 up.
FLOAT_DIFFERENCE = 0.01
# Rounding cannot turn a clear lead round: of 64 samples none may.
FLOAT_TOP1 = 0.99
# Eight bits turn a few clear leads round in a good conversion, and many where a range was calibrated wrong.
INT8_TOP1 = 0.95
# The error's root mean square by the output's own: a model reduced to zeros has 1, one of noise 1.4 and more.
INT8_ERROR = 0.3


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """``difference``: the largest one; ``error``: root mean square; both relative, of the output where they are worst.

    ``top1``: the share of samples with a clear lead, ``decided`` of them, where both name the same class; None where
    there is no such sample.
    """

    difference: float
    error: float
    top1: float | None
    decided: int

    def __str__(self) -> str:
        """In words for a person."""
        same = (
            "no sample has a clear best class"
            if self.top1 is None
            else f"best class the same in {round(self.top1 * self.decided)} of {self.decided}"
        )
        return f"largest difference {self.difference:.2g}, error {self.error:.2g}, {same}"


def compare(original: Tensors, other: Tensors) -> Agreement:
    """Compare outputs of the same names and shapes, batch first."""
    worst = Agreement(difference=0.0, error=0.0, top1=None, decided=0)
    decided = same = 0
    for name, reference in original.items():
        difference, error = _distance(reference, other[name])
        worst = msgspec.structs.replace(
            worst, difference=max(worst.difference, difference), error=max(worst.error, error)
        )
        clear, agreeing = _top1(reference, other[name])
        decided, same = decided + clear, same + agreeing
    return msgspec.structs.replace(worst, decided=decided, top1=same / decided if decided else None)


def objection(agreement: Agreement, quantize: str) -> str:
    """Return why a candidate cannot stand for the original, an empty string when it can."""
    least = INT8_TOP1 if quantize else FLOAT_TOP1
    if quantize and not agreement.error <= INT8_ERROR:
        return f"it disagrees: error {agreement.error:.2g}, more than {INT8_ERROR}"
    if not quantize and not agreement.difference <= FLOAT_DIFFERENCE:
        return f"it disagrees: largest difference {agreement.difference:.2g}, more than {FLOAT_DIFFERENCE}"
    if agreement.top1 is not None and agreement.top1 < least:
        return f"it disagrees: best class the same in {agreement.top1:.1%}, less than {least:.0%}"
    return ""


def joined(parts: Sequence[Tensors]) -> Tensors:
    """Put the outputs of several batches together."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _distance(reference: Array, other: Array) -> tuple[float, float]:
    if reference.dtype.kind != "f":
        unequal = float((reference != other).mean()) if reference.size else 0.0
        return unequal, unequal
    exact, given = reference.astype(np.float64), other.astype(np.float64)
    alike = (exact == given) | (np.isnan(exact) & np.isnan(given))  # infinities of one sign among them
    with np.errstate(invalid="ignore"):  # infinities, which are told apart here
        gap = np.where(alike, 0.0, np.abs(given - exact))
    if not np.isfinite(gap).all():
        return float("inf"), float("inf")
    finite = exact[np.isfinite(exact)]
    scale = float(np.abs(finite).max(initial=0.0)) or 1.0
    power = float(np.sqrt((finite**2).mean())) if finite.size else 0.0
    return float(gap.max(initial=0.0)) / scale, float(np.sqrt((gap**2).mean())) / (power or 1.0) if gap.size else 0.0


def _top1(reference: Array, other: Array) -> tuple[int, int]:
    """Return how many rows have a clear best class, and in how many of those the other names it too."""
    if reference.dtype.kind != "f" or reference.ndim != 2 or reference.shape[1] < 2:
        return 0, 0
    second, best = np.partition(reference.astype(np.float64), -2, axis=1)[:, -2:].T
    clear = best - second > CLEAR_LEAD * np.abs(reference).max()
    same = reference.argmax(axis=1) == other.argmax(axis=1)
    return int(clear.sum()), int((clear & same).sum())
