"""Run by test_processes.py under torchrun or alone: the updates of two critics and an actor on a fixed rollout.

python tests/updates.py MODEL OUT_FILE TOKEN_BUDGET MINIBATCH_SIZE LOSS_NORM
"""

import sys

import torch

import asyppo
from actor import load_actor
from critics import ensemble_values, fit_critics, load_critic, shard
from distributed import adamw, generator, start, stop
from rollout import score_responses
from tests.synthetic import full_gradients, full_weights, make_synthetic_rollout, settings


def updates(model: str, out: str, budget: int, minibatch_size: int, loss_norm: str) -> None:
    world = start("cpu")
    torch.set_num_threads(1)
    rollout = make_synthetic_rollout()
    args = settings(token_budget=budget, minibatch_size=minibatch_size, loss_norm=loss_norm)
    actor = load_actor(model, world, torch.float32)
    critics = [load_critic(model, world, torch.float32) for _ in range(2)]
    optimizers = [adamw(model_, 1e-3) for model_ in (actor, *critics)]
    mask_BT = rollout.mask_BT
    rewards_BT = asyppo.terminal_rewards(rollout.rewards_B, mask_BT)
    rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(actor, rollout, budget, world, 1.0)
    saved: dict = {"logp": rollout.old_logp_BT.clone()}
    for step in range(1, 6):
        shards_MB = shard(rollout.group_B, 2, "group", generator(0, "shards", step))
        returns_BT = asyppo.lambda_returns(rewards_BT, torch.zeros(mask_BT.shape), mask_BT, 1.0, 1.0)
        fit_critics(critics, optimizers[1:], rollout, returns_BT.expand(len(shards_MB), -1, -1), shards_MB, args, step, world)
        values_MBT = ensemble_values(critics, rollout, budget, world)
        advantages_BT = asyppo.whiten(asyppo.gae(rewards_BT, values_BT := values_MBT.mean(0), mask_BT, 1.0, 0.95), mask_BT)
        # masks from fixed numbers: rounding in σ may swap two neighbours in the order, a step change of no interest here
        signal_BT = torch.rand(mask_BT.shape, generator=torch.Generator().manual_seed(step))
        metrics = asyppo.update_policy(
            actor,
            optimizers[0],
            rollout,
            advantages_BT,
            asyppo.advantage_mask(signal_BT, mask_BT, 0.2),
            asyppo.entropy_filter(signal_BT, mask_BT, 0.2),
            args,
            step,
            world,
        )
        if step == 1:
            for name, model_, optimizer in zip(("actor", "critic0", "critic1"), (actor, *critics), optimizers):
                saved[f"gradients of {name}"] = full_gradients(model_, optimizer)
            saved["first"] = metrics
    for name, model_ in (("actor", actor), ("critic0", critics[0]), ("critic1", critics[1])):
        saved[f"weights of {name}"] = full_weights(model_)
    saved["values"] = values_BT
    if world.is_main:
        torch.save(saved, out)


if __name__ == "__main__":
    updates(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    stop()
