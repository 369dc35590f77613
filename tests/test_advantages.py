"""Advantages and returns against their definitions and against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch

import asyppo


def brute_force_gae(rewards, values, gamma, lam):
    """The definition, one response in float64: A_t = Σ_{u ≥ t} (γλ)^(u−t) δ_u."""
    values = [*values, 0.0]
    deltas = [rewards[t] + gamma * values[t + 1] - values[t] for t in range(len(rewards))]
    n = len(deltas)
    return [sum((gamma * lam) ** (u - t) * deltas[u] for u in range(t, n)) for t in range(n)]


@pytest.mark.parametrize("gamma, lam", [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0), (1.0, 0.5)])
def test_gae_is_the_definition_for_every_response_length(gamma, lam):
    rng = np.random.default_rng(0)
    lengths = [1, 2, 7, 12]
    mask_BT = torch.arange(12) < torch.tensor(lengths)[:, None]
    rewards_BT = torch.tensor(rng.normal(size=(4, 12)))
    values_BT = torch.tensor(rng.normal(size=(4, 12)))
    ours_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, gamma, lam)
    for b, length in enumerate(lengths):
        rewards, values = (x_BT[b, :length].tolist() for x_BT in (rewards_BT, values_BT))
        expected = brute_force_gae(rewards, values, gamma, lam)
        assert ours_BT[b, :length].tolist() == pytest.approx(expected, rel=1e-12)
        assert (ours_BT[b, length:] == 0).all()


def test_gae_worked_by_hand():
    # values 0.5, 0.25, reward 1 at the end, γ = 0.5, λ = 0.5:
    # δ_2 = 1 − 0.25 = 0.75; δ_1 = 0.5·0.25 − 0.5 = −0.375; A_2 = 0.75; A_1 = −0.375 + 0.25·0.75 = −0.1875
    rewards_BT, values_BT = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]])
    advantages_BT = asyppo.gae(rewards_BT, values_BT, torch.ones(1, 2, dtype=torch.bool), gamma=0.5, lam=0.5)
    assert advantages_BT.tolist() == [[-0.1875, 0.75]]


def test_at_gamma_and_lambda_one_the_advantage_is_reward_minus_value():
    mask_BT = torch.tensor([[True, True, True], [True, False, False]])
    values_BT = torch.tensor([[0.5, 0.25, 0.75], [0.125, 9.0, 9.0]])
    rewards_BT = asyppo.terminal_rewards(torch.tensor([1.0, 0.0]), mask_BT)
    assert rewards_BT.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    advantages_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, gamma=1.0, lam=1.0)
    assert advantages_BT.tolist() == [[0.5, 0.75, 0.25], [-0.125, 0.0, 0.0]]


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
def test_discounted_returns_are_the_discounted_sum_of_the_rewards_that_follow(gamma):
    """Token by token, and what λ-returns are at λ = 1, whatever the values."""
    rng = np.random.default_rng(0)
    lengths = [1, 2, 7, 12]
    mask_BT = torch.arange(12) < torch.tensor(lengths)[:, None]
    rewards_BT, values_BT = (torch.tensor(rng.normal(size=(4, 12))) for _ in range(2))
    returns_BT = asyppo.discounted_returns(rewards_BT, mask_BT, gamma)
    for b, length in enumerate(lengths):
        for t in range(length):
            expected = sum(gamma ** (u - t) * rewards_BT[b, u].item() for u in range(t, length))
            assert returns_BT[b, t].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert (returns_BT[b, length:] == 0).all()
    by_lambda_BT = asyppo.lambda_returns(rewards_BT, values_BT, mask_BT, gamma, lam=1.0)
    assert torch.allclose(returns_BT, by_lambda_BT, rtol=1e-12, atol=1e-12)


def test_critic_targets_at_lambda_one_are_discounted_returns_whatever_the_values():
    mask_BT = torch.ones(1, 3, dtype=torch.bool)
    rewards_BT = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    for values in ([0.0, 0.0, 0.0], [3.0, -2.0, 0.5]):
        values_BT = torch.tensor([values], dtype=torch.float64)
        returns_BT = asyppo.lambda_returns(rewards_BT, values_BT, mask_BT, gamma=0.5, lam=1.0)
        assert returns_BT[0].tolist() == pytest.approx([0.25, 0.5, 1.0], abs=1e-12)


def test_critic_targets_at_lambda_zero_are_one_step_bootstraps():
    mask_BT = torch.ones(1, 3, dtype=torch.bool)
    rewards_BT, values_BT = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.1, 0.2, 0.4]])
    returns_BT = asyppo.lambda_returns(rewards_BT, values_BT, mask_BT, gamma=1.0, lam=0.0)
    assert returns_BT[0].tolist() == pytest.approx([0.2, 0.4, 1.0])


def test_group_advantages_worked_by_hand():
    rewards_B, group_B = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 0, 0, 1, 1])
    centred = asyppo.group_advantages(rewards_B, group_B, scale_by_std=False)
    assert centred.tolist() == [0.75, -0.25, -0.25, -0.25, 0.0, 0.0]
    # population deviation of 1, 0, 0, 0 is √(3/16)
    scaled = asyppo.group_advantages(rewards_B, group_B, scale_by_std=True)
    assert scaled.tolist() == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3, 0.0, 0.0])


@pytest.mark.parametrize("scale_by_std", [False, True])
def test_equal_rewards_of_any_size_give_a_group_no_advantage(scale_by_std):
    for n in (1, 8, 16, 32):
        for reward in (0.1, 0.3, 0.7, 1 / 3, 1e6 + 0.1):
            rewards_B, group_B = torch.full((n,), reward), torch.zeros(n, dtype=torch.long)
            assert (asyppo.group_advantages(rewards_B, group_B, scale_by_std) == 0).all(), (n, reward)


def test_whitened_advantages_have_mean_zero_and_deviation_one_over_response_tokens():
    torch.manual_seed(0)
    mask_BT = torch.rand(8, 30) < 0.6
    x_BT = torch.randn(8, 30) * 3 + 5
    white_N = asyppo.whiten(x_BT, mask_BT)[mask_BT].double()
    assert white_N.mean().abs() < 1e-6 and (white_N.std(correction=0) - 1).abs() < 1e-6
    order = torch.argsort(x_BT[mask_BT])
    assert (white_N[order].diff() >= 0).all()


@pytest.mark.parametrize("n, value", [(1, 0.7), (5, 0.1), (5, 0.0), (1000, 1 / 3)])
def test_whitening_constants_gives_zero_not_nan(n, value):
    white = asyppo.whiten(torch.full((1, n), value), torch.ones(1, n, dtype=torch.bool))
    assert (white == 0).all()


def test_whitening_does_not_hide_what_is_not_finite():
    """A NaN must reach the gradient, where the update is skipped and reported; zeros would pass unseen."""
    white_N = asyppo.whiten(torch.tensor([[1.0, float("nan"), 0.0]]), torch.ones(1, 3, dtype=torch.bool))[0]
    assert white_N.isnan().all()
