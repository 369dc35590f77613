"""Should the embedded default have λ below 1, a short warm-up and critics that keep what they know?

    python experiments/headline/embedded.py           # makes the runs; stops when the answer is there
    python experiments/headline/embedded.py --table   # the committed results; runs nothing

The rule was written before the runs. A candidate becomes the default of `python train.py` if it ends better in
ten of ten seeds. Both take as many responses: two rollouts of warm-up and 13 steps are as many as 15 steps. The
candidate is the best of CANDIDATES by the end, over the tuning's seeds. Candidate and default then run on seeds
0, 1, … The runs stop at the first seed in which the candidate is not better, or after ten seeds. "The end" is
that of headline.py: the mean of the last two held-out accuracies and of the reward of the last ten rollouts.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command_line import Parser
from experiments.claims.claims import digest_of, finished
from experiments.claims.verdicts import markdown
from experiments.headline.headline import KEEPS, add_run_flags, end, make

RESULTS = Path(__file__).resolve().parent / "embedded.jsonl"
TUNING, TEST = range(130, 132), range(10)
EVERY = "--eval-every 5 --save-every 0"
DEFAULT = "the default"
CANDIDATES = {
    f"λ {lam}, warm-up, critics that keep": f"--lam {lam} --critic-warmup 2 --steps 13 {KEEPS}" for lam in (0.95, 0.8)}
SETTINGS = {DEFAULT: ""} | CANDIDATES


def run_of(name: str, seed: int) -> tuple[str, int]:
    return f"{EVERY} {SETTINGS[name]}".strip(), seed


def ends(done: dict[str, dict], name: str, seeds: range) -> dict[int, float]:
    """Return seed -> end of the finished runs."""
    rows = {seed: done.get(digest_of(*run_of(name, seed))) for seed in seeds}
    return {seed: end(row) for seed, row in rows.items() if row}


def chosen(done: dict[str, dict]) -> str | None:
    """Return the best candidate, or None while the tuning is not complete."""
    means = {name: ends(done, name, TUNING) for name in CANDIDATES}
    if any(len(of_seed) < len(TUNING) for of_seed in means.values()):
        return None
    return max(means, key=lambda name: statistics.fmean(means[name].values()))


def gains(done: dict[str, dict], name: str) -> dict[int, float]:
    """Return seed -> end of the candidate less that of the default."""
    ours, others = ends(done, name, TEST), ends(done, DEFAULT, TEST)
    return {seed: ours[seed] - others[seed] for seed in TEST if seed in ours and seed in others}


def planned(done: dict[str, dict]) -> dict[tuple[str, int], str]:
    """Return the next runs: the tuning's, then those of the next seed; none when the answer is there."""
    name = chosen(done)
    if name is None:
        return {run_of(each, seed): each for seed in TUNING for each in CANDIDATES}
    found = gains(done, name)
    if len(found) == len(TEST) or any(gain <= 0 for gain in found.values()):
        return {}
    return {run_of(each, len(found)): each for each in (name, DEFAULT)}


def table(done: dict[str, dict]) -> str:
    """Return both stages as markdown, and the answer."""
    lines = [("setting", "the end, tuning", "seeds")]
    for name in CANDIDATES:
        if of_seed := ends(done, name, TUNING):
            lines.append((name, f"{statistics.fmean(of_seed.values()):.3f}", len(of_seed)))
    name = chosen(done)
    if name is None:
        return markdown(lines)
    found = gains(done, name)
    test = [("seed", name, DEFAULT, "difference")] + [
        (seed, f"{ends(done, name, TEST)[seed]:.3f}", f"{ends(done, DEFAULT, TEST)[seed]:.3f}", f"{gain:+.3f}".replace("-", "−"))
        for seed, gain in found.items()]
    better = sum(gain > 0 for gain in found.values())
    answer = "not yet known" if planned(done) else "yes" if better == len(TEST) else "no"
    return f"{markdown(lines)}\n\n{markdown(test)}\n\nBetter in {better} of {len(found)} seeds: {answer}."


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--table", action="store_true", help="print the results; run nothing")
    add_run_flags(parser, RESULTS, "embedded")
    args = parser.parse_args(argv)
    done = finished(args.results)
    while not args.table and (each := planned(done)):
        if make(each, [run for run in each if digest_of(*run) not in done], args):
            return 1
        done = finished(args.results)
    print(table(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
