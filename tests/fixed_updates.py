"""The updates of two critics and an actor on a fixed rollout, for test_distributed.py.

python tests/fixed_updates.py --model DIR --out FILE --token-budget N --minibatch-size N \
    --loss-norm sequence|token [--ranks-per-copy N]
"""

import argparse
import sys
from types import SimpleNamespace

import torch

import asyppo
import train
from critics import ensemble_values, fit_critics, shard
from engine.distributed import start, stop
from engine.models import load_actor, load_critic
from engine.streams import generator
from engine.updates import adamw, score_responses
from tests.synthetic import critic_config, full_gradients, full_weights, make_synthetic_rollout, settings


def updates(flags: argparse.Namespace) -> None:
    world = start("cpu", ranks_per_copy=flags.ranks_per_copy)
    torch.set_num_threads(1)
    rollout = make_synthetic_rollout()
    mask_BT, budget = rollout.mask_BT, flags.token_budget
    args = settings(token_budget=budget, minibatch_size=flags.minibatch_size, loss_norm=flags.loss_norm)
    # shards are half of the rollout: as many optimizer steps as the actor
    config = critic_config(token_budget=budget, minibatch_size=flags.minibatch_size // 2)
    actor = load_actor(flags.model, world, torch.float32)
    critics = [load_critic(flags.model, world, torch.float32) for _ in range(2)]
    models = dict(actor=actor, critic0=critics[0], critic1=critics[1])
    optimizers = {name: adamw(model, 1e-3) for name, model in models.items()}
    run = SimpleNamespace(args=args, actor=actor, actor_optimizer=optimizers["actor"], world=world)
    rewards_BT = asyppo.terminal_rewards(rollout.rewards_B, mask_BT)
    returns_MBT = asyppo.discounted_returns(rewards_BT, mask_BT, gamma=1.0).expand(2, -1, -1)
    rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(actor, rollout, budget, world)
    saved: dict = {"logp": rollout.old_logp_BT.clone()}
    for step in range(1, 6):
        rollout.shards_MB = shard(rollout.group_B, 2, "group", generator(0, "shards", step))
        of_critics = [optimizers["critic0"], optimizers["critic1"]]
        fit_critics(critics, of_critics, rollout, returns_MBT, config, step, world)
        values_BT = ensemble_values(critics, rollout, budget, world).mean(0)
        advantages_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, gamma=1.0, lam=0.95)
        # masks from fixed numbers: rounding in σ may swap two neighbours, and a swap is a jump in the update
        signal_BT = torch.rand(mask_BT.shape, generator=torch.Generator().manual_seed(step))
        data = asyppo.PolicyData(
            old_logp=rollout.old_logp_BT, advantage=asyppo.whiten(advantages_BT, mask_BT),
            advantage_mask=asyppo.advantage_mask(signal_BT, mask_BT, 0.2),
            entropy_filter=asyppo.entropy_filter(signal_BT, mask_BT, 0.2))
        metrics = train.update_policy(run, rollout, data, step)
        if step == 1:
            saved["first"] = metrics
            saved |= {f"gradients of {x}": full_gradients(models[x], optimizers[x]) for x in models}
    saved |= {f"weights of {name}": full_weights(model) for name, model in models.items()}
    saved["values"] = values_BT
    if world.is_main:
        torch.save(saved, flags.out)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    for flag, kind in dict(model=str, out=str, token_budget=int, minibatch_size=int, loss_norm=str).items():
        parser.add_argument(f"--{flag.replace('_', '-')}", type=kind, required=True)
    parser.add_argument("--ranks-per-copy", type=int)
    updates(parser.parse_args(argv))
    stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
