"""The headline: does AsyPPO's ensemble beat a tuned GRPO where critics know something? DESIGN.md has the design.

    python experiments/snr/fits.py runs/fits                  # four seeds of fitted critics
    python experiments/headline/headline.py tune              # seeds 100 to 107, eight settings for each of two sides
    python experiments/headline/headline.py choose            # the best setting of each -> chosen.json; commit it
    python experiments/headline/headline.py tune-long         # learning rate of GRPO with as many responses
    python experiments/headline/headline.py choose-long       # -> chosen.json
    python experiments/headline/headline.py confirm           # seeds 200 to 263, all sides
    python experiments/headline/headline.py table             # tuning; the verdicts only when all runs are there

Finished runs are lines of headline.jsonl. You may kill the program: the next call resumes the runs that had begun
and starts none twice. `table` counts the runs of the confirmation and says nothing else until the last one is
there. So there is one look.
"""

import json
import os
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command_line import COUNT, Parser
from engine.files import replace_text
from experiments.claims.claims import ROOT, digest_of, finished, run_all
from experiments.claims.comparisons import NO_MASKS, SMALL, Claim
from experiments.claims.student import critical, holm
from experiments.claims.verdicts import area, interval, markdown, p_of, verdict, written

HERE = Path(__file__).resolve().parent
RESULTS, CHOSEN = HERE / "headline.jsonl", HERE / "chosen.json"
TUNING, TUNING_LONG = range(100, 108), range(100, 104)
CONFIRMATION, CONFIRMATION_LONG = range(200, 264), range(200, 216)
FITS = "runs/fits"
FIT_SEEDS, FIT_STEPS = 4, 80  # 2,560 responses went into a fit: as many as 80 updates take
STEPS = 30
DELTA = 0.02

# -- sides and settings --------------------------------------------------------------------------------------
KEEPS = "--critic-lr 2e-5 --critic-replay 16 --critic-epochs 1"  # keeps what critics know: see DESIGN.md
USUAL = "--critic-lr 1e-4"  # as in regime knowing
RECIPES = {
    "as is": "--algo grpo",
    "no deviation": "--algo grpo --no-group-std",
    "no deviation, whitened, β 1e-3": "--algo grpo --no-group-std --whiten --entropy-coef 1e-3",
}
GRPO_SETTINGS = {
    f"{recipe}, lr {lr}": f"{RECIPES[recipe]} --lr {lr}"
    for recipe, rates in (("as is", ("1e-4", "5e-5", "2.5e-5")),
                          ("no deviation, whitened, β 1e-3", ("1e-4", "5e-5", "2.5e-5")),
                          ("no deviation", ("1e-4", "5e-5")))
    for lr in rates
}
CRITIC_SETTINGS = {
    f"λ {lam}, critics that {name}, lr {lr}": f"{flags} --lam {lam} --lr {lr}"
    for lam, name, flags, lr in (
        *((lam, "keep", KEEPS, lr) for lr in ("1e-4", "5e-5") for lam in ("1", "0.8", "0.5")),
        *((lam, "move on", USUAL, "1e-4") for lam in ("0.8", "0.5")))
}
SETTINGS = {"GRPO": GRPO_SETTINGS, "one critic": CRITIC_SETTINGS}


def flags_of(side: str, setting: str, seed: int) -> str:
    """Return the flags of a side's run. The critics that a seed begins with go with the seed."""
    words = [SMALL, setting]
    if not side.startswith("GRPO"):
        n_critics = 1 if side.startswith("one") or side == "nothing" else 2
        words.append(f"--n-critics {n_critics}" if side.endswith("masks") else f"--n-critics {n_critics} {NO_MASKS}")
        fit = f"{FITS}/{'one' if n_critics == 1 else 'two'}{1000 + seed % FIT_SEEDS}"
        critics = " ".join(f"{fit}/critic{m}" for m in range(n_critics))
        words.append("--critic-lr 1e-12" if side == "nothing" else f"--critics {critics}")
    return " ".join(words)


def with_lam(setting: str, lam: str) -> str:
    words = setting.split()
    words[words.index("--lam") + 1] = lam
    return " ".join(words)


def without_critic_flags(setting: str) -> str:
    """Return the actor's part of a critic's setting: λ and learning rate."""
    words = setting.split()
    return " ".join(f"{flag} {words[words.index(flag) + 1]}" for flag in ("--lam", "--lr"))


def long_settings(grpo: str) -> dict[str, str]:
    """Return GRPO's settings with as many responses as a critic's side takes with its fit: its rate, and half."""
    rate = float(grpo.split()[-1])
    more = f"--steps {STEPS + FIT_STEPS} --eval-every 10"
    return {f"lr {lr:g}": f"{grpo.rsplit(' ', 1)[0]} {lr:g} {more}" for lr in (rate, rate / 2)}


def sides(chosen: dict[str, str]) -> dict[str, str]:
    """Return side -> setting of the confirmation."""
    critic, grpo = CRITIC_SETTINGS[chosen["one critic"]], GRPO_SETTINGS[chosen["GRPO"]]
    found = {
        "ensemble": critic, "ensemble, masks": critic, "one critic": critic, "one critic, λ 1": with_lam(critic, "1"),
        "nothing": without_critic_flags(critic), "GRPO": grpo,
    }
    if "GRPO, as many responses" in chosen:
        found["GRPO, as many responses"] = long_settings(grpo)[chosen["GRPO, as many responses"]]
    return found


PRIMARY = ("ensemble", "GRPO")
SECONDARY = [
    ("one critic", "GRPO"), ("ensemble", "nothing"), ("one critic", "nothing"), ("one critic", "one critic, λ 1"),
    ("ensemble", "one critic"), ("ensemble", "ensemble, masks"), ("ensemble", "GRPO, as many responses"),
]


# -- runs ----------------------------------------------------------------------------------------------------
def shortened(names: dict[str, str]):
    """Return what makes a line short; names: digest -> side and setting."""
    def short(row: dict) -> dict:
        curves = row["curves"]
        explained = [x for _, x in curves.get("critic0/explained_variance", [])]
        return dict(
            digest=row["digest"], name=names[row["digest"]], seed=row["seed"], commit=row["commit"][:7],
            seconds=row["seconds"], accuracy=curves["accuracy"],
            reward=[round(x, 3) for _, x in curves["reward_mean"]],
            explained=round(statistics.fmean(explained), 3) if explained else None)
    return short


def planned(stage: str, chosen: dict[str, str]) -> list[tuple[str, str, str, range]]:
    """Return what a stage runs: name, side, setting, seeds."""
    if stage == "tune":
        return [(f"{side}: {name}", side, setting, TUNING)
                for side, settings in SETTINGS.items() for name, setting in settings.items()]
    if stage == "tune-long":
        settings = long_settings(GRPO_SETTINGS[chosen["GRPO"]])
        return [(f"GRPO, as many responses: {name}", "GRPO", setting, TUNING_LONG)
                for name, setting in settings.items()]
    return [(side, side, setting, CONFIRMATION_LONG if side == "GRPO, as many responses" else CONFIRMATION)
            for side, setting in sides(chosen).items()]


def wanted(stage: str, chosen: dict[str, str]) -> dict[tuple[str, int], str]:
    """Return the runs of a stage: (flags, seed) -> name, seed by seed so that a stop leaves the sides level."""
    each = planned(stage, chosen)
    seeds = sorted({seed for *_, seeds in each for seed in seeds})
    return {(flags_of(side, setting, seed), seed): name
            for seed in seeds for name, side, setting, of_side in each if seed in of_side}


# -- scores --------------------------------------------------------------------------------------------------
def score(row: dict, first: int = 0) -> float:
    """Return the mean of two areas after step `first`: of held-out accuracy, and of the rollouts' reward."""
    points = [point for point in row["accuracy"] if point[0] >= first]
    return (area({"curves": {"accuracy": points}}) + statistics.fmean(row["reward"][first:])) / 2


def scores(stage: str, chosen: dict, done: dict[str, dict]) -> dict[str, dict[int, float]]:
    """Return name -> seed -> score of a stage's finished runs. As many responses: after those of the critics' fit."""
    found = {}
    for name, side, setting, seeds in planned(stage, chosen):
        rows = {seed: done.get(digest_of(flags_of(side, setting, seed), seed)) for seed in seeds}
        first = FIT_STEPS if "as many responses" in name else 0
        found[name] = {seed: score(row, first) for seed, row in rows.items() if row}
    return {name: each for name, each in found.items() if each}


def best(stage: str, chosen: dict, done: dict[str, dict]) -> dict[str, str]:
    """Return the setting of each side with the highest mean score; raise unless every run of the stage is done."""
    runs = wanted(stage, chosen)
    missing = [name for run, name in runs.items() if digest_of(*run) not in done]
    if missing:
        raise SystemExit(f"{stage}: {len(missing)} of {len(runs)} runs are missing; choose when all are done.")
    means = {name: statistics.fmean(each.values()) for name, each in scores(stage, chosen, done).items()}
    if stage == "tune-long":
        name = max(means, key=means.get)
        return {"GRPO, as many responses": name.removeprefix("GRPO, as many responses: ")}
    return {side: max(settings, key=lambda name: means[f"{side}: {name}"]) for side, settings in SETTINGS.items()}


# -- verdicts ------------------------------------------------------------------------------------------------
def between_critics(differences: dict[int, float], shuffles: int = 10_000) -> float:
    """Return p of no difference between the fitted critics: seeds are shuffled over them."""
    values = np.array([differences[seed] for seed in sorted(differences)])
    critic = np.array(sorted(differences)) % FIT_SEEDS

    def spread(x: np.ndarray) -> np.ndarray:
        return sum(np.square(x[..., critic == c].mean(-1) - x.mean(-1)) * (critic == c).sum() for c in range(FIT_SEEDS))

    order = np.random.default_rng(0)
    shuffled = order.permuted(np.tile(values, (shuffles, 1)), axis=1)
    return (1 + (spread(shuffled) >= spread(values) - 1e-12).sum()) / (1 + shuffles)


def wilcoxon(values: list[float]) -> float:
    """Return the two-sided p of the signed-rank test, by the normal approximation with average ranks."""
    x = np.array([value for value in values if value])
    _, inverse, counts = np.unique(abs(x), return_inverse=True, return_counts=True)
    rank = (counts.cumsum() - (counts - 1) / 2)[inverse]
    z = (np.sign(x) * rank).sum() / np.sqrt(np.square(rank).sum())
    return float(2 * (1 - statistics.NormalDist().cdf(abs(z))))


def contrast(a: str, b: str, found: dict[str, dict[int, float]]) -> dict:
    """Return what is said of a − b, by the rule of DESIGN.md."""
    paired = {seed: found[a][seed] - found[b][seed] for seed in sorted(found[a].keys() & found[b].keys())}
    each, critics_p = list(paired.values()), between_critics(paired)
    claim = Claim("headline", f"{a} is better than {b}", a, b, "score", DELTA)
    if critics_p < 0.05:  # the critic is the unit: four means
        each = [statistics.fmean(paired[s] for s in paired if s % FIT_SEEDS == c) for c in range(FIT_SEEDS)]
    return dict(
        a=a, b=b, seeds=len(paired), unit="critics" if critics_p < 0.05 else "seeds", each=each, p=p_of(each),
        critics_p=critics_p, wilcoxon=wilcoxon(list(paired.values())), verdict=verdict(claim, each))


def table_of_tuning(chosen: dict, done: dict[str, dict]) -> str:
    lines = [("setting", "mean score", "± (95 %)", "seeds")]
    for stage in ("tune", "tune-long") if "GRPO" in chosen else ("tune",):
        for name, each in scores(stage, chosen, done).items():
            values = list(each.values())
            half = critical(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
            lines.append((name, f"{statistics.fmean(values):.3f}", f"{half:.3f}", len(values)))
    return markdown(lines)


def table_of_verdicts(chosen: dict, done: dict[str, dict]) -> str:
    """Return the verdicts, or how many runs are missing."""
    runs = wanted("confirm", chosen)
    missing = sum(digest_of(*run) not in done for run in runs)
    if missing or "GRPO, as many responses" not in chosen:
        return f"Confirmation: {len(runs) - missing} of {len(runs)} runs are done. No look before the last one."
    found = scores("confirm", chosen, done)
    same = found["one critic"] == found["one critic, λ 1"]  # λ 1 was chosen: there is nothing to compare
    pairs = [pair for pair in (PRIMARY, *SECONDARY) if not (same and pair[1] == "one critic, λ 1")]
    lines = [("", "A", "B", "A − B (95 %)", "p", "Holm", "p, Wilcoxon", "p, critics differ", "unit", "seeds",
              "verdict")]
    rows = [contrast(a, b, found) for a, b in pairs]
    corrected = [None, *holm([row["p"] for row in rows[1:]])]
    for row, q in zip(rows, corrected):
        lines.append(("secondary" if q is not None else "primary", row["a"], row["b"], written(row["each"]),
                      f"{row['p']:.2g}", "" if q is None else f"{q:.2g}", f"{row['wilcoxon']:.2g}",
                      f"{row['critics_p']:.2g}", row["unit"], row["seeds"], row["verdict"]))
    means = [("side", "mean score (95 %)")] + [
        (name, "{:.3f} ({:.3f} … {:.3f})".format(*interval(list(each.values())))) for name, each in found.items()]
    return f"{markdown(lines)}\n\n{markdown(means)}"


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("stage", choices=("tune", "choose", "tune-long", "choose-long", "confirm", "table"))
    add("--jobs", type=COUNT, default=len(os.sched_getaffinity(0)), help="runs side by side, one thread each")
    add("--most", type=COUNT, default=10**6, help="start no more runs than this")
    add("--results", type=Path, default=RESULTS, help="one line for each finished run")
    add("--chosen", type=Path, default=CHOSEN, help="file of the chosen settings")
    add("--folder", type=lambda path: Path(path).resolve(), default=ROOT / "runs/headline", help="folder of the runs")
    add("--list", action="store_true", help="only count the stage's runs")
    args = parser.parse_args(argv)
    done = finished(args.results)
    chosen = json.loads(args.chosen.read_text()) if args.chosen.exists() else {}
    if args.stage.startswith("choose"):
        chosen |= best(args.stage.replace("choose", "tune"), chosen, done)
        replace_text(args.chosen, json.dumps(chosen, indent=1, ensure_ascii=False) + "\n")
        print(args.chosen.read_text(), end="")
        return 0
    if args.stage == "table":
        print(table_of_tuning(chosen, done))
        if {"GRPO", "one critic"} <= chosen.keys():
            print("\n" + table_of_verdicts(chosen, done))
        return 0
    if args.stage != "tune" and "GRPO" not in chosen:
        parser.error("choose the settings first.")
    names = wanted(args.stage, chosen)
    missing = [run for run in names if digest_of(*run) not in done]
    print(f"{len(names) - len(missing)} of {len(names)} runs are done.", flush=True)
    if args.list or not missing:
        return 0
    by_digest = {digest_of(*run): name for run, name in names.items()}
    return min(1, run_all(missing[: args.most], args.folder, args.results, args.jobs, set(), shortened(by_digest)))


if __name__ == "__main__":
    sys.exit(main())
