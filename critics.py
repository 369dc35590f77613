"""Mini-critics: small pretrained language models with a scalar head, each fitted on its own shard of every group.

Legend for shape suffixes: M critics, B responses, S prompt + response tokens, T response tokens, N response tokens of
a micro-batch in row-major order, H hidden size.
"""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from actor import load_pretrained, response_states, transformer_blocks
from asyppo import minibatches, token_weights
from distributed import UserError, World, full_state, generator, optimizer_step, pack, progress, shard_model, sum_over_ranks
from rollout import Rollout, score_responses

HEAD_FILE = "value_head.safetensors"


class MiniCritic(nn.Module):
    """Pretrained backbone and one linear layer in fp32, zero-initialised: all critics start from V = 0, so that their
    disagreement comes from their data and from nothing else."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens_BS, prompt_len_B, response_len_B):
        """-> (V(s_t) for every response token [N] fp32,): the state *before* the token (verl#1960)."""
        hidden_BSH = self.backbone(input_ids=tokens_BS, use_cache=False).last_hidden_state
        hidden_NH, _ = response_states(hidden_BSH, prompt_len_B, response_len_B)
        return (self.head(hidden_NH.float()).sum(-1),)


def load_critic(name: str, world: World, dtype: torch.dtype, gradient_checkpointing: bool = False) -> MiniCritic:
    """A critic from a pretrained language model, or one that `save_critic` wrote (then with its trained head)."""
    critic = MiniCritic(load_pretrained(AutoModel, name, "--critics", world))
    if (Path(name) / HEAD_FILE).exists():
        head = load_file(Path(name) / HEAD_FILE)
        try:
            critic.head.load_state_dict(head)
        except RuntimeError as error:
            raise UserError(f"--critics {name}: {HEAD_FILE} does not fit the model ({error}).") from error
    return shard_critic(critic, name, world, dtype, gradient_checkpointing)


def shard_critic(critic: MiniCritic, name: str, world: World, dtype: torch.dtype, gradient_checkpointing: bool) -> MiniCritic:
    """Divide a critic over all ranks; name is for complaints."""
    if gradient_checkpointing:
        critic.backbone.activation_checkpointing_enable({"use_reentrant": False})
    shard_model(critic, transformer_blocks(critic.backbone, name), [critic.head], world, dtype)
    return critic.train()


def save_critic(critic: MiniCritic, tokenizer, folder: Path, world: World) -> None:
    """Write the backbone in Hugging Face format, the head beside it; all ranks take part, rank 0 writes."""
    state = full_state(critic)
    if world.is_main:
        critic.backbone.save_pretrained(folder, state_dict=strip(state, "backbone."))
        save_file(strip(state, "head."), folder / HEAD_FILE)
        tokenizer.save_pretrained(folder)


def strip(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


# -- step 2: shards -----------------------------------------------------------------------------------------------------


def shard(group_B: torch.Tensor, n_critics: int, shard_by: str, order: torch.Generator) -> torch.Tensor:
    """Which critic learns from which response: bool [M, B].

    group: every prompt's responses are divided evenly and at random into M disjoint subsets ("group-level
    non-overlapping division"). Where the group size is no multiple of M, the critics that get one more change from
    prompt to prompt, so that shards differ by at most one response. prompt: whole prompts are divided (the variant that
    the paper rejects). none: every critic learns from everything.
    """
    shards_MB = torch.zeros(n_critics, len(group_B), dtype=torch.bool)
    if shard_by == "none":
        return ~shards_MB
    groups = group_B.unique()
    if shard_by == "prompt":
        owner = torch.empty(len(groups), dtype=torch.long)
        owner[torch.randperm(len(groups), generator=order)] = torch.arange(len(groups)) % n_critics
        shards_MB[owner[torch.searchsorted(groups, group_B)], torch.arange(len(group_B))] = True
        return shards_MB
    dealt = torch.randint(n_critics, (1,), generator=order).item()
    for group in groups:
        members = torch.nonzero(group_B == group).flatten()
        members = members[torch.randperm(len(members), generator=order)]
        # dealing goes on where the last group stopped
        shards_MB[(dealt + torch.arange(len(members))) % n_critics, members] = True
        dealt += len(members)
    return shards_MB


# -- step 3: fit --------------------------------------------------------------------------------------------------------


def fit_critics(
    critics: list[MiniCritic],
    optimizers: list[torch.optim.Optimizer],
    rollout: Rollout,
    returns_MBT: torch.Tensor,
    shards_MB: torch.Tensor,
    args,
    step: int,
    world: World,
) -> list[dict[str, float]]:
    """Minimise each critic's (V_m(s_t) − R_t)² over the response tokens of its own shard (3), its mean per minibatch.

    A critic takes as many optimizer steps per pass as the actor, over its share of the responses. -> per critic: loss
    and grad_norm (means over all updates), skipped_updates (those whose gradient was not finite).
    """
    n_minibatches = len(rollout.texts) // args.minibatch_size
    metrics = [dict(loss=0.0, grad_norm=0.0, skipped_updates=0) for _ in critics]
    n_updates = args.critic_epochs * n_minibatches
    bar = progress(len(critics) * n_updates, "critics", "update", world)
    for m, (critic, optimizer) in enumerate(zip(critics, optimizers)):
        shard_rows = torch.nonzero(shards_MB[m]).flatten().tolist()
        for epoch in range(args.critic_epochs):
            order = generator(args.seed, "critic minibatches", step, m, epoch)
            for rows in minibatches(shard_rows, n_minibatches, order):
                loss, grad_norm = fit_minibatch(critic, optimizer, rollout, returns_MBT[m], rows, args, world)
                metrics[m]["loss"] += loss / n_updates
                metrics[m]["grad_norm"] += grad_norm / n_updates
                metrics[m]["skipped_updates"] += not math.isfinite(grad_norm)
                bar.update()
    bar.close()
    return metrics


def fit_minibatch(critic, optimizer, rollout: Rollout, returns_BT, rows: list[int], args, world: World) -> tuple[float, float]:
    """One optimizer step on these responses; returns the mean squared error before it and the gradient norm."""
    weights_BT = torch.zeros(rollout.mask_BT.shape)
    weights_BT[rows] = token_weights(rollout.mask_BT[rows], "token")
    total = torch.zeros(1, dtype=torch.float64)

    def loss_of(micro_batch) -> torch.Tensor:
        (values_N,) = critic(*rollout.inputs(micro_batch.rows, world.device))
        returns_N = rollout.pick(returns_BT, micro_batch.rows, world.device)
        weights_N = rollout.pick(weights_BT, micro_batch.rows, world.device)
        loss = (weights_N * (values_N - returns_N).square()).sum()
        total.add_(loss.detach().double().cpu() * micro_batch.weight)
        return loss

    packed = pack(rows, rollout.lengths, args.token_budget, world.size)[world.rank]
    grad_norm = optimizer_step(critic, optimizer, packed, loss_of, args.max_grad_norm, world)
    return sum_over_ranks(total).item(), grad_norm


# -- step 4: values -----------------------------------------------------------------------------------------------------


def ensemble_values(critics: list[MiniCritic], rollout: Rollout, token_budget: int, world: World) -> torch.Tensor:
    """V_m(s_t) of every critic on all responses, whoever was fitted on them. -> [M, B, T] fp32"""
    return torch.stack([score_responses(critic, rollout, token_budget, world)[0] for critic in critics])


def explained_variance(values_N: torch.Tensor, returns_N: torch.Tensor) -> float:
    """1 − Var(R − V) / Var(R): 1 is perfect, 0 no better than a constant; NaN where all returns are equal."""
    variance = returns_N.double().var(correction=0)
    if variance == 0:
        return float("nan")
    return (1 - (returns_N - values_N).double().var(correction=0) / variance).item()


def value_metrics(
    values_MBT: torch.Tensor, std_BT: torch.Tensor, returns_MBT: torch.Tensor, rollout: Rollout, shards_MB: torch.Tensor
) -> dict[str, float]:
    """What the critics know and how they differ; all over response tokens.

    explained_variance is over all responses, explained_variance_heldout over those that the critic was not fitted on.
    Quantities that do not exist (no wrong response, one critic) are left out.
    """
    mask_BT = rollout.mask_BT
    right_BT = mask_BT & (rollout.rewards_B > 0)[:, None]
    metrics = {"value_mean": values_MBT.mean(0)[mask_BT].mean().item()}
    for m, (values_BT, returns_BT) in enumerate(zip(values_MBT, returns_MBT)):
        heldout_BT = mask_BT & ~shards_MB[m][:, None]
        metrics[f"critic{m}/explained_variance"] = explained_variance(values_BT[mask_BT], returns_BT[mask_BT])
        if heldout_BT.any():
            metrics[f"critic{m}/explained_variance_heldout"] = explained_variance(values_BT[heldout_BT], returns_BT[heldout_BT])
        metrics[f"critic{m}/value_correct"] = values_BT[right_BT].mean().item()
        metrics[f"critic{m}/value_wrong"] = values_BT[mask_BT & ~right_BT].mean().item()
    if len(values_MBT) > 1:
        for q, sigma in zip((10, 50, 90), np.quantile(std_BT[mask_BT].numpy(), (0.1, 0.5, 0.9))):
            metrics[f"value_std_p{q}"] = float(sigma)
        corr_MM = torch.corrcoef(values_MBT[:, mask_BT].double())
        above = torch.triu(torch.ones_like(corr_MM, dtype=torch.bool), diagonal=1)
        metrics["critic_corr"] = corr_MM[above].mean().item()
    return {key: value for key, value in metrics.items() if value == value}
