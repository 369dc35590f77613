"""The critics' part of the method: shards, fit, ensemble values, and optional variants (off by default).

Equation numbers (1) to (6) are the steps of the method in docs/method.md.

Legend for shape suffixes: M critics, B responses, T response tokens, N response tokens of a micro-batch.
"""

from functools import partial
from typing import NamedTuple

import torch

import asyppo
from engine.batch import Rollout, join_rollouts
from engine.distributed import World
from engine.models import MiniCritic
from engine.updates import UpdateConfig, mean_of_updates, score_responses, update_model


# -- step 2: shards ------------------------------------------------------------------------------------------
def shard(group_B: torch.Tensor, n_critics: int, shard_by: str, order: torch.Generator) -> torch.Tensor:
    """Assign responses to critics. -> bool [M, B]: critic m is fitted on response b

    group: split every prompt's responses evenly and at random into M disjoint shards. If M does not divide the group
    size, the extra response goes to a different critic for each prompt, so shards differ by at most one.
    prompt: split whole prompts (the variant that the paper rejects). none: every critic gets all responses.
    """
    shards_MB = torch.zeros(n_critics, len(group_B), dtype=torch.bool)
    if shard_by == "none":
        return ~shards_MB
    groups = group_B.unique()
    if shard_by == "prompt":
        owner = torch.randperm(len(groups), generator=order).argsort() % n_critics
        shards_MB[owner[torch.searchsorted(groups, group_B)], torch.arange(len(group_B))] = True
        return shards_MB
    next_critic = torch.randint(n_critics, (1,), generator=order).item()
    for group in groups:
        members = torch.nonzero(group_B == group).flatten()
        members = members[torch.randperm(len(members), generator=order)]
        shards_MB[(next_critic + torch.arange(len(members))) % n_critics, members] = True
        next_critic += len(members)
    return shards_MB


# -- step 3: fit ---------------------------------------------------------------------------------------------
class ValueData(NamedTuple):
    """Inputs of the value loss for each token: [B, T] for a rollout, [N] for a micro-batch."""

    returns: torch.Tensor


def value_loss(values_N: torch.Tensor, data: ValueData) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(V_m(s_t) − R_t)² (3) of each token. -> [N], and no metrics"""
    return (values_N - data.returns).square(), {}


def targets(rollout: Rollout, before_MBT: torch.Tensor | None, n_critics: int, gamma: float,
            lam: float) -> torch.Tensor:
    """Return R_t (3) for each critic: the Monte-Carlo return, or the λ-return if lam < 1. -> [M, B, T]

    A λ-return bootstraps from the critic's own values before the fit, before_MBT. Another critic's values contain
    returns from that critic's shard.
    """
    rewards_BT = asyppo.terminal_rewards(rollout.rewards_B, rollout.mask_BT)
    if lam == 1:
        return asyppo.discounted_returns(rewards_BT, rollout.mask_BT, gamma).expand(n_critics, -1, -1)
    return torch.stack([asyppo.lambda_returns(rewards_BT, values_BT, rollout.mask_BT, gamma, lam)
                        for values_BT in before_MBT])


def fit_critics(critics: list[MiniCritic], optimizers: list[torch.optim.Optimizer], rollout: Rollout,
                targets_MBT: torch.Tensor, config: UpdateConfig, step: int, world: World,
                states: list[float] | None = None, norm: str = "none") -> dict[str, float]:
    """Step 3: minimise each critic's mean squared error over the states of its own shard. -> metrics

    states, norm: see selected_states and inverse_group_std.
    """
    metrics, shards_MB = {}, rollout.shards_MB
    states_BT = selected_states(rollout.mask_BT, states)
    for m, (critic, optimizer) in enumerate(zip(critics, optimizers)):
        scale_B = inverse_group_std(rollout.rewards_B, rollout.group_B, shards_MB[m]) if norm == "std" else None
        updates = update_model(
            critic, optimizer, partial(critic.loss, token_loss=value_loss), rollout,
            torch.nonzero(shards_MB[m]).flatten().tolist(), ValueData(targets_MBT[m]), states_BT, config,
            ("critic minibatches", step, m), world, scale_B)
        metrics |= {f"critic{m}/{key}": mean for key, mean in mean_of_updates(updates).items()}
    return metrics


# -- step 4: values ------------------------------------------------------------------------------------------
def ensemble_values(critics: list[MiniCritic], rollout: Rollout, budget: int, world: World) -> torch.Tensor:
    """Return V_m(s_t) of every critic on all responses, those outside its shard included. -> [M, B, T] fp32"""
    return torch.stack([score_responses(critic, rollout, budget, world) for critic in critics])


# -- optional variants ---------------------------------------------------------------------------------------
def selected_states(mask_BT: torch.Tensor, fractions: list[float] | None) -> torch.Tensor:
    """Select the states of the critics' loss: all, or those at these fractions of each response. -> [B, T]

    With one terminal reward all tokens of a response have one target. A loss at all of them makes values flat within
    the response; a few well-separated states avoid this (SP3O: Rethinking Critic Learning in PPO, 2026).
    """
    if not fractions:
        return mask_BT
    selected_BT, length_B = torch.zeros(mask_BT.shape), mask_BT.sum(1)
    for fraction in fractions:
        t_B = (fraction * length_B).long().clamp(max=length_B - 1)
        selected_BT[torch.arange(len(mask_BT)), t_B] = 1
    return selected_BT


def inverse_group_std(rewards_B, group_B, shard_B: torch.Tensor) -> torch.Tensor:
    """Weights of the responses of a critic's shard with mean 1: the inverse std of their group's rewards. -> [B]

    Noise-normalised regression (EasyPPO, 2026). The std is over the group's responses in this shard, because another
    critic is fitted on the rest. If their n rewards are equal, √(n − 1) / n replaces it: the std if one reward
    differed. The mean 1 is over responses, before minibatches are cut. Responses outside the shard get 0.
    """
    scale_B = torch.zeros(len(rewards_B))
    for group in group_B[shard_B].unique():
        members = shard_B & (group_B == group)
        n = int(members.sum())
        floor = (n - 1) ** 0.5 / n if n > 1 else 1.0
        scale_B[members] = 1 / max(rewards_B[members].std(correction=0).item(), floor)
    return scale_B / scale_B[shard_B].mean()


def unseen_values(values_MBT: torch.Tensor, shards_MB: torch.Tensor) -> torch.Tensor | None:
    """Return each response's mean value over the critics not fitted on it, [B, T].

    None if some response was seen by every critic.
    """
    return asyppo.aggregate(values_MBT, "crossfit", shards_MB) if (~shards_MB).any(0).all() else None


def gated(raw_BT: torch.Tensor, rollout: Rollout, explained: float) -> tuple[torch.Tensor, float]:
    """Replace the critics' advantages by reward − group mean if they explain nothing of responses outside their shards.

    Such critics add variance (EVPO, 2026). explained: variance explained outside the shards; NaN, for equal returns,
    counts as 0. -> [B, T]; 1.0 if the advantages were replaced, else 0.0
    """
    if explained > 0:
        return raw_BT, 0.0
    centred_B = asyppo.group_advantages(rollout.rewards_B, rollout.group_B, scale_by_std=False)
    return rollout.mask_BT * centred_B[:, None], 1.0


def adaptive_fraction(explained: float) -> float:
    """Return k = 0.2 · (1 − variance explained outside the shards), which shrinks as the critics learn (not in the
    paper). NaN, for equal returns, counts as 0."""
    return 0.2 * (1 - explained) if explained > 0 else 0.2


def with_replay(replay: list[Rollout], rollout: Rollout, n_rollouts: int) -> Rollout:
    """Append the rollout to replay, keep the last n_rollouts, and return them as one (not in the paper).

    With few responses a step, critics that are fitted on one rollout forget the ones before. Responses keep their
    shard.
    """
    replay[:] = [*replay, rollout][-n_rollouts:]
    return join_rollouts(replay)
