"""Garbage in padding changes nothing, in no output of any function."""

import torch

import asyppo
from actor import load_actor
from critics import ensemble_values, fit_critics, load_critic, shard, value_metrics
from distributed import adamw, generator
from rollout import score_responses
from tests.synthetic import full_weights, make_synthetic_rollout, settings


def garbage(x_BT, mask_BT, fill):
    return torch.where(mask_BT, x_BT, torch.full_like(x_BT, fill))


def test_pure_functions_ignore_everything_outside_the_responses():
    torch.manual_seed(0)
    mask_BT = torch.arange(10) < torch.tensor([10, 1, 4, 7])[:, None]
    rewards_BT, values_BT, sigma_BT = torch.randn(4, 10), torch.randn(4, 10), torch.rand(4, 10)

    def outputs(fill):
        r, v, s = (garbage(x, mask_BT, fill) for x in (rewards_BT, values_BT, sigma_BT))
        advantages_BT = asyppo.gae(r, v, mask_BT, 0.99, 0.9)
        return [
            advantages_BT,
            asyppo.lambda_returns(r, v, mask_BT, 0.99, 0.9),
            asyppo.whiten(garbage(advantages_BT, mask_BT, fill), mask_BT),
            asyppo.advantage_mask(s, mask_BT, 0.3),
            asyppo.entropy_filter(s, mask_BT, 0.3),
        ]

    clean = outputs(0.0)
    for fill in (1e30, -7.0, float("nan"), float("inf")):
        for expected, spoilt in zip(clean, outputs(fill)):
            assert torch.equal(expected, spoilt)


def test_models_and_updates_ignore_everything_outside_the_responses(qwen, world):
    def run(spoil: bool):
        rollout = make_synthetic_rollout()
        mask_BT = rollout.mask_BT
        fill = float("nan") if spoil else 0.0
        if spoil:
            width = torch.arange(rollout.tokens_BS.shape[1])
            padding_BS = width >= (rollout.prompt_len_B + rollout.response_len_B)[:, None]
            rollout.tokens_BS[padding_BS] = torch.randint(3, 60, (int(padding_BS.sum()),))
        actor, critic = load_actor(qwen, world, torch.float32), load_critic(qwen, world, torch.float32)
        rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(actor, rollout, 120, world, 1.0)
        scores = [rollout.old_logp_BT.clone(), rollout.old_entropy_BT.clone()]
        rollout.old_logp_BT = garbage(rollout.old_logp_BT, mask_BT, fill)
        returns_BT = garbage(rollout.rewards_B[:, None].expand(mask_BT.shape), mask_BT, fill)
        shards_MB = shard(rollout.group_B, 1, "none", generator(0, "shards"))
        optimizer = adamw(critic, 1e-2)
        fitted = fit_critics(
            [critic],
            [optimizer],
            rollout,
            returns_BT.expand(len(shards_MB), -1, -1),
            shards_MB,
            settings(critic_epochs=2),
            1,
            world,
        )
        values_MBT = ensemble_values([critic], rollout, 120, world)
        spoilt_values_MBT = garbage(values_MBT, mask_BT, fill)
        metrics = value_metrics(
            spoilt_values_MBT, spoilt_values_MBT[0], returns_BT.expand(len(shards_MB), -1, -1), rollout, shards_MB
        )
        torch.manual_seed(1)
        advantages_BT = garbage(torch.randn(mask_BT.shape), mask_BT, fill)
        optimizer = adamw(actor, 1e-2)
        logged = asyppo.update_policy(actor, optimizer, rollout, advantages_BT, mask_BT, mask_BT, settings(epochs=2), 1, world)
        return [*scores, values_MBT, *full_weights(actor).values(), *full_weights(critic).values()], [fitted, metrics, logged]

    (tensors, numbers), (spoilt_tensors, spoilt_numbers) = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(tensors, spoilt_tensors))
    assert numbers == spoilt_numbers


def test_the_value_of_a_state_does_not_depend_on_the_token_that_follows_it(qwen, world):
    """values[t] is V(s_t), the state before token t (verl#1960): changing token t changes values from t + 1 on."""
    critic = load_critic(qwen, world, torch.float32)
    torch.nn.init.normal_(critic.head.weight)
    rollout = make_synthetic_rollout(1, 1, longest=20, seed=4)
    length, t = int(rollout.response_len_B[0]), 2
    assert length > t + 1
    before = ensemble_values([critic], rollout, 4096, world)[0, 0]
    rollout.tokens_BS[0, rollout.prompt_len_B[0] + t] += 1
    after = ensemble_values([critic], rollout, 4096, world)[0, 0]
    assert torch.equal(before[: t + 1], after[: t + 1]) and (before[t + 1 : length] != after[t + 1 : length]).all()
