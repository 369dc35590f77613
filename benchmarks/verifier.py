"""How long does the verifier take for a step's responses?

python benchmarks/verifier.py math_train.jsonl [--responses 1024]

Each response is a gold answer in a sentence, for every second one another row's gold. Timed twice: with
workers that have yet to start, and, on other rows, with workers that wait. Then answers that all hang.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distributed import UserError
from rollout import load_problems
from verifier import Verifier


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="JSONL file or hub id")
    parser.add_argument("--responses", type=int, default=1024)
    parser.add_argument("--hanging", type=int, default=4)
    args = parser.parse_args()
    try:
        golds = [problem.answer for problem in load_problems(args.data, 2 * args.responses, 0, flag="data")]
    except UserError as error:
        sys.exit(f"verifier.py: error: {error}")
    answers = [golds[i - i % 2] for i in range(len(golds))]  # rows 1, 3, … get the answer of the row before
    texts = [f"Adding both sides, we find that the answer is $\\boxed{{{answer}}}$." for answer in answers]
    seconds, right = [], []
    with Verifier() as verifier:
        for half in (slice(0, args.responses), slice(args.responses, None)):
            start = time.perf_counter()
            rewards = verifier.reward(texts[half], golds[half])
            seconds.append(time.perf_counter() - start)
            right.append(sum(rewards) / len(rewards))
        print(
            f"{args.data}: {args.responses} responses in {seconds[0]:.1f} s cold, {seconds[1]:.1f} s warm, "
            f"on {verifier.n_workers} workers; {right[0]:.1%} and {right[1]:.1%} judged right, "
            f"{verifier.failures} comparisons given up"
        )
        hanging = [rf"\boxed{{9^{{9^{{9^{{{i + 9}}}}}}}}}" for i in range(args.hanging)]
        start = time.perf_counter()
        verifier.reward(hanging, ["42"] * len(hanging))
        took = time.perf_counter() - start
        print(f"{len(hanging)} answers that hang: {took:.1f} s at a deadline of {verifier.deadline} s")


if __name__ == "__main__":
    main()
