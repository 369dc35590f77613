"""Draw the committed results: learning curves, each comparison with its interval, the critics' disagreement.

    pip install -r experiments/requirements.txt
    python experiments/claims/figures.py         # this folder's figures, docs/curve.png and curve-dark.png
    python experiments/claims/figures.py --only knowing --out /tmp

Runs nothing. Bands and bars are 95 % intervals over seeds. Methods differ in their line styles and verdicts
in their marks, so that the figures can be read in black and white. They are transparent. docs/curve.png is
for light pages, docs/curve-dark.png for dark ones.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.claims.claims import MEASURED, ROOT, regime_rows
from experiments.claims.comparisons import CLAIMS, HERE, NOTHING, Claim
from experiments.claims.verdicts import SCORES, differences, interval, verdict

LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKS = {"holds": "oC0", "contradicted": "XC4", "no gain": "sC5", "undecided": "dC5"}  # mark and colour
GREY = "#7d8187"  # as in style.mplstyle
ACCURACY = dict(title="Held-out accuracy", xlabel="step", ylabel="share of right answers", ylim=(0, 1))
ENTROPY = dict(title="Entropy of the policy", xlabel="step", ylabel="nats per token")


@dataclass(frozen=True)
class Figure:
    """What is drawn of a regime: learning curves of these variants; with_critics: a second figure."""

    curves: tuple[str, ...]
    with_critics: bool = False


FIGURES = {
    "default": Figure(("AsyPPO", "GRPO", "PPO", "one mini-critic", NOTHING, "AsyPPO, no mask"), True),
    "small": Figure(("1 pass", "AsyPPO", "8 passes", "1 pass, no mask", "AsyPPO, no mask",
                     "8 passes, no mask"), True),
    "knowing": Figure(("one mini-critic", NOTHING, "AsyPPO", "AsyPPO, no mask", "GRPO")),
    "smollm2": Figure(("AsyPPO", "GRPO", "PPO")),
}
FILTERS = ("β 0.1, no filter", "β 0.1, filter σ 20 %", "β 0.1, filter random 20 %",
           "β 0.1, filter entropy 20 %")


def band(ax, x, each: list[list[float]], name: str, **how) -> None:
    """Draw the mean over runs (one list each), and its interval for three runs or more."""
    ends = np.array([interval(list(at)) for at in zip(*each)])
    (line,) = ax.plot(x, ends[:, 0], label=name, **how)
    if len(each) > 2:
        ax.fill_between(x, ends[:, 1], ends[:, 2], alpha=0.13, linewidth=0, color=line.get_color())


def learning(ax, rows: dict, key: str, names: tuple[str, ...], seeds: set[int] | None = None) -> None:
    """Draw a curve of these variants over the steps; seeds: only these, which all variants have."""
    for name, line in zip(names, LINES):
        kept = [row for seed, row in rows.get(name, {}).items() if seeds is None or seed in seeds]
        each = [dict(row["curves"][key]) for row in kept if key in row["curves"]]
        steps = sorted(set.intersection(*map(set, each))) if each else []
        if steps:
            label = f"{name} ({len(each)} seeds)"
            band(ax, steps, [[one[step] for step in steps] for one in each], label, linestyle=line)
    if ax.lines:
        ax.legend()
    else:
        ax.set_visible(False)


def bars(ax, shown: list[tuple[str, Claim, list[float]]]) -> None:
    """Draw A − B of each of these claims with its interval; the mark is its verdict."""
    for y, (_, claim, each) in enumerate(shown):
        middle, low, high = interval(each)
        word = next(word for word in MARKS if verdict(claim, each).startswith(word))
        ends = [[middle - low], [high - middle]]
        ax.errorbar(middle, y, xerr=ends, fmt=MARKS[word][0], color=MARKS[word][1:], capsize=3, markersize=6)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.axvspan(-Claim.delta, Claim.delta, color=GREY, alpha=0.2, linewidth=0, label="less than δ")
    ax.set_yticks(range(len(shown)), [label for label, *_ in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    for word, mark in MARKS.items():
        ax.plot([], [], mark[0], color=mark[1:], label=word, markersize=6)
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower right", ncols=len(MARKS) + 1)


def by_tenths(ax, rows: dict, pairs: tuple[tuple[str, str], ...]) -> None:
    """Draw, for AsyPPO's runs, the mean of one quantity in each tenth of the tokens by another."""
    for pair, line in pairs:
        each = [row["tenths"][pair] for row in rows["AsyPPO"].values() if pair in row.get("tenths", {})]
        if each:
            label = {"entropy": "entropy", "gradient": "size of the gradient", "sigma": "σ"}[pair.split()[0]]
            band(ax, range(1, 11), each, label, linestyle=line, marker=".")
            ax.legend()
    ax.axhline(1, color=GREY, linewidth=0.8)
    ax.set(ylim=(0, None), ylabel="mean over the average token's", xticks=range(1, 11))


def truth(ax, rows: dict) -> None:
    """Draw the error of the critics' mean against Monte-Carlo values, and the correlation of its changes
    within a response, a mark for each seed and a bar for their mean."""
    names = [name for name in MEASURED if any("values" in row for row in rows.get(name, {}).values())]
    labels = []
    ax.set_visible(bool(names))
    for x, name in enumerate(names):
        measured = [row for row in rows[name].values() if "values" in row]
        labels.append(name.replace(", ", ",\n") + f"\n({len(measured)} seeds)")
        error = [-SCORES["truth"](row) for row in measured]
        # None, where nothing changes, becomes NaN and is not drawn
        within = [row["values"]["their mean"][2] for row in measured]
        for shift, mark, each in ((-0.12, "o", error), (0.12, "^", np.array(within, dtype=float))):
            ax.plot([x + shift] * len(each), each, mark, color=GREY, fillstyle="none")
            ax.plot(x + shift, np.nanmean(each), "_", color=GREY, markersize=18)
    ax.plot([], [], "o", color=GREY, fillstyle="none", label="root mean squared error")
    ax.plot([], [], "^", color=GREY, fillstyle="none", label="correlation of changes within a response")
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_xticks(range(len(names)), labels)
    ax.set_xlim(-0.5, max(1, len(names)) - 0.5)
    ax.set_ylim(top=1.1)
    ax.legend(loc="upper left")


def save(figure, path: Path) -> None:
    figure.savefig(path)
    plt.close(figure)
    print(path)


def draw_claims(rows: dict, curves: tuple[str, ...], path: Path) -> None:
    """Draw accuracy, entropy and the differences of mean accuracy of which there are three seeds or more."""
    shown = [
        (f"{claim.name}: {claim.a} − {claim.b}", claim, each) for claim in CLAIMS
        if claim.score == "area" and len(each := differences(claim, rows)) > 2
    ]
    if len(shown) > 12:  # a high figure: curves below one another
        mosaic, size = (("accuracy", "effects"), ("entropy", "effects")), (13, 1.2 + 0.27 * len(shown))
    else:
        mosaic, size = (("accuracy", "entropy", "effects"),), (16, 4.6)
    figure, axes = plt.subplot_mosaic(mosaic, figsize=size)
    accuracy, entropy, effects = axes["accuracy"], axes["entropy"], axes["effects"]
    accuracy.set(**ACCURACY)
    entropy.set(**ENTROPY)
    effects.set(title="A − B, 95 % interval over seeds", xlabel="difference of mean held-out accuracy")
    seeds = set.intersection(*(set(rows[name]) for name in curves if rows[name]))
    learning(accuracy, rows, "accuracy", curves, seeds)
    learning(entropy, rows, "entropy", curves, seeds)
    bars(effects, shown)
    save(figure, path)


def draw_critics(rows: dict, path: Path) -> None:
    """Draw what goes with σ, values against Monte-Carlo values, and entropy under the filters; what the
    regime has runs of."""
    figure, (by_sigma, by_entropy, last) = plt.subplots(1, 3, figsize=(15, 4.4))
    by_sigma.set(title="Entropy and gradient by σ", xlabel="tokens by σ, tenths (1: lowest)")
    by_entropy.set(title="σ by entropy", xlabel="tokens by entropy, tenths (1: lowest)")
    by_tenths(by_sigma, rows, (("entropy by sigma", "-"), ("gradient by sigma", "--")))
    by_tenths(by_entropy, rows, (("sigma by entropy", "-"),))
    if any(rows.get(name) for name in FILTERS):
        last.set(**ENTROPY | {"title": "Entropy of the policy, entropy bonus β = 0.1"})
        learning(last, rows, "entropy", FILTERS)
    else:
        last.set(title="Mean of the critics against Monte-Carlo values",
                 ylabel="error (reward is 0 or 1), or correlation")
        truth(last, rows)
    save(figure, path)


def draw_curve(rows: dict, path: Path) -> None:
    """Draw the README's first picture: accuracy, and explained variance of AsyPPO's critics."""
    figure, (accuracy, explained) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    accuracy.set(**ACCURACY)
    learning(accuracy, rows, "accuracy", ("AsyPPO", "GRPO"))
    accuracy.legend(loc="lower right")
    key = "critic{}/explained_variance_heldout"
    for m, line in ((0, "-"), (1, "--")):
        each = [dict(row["curves"][key.format(m)]) for row in rows["AsyPPO"].values()
                if key.format(m) in row["curves"]]
        steps = sorted(set.intersection(*map(set, each))) if each else []
        band(explained, steps, [[one[step] for step in steps] for one in each],
             f"AsyPPO's critic {m} ({len(each)} seeds)", linestyle=line, color=f"C{2 + m}")
    explained.axhline(0, color=GREY, linewidth=0.8, linestyle=":", label="GRPO: no critic")
    explained.set(title="Explained variance of unseen responses", xlabel="step",
                  ylabel="share of the return's variance", ylim=(-0.3, 0.8))
    explained.legend(loc="lower left", ncols=2)
    save(figure, path)


def main(argv: list[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--only", nargs="+", choices=[*FIGURES, "curve"], default=[*FIGURES, "curve"], help="default: all")
    add("--out", type=Path, help="folder; default: this one, and docs/ for the curve")
    args = parser.parse_args(argv)
    plt.style.use(HERE.parent / "style.mplstyle")
    for name in args.only:
        if name == "curve":
            folder = args.out or ROOT / "docs"
            folder.mkdir(exist_ok=True)
            for text, name in (("#1f2328", "curve.png"), ("#d1d7e0", "curve-dark.png")):
                with plt.rc_context({f"{key}color": text for key in (
                        "text.", "axes.label", "axes.title", "axes.edge", "xtick.", "ytick.")}):
                    draw_curve(regime_rows("default"), folder / name)
            continue
        rows, path = regime_rows(name), (args.out or HERE) / f"{name}.png"
        draw_claims(rows, FIGURES[name].curves, path)
        if FIGURES[name].with_critics:
            draw_critics(rows, path.with_stem(f"{name}_critics"))


if __name__ == "__main__":
    main()
