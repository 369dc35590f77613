"""How far can the verifier be trusted on these data sets? Every gold answer, and plausible wrong answers beside it.

python experiments/verify_golds.py aime24.jsonl math500.jsonl … [--wrong 200]

Each gold stands in a sentence as a model would write it and must be judged right. The wrong answers are another row's
gold, the sign flipped, one more, and a hundred times as much (a unit changed in value); those that are accepted are
listed, for some are right after all.
"""

import argparse
import itertools
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distributed import UserError
from rollout import load_problems
from verifier import Verifier, canonical, extract_answer


def wrong_answers(golds: list[str], rng: random.Random):
    """Many (gold, wrong answer, how it was made), the four ways in turn."""
    kinds = itertools.cycle(("another row's", "sign flipped", "one more", "a hundred times"))
    for kind in itertools.islice(kinds, 100_000):  # a set may allow few
        gold = rng.choice(golds)
        if kind == "another row's":
            wrong = rng.choice(golds)
        elif kind == "sign flipped":
            wrong = gold[1:] if gold.startswith("-") else f"-{gold}"
        elif re.fullmatch(r"-?\d+", gold):
            wrong = str(int(gold) + 1 if kind == "one more" else int(gold) * 100)
        else:
            wrong = f"{gold}+1" if kind == "one more" else f"100\\cdot {gold}"
        # -0, 100 · 0, a list with a changed first entry only are left out: not plainly wrong
        plain = "," not in gold and canonical(gold).strip("-") != "0" and "=" not in gold
        if canonical(wrong) != canonical(gold) and (plain or kind == "another row's"):
            yield gold, wrong, kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="JSONL files or hub ids")
    parser.add_argument("--wrong", type=int, default=200, help="wrong answers to try on each set")
    args = parser.parse_args()
    with Verifier() as verifier:
        for source in args.data:
            try:
                golds = [p.answer for p in load_problems(source, None, 0, split="test", flag="data")]
            except UserError as error:
                sys.exit(f"verify_golds.py: error: {error}")
            texts = [
                f"Adding both sides, we find that the answer is $\\boxed{{{gold}}}$. I hope it is correct." for gold in golds
            ]
            rewards = verifier.score([extract_answer(text, "boxed") for text in texts], golds)
            cases = list(itertools.islice(wrong_answers(golds, random.Random(0)), args.wrong))
            accepted = verifier.score([wrong for _, wrong, _ in cases], [gold for gold, _, _ in cases])
            print(
                f"{source}: {sum(rewards):.0f} of {len(golds)} golds right, {sum(accepted):.0f} of {len(cases)} wrong accepted"
            )
            for gold, reward in zip(golds, rewards):
                if not reward:
                    print(f"  gold judged wrong: {gold}")
            for (gold, wrong, kind), reward in zip(cases, accepted):
                if reward:
                    print(f"  {kind}: {wrong} accepted for {gold}")
        print(f"{verifier.failures} comparisons ended by the deadline")


if __name__ == "__main__":
    main()
