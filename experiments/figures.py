"""Draw what experiments/results.jsonl holds: learning curves, and every claim's difference with its interval.

    pip install -r experiments/requirements.txt
    python experiments/figures.py            # experiments/claims.png; nothing is run

Readable in black and white: methods differ in their lines, verdicts in their marks. Bands and bars are 95 %
intervals over seeds.
"""

import argparse
import sys
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.claims import CLAIMS, RESULTS, differences, finished, interval, rows_by_variant, verdict

HERE = Path(__file__).resolve().parent
CURVES = (
    ("asyppo", "-"), ("ppo", "--"), ("grpo", ":"), ("one mini-critic", "-."),
    ("no mask", (0, (5, 1, 1, 1, 1, 1))),
)
MARKS = {"holds": "o", "contradicted": "X", "undecided": "d"}


def learning(ax, rows: dict, key: str) -> None:
    for name, line in CURVES:
        each = [dict(row["curves"][key]) for row in rows.get(name, {}).values() if key in row["curves"]]
        steps = sorted(set.intersection(*map(set, each))) if each else []
        if steps:
            ends = np.array([interval([one[step] for one in each]) for step in steps])
            ax.plot(steps, ends[:, 0], linestyle=line, label=f"{name} ({len(each)})")
            if len(each) > 1:
                ax.fill_between(steps, ends[:, 1], ends[:, 2], alpha=0.12, linewidth=0)
    ax.legend()


def bars(ax, rows: dict) -> None:
    """A − B of every claim about accuracy that two seeds or more speak of."""
    shown = [
        (f"{claim.name}: {claim.a} − {claim.b}", claim, each) for claim in CLAIMS
        if claim.score == "area" and len(each := differences(claim, rows)) > 1
    ]
    for y, (_, claim, each) in enumerate(shown):
        middle, low, high = interval(each)
        word = verdict(claim, each).split()[0]
        ends = [[middle - low], [high - middle]]
        ax.errorbar(middle, y, xerr=ends, fmt=MARKS[word], color="#1f2937", capsize=3)
    ax.axvline(0, color="#8a8f98")
    ax.set_yticks(range(len(shown)), [label for label, *_ in shown])
    ax.invert_yaxis()
    for word, mark in MARKS.items():
        ax.plot([], [], mark, color="#1f2937", label=word)
    ax.legend()


def main(argv: list[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=HERE / "claims.png")
    args = parser.parse_args(argv)
    rows = rows_by_variant(finished(args.results))
    plt.style.use(HERE / "style.mplstyle")
    figure, (accuracy, entropy, effects) = plt.subplots(1, 3, figsize=(14, 4.4), width_ratios=(1, 1, 1.1))
    accuracy.set(title="Held-out accuracy (seeds)", xlabel="step", ylim=(0, 1))
    entropy.set(title="Entropy of the policy", xlabel="step", ylabel="nats a token")
    effects.set(title="What a claim gains", xlabel="difference of mean held-out accuracy")
    learning(accuracy, rows, "accuracy")
    learning(entropy, rows, "entropy")
    bars(effects, rows)
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
