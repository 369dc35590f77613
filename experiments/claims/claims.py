"""The paper's claims, each tested by paired runs of train.py: makes the runs, prints the verdicts.

    python experiments/claims/claims.py --list         # the claims, their runs, what is done, how long
    python experiments/claims/claims.py                # all runs of the default regime, 8 seeds
    python experiments/claims/claims.py --regime knowing --claim C4 C5 --seeds 4    # the runs of two claims
    python experiments/claims/claims.py --table        # verdicts from the committed results; runs nothing
    python experiments/claims/claims.py --headlines    # the first table of experiments/README.md
    python experiments/claims/claims.py --claim C3 --results FILE -- --lam 0.8      # with flags of train.py

comparisons.py defines variants, regimes and claims. A finished run is one line of REGIME.jsonl, found again
by the digest of its flags and seed. You may kill this program: the next call resumes the runs that had begun
and starts none twice.

Seeds are paired: two runs of one seed see the same problems in the same order, unless their group sizes
differ. A difference comes with its 95 % interval over seeds (Student's t, student.py). Verdicts on "A is
better than B", with δ the smallest difference that counts:

    holds          the whole interval is above 0, its middle is at least δ
    contradicted   the whole interval is below 0, its middle is −δ or less
    no gain        the whole interval is below δ
    undecided      everything else, and comparisons in which half of the pairs or more are equal

"A is no worse than B" holds if the interval is above −δ; it is contradicted by the same rule. `p` is
two-sided against 0. `q` is Benjamini and Hochberg's, over all planned comparisons of all regimes. C13 (time
and memory) is measured in benchmarks/; C16 (other models and tasks) is the regimes smollm2 and long.
"""

import argparse
import hashlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.files import append_rows, jsonl, replace_text, whole_rows
from experiments.claims.comparisons import BASE, CLAIMS, POST_HOC, REGIMES, VARIANTS
from experiments.claims.verdicts import (
    corrected, differences, headlines, interval, multiplicity, p_of, pooled, table, written)

# variants whose critics are compared with Monte-Carlo values (experiments/values) when a run is done
MEASURED = ("two critics, shards of groups", "two critics, same data", "one mini-critic")
STATES = "--problems 48 --continuations 32"
# variants whose scores scatter more than the others', so that they are not pooled
UNLIKE = ("larger critics", "a small and a larger critic", "1 pass of the critics", "gate")


# -- flags and results ---------------------------------------------------------------------------------------
def flags_of(name: str, more: list[str] = (), critics: str | None = None) -> str:
    """Return the flags of a variant's runs; more: flags of all runs; critics: of runs with mini-critics.

    Embedded critics that were fitted before know something, so "a critic that learns nothing" does not get
    them.
    """
    words = VARIANTS[name].split()
    embedded = "--model" not in {word.split("=")[0] for word in more}
    own = "--algo" in words or embedded and "--critic-lr" in words
    mini = shlex.join(["--critics", critics]) if critics and not own else ""
    return " ".join(filter(None, (BASE, VARIANTS[name], mini, shlex.join(more))))


def digest_of(flags: str, seed: int) -> str:
    return hashlib.sha256(f"{flags} --seed {seed}".encode()).hexdigest()[:12]


def finished(results: Path) -> dict[str, dict]:
    """Return the lines of a results file by digest."""
    return {row["digest"]: row for row in whole_rows(results)}


def rows_by_variant(done: dict[str, dict], more: list[str] = (), critics: str | None = None) -> dict:
    """Return the lines whose flags are these: variant -> seed -> line."""
    return {
        name: {row["seed"]: row for row in done.values() if row["flags"] == flags_of(name, more, critics)}
        for name in VARIANTS
    }


def regime_rows(name: str) -> dict:
    """Return a regime's committed runs: variant -> seed -> line."""
    regime = REGIMES[name]
    return rows_by_variant(finished(regime.results(name)), shlex.split(regime.flags), regime.critics)


# -- runs ----------------------------------------------------------------------------------------------------
KEPT = (
    "reward_mean", "entropy", "clip_frac_last", "value_std_p50", "value_std_entropy_corr",
    "value_std_gradient_corr", "ensemble/explained_variance",
    *(f"critic{m}/explained_variance{which}" for m in range(4) for which in ("", "_heldout")),
)


def tenths(run: Path) -> dict[str, list[float]]:
    """Return how one quantity of a token changes with another: "y by x" -> ten numbers.

    The saved response tokens are sorted by x and cut into tenths. Each number is the mean of y in a tenth
    over the mean of y, averaged over the saved steps. Quantities: σ, entropy, and the size of the gradient,
    |Ā| · ‖∂ log π/∂z‖. Empty for fewer than two critics.
    """
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
    """Return what is kept of a finished run: its settings, and curves as [step, value] to four digits."""
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
    """Run train.py in `folder`, or resume it there. Raises RuntimeError with the log's path if it fails."""
    out, log = folder / "run", folder / "log.txt"
    config = out / "config.json"
    again = ["--resume"] if config.exists() and config.stat().st_size else []
    commands = [["train.py", "--out", out, "--seed", str(seed), *again, *shlex.split(flags)]]
    if measured:
        commands += [["experiments/values/values.py", out, *STATES.split(), "--json", out / "values.json"]]
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        with log.open("a") as file:
            how = dict(cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
            code = subprocess.run([sys.executable, *command], **how).returncode
        if code:
            what = f"{command[0]} of {flags} --seed {seed}"
            raise RuntimeError(f"{what} ended with {code}; see {log}")
    return line_of(out, flags, seed)


def run_all(missing: list[tuple[str, int]], folder: Path, results: Path, jobs: int,
            measured: set[str], shortened: Callable[[dict], dict] = lambda row: row) -> int:
    """Run the missing (flags, seed), `jobs` at a time, and append a line of results for each.

    measured: flags of the runs whose critics are compared with Monte-Carlo values. shortened: what is kept of a
    line. -> how many runs failed
    """
    lock, failed = threading.Lock(), 0
    replace_text(results, jsonl(whole_rows(results)))  # drop a line that a kill has cut

    def one(flags: str, seed: int) -> None:
        row = run(flags, seed, folder / digest_of(flags, seed), flags in measured)
        with lock:
            append_rows(results, [shortened(row)])

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
            pool.shutdown(cancel_futures=True)  # the runs received the signal too and save
            raise
    return failed


def tables(names: list[str]) -> str:
    """Return the verdicts of these regimes from their committed runs."""
    regimes = {name: regime_rows(name) for name in REGIMES}
    found, texts = corrected(regimes), []
    for name in names:
        planned = {claim: q for (regime, claim), (_, _, q) in found.items() if regime == name}
        texts.append(f"{name}\n\n{table(regimes[name], list(planned), planned)}")
        if after := table(regimes[name], POST_HOC if not REGIMES[name].claims else []).split("\n")[2:]:
            texts[-1] += "\n" + "\n".join(after)
        if name == "default":
            half, n, df = pooled(regimes[name], UNLIKE)
            texts[-1] += f"\n\nPooled over {n} variants ({df} degrees of freedom): ± {half:.4f} for `area`."
        if name == "knowing":  # 24 seeds were added to see whether the first 24 stand
            first = next(claim for claim in planned if claim.name == "C1")
            rows = {variant: {seed: row for seed, row in each.items() if seed >= 24}
                    for variant, each in regimes[name].items()}
            fresh = differences(first, rows)
            texts[-1] += f"\n\n{first.a} − {first.b}, seeds 24 to 47: {written(*interval(fresh))}, p {p_of(fresh):.2g}."
    return "\n\n".join([*texts, multiplicity(regimes)])


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--regime", choices=REGIMES, help="default: the embedded default; with --table: all")
    names = sorted({claim.name for claim in CLAIMS})
    add("--claim", nargs="+", choices=names, help="only these; default: all")
    add("--seeds", type=int, default=8, help="seeds 0 … N − 1 of every variant")
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs side by side, one thread each")
    add("--list", action="store_true", help="print claims and runs, and how long what is missing would take")
    add("--table", action="store_true", help="print the verdicts as markdown")
    add("--headlines", action="store_true", help="print the table at the top of experiments/README.md")
    add("--results", type=Path, help="one line for each finished run; default: the regime's file")
    add("--folder", type=lambda path: Path(path).resolve(), default=ROOT / "runs/claims",
        help="folder of the runs themselves")
    add("--critics", help="mini-critic of the runs that have some; default: the regime's")
    add("flags", nargs="*", help="behind --: more flags of train.py for all runs")
    args = parser.parse_args(argv)
    if "--critics" in args.flags:
        parser.error("give --critics before the --: not all runs have mini-critics")
    if args.headlines:
        print(headlines({name: regime_rows(name) for name in REGIMES}))
        return 0
    if args.table and not (args.results or args.flags or args.critics or args.claim):
        print(tables([args.regime] if args.regime else list(REGIMES)))
        return 0

    name = args.regime or "default"
    results, critics = args.results or REGIMES[name].results(name), args.critics or REGIMES[name].critics
    more = [*shlex.split(REGIMES[name].flags), *args.flags]
    # a variant whose flags are set for all runs would be the same as another one: leave its claims out
    given = {word.split("=")[0] for word in more if word.startswith("--")}
    given |= {"--critics"} if critics else set()
    lost = {variant for variant, flags in VARIANTS.items() if given.intersection(shlex.split(flags))}
    claims = [claim for claim in CLAIMS if not args.claim or claim.name in args.claim]
    claims = [claim for claim in claims if not {claim.a, claim.b} & lost]
    variants = dict.fromkeys(variant for claim in claims for variant in (claim.a, claim.b) if variant)
    done = finished(results)
    flags = {variant: flags_of(variant, more, critics) for variant in variants}
    wanted = [(flags[variant], seed) for seed in range(args.seeds) for variant in variants]
    missing = [each for each in wanted if digest_of(*each) not in done]
    if args.table:
        print(table(rows_by_variant(done, more, critics), claims))
    elif args.list:
        for claim in claims:
            versus = f"{claim.a} | {claim.b}" if claim.b else claim.a
            print(f"{claim.name:<5} {claim.sentence}: {versus}; {claim.score}, δ {claim.delta:g}")
        seconds = statistics.median([row["seconds"] for row in done.values()] or [200.0])
        hours = len(missing) * seconds / args.jobs / 3600
        print(f"{len(variants)} variants × {args.seeds} seeds: {len(wanted) - len(missing)} runs done, "
              f"{len(missing)} to do, about {hours:.1f} hours with --jobs {args.jobs}")
    else:
        measured = {flags[variant] for variant in MEASURED if variant in flags}
        failed = run_all(missing, args.folder, results, args.jobs, measured)
        print(f"{len(missing) - failed} runs finished, {failed} failed; {results}. "
              "Next: python experiments/claims/claims.py --table")
        return min(failed, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
