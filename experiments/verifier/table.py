r"""How far can a verifier be trusted? math-verify alone and ours, on the same rows.

python experiments/verifier/table.py DATA.jsonl … [--near 3] [--pairs N] [--methods strict] [--verdicts FILE]

A line of a data file has a gold in `answer`, or a `gold`, a `response` and what is `expected` of it (0 or 1).
Every gold is judged against itself in a sentence, against another writing of the same value, against the
next row's gold, and against near-misses of its type: another digit, the sign flipped, the order changed, an
end of an interval opened or closed, one member dropped, No for Yes.  The table counts the rows, the wrong
answers rewarded and the right ones refused; --out keeps every row on which a method erred.  A few near-misses
are right after all: -0 for 0 is left out, |-x| for |x| is not.
"""

import argparse
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from verifier import Verifier, canonical, extract_answer

SENTENCE = "Adding both sides, we find that the answer is $\\boxed{{{}}}$. I hope it is correct."
OPPOSITES = {"yes": "No", "no": "Yes", "true": "False", "false": "True", "even": "odd", "odd": "even"}
GROUP = re.compile(r"(\s*(?:\\left)?(?:\\\{|[(\[]))(.*?)((?:\\right)?(?:\\\}|[)\]])\s*)", re.DOTALL)
Row = tuple[str, str, str, int]  # kind, gold, response, expected


# ---- what a gold is made of --------------------------------------------------------------------------------
def members(gold: str) -> tuple[str, list[str], str]:
    """Opening, members and closing of a list, tuple, set or interval."""
    inside = GROUP.fullmatch(gold)
    opening, content, closing = inside.groups() if inside else ("", gold, "")
    if "=" in content or re.search(r"\d,\s*\\?!?\d{3}(?!\d)|\\begin|\{,\}|\\text|\\!", content):
        return opening, [], closing
    depth, parts = 0, [""]
    for character in content:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if depth < 0:
            return opening, [], closing
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return opening, parts if len(parts) > 1 else [], closing


def is_word(gold: str) -> bool:
    bare = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"\1", gold).strip("$ .()")
    return bool(re.fullmatch(r"(?!pi$|ln$)(?:[A-Za-z]{1,3}|[A-Za-z]{4,}(?: [A-Za-z]+)*)", bare))


# ---- right answers in another writing ----------------------------------------------------------------------
def other_writing(gold: str) -> tuple[str, str] | None:
    """(kind, an equal answer), by rules on the text that know nothing of the verifier."""
    text = gold.strip().strip("$").strip()
    opening, parts, closing = members(text)
    if re.fullmatch(r"-?\d+", text):
        whole = int(text)
        forms = [rf"\frac{{{2 * whole}}}{{2}}", f"{whole}.0", f"{whole:,}", rf"x = {whole}"]
        return "integer", forms[len(text) % 4]
    if match := re.fullmatch(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}", text):
        up, down = int(match[2]), int(match[3])
        return "fraction", [rf"{match[1]}{up}/{down}", rf"\frac{{{match[1]}{3 * up}}}{{{3 * down}}}"][up % 2]
    if match := re.fullmatch(r"(-?)(\d*)\.(\d+)", text):
        up = int((match[2] or "0") + match[3])
        return "decimal", rf"{match[1]}\frac{{{up}}}{{{10 ** len(match[3])}}}"
    if is_word(text):
        bare = re.sub(r"\\[a-z]+\{([^{}]*)\}", r"\1", text)
        return ("choice", rf"\textbf{{({bare.strip('() ')})}}") if len(bare.strip("() ")) == 1 else (
            "word", rf"\text{{{bare}}}.")
    if len(parts) == 2 and opening.strip()[-1:] in tuple("([") and r"\infty" in text and "cup" not in text:
        low, high = (part.strip() for part in parts)
        ends = [f"{low} {'<' if opening.strip()[-1] == '(' else '<='} x"] * ("-\\infty" not in low) + [
            f"x {'<' if closing.strip()[-1] == ')' else '<='} {high}"] * ("\\infty" not in high)
        return ("interval", ends[0]) if len(ends) == 1 else None
    if parts and not opening:
        return "list", ", ".join(reversed(parts))
    if parts and opening.strip().endswith("{"):
        return "set", r"\{" + ", ".join(reversed(parts)) + r"\}"
    if parts and opening.strip().endswith("(") and closing.strip().endswith(")"):
        return "tuple", r"\left( " + r",\; ".join(part.strip() for part in parts) + r" \right)"
    if re.search(r"\\begin\{pmatrix\}", text) and text.count(r"\begin") == 1:
        return "matrix", text.replace("pmatrix", "bmatrix")
    if re.fullmatch(r"[^=]+=[^=]+", text) and not re.search(r"[<>]|\\text|,|\\[lg]e|\\ne", text):
        left, right = text.split("=")
        return "equation", f"{left.strip()} - ({right.strip()}) = 0" if re.search(
            r"[+-]", left) else f"{right.strip()} = {left.strip()}"
    if re.search(r"[<>]|\\[lg]eq?(?![a-z])", text) and not re.search(r"\\text|,|=", text):
        turned = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\leq": r"\geq", r"\geq": r"\leq"}
        sides = re.split(r"(<|>|\\[lg]eq?(?![a-z]))", text)
        if len(sides) == 3:
            return "inequality", f"{sides[2].strip()} {turned[sides[1]]} {sides[0].strip()}"
    if re.search(r"[,;:=<>%|]|\\(?:[lg]e|mbox|!|text|mathrm|begin|cup|in|pm|infty|equiv|mathbb|circ|\$)"
                 r"|[A-Z]{2}|\d_", text):
        return None
    doubled = len(text) % 2 or text[0] in "+-"
    return "formula", rf"\frac{{2\left({text}\right)}}{{2}}" if doubled else f"1 + {text} - 1"


# ---- wrong answers -----------------------------------------------------------------------------------------
def changed_digit(gold: str, rng: random.Random) -> str | None:
    digits = [match.start() for match in re.finditer(r"\d", gold)]
    if not digits:
        return None
    i = rng.choice(digits)
    return gold[:i] + str((int(gold[i]) + rng.randint(1, 8)) % 9 + 1) + gold[i + 1 :]


def near_misses(gold: str, rng: random.Random) -> list[tuple[str, str]]:
    """(kind, wrong answer) for the gold's type, in random order."""
    opening, parts, closing = members(gold)
    if is_word(gold):
        word = gold.strip("$ ").lower()
        candidates = [("opposite", OPPOSITES.get(word)), ("not", f"not {gold}"),
                      ("both", f"{gold} or {gold}n't")]
        if len(gold) > 3 and gold.isalpha():
            candidates.append(("letters swapped", gold[:1] + gold[2] + gold[1] + gold[3:]))
    else:
        candidates = [
            ("digit", changed_digit(gold, rng)),
            ("digit", changed_digit(gold, rng)),
            ("one more", f"{gold}+1"),
            ("word behind", rf"{gold}\text{{ squared}}"),
            ("sign", re.sub(r"^\s*-\s*", "", gold) if gold.lstrip().startswith("-") else f"-{gold}"),
        ]
    if parts:
        candidates = candidates[:2] + [
            ("member dropped", opening + ",".join(parts[1:]) + closing),
            ("member twice", opening + ",".join([*parts[:-1], parts[0]]) + closing),
        ]
        if opening and not opening.strip().endswith("{"):
            candidates.append(("order", opening + ",".join([*parts[1:], parts[0]]) + closing))
    if re.search(r"[)\]]\s*$", gold) and opening.strip()[-1:] in ("(", "[") and len(parts) == 2:
        candidates.append(("end", gold.rstrip()[:-1] + {")": "]", "]": ")"}[gold.rstrip()[-1]]))
    if "=" in gold:
        candidates = [("digit", changed_digit(gold, rng)), ("one more", f"{gold}+1"),
                      ("left side", gold.split("=")[0])]
    if re.search(r"<|>|\\[lg]eq?(?![a-z])", gold) and len(gold) < 60:
        flips = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
        flipped = re.sub(r"<|>|\\[lg]e(?=q?(?![a-z]))", lambda found: flips[found[0]], gold)
        candidates.append(("flipped", flipped))
    rng.shuffle(candidates)
    zero = canonical(gold).strip("-") == "0"  # -0 is 0
    return [(kind, wrong) for kind, wrong in dict.fromkeys(candidates)
            if wrong and canonical(wrong) != canonical(gold) and not (zero and kind == "sign")]


# ---- the table ---------------------------------------------------------------------------------------------
def rows_of(path: str, near: int) -> list[Row]:
    lines = [json.loads(line) for line in Path(path).read_text().split("\n") if line.strip()]
    found = [(Path(path).stem, line["gold"], line["response"], line["expected"])
             for line in lines if "expected" in line]
    golds = [str(line["answer"]) for line in lines if "answer" in line]
    rng = random.Random(0)
    found += [("itself in a sentence", gold, SENTENCE.format(gold), 1) for gold in golds]
    for gold in golds:
        if other := other_writing(gold):
            found.append((f"another writing: {other[0]}", gold, SENTENCE.format(other[1]), 1))
    for gold, other in zip(golds, golds[1:] + golds[:1]):
        if re.sub(r"^[a-z]=", "", canonical(gold)) != re.sub(r"^[a-z]=", "", canonical(other)):
            found.append(("the next row's", gold, SENTENCE.format(other), 0))
    for gold in golds:
        for kind, wrong in near_misses(gold, rng)[:near]:
            found.append((f"near-miss: {kind}", gold, SENTENCE.format(wrong), 0))
    return found


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("data", nargs="+", help="JSONL files")
    parser.add_argument("--near", type=int, default=3, help="near-misses of each gold")
    parser.add_argument("--pairs", type=int, help="judge so many of the different pairs, at random")
    parser.add_argument("--verdicts", type=Path, help="JSONL file of verdicts: read first, then appended to")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["math-verify", "strict"])
    parser.add_argument("--out", help="JSONL file of the rows on which a method erred")
    args = parser.parse_args()
    rows = [row for path in args.data for row in rows_of(path, args.near)]
    rows = [(kind, gold, extract_answer(response, "boxed"), expected)
            for kind, gold, response, expected in rows]
    pairs = list(dict.fromkeys((gold, answer) for _, gold, answer, _ in rows))  # many golds occur often
    random.Random(0).shuffle(pairs)
    pairs = pairs[: args.pairs]
    chosen = set(pairs)
    rows = [row for row in rows if row[1:3] in chosen]
    kept = args.verdicts and args.verdicts.exists()
    known = [json.loads(line) for line in args.verdicts.open()] if kept else []
    errors, seconds, hangs, lines = defaultdict(Counter), {}, {}, []
    for method in args.methods:
        done = [part for part in known if part["method"] == method]
        verdicts = {(gold, answer): verdict for part in done for gold, answer, verdict in part["verdicts"]}
        left = [pair for pair in pairs if pair not in verdicts]
        with Verifier(n_workers=args.workers, method=method) as verifier:
            verifier.score(["x+1"], ["1+x"])  # the workers start
            for at in range(0, len(left), 1024):
                golds, answers = map(list, zip(*left[at : at + 1024]))
                failures, start = verifier.failures, time.perf_counter()
                found = list(zip(golds, answers, verifier.score(answers, golds)))
                done.append(dict(method=method, seconds=time.perf_counter() - start,
                                 hangs=verifier.failures - failures, verdicts=found))
                verdicts |= {(gold, answer): verdict for gold, answer, verdict in found}
                if args.verdicts:
                    with args.verdicts.open("a") as file:
                        file.write(json.dumps(done[-1]) + "\n")
                print(f"{method}: {len(verdicts)} of {len(pairs)} pairs", file=sys.stderr, flush=True)
        seconds[method] = sum(part["seconds"] for part in done) / max(1, len(verdicts)) * 1024
        hangs[method] = sum(part["hangs"] for part in done)
        for kind, gold, answer, expected in rows:
            if verdicts[gold, answer] != expected:
                errors[method][kind, expected] += 1
                lines.append(dict(method=method, kind=kind, gold=gold, answer=answer, expected=expected))
    if args.out:
        Path(args.out).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    counts = Counter((kind, expected) for kind, _, _, expected in rows)
    print("| rows | |", " | ".join(args.methods), "|\n| --- | --- |" + " --- |" * len(args.methods))
    for (kind, expected), n in sorted(counts.items(), key=lambda count: (-count[0][1], count[0][0])):
        wrong = "right, refused" if expected else "wrong, rewarded"
        numbers = " | ".join(str(errors[method][kind, expected]) for method in args.methods)
        print(f"| {kind} ({n}) | {wrong} | {numbers} |")
    for expected, text in ((1, "right, refused"), (0, "wrong, rewarded")):
        n = sum(count for (_, e), count in counts.items() if e == expected)
        totals = (sum(c for (_, e), c in errors[m].items() if e == expected) for m in args.methods)
        numbers = " | ".join(f"{total} ({total / n:.2%})" for total in totals)
        print(f"| **all** ({n}) | {text} | {numbers} |")
    numbers = " | ".join(f"{seconds[method]:.1f}" for method in args.methods)
    print(f"| seconds per 1,024 of the {len(pairs)} different pairs | | {numbers} |")
    print("| answers that hang | |", " | ".join(str(hangs[m]) for m in args.methods), "|")


if __name__ == "__main__":
    main()
