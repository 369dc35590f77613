r"""Measure how long the verifier takes for a step's responses.

python benchmarks/verifier.py math_train.jsonl [--responses 1024] [--trees . ../before] [--method strict]

Each response is a sentence with an answer: the gold answer, or in every second row another row's gold. It is timed
twice: while the workers start, and on other rows with running workers. Then it times answers that all hang. --trees
times several checkouts in turn, each in its own process, three times, and prints the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


def measure(data: str, n: int, hanging: int, method: str) -> dict:
    """Seconds of one checkout, the one that PYTHONPATH names first."""
    from verifier import Verifier

    golds = [json.loads(line)["answer"] for line in Path(data).read_text().split("\n") if line.strip()]
    golds = (golds * (2 * n // len(golds) + 1))[: 2 * n]
    answers = [golds[i - i % 2] for i in range(len(golds))]  # rows 1, 3, … get the answer of the row before
    texts = [f"Adding both sides, we find that the answer is $\\boxed{{{answer}}}$." for answer in answers]
    found = {}
    with Verifier() if method == "strict" else Verifier(method=method) as verifier:
        for name, half in (("cold", slice(0, n)), ("warm", slice(n, None))):
            start = time.perf_counter()
            rewards = verifier.reward(texts[half], golds[half])
            found |= {name: time.perf_counter() - start, f"right, {name}": sum(rewards) / n}
        found |= {"given up": verifier.failures, "workers": verifier.n_workers}
        start = time.perf_counter()
        texts = [rf"\boxed{{{i}+\sum_{{k=1}}^{{1000}}\zeta(k+\sqrt{{2}})}}" for i in range(hanging)]
        verifier.reward(texts, ["42"] * hanging)
        found[f"{hanging} that hang"] = time.perf_counter() - start
    return found


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("data", help="JSONL file with the golds in `answer`")
    parser.add_argument("--responses", type=int, default=1024)
    parser.add_argument("--hanging", type=int, default=4)
    parser.add_argument("--method", default="strict")
    parser.add_argument("--trees", nargs="+", default=[str(ROOT)], help="checkouts; default this one")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps(measure(args.data, args.responses, args.hanging, args.method)))
        return
    runs = {tree: [] for tree in args.trees}
    for _ in range(REPEATS if len(args.trees) > 1 else 1):
        for tree in args.trees:
            command = [sys.executable, "-P", __file__, args.data, "--once", "--method", args.method,
                       "--responses", str(args.responses), "--hanging", str(args.hanging)]
            done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path(tree).resolve())},
                                  stdout=subprocess.PIPE, text=True, check=True)
            runs[tree].append(json.loads(done.stdout))
    for tree, found in runs.items():
        medians = {key: statistics.median(run[key] for run in found) for key in found[0]}
        print(f"{tree}:", ", ".join(f"{key} {median:.3g}" for key, median in medians.items()))


if __name__ == "__main__":
    main()
