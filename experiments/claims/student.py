"""Student's t for every whole number of degrees of freedom, exactly, and corrections for many comparisons.

For whole degrees of freedom the distribution is a finite sum (Abramowitz & Stegun, Handbook of Mathematical
Functions, 26.7.3 and 26.7.4), so that neither scipy nor a table is needed.
"""

import math
from functools import lru_cache


def central(t: float, df: int) -> float:
    """Return the probability that |T| < t for Student's T with `df` degrees of freedom (df >= 1)."""
    angle = math.atan(t / math.sqrt(df))
    if df % 2:
        total, term = 0.0, math.cos(angle)
        for k in range(3, df + 1, 2):
            total += term
            term *= (k - 1) / k * math.cos(angle) ** 2
        return 2 / math.pi * (angle + math.sin(angle) * total)
    total, term = 0.0, 1.0
    for k in range(2, df + 1, 2):
        total += term
        term *= (k - 1) / k * math.cos(angle) ** 2
    return math.sin(angle) * total


@lru_cache
def critical(df: int, level: float = 0.95) -> float:
    """Return t such that |T| < t with probability `level`: 97.5 % points of Student's t by default."""
    low, high = 0.0, 1.0
    while central(high, df) < level:
        high *= 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if central(middle, df) < level else (low, middle)
    return high


def p_value(mean: float, error: float, df: int) -> float:
    """Return the two-sided p of a mean with this standard error against 0."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 1 - central(abs(mean) / error, df)


def holm(p: list[float]) -> list[float]:
    """Return p corrected by Holm: reject those up to 0.05 and any false rejection has probability 0.05."""
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def benjamini_hochberg(p: list[float]) -> list[float]:
    """Return q: of all comparisons with q up to 0.05, at most 5 % are false on average."""
    corrected, smallest = [0.0] * len(p), 1.0
    order = sorted(range(len(p)), key=p.__getitem__)
    for rank in range(len(p), 0, -1):
        i = order[rank - 1]
        smallest = min(smallest, p[i] * len(p) / rank)
        corrected[i] = smallest
    return corrected
