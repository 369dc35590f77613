"""Shards, and what each critic learns from."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModel

import asyppo
from critics import ensemble_values, explained_variance, shard, value_metrics
from distributed import generator
from tests.synthetic import fit, full_gradients, full_weights, make_synthetic_rollout, response_rewards


def two_shards(rollout) -> torch.Tensor:
    return shard(rollout.group_B, 2, "group", generator(0, "shards", 1))


@pytest.mark.parametrize("n_critics, group_size", [(2, 8), (2, 5), (3, 8), (4, 6), (1, 4)])
def test_group_shards_are_disjoint_balanced_and_hold_part_of_every_prompt(n_critics, group_size):
    group_B = torch.arange(7 * group_size) // group_size
    shards_MB = shard(group_B, n_critics, "group", generator(0, "shards", 1))
    assert (shards_MB.sum(0) == 1).all()
    for group in range(7):
        sizes = shards_MB[:, group_B == group].sum(1)
        assert sizes.min() >= group_size // n_critics and sizes.max() <= math.ceil(group_size / n_critics)
    assert shards_MB.sum(1).max() - shards_MB.sum(1).min() <= 1


def test_shards_differ_from_step_to_step_and_are_repeated_by_their_seed():
    group_B = torch.arange(64) // 8

    def draw(seed, step):
        return shard(group_B, 2, "group", generator(seed, "shards", step))

    assert torch.equal(draw(0, 1), draw(0, 1))
    assert not torch.equal(draw(0, 1), draw(0, 2)) and not torch.equal(draw(0, 1), draw(1, 1))


def test_the_other_divisions_share_whole_prompts_or_everything():
    group_B = torch.arange(30) // 5
    shards_MB = shard(group_B, 2, "prompt", generator(0, "shards", 1))
    assert (shards_MB.sum(0) == 1).all() and shards_MB.sum(1).tolist() == [15, 15]
    for group in range(6):
        assert shards_MB[:, group_B == group].all(1).sum() == 1
    assert shard(group_B, 3, "none", generator(0, "shards", 1)).all()


def test_a_critic_never_sees_another_shards_responses(new_critics, world):
    def weights_after_fitting(spoil: bool):
        rollout = make_synthetic_rollout()
        shards_MB = two_shards(rollout)
        returns_BT = response_rewards(rollout)
        if spoil:
            # other tokens, other rewards for everything that critic 1 learns from; lengths stay
            others = torch.nonzero(shards_MB[1]).flatten()
            for b in others.tolist():
                start = int(rollout.prompt_len_B[b])
                response = slice(start, start + int(rollout.response_len_B[b]))
                rollout.tokens_BS[b, response] = (rollout.tokens_BS[b, response] + 7) % 60
            returns_BT[others] = 1 - returns_BT[others]
        critics = new_critics()
        fit(critics, rollout, shards_MB, world, returns_BT, critic_epochs=3, minibatch_size=12)
        return [full_weights(c) for c in critics]

    mine, others = weights_after_fitting(spoil=False)
    mine_spoilt, others_spoilt = weights_after_fitting(spoil=True)
    assert all(torch.equal(mine[name], mine_spoilt[name]) for name in mine)
    assert any(not torch.equal(others[name], others_spoilt[name]) for name in others)
    assert any(not torch.equal(mine[name], others[name]) for name in mine)


def test_fitting_minimises_the_mean_squared_error_over_the_shards_tokens(qwen, new_critics, world):
    """The head's gradient at V = 0, by hand: −2/N Σ_t R_t h_t, with h_t from plain transformers."""
    rollout, critics = make_synthetic_rollout(), new_critics()
    shards_MB = two_shards(rollout)
    metrics, optimizers = fit(critics, rollout, shards_MB, world)
    plain = AutoModel.from_pretrained(qwen)
    for m, critic in enumerate(critics):
        gradient, bias, error, n = torch.zeros(1, 32), 0.0, 0.0, 0
        for b in torch.nonzero(shards_MB[m]).flatten().tolist():
            p, r = int(rollout.prompt_len_B[b]), int(rollout.response_len_B[b])
            with torch.no_grad():
                states = plain(rollout.tokens_BS[b : b + 1, : p + r]).last_hidden_state[0, p - 1 : p + r - 1]
            gradient -= 2 * rollout.rewards_B[b] * states.sum(0)
            bias -= 2 * rollout.rewards_B[b].item() * r
            error += rollout.rewards_B[b].item() * r
            n += r
        gradients = full_gradients(critic, optimizers[m])
        assert torch.allclose(gradients["value_head.weight"], gradient / n, atol=1e-5)
        assert gradients["value_head.bias"].item() == pytest.approx(bias / n, rel=1e-5)
        assert metrics[f"critic{m}/loss"] == pytest.approx(error / n, rel=1e-5)


def test_critics_start_from_zero_without_noise_and_learn_to_tell_right_from_wrong(new_critics, world):
    rollout, critics = make_synthetic_rollout(), new_critics()
    # right and wrong responses begin with different tokens
    for b in range(len(rollout)):
        rollout.tokens_BS[b, rollout.prompt_len_B[b]] = 3 if rollout.rewards_B[b] else 4
    values_MBT = ensemble_values(critics, rollout, 4096, world)
    assert (values_MBT == 0).all() and (asyppo.disagreement(values_MBT) == 0).all()
    shards_MB = two_shards(rollout)
    fit(critics, rollout, shards_MB, world, critic_epochs=60, max_grad_norm=1.0)
    values_MBT = ensemble_values(critics, rollout, 4096, world)
    assert torch.equal(values_MBT, ensemble_values(critics, rollout, 4096, world))
    returns_BT = response_rewards(rollout)
    std_BT = asyppo.disagreement(values_MBT)
    metrics = value_metrics(values_MBT, std_BT, returns_BT, rollout, shards_MB)
    for m in range(2):
        assert metrics[f"critic{m}/explained_variance"] > 0.3
        assert metrics[f"critic{m}/value_correct"] > metrics[f"critic{m}/value_wrong"] + 0.3
    # against numpy, on the response tokens alone
    values = values_MBT[:, rollout.mask_BT].double().numpy()
    sigma = np.abs(values[0] - values[1]) / 2
    assert metrics["critic_corr"] == pytest.approx(np.corrcoef(values)[0, 1])
    for q in (10, 50, 90):
        assert metrics[f"value_std_p{q}"] == pytest.approx(np.percentile(sigma, q), rel=1e-4)


def test_explained_variance_of_perfect_constant_and_opposite_values():
    returns = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1.0)
    assert explained_variance(torch.full((4,), 0.3), returns) == pytest.approx(0.0)
    assert explained_variance(1 - returns, returns) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(returns, torch.ones(4)))
