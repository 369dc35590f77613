"""The headline: does AsyPPO's ensemble beat a tuned GRPO on long chains? DESIGN.md has the design.

    python experiments/claims/make_long.py                                  # the problems
    python experiments/snr/fits.py runs/fits --seeds $(seq 1000 1011)       # fitted critics: 4 to tune, 8 to confirm
    python experiments/headline/headline.py tune       # three rounds, each when the one before is complete
    python experiments/headline/headline.py choose     # the best setting of each side -> chosen.json; commit it
    python experiments/headline/headline.py confirm    # seeds 200 to 263
    python experiments/headline/headline.py table      # tuning; the verdicts only when all runs are there

Finished runs are lines of headline.jsonl. Stop the program with Ctrl-C: the runs save and end, and the next call
resumes them. After a harder kill wait until its runs have ended. `table` counts the runs of the confirmation and
says nothing else until the last one is there. So there is one look.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command_line import COUNT, Parser
from engine.files import replace_text
from experiments.claims.claims import ROOT, digest_of, finished, run_all
from experiments.claims.comparisons import NO_MASKS, SMALL, Claim
from experiments.claims.student import critical, holm, p_value
from experiments.claims.verdicts import area, interval, markdown, p_of, verdict, verdict_of, written

HERE = Path(__file__).resolve().parent
RESULTS, CHOSEN = HERE / "headline.jsonl", HERE / "chosen.json"
ROUND_1, ROUND_2, ROUND_3, BEST = range(100, 104), range(104, 112), range(112, 116), 3
CONFIRMATION, SECONDARY_SEEDS, LONG_SEEDS = range(200, 264), range(200, 232), range(200, 216)
FITS = "runs/fits"
TUNING_FITS, CONFIRMATION_FITS = range(1000, 1004), range(1004, 1012)
FIT_STEPS = 80  # 2,560 responses went into a fit: as many as 80 updates take
STEPS = 30
DELTA = 0.02
REGIME = f"{SMALL} --data runs/long/train.jsonl --eval-data runs/long/test.jsonl --max-new-tokens 120"

# -- sides and settings --------------------------------------------------------------------------------------
KEEPS = "--critic-lr 2e-5 --critic-replay 16 --critic-epochs 1"  # keeps what critics know: see DESIGN.md
USUAL = "--critic-lr 1e-4"
RECIPES = {
    "as is": "--algo grpo",
    "no deviation": "--algo grpo --no-group-std",
    "no deviation, whitened": "--algo grpo --no-group-std --whiten",
    "no deviation, whitened, β 1e-3": "--algo grpo --no-group-std --whiten --entropy-coef 1e-3",
}
WHITENED = "no deviation, whitened, β 1e-3"
GRPO_SETTINGS = {
    f"{recipe}, lr {lr}": f"{RECIPES[recipe]} --lr {lr}"
    for recipe, rates in (("as is", ("1e-4", "5e-5", "2.5e-5")), ("no deviation", ("1e-4", "5e-5")),
                          (WHITENED, ("1.5e-4", "1e-4", "5e-5")), ("no deviation, whitened", ("1e-4",)))
    for lr in rates
} | {f"{WHITENED}, 2 passes, lr 1e-4": f"{RECIPES[WHITENED]} --epochs 2 --lr 1e-4"}
ENSEMBLE_SETTINGS = {
    f"λ {lam}, critics that {name}, lr {lr}": f"{flags} --lam {lam} --lr {lr}"
    for lam, name, flags, lr in (
        *((lam, "keep", KEEPS, "5e-5") for lam in ("1", "0.95", "0.8", "0.5", "0")),
        *((lam, "keep", KEEPS, "1e-4") for lam in ("1", "0.95", "0.8")),
        ("0.8", "move on", USUAL, "5e-5"))
} | {"λ 0.8, critics that keep, 2 passes, lr 1e-4": f"{KEEPS} --epochs 2 --lam 0.8 --lr 1e-4"}
NOTHING_SETTINGS = {f"lr {lr}": f"--critic-lr 1e-12 --lam 1 --lr {lr}" for lr in ("1e-4", "5e-5")}
SETTINGS = {"GRPO": GRPO_SETTINGS, "ensemble": ENSEMBLE_SETTINGS, "nothing": NOTHING_SETTINGS}


def flags_of(side: str, setting: str, seed: int) -> str:
    """Return the flags of a side's run. The critics that a seed begins with go with the seed."""
    words = [REGIME, setting]
    if not side.startswith("GRPO"):
        n_critics = 1 if side in ("one critic", "nothing") else 2
        words.append(f"--n-critics {n_critics}" + (f" {NO_MASKS}" if side != "ensemble, masks" else ""))
        if side != "nothing":
            fit = f"{FITS}/{'one' if n_critics == 1 else 'two'}{fit_of(seed)}"
            words.append("--critics " + " ".join(f"{fit}/critic{m}" for m in range(n_critics)))
    return " ".join(words)


def fit_of(seed: int) -> int:
    """Return the seed of the fit that a run's critics come from."""
    fits = TUNING_FITS if seed < CONFIRMATION.start else CONFIRMATION_FITS
    return fits[seed % len(fits)]


def long_settings(grpo: str) -> dict[str, str]:
    """Return GRPO's settings with as many responses as the ensemble's fit and run take: its rate, and half."""
    rate = float(grpo.split()[-1])
    more = f"--steps {STEPS + FIT_STEPS}"
    return {f"lr {lr:g}": f"{grpo.rsplit(' ', 1)[0]} {lr:g} {more}" for lr in (rate, rate / 2)}


LONG = "GRPO, as many responses"
PRIMARY = ("ensemble", "GRPO")
SECONDARY = [("ensemble", "ensemble, λ 1"), ("ensemble", "nothing"), ("ensemble", "one critic"),
             ("ensemble", "ensemble, masks"), ("one critic", "GRPO"), ("ensemble", LONG)]
# named after the one look: hints for the next experiment, no tests
POST_HOC = (("one critic", "nothing"), ("one critic", "ensemble, λ 1"), ("ensemble, λ 1", "nothing"), ("nothing", "GRPO"),
            ("ensemble, masks", "GRPO"))


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


Planned = tuple[str, str, str, range]  # name, side, setting, seeds


@dataclass(frozen=True)
class Design:
    """An experiment that is tuned, then confirmed. `done` are finished runs, by digest; `chosen` is side -> setting."""

    results: Path  # one line for each finished run
    chosen: Path
    tuning: Callable[[dict[str, dict]], list[Planned]]  # of done
    choose: Callable[[dict[str, dict]], dict[str, str]]  # of done
    confirmation: Callable[[dict[str, str]], list[Planned]]  # of chosen
    compared: Callable[[dict[str, str]], list[tuple[str, str]]]  # of chosen: A − B, the primary comparison first
    post_hoc: tuple[tuple[str, str], ...] = ()  # A − B, named after the look


def each_setting(settings: dict[str, dict[str, str]], seeds: range) -> list[Planned]:
    """Return a round of every setting of every side; settings: side -> name -> flags."""
    return [(f"{side}: {name}", side, setting, seeds)
            for side, of_side in settings.items() for name, setting in of_side.items()]


def round_1() -> list[Planned]:
    return each_setting(SETTINGS, ROUND_1)


def round_2(done: dict[str, dict]) -> list[Planned]:
    """Return the best settings of round 1 of the two sides that have many, with new seeds."""
    return [(f"{side}: {name}", side, SETTINGS[side][name], ROUND_2)
            for side in PRIMARY for name in ranked(side, round_1(), done)[:BEST]]


def round_3(done: dict[str, dict]) -> list[Planned]:
    grpo = GRPO_SETTINGS[winner("GRPO", done)]
    return [(f"{LONG}: {name}", LONG, setting, ROUND_3) for name, setting in long_settings(grpo).items()]


def confirmation(chosen: dict[str, str]) -> list[Planned]:
    ensemble, level = ENSEMBLE_SETTINGS[chosen["ensemble"]], ENSEMBLE_SETTINGS[chosen["ensemble, λ 1"]]
    grpo = GRPO_SETTINGS[chosen["GRPO"]]
    settings = {
        "ensemble": ensemble, "GRPO": grpo, "one critic": ensemble, "ensemble, masks": ensemble,
        "ensemble, λ 1": level, "nothing": NOTHING_SETTINGS[chosen["nothing"]],
        LONG: long_settings(grpo)[chosen[LONG]]}
    seeds = dict.fromkeys(PRIMARY, CONFIRMATION) | {LONG: LONG_SEEDS}
    return [(side, side, setting, seeds.get(side, SECONDARY_SEEDS)) for side, setting in settings.items()]


def wanted(each: list[Planned]) -> dict[tuple[str, int], str]:
    """Return the runs that are planned: (flags, seed) -> name, seed by seed so that a stop leaves the sides level."""
    seeds = sorted({seed for *_, seeds in each for seed in seeds})
    return {(flags_of(side, setting, seed), seed): name
            for seed in seeds for name, side, setting, of_side in each if seed in of_side}


def missing_of(each: list[Planned], done: dict[str, dict]) -> list[tuple[str, int]]:
    return [run for run in wanted(each) if digest_of(*run) not in done]


def tuning(done: dict[str, dict]) -> list[Planned]:
    """Return the rounds of the tuning that can be planned from the finished runs."""
    each = round_1()
    for later in (round_2, round_3):
        if missing_of(each, done):
            break
        each = each + later(done)
    return each


def compared(chosen: dict[str, str]) -> list[tuple[str, str]]:
    """Return the comparisons. A setting with λ 1 that was chosen is not compared with itself."""
    same = chosen["ensemble"] == chosen["ensemble, λ 1"]
    return [PRIMARY] + [pair for pair in SECONDARY if not (same and pair[1] == "ensemble, λ 1")]


# -- scores --------------------------------------------------------------------------------------------------
def score(row: dict) -> float:
    """Return the mean of two areas: of held-out accuracy, and of the rollouts' reward."""
    return (area({"curves": {"accuracy": row["accuracy"]}}) + statistics.fmean(row["reward"])) / 2


def end(row: dict) -> float:
    """Return the mean of the last two held-out accuracies and of the last ten rollouts' reward."""
    return (statistics.fmean(x for _, x in row["accuracy"][-2:]) + statistics.fmean(row["reward"][-10:])) / 2


def scores(each: list[Planned], done: dict[str, dict], of=score) -> dict[str, dict[int, float]]:
    """Return name -> seed -> score of the finished runs."""
    found: dict[str, dict[int, float]] = {}
    for name, side, setting, seeds in each:
        rows = {seed: done.get(digest_of(flags_of(side, setting, seed), seed)) for seed in seeds}
        found.setdefault(name, {}).update({seed: of(row) for seed, row in rows.items() if row})
    return found


def ranked(side: str, each: list[Planned], done: dict[str, dict], of=score) -> list[str]:
    """Return a side's settings by their mean score, the best first."""
    means = {name.removeprefix(f"{side}: "): statistics.fmean(x.values())
             for name, x in scores([plan for plan in each if plan[1] == side], done, of).items()}
    return sorted(means, key=means.get, reverse=True)


def winner(side: str, done: dict[str, dict]) -> str:
    """Return the best of a side's settings that reached round 2, by all their seeds."""
    in_round_2 = [plan[0] for plan in round_2(done)]
    return ranked(side, [plan for plan in round_1() + round_2(done) if plan[0] in in_round_2], done)[0]


def choose(done: dict[str, dict]) -> dict[str, str]:
    """Return the setting of each side; raise unless every run of the tuning is done."""
    each = tuning(done)
    if len(each) == len(round_1()) or missing_of(each, done):
        raise SystemExit(f"{len(missing_of(each, done))} runs of the tuning are missing; choose when all are done.")
    best = winner("ensemble", done)
    at_1 = best if best.startswith("λ 1,") else next(
        name for name in ranked("ensemble", round_1(), done) if name.startswith("λ 1,"))
    return {"GRPO": winner("GRPO", done), "ensemble": best, "ensemble, λ 1": at_1,
            "nothing": ranked("nothing", round_1(), done)[0], LONG: ranked(LONG, round_3(done), done, end)[0]}


# -- verdicts ------------------------------------------------------------------------------------------------
def by_fit(of_seed: dict[int, float]) -> list[float]:
    """Return the mean of each fit's seeds: the fit is the unit."""
    return [statistics.fmean(x for seed, x in of_seed.items() if fit_of(seed) == fit)
            for fit in sorted({fit_of(seed) for seed in of_seed})]


def sign_flips(values: list[float]) -> float:
    """Return the exact two-sided p of the mean against 0: the share of all signs with a mean as far from 0."""
    means = [abs(sum(sign * x for sign, x in zip(signs, values)))
             for signs in itertools.product((1, -1), repeat=len(values))]
    return sum(mean >= means[0] - 1e-12 for mean in means) / len(means)


def claim_of(a: str, b: str) -> Claim:
    return Claim("headline", f"{a} is better than {b}", a, b, "score", DELTA)


def contrast(a: str, b: str, found: dict[str, dict[int, float]]) -> dict:
    """Return what is said of a − b by paired seeds, with the fit as the unit."""
    paired = {seed: found[a][seed] - found[b][seed] for seed in sorted(found[a].keys() & found[b].keys())}
    each = by_fit(paired)
    return dict(seeds=len(paired), written=written(*interval(each)), p=p_of(each), flips=f"{sign_flips(each):.2g}",
                verdict=verdict(claim_of(a, b), each).replace(" seeds)", " fits)"))


def unpaired(a: str, b: str, found: dict[str, dict[int, float]]) -> dict:
    """Return what is said of a − b without pairs: a's unit is the fit, b's is the seed.

    The degrees of freedom are those of the side with fewer units, which is on the safe side.
    """
    sides = by_fit(found[a]), list(found[b].values())
    middle = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
    error = sum(statistics.variance(x) / len(x) for x in sides) ** 0.5
    df = min(map(len, sides)) - 1
    half = critical(df) * error
    span = middle, middle - half, middle + half
    return dict(seeds=f"{len(found[a])}, {len(found[b])}", written=written(*span), p=p_value(middle, error, df),
                flips="", verdict=verdict_of(claim_of(a, b), *span))


def scatter(a: str, b: str, found: dict[str, dict[int, float]]) -> str:
    """Return whether a's score varies less between seeds than b's, in a sentence.

    The test is that of Pitman and Morgan (1939): sum and difference of a seed's two scores are correlated
    exactly if the variances differ.
    """
    pairs = [(found[a][seed], found[b][seed]) for seed in sorted(found[a].keys() & found[b].keys())]
    r = statistics.correlation([x + y for x, y in pairs], [x - y for x, y in pairs])
    df = len(pairs) - 2
    p = p_value(r, ((1 - r * r) / df) ** 0.5, df)
    verdict = "undecided" if p >= 0.05 else "holds" if r < 0 else "contradicted"
    deviations = [statistics.stdev(x) for x in zip(*pairs)]
    return (f"The score of {a} varies less between seeds than that of {b}: {verdict}. Standard deviations "
            f"{deviations[0]:.3f} and {deviations[1]:.3f}, {len(pairs)} seeds, p = {p:.2g} (Pitman and Morgan).")


def decided(row: dict, q: float | None) -> str:
    """Return the verdict. A secondary row needs q < 0.05, too, to hold or to be contradicted."""
    if q is None or q < 0.05 or row["verdict"] not in ("holds", "contradicted"):
        return row["verdict"]
    return "undecided (Holm)" if row["verdict"] == "holds" else "no gain"  # the whole interval is below 0


def spread(name: str, of_seed: dict[int, float]) -> str:
    """Return a side's mean with its interval, over fits as in the rows above; over seeds for GRPO's long runs."""
    return "{:.3f} ({:.3f} … {:.3f})".format(*interval(list(of_seed.values()) if name == LONG else by_fit(of_seed)))


def table_of_tuning(each: list[Planned], done: dict[str, dict]) -> str:
    lines = [("setting", "mean score (as many responses: the end)", "± (95 %)", "seeds")]
    found = scores(each, done)
    found |= {name: of_seed for name, of_seed in scores(each, done, end).items() if name.startswith(LONG)}
    for name, of_seed in found.items():
        values = list(of_seed.values())
        half = critical(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
        if values:
            lines.append((name, f"{statistics.fmean(values):.3f}", f"{half:.3f}", len(values)))
    return markdown(lines)


def table_in_hindsight(each: list[Planned], pairs: list[tuple[str, str]], done: dict[str, dict]) -> str:
    """Return two tables: each pair by score and by the end, and each side's mean held-out accuracy by step."""
    found, ends = scores(each, done), scores(each, done, end)
    lines = [("A", "B", "A − B, score (95 %)", "p", "A − B, the end (95 %)", "p", "seeds")]
    for a, b in pairs:
        area_row, end_row = contrast(a, b, found), contrast(a, b, ends)
        lines.append((a, b, area_row["written"], f"{area_row['p']:.2g}", end_row["written"], f"{end_row['p']:.2g}",
                      area_row["seeds"]))
    steps = range(0, STEPS + 1, 5)
    accuracy = {step: scores(each, done, lambda row: dict(row["accuracy"])[step]) for step in steps}
    curves = [("mean accuracy after so many updates", *steps)] + [
        (name, *(f"{statistics.fmean(accuracy[step][name].values()):.3f}" for step in steps)) for name in found]
    return f"{markdown(lines)}\n\n{markdown(curves)}"


def table_of_verdicts(each: list[Planned], pairs: list[tuple[str, str]], done: dict[str, dict],
                      post_hoc: tuple[tuple[str, str], ...] = ()) -> str:
    """Return the verdicts, or how many runs are missing. each: the confirmation; pairs: primary first."""
    if missing := missing_of(each, done):
        n = len(wanted(each))
        return f"Confirmation: {n - len(missing)} of {n} runs are done. No look before the last one."
    found, ends = scores(each, done), scores(each, done, end)
    rows = [unpaired(a, b, ends) if b == LONG else contrast(a, b, found) for a, b in pairs]
    corrected = [None, *holm([row["p"] for row in rows[1:]])]
    lines = [("", "A", "B", "A − B (95 %)", "p", "Holm", "p, signs", "seeds", "verdict")]
    for (a, b), row, q in zip(pairs, rows, corrected):
        lines.append(("primary" if q is None else "secondary", a, b, row["written"], f"{row['p']:.2g}",
                      "" if q is None else f"{q:.2g}", row["flips"], row["seeds"], decided(row, q)))
    means = [("side", "mean score (95 %)", "the end", "seeds")] + [
        (name, "–" if name == LONG else spread(name, x), spread(name, ends[name]), len(x)) for name, x in found.items()]
    hindsight = table_in_hindsight(each, [pair for pair in (*pairs, *post_hoc) if LONG not in pair], done)
    return (f"{markdown(lines)}\n\n{markdown(means)}\n\n{scatter(*pairs[0], found)}\n\n"
            f"Looked at afterwards; only the scores of the first table were planned:\n\n{hindsight}")


def add_run_flags(parser: Parser, results: Path, folder: str) -> None:
    """Add the flags of a program that makes runs; folder: of the runs, below runs/."""
    add = parser.add_argument
    add("--jobs", type=COUNT, default=len(os.sched_getaffinity(0)), help="runs side by side, one thread each")
    add("--results", type=Path, default=results, help="one line for each finished run")
    add("--folder", type=lambda path: Path(path).resolve(), default=ROOT / "runs" / folder, help="folder of the runs")


def make(names: dict[tuple[str, int], str], missing: list[tuple[str, int]], args: argparse.Namespace) -> int:
    """Make the missing runs and append their lines; names: (flags, seed) -> name. -> how many runs failed"""
    by_digest = {digest_of(*run): name for run, name in names.items()}
    return run_all(missing, args.folder, args.results, args.jobs, set(), shortened(by_digest))


def carry_out(design: Design, doc: str, argv: list[str] | None = None) -> int:
    """Carry out one stage of a design. -> exit code"""
    parser = Parser(doc)
    add = parser.add_argument
    add("stage", choices=("tune", "choose", "confirm", "table"))
    add_run_flags(parser, design.results, "headline")
    add("--most", type=COUNT, default=10**6, help="start no more runs than this")
    add("--chosen", type=Path, default=design.chosen, help="file of the chosen settings")
    add("--list", action="store_true", help="only count the stage's runs")
    args = parser.parse_args(argv)
    done = finished(args.results)
    chosen = json.loads(args.chosen.read_text()) if args.chosen.exists() else {}
    if args.stage == "choose":
        replace_text(args.chosen, json.dumps(design.choose(done), indent=1, ensure_ascii=False) + "\n")
        print(args.chosen.read_text(), end="")
        return 0
    if args.stage == "table":
        print(table_of_tuning(design.tuning(done), done))
        if chosen:
            print("\n" + table_of_verdicts(
                design.confirmation(chosen), design.compared(chosen), done, design.post_hoc))
        return 0
    if args.stage == "confirm" and not chosen:
        parser.error("choose the settings first.")
    if args.stage == "confirm" and chosen != design.choose(done):
        parser.error(f"{args.chosen} is not what the finished tuning chose; restore it.")
    failed, most = 0, args.most
    while not failed:  # the next round of the tuning begins when this one is complete
        each = design.confirmation(chosen) if args.stage == "confirm" else design.tuning(done)
        names, missing = wanted(each), missing_of(each, done)
        print(f"{len(names) - len(missing)} of {len(names)} runs are done.", flush=True)
        if args.list or not missing or most <= 0:
            break
        failed = make(names, missing[:most], args)
        done, most = finished(args.results), most - len(missing)
    return min(1, failed)


def main(argv: list[str] | None = None) -> int:
    return carry_out(Design(RESULTS, CHOSEN, tuning, choose, confirmation, compared, POST_HOC), __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
