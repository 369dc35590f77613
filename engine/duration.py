"""The seconds of every phase of a step on stated cards, from configurations and settings alone.

Nothing here was measured on a GPU; docs/scaling.md has the formulas and their assumptions. Attention's FLOPs, which
grow with the square of the length, are left out.
"""

import heapq
import random
import time
from dataclasses import dataclass
from typing import Iterable

import torch
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from engine.plan import Workload, size_of


@dataclass(frozen=True)
class Card:
    """The peaks of a data sheet."""

    gib: float
    flops: float  # bf16 FLOP/s, without sparsity
    bandwidth: float  # bytes/s of the card's memory
    reached: float = 0.4  # share of both peaks that a run reaches


CARDS = {
    "H100": Card(80, 989e12, 3.35e12), "H200": Card(141, 989e12, 4.8e12), "A100": Card(80, 312e12, 2.04e12),
    "RTX 4090": Card(24, 165e12, 1.01e12)}
LINK, HOST_MEMORY, NETWORK = 20e9, 100e9, 50e9  # bytes/s: host to card, in the host's memory, between machines
HOST_S = 0.020 / 36  # seconds of Python and kernel launches, one layer of one decoding step; measure_host measures it
MEAN_PROMPT = 256  # tokens of the mean prompt


def step_seconds(work: Workload, item: int, chosen: dict, card: Card, cards: int, host_s: float, lengths: list[int],
                 prompt: int = MEAN_PROMPT) -> dict[str, float]:
    """-> phase -> seconds. "graph" waits for the card's memory only, "eager" for Python too

    item: bytes of a number in the compute type. chosen: the settings of plan.choose. host_s: seconds of Python a layer
    and token. lengths: tokens of the responses of one card.
    """
    flops, bandwidth = card.reached * card.flops, card.reached * card.bandwidth
    copy, machines = chosen["ranks_per_copy"], max(1, cards // 8)
    actor = size_of(work.actor, "--model", item)
    critics = sum(size_of(name, "--critics", item).params for name in work.critics)
    ends = [0] * chosen["generate_batch"]  # a finished response hands its place to the next one
    for length in lengths:
        heapq.heappush(ends, heapq.heappop(ends) + length)
    passes = max(ends)  # forward passes of generation
    read = item * actor.params * passes + actor.kv * sum(prompt * length + length**2 / 2 for length in lengths)
    tokens = sum(prompt + length for length in lengths)
    forward, micro_batches = 2 * tokens / flops, tokens / work.token_budget  # seconds of a forward pass a parameter
    generate = max(read / bandwidth, forward * actor.params)
    update = forward * (4 if work.gradient_checkpointing else 3)  # backward is two forwards, and one is recomputed
    fitted = work.critic_passes * work.critic_share * critics  # parameters times passes over all tokens
    trained = work.passes * actor.params + fitted
    stepped = work.passes * actor.params + work.critic_passes * critics  # parameters that optimizer steps change
    moved = {
        "none": 0, "moments": 4 * 8 * (actor.params + critics) / copy / LINK,
        "all": micro_batches * (12 * trained + 4 * (actor.params + critics)) / LINK + 28 * stepped / copy / HOST_MEMORY,
    }[chosen["offload"]]
    if copy > 8:  # weights and gradients cross the network for each micro-batch
        moved += micro_batches * (8 * trained + 2 * (actor.params + critics)) * (cards - 1) / cards / NETWORK
    elif machines > 1:  # gradients cross it once an optimizer step
        moved += 4 * stepped * 2 * (machines - 1) / machines / NETWORK
    return {"graph": generate, "eager": max(generate, passes * actor.layers * host_s),
            "score": forward * (actor.params + critics), "fit_critics": update * fitted,
            "policy": update * work.passes * actor.params, "transfers": moved}


def uniform_lengths(work: Workload, cards: int, mean: int) -> list[int]:
    """Draw the lengths of one card's responses, from 1 to twice the mean."""
    uniform = random.Random(0)
    return [uniform.randint(1, 2 * mean) for _ in range(max(1, work.responses // cards))]


def low_and_high(seconds: dict[str, float]) -> tuple[float, float]:
    """-> seconds of a step with generation bound by memory, and by Python"""
    rest = sum(seconds.values()) - seconds["graph"] - seconds["eager"]
    return seconds["graph"] + rest, seconds["eager"] + rest


def span(low_high: Iterable[float], digits: int = 0) -> str:
    """Return "low–high", or one number if both are printed alike."""
    return "–".join(dict.fromkeys(f"{x:.{digits}f}" for x in low_high))


def time_plan(work: Workload, item: int, chosen: dict, cards: int, gib: float) -> str:
    """Return seconds a step by phase and days for the run, on the cards that have so much memory."""
    layers, mean = size_of(work.actor, "--model", item).layers, max(1, work.max_new_tokens // 4)
    host_s, lengths = measure_host(), uniform_lengths(work, cards, mean)
    lines = [f"Time, estimated: cards reach {Card.reached:.0%} of their peaks, responses have {mean} tokens on average."
             " Generation is bound by memory (graph) or by Python (eager), "
             f"{1000 * layers * host_s:.0f} ms a token here."]
    known = {name: card for name, card in CARDS.items() if card.gib >= gib}
    for name, card in known.items():
        seconds = step_seconds(work, item, chosen, card, cards, host_s, lengths)
        totals = low_and_high(seconds)
        days = span([work.steps * x / 86400 for x in totals], 1)
        if len(lines) == 1:
            lines.append(f"{'seconds':<12}" + "".join(f"{phase:>12}" for phase in [*seconds, "step", "days"]))
        cells = [*(f"{x:.0f}" for x in seconds.values()), span(totals), days]
        lines.append(f"{name:<12}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines if known else [f"No time: none of {', '.join(CARDS)} has {gib:g} GiB."])


@torch.no_grad()
def measure_host(layers: int = 4, tokens: int = 24) -> float:
    """Return seconds of Python and dispatch a layer and token: of a model that has next to nothing to compute."""
    lm = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=64, hidden_size=64, num_hidden_layers=layers, intermediate_size=64, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32))
    cache, ids, fastest = DynamicCache(config=lm.config), torch.zeros(4, 1, dtype=torch.long), float("inf")
    for _ in range(tokens):
        began = time.process_time()
        lm(input_ids=ids, past_key_values=cache)
        fastest = min(fastest, time.process_time() - began)
    return fastest / layers
