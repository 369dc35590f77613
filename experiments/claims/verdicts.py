"""From the runs' lines to verdicts: scores of a run, intervals over seeds, corrections, markdown tables."""

import math
import statistics

from experiments.claims.comparisons import CLAIMS, HEADLINES, POST_HOC, REGIMES, Claim
from experiments.claims.student import benjamini_hochberg, critical, holm, p_value

MINUS = str.maketrans("-", "−")


# -- scores of a run -----------------------------------------------------------------------------------------
def mean_of(row: dict, key: str) -> float:
    values = [value for _, value in row["curves"].get(key, [])]
    return statistics.fmean(values) if values else math.nan


def area(row: dict) -> float:
    """Return the mean held-out accuracy over the run: the area under its curve by trapezoids.

    Rollouts of --critic-warmup leave the actor as it is and do not count as steps.
    """
    words = row.get("flags", "").split()
    warm = int(words[words.index("--critic-warmup") + 1]) if "--critic-warmup" in words else 0
    points = [(max(0, step - warm), accuracy) for step, accuracy in row["curves"]["accuracy"]]
    pieces = ((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in zip(points, points[1:]))
    return sum(pieces) / (points[-1][0] - points[0][0])


def end(row: dict) -> float:
    """Return the held-out accuracy after the last step."""
    return row["curves"]["accuracy"][-1][1]


def truth(row: dict) -> float:
    """Return minus the root mean squared error of the critics' mean against Monte-Carlo values."""
    return -math.sqrt(max(0.0, row["values"]["their mean"][0])) if "values" in row else math.nan


def truth_share(row: dict) -> float:
    """Return the share of the Monte-Carlo values' variance that the critics' mean explains."""
    if "values" not in row:
        return math.nan
    return 1 - row["values"]["their mean"][0] / row["values"]["a constant"][0]


def lowest_fifth(row: dict, pair: str) -> float:
    """Return the share by which the lowest fifth of the tokens by one thing lies below the average token in
    another; pair: a key of `claims.tenths`."""
    return 1 - statistics.fmean(row["tenths"][pair][:2]) if row.get("tenths") else math.nan


SCORES = {
    "area": area,
    "end": end,
    "reward": lambda row: mean_of(row, "reward_mean"),
    "sigma": lambda row: mean_of(row, "value_std_p50"),
    "low_sigma": lambda row: lowest_fifth(row, "entropy by sigma"),
    "low_entropy": lambda row: -lowest_fifth(row, "sigma by entropy"),
    "sigma_gradient": lambda row: mean_of(row, "value_std_gradient_corr"),
    "truth": truth,
    "truth_share": truth_share,
    "truth_corr": lambda row: row["values"]["their mean"][1] if "values" in row else math.nan,
}


# -- verdicts over seeds -------------------------------------------------------------------------------------
def differences(claim: Claim, rows: dict, score: str | None = None) -> list[float]:
    """Return score(a) − score(b) for each seed that both have; score: another one than the claim's.

    rows: variant -> seed -> the run's line
    """
    score, (a, b) = SCORES[score or claim.score], (rows.get(name, {}) for name in (claim.a, claim.b))
    seeds = sorted(a if claim.b is None else a.keys() & b.keys())
    each = (score(a[seed]) - (0 if claim.b is None else score(b[seed])) for seed in seeds)
    return [difference for difference in each if math.isfinite(difference)]


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Return the mean of paired differences and the ends of its 95 % interval (infinite for one seed)."""
    n, middle = len(differences), statistics.fmean(differences)
    if n < 2:
        return middle, -math.inf, math.inf
    half = critical(n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return middle, middle - half, middle + half


def p_of(differences: list[float]) -> float:
    """Return the two-sided p of the mean difference against 0 (n >= 2)."""
    n = len(differences)
    return p_value(statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n), n - 1)


def verdict_of(claim: Claim, middle: float, low: float, high: float) -> str:
    """Return the verdict on a difference with this interval by the rule in claims.py."""
    if low > -claim.delta if claim.no_worse else low > 0 and middle >= claim.delta:
        return "holds"
    if high < 0 and middle <= -claim.delta:
        return "contradicted"
    return "no gain" if high < claim.delta and not claim.no_worse else "undecided"


def verdict(claim: Claim, differences: list[float]) -> str:
    """Return the verdict on paired differences; for "undecided" with the seeds that ± δ/2 would take."""
    n, same = len(differences), differences.count(0)
    if n < 2:
        return "undecided (one seed)"
    if 2 * same >= n and claim.b:
        return f"undecided ({same} of {n} pairs are equal)"
    found = verdict_of(claim, *interval(differences))
    if found != "undecided":
        return found
    seeds = (2 * 2 * statistics.stdev(differences) / claim.delta) ** 2
    return f"undecided (about {max(n + 1, rounded_up(seeds))} seeds)"


def rounded_up(x: float) -> int:
    """Return x rounded up to one significant digit."""
    unit = 10 ** max(0, math.floor(math.log10(max(1, x))))
    return math.ceil(x / unit) * unit


def pooled(rows: dict, left_out: tuple[str, ...] = ()) -> tuple[float, int, int]:
    """Return the half-width of a difference of `area` when all variants share one residual deviation.

    Five seeds of one pair estimate a deviation badly; the residual of a two-way table (variants × seeds)
    uses all runs. Assumes equal deviations. -> half-width, variants, degrees of freedom
    """
    names = [name for name in rows if rows[name] and name not in left_out]
    seeds = sorted(set.intersection(*(set(rows[name]) for name in names)))
    scores = {name: [area(rows[name][seed]) for seed in seeds] for name in names}
    of_name = {name: statistics.fmean(each) for name, each in scores.items()}
    of_seed = [statistics.fmean(each) for each in zip(*scores.values())]
    overall = statistics.fmean(of_seed)
    squares = sum((x - of_name[name] - of_seed[i] + overall) ** 2
                  for name, each in scores.items() for i, x in enumerate(each))
    df = (len(names) - 1) * (len(seeds) - 1)
    return critical(df) * math.sqrt(squares / df * 2 / len(seeds)), len(names), df


# -- tables --------------------------------------------------------------------------------------------------
def written(middle: float, low: float, high: float) -> str:
    """Return a difference with its interval as text, without the interval if it is infinite."""
    text = f"{middle:+.3f} ({low:+.3f} … {high:+.3f})" if math.isfinite(low) else f"{middle:+.3f}"
    return text.translate(MINUS)


def markdown(lines: list[tuple]) -> str:
    head, *body = lines
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in [head, ["---"] * len(head), *body])


def corrected(regimes: dict[str, dict]) -> dict[tuple[str, Claim], tuple[float, float, float]]:
    """Return p, Holm's p and Benjamini and Hochberg's q of every planned comparison with two seeds or more.

    regimes: regime -> variant -> seed -> line. All comparisons of all regimes are one family.
    """
    found = {}
    for name, rows in regimes.items():
        for claim in CLAIMS:
            if REGIMES[name].claims and claim.name not in REGIMES[name].claims:
                continue
            if len(each := differences(claim, rows)) > 1:
                found[name, claim] = p_of(each)
    p = list(found.values())
    return dict(zip(found, zip(p, holm(p), benjamini_hochberg(p))))


def table(rows: dict, claims: list[Claim], q: dict[Claim, float] = {}) -> str:
    """Return the verdicts as markdown; rows: variant -> seed -> line; q: of the claims that have one.

    The difference at the end of the run is for information: verdicts are by the claim's score.
    """
    head = ("", "claim", "A", "B", "score, δ", "A − B (95 %)", "at the end", "seeds", "p", "q", "verdict")
    lines = [head]
    for claim in claims:
        if each := differences(claim, rows):
            at_end = written(*interval(differences(claim, rows, "end"))) if claim.score == "area" else ""
            p = f"{p_of(each):.2g}" if len(each) > 1 else ""
            lines.append((claim.name, claim.sentence, claim.a, claim.b or "0",
                          f"{claim.score}, {claim.delta:g}", written(*interval(each)), at_end, len(each), p,
                          f"{q[claim]:.2g}" if claim in q else "", verdict(claim, each)))
    return markdown(lines)


def headlines(regimes: dict[str, dict]) -> str:
    """Return the table at the top of experiments/README.md."""
    lines = [("claim", "regime", "difference (95 %)", "verdict", "seeds")]
    for regime, name, a, b in HEADLINES:
        claim = next(c for c in CLAIMS + POST_HOC if (c.name, c.a, c.b) == (name, a, b))
        each = differences(claim, regimes[regime])
        word = verdict(claim, each).split(" (")[0]
        if word in ("holds", "contradicted"):
            word = f"{word}, p {p_of(each):.2g}"
        lines.append((f"{name}: {a} − {b}", regime, written(*interval(each)), word, len(each)))
    return markdown(lines)


def multiplicity(regimes: dict[str, dict]) -> str:
    """Return, in sentences, what so many comparisons yield by chance and what a correction leaves."""
    found = corrected(regimes)
    below = [key for key, (p, _, _) in found.items() if p < 0.05]
    gains = [(name, claim) for name, claim in found if not claim.no_worse]
    hold = [(name, claim) for name, claim in gains
            if verdict(claim, differences(claim, regimes[name])) == "holds"]
    lines = [
        f"{len(found)} planned comparisons; {len(below)} with p < 0.05, by chance {0.05 * len(found):.1f}.",
        f"{len(gains)} are claims of a gain; {len(hold)} hold; chance alone gives {0.025 * len(gains):.1f} or fewer.",
    ]
    for title, i in (("Holm", 1), ("Benjamini-Hochberg", 2)):
        kept = sorted((key for key in found if found[key][i] <= 0.05), key=lambda key: found[key][i])
        names = [f"{name}: {claim.a} − {claim.b or 0} ({found[name, claim][i]:.3f})" for name, claim in kept]
        lines.append(f"{title} at 5 % leaves {len(kept)}: {'; '.join(names) or 'none'}.")
    return "\n".join(lines)
