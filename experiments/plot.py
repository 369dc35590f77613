"""Draw a run's curves from its metrics.jsonl: reward and accuracy, explained variance, disagreement.

pip install -r experiments/requirements.txt
python experiments/plot.py runs/NAME [runs/OTHER …] --out curves.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def curve(rows: list[dict], key: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[key]) for row in rows if key in row]
    return [step for step, _ in points], [value for _, value in points]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders of runs; several are drawn over one another")
    add("--out", type=Path, required=True, help="image to write")
    args = parser.parse_args()

    figure, (scores, explained, sigma) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for i, folder in enumerate(args.runs):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        label = f"{folder.name}: " if len(args.runs) > 1 else ""
        keys = sorted({key for row in rows for key in row})
        reward = curve(rows, "reward_mean")
        scores.plot(*reward, color=f"C{2 * i}", alpha=0.6, label=f"{label}reward of the rollouts")
        for key in keys:
            points = curve(rows, key)
            if key.startswith("eval/"):
                scores.plot(*points, "o-", color=f"C{2 * i + 1}", label=f"{label}held-out accuracy")
            if key.endswith("/explained_variance_heldout"):
                explained.plot(*points, alpha=0.8, label=f"{label}{key.split('/')[0]}")
        for q, style in ((10, ":"), (50, "-"), (90, "--")):
            points = curve(rows, f"value_std_p{q}")
            if points[0]:
                sigma.plot(*points, style, color=f"C{i}", label=f"{label}{q} % of tokens below")
    title = "What each critic explains of\nresponses it was not fitted on"
    scores.set(title="What the actor earns", ylabel="share of right answers", ylim=(0, 1))
    explained.set(title=title, ylabel="explained variance")
    sigma.set(title="How much the critics differ", ylabel="σ of the values")
    for axes in (scores, explained, sigma):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
