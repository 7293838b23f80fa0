"""How a cost grows with the count: a straight line through what was measured, and a verdict.

The line is the least squares fit of seconds over count. The largest counts decide it and its R²,
so the verdict looks at the other end, too. What the smallest count took is taken for the cost that
does not depend on the count (it is a little more than that), and subtracted from the others:

    cost(n) = (seconds(n) - seconds(smallest)) / (n - smallest)

The ratio is cost(largest) / cost(n) of the smallest n that takes at least five times as long as the
smallest count: there the fixed cost and its noise hardly count.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

R2_AT_LEAST = 0.99
FIXED_AT_MOST = 0.2
RATIO_AT_MOST = 1.5
CRITERION = (
    f"linear: R² >= {R2_AT_LEAST}, and an instance at the largest count costs between "
    f"1/{RATIO_AT_MOST} and {RATIO_AT_MOST} times what it costs at the smallest count where "
    "fixed cost is at most a fifth; undecided where no count but the largest is so large"
)


class Verdict(StrEnum):
    """What the figures say."""

    LINEAR = "linear"
    FASTER = "grows faster than linearly"
    SLOWER = "grows slower than linearly"
    SCATTERED = "no straight line"
    UNKNOWN = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """*slope* is seconds per instance, *intercept* seconds, *ratio* as the module says.

    *base* is the count that the ratio compares with; both are None when no count is large enough.
    """

    slope: float
    intercept: float
    r2: float
    ratio: float | None
    base: int | None
    verdict: Verdict


def fit(points: Mapping[int, float]) -> Fit | None:
    """The line through *points*, seconds by count; None for fewer than two counts."""
    counts = sorted(points)
    if len(counts) < 2:
        return None
    seconds = [points[count] for count in counts]
    line = statistics.linear_regression(counts, seconds)
    mean = statistics.fmean(seconds)
    total = sum((value - mean) ** 2 for value in seconds)
    rest = sum(
        (value - line.intercept - line.slope * count) ** 2
        for count, value in zip(counts, seconds, strict=True)
    )
    r2 = 1.0 - rest / total if total else 0.0
    base = _base(counts, points)
    ratio = None
    if base is not None:
        ratio = _cost(points, counts[0], counts[-1]) / _cost(points, counts[0], base)
    return Fit(
        slope=line.slope,
        intercept=line.intercept,
        r2=r2,
        ratio=ratio,
        base=base,
        verdict=_verdict(r2, ratio),
    )


def _base(counts: list[int], points: Mapping[int, float]) -> int | None:
    fixed = points[counts[0]]
    enough = (count for count in counts[1:-1] if fixed <= FIXED_AT_MOST * points[count])
    return next(enough, None)


def _cost(points: Mapping[int, float], smallest: int, count: int) -> float:
    return (points[count] - points[smallest]) / (count - smallest)


def _verdict(r2: float, ratio: float | None) -> Verdict:
    if ratio is None:
        return Verdict.UNKNOWN
    if ratio > RATIO_AT_MOST:
        return Verdict.FASTER
    if ratio < 1 / RATIO_AT_MOST:
        return Verdict.SLOWER
    return Verdict.LINEAR if r2 >= R2_AT_LEAST else Verdict.SCATTERED
