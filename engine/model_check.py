"""Checks of a model before a run: vocabulary, context, hidden states, generation.

The checks use the real weights, sharding and dtype. Our generation must match `generate`, scores must match the
logits that were sampled from, and hidden states must not depend on the other rows of a batch.
"""

from typing import Iterable

import torch
from torch import nn
from transformers import GenerationConfig

from engine.batch import Response, make_rollout
from engine.distributed import World, gather_list
from engine.errors import require, user_error
from engine.generation import SamplingConfig, can_refill, generate_responses
from engine.models import Actor, load_config
from engine.sharding import whole_weights

# Largest relative difference of hidden states (mean over a response); twice as much for log-probabilities, in nats.
# Rounding made 1e-6 of both in fp32, and 0.007 and 0.04 in bf16 (25 random models, SmolLM2 135M); real faults made
# 0.0007 to 2.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def check_config(name: str, flag: str, prompts: list, max_new_tokens: int, ids: Iterable[int] = ()) -> int:
    """Raise if the model cannot read the prompts' tokens or ids, or so long a sequence. -> rows of its embedding"""
    config, longest = load_config(name, flag), max(map(len, prompts)) + max_new_tokens
    context = getattr(config, "max_position_embeddings", None) or longest
    limits = [(context, "its context (max_position_embeddings) ends")]
    sparse = getattr(config, "index_topk", None) or longest  # DeepSeek V3.2 and others in transformers 5.23
    limits += [(sparse, "scoring uses another attention than generation")]
    ropes = getattr(config, "rope_parameters", None) or {}
    # Gemma 3 has one dict for each type of layer
    for rope in [ropes] if "rope_type" in ropes else filter(None, ropes.values()):
        if (kind := rope["rope_type"]) in ("dynamic", "longrope"):
            original = rope.get("original_max_position_embeddings") or context
            limits += [(original, f"its positions ({kind} RoPE) depend on the longest sequence of a batch")]
    for limit, why in limits:
        require(longest <= limit,
                f"{flag} {name}: beyond {limit} tokens {why}, and the longest prompt and response have "
                f"{longest}; lower --max-new-tokens.")
    highest = max([*map(max, prompts), *ids])
    require(highest < config.vocab_size,
            f"{flag} {name}: its embedding has {config.vocab_size} rows, too few for the tokenizer's token "
            f"{highest}; name a model with a row for each.")
    return config.vocab_size


@torch.no_grad()
def check_states(model: nn.Module, name: str, world: World, dtype: torch.dtype) -> None:
    """Raise unless hidden states are deterministic and independent of the batch. Collective."""
    long, short = Response([1], list(range(2, 17)), False), Response([16], list(range(15, 8, -1)), False)
    rollout = make_rollout([long, short], [], [], [0.0, 0.0], group_size=1)
    with user_error(f"{name}: it fails on two short responses", Exception):
        alone = [model.hidden(rollout.inputs([row], world.device)) for row in (0, 1)]
        first, again = (model.hidden(rollout.inputs([0, 1], world.device)).split([15, 7]) for _ in range(2))
    for case, pairs in {"twice": zip(first, again), "alone and beside another": zip(alone, first)}.items():
        off = [((a - b).float().norm(dim=1) / a.float().norm(dim=1)).mean().item() for a, b in pairs]
        off = torch.tensor(gather_list(off, world)).max().item()
        require(off < TOLERANCE[dtype],
                f"{name}: the hidden states of a response, scored {case}, differ by {off:.1%}; this model "
                "cannot be trained with this version of transformers.")


@torch.no_grad()
def check_generation(actor: Actor, tokenizer, prompts: list, max_new_tokens: int, name: str, world: World,
                     dtype: torch.dtype, decode: str = "eager") -> None:
    """Raise if our greedy tokens differ from `generate`'s, or if scores differ from the sampled logits. Collective.

    Four prompts share three slots, and a stop token ends the first response early, so a slot is refilled. They are
    the shortest of prompts, and half of it.
    """
    prompt, n = list(min(prompts, key=len)), min(6, max_new_tokens)
    prompts = [prompt, *[prompt[len(prompt) // 2 :]] * 3]
    settings = dict(do_sample=False, max_new_tokens=n, output_logits=True, return_dict_in_generate=True)
    plain, score_errors, token_errors = [], [], [0.0]  # greedy responses; differences in nats

    def score(prompt: list[int], response: list[int]) -> torch.Tensor:
        rollout = make_rollout([Response(prompt, response, False)], [], [], [0.0], group_size=1)
        return actor.score(rollout.inputs([0], world.device))[0].cpu()

    with user_error(f"--model {name}: it fails while a few tokens are generated", Exception):
        for tokens in prompts[:2]:
            ids = torch.tensor([tokens], device=world.device)
            with whole_weights(actor):
                out = actor.generate(inputs=ids, attention_mask=torch.ones_like(ids),
                                     generation_config=GenerationConfig(**settings))
            logp_NV = torch.log_softmax(torch.cat(out.logits).float() / actor.transform.temperature, dim=-1)
            drawn = out.sequences[0, len(tokens) :].tolist(), logp_NV.amax(1).cpu()
            response, logp_N = gather_list([drawn], world)[0]
            plain.append(response)
            score_errors.append((score(tokens, response) - logp_N).abs().mean().item())
        # a token that comes later or never in the second response ends only the first one
        ends = [t for t in plain[0] if plain[0].index(t) < (plain[1] + [t]).index(t)]
        sampling = SamplingConfig(n, 0.0, frozenset(ends[:1]), (), batch=3, decode=decode)
        drawn = generate_responses(actor, tokenizer, prompts * world.size, sampling, world, 0, "check")
        for ours, expected in zip(drawn, [*plain, plain[1], plain[1]] * world.size):
            at = [t for t, (a, b) in enumerate(zip(ours.tokens, expected)) if a != b]
            if at:  # rounding may swap tokens of nearly equal probability: in bf16, 0.25 nats apart
                pair = [score(ours.prompt, x[: at[0] + 1])[-1].item() for x in (ours.tokens, expected)]
                token_errors.append(abs(pair[0] - pair[1]) / 3)
    for fault, nats in [("scored differently than it is sampled", score_errors),
                        ("not the one of plain `generate`", token_errors)]:
        off = torch.tensor(gather_list(nats, world)).max().item()
        require(off < 2 * TOLERANCE[dtype],
                f"--model {name}: a greedy response of {n} tokens is {fault} (by {off:.2g} nats); this model "
                "cannot be trained with this version of transformers.")
    if world.is_main and not can_refill(actor):
        print(f"{name} keeps more than keys and values: only prompts of equal length are batched and finished "
              "rows are not refilled.", flush=True)
