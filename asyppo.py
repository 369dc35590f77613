"""AsyPPO's mathematics as pure functions on tensors, and the policy's update as one loss made of them.

Equation numbers (1)–(6) are the steps of the method as README.md lists them. Whitening and masks are over all
response tokens of the rollout batch, all ranks together: each rank holds the whole batch.

Legend for shape suffixes: M critics, B responses, T response tokens, N response tokens in row-major order, of
the step (statistics) or of a micro-batch (losses). mask_BT is true on response tokens; whatever stands
elsewhere changes no result.
"""

from functools import partial
from typing import NamedTuple

import torch

from updates import mean_of_updates, update_model

# -- returns and advantages ----------------------------------------------------------------------------------
def terminal_rewards(rewards_B: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """r_t (1): the verifier's reward on the last response token, zero before it. -> [B, T]"""
    rewards_BT = torch.zeros(mask_BT.shape, dtype=rewards_B.dtype)
    rewards_BT[torch.arange(len(rewards_B)), mask_BT.sum(1) - 1] = rewards_B
    return rewards_BT


def gae(rewards_BT, values_BT, mask_BT, gamma: float, lam: float) -> torch.Tensor:
    """GAE (4): δ_t = r_t + γ V(s_{t+1}) − V(s_t), A_t = Σ_l (γλ)^l δ_{t+l}. -> [B, T]

    values_BT[:, t] is the value of the state before token t; the value after the last response token is 0.
    """
    advantages_BT = torch.zeros_like(values_BT)
    next_value_B = next_advantage_B = torch.zeros_like(values_BT[:, 0])
    for t in reversed(range(values_BT.shape[1])):
        inside_B = mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        # `where`, not a product: padding may hold NaN
        next_advantage_B = torch.where(inside_B, delta_B + gamma * lam * next_advantage_B, 0.0)
        next_value_B = torch.where(inside_B, values_BT[:, t], 0.0)
        advantages_BT[:, t] = next_advantage_B
    return advantages_BT


def discounted_returns(rewards_BT: torch.Tensor, mask_BT: torch.Tensor, gamma: float) -> torch.Tensor:
    """The critics' targets R_t (3): R_t = r_t + γ R_{t+1}, the Monte-Carlo return. -> [B, T]"""
    return gae(rewards_BT, torch.zeros_like(rewards_BT), mask_BT, gamma, 1.0)


def lambda_returns(rewards_BT, values_BT, mask_BT, gamma: float, lam: float) -> torch.Tensor:
    """R_t (3) that bootstrap from values (--critic-lam below 1): advantage + value. -> [B, T]"""
    return torch.where(mask_BT, gae(rewards_BT, values_BT, mask_BT, gamma, lam) + values_BT, 0.0)


def group_advantages(rewards_B: torch.Tensor, group_B: torch.Tensor, scale_by_std: bool) -> torch.Tensor:
    """In the place of (2) to (4), GRPO's advantage of each response: reward − its group's mean, over its
    deviation if asked. -> [B]

    A group whose rewards are all equal gets 0.
    """
    advantages_B = torch.zeros_like(rewards_B)
    for group in group_B.unique():
        members = group_B == group
        rewards = rewards_B[members]
        if (rewards != rewards[0]).any():  # rounding of a mean would make noise of equal ones
            centred = rewards - rewards.mean()
            std = centred.square().mean().sqrt()
            advantages_B[members] = centred / std if scale_by_std and std > 0 else centred
    return advantages_B


def whiten(x_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Ā (4): A to mean 0 and standard deviation 1 over all response tokens; constants give 0. -> [B, T]"""
    x_N = x_BT[mask_BT].double()
    centred_N = x_N - x_N.mean()
    std = centred_N.square().mean().sqrt()
    # rounding noise of a constant must not be scaled up to 1 (ROLL#475); NaN passes on, and skips the update
    constant = std <= 1e-8 * max(1.0, x_N.abs().max().item())
    white_N = torch.zeros_like(x_N) if constant else centred_N / std
    return torch.zeros_like(x_BT).masked_scatter(mask_BT, white_N.to(x_BT.dtype))


# -- the critics' agreement ----------------------------------------------------------------------------------
def aggregate(values_MBT: torch.Tensor, how: str, shards_MB: torch.Tensor | None = None) -> torch.Tensor:
    """Ensemble value V̄(s_t) (4): the mean over critics; min is the paper's rejected variant. -> [B, T]

    crossfit (ours): the mean over those critics that were not fitted on the response (shards_MB false), so
    that the baseline does not know the return that it is held against.
    """
    if how == "crossfit":
        unseen_MB1 = ~shards_MB[:, :, None]
        return torch.where(unseen_MB1, values_MBT, 0.0).sum(0) / unseen_MB1.sum(0)
    return values_MBT.mean(0) if how == "mean" else values_MBT.amin(0)


def disagreement(values_MBT: torch.Tensor) -> torch.Tensor:
    """σ_t (5): population standard deviation over critics of V_m(s_t), in units of reward. -> [B, T]"""
    return values_MBT.std(0, correction=0)


def extreme_tokens(x_BT, mask_BT: torch.Tensor, fraction: float, largest: bool) -> torch.Tensor:
    """For the masks (5): the round(fraction · N) of N response tokens with the lowest (highest) x; with x
    None, no token. -> bool [B, T]

    Ties are broken by a fixed shuffle, another one for the highest than for the lowest: by position, equal σ
    would always pick the first responses, and both masks the same tokens.
    """
    if x_BT is None:
        return torch.zeros_like(mask_BT)
    x_N = x_BT[mask_BT]
    shuffle_N = torch.randperm(len(x_N), generator=torch.Generator().manual_seed(int(largest)))
    order_N = shuffle_N[torch.sort(x_N[shuffle_N], stable=True, descending=largest).indices]
    chosen_N = torch.zeros(len(x_N), dtype=torch.bool)
    chosen_N[order_N[: round(fraction * len(x_N))]] = True
    return torch.zeros_like(mask_BT).masked_scatter(mask_BT, chosen_N)


def advantage_mask(signal_BT: torch.Tensor | None, mask_BT: torch.Tensor, fraction: float) -> torch.Tensor:
    """I^A (5): false for the k fraction of response tokens with the lowest signal. -> bool [B, T]"""
    return mask_BT & ~extreme_tokens(signal_BT, mask_BT, fraction, largest=False)


def entropy_filter(signal_BT: torch.Tensor | None, mask_BT: torch.Tensor, fraction: float) -> torch.Tensor:
    """I^H (5): false for the h fraction of response tokens with the highest signal. -> bool [B, T]"""
    return mask_BT & ~extreme_tokens(signal_BT, mask_BT, fraction, largest=True)


# -- the objective -------------------------------------------------------------------------------------------
class PolicyData(NamedTuple):
    """What the objective knows of each token: [B, T] for a rollout, [N] for a part. A fork adds its own."""

    old_logp: torch.Tensor
    advantage: torch.Tensor
    advantage_mask: torch.Tensor  # bool
    entropy_filter: torch.Tensor  # bool


def objective(logp_N, entropy_N, data: PolicyData, clip_low: float, clip_high: float, entropy_coef: float):
    """The terms of (6) to be maximised: I^A min(ρ Ā, clip(ρ, 1−ε_low, 1+ε_high) Ā) + β I^H H. -> [N]

    (Their weights, 1/|o| by default, are those of `updates.token_weights`.)
    """
    ratio_N = torch.exp(logp_N - data.old_logp)
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    policy_N = torch.minimum(ratio_N * data.advantage, clipped_N * data.advantage)
    terms_N = torch.where(data.advantage_mask, policy_N, 0.0)
    if entropy_coef:
        terms_N = terms_N + entropy_coef * torch.where(data.entropy_filter, entropy_N, 0.0)
    return terms_N


def policy_loss(logp_N, entropy_N, data: PolicyData, clip_low: float, clip_high: float, entropy_coef: float):
    """Step 6's loss of each token, −objective, [N]. -> it, and what to log: which tokens are clipped, and
    ρ − 1 − log ρ, whose mean estimates KL(π_old ‖ π). entropy_N is NaN where entropy_coef is 0."""
    log_ratio_N = logp_N - data.old_logp
    ratio_N = log_ratio_N.exp()
    up_N = (ratio_N > 1 + clip_high) & (data.advantage > 0)
    down_N = (ratio_N < 1 - clip_low) & (data.advantage < 0)
    logged = {"clip_frac": (up_N | down_N) & data.advantage_mask, "approx_kl": ratio_N - 1 - log_ratio_N}
    return -objective(logp_N, entropy_N, data, clip_low, clip_high, entropy_coef), logged


def update_policy(actor, optimizer, rollout, data: PolicyData, args, step: int, world) -> dict[str, float]:
    """Step 6: args.epochs passes over the rollout, one optimizer step for each minibatch. -> what to log"""
    token_loss = partial(policy_loss, clip_low=args.clip_low, clip_high=args.clip_high,
                         entropy_coef=args.entropy_coef)
    n_minibatches = -(-len(rollout) // args.minibatch_size)
    updates = update_model(
        actor, optimizer, partial(actor.loss, token_loss=token_loss, with_entropy=args.entropy_coef > 0),
        rollout, list(range(len(rollout))), data, args, world, epochs=args.epochs, loss_norm=args.loss_norm,
        n_minibatches=n_minibatches, stream=("minibatches", step), counts_BT=rollout.mask_BT)
    means = mean_of_updates(updates)
    first, last_pass = updates[0]["approx_kl"], mean_of_updates(updates[-n_minibatches:])["clip_frac"]
    return {"policy_loss": means.pop("loss"), "approx_kl_first": first, "clip_frac_last": last_pass} | means
