"""95 % intervals for means over problems, and for the difference of two models on the same problems.

The problem is the unit of sampling: a problem's K responses are not independent of one another. docs/evaluation.md
has the formulas. Legend for shape suffixes: P problems.
"""

import json
import math
from pathlib import Path
from statistics import fmean

import numpy as np

from engine.errors import require, user_error

Interval = tuple[float, float]


def interval(scores_P: np.ndarray) -> Interval | None:
    """Return the 95 % interval of the mean of scores in [0, 1]; None for a single problem.

    Wilson's interval with continuity correction (Newcombe 1998, method 4) at an effective sample size: the number of
    independent responses with the scatter of the problems' scores, at least P. The scatter is uncertain if few
    problems have both right and wrong responses. So it is shrunk towards its upper bound, p(1 − p), as if by one more
    problem.
    """
    n_problems = len(scores_P)
    if n_problems < 2:
        return None
    p, z = scores_P.mean(), 1.96
    bound = p * (1 - p)
    informative = min((scores_P > 0).sum(), (scores_P < 1).sum())
    scatter = (informative * scores_P.var(ddof=1) + bound) / (informative + 1)
    n = max(n_problems, n_problems * bound / scatter) if scatter else n_problems
    low = 2 * n * p + z * z - 1 - z * math.sqrt(max(0, z * z - 2 - 1 / n + 4 * p * (n * (1 - p) + 1)))
    high = 2 * n * p + z * z + 1 + z * math.sqrt(max(0, z * z + 2 - 1 / n + 4 * p * (n * (1 - p) - 1)))
    low, high = (float(end / (2 * (n + z * z))) for end in (low, high))
    return (max(0.0, low) if p > 0 else 0.0), (min(1.0, high) if p < 1 else 1.0)


def paired_interval(a_P: np.ndarray, b_P: np.ndarray) -> Interval | None:
    """Return the 95 % interval of mean A − mean B on the same problems (Newcombe 1998, method 10).

    The correlation over problems is shrunk towards 0 as if by one more problem on which A and B differ.
    """
    if len(a_P) < 2:
        return None
    (low_a, high_a), (low_b, high_b), a, b = interval(a_P), interval(b_P), a_P.mean(), b_P.mean()
    scale = a_P.std() * b_P.std()
    differing = (a_P != b_P).sum()
    r = ((a_P - a) * (b_P - b)).mean() / scale * differing / (differing + 1) if scale else 0.0

    def distance(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * r * x * y + y * y))

    return float(a - b - distance(a - low_a, high_b - b)), float(a - b + distance(high_a - a, b - low_b))


def average_interval(parts: list[tuple[float, Interval | None]]) -> Interval | None:
    """Return the interval of the mean of independent estimates: distances add in squares (MOVER)."""
    if any(ends is None for _, ends in parts):
        return None
    middle = fmean(estimate for estimate, _ in parts)
    below = math.hypot(*(estimate - ends[0] for estimate, ends in parts)) / len(parts)
    above = math.hypot(*(ends[1] - estimate for estimate, ends in parts)) / len(parts)
    return middle - below, middle + above


def interval_text(ends: Interval | None, sign: str = "") -> str:
    return "–" if ends is None else f"{ends[0]:{sign}.1%} … {ends[1]:{sign}.1%}"


def compare(path_a: str, path_b: str) -> str:
    """A table of A − B for every benchmark that both eval.json files hold."""
    both, settings = [], []
    for path in (path_a, path_b):
        with user_error(f"--compare {path}: not a file that evaluate.py wrote", KeyError, TypeError):
            evaluation = json.loads(Path(path).read_text())
            settings.append(evaluation["settings"])
            rows = evaluation["results"].items()
            both.append({name: {key: r[key] for key in ("digest", "scores")} for name, r in rows})
    names = [name for name in both[0] if name in both[1]]
    require(names, f"--compare: {path_a} and {path_b} have no benchmark in common.")
    for name in names:
        require(both[0][name]["digest"] == both[1][name]["digest"],
                f"--compare: the problems of {name} are not the same in the two files.")
    lines = [f"A = {path_a}", f"B = {path_b}"]
    for key in sorted({*settings[0], *settings[1]} - {"model", "benchmarks", "n_problems", "seed"}):
        a, b = (each.get(key) for each in settings)
        if a != b:
            lines.append(f"Not alike: --{key.replace('_', '-')} is {a!r} for A, {b!r} for B.")
    lines.append(f"{'benchmark':<16} {'A':>8} {'B':>8} {'A − B':>8}   95 % interval")
    rows, parts = [], []
    for name in names:
        a_P, b_P = (np.array(each[name]["scores"]) for each in both)
        rows.append((name, a_P.mean(), b_P.mean(), paired_interval(a_P, b_P)))
        parts.append((a_P.mean() - b_P.mean(), rows[-1][-1]))
    if len(names) > 1:
        rows.append(("average", *(fmean(row[i] for row in rows) for i in (1, 2)), average_interval(parts)))
    for name, a, b, ends in rows:
        # not 0: sums of thirds and fifths are off by rounding
        verdict = "one problem: nothing can be said" if ends is None else "no difference shown"
        if ends and (ends[0] > 1e-9 or ends[1] < -1e-9):
            verdict = "A is better" if a > b else "B is better"
        shares = f"{a:>8.1%} {b:>8.1%} {a - b:>+8.1%}"
        lines.append(f"{name:<16} {shares}   {interval_text(ends, '+')}   {verdict}")
    return "\n".join(lines)
