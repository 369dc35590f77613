"""The mini-critics' part of the method: shards, their loss, ensemble values, and what to log of them.

Legend for shape suffixes: M critics, B responses, T response tokens, N response tokens in row-major order, of
the step (statistics) or of a micro-batch (losses).
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from asyppo import aggregate
from distributed import World
from models import MiniCritic
from rollout import Rollout
from updates import mean_of_updates, score_responses, update_model

# -- step 2: shards ------------------------------------------------------------------------------------------
def shard(group_B: torch.Tensor, n_critics: int, shard_by: str, order: torch.Generator) -> torch.Tensor:
    """Which critic learns from which response: bool [M, B].

    group: every prompt's responses are divided evenly and at random into M disjoint subsets ("group-level
    non-overlapping division"). Where the group size is no multiple of M, the critics that get one more change
    from prompt to prompt, so that shards differ by at most one response. prompt: whole prompts are divided
    (the variant that the paper rejects). none: every critic learns from everything.
    """
    shards_MB = torch.zeros(n_critics, len(group_B), dtype=torch.bool)
    if shard_by == "none":
        return ~shards_MB
    groups = group_B.unique()
    if shard_by == "prompt":
        owner = torch.randperm(len(groups), generator=order).argsort() % n_critics
        shards_MB[owner[torch.searchsorted(groups, group_B)], torch.arange(len(group_B))] = True
        return shards_MB
    dealt = torch.randint(n_critics, (1,), generator=order).item()
    for group in groups:
        members = torch.nonzero(group_B == group).flatten()
        members = members[torch.randperm(len(members), generator=order)]
        shards_MB[(dealt + torch.arange(len(members))) % n_critics, members] = True
        dealt += len(members)
    return shards_MB


# -- step 3: fit ---------------------------------------------------------------------------------------------
class ValueData(NamedTuple):
    """What the critics' loss knows of each token: [B, T] for a rollout, [N] for a part of it."""

    returns: torch.Tensor


def value_loss(values_N: torch.Tensor, data: ValueData) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(V_m(s_t) − R_t)² (3) of each token, [N]; nothing more to log."""
    return (values_N - data.returns).square(), {}


def state_counts(mask_BT: torch.Tensor, fractions: list[float] | None) -> torch.Tensor:
    """Which states the critics' loss is taken at: all, or those at these fractions of each response. ->
    [B, T]

    With one terminal reward all tokens of a response have one target, and a loss at all of them makes values
    flat within it; a few well-separated states do not (SP3O: Rethinking Critic Learning in PPO, 2026).
    """
    if not fractions:
        return mask_BT
    counts_BT, length_B = torch.zeros(mask_BT.shape), mask_BT.sum(1)
    for fraction in fractions:
        t_B = (fraction * length_B).long().clamp(max=length_B - 1)
        counts_BT[torch.arange(len(mask_BT)), t_B] = 1
    return counts_BT


def inverse_group_std(rewards_B, group_B, shard_B: torch.Tensor) -> torch.Tensor:
    """Noise-normalised regression (EasyPPO, 2026): 1 over the standard deviation of a group's rewards, of
    those in a critic's shard alone, for it must not know the others; 0 outside the shard. -> [B]

    A group without spread counts as one of its size in which a single response differs: the smallest
    deviation that right and wrong answers can have, √(n − 1) / n.
    """
    scale_B = torch.zeros(len(rewards_B))
    for group in group_B[shard_B].unique():
        members = shard_B & (group_B == group)
        n = int(members.sum())
        scale_B[members] = 1 / max(rewards_B[members].std(correction=0).item(), (n - 1) ** 0.5 / n or 1.0)
    return scale_B


def fit_critics(critics: list[MiniCritic], optimizers: list[torch.optim.Optimizer], rollout: Rollout,
                targets_MBT, shards_MB: torch.Tensor, args, step: int, world: World) -> dict[str, float]:
    """Step 3: minimise each critic's mean squared error over the states of its own shard. -> what to log

    Without --critic-minibatch-size a critic takes as many optimizer steps a pass as the actor.
    """
    metrics = {}
    states_BT = state_counts(rollout.mask_BT, args.critic_states)
    for m, (critic, optimizer) in enumerate(zip(critics, optimizers)):
        counts_BT = states_BT
        if args.critic_norm == "std":
            scale_B = inverse_group_std(rollout.rewards_B, rollout.group_B, shards_MB[m])
            counts_BT = states_BT * scale_B[:, None]
        rows = torch.nonzero(shards_MB[m]).flatten().tolist()
        size = args.critic_minibatch_size
        n_minibatches = -(-len(rows) // size) if size else -(-len(rollout) // args.minibatch_size)
        updates = update_model(
            critic, optimizer, partial(critic.loss, token_loss=value_loss), rollout, rows,
            ValueData(targets_MBT[m]), args, world, epochs=args.critic_epochs, n_minibatches=n_minibatches,
            loss_norm="token", stream=("critic minibatches", step, m), counts_BT=counts_BT)
        metrics |= {f"critic{m}/{key}": mean for key, mean in mean_of_updates(updates).items()}
    return metrics


# -- step 4: values ------------------------------------------------------------------------------------------
def ensemble_values(critics: list[MiniCritic], rollout: Rollout, budget: int, world: World) -> torch.Tensor:
    """V_m(s_t) of every critic on all responses, whoever was fitted on them. -> [M, B, T] fp32"""
    return torch.stack([score_responses(critic, rollout, budget, world) for critic in critics])


def explained_variance(values_N: torch.Tensor, returns_N: torch.Tensor) -> float:
    """1 − Var(R − V) / Var(R): 1 is perfect, 0 no better than a constant; NaN where all returns are equal."""
    variance = returns_N.double().var(correction=0)
    if variance == 0:
        return float("nan")
    return (1 - (returns_N - values_N).double().var(correction=0) / variance).item()


def share_within(x_BT: torch.Tensor, mask_BT: torch.Tensor) -> float:
    """Share of x's variance over response tokens that lies within responses; the rest is between them."""
    x_BT = torch.where(mask_BT, x_BT, 0.0).double()
    mean_B1 = x_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True)
    return ((x_BT - mean_B1)[mask_BT].square().mean() / x_BT[mask_BT].var(correction=0)).item()


def value_metrics(values_MBT, std_BT, returns_BT, rollout: Rollout, shards_MB) -> dict[str, float]:
    """What the critics know and how they differ; all over response tokens.

    returns_BT are Monte-Carlo ones: targets that bootstrap hold values, and would explain themselves.
    explained_variance is over all responses, explained_variance_heldout over those that the critic was not
    fitted on. Quantities that do not exist (no wrong response, one critic) are left out.
    """
    mask_BT = rollout.mask_BT
    right_BT = mask_BT & (rollout.rewards_B > 0)[:, None]
    mean_BT, unseen_MB = values_MBT.mean(0), ~shards_MB
    metrics = {"value_mean": mean_BT[mask_BT].mean().item(), "value_within": share_within(mean_BT, mask_BT)}
    metrics["ensemble/explained_variance"] = explained_variance(mean_BT[mask_BT], returns_BT[mask_BT])
    if unseen_MB.any(0).all():
        crossfit_N = aggregate(values_MBT, "crossfit", shards_MB)[mask_BT]
        metrics["ensemble/explained_variance_heldout"] = explained_variance(crossfit_N, returns_BT[mask_BT])
    for m, values_BT in enumerate(values_MBT):
        heldout_BT = mask_BT & unseen_MB[m][:, None]
        for name, chosen_BT in (("explained_variance", mask_BT), ("explained_variance_heldout", heldout_BT)):
            if chosen_BT.any():
                metrics[f"critic{m}/{name}"] = explained_variance(values_BT[chosen_BT], returns_BT[chosen_BT])
        metrics[f"critic{m}/value_correct"] = values_BT[right_BT].mean().item()
        metrics[f"critic{m}/value_wrong"] = values_BT[mask_BT & ~right_BT].mean().item()
    if len(values_MBT) > 1:
        for q, sigma in zip((10, 50, 90), np.quantile(std_BT[mask_BT].numpy(), (0.1, 0.5, 0.9))):
            metrics[f"value_std_p{q}"] = float(sigma)
        corr_MM = torch.corrcoef(values_MBT[:, mask_BT].double())
        metrics["critic_corr"] = corr_MM[*torch.triu_indices(*corr_MM.shape, offset=1)].mean().item()
        metrics["value_std_within"] = share_within(std_BT, mask_BT)
    return {key: value for key, value in metrics.items() if value == value}


def correlation_metrics(values_MBT, std_BT, advantages_BT, rollout: Rollout) -> dict[str, float]:
    """Do values and their disagreement go with the policy's entropy, and with the size of a token's gradient,
    |Ā_t| · ‖∂ log π(o_t)/∂z_t‖ at ρ = 1? (the paper's figures 6 and 11)"""
    gradient_BT = advantages_BT.abs() * rollout.old_slope_BT
    four_4BT = torch.stack([values_MBT.mean(0), std_BT, rollout.old_entropy_BT, gradient_BT])
    corr_44 = torch.corrcoef(four_4BT[:, rollout.mask_BT].double()).tolist()
    metrics = {}
    for name, row in zip(("value", "value_std"), corr_44):
        metrics |= {f"{name}_entropy_corr": row[2], f"{name}_gradient_corr": row[3]}
    return {key: value for key, value in metrics.items() if value == value}
