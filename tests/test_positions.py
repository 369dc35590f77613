"""Garbage in padding changes nothing, in no output of any function."""

import torch

import asyppo
from critics import ensemble_values, shard, value_metrics
from distributed import generator
from models import load_actor
from tests.synthetic import fit, full_weights, make_synthetic_rollout, response_rewards, settings
from updates import adamw, score_responses


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
            asyppo.discounted_returns(r, mask_BT, 0.99),
            asyppo.whiten(garbage(advantages_BT, mask_BT, fill), mask_BT),
            asyppo.advantage_mask(s, mask_BT, 0.3),
            asyppo.entropy_filter(s, mask_BT, 0.3)
        ]

    clean = outputs(0.0)
    for fill in (1e30, -7.0, float("nan"), float("inf")):
        for expected, spoilt in zip(clean, outputs(fill)):
            assert torch.equal(expected, spoilt)


def test_models_and_updates_ignore_everything_outside_the_responses(qwen, new_critics, world):
    def run(spoil: bool):
        rollout = make_synthetic_rollout()
        mask_BT = rollout.mask_BT
        fill = float("nan") if spoil else 0.0
        if spoil:
            width = torch.arange(rollout.tokens_BS.shape[1])
            padding_BS = width >= (rollout.prompt_len_B + rollout.response_len_B)[:, None]
            rollout.tokens_BS[padding_BS] = torch.randint(3, 60, (int(padding_BS.sum()),))
        actor, critics = load_actor(qwen, world, torch.float32), new_critics(1)
        old_logp_BT, old_entropy_BT, _ = score_responses(actor, rollout, 120, world)
        returns_BT = garbage(response_rewards(rollout), mask_BT, fill)
        shards_MB = shard(rollout.group_B, 1, "none", generator(0, "shards"))
        fitted, _ = fit(critics, rollout, shards_MB, world, returns_BT, critic_epochs=2)
        values_MBT = ensemble_values(critics, rollout, 120, world)
        spoilt_MBT = garbage(values_MBT, mask_BT, fill)
        metrics = value_metrics(spoilt_MBT, spoilt_MBT[0], returns_BT, rollout, shards_MB)
        torch.manual_seed(1)
        data = asyppo.PolicyData(
            old_logp=garbage(old_logp_BT, mask_BT, fill), advantage_mask=mask_BT, entropy_filter=mask_BT,
            advantage=garbage(torch.randn(mask_BT.shape), mask_BT, fill)
        )
        args, optimizer = settings(epochs=2), adamw(actor, 1e-2)
        logged = asyppo.update_policy(actor, optimizer, rollout, data, args, step=1, world=world)
        weights = [x for model in (actor, *critics) for x in full_weights(model).values()]
        return [old_logp_BT, old_entropy_BT, values_MBT, *weights], [fitted, metrics, logged]

    (tensors, numbers), (spoilt_tensors, spoilt_numbers) = run(spoil=False), run(spoil=True)
    assert all(torch.equal(a, b) for a, b in zip(tensors, spoilt_tensors))
    assert numbers == spoilt_numbers


def test_the_value_of_a_state_does_not_depend_on_the_token_that_follows_it(new_critics, world):
    """values[t] is V(s_t), of the state before token t (verl#1960); the token changes those from t + 1 on."""
    (critic,) = new_critics(1)
    torch.nn.init.normal_(critic.value_head.weight)
    rollout = make_synthetic_rollout(1, 1, longest=20, seed=4)
    length, t = int(rollout.response_len_B[0]), 2
    assert length > t + 1
    before = ensemble_values([critic], rollout, 4096, world)[0, 0]
    rollout.tokens_BS[0, rollout.prompt_len_B[0] + t] += 1
    after = ensemble_values([critic], rollout, 4096, world)[0, 0]
    assert torch.equal(before[: t + 1], after[: t + 1])
    assert (before[t + 1 : length] != after[t + 1 : length]).all()
