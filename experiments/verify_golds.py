"""How far can the verifier be trusted on these data sets? Every gold, and plausible wrong answers beside it.

python experiments/verify_golds.py aime24.jsonl math500.jsonl … [--near 3]

Each gold stands in a sentence as a model would write it and must be judged right. Wrong answers are the
next row's gold and near-misses of the gold's type: another digit, the sign flipped, the order changed, an end
of an interval opened or closed, one member dropped, Yes for No. Refused golds and accepted wrong answers are
listed: some of the latter are right after all.
"""

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distributed import UserError
from rollout import load_problems
from verifier import Verifier, canonical, is_words, per_member

OPPOSITES = {"yes": "No", "no": "Yes", "true": "False", "false": "True", "even": "odd", "odd": "even"}


def changed_digit(gold: str, rng: random.Random) -> str | None:
    digits = [match.start() for match in re.finditer(r"\d", gold)]
    if not digits:
        return None
    i = rng.choice(digits)
    return gold[:i] + str((int(gold[i]) + rng.randint(1, 8)) % 9 + 1) + gold[i + 1 :]


def members(gold: str) -> tuple[str, list[str], str]:
    """Opening, members and closing of a list, tuple, set or interval."""
    inside = re.fullmatch(
        r"(\s*(?:\\left)?(?:\\\{|[(\[]))(.*?)((?:\\right)?(?:\\\}|[)\]])\s*)", gold, re.DOTALL
    )
    opening, content, closing = inside.groups() if inside else ("", gold, "")
    found = []
    per_member(content, lambda member: found.append(member) or member, brackets=())
    whole = "=" in content or re.search(r"\d,\s*\\?!?\d{3}(?!\d)", content) or ",".join(found) != content
    return opening, [] if whole else found, closing


def near_misses(gold: str, rng: random.Random) -> list[tuple[str, str]]:
    """(kind, wrong answer) for the gold's type, in random order."""
    opening, parts, closing = members(gold)
    if is_words(gold) or len(gold.strip("$ ")) == 1 and gold.isalpha():
        word = gold.strip("$ ").lower()
        candidates = [
            ("opposite", OPPOSITES.get(word)),
            ("not", f"not {gold}"),
            ("both", f"{gold} or {gold}n't"),
        ]
        if len(gold) > 3:
            candidates.append(("letters swapped", gold[:1] + gold[2] + gold[1] + gold[3:]))
    else:
        candidates = [
            ("digit", changed_digit(gold, rng)),
            ("digit", changed_digit(gold, rng)),
            ("one more", f"{gold}+1"),
            ("word behind", rf"{gold}\text{{ squared}}"),
            ("sign", re.sub(r"^\s*-\s*", "", gold) if gold.lstrip().startswith("-") else f"-{gold}"),
        ]
    if len(parts) > 1:
        candidates = candidates[:2] + [
            ("member dropped", opening + ",".join(parts[1:]) + closing),
            ("member twice", opening + ",".join([*parts[:-1], parts[0]]) + closing),
        ]
        if opening:
            candidates.append(("order", opening + ",".join([*parts[1:], parts[0]]) + closing))
    if re.search(r"[)\]]\s*$", gold) and opening.strip()[-1:] in ("(", "[") and len(parts) == 2:
        candidates.append(("end", gold.rstrip()[:-1] + {")": "]", "]": ")"}[gold.rstrip()[-1]]))
    if "=" in gold:
        candidates = [
            ("digit", changed_digit(gold, rng)),
            ("one more", f"{gold}+1"),
            ("left side", gold.split("=")[0]),
        ]
    if re.search(r"<|>|\\[lg]eq?(?![a-z])", gold) and len(gold) < 60:
        candidates.append(("flipped", gold.translate(str.maketrans("<>", "><"))))
    rng.shuffle(candidates)
    zero = canonical(gold).strip("-") == "0"  # -0 is 0
    return [
        (kind, wrong)
        for kind, wrong in dict.fromkeys(candidates)
        if wrong and canonical(wrong) != canonical(gold) and not (zero and kind == "sign")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", help="JSONL files or hub ids")
    parser.add_argument("--near", type=int, default=3, help="near-misses of each gold")
    args = parser.parse_args()
    with Verifier() as verifier:
        for source in args.data:
            try:
                golds = [p.answer for p in load_problems(source, None, 0, split="test", flag="data")]
            except UserError as error:
                sys.exit(f"verify_golds.py: error: {error}")
            sentence = "Adding both sides, we find that the answer is $\\boxed{{{}}}$. I hope it is correct."
            rewards = verifier.reward([sentence.format(gold) for gold in golds], golds)
            print(f"{source}: {sum(rewards):.0f} of {len(golds)} golds right for themselves", flush=True)
            for gold in sorted({gold for gold, reward in zip(golds, rewards) if not reward}):
                print(f"  refused: {gold}")
            rng = random.Random(0)
            cases = [(gold, "next row", other) for gold, other in zip(golds, golds[1:] + golds[:1])]
            cases = [case for case in cases if canonical(case[0]) != canonical(case[2])]
            cases += [(gold, *miss) for gold in golds for miss in near_misses(gold, rng)[: args.near]]
            rewards = verifier.reward(
                [sentence.format(wrong) for _, _, wrong in cases], [gold for gold, _, _ in cases]
            )
            tried, accepted = Counter(kind for _, kind, _ in cases), Counter()
            for (gold, kind, wrong), reward in zip(cases, rewards):
                accepted[kind] += int(reward)
            print(
                "  accepted of wrong ones:",
                ", ".join(f"{kind} {accepted[kind]}/{n}" for kind, n in tried.items()),
            )
            for gold, kind, wrong in dict.fromkeys(case for case, reward in zip(cases, rewards) if reward):
                print(f"  {kind}: {wrong}  for  {gold}", flush=True)
        print(f"{verifier.failures} comparisons ended by the deadline")


if __name__ == "__main__":
    main()
