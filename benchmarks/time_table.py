"""Estimate memory and time of AsyPPO on GPUs, as Markdown tables. Nothing is measured; see docs/scaling.md.

    python benchmarks/time_table.py                      # seconds of a step by phase, days of 500 steps
    python benchmarks/time_table.py --fit 80 141         # --offload, --generate-batch on cards of so many GiB
"""

import argparse
import heapq
import random
import sys
import tempfile
from pathlib import Path

from transformers import Qwen3Config

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from engine.errors import UserError
from engine.plan import PROMPT as LONGEST_PROMPT, Workload, choose, size_of

FLOPS, MEMORY = 0.4 * 989e12, 0.4 * 3.35e12  # 40 % of an H100's bf16 FLOP/s and of its bytes/s
LAUNCH = 1 / 25.5 / 32  # s a layer: the untuned loop of pytorch.org/blog/accelerating-generative-ai-2
LINK, HOST, NETWORK = 20e9, 100e9, 50e9  # bytes/s: host to card, in the host's memory, between machines
PROMPT, BUDGET, PASSES = 256, 16384, 4  # mean prompt; the defaults of --token-budget and --epochs
# hidden size, layers, MLP, heads, tied embeddings
QWEN3 = {
    "0.6B": (1024, 28, 3072, 16, True), "1.7B": (2048, 28, 6144, 16, True), "4B": (2560, 36, 9728, 32, True),
    "8B": (4096, 36, 12288, 32, False), "14B": (5120, 40, 17408, 40, False)}
PAIRS = {"4B": "0.6B", "8B": "1.7B", "14B": "4B"}


def settings(folder: Path, name: str, cards: int, copy: int, gib: float, args) -> dict:
    """Return what the plan chooses for the actor with its two critics."""
    work = Workload(
        f"{folder}/{name}", [f"{folder}/{PAIRS[name]}"] * 2, args.prompts * args.group, args.group,
        LONGEST_PROMPT, args.max_new_tokens, BUDGET, gradient_checkpointing=True, offload="auto")
    return choose(work, 2, cards, [copy], gib * 2**30)[0]


def seconds(folder: Path, name: str, cards: int, copy: int, chosen: dict, args) -> list[float]:
    """Return the seconds of: generate at best, at worst, score, fit critics, policy, moving data."""
    actor = size_of(f"{folder}/{name}", "--model", 2)
    critics = 2 * size_of(f"{folder}/{PAIRS[name]}", "--critics", 2).params
    machines = max(1, cards // 8)
    random.seed(0)
    n = args.prompts * args.group // cards  # responses of one card
    lengths = [random.randint(1, 2 * args.mean) for _ in range(n)]
    ends = [0] * chosen["generate_batch"]  # a finished response hands its place to the next one
    for length in lengths:
        heapq.heappush(ends, heapq.heappop(ends) + length)
    cache_read = actor.kv * sum(PROMPT * length + length**2 / 2 for length in lengths)
    best = (2 * actor.params * max(ends) + cache_read) / MEMORY
    tokens = sum(PROMPT + length for length in lengths)
    forward, micro = 2 * tokens / FLOPS, tokens / BUDGET  # s a parameter; an update takes four times as long
    update = PASSES * (actor.params + critics / 2)  # parameters that a token passes: one critic of the two
    stepped = PASSES * (actor.params + critics)  # parameters that optimizer steps change
    moved = {
        "none": 0, "moments": 4 * 8 * (actor.params + critics) / copy / LINK,
        "all": micro * (12 * update + 4 * (actor.params + critics)) / LINK + 28 * stepped / copy / HOST,
    }[chosen["offload"]]
    if copy > 8:  # weights and gradients cross the network for each micro-batch
        moved += micro * (8 * update + 2 * (actor.params + critics)) * (cards - 1) / cards / NETWORK
    elif machines > 1:  # gradients cross it once an optimizer step
        moved += 4 * stepped * 2 * (machines - 1) / machines / NETWORK
    return [best, max(best, max(ends) * actor.layers * LAUNCH), forward * (actor.params + critics),
            forward * 4 * PASSES * critics / 2, forward * 4 * PASSES * actor.params, moved]


def time_rows(folder: Path, args) -> list[list]:
    rows = [["actor, critics", "cards", "generate, s", "score, values", "fit critics", "policy", "transfers",
             "a step, s", f"{args.steps} steps, days"]]
    for name, cards, copy in [(n, c, x or c) for n in args.actors for c in args.cards for x in args.copy]:
        chosen = settings(folder, name, cards, copy, 80, args)
        best, worst, *rest = seconds(folder, name, cards, copy, chosen, args)
        low, high = best + sum(rest), worst + sum(rest)
        days = f"{args.steps * low / 86400:.1f}–{args.steps * high / 86400:.1f}"
        rows.append([f"{name}, 2 × {PAIRS[name]}", f"{cards}" + f", {copy} a copy" * (args.copy != [0]),
                     f"{best:.0f}–{worst:.0f}", *(f"{x:.0f}" for x in rest), f"{low:.0f}–{high:.0f}", days])
    return rows


def fit_rows(folder: Path, args) -> list[list]:
    rows = [["actor, critics", "GiB of a card", *(f"{c} card" + "s" * (c > 1) for c in args.cards)]]
    for name, gib in [(name, gib) for name in args.actors for gib in args.fit]:
        rows.append([f"{name}, 2 × {PAIRS[name]}", gib])
        for cards in args.cards:
            try:
                chosen = settings(folder, name, cards, cards, gib, args)
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
