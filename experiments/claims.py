"""The paper's claims, each tested by runs of train.py: what is held against what, and the verdict.

    python experiments/claims.py --list                       # the claims, their runs, what is done, how long
    python experiments/claims.py                              # all of them, 8 seeds, on the cores at hand
    python experiments/claims.py --claim C4 C5 --seeds 4      # the runs that these claims need
    python experiments/claims.py --table                      # verdicts from results.jsonl; nothing is run
    python experiments/claims.py --claim C3 --critics DIR -- --model DIR --data FILE   # other models

A finished run is one line of experiments/results.jsonl, found again by the digest of its flags and seed. Kill
this program when you like: the next call resumes the runs that had begun, and starts none twice.

Seeds are paired: two runs of one seed see the same problems in the same order (but for other group sizes,
which need other numbers of problems). A difference is given with its 95 % interval over seeds (Student's t),
which says nothing of other models, problems or learning rates. The verdict on "A is better than B", δ being
the smallest difference that counts: *holds* if the whole interval is above 0 and its middle at least δ,
*contradicted* if it is below 0, *no gain* if it is below δ, else *undecided here*. "A is no worse than B"
holds if the interval is above −δ, and is contradicted if it is below 0 with a middle of −δ or less. Rows that
share a side share its runs, and of forty claims of a gain about one holds by chance. C13, time and memory, is
benchmarks/gpu.py's; C16, other models and tasks, is `--` with other flags.
"""

import argparse
import hashlib
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from distributed import replace_text
from folder import append_rows, jsonl, whole_rows

RESULTS = ROOT / "experiments/results.jsonl"

# the regime: the embedded default, evaluated more often; no checkpoint but the last
BASE = "--eval-every 3 --save-every 5"

NO_MASKS = "--mask-by none --filter-by none"
EXPLORE = "--entropy-coef 0.1"  # where the entropy bonus can take over (experiments/README.md)
VARIANTS = {
    "asyppo": "",
    "ppo": "--algo ppo",
    "grpo": "--algo grpo",
    "grpo, no deviation": "--algo grpo --no-group-std",
    "one mini-critic": f"--n-critics 1 {NO_MASKS}",
    "one mini-critic, half the steps": f"--n-critics 1 --critic-minibatch-size 32 {NO_MASKS}",  # as a shard's
    "a critic that learns nothing": f"--n-critics 1 --critic-lr 1e-12 {NO_MASKS}",
    "naive ensemble": f"--shard-by none {NO_MASKS}",
    "prompt shards": f"--shard-by prompt {NO_MASKS}",
    "group shards": NO_MASKS,
    "three critics": "--n-critics 3",
    "four critics": "--n-critics 4",
    "larger critics": "--critics tiny/actor",
    "a small and a larger critic": "--critics tiny/critic tiny/actor",
    "min": "--aggregate min",
    "crossfit": "--aggregate crossfit",
    "no mask": "--mask-by none",
    "mask σ 5 %": "--mask-fraction 0.05",
    "mask σ 40 %": "--mask-fraction 0.4",
    "mask entropy 5 %": "--mask-by entropy --mask-fraction 0.05",
    "mask entropy 20 %": "--mask-by entropy",
    "mask random 20 %": "--mask-by random",
    "β up, filter σ 20 %": EXPLORE,
    "β up, filter σ 40 %": f"{EXPLORE} --filter-fraction 0.4",
    "β up, filter entropy 20 %": f"{EXPLORE} --filter-by entropy",
    "β up, filter random 20 %": f"{EXPLORE} --filter-by random",
    "β up, no filter": f"{EXPLORE} --filter-by none",
    "G 4": "--prompts-per-step 64 --group-size 4",
    "G 8": "--prompts-per-step 32 --group-size 8",
    "G 32": "--prompts-per-step 8 --group-size 32",
    "1 pass": "--epochs 1",
    "8 passes": "--epochs 8",
    "1 pass, no mask": "--epochs 1 --mask-by none",
    "8 passes, no mask": "--epochs 8 --mask-by none",
    "critics 1 pass": "--critic-epochs 1",
    "critics last": "--critic-order last",
    "λ 0.95": "--lam 0.95",
    "ppo, λ 0.95, warm-up": "--algo ppo --lam 0.95 --critic-warmup 2",
    "warm-up": "--critic-warmup 2",
    "critic states": "--critic-states 0.3 0.6 0.9",
    "critic norm": "--critic-norm std",
    "gate": "--gate",
    "adaptive k": "--mask-fraction adaptive",
}
# whose critics are held against Monte-Carlo values (experiments/values.py) when they are done
MEASURED = ("group shards", "naive ensemble", "one mini-critic")
STATES = "--problems 48 --continuations 32"


@dataclass(frozen=True)
class Claim:
    """`a` is better (or no worse) than `b` in `score` by at least `delta`, which is in the score's units."""

    name: str
    sentence: str
    a: str
    b: str | None  # None: the score itself is held against 0
    score: str = "area"
    delta: float = 0.01
    no_worse: bool = False


CLAIMS = [
    Claim("C1", "one mini-critic guides a larger actor as well as a critic of its size", "one mini-critic",
          "ppo", no_worse=True),
    Claim("C1", "a critic is better than one that learns nothing", "one mini-critic",
          "a critic that learns nothing"),
    Claim("C2", "shards of groups raise the score of an ensemble", "group shards", "naive ensemble"),
    Claim("C2", "shards of groups raise σ", "group shards", "naive ensemble", "sigma", 0.001),
    Claim("C2", "an ensemble on the same data is hardly better than one critic", "one mini-critic",
          "naive ensemble", no_worse=True),
    Claim("C2", "shards of groups are better than shards of prompts", "group shards", "prompt shards"),
    Claim("C3", "AsyPPO is better than GRPO", "asyppo", "grpo"),
    Claim("C3", "AsyPPO is better than PPO", "asyppo", "ppo"),
    Claim("C4", "masking the lowest 20 % σ helps", "asyppo", "no mask"),
    Claim("C4", "it does with eight passes", "8 passes", "8 passes, no mask"),
    Claim("C4", "it does with a single pass", "1 pass", "1 pass, no mask"),
    Claim("C4", "masking as many at random costs nothing", "mask random 20 %", "no mask", no_worse=True),
    Claim("C5", "5 % by σ are better masked than 5 % by entropy", "mask σ 5 %", "mask entropy 5 %"),
    Claim("C5", "20 % by σ are better masked than 20 % by entropy", "asyppo", "mask entropy 20 %"),
    Claim("C5", "20 % by σ are better masked than 20 % at random", "asyppo", "mask random 20 %"),
    Claim("C6", "the fifth of the tokens with the lowest σ has less entropy than the average", "asyppo", None,
          "low_sigma", 0.1),
    Claim("C6", "that with the lowest entropy has no lower σ", "asyppo", None, "low_entropy", 0.1,
          no_worse=True),
    Claim("C7", "the σ filter helps where the entropy bonus is large", "β up, filter σ 20 %",
          "β up, no filter"),
    Claim("C7", "the σ filter is better than one by entropy", "β up, filter σ 20 %",
          "β up, filter entropy 20 %"),
    Claim("C7", "the σ filter is better than one at random", "β up, filter σ 20 %",
          "β up, filter random 20 %"),
    Claim("C7", "a σ filter of 40 % helps too", "β up, filter σ 40 %", "β up, no filter"),
    Claim("C8", "two critics with masks are better than one without", "asyppo", "one mini-critic"),
    Claim("C8", "two critics without masks are better than one", "group shards", "one mini-critic"),
    Claim("C8", "and than one that takes as many optimizer steps as each of them", "group shards",
          "one mini-critic, half the steps"),
    Claim("C8", "three add little", "asyppo", "three critics", no_worse=True),
    Claim("C8", "four add little", "asyppo", "four critics", no_worse=True),
    Claim("C9", "the mean is better than the minimum", "asyppo", "min"),
    Claim("C10", "groups of 32 are no worse than groups of 16", "G 32", "asyppo", no_worse=True),
    Claim("C10", "groups of 32 are better than groups of 8", "G 32", "G 8"),
    Claim("C10", "groups of 32 are better than groups of 4", "G 32", "G 4"),
    Claim("C11", "larger critics (pretrained otherwise, too) reach more", "larger critics", "asyppo", "end"),
    Claim("C12", "σ and the size of a token's gradient correlate", "asyppo", None, "sigma_gradient", 0.1),
    Claim("C14", "sharded critics together are nearer to Monte-Carlo values than one", "group shards",
          "one mini-critic", "truth", 0.02),
    Claim("C14", "and nearer than a naive ensemble", "group shards", "naive ensemble", "truth", 0.02),
    Claim("C15", "AsyPPO is better than PPO with λ 0.95 and a warm-up", "asyppo", "ppo, λ 0.95, warm-up"),
] + [
    Claim("ours", f"{a} is better than plain AsyPPO", a, "asyppo") for a in (
        "crossfit", "critics last", "warm-up", "critic states", "critic norm", "gate", "adaptive k", "λ 0.95",
        "mask σ 40 %", "1 pass", "8 passes", "critics 1 pass", "a small and a larger critic",
    )
] + [Claim("ours", "GRPO's deviation helps", "grpo", "grpo, no deviation")]


# -- scores of a run, verdicts over seeds --------------------------------------------------------------------
def mean_of(row: dict, key: str) -> float:
    values = [value for _, value in row["curves"].get(key, [])]
    return statistics.fmean(values) if values else math.nan


def area(row: dict) -> float:
    """Mean held-out accuracy over the run: the area under its curve, trapezoids, over the steps. Rollouts of
    --critic-warmup leave the actor as it is and count as none."""
    words = row.get("flags", "").split()
    warm = int(words[words.index("--critic-warmup") + 1]) if "--critic-warmup" in words else 0
    points = [(max(0, step - warm), accuracy) for step, accuracy in row["curves"]["accuracy"]]
    pieces = ((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in zip(points, points[1:]))
    return sum(pieces) / (points[-1][0] - points[0][0])


def end(row: dict) -> float:
    """Held-out accuracy after the last step."""
    return row["curves"]["accuracy"][-1][1]


def truth(row: dict) -> float:
    """How near the critics' mean is to the Monte-Carlo values: minus the root of its mean squared error."""
    return -math.sqrt(max(0.0, row["values"]["their mean"][0])) if "values" in row else math.nan


def lowest_fifth(row: dict, pair: str) -> float:
    """How far below the average token the lowest fifth by one thing is in the other, a share; see tenths."""
    return 1 - statistics.fmean(row["tenths"][pair][:2]) if row.get("tenths") else math.nan


SCORES = {
    "area": area,
    "end": end,
    "sigma": lambda row: mean_of(row, "value_std_p50"),
    "low_sigma": lambda row: lowest_fifth(row, "entropy by sigma"),
    "low_entropy": lambda row: -lowest_fifth(row, "sigma by entropy"),
    "sigma_gradient": lambda row: mean_of(row, "value_std_gradient_corr"),
    "truth": truth,
}
# 97.5 % points of Student's t by degrees of freedom; beyond, the last is a little too large
T = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)


def interval(differences: list[float]) -> tuple[float, float, float]:
    """-> mean of the paired differences, and the ends of its 95 % interval; no width for a single seed"""
    n, middle = len(differences), statistics.fmean(differences)
    if n < 2:
        return middle, -math.inf, math.inf
    half = T[min(n, len(T)) - 1] * statistics.stdev(differences) / math.sqrt(n)
    return middle, middle - half, middle + half


def verdict(claim: Claim, differences: list[float]) -> str:
    """As this file's docstring says it; for what is undecided, the seeds with which the interval would be δ/2
    wide to each side."""
    middle, low, high = interval(differences)
    delta = claim.delta
    if len(differences) < 2:
        return "undecided here (one seed)"
    if not any(differences):
        return "undecided here (A and B were the same runs)"
    if low > -delta if claim.no_worse else low > 0 and middle >= delta:
        return "holds"
    if high < 0 and (middle <= -delta or not claim.no_worse):
        return "contradicted"
    if high < delta and not claim.no_worse:
        return "no gain"
    seeds = max(len(differences) + 1, math.ceil((2 * 2 * statistics.stdev(differences) / delta) ** 2))
    return f"undecided here (about {seeds} seeds for ± δ/2)"


def differences(claim: Claim, rows: dict, score: str | None = None) -> list[float]:
    """Score of a − score of b for each seed of which both have it; score: another than the claim's."""
    score, (a, b) = SCORES[score or claim.score], (rows.get(name, {}) for name in (claim.a, claim.b))
    seeds = sorted(a if claim.b is None else a.keys() & b.keys())
    each = (score(a[seed]) - (0 if claim.b is None else score(b[seed])) for seed in seeds)
    return [difference for difference in each if math.isfinite(difference)]


def written(each: list[float]) -> str:
    middle, low, high = interval(each)
    text = f"{middle:+.3f} ({low:+.3f} … {high:+.3f})" if len(each) > 1 else f"{middle:+.3f}"
    return text.replace("-", "−")


def table(rows: dict, claims: list[Claim]) -> str:
    """Markdown; rows: variant -> seed -> the run's line. The end is there to be seen: verdicts are by the
    claim's score."""
    head = ("", "claim", "A", "B", "score, δ", "A − B (95 %)", "at the end", "seeds", "verdict")
    lines = [head, ["---"] * len(head)]
    for claim in claims:
        each = differences(claim, rows)
        if each:
            at_end = written(differences(claim, rows, "end")) if claim.score == "area" else ""
            lines.append((claim.name, claim.sentence, claim.a, claim.b or "0",
                          f"{claim.score}, {claim.delta:g}", written(each), at_end, len(each),
                          verdict(claim, each)))
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def flags_of(name: str, more: list[str] = (), critics: str | None = None) -> str:
    """more: of all runs; critics: of those with mini-critics. Critics of the embedded default that were
    fitted before know something, so the one that learns nothing stays as it is."""
    words = VARIANTS[name].split()
    embedded = "--model" not in {word.split("=")[0] for word in more}
    own = "--algo" in words or embedded and "--critic-lr" in words
    mini = shlex.join(["--critics", critics]) if critics and not own else ""
    return " ".join(filter(None, (BASE, VARIANTS[name], mini, shlex.join(more))))


def rows_by_variant(done: dict[str, dict], more: list[str] = (), critics: str | None = None) -> dict:
    """digest -> line of results, as variant -> seed -> line, without those that have other flags."""
    return {
        name: {row["seed"]: row for row in done.values() if row["flags"] == flags_of(name, more, critics)}
        for name in VARIANTS
    }


# -- runs ----------------------------------------------------------------------------------------------------
KEPT = (
    "reward_mean", "entropy", "clip_frac_last", "value_std_p50", "value_std_entropy_corr",
    "value_std_gradient_corr", "ensemble/explained_variance",
    *(f"critic{m}/explained_variance{which}" for m in range(4) for which in ("", "_heldout")),
)


def digest_of(flags: str, seed: int) -> str:
    return hashlib.sha256(f"{flags} --seed {seed}".encode()).hexdigest()[:12]


def finished(results: Path) -> dict[str, dict]:
    """digest -> line"""
    return {row["digest"]: row for row in whole_rows(results)}


def tenths(run: Path) -> dict[str, list[float]]:
    """How one thing goes with another: the run's saved tokens in tenths by x, the mean of y in each over y's
    mean, averaged over the saved steps; σ, entropy, and |Ā| · ‖∂ log π/∂z‖, the size of the gradient."""
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted(run.glob("inside/step-*.npz")):
        with np.load(path) as saved:
            if len(saved.get("values_MBT", ())) < 2:
                return {}
            inside_BT = saved["mask_BT"]
            every = dict(sigma=saved["values_MBT"].std(0), entropy=saved["old_entropy_BT"],
                         gradient=abs(saved["advantage"]) * saved["old_slope_BT"])
        every = {name: x_BT[inside_BT].astype(float) for name, x_BT in every.items()}
        for x, y in (("sigma", "entropy"), ("sigma", "gradient"), ("entropy", "sigma")):
            parts = np.array_split(every[y][every[x].argsort(kind="stable")], 10)
            means = np.array([part.mean() for part in parts])
            if means.any() and np.isfinite(means).all():
                found.setdefault(f"{y} by {x}", []).append(means / every[y].mean())
    return {name: [float(f"{x:.3g}") for x in np.mean(each, axis=0)] for name, each in found.items()}


def line_of(folder: Path, flags: str, seed: int) -> dict:
    """What is kept of a finished run: its settings, and curves as [step, value] to four digits."""
    metrics = whole_rows(folder / "metrics.jsonl")
    config = json.loads((folder / "config.json").read_text())
    curves = {key: [[m["step"], float(f"{m[key]:.4g}")] for m in metrics if key in m] for key in KEPT}
    curves["accuracy"] = [[m["step"], m[k]] for m in metrics for k in m if k.startswith("eval/")]
    values = folder / "values.json"
    measured = {"values": json.loads(values.read_text())} if values.exists() else {}
    return measured | {
        "digest": digest_of(flags, seed), "flags": flags, "seed": seed, "commit": config["git_commit"],
        "seconds": round(sum(m.get("time/step", 0) for m in metrics), 1),
        "peak_memory_gb": round(max(m.get("peak_memory_gb", 0) for m in metrics), 3),
        "curves": {key: curve for key, curve in curves.items() if curve}, "tenths": tenths(folder),
    }


def run(flags: str, seed: int, folder: Path, measured: bool) -> dict:
    """A whole run of train.py in `folder`, or what was left of it; errors: the run's own, with its log."""
    out, log = folder / "run", folder / "log.txt"
    config = out / "config.json"
    again = ["--resume"] if config.exists() and config.stat().st_size else []
    commands = [["train.py", "--out", out, "--seed", str(seed), *again, *shlex.split(flags)]]
    if measured:
        commands += [["experiments/values.py", out, *STATES.split(), "--json", out / "values.json"]]
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        with log.open("a") as file:
            how = dict(cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
            code = subprocess.run([sys.executable, *command], **how).returncode
        if code:
            what = f"{command[0]} of {flags} --seed {seed}"
            raise RuntimeError(f"{what} ended with {code}; it says why in {log}")
    return line_of(out, flags, seed)


def run_all(missing: list[tuple[str, int]], folder: Path, results: Path, jobs: int,
            measured: set[str]) -> int:
    """Run what is missing, `jobs` at a time, a line of results each; measured: flags of those to be held
    against Monte-Carlo values. -> how many failed"""
    lock, failed = threading.Lock(), 0
    replace_text(results, jsonl(whole_rows(results)))  # no new line behind one that a kill has cut

    def one(flags: str, seed: int) -> None:
        row = run(flags, seed, folder / digest_of(flags, seed), flags in measured)
        with lock:
            append_rows(results, [row])

    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(missing), unit="run", smoothing=0) as bar:
        runs = [pool.submit(one, *each) for each in missing]
        for each in runs:
            each.add_done_callback(lambda _: bar.update())
        try:
            for each in runs:
                try:
                    each.result()
                except RuntimeError as error:
                    failed += 1
                    tqdm.write(str(error))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the runs have got the signal too, and save
            raise
    return failed


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--claim", nargs="+", choices=sorted({claim.name for claim in CLAIMS}), help="only these; default: all")
    add("--seeds", type=int, default=8, help="seeds 0 … N − 1 of every variant")
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs side by side, one thread each")
    add("--list", action="store_true", help="print claims and runs, and how long what is missing would take")
    add("--table", action="store_true", help="print the verdicts from the results, as markdown")
    add("--results", type=Path, default=RESULTS, help="one line for each finished run")
    add("--folder", type=lambda path: Path(path).resolve(), default=ROOT / "runs/claims", help="where the runs themselves lie")
    add("--critics", help="mini-critic of another --model, for the runs that have some")
    add("flags", nargs="*", help="behind --: flags of train.py for all runs")
    args = parser.parse_args(argv)
    if "--critics" in args.flags:
        parser.error("name --critics before the --, for not all runs have mini-critics")

    # what a variant sets must not be set otherwise, or it would be another one's twin
    given = {word.split("=")[0] for word in args.flags if word.startswith("--")}
    given |= {"--critics"} if args.critics else set()
    lost = {name for name, flags in VARIANTS.items() if given.intersection(shlex.split(flags))}
    claims = [claim for claim in CLAIMS if not args.claim or claim.name in args.claim]
    claims = [claim for claim in claims if not {claim.a, claim.b} & lost]
    names = dict.fromkeys(name for claim in claims for name in (claim.a, claim.b) if name)
    done = finished(args.results)
    flags = {name: flags_of(name, args.flags, args.critics) for name in names}
    wanted = [(flags[name], seed) for seed in range(args.seeds) for name in names]
    missing = [each for each in wanted if digest_of(*each) not in done]
    if args.table:
        print(table(rows_by_variant(done, args.flags, args.critics), claims))
    elif args.list:
        for claim in claims:
            versus = f"{claim.a} | {claim.b}" if claim.b else claim.a
            print(f"{claim.name:<5} {claim.sentence}: {versus}; {claim.score}, δ {claim.delta:g}")
        seconds = statistics.median([row["seconds"] for row in done.values()] or [200.0])
        hours = len(missing) * seconds / args.jobs / 3600
        print(f"{len(names)} variants × {args.seeds} seeds: {len(wanted) - len(missing)} runs done, "
              f"{len(missing)} to do, about {hours:.1f} hours with --jobs {args.jobs}")
    else:
        measured = {flags[name] for name in MEASURED if name in flags}
        failed = run_all(missing, args.folder, args.results, args.jobs, measured)
        print(f"{len(missing) - failed} runs finished, {failed} failed; {args.results}. "
              "Next: python experiments/claims.py --table")
        return min(failed, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
