"""AsyPPO's mathematics as pure functions on tensors. This file imports torch only: paste it into any trainer.

Equation numbers (1) to (6) are the steps of the method in docs/method.md. Whitening and masks are over all response
tokens of the rollout batch, all ranks together.

Legend for shape suffixes: M critics, B responses, T response tokens (padded), N response tokens in one row, without
padding: of the step for statistics, of a micro-batch for losses. mask_BT is true on response tokens; padding may hold
anything.
"""

from typing import NamedTuple

import torch


# -- returns and advantages ----------------------------------------------------------------------------------
def terminal_rewards(rewards_B: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """r_t (1): the verifier's reward on the last response token, zero before it. -> [B, T]"""
    rewards_BT = torch.zeros_like(mask_BT, dtype=rewards_B.dtype)
    rewards_BT[torch.arange(len(rewards_B), device=mask_BT.device), mask_BT.sum(1) - 1] = rewards_B
    return rewards_BT


def gae(rewards_BT, values_BT, mask_BT, gamma: float, lam: float | torch.Tensor) -> torch.Tensor:
    """GAE (4): δ_t = r_t + γ V(s_{t+1}) − V(s_t), A_t = Σ_l (γλ)^l δ_{t+l}. -> [B, T]

    values_BT[:, t] is the value of the state before token t; the value after the last response token is 0. lam is one
    number, or one for each response, [B].
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


def lam_by_length(mask_BT: torch.Tensor, factor: float) -> torch.Tensor:
    """λ of each response, 1 − 1 / (factor · |o|), at least 0 (VAPO, 2504.05118). -> [B]

    λ grows with the length, so that the final reward still reaches the first tokens.
    """
    return (1 - 1 / (factor * mask_BT.sum(1))).clamp(min=0)


def discounted_returns(rewards_BT: torch.Tensor, mask_BT: torch.Tensor, gamma: float) -> torch.Tensor:
    """The critics' targets (3), Monte-Carlo returns: R_t = r_t + γ R_{t+1}. -> [B, T]"""
    return gae(rewards_BT, torch.zeros_like(rewards_BT), mask_BT, gamma, 1.0)


def lambda_returns(rewards_BT, values_BT, mask_BT, gamma: float, lam: float) -> torch.Tensor:
    """Targets (3) that bootstrap from values (--critic-lam below 1): advantage + value. -> [B, T]"""
    return torch.where(mask_BT, gae(rewards_BT, values_BT, mask_BT, gamma, lam) + values_BT, 0.0)


def group_advantages(rewards_B: torch.Tensor, group_B: torch.Tensor, scale_by_std: bool) -> torch.Tensor:
    """GRPO's advantage of each response; it replaces (2) to (4): reward − group mean, over the group's standard
    deviation if scale_by_std. A group of equal rewards gets 0. -> [B]"""
    advantages_B = torch.zeros_like(rewards_B)
    for group in group_B.unique():
        members = group_B == group
        rewards = rewards_B[members]
        if (rewards != rewards[0]).any():  # the mean of equal rewards may be off by rounding
            centred = rewards - rewards.mean()
            std = centred.square().mean().sqrt()
            advantages_B[members] = centred / std if scale_by_std and std > 0 else centred
    return advantages_B


def whiten(x_BT: torch.Tensor, mask_BT: torch.Tensor, rewards_B: torch.Tensor | None = None) -> torch.Tensor:
    """Ā (4): x with mean 0 and standard deviation 1 over all response tokens; 0 if x is constant. -> [B, T]

    If all rewards_B are equal, advantages are critic error only, so the result is 0.
    """
    if rewards_B is not None and (rewards_B == rewards_B[0]).all():
        return torch.zeros_like(x_BT)
    x_N = x_BT[mask_BT].double()
    centred_N = x_N - x_N.mean()
    std = centred_N.square().mean().sqrt()
    # a constant must give 0, not amplified rounding noise (ROLL#475); NaN passes on and skips the update
    constant = std <= 1e-8 * max(1.0, x_N.abs().max().item())
    white_N = torch.zeros_like(x_N) if constant else centred_N / std
    return torch.zeros_like(x_BT).masked_scatter(mask_BT, white_N.to(x_BT.dtype))


# -- the critics' disagreement ----------------------------------------------------------------------------------
def aggregate(values_MBT: torch.Tensor, method: str, shards_MB: torch.Tensor | None = None) -> torch.Tensor:
    """Ensemble value V̄(s_t) (4): the mean over critics; min: a variant that the paper rejects. -> [B, T]

    crossfit (not in the paper): the mean over the critics that were not fitted on the response (shards_MB is false), so
    that the baseline is independent of the return.
    """
    if method == "crossfit":
        unseen_MB1 = ~shards_MB[:, :, None]
        return torch.where(unseen_MB1, values_MBT, 0.0).sum(0) / unseen_MB1.sum(0)
    return values_MBT.mean(0) if method == "mean" else values_MBT.amin(0)


def disagreement(values_MBT: torch.Tensor) -> torch.Tensor:
    """σ_t (5): population standard deviation over critics of V_m(s_t), in units of reward. -> [B, T]"""
    return values_MBT.std(0, correction=0)


def extreme_tokens(x_BT, mask_BT: torch.Tensor, fraction: float, largest: bool) -> torch.Tensor:
    """Select the round(fraction · N) of N response tokens with the lowest (highest) x, for (5). -> bool [B, T]

    If x is None, select none. Ties are broken by a fixed shuffled order, one per mask. Breaking them by position would
    always pick the first responses.
    """
    if x_BT is None:
        return torch.zeros_like(mask_BT)
    x_N = x_BT[mask_BT]
    shuffle_N = torch.randperm(len(x_N), generator=torch.Generator().manual_seed(int(largest))).to(x_N.device)
    order_N = shuffle_N[torch.sort(x_N[shuffle_N], stable=True, descending=largest).indices]
    chosen_N = torch.zeros_like(x_N, dtype=torch.bool)
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
    """Inputs of the objective for each token: [B, T] for a rollout, [N] for a micro-batch. Add fields for more."""

    old_logp: torch.Tensor
    advantage: torch.Tensor
    advantage_mask: torch.Tensor  # bool; true: the token keeps its policy gradient
    entropy_filter: torch.Tensor  # bool; true: the token keeps its entropy bonus


def objective(logp_N, entropy_N, data: PolicyData, clip_low: float, clip_high: float, entropy_coef: float):
    """The terms of (6) to be maximised: I^A min(ρ Ā, clip(ρ, 1−ε_low, 1+ε_high) Ā) + β I^H H. -> [N]

    Their weights, 1/|o| by default, are applied by the caller.
    """
    ratio_N = torch.exp(logp_N - data.old_logp)
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    policy_N = torch.minimum(ratio_N * data.advantage, clipped_N * data.advantage)
    terms_N = torch.where(data.advantage_mask, policy_N, 0.0)
    if entropy_coef:
        terms_N = terms_N + entropy_coef * torch.where(data.entropy_filter, entropy_N, 0.0)
    return terms_N


def policy_loss(logp_N, entropy_N, data: PolicyData, clip_low: float, clip_high: float, entropy_coef: float):
    """Step 6's loss of each token, −objective. -> [N], and values to log, name -> [N]

    clip_frac says whether the clip removes the token's gradient. The mean of approx_kl, ρ − 1 − log ρ, estimates
    KL(π_old ‖ π). entropy_N is NaN if entropy_coef is 0.
    """
    log_ratio_N = logp_N - data.old_logp
    ratio_N = log_ratio_N.exp()
    up_N = (ratio_N > 1 + clip_high) & (data.advantage > 0)
    down_N = (ratio_N < 1 - clip_low) & (data.advantage < 0)
    logged = {"clip_frac": (up_N | down_N) & data.advantage_mask, "approx_kl": ratio_N - 1 - log_ratio_N}
    return -objective(logp_N, entropy_N, data, clip_low, clip_high, entropy_coef), logged
