"""Estimate memory and time of AsyPPO on GPUs, as Markdown tables. Nothing is measured; see docs/scaling.md.

    python benchmarks/time_table.py                      # seconds of a step by phase, days of 500 steps
    python benchmarks/time_table.py --fit 80 141         # --offload, --generate-batch on cards of so many GiB
"""

import argparse
import sys
import tempfile
from pathlib import Path

from transformers import Qwen3Config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from engine.duration import CARDS, HOST_S, low_and_high, span, step_seconds, uniform_lengths
from engine.errors import UserError
from engine.plan import LONGEST_PROMPT, Workload, choose

# hidden size, layers, MLP, heads, tied embeddings
QWEN3 = {
    "0.6B": (1024, 28, 3072, 16, True), "1.7B": (2048, 28, 6144, 16, True), "4B": (2560, 36, 9728, 32, True),
    "8B": (4096, 36, 12288, 32, False), "14B": (5120, 40, 17408, 40, False)}
PAIRS = {"4B": "0.6B", "8B": "1.7B", "14B": "4B"}


def work_of(folder: Path, name: str, args) -> Workload:
    """Return the actor with its two critics, and the defaults of train.py."""
    return Workload(
        f"{folder}/{name}", [f"{folder}/{PAIRS[name]}"] * 2, args.prompts * args.group, args.group,
        LONGEST_PROMPT, args.max_new_tokens, token_budget=16384, gradient_checkpointing=True, offload="auto")


def time_rows(folder: Path, args) -> list[list]:
    rows = [["actor, critics", "cards", "generate, s", "score, values", "fit critics", "policy", "transfers",
             "a step, s", f"{args.steps} steps, days"]]
    for name, cards, copy in [(n, c, x or c) for n in args.actors for c in args.cards for x in args.copy]:
        work, card = work_of(folder, name, args), CARDS[args.card]
        chosen = choose(work, 2, cards, [copy], card.gib * 2**30)[0]
        seconds = step_seconds(work, 2, chosen, card, cards, HOST_S, uniform_lengths(work, cards, args.mean))
        totals, (best, eager, *rest) = low_and_high(seconds), seconds.values()
        days = span([args.steps * x / 86400 for x in totals], 1)
        rows.append([f"{name}, 2 × {PAIRS[name]}", f"{cards}" + f", {copy} a copy" * (args.copy != [0]),
                     span((best, eager)), *(f"{x:.0f}" for x in rest), span(totals), days])
    return rows


def fit_rows(folder: Path, args) -> list[list]:
    rows = [["actor, critics", "GiB of a card", *(f"{c} card" + "s" * (c > 1) for c in args.cards)]]
    for name, gib in [(name, gib) for name in args.actors for gib in args.fit]:
        rows.append([f"{name}, 2 × {PAIRS[name]}", gib])
        for cards in args.cards:
            try:
                chosen = choose(work_of(folder, name, args), 2, cards, [cards], gib * 2**30)[0]
                rows[-1].append(f"{chosen['offload']}, {chosen['generate_batch']}")
            except UserError:
                rows[-1].append("does not fit")
    return rows


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--actors", nargs="+", choices=PAIRS, default=list(PAIRS))
    add("--cards", type=int, nargs="+", default=[1, 8])
    add("--copy", type=int, nargs="+", default=[0], help="cards that share one copy of the weights; 0: all")
    add("--card", choices=CARDS, default="H100")
    add("--fit", type=float, nargs="+", help="GiB of a card: print what fits, not the time")
    add("--prompts", type=int, default=32)
    add("--group", type=int, default=32)
    add("--max-new-tokens", type=int, default=8192)
    add("--mean", type=int, default=2048, help="mean length; lengths are uniform up to twice the mean")
    add("--steps", type=int, default=500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, (hidden, layers, inner, heads, tied) in QWEN3.items():
            Qwen3Config(
                hidden_size=hidden, num_hidden_layers=layers, intermediate_size=inner, head_dim=128,
                num_attention_heads=heads, num_key_value_heads=8, vocab_size=151936, tie_word_embeddings=tied,
            ).save_pretrained(f"{folder}/{name}")
        head, *rows = (fit_rows if args.fit else time_rows)(Path(folder), args)
    print("|", " | ".join(head), "|\n| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        print("|", " | ".join(f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row), "|")


if __name__ == "__main__":
    main()
