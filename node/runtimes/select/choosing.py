"""Which runtime serves a model best, from measurements: pure functions, and the words they are reported in.

A batch may be run in pieces, and in lanes (``pieces``), so each candidate is given its best way first. What counts
then is throughput, the time of the largest batch; of those that are as good as equal there, the lone request's latency;
of those, the model's own format, for a conversion has to be worth it.
"""

from collections.abc import Mapping, Sequence

import msgspec

from node.runtimes.select.agreement import Agreement

# Two timings nearer than this are the same: on a shared machine they repeat to a few percent.
EVEN = 0.05
# What lanes gain where cores decode beside them, and the trial does not see (MobileNetV2, 2 cores).
LANES_GAIN = 0.1


class Candidate(msgspec.Struct, frozen=True):
    """One way to run a model: an engine, and what its weights are turned into (``int8``, or nothing)."""

    runtime: str
    quantize: str = ""

    def __str__(self) -> str:
        """Such as ``litert int8``."""
        return f"{self.runtime} {self.quantize}".rstrip()


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a candidate: milliseconds by batch size, run in pieces of ``piece`` (0: whole), its agreement.

    With ``lanes`` a piece is what each of so many takes at a time; 0: there are none.
    ``reason`` says why it is out of the question; empty: it is not.
    """

    candidate: Candidate
    ms: dict[int, float] = {}
    piece: int = 0
    lanes: int = 0
    agreement: Agreement | None = None
    reason: str = ""

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"batch of {size}: {ms:.2f} ms" for size, ms in self.ms.items()]
        if self.piece:
            parts.append(f"in pieces of {self.piece}")
        if self.lanes:
            parts.append(f"in {self.lanes} lanes")
        if self.agreement is not None:
            parts.append(str(self.agreement))
        if self.reason:
            parts.append(self.reason)
        return f"{self.candidate}: {'; '.join(parts)}"


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How batches are run: milliseconds by size; ``piece`` and ``lanes`` as in ``Trial``."""

    ms: dict[int, float]
    piece: int
    lanes: int = 0


class ChoiceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, of what, compared on which ``samples``; ``cached``: measured at an earlier start."""

    chosen: Candidate
    trials: tuple[Trial, ...]
    samples: str = ""
    cached: bool = False

    def trial(self, candidate: Candidate) -> Trial:
        """Return what became of a candidate that was tried."""
        return next(each for each in self.trials if each.candidate == candidate)


def best_piece(ms: Mapping[int, float]) -> int:
    """Return the batch size with the least time for each item; of equals the smallest, which needs the least memory."""
    least = min(each / size for size, each in ms.items())
    return min(size for size, each in ms.items() if each / size <= least * (1 + EVEN))


def in_pieces_ms(ms: Mapping[int, float], piece: int, size: int) -> float:
    """Return what a batch takes when run in pieces, from what some sizes take whole, ``piece`` among them.

    A last piece that was not timed itself counts as the next larger one that was.
    """
    whole, rest = divmod(size, piece)
    return whole * ms[piece] + (ms[min(each for each in ms if each >= rest)] if rest else 0.0)


def way(ms: Mapping[int, float], batches: Sequence[int], lanes: int = 0) -> Way:
    """Return the best way to cut batches, from what sizes take whole: powers of two, and the largest.

    A lane takes at least two rows at a time: after each piece it asks for the interpreter's lock, which others hold.
    """
    piece = best_piece({size: each for size, each in ms.items() if size >= 2 * lanes} or {max(ms): ms[max(ms)]})
    return Way(
        ms={size: round(in_pieces_ms(ms, min(piece, size), size), 3) for size in sorted(batches)},
        piece=0 if piece == max(ms) else max(1, piece // max(1, lanes)),
        lanes=lanes,
    )


def better(together: Way, lanes: Way) -> Way:
    """Return lanes unless they are clearly slower with the largest batch, for beside decoding they gain so much."""
    return lanes if max(lanes.ms.items())[1] <= max(together.ms.items())[1] * (1 + LANES_GAIN) else together


def choose(trials: Sequence[Trial]) -> Candidate:
    """Return the best of the candidates that are fit; the first is the model in its own format."""
    fit = [each for each in trials if each.ms and not each.reason]
    if not fit:
        return trials[0].candidate
    for size in (max(fit[0].ms), min(fit[0].ms)):
        least = min(each.ms[size] for each in fit)
        fit = [each for each in fit if each.ms[size] <= least * (1 + EVEN)]
    return fit[0].candidate
