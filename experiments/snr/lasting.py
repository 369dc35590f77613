"""Does what a fitted critic knows last? Fourteen ways to go on fitting it, on the same policies.

    python experiments/snr/lasting.py --fits runs/fits --seeds 3   # appends to lasting.jsonl, skips finished seeds
    python experiments/snr/lasting.py --table                      # the committed results; runs nothing
    python experiments/snr/lasting.py --figure                     # draws lasting.png

The policies of a seed are those of one run of regime *knowing*: 30 updates of 4 × 8 responses, one fitted
critic at learning rate 1e-4, λ = 1. Copies of the fitted critics ride along (trajectory.py). Each is fitted on
the same rollouts in its own way. Before the first update and after every fifth, the policy answers the 200
held-out problems twice. No critic is fitted on these 400 responses. Measured on their tokens:

explained   the share of the return's variance that the value explains
auc         how often a state whose text is right so far has a higher value than one whose text is not
fall        how often the value falls more (rises less) over a wrong line than over a right one. Only lines behind
            a right text count. λ below 1 makes use of this
level       mean value less mean return

Row `right so far` has the share that this yes or no explains, which a reader of the text can know.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command_line import COUNT, Parser, exit_code
from engine.distributed import World, start
from engine.files import append_rows, whole_rows
from engine.folder import git_commit
from engine.metrics import explained_variance
from experiments.claims.verdicts import interval, markdown
from experiments.snr.trajectory import (
    DRIVER, ROOT, Passenger, area_under_curve, draw, fitted, line_changes, open_driver, passenger, right_so_far,
    steps_of)
from train import Run

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "lasting.jsonl"
STEPS, EVERY = 30, 5
SETTINGS = {
    f"lr {lr}, replay {n}, {epochs} pass{'es' * (epochs > 1)}": dict(lr=float(lr), n_replay=n, epochs=epochs)
    for lr, n, epochs in (
        ("1e-4", 1, 1), ("1e-4", 1, 4), ("1e-4", 4, 4), ("1e-4", 16, 1), ("2e-5", 1, 1), ("2e-5", 1, 4), ("2e-5", 4, 4),
        ("2e-5", 16, 1), ("2e-5", 16, 4))
} | {
    "frozen": dict(lr=1e-4, frozen=True), "not fitted before": dict(lr=1e-4),
    "head only, lr 1e-3, replay 1, 4 passes": dict(lr=1e-3, head_only=True),
    "head only, lr 1e-3, replay 4, 4 passes": dict(lr=1e-3, n_replay=4, head_only=True),
    "two on shards, lr 1e-4, replay 1, 4 passes": dict(lr=1e-4, shard_by="group"),
}
MEASURED = ("explained", "auc", "fall", "level")


def names_of(setting: str, fits: Path, fit_seed: int) -> list[str]:
    """Return the critics that a setting begins with."""
    if setting == "not fitted before":
        return [str(ROOT / "tiny/critic")]
    return fitted(fits, 2 if setting.startswith("two") else 1, fit_seed)


def measure(run: Run, riders: dict[str, Passenger], step: int) -> dict[str, tuple[float, ...]]:
    """Return what is measured of each rider on fresh responses, and of "right so far"."""
    fresh = draw(run, run.held_out, 2, "fresh", step)
    right_N = right_so_far(fresh, run.tokenizer)[fresh.mask_BT]
    returns_N = fresh.rewards_B[:, None].expand(fresh.mask_BT.shape)[fresh.mask_BT]
    known_N = returns_N.clone()
    for side_N in (right_N, ~right_N):
        known_N[side_N] = returns_N[side_N].mean()
    found = {"accuracy": (fresh.rewards_B.mean().item(),),
             "right so far": (explained_variance(known_N, returns_N), 1.0, 1.0, 0.0)}
    for name, rider in riders.items():
        values_BT = rider.values(fresh, run).mean(0)
        values_N = values_BT[fresh.mask_BT]
        change_L, wrong_L = line_changes(fresh, values_BT, run.tokenizer)
        found[name] = (
            explained_variance(values_N, returns_N), area_under_curve(values_N.numpy(), right_N.numpy()),
            area_under_curve(-change_L, wrong_L), (values_N.mean() - returns_N.mean()).item())
    return found


def ride(seed: int, fits: Path, fit_seed: int, world: World, steps: int = STEPS, every: int = EVERY,
         settings: dict = SETTINGS, flags: tuple[str, ...] = ()) -> list[dict]:
    """Make the steps of one run with all passengers. -> a line for each of them"""
    with tempfile.TemporaryDirectory() as folder:
        run = open_driver([*DRIVER.split(), "--critics", *fitted(fits, 1, fit_seed), "--seed", str(seed),
                           "--out", f"{folder}/run", *flags], world)
        riders = {name: passenger(names_of(name, fits, fit_seed), world, **how) for name, how in settings.items()}
        curves: dict[str, list[tuple[float, ...]]] = {}
        for step in steps_of(run, riders, steps):
            if step % every == 0:
                for name, found in measure(run, riders, step).items():
                    curves.setdefault(name, []).append(found)
                print(f"seed {seed}, step {step}: accuracy {curves['accuracy'][-1][0]:.3f}", flush=True)
    common = dict(seed=seed, fit_seed=fit_seed, every=every, commit=git_commit())
    rows = []
    for name, each in curves.items():
        columns = [[float(f"{x:.4g}") for x in column] for column in zip(*each)]
        rows.append(common | dict(setting=name) | dict(zip(MEASURED if len(columns) > 1 else ("accuracy",), columns)))
    return rows


# -- what was found ------------------------------------------------------------------------------------------
def by_setting(rows: list[dict], key: str) -> dict[str, list[list[float]]]:
    """Return setting -> a curve for each seed."""
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        if key in row:
            found.setdefault(row["setting"], []).append(row[key])
    return found


def first(curve: list[float]) -> float:
    return curve[0]


def late(curve: list[float]) -> float:
    """Return the mean of a curve over its second half, where what is known must have lasted."""
    half = curve[len(curve) // 2 + 1 :]
    return sum(half) / len(half)


def table(rows: list[dict]) -> str:
    """Return the settings as markdown: what is measured before the first update, and on average of the second half."""
    def cell(each: list[float], sign: str = "") -> str:
        middle, low, high = interval(each)
        return f"{middle:{sign}.2f} ({low:{sign}.2f} … {high:{sign}.2f})".replace("-", "−")

    columns = {key: by_setting(rows, key) for key in MEASURED}
    lines = [("setting", *(f"{key}{when}" for key in MEASURED[:3] for when in (" at first", " late")), "level late")]
    for name in columns["explained"]:
        cells = [cell(list(map(of, columns[key][name]))) for key in MEASURED[:3] for of in (first, late)]
        lines.append((name, *cells, cell(list(map(late, columns["level"][name])), "+")))
    accuracy = [sum(at) / len(at) for at in zip(*by_setting(rows, "accuracy")["accuracy"])]
    seeds = len({row["seed"] for row in rows})
    return (f"{markdown(lines)}\n\n{seeds} seeds, 95 % intervals over them. Accuracy of the policies: "
            f"{', '.join(f'{x:.2f}' for x in accuracy)}.")


def draw_figure(rows: list[dict], path: Path) -> None:
    """Draw explained variance and both AUCs over the run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from experiments.claims.figures import GREY, LINES, band

    plt.style.use(HERE.parent / "style.mplstyle")
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6))
    shown = ("lr 1e-4, replay 1, 4 passes", "lr 2e-5, replay 1, 4 passes", "lr 2e-5, replay 16, 4 passes", "frozen",
             "head only, lr 1e-3, replay 4, 4 passes", "not fitted before")
    titles = ("Explained variance of fresh responses", "Right so far: AUC of the value", "Wrong line: AUC of its fall")
    for ax, key, title in zip(axes, MEASURED, titles):
        curves = by_setting(rows, key)
        x = [i * rows[0]["every"] for i in range(len(curves["frozen"][0]))]
        for name, line in zip(shown, LINES):
            band(ax, x, curves[name], name, linestyle=line, marker=".")
        if key == "explained":
            band(ax, x, curves["right so far"], "right so far, by the text", color=GREY)
        ax.set(title=title, xlabel="updates of the policy")
        ax.axhline({"explained": 0}.get(key, 0.5), color=GREY, linewidth=0.8)
    axes[0].set_ylim(bottom=-0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path)


def make_runs(seeds: int, fits: Path, results: Path) -> None:
    done = {row["seed"] for row in whole_rows(results)}
    world = start("cpu")
    for seed in range(seeds):
        if seed not in done:
            append_rows(results, ride(seed, fits, 1000 + seed % 4, world))


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--fits", type=Path, help="folder of the fitted critics; README.md says how they are made")
    add("--seeds", type=COUNT, default=3, help="seeds 0 … N − 1")
    add("--results", type=Path, default=RESULTS, help="one line for each seed and setting")
    add("--table", action="store_true", help="print the results as markdown")
    add("--figure", action="store_true", help="draw lasting.png beside the results")
    args = parser.parse_args(argv)
    if args.table:
        print(table(whole_rows(args.results)))
    if args.figure:
        draw_figure(whole_rows(args.results), args.results.with_suffix(".png"))
    if args.table or args.figure:
        return 0
    if not args.fits:
        parser.error("give --fits, the folder of the fitted critics.")
    return exit_code("lasting.py", lambda: make_runs(args.seeds, args.fits, args.results))


if __name__ == "__main__":
    sys.exit(main())
