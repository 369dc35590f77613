"""AsyPPO's mathematics as pure functions on tensors, and the policy update that uses them.

Equation numbers (1)–(6) are the steps of the method as README.md lists them. Every statistic is over all response
tokens of the rollout batch, all ranks together: each rank holds the whole batch.

Legend for shape suffixes: M critics, B responses, T response tokens, N response tokens of a micro-batch in row-major
order. mask_BT is true on response tokens; whatever stands elsewhere in any [B, T] array changes no result.
"""

import math

import torch

from distributed import World, generator, optimizer_step, pack, progress, sum_over_ranks
from rollout import Rollout

# -- advantages ---------------------------------------------------------------------------------------------------------


def terminal_rewards(rewards_B: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """r_t: the verifier's reward on the last response token, zero before it. -> [B, T]"""
    rewards_BT = torch.zeros(mask_BT.shape, dtype=rewards_B.dtype)
    rewards_BT[torch.arange(len(rewards_B)), mask_BT.sum(1) - 1] = rewards_B
    return rewards_BT


def gae(rewards_BT: torch.Tensor, values_BT: torch.Tensor, mask_BT: torch.Tensor, gamma: float, lam: float) -> torch.Tensor:
    """Generalised advantage estimation (4): δ_t = r_t + γ V(s_{t+1}) − V(s_t), A_t = Σ_l (γλ)^l δ_{t+l}. -> [B, T]

    values_BT[:, t] is the value of the state before token t; the value after the last response token is 0.
    """
    advantages_BT = torch.zeros_like(values_BT)
    next_value_B = torch.zeros_like(values_BT[:, 0])
    next_advantage_B = torch.zeros_like(next_value_B)
    for t in reversed(range(values_BT.shape[1])):
        inside_B = mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        # `where`, not a product: padding may hold NaN
        next_advantage_B = torch.where(inside_B, delta_B + gamma * lam * next_advantage_B, 0.0)
        next_value_B = torch.where(inside_B, values_BT[:, t], 0.0)
        advantages_BT[:, t] = next_advantage_B
    return advantages_BT


def lambda_returns(rewards_BT, values_BT, mask_BT, gamma: float, lam: float) -> torch.Tensor:
    """The critics' targets R_t (3): advantage + value; at λ = 1 the discounted sum of rewards, whatever the values. -> [B, T]"""
    return torch.where(mask_BT, gae(rewards_BT, values_BT, mask_BT, gamma, lam) + values_BT, 0.0)


def group_advantages(rewards_B: torch.Tensor, group_B: torch.Tensor, scale_by_std: bool) -> torch.Tensor:
    """GRPO's advantage of each response: reward − mean of its group, over the group's standard deviation if asked. -> [B]

    A group whose rewards are all equal gets 0.
    """
    advantages_B = torch.zeros_like(rewards_B)
    for group in group_B.unique():
        members = group_B == group
        centred = rewards_B[members] - rewards_B[members].mean()
        std = centred.square().mean().sqrt()
        advantages_B[members] = centred / std if scale_by_std and std > 0 else centred
    return advantages_B


def whiten(x_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Mean 0 and standard deviation 1 over all response tokens; constant input, one token included, gives 0. -> [B, T]"""
    x_N = x_BT[mask_BT].double()
    centred_N = x_N - x_N.mean()
    std = centred_N.square().mean().sqrt()
    # rounding noise of a constant must not be blown up to 1 (ROLL#475); what is not finite stays so, and is seen
    white_N = torch.zeros_like(x_N) if std <= 1e-8 * max(1.0, x_N.abs().max().item()) else centred_N / std
    return torch.zeros_like(x_BT).masked_scatter(mask_BT, white_N.to(x_BT.dtype))


# -- the critics' agreement ---------------------------------------------------------------------------------------------


def aggregate(values_MBT: torch.Tensor, how: str) -> torch.Tensor:
    """Ensemble value V̄(s_t) (4): the mean over critics; min is the paper's rejected variant. -> [B, T]"""
    return values_MBT.mean(0) if how == "mean" else values_MBT.amin(0)


def disagreement(values_MBT: torch.Tensor) -> torch.Tensor:
    """σ_t (5): population standard deviation over critics of V_m(s_t), in units of reward. -> [B, T]"""
    return values_MBT.std(0, correction=0)


def extreme_tokens(x_BT: torch.Tensor, mask_BT: torch.Tensor, fraction: float, largest: bool) -> torch.Tensor:
    """Bool [B, T]: the response tokens with the lowest (or highest) x, round(fraction · N) of all N, exactly.

    Ties are broken by a fixed shuffle: by position, equal σ would always pick the first responses of the batch.
    """
    x_N = x_BT[mask_BT]
    shuffle_N = torch.randperm(len(x_N), generator=torch.Generator().manual_seed(0))
    order_N = shuffle_N[torch.sort(x_N[shuffle_N], stable=True, descending=largest).indices]
    chosen_N = torch.zeros(len(x_N), dtype=torch.bool)
    chosen_N[order_N[: round(fraction * len(x_N))]] = True
    return torch.zeros_like(mask_BT).masked_scatter(mask_BT, chosen_N)


def advantage_mask(signal_BT: torch.Tensor, mask_BT: torch.Tensor, fraction: float) -> torch.Tensor:
    """I^A (5): false for the k fraction of response tokens with the lowest signal, and outside responses. -> bool [B, T]"""
    return mask_BT & ~extreme_tokens(signal_BT, mask_BT, fraction, largest=False)


def entropy_filter(signal_BT: torch.Tensor, mask_BT: torch.Tensor, fraction: float) -> torch.Tensor:
    """I^H (5): false for the h fraction of response tokens with the highest signal, and outside responses. -> bool [B, T]"""
    return mask_BT & ~extreme_tokens(signal_BT, mask_BT, fraction, largest=True)


# -- the objective ------------------------------------------------------------------------------------------------------


def token_weights(mask_BT: torch.Tensor, loss_norm: str) -> torch.Tensor:
    """What each token's term counts in the objective's mean (6); the weights of all given responses sum to 1. -> [B, T]

    sequence: E over responses of (1/|o|) Σ_t; token: every token of the batch alike. Masked tokens count in both.
    """
    if loss_norm == "sequence":
        return mask_BT / (mask_BT.sum(1, keepdim=True).clamp(min=1) * mask_BT.shape[0])
    return mask_BT / mask_BT.sum()


def objective(
    logp_N: torch.Tensor,
    old_logp_N: torch.Tensor,
    advantages_N: torch.Tensor,
    entropy_N: torch.Tensor,
    advantage_mask_N: torch.Tensor,
    entropy_filter_N: torch.Tensor,
    clip_low: float,
    clip_high: float,
    entropy_coef: float,
) -> torch.Tensor:
    """The terms of (6) to be maximised: I^A min(ρ Ā, clip(ρ, 1−ε_low, 1+ε_high) Ā) + β I^H H. -> [N]"""
    ratio_N = torch.exp(logp_N - old_logp_N)
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    policy_N = torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    terms_N = torch.where(advantage_mask_N, policy_N, 0.0)
    if entropy_coef:
        terms_N = terms_N + entropy_coef * torch.where(entropy_filter_N, entropy_N, 0.0)
    return terms_N


def minibatches(rows: list[int], n: int, order: torch.Generator) -> list[list[int]]:
    """n nearly equal random parts of the responses that cover all of them; a single part keeps their order."""
    if n == 1:
        return [rows]
    return [torch.tensor(rows)[part].tolist() for part in torch.randperm(len(rows), generator=order).tensor_split(n)]


def update_policy(
    actor,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    advantages_BT: torch.Tensor,
    advantage_mask_BT: torch.Tensor,
    entropy_filter_BT: torch.Tensor,
    args,
    step: int,
    world: World,
) -> dict[str, float]:
    """Step 6: args.epochs passes over the rollout, one optimizer step for each minibatch; returns what to log."""
    n_minibatches = len(rollout.texts) // args.minibatch_size
    totals: dict[str, float] = {}
    bar = progress(args.epochs * n_minibatches, "policy", "update", world)
    for epoch in range(args.epochs):
        for i, rows in enumerate(
            minibatches(list(range(len(rollout.texts))), n_minibatches, generator(args.seed, "minibatches", step, epoch))
        ):
            weights_BT = torch.zeros(rollout.mask_BT.shape)
            weights_BT[rows] = token_weights(rollout.mask_BT[rows], args.loss_norm)
            # loss, clipped share, approximate KL: this rank's shares of the minibatch's means
            sums = torch.zeros(3, dtype=torch.float64)

            def loss_of(micro_batch) -> torch.Tensor:
                old_logp_N, advantages_N, weights_N, advantage_mask_N, entropy_filter_N = (
                    rollout.pick(x_BT, micro_batch.rows, world.device)
                    for x_BT in (rollout.old_logp_BT, advantages_BT, weights_BT, advantage_mask_BT, entropy_filter_BT)
                )

                def token_loss(logp_C, entropy_C, part) -> torch.Tensor:
                    terms_C = objective(
                        logp_C, old_logp_N[part], advantages_N[part], entropy_C, advantage_mask_N[part],
                        entropy_filter_N[part], args.clip_low, args.clip_high, args.entropy_coef,
                    )  # fmt: skip
                    return -weights_N[part] * terms_C

                inputs = rollout.inputs(micro_batch.rows, world.device)
                loss, logp_N, _ = actor(*inputs, args.temperature, token_loss, with_entropy=args.entropy_coef > 0)
                log_ratio_N = logp_N - old_logp_N
                ratio_N = log_ratio_N.exp()
                outside_N = ((ratio_N > 1 + args.clip_high) & (advantages_N > 0)) | (
                    (ratio_N < 1 - args.clip_low) & (advantages_N < 0)
                )
                shares = (weights_N * x_N for x_N in (outside_N & advantage_mask_N, ratio_N - 1 - log_ratio_N))
                shares = torch.stack([loss.detach(), *(x_N.sum() for x_N in shares)])
                sums.add_(shares.double().cpu() * micro_batch.weight)
                return loss

            packed = pack(rows, rollout.lengths, args.token_budget, world.size)[world.rank]
            grad_norm = optimizer_step(actor, optimizer, packed, loss_of, args.max_grad_norm, world)
            loss, clip_frac, kl = sum_over_ranks(sums).tolist()
            if epoch == i == 0:
                totals["approx_kl_first"] = kl
            for key, value in dict(policy_loss=loss, clip_frac=clip_frac, approx_kl=kl, grad_norm=grad_norm).items():
                totals[key] = totals.get(key, 0.0) + value / (args.epochs * n_minibatches)
            totals["skipped_updates"] = totals.get("skipped_updates", 0) + (not math.isfinite(grad_norm))
            bar.update()
    bar.close()
    return totals
