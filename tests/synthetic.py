"""Rollouts made up for tests, and short ways to what the method does with them."""

import argparse

import torch
from torch.distributed.tensor import DTensor

from critics import fit_critics
from generation import Sampling, generate_responses
from rollout import Response, Rollout, make_rollout
from updates import adamw


def settings(**changes) -> argparse.Namespace:
    """The flags that updates read."""
    base = dict(
        seed=3, epochs=1, critic_epochs=1, minibatch_size=24, token_budget=4096, clip_low=0.2, clip_high=0.2,
        entropy_coef=0.01, loss_norm="sequence", max_grad_norm=1e9, critic_minibatch_size=None,
        critic_states=None, critic_norm="none"
    )
    return argparse.Namespace(**(base | changes))


def make_synthetic_rollout(
    n_prompts: int = 4, group_size: int = 6, longest: int = 20, seed: int = 0
) -> Rollout:
    """Random tokens of unequal lengths, a third of them rewarded."""
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


def response_rewards(rollout: Rollout) -> torch.Tensor:
    """Every token's return at γ = 1: its response's reward. -> [B, T]"""
    return rollout.mask_BT * rollout.rewards_B[:, None]


def fit(critics: list, rollout: Rollout, shards_MB, world, returns_BT=None, **changes) -> tuple[dict, list]:
    """Fit critics to returns, by default the responses' rewards. -> what is logged, and the optimizers"""
    returns_BT = response_rewards(rollout) if returns_BT is None else returns_BT
    optimizers = [adamw(critic, 1e-2) for critic in critics]
    logged = fit_critics(
        critics, optimizers, rollout, targets_MBT=returns_BT.expand(len(critics), -1, -1),
        shards_MB=shards_MB, args=settings(**changes), step=1, world=world
    )
    return logged, optimizers


def draw_responses(
    actor, tokenizer, world, prompts: list[list[int]], seed: int = 0, **changes
) -> list[Response]:
    """One response a prompt, by default a single token."""
    base = dict(max_new_tokens=1, temperature=1.0, stop_ids=frozenset(), stop_strings=(), batch=4096)
    sampling = Sampling(**(base | changes))
    return generate_responses(actor, tokenizer, prompts, sampling, world, seed, label="test")


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def full_weights(model) -> dict[str, torch.Tensor]:
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters()}


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """To the last bit."""
    return all(torch.equal(a[name], b[name]) for name in a)


def full_gradients(model, optimizer) -> dict[str, torch.Tensor]:
    """Of AdamW's only step so far, from its first moment: (1 − β₁) times the gradient, which is gone."""
    share = 1 - optimizer.defaults["betas"][0]
    return {name: whole(optimizer.state[p]["exp_avg"]) / share for name, p in model.named_parameters()}
