"""Rollouts made up for tests, and short ways to what the method does with them."""

import argparse
from dataclasses import replace

import torch
from torch.distributed.tensor import DTensor

from critics import fit_critics
from engine.batch import Response, Rollout, make_rollout
from engine.generation import SamplingConfig, generate_responses
from engine.models import Inputs
from engine.updates import UpdateConfig, adamw


def settings(**changes) -> argparse.Namespace:
    """The flags that train.update_policy reads."""
    base = dict(seed=3, epochs=1, minibatch_size=24, token_budget=4096, clip_low=0.2, clip_high=0.2,
                entropy_coef=0.01, loss_norm="sequence", max_grad_norm=1e9, truncated="wrong")
    return argparse.Namespace(**(base | changes))


def make_synthetic_rollout(n_prompts: int = 4, group_size: int = 6, longest: int = 20,
                           seed: int = 0) -> Rollout:
    """Random tokens of unequal lengths, a third of the responses rewarded."""
    order = torch.Generator().manual_seed(seed)

    def below(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=order))

    def tokens(n: int) -> list[int]:
        return torch.randint(3, 60, (n,), generator=order).tolist()

    responses = []
    for _ in range(n_prompts):
        prompt = tokens(below(2, 9))
        for _ in range(group_size):
            responses.append(Response(prompt, tokens(below(1, longest + 1)), truncated=False))
    rewards = (torch.rand(len(responses), generator=order) < 0.35).float().tolist()
    none = [""] * len(responses)
    return make_rollout(responses, golds=none, answers=none, rewards=rewards, group_size=group_size)


def rollout_of(lengths: list[int], rewards: list[float], truncated: bool = False) -> Rollout:
    """Random tokens and an EOS in responses of these lengths and rewards, in groups of four."""
    order = torch.Generator().manual_seed(0)
    tokens = [torch.randint(3, 60, (n - 1,), generator=order).tolist() + [1] for n in lengths]
    responses = [Response([5, 6, 7], t, truncated) for t in tokens]
    none = [""] * len(responses)
    return make_rollout(responses, golds=none, answers=none, rewards=rewards, group_size=4)


def inputs_of(tokens: list[list[int]], prompt_len: list[int], response_len: list[int]) -> Inputs:
    """Return a model's inputs for these prompts, each with its response, in one list of tokens."""
    responses = [Response(x[:p], x[p : p + n], False) for x, p, n in zip(tokens, prompt_len, response_len)]
    rollout = make_rollout(responses, [], [], [0.0] * len(tokens), group_size=1)
    return rollout.inputs(list(range(len(tokens))), torch.device("cpu"))


def response_rewards(rollout: Rollout) -> torch.Tensor:
    """Every token's return at γ = 1: its response's reward. -> [B, T]"""
    return rollout.mask_BT * rollout.rewards_B[:, None]


def critic_config(**changes) -> UpdateConfig:
    """One pass in one optimizer step, unless changed."""
    base = dict(epochs=1, minibatch_size=None, token_budget=4096, max_grad_norm=1e9, seed=3, loss_norm="token")
    config = base | changes
    return UpdateConfig(**config, n_minibatches=None if config["minibatch_size"] else 1)


def fit(critics: list, rollout: Rollout, shards_MB, world, returns_BT=None, states=None, norm: str = "none",
        **changes) -> tuple[dict, list]:
    """Fit critics to returns, by default the responses' rewards. -> metrics, the optimizers

    changes: of critic_config; states and norm: as in fit_critics.
    """
    returns_BT = response_rewards(rollout) if returns_BT is None else returns_BT
    optimizers = [adamw(critic, 1e-2) for critic in critics]
    metrics = fit_critics(critics, optimizers, replace(rollout, shards_MB=shards_MB),
                          returns_BT.expand(len(critics), -1, -1), critic_config(**changes), 1, world, states, norm)
    return metrics, optimizers


def draw_responses(actor, tokenizer, world, prompts: list[list[int]], seed: int = 0,
                   **changes) -> list[Response]:
    """One response to each prompt, by default a single token."""
    base = dict(max_new_tokens=1, temperature=1.0, stop_ids=frozenset(), stop_strings=(), batch=4096)
    sampling = SamplingConfig(**(base | changes))
    return generate_responses(actor, tokenizer, prompts, sampling, world, seed, label="test")


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def full_weights(model) -> dict[str, torch.Tensor]:
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters()}


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """To the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def full_gradients(model, optimizer) -> dict[str, torch.Tensor]:
    """Gradients of AdamW's only step so far, from its first moment: (1 − β₁) times the gradient."""
    share = 1 - optimizer.defaults["betas"][0]
    return {name: whole(optimizer.state[p]["exp_avg"]) / share for name, p in model.named_parameters()}
