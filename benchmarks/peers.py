"""Compare a whole training step (generate, score, fit critics, update) with TRL's: seconds by phase, memory.

    python benchmarks/peers.py                                                 # ours only: grpo, asyppo, ppo
    python benchmarks/peers.py --trl-python DIR/bin/python --trl-ppo-python DIR2/bin/python
    python benchmarks/peers.py --workloads proportions --clock cpu --threads 1   # on a shared machine
    python benchmarks/peers.py --before ../before                              # beside an older tree of ours

Every contender is a process with the same models, problems, group size, precision (fp32), threads, gradient
checkpointing, micro-batches and passes (one optimizer step a pass). All run in turn, --rounds times. A ratio
compares the median steps of one round; the table shows the median of the rounds and the extremes. The first
step of a process is a warm-up.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from workloads import LEARNING_RATE, WORKLOADS

# import nothing large here: on Linux a process starts with its parent's peak memory as its own
ROOT = Path(__file__).resolve().parent.parent
OURS, TRL = ("grpo", "asyppo", "ppo"), ("TRL GRPO", "TRL PPO")
PHASES = ("generate", "score", "critics", "update", "step")
# (workload, row, divided by, quantity, at most)
GOALS = (
    ("forced", "grpo", "TRL GRPO", "step", 1.0),
    ("forced", "asyppo", "TRL GRPO", "step", 1.2),
    ("realistic", "asyppo", "TRL GRPO", "step", 0.5),
    ("realistic", "asyppo", "TRL GRPO", "peak", 0.5),
    ("proportions", "asyppo", "ppo", "peak", 0.8),
    ("proportions", "asyppo", "ppo", "step", 1.0),
    ("proportions", "asyppo", "grpo", "step", 1.2),
)
# engine.metrics.Timer has the clock of the phases; before that file was made, train had it
CPU_CLOCK = """
import sys, time, types, train
clock = sys.modules.get("engine.metrics", train)
clock.time = types.SimpleNamespace(time=time.process_time, monotonic=time.monotonic)
sys.exit(train.main(sys.argv[1:]))"""
IMPORTED = """
import resource, torch, transformers
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"""


def run_process(command: list[str], environment: dict[str, str], log: Path) -> None:
    with log.open("w") as file:
        code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        sys.exit(f"{' '.join(command[:4])} … failed with exit code {code}:\n{log.read_text()[-3000:]}")


def steps_of_ours(
    algo: str, folder: Path, args: argparse.Namespace, environment: dict, seed: int
) -> list[dict]:
    work, out = WORKLOADS[folder.name], folder / "run"
    algo, _, older = algo.partition(" ")
    root = args.before.resolve() if older else ROOT
    shutil.rmtree(out, ignore_errors=True)
    program = [str(root / "train.py")] if args.clock == "wall" else ["-c", CPU_CLOCK]
    flags = {
        "algo": algo, "model": folder / "actor", "seed": seed, "dtype": "fp32", "out": out,
        "data": folder / "problems.jsonl", "n-problems": 0, "template": "{problem}", "extract": "last_number",
        "prompts-per-step": work.prompts, "group-size": work.group, "generate-batch": work.responses,
        "max-new-tokens": work.max_new,
        "token-budget": work.micro_batch * (work.prompt_len[1] + work.max_new),
        "epochs": args.epochs, "lr": LEARNING_RATE, "steps": args.steps + 1, "save-every": 0,
        "critic-epochs": args.epochs, "critic-lr": LEARNING_RATE
    }
    if algo == "asyppo":
        flags["critics"] = folder / "critic"
    command = [sys.executable, *program]
    command += [str(x) for flag, value in flags.items() for x in (f"--{flag}", value)]
    command.append(f"--{'' if args.gradient_checkpointing else 'no-'}gradient-checkpointing")
    environment = environment | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    run_process(command, environment, folder / "ours.log")
    rows = []
    for line in (out / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        rows.append(
            {
                "generate": metrics["time/generate"], "score": metrics["time/score"],
                "critics": metrics.get("time/fit_critics", 0.0) + metrics.get("time/values", 0.0),
                "update": metrics["time/policy"], "step": metrics["time/step"],
                "tokens": metrics["response_len_mean"] * work.responses, "peak": metrics["peak_memory_gb"]
            }
        )
    return rows


def steps_of_trl(
    name: str, python: str, folder: Path, args: argparse.Namespace, environment: dict, seed: int
) -> list[dict]:
    settings = dict(
        steps=args.steps + 1, epochs=args.epochs, learning_rate=LEARNING_RATE, seed=seed, clock=args.clock,
        gradient_checkpointing=args.gradient_checkpointing
    )
    (folder / "trl.jsonl").unlink(missing_ok=True)
    program = [python, str(ROOT / "benchmarks/trl_step.py")]
    command = [*program, name.split()[1].lower(), str(folder), json.dumps(settings)]
    run_process(command, environment, folder / "trl.log")
    rows = [json.loads(line) for line in (folder / "trl.jsonl").read_text().splitlines()]
    return [row | {"critics": 0.0, "tokens": sum(row["lengths"])} for row in rows]


def round_of(steps: list[dict]) -> dict[str, float]:
    """Return the medians of a process's steps after the first, and the process's peak memory in GiB."""
    timed = steps[1:]
    row = {phase: statistics.median(step[phase] for step in timed) for phase in PHASES}
    return row | {
        "rate": statistics.median(step["tokens"] / step["step"] for step in timed),
        "tokens": statistics.fmean(step["tokens"] for step in timed), "peak": steps[-1]["peak"]
    }


def ratios(rounds: dict[str, list[dict]], name: str, other: str, quantity: str) -> list[float]:
    return [mine[quantity] / theirs[quantity] for mine, theirs in zip(rounds[name], rounds[other])]


def print_phases(rounds: dict[str, list[dict]]) -> None:
    """Print each phase as a share of the older tree's time, with the extremes of the rounds."""
    for name in rounds:
        if f"{name} before" in rounds:
            for phase in PHASES:
                each = [x[phase] / y[phase] for x, y in zip(rounds[name], rounds[f"{name} before"]) if y[phase]]
                if each:
                    print(f"{name}, {phase} ÷ before: {statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})")


def print_table(workload: str, rounds: dict[str, list[dict]], imported: dict[str, float]) -> None:
    others = [name for name in ("grpo", "ppo", "TRL GRPO") if name in rounds]
    print(f"\n### {workload}\n")
    header = ["", *(f"{phase} s" for phase in PHASES), "tokens a step", "tokens/s"]
    header += ["peak GiB", "beyond imports", *(f"step ÷ {other}" for other in others)]
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for name, of_rounds in rounds.items():
        median = {key: statistics.median(row[key] for row in of_rounds) for key in of_rounds[0]}
        cells = [name, *(f"{median[phase]:.2f}" for phase in PHASES)]
        cells += [f"{median['tokens']:.0f}", f"{median['rate']:.0f}"]
        cells += [f"{median['peak']:.2f}", f"{median['peak'] - imported[name]:.2f}"]
        cells += [f"{statistics.median(ratios(rounds, name, other, 'step')):.2f}" for other in others]
        print(f"| {' | '.join(cells)} |")
    print()
    for where, name, other, quantity, limit in GOALS:
        if where == workload and name in rounds and other in rounds:
            each = ratios(rounds, name, other, quantity)
            median = statistics.median(each)
            if quantity == "peak":
                pair = [statistics.median(r["peak"] for r in rounds[x]) - imported[x] for x in (name, other)]
                detail = f"beyond imports {pair[0] / pair[1]:.2f}"
            else:  # sampled responses differ in length
                detail = f"time per token {statistics.median(ratios(rounds, other, name, 'rate')):.2f}"
            spread = f"rounds {min(each):.2f}–{max(each):.2f}"
            print(
                f"{quantity} of {name} ÷ {other}: {median:.2f} ({spread}; {detail}), "
                f"goal at most {limit}: {'reached' if median <= limit else 'missed'}"
            )
    sys.stdout.flush()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workloads", nargs="+", choices=tuple(WORKLOADS), default=list(WORKLOADS), help="default: all")
    add("--rows", nargs="+", choices=OURS + TRL, default=list(OURS + TRL), help="contenders; default: all")
    add("--before", type=Path, help="another tree of this repo, whose steps are timed in turn with this one's")
    add("--trl-python", help="python of an environment with benchmarks/requirements.txt; else no TRL GRPO")
    add("--trl-ppo-python", help="python of an environment with trl 1.12.0; else no TRL PPO")
    add("--rounds", type=int, default=3, help="processes of each contender")
    add("--steps", type=int, default=3, help="timed steps of a process, after one warm-up")
    add("--epochs", type=int, default=1, help="passes over a rollout, one optimizer step each")
    add("--threads", type=int, default=2, help="threads of each process")
    add(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="cpu: the CPU seconds of the process"
    )
    add("--gradient-checkpointing", action=argparse.BooleanOptionalAction, default=True)
    add("--json", type=Path, help="write all rounds to this file")
    return parser.parse_args()


def memory_of_imports(python: str, environment: dict[str, str]) -> float:
    command = [python, "-c", IMPORTED]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True).stdout)


def main() -> None:
    args = parse_args()
    pythons = {
        **dict.fromkeys(OURS, sys.executable), "TRL GRPO": args.trl_python, "TRL PPO": args.trl_ppo_python
    }
    names = [name for name in OURS + TRL if name in args.rows and pythons[name]]
    if args.before:
        names = [each for name in names for each in ((f"{name} before", name) if name in OURS else (name,))]
        pythons |= {f"{name} before": sys.executable for name in OURS}
    environment = os.environ | {
        "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"
    }
    imported = {name: memory_of_imports(pythons[name], environment) for name in names}
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for workload in args.workloads:
            folder = Path(temporary) / workload
            folder.mkdir()
            command = [sys.executable, str(ROOT / "benchmarks/workloads.py"), workload, str(folder)]
            run_process(command, environment, folder / "log")
            print((folder / "log").read_text().split("Writing")[0], end="")
            rounds: dict[str, list[dict]] = {name: [] for name in names}
            for seed in range(args.rounds):
                for name in names:
                    rest = (folder, args, environment, seed)
                    if name.split()[0] in OURS:
                        steps = steps_of_ours(name, *rest)
                    else:
                        steps = steps_of_trl(name, pythons[name], *rest)
                    last = round_of(steps)
                    rounds[name].append(last)
                    what = f"{last['step']:.2f} s, {last['peak']:.2f} GiB"
                    print(f"{workload}, round {seed}, {name}: {what}", file=sys.stderr, flush=True)
            print_table(workload, rounds, imported)
            print_phases(rounds)
            results[workload] = rounds
    if args.json:
        args.json.write_text(json.dumps({"imported": imported, "rounds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
