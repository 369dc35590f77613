"""Draw curves of runs from their metrics.jsonl: reward and accuracy, explained variance, disagreement.

    pip install -r experiments/requirements.txt
    python experiments/inside/plot.py runs/NAME [runs/OTHER …] --out curves.png   # your runs, overlaid
    python experiments/inside/plot.py               # the run in tiny/, whose log lines the README shows
"""

import argparse
import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

HERE = Path(__file__).resolve().parent
GREY = "#7d8187"

# title, label of the y axis, curves: metric, name, line
PANELS = (
    ("Reward and accuracy", "share of right answers", (
        ("reward_mean", "reward of the rollouts", "-"), ("eval/.*", "held-out accuracy", "o--"))),
    ("Explained variance of unseen responses", "share of the return's variance", tuple(
        (f"critic{m}/explained_variance_heldout", f"critic {m}", line)
        for m, line in enumerate(("-", "--", ":", "-.")))),
    ("Disagreement of the critics", "σ of the values (units of reward)", tuple(
        (f"value_std_p{q}", f"{q} % of the tokens are below", line)
        for q, line in ((90, "--"), (50, "-"), (10, ":")))),
)


def curve(rows: list[dict], metric: str) -> tuple[list[int], list[float]]:
    """Return steps and values of the first metric that matches; empty if the run has none."""
    key = next((key for row in rows for key in row if re.fullmatch(metric, key)), None)
    points = [(row["step"], row[key]) for row in rows if key in row]
    return [step for step, _ in points], [value for _, value in points]


def draw(runs: dict[str, list[dict]], out: Path) -> None:
    """Draw the panels for which a run has numbers: a colour for each curve of one run, or for each run."""
    panels = [
        panel for panel in PANELS if any(curve(rows, c[0])[0] for rows in runs.values() for c in panel[2])
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.7), squeeze=False)
    for ax, (title, label, curves) in zip(axes[0], panels):
        ax.set(title=title, ylabel=label, xlabel="step")
        if "answers" in label:
            ax.set_ylim(0, 1)
        drawn = {}
        for j, (metric, name, line) in enumerate(curves):
            for i, rows in enumerate(runs.values()):
                steps, values = curve(rows, metric)
                if steps:
                    ax.plot(steps, values, line, color=f"C{i if len(runs) > 1 else j}")
                    (drawn[name],) = ax.plot([], [], line, color=GREY if len(runs) > 1 else f"C{j}")
        ax.legend(drawn.values(), drawn)
    if len(runs) > 1:
        lines = [Line2D([], [], color=f"C{i}") for i in range(len(runs))]
        figure.legend(lines, runs, loc="outside upper center", ncols=min(4, len(runs)))
    figure.savefig(out)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, help="folders of runs, overlaid")
    add("--out", type=Path, help="image to write; needed with runs")
    args = parser.parse_args(argv)
    if args.runs and not args.out:
        parser.error("--out names the image to write")
    runs = {}
    for folder in args.runs or [HERE / "tiny"]:
        try:
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            runs[str(folder) if folder.name in runs else folder.name] = [json.loads(line) for line in lines]
            if len(lines) < 2:
                raise ValueError("no step yet")
        except (OSError, ValueError) as error:
            parser.error(f"{folder} holds no readable metrics.jsonl ({error})")
    plt.style.use(HERE.parent / "style.mplstyle")
    draw(runs, args.out or HERE / "tiny.png")


if __name__ == "__main__":
    main()
