"""Compare the metrics of seeded runs in two trees: did a change of the code change a number?

    git worktree add --detach ../before COMMIT
    python benchmarks/same_numbers.py ../before . [--only asyppo grpo]

It runs the embedded default in both trees, one after the other, and prints the largest difference of each
run's metrics, clocks and memory left out. Differences are relative to the metric, or absolute below 1. A tree
keeps its runs in runs/same_numbers, so the older tree runs only once.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

BASE = ["--steps", "3", "--seed", "0", "--eval-every", "0"]
# name -> processes, flags
RUNS = {
    "asyppo": (0, []),
    "ppo": (0, ["--algo", "ppo", "--prompts-per-step", "8"]),
    "grpo": (0, ["--algo", "grpo"]),
    "minibatches": (0, ["--minibatch-size", "64"]),
    "critics last": (0, ["--critic-order", "last", "--critic-lam", "0.9", "--lam", "0.95"]),
    "by token": (0, "--loss-norm token --mask-by entropy --filter-by random --aggregate min".split()),
    "two processes": (2, []),
    "bf16": (0, ["--dtype", "bf16"]),
    "bf16, two processes": (2, "--dtype bf16 --minibatch-size 128 --offload moments".split()),
}
CLOCKS = re.compile("time/|memory|per_s")


def metrics_of(tree: Path, name: str) -> list[dict[str, float]]:
    """Return the rows of the run's metrics.jsonl, from an earlier call or a new run."""
    processes, flags = RUNS[name]
    out = tree / "runs/same_numbers" / name.replace(" ", "-")
    if not (out / "model").exists():
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "train.py", *BASE, *flags, "--out", str(out.resolve())]
        if processes:
            torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            command[1:1] = torchrun
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, env=one_thread)
        if done.returncode:
            sys.exit(f"{tree}, {name}: {done.stderr}")
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    print("| run | numbers | equal to the last bit | largest difference | where |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for name in args.only:
        before, after = (numbers(metrics_of(tree, name)) for tree in (args.before, args.after))
        shared, odd = before.keys() & after.keys(), sorted({key for _, key in before.keys() ^ after.keys()})
        apart = {at: abs(before[at] - after[at]) / max(1, abs(before[at])) for at in shared}
        (step, key), worst = max(apart.items(), key=lambda item: item[1])
        equal = sum(x == 0 for x in apart.values())
        where = (f"{key}, step {step}" if worst else "") + (f"; in one only: {', '.join(odd)}" if odd else "")
        print(f"| {name} | {len(apart)} | {equal} | {worst:.1e} | {where} |", flush=True)


def numbers(rows: list[dict]) -> dict[tuple[int, str], float]:
    """-> (step, key) -> value, without clocks and memory"""
    return {(row["step"], key): x for row in rows for key, x in row.items() if not CLOCKS.search(key)}


if __name__ == "__main__":
    main()
