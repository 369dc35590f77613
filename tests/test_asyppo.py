"""The equations of asyppo.py against their definitions, a sort, and numbers worked by hand."""

import math

import numpy as np
import pytest
import torch

import asyppo
from engine.updates import token_weights

# -- returns and advantages ----------------------------------------------------------------------------------
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
    """Token by token; and λ-returns at λ = 1 are the same, whatever the values."""
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


def test_lambda_returns_at_lambda_zero_are_one_step_bootstraps():
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


def test_whitening_equal_rewards_gives_zero_and_differing_ones_change_nothing():
    """The advantages of equal rewards are pure critic error."""
    x_BT, mask_BT = torch.randn(3, 5), torch.ones(3, 5, dtype=torch.bool)
    for reward in (0.0, 1.0):
        assert (asyppo.whiten(x_BT, mask_BT, torch.full((3,), reward)) == 0).all()
    mixed = asyppo.whiten(x_BT, mask_BT, torch.tensor([0.0, 1.0, 1.0]))
    assert torch.equal(mixed, asyppo.whiten(x_BT, mask_BT)) and (mixed != 0).all()


def test_whitening_keeps_nan():
    """A NaN must reach the gradient, where the update is skipped and reported; zeros would hide it."""
    white_N = asyppo.whiten(torch.tensor([[1.0, float("nan"), 0.0]]), torch.ones(1, 3, dtype=torch.bool))[0]
    assert white_N.isnan().all()


# -- aggregation and masks -----------------------------------------------------------------------------------
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.2, 1 / 3, 0.999, 1.0])
def test_masks_take_the_exact_fraction_and_agree_with_a_sort(fraction):
    rng = np.random.default_rng(1)
    mask_BT = torch.tensor(rng.random((9, 17)) < 0.7)
    sigma_BT = torch.tensor(rng.permutation(9 * 17).reshape(9, 17).astype(np.float32))
    inside = sorted(sigma_BT[mask_BT].tolist())
    n = round(fraction * len(inside))
    lowest, highest = set(inside[:n]), set(inside[len(inside) - n :])
    advantage_mask_BT = asyppo.advantage_mask(sigma_BT, mask_BT, fraction)
    entropy_filter_BT = asyppo.entropy_filter(sigma_BT, mask_BT, fraction)
    for b in range(9):
        for t in range(17):
            s = sigma_BT[b, t].item()
            assert advantage_mask_BT[b, t].item() == (mask_BT[b, t].item() and s not in lowest)
            assert entropy_filter_BT[b, t].item() == (mask_BT[b, t].item() and s not in highest)


def test_ties_keep_the_fraction_exact_and_favour_no_place_in_the_batch():
    mask_BT = torch.ones(100, 100, dtype=torch.bool)
    masked_BT = ~asyppo.advantage_mask(torch.zeros(100, 100), mask_BT, 0.2)
    assert masked_BT.sum() == 2000
    assert torch.equal(masked_BT, ~asyppo.advantage_mask(torch.zeros(100, 100), mask_BT, 0.2))
    # by position, one of these halves would have all 2000; at random 1000, standard deviation below 40
    for half in (masked_BT[:50], masked_BT[:, :50]):
        assert 840 < half.sum() < 1160
    # the two masks take different tokens: by chance 400 in common, standard deviation 16
    filtered_BT = ~asyppo.entropy_filter(torch.zeros(100, 100), mask_BT, 0.2)
    assert filtered_BT.sum() == 2000 and 330 < (masked_BT & filtered_BT).sum() < 470


def test_the_fraction_is_of_the_whole_batch_not_of_each_response():
    sigma_BT = torch.tensor([[0.1] * 10, [0.9] * 10])
    advantage_mask_BT = asyppo.advantage_mask(sigma_BT, torch.ones(2, 10, dtype=torch.bool), 0.5)
    assert not advantage_mask_BT[0].any() and advantage_mask_BT[1].all()


def test_disagreement_is_the_population_deviation_over_critics():
    # two critics: half their distance; three at 0, 0, 3: mean 1, squares 1, 1, 4 -> √2
    assert asyppo.disagreement(torch.tensor([[[0.2]], [[0.8]]])).item() == pytest.approx(0.3)
    assert asyppo.disagreement(torch.tensor([[[0.0]], [[0.0]], [[3.0]]])).item() == pytest.approx(2**0.5)
    assert asyppo.disagreement(torch.tensor([[[0.7]]])).item() == 0.0


def test_ensemble_value_is_the_mean_or_the_smallest():
    values_MBT = torch.tensor([[[0.25, 1.0]], [[0.75, -1.0]]])
    assert asyppo.aggregate(values_MBT, "mean").tolist() == [[0.5, 0.0]]
    assert asyppo.aggregate(values_MBT, "min").tolist() == [[0.25, -1.0]]


def test_crossfit_is_the_mean_of_the_critics_that_were_not_fitted_on_the_response():
    values_MB = torch.tensor([[1.0, 2.0, 4.0], [10.0, 20.0, 40.0], [100.0, 200.0, math.nan]])
    shards_MB = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    crossfit_BT = asyppo.aggregate(values_MB[:, :, None], "crossfit", shards_MB)
    # (10 + 100)/2, (2 + 200)/2, (4 + 40)/2: the fitted critic is not read
    assert crossfit_BT.flatten().tolist() == [55.0, 101.0, 22.0]


# -- the objective -------------------------------------------------------------------------------------------
def equation_6(logp, old_logp, advantages, entropy, keep_advantage, keep_entropy, lengths, low, high, beta,
               loss_norm):
    """E (1/|o|) Σ_t [I^A min(ρ A, clip(ρ) A) + β I^H H] with plain floats; token: Σ over all / Σ |o|."""
    total = 0.0
    for b, length in enumerate(lengths):
        response = 0.0
        for t in range(length):
            rho = math.exp(logp[b][t] - old_logp[b][t])
            clipped = max(min(rho, 1 + high), 1 - low)
            if keep_advantage[b][t]:
                response += min(rho * advantages[b][t], clipped * advantages[b][t])
            if keep_entropy[b][t]:
                response += beta * entropy[b][t]
        total += response / length / len(lengths) if loss_norm == "sequence" else response / sum(lengths)
    return total


@pytest.mark.parametrize("loss_norm", ["sequence", "token"])
def test_the_objective_is_equation_6(loss_norm):
    torch.manual_seed(0)
    lengths = [1, 4, 9]
    mask_BT = torch.arange(9) < torch.tensor(lengths)[:, None]
    logp, old_logp = (-torch.rand(3, 9, dtype=torch.float64) * 2 for _ in range(2))
    advantages, entropy = torch.randn(3, 9, dtype=torch.float64), torch.rand(3, 9, dtype=torch.float64)
    keep_advantage, keep_entropy = torch.rand(3, 9) < 0.7, torch.rand(3, 9) < 0.7
    data = asyppo.PolicyData(old_logp, advantages, keep_advantage, keep_entropy)
    terms_BT = asyppo.objective(logp, entropy, data, clip_low=0.2, clip_high=0.3, entropy_coef=0.1)
    ours = (token_weights(mask_BT, loss_norm).double() * terms_BT)[mask_BT].sum().item()
    arrays = (logp, old_logp, advantages, entropy, keep_advantage, keep_entropy)
    expected = equation_6(*(x.tolist() for x in arrays), lengths=lengths, low=0.2, high=0.3, beta=0.1,
                          loss_norm=loss_norm)
    assert ours == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ratio, advantage, expected, clipped", [
    (1.5, 2.0, 2.4, True), (1.5, -2.0, -3.0, False), (0.5, 2.0, 1.0, False), (0.5, -2.0, -1.6, True),
    (1.1, 2.0, 2.2, False)])
def test_clipping_worked_by_hand_and_clip_frac_counts_the_tokens_without_gradient(
        ratio, advantage, expected, clipped):
    on, zero = torch.tensor([True]), torch.zeros(1)
    data = asyppo.PolicyData(zero, torch.tensor([advantage]), advantage_mask=on, entropy_filter=on)
    logp = torch.tensor([ratio]).log().requires_grad_()
    settings = dict(clip_low=0.2, clip_high=0.2, entropy_coef=0.0)
    assert asyppo.objective(logp, zero, data, **settings).item() == pytest.approx(expected, rel=1e-6)
    loss, logged = asyppo.policy_loss(logp, torch.full((1,), math.nan), data, **settings)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-expected, rel=1e-6) and (logp.grad == 0).item() == clipped
    assert logged["clip_frac"].item() == clipped
    assert logged["approx_kl"].item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)
    masked = data._replace(advantage_mask=~on)
    assert not asyppo.policy_loss(logp, zero, masked, **settings)[1]["clip_frac"]


def test_masked_tokens_get_no_gradient_but_count_in_the_denominator():
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    logp_BT = torch.full((1, 4), -1.0, requires_grad=True)
    entropy_BT = torch.full((1, 4), 0.5, requires_grad=True)
    data = asyppo.PolicyData(
        old_logp=torch.full((1, 4), -1.0), advantage=torch.ones(1, 4),
        advantage_mask=torch.tensor([[True, True, False, False]]),
        entropy_filter=torch.tensor([[True, False, True, False]]))
    terms_BT = asyppo.objective(logp_BT, entropy_BT, data, clip_low=0.2, clip_high=0.2, entropy_coef=0.01)
    (token_weights(mask_BT, "sequence") * terms_BT).sum().backward()
    assert logp_BT.grad.tolist() == [[0.25, 0.25, 0.0, 0.0]]
    assert entropy_BT.grad.tolist() == [pytest.approx([0.0025, 0.0, 0.0025, 0.0])]


# -- padding -------------------------------------------------------------------------------------------------
def garbage(x_BT, mask_BT, fill):
    return torch.where(mask_BT, x_BT, torch.full_like(x_BT, fill))


def test_no_function_reads_the_padding():
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
            asyppo.entropy_filter(s, mask_BT, 0.3),
        ]

    clean = outputs(0.0)
    for fill in (1e30, -7.0, float("nan"), float("inf")):
        for expected, spoilt in zip(clean, outputs(fill)):
            assert torch.equal(expected, spoilt)
