"""Settings that are off by default: truncated responses, λ by length, replay for critics, weighted critic loss."""

from types import SimpleNamespace

import pytest
import torch

import asyppo
import train
from critics import fit_critics, inverse_group_std
from engine.batch import Response, join_rollouts, make_rollout
from engine.updates import adamw
from tests.synthetic import critic_config, full_weights, make_synthetic_rollout, rollout_of, settings


def test_lambda_by_length_is_the_hand_worked_gae_of_each_response():
    mask_BT = torch.tensor([[True, True, False, False], [True, True, True, True]])
    values_BT = torch.tensor([[0.3, 0.5, torch.nan, torch.nan], [0.1, 0.2, 0.3, 0.4]])
    rewards_BT = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    lam_B = asyppo.lam_by_length(mask_BT, factor=0.5)
    assert lam_B.tolist() == [0.0, 0.5]  # 1 − 1/(0.5 · 2) and 1 − 1/(0.5 · 4)
    advantages_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, gamma=1.0, lam=lam_B)
    expected_BT = [[0.2, 0.5, 0.0, 0.0], [0.25, 0.3, 0.4, 0.6]]
    torch.testing.assert_close(advantages_BT, torch.tensor(expected_BT))


def test_lambda_by_length_is_never_negative():
    assert asyppo.lam_by_length(torch.tensor([[True]]), factor=0.05).tolist() == [0.0]


def policy_data(rollout, actor, world) -> asyppo.PolicyData:
    order = torch.Generator().manual_seed(7)
    old_logp_BT = train.score_responses(actor, rollout, 4096, world)[0]
    advantage_BT = torch.randn(rollout.mask_BT.shape, generator=order) * rollout.mask_BT
    masks = [rollout.mask_BT & (torch.rand(rollout.mask_BT.shape, generator=order) < 0.8) for _ in range(2)]
    return asyppo.PolicyData(old_logp_BT, advantage_BT, *masks)


def test_masked_truncated_responses_leave_the_actors_update_as_if_they_were_not_there(qwen, actor, world):
    rollout = make_synthetic_rollout()
    truncated = [b % 3 == 0 for b in range(len(rollout))]
    rollout.truncated_B = torch.tensor(truncated)
    data = policy_data(rollout, actor, world)
    kept = [b for b, cut in enumerate(truncated) if not cut]
    responses = [Response(rollout.tokens_BS[b, :p].tolist(), rollout.tokens_BS[b, p : p + n].tolist(), False)
                 for b, p, n in zip(kept, rollout.prompt_len_B[kept].tolist(), rollout.response_len_B[kept].tolist())]
    none = [""] * len(kept)
    alone = make_rollout(responses, none, none, rollout.rewards_B[kept].tolist(), group_size=1)
    data_alone = data._make(x_BT[kept][:, : alone.mask_BT.shape[1]] for x_BT in data)

    after = []
    for given, given_data, how in ((rollout, data, "masked"), (alone, data_alone, "wrong")):
        fresh = train.load_actor(qwen, world, torch.float32)
        optimizer = adamw(fresh, 1e-2)
        args = settings(truncated=how, epochs=2)
        run_ = SimpleNamespace(args=args, actor=fresh, actor_optimizer=optimizer, world=world)
        metrics = train.update_policy(run_, given, given_data, step=1)
        after.append((full_weights(fresh), metrics["policy_loss"]))
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-5)
    for name, weight in after[0][0].items():
        torch.testing.assert_close(weight, after[1][0][name], atol=1e-5, rtol=1e-4)


def test_a_rollout_with_nothing_but_masked_responses_updates_nothing(actor, world):
    rollout = rollout_of([4, 5, 6, 7], [0.0] * 4, truncated=True)
    before = full_weights(actor)
    run_ = SimpleNamespace(args=settings(truncated="masked"), actor=actor, actor_optimizer=adamw(actor, 1e-2),
                           world=world)
    assert train.update_policy(run_, rollout, policy_data(rollout, actor, world), step=1) == {}
    assert all(torch.equal(before[name], x) for name, x in full_weights(actor).items())


def test_weights_by_group_deviation_have_mean_1_over_a_critics_shard():
    rewards_B = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0, 1, 1])
    group_B = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    shard_B = torch.tensor([True, True, True, True, True, True, True, True, False, False])
    weights_B = inverse_group_std(rewards_B, group_B, shard_B)
    assert weights_B[:8].mean().item() == pytest.approx(1)
    assert (weights_B[0] / weights_B[4]).item() == pytest.approx((0.25 / 0.1875) ** 0.5)
    assert weights_B[8:].tolist() == [0.0, 0.0]


def test_the_weighted_critic_loss_does_not_depend_on_how_a_pass_is_cut_into_minibatches(new_critics, world):
    rewards = [1.0, 0, 0, 0, 1, 1, 0, 0]
    rollout = rollout_of([5] * 8, rewards)
    returns_MBT = (rollout.mask_BT * rollout.rewards_B[:, None]).expand(1, -1, -1)
    losses = []
    for size in (8, 4, 2):
        critics = new_critics(1)  # the head is zero, and so are the values: a learning rate of 0 keeps them
        logged = fit_critics(critics, [torch.optim.AdamW(critics[0].parameters(), lr=0.0)], rollout, returns_MBT,
                             torch.ones(1, 8, dtype=torch.bool), critic_config(minibatch_size=size), step=1,
                             world=world, norm="std")
        losses.append(logged["critic0/loss"])
    mean_inverse = (4 / 0.1875**0.5 + 4 / 0.5) / 8
    by_hand = (1 / 0.1875**0.5 + 2 / 0.5) / mean_inverse / 8
    assert losses == pytest.approx([by_hand] * 3, rel=1e-5)


def token_rows(rollout) -> list[list[int]]:
    return [rollout.tokens_BS[b, : p + n].tolist() for b, (p, n)
            in enumerate(zip(rollout.prompt_len_B.tolist(), rollout.response_len_B.tolist()))]


def test_joined_rollouts_keep_every_response_its_group_reward_and_shard():
    a, b = make_synthetic_rollout(2, 3, longest=5, seed=1), make_synthetic_rollout(2, 3, longest=9, seed=2)
    for rollout, seed in ((a, 3), (b, 4)):
        rollout.shards_MB = torch.rand(2, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
    joined = join_rollouts([a, b])
    assert token_rows(joined) == token_rows(a) + token_rows(b)
    assert joined.rewards_B.tolist() == a.rewards_B.tolist() + b.rewards_B.tolist()
    assert joined.group_B.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(joined.shards_MB, torch.cat([a.shards_MB, b.shards_MB], dim=1))


def test_critics_are_fitted_on_the_shards_of_the_last_k_rollouts(open_run, monkeypatch):
    run_ = open_run("--critic-replay", 2, "--max-new-tokens", 4)
    fitted, fit = [], train.fit_critics

    def record(critics, optimizers, rollout, targets_MBT, shards_MB, *rest):
        fitted.append((token_rows(rollout), shards_MB.clone(), targets_MBT.clone(), rollout.rewards_B.tolist()))
        return fit(critics, optimizers, rollout, targets_MBT, shards_MB, *rest)

    monkeypatch.setattr(train, "fit_critics", record)
    rollouts = [train.train_step(run_, step)[1] for step in (1, 2, 3)]
    for step, expected in ((0, rollouts[:1]), (1, rollouts[:2]), (2, rollouts[1:])):
        tokens, shards_MB, targets_MBT, rewards = fitted[step]
        assert tokens == [row for rollout in expected for row in token_rows(rollout)]
        assert torch.equal(shards_MB, torch.cat([rollout.shards_MB for rollout in expected], dim=1))
        assert rewards == [r for rollout in expected for r in rollout.rewards_B.tolist()]
        assert targets_MBT.shape[:2] == (2, len(tokens))
