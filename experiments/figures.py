"""Draw what experiments/results.jsonl holds: learning curves, every claim's difference with its interval, and
what the critics and their disagreement are like.

    pip install -r experiments/requirements.txt
    python experiments/figures.py       # experiments/claims.png and claims_critics.png; nothing is run
    python experiments/figures.py --results FILE --out IMAGE --critics DIR -- FLAGS   # as claims.py had them

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

from experiments.claims import (
    CLAIMS, MEASURED, RESULTS, SCORES, VARIANTS, Claim, differences, finished, interval, rows_by_variant,
    verdict)

HERE = Path(__file__).resolve().parent
CURVES = ("asyppo", "ppo", "grpo", "one mini-critic", "no mask")
FILTERS = ("β up, no filter", "β up, filter σ 20 %", "β up, filter entropy 20 %")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKS = {"holds": "o", "contradicted": "X", "no gain": "s", "undecided": "d"}


def band(ax, x, each: list[list[float]], name: str, **how) -> None:
    """The mean over runs, one list each, and its interval where there are three or more."""
    ends = np.array([interval(list(at)) for at in zip(*each)])
    ax.plot(x, ends[:, 0], label=f"{name} ({len(each)})", **how)
    if len(each) > 2:
        ax.fill_between(x, ends[:, 1], ends[:, 2], alpha=0.12, linewidth=0)


def learning(ax, rows: dict, key: str, names: list[str]) -> None:
    for name, line in zip(names, LINES):
        each = [dict(row["curves"][key]) for row in rows.get(name, {}).values() if key in row["curves"]]
        steps = sorted(set.intersection(*map(set, each))) if each else []
        if steps:
            band(ax, steps, [[one[step] for step in steps] for one in each], name, linestyle=line)
    if ax.lines:
        ax.legend()
    else:
        ax.set_visible(False)


def bars(ax, shown: list[tuple[str, Claim, list[float]]]) -> None:
    """A − B of each of these claims."""
    for y, (_, claim, each) in enumerate(shown):
        middle, low, high = interval(each)
        word = next(word for word in MARKS if verdict(claim, each).startswith(word))
        ends = [[middle - low], [high - middle]]
        ax.errorbar(middle, y, xerr=ends, fmt=MARKS[word], color="#1f2937", capsize=3)
    ax.axvline(0, color="#8a8f98")
    ax.axvspan(-Claim.delta, Claim.delta, color="#8a8f98", alpha=0.2, linewidth=0, label="less than δ")
    ax.set_yticks(range(len(shown)), [label for label, *_ in shown])
    ax.invert_yaxis()
    for word, mark in MARKS.items():
        ax.plot([], [], mark, color="#1f2937", label=word)
    ax.legend(loc="upper right", bbox_to_anchor=(1, -0.14), ncols=len(MARKS) + 1)


def by_tenths(ax, rows: dict, pairs: tuple[tuple[str, str], ...]) -> None:
    """Of plain AsyPPO's runs: the mean of one thing in each tenth of the tokens by another."""
    for pair, line in pairs:
        each = [row["tenths"][pair] for row in rows["asyppo"].values() if pair in row.get("tenths", {})]
        if each:
            band(ax, range(1, 11), each, pair.split()[0], linestyle=line, marker=".")
            ax.legend()
    ax.axhline(1, color="#8a8f98", linewidth=0.8)
    ax.set(ylim=(0, None), ylabel="mean, the average token is 1", xticks=range(1, 11))


def truth(ax, rows: dict) -> None:
    """Of the critics' mean, for each way to make an ensemble: how far it is from Monte-Carlo values, and how
    its changes within a response go with theirs; a mark a seed, and their mean."""
    names = [name for name in MEASURED if any("values" in row for row in rows.get(name, {}).values())]
    labels = []
    ax.set_visible(bool(names))
    for x, name in enumerate(names):
        measured = [row for row in rows[name].values() if "values" in row]
        labels.append(f"{name}\n({len(measured)})")
        error = [-SCORES["truth"](row) for row in measured]
        # None, where nothing changes, becomes NaN and is not drawn
        within = [row["values"]["their mean"][2] for row in measured]
        for shift, mark, each in ((-0.12, "o", error), (0.12, "^", np.array(within, dtype=float))):
            ax.plot([x + shift] * len(each), each, mark, color="#1f2937", fillstyle="none")
            ax.plot(x + shift, np.nanmean(each), "_", color="#1f2937", markersize=18)
    ax.plot([], [], "o", color="#1f2937", fillstyle="none", label="root mean squared error")
    ax.plot([], [], "^", color="#1f2937", fillstyle="none", label="correlation of changes within")
    ax.axhline(0, color="#8a8f98", linewidth=0.8)
    ax.set_xticks(range(len(names)), labels)
    ax.set_xlim(-0.5, max(1, len(names)) - 0.5)
    ax.legend()


def main(argv: list[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--results", type=Path, default=RESULTS)
    add("--out", type=Path, default=HERE / "claims.png", help="first image; the second's name has _critics added")
    add("--critics", help="as claims.py had it")
    add("--curves", nargs="+", choices=VARIANTS, default=CURVES, metavar="NAME", help="at most six, as claims.py calls them")
    add("flags", nargs="*", help="behind --: as claims.py had them")
    args = parser.parse_args(argv)
    rows = rows_by_variant(finished(args.results), args.flags, args.critics)
    plt.style.use(HERE / "style.mplstyle")
    # of every claim about mean accuracy that three seeds or more speak of: two have a very wide interval
    shown = [
        (f"{claim.name}: {claim.a} − {claim.b}", claim, each) for claim in CLAIMS
        if claim.score == "area" and len(each := differences(claim, rows)) > 2
    ]
    size = (14, max(4.4, 0.25 * len(shown)))
    figure, (accuracy, entropy, effects) = plt.subplots(1, 3, figsize=size, width_ratios=(1, 1, 1.1))
    accuracy.set(title="Held-out accuracy (seeds)", xlabel="step", ylim=(0, 1))
    entropy.set(title="Entropy of the policy", xlabel="step", ylabel="nats a token")
    effects.set(title="What a claim gains", xlabel="difference of mean held-out accuracy")
    learning(accuracy, rows, "accuracy", args.curves)
    learning(entropy, rows, "entropy", args.curves)
    bars(effects, shown)
    figure.savefig(args.out)
    figure, (by_sigma, by_entropy, values, filters) = plt.subplots(1, 4, figsize=(17, 4.2))
    by_sigma.set(title="What goes with σ", xlabel="tokens by σ, tenths")
    by_entropy.set(title="σ by entropy", xlabel="tokens by entropy, tenths")
    values.set(title="Values against Monte-Carlo values")
    by_tenths(by_sigma, rows, (("entropy by sigma", "-"), ("gradient by sigma", "--")))
    by_tenths(by_entropy, rows, (("sigma by entropy", "-"),))
    truth(values, rows)
    filters.set(title="Entropy, β = 0.1", xlabel="step", ylabel="nats a token")
    learning(filters, rows, "entropy", FILTERS)
    figure.savefig(args.out.with_stem(args.out.stem + "_critics"))


if __name__ == "__main__":
    main()
