"""A rollout made up for tests, and the settings that updates need."""

import argparse

import torch
from torch.distributed.tensor import DTensor

from rollout import Response, Rollout, make_rollout


def settings(**changes) -> argparse.Namespace:
    base = dict(
        seed=3, epochs=1, critic_epochs=1, minibatch_size=24, token_budget=4096, temperature=1.0, clip_low=0.2, clip_high=0.2,
        entropy_coef=0.01, loss_norm="sequence", max_grad_norm=1e9,
    )  # fmt: skip
    return argparse.Namespace(**(base | changes))


def make_synthetic_rollout(n_prompts: int = 4, group_size: int = 6, longest: int = 20, seed: int = 0) -> Rollout:
    """Random tokens of unequal lengths, a third of them rewarded."""
    order = torch.Generator().manual_seed(seed)

    def tokens(n):
        return torch.randint(3, 60, (n,), generator=order).tolist()

    responses = []
    for _ in range(n_prompts):
        prompt = tokens(int(torch.randint(2, 9, (1,), generator=order)))
        for _ in range(group_size):
            responses.append(Response(prompt, tokens(int(torch.randint(1, longest + 1, (1,), generator=order))), False))
    rewards = (torch.rand(len(responses), generator=order) < 0.35).float().tolist()
    return make_rollout(responses, [""] * len(responses), [""] * len(responses), rewards, group_size)


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def full_weights(model) -> dict[str, torch.Tensor]:
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters()}


def full_gradients(model, optimizer) -> dict[str, torch.Tensor]:
    """Of AdamW's only step so far, from its first moment: (1 − β₁) times the gradient, which itself is gone."""
    share = 1 - optimizer.defaults["betas"][0]
    return {name: whole(optimizer.state[p]["exp_avg"]) / share for name, p in model.named_parameters()}
