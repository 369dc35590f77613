"""The critics: shards, the fit, what is measured of them, and the remedies that are off by default."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModel

import asyppo
import train
from critics import adaptive_fraction, ensemble_values, gated, inverse_group_std, shard, selected_states, targets
from critics import unseen_values
from engine.log import Log
from engine.metrics import Timer, correlation_metrics, explained_variance, share_within, value_metrics
from engine.streams import generator
from engine.updates import adamw
from tests.runs import rows
from tests.synthetic import fit, full_gradients, full_weights, make_synthetic_rollout, response_rewards
from tests.synthetic import rollout_of, same_weights, settings

SOME = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]  # means of the two groups of four: 0.5 and 0.25


def two_shards(rollout) -> torch.Tensor:
    return shard(rollout.group_B, 2, "group", generator(0, "shards", 1))


def measure(values_MBT, returns_BT, rollout, shards_MB) -> dict[str, float]:
    unseen_BT, std_BT = unseen_values(values_MBT, shards_MB), asyppo.disagreement(values_MBT)
    return value_metrics(values_MBT, unseen_BT, std_BT, returns_BT, rollout, shards_MB)


@pytest.fixture
def fitted(new_critics, world):
    """fitted(rollout, shards, returns=None, **settings of fit) -> weights of each critic, metrics, critics"""

    def fit_new(rollout, shards_MB, returns_BT=None, **changes):
        critics = new_critics(len(shards_MB))
        metrics, _ = fit(critics, rollout, shards_MB, world, returns_BT, **changes)
        return [full_weights(critic) for critic in critics], metrics, critics

    return fit_new


# -- step 2: shards ------------------------------------------------------------------------------------------
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


def test_the_other_ways_to_shard_give_whole_prompts_or_everything():
    group_B = torch.arange(30) // 5
    shards_MB = shard(group_B, 2, "prompt", generator(0, "shards", 1))
    assert (shards_MB.sum(0) == 1).all() and shards_MB.sum(1).tolist() == [15, 15]
    for group in range(6):
        assert shards_MB[:, group_B == group].all(1).sum() == 1
    assert shard(group_B, 3, "none", generator(0, "shards", 1)).all()


# -- step 3: the fit -----------------------------------------------------------------------------------------
def test_a_critic_never_sees_another_shards_responses(new_critics, world):
    def weights_after_fitting(spoil: bool):
        rollout = make_synthetic_rollout()
        shards_MB = two_shards(rollout)
        returns_BT = response_rewards(rollout)
        if spoil:
            # other tokens and rewards in everything that critic 1 learns from; the lengths stay
            others = torch.nonzero(shards_MB[1]).flatten()
            for b in others.tolist():
                start = int(rollout.prompt_len_B[b])
                response = slice(start, start + int(rollout.response_len_B[b]))
                rollout.tokens_BS[b, response] = (rollout.tokens_BS[b, response] + 7) % 60
            returns_BT[others] = 1 - returns_BT[others]
        critics = new_critics()
        fit(critics, rollout, shards_MB, world, returns_BT, epochs=3, minibatch_size=6)
        return [full_weights(c) for c in critics]

    mine, others = weights_after_fitting(spoil=False)
    mine_spoilt, others_spoilt = weights_after_fitting(spoil=True)
    assert same_weights(mine, mine_spoilt)
    assert not same_weights(others, others_spoilt) and not same_weights(mine, others)


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
    fit(critics, rollout, shards_MB, world, epochs=60, max_grad_norm=1.0)
    values_MBT = ensemble_values(critics, rollout, 4096, world)
    assert torch.equal(values_MBT, ensemble_values(critics, rollout, 4096, world))
    metrics = measure(values_MBT, response_rewards(rollout), rollout, shards_MB)
    for m in range(2):
        assert metrics[f"critic{m}/explained_variance"] > 0.3
        assert metrics[f"critic{m}/value_correct"] > metrics[f"critic{m}/value_wrong"] + 0.3
    # against numpy, on the response tokens alone
    values = values_MBT[:, rollout.mask_BT].double().numpy()
    sigma = np.abs(values[0] - values[1]) / 2
    assert metrics["critic_corr"] == pytest.approx(np.corrcoef(values)[0, 1])
    for q in (10, 50, 90):
        assert metrics[f"value_std_p{q}"] == pytest.approx(np.percentile(sigma, q), rel=1e-4)


@pytest.mark.parametrize("size, steps", [
    # 3 groups of 5 make shards of 8 and 7 responses; None: as many steps as the actor's two minibatches
    (None, [2, 2]), (99, [1, 1]), (7, [2, 1]), (4, [2, 2]), (3, [3, 3]), (1, [8, 7])])
def test_a_critic_takes_an_optimizer_step_for_each_minibatch_of_at_most_so_many_responses(
        new_critics, world, size, steps):
    rollout, critics = make_synthetic_rollout(n_prompts=3, group_size=5), new_critics()
    shards_MB = two_shards(rollout)
    rollout.shards_MB = shards_MB[shards_MB.sum(1).argsort(descending=True)]
    assert rollout.shards_MB.sum(1).tolist() == [8, 7]
    args = settings(minibatch_size=8, critic_minibatch_size=size, critic_epochs=3, critic_order="first", gamma=1.0,
                    critic_lam=1.0, critic_states=None, critic_norm="none", critic_replay=1, offload="none")
    optimizers = [adamw(critic, 1e-2) for critic in critics]
    run = SimpleNamespace(args=args, critics=critics, critic_optimizers=optimizers, actor_optimizer=None, world=world,
                          replay=[])
    train.fit_and_value(run, rollout, 1, Timer(world))
    taken = [{int(state["step"]) for state in optimizer.state.values()} for optimizer in optimizers]
    assert taken == [{3 * n} for n in steps]


def test_targets_are_returns_or_the_lambda_returns_of_each_critics_own_values():
    rollout = rollout_of([3], [1.0])
    returns_BT, before_MBT = torch.tensor([[0.25, 0.5, 1.0]]), torch.tensor([[[0.1, 0.2, 0.4]], [[0.0, 0.0, 0.8]]])
    monte_carlo_MBT = targets(rollout, None, 2, gamma=0.5, lam=1.0)
    assert torch.equal(monte_carlo_MBT, torch.stack([returns_BT] * 2))
    # at λ = 0: r_t + γ V(s_{t+1})
    bootstrapped_MBT = targets(rollout, before_MBT, 2, gamma=0.5, lam=0.0)
    assert torch.allclose(bootstrapped_MBT, torch.tensor([[[0.1, 0.2, 1.0]], [[0.0, 0.4, 1.0]]]))


# -- remedies: states, norm ----------------------------------------------------------------------------------
def test_the_states_at_fractions_of_a_response_worked_by_hand():
    mask_BT = torch.arange(10) < torch.tensor([1, 2, 3, 4, 10])[:, None]
    expected = {
        (0.3, 0.6, 0.9): [{0}, {0, 1}, {0, 1, 2}, {1, 2, 3}, {3, 6, 9}],
        (0.0,): [{0}, {0}, {0}, {0}, {0}],
        (1.0,): [{0}, {1}, {2}, {3}, {9}],
        (0.0, 0.5, 1.0): [{0}, {0, 1}, {0, 1, 2}, {0, 2, 3}, {0, 5, 9}],
    }
    for fractions, states in expected.items():
        selected_BT = selected_states(mask_BT, list(fractions))
        # once each, also where two fractions of a short response meet
        assert set(selected_BT.unique().tolist()) <= {0.0, 1.0}
        assert [set(torch.nonzero(row).flatten().tolist()) for row in selected_BT] == states


@pytest.mark.parametrize("minibatch", [None, 4])
@pytest.mark.parametrize("fractions", [[0.0], [1.0], [0.3, 0.6, 0.9]])
def test_returns_at_other_states_change_nothing_and_the_loss_is_the_mean_over_these(
        fitted, fractions, minibatch):
    rollout = make_synthetic_rollout(seed=5)
    rollout.response_len_B[0] = 1
    rollout.mask_BT[0, 1:] = False
    shards_MB, returns_BT = two_shards(rollout), torch.rand(rollout.mask_BT.shape) + 0.1
    chosen_BT = torch.zeros_like(rollout.mask_BT)
    for b, length in enumerate(rollout.response_len_B.tolist()):
        for fraction in fractions:
            chosen_BT[b, min(math.floor(round(fraction * length, 6)), length - 1)] = True
    elsewhere_BT = torch.where(chosen_BT, returns_BT, 7.0)
    inside_BT = torch.where(chosen_BT, returns_BT + 0.5, returns_BT)
    flags = dict(states=fractions, epochs=2, minibatch_size=minibatch)
    mine, _, _ = fitted(rollout, shards_MB, returns_BT, **flags)
    assert all(map(same_weights, mine, fitted(rollout, shards_MB, elsewhere_BT, **flags)[0]))
    assert not any(map(same_weights, mine, fitted(rollout, shards_MB, inside_BT, **flags)[0]))
    # the first loss is taken at V = 0
    _, logged, _ = fitted(rollout, shards_MB, returns_BT, states=fractions)
    for m in range(2):
        squares = [
            returns_BT[b, t].item() ** 2
            for b in range(len(rollout)) for t in range(rollout.mask_BT.shape[1])
            if shards_MB[m, b] and chosen_BT[b, t]]
        assert logged[f"critic{m}/loss"] == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_a_groups_scale_is_the_inverse_deviation_within_the_shard_with_a_floor_if_all_rewards_are_equal():
    rewards_B = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1])
    group_B = torch.tensor([0] * 4 + [1] * 4 + [2] * 4 + [3] + [4] * 3)
    one_of_four, half = 4 / math.sqrt(3), 2.0  # 1 / √(1/4 · 3/4), 1 / √(1/2 · 1/2)
    # equal rewards count as if one differed: √3/4 of four, √2/3 of three; a single response: 1
    expected = [one_of_four] * 4 + [half] * 4 + [one_of_four] * 4 + [1.0] + [3 / math.sqrt(2)] * 3
    everything = torch.ones(16, dtype=torch.bool)
    scaled = [x / (sum(expected) / 16) for x in expected]  # mean 1 over the shard
    assert inverse_group_std(rewards_B, group_B, everything).tolist() == pytest.approx(scaled)
    # a shard with 1, 0 of the first group, 1, 1 of the second, one response of the third, none of the others
    shard_B = torch.zeros(16, dtype=torch.bool)
    shard_B[[0, 3, 4, 5, 9]] = True
    scale_B = inverse_group_std(rewards_B, group_B, shard_B)
    assert scale_B[shard_B].tolist() == pytest.approx([10 / 9] * 4 + [5 / 9])
    assert (scale_B[~shard_B] == 0).all()
    # rewards of the group that are outside the shard do not count
    rewards_B = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    group_B, shard_B = torch.tensor([0] * 8 + [1] * 4), torch.tensor([True] * 4 + [False] * 4 + [True] * 4)
    mean = (one_of_four + half) / 2
    expected = [one_of_four / mean] * 4 + [0.0] * 4 + [half / mean] * 4
    assert inverse_group_std(rewards_B, group_B, shard_B).tolist() == pytest.approx(expected)


def test_the_normalised_loss_is_the_mean_over_tokens_with_weights_of_mean_1_over_the_shards_responses(fitted):
    rollout = make_synthetic_rollout(group_size=8)
    shards_MB = two_shards(rollout)
    _, logged, _ = fitted(rollout, shards_MB, norm="std")
    for m in range(2):
        inverse, weighted, n_tokens = [], 0.0, 0
        for group in range(4):
            members = [b for b in range(len(rollout)) if shards_MB[m, b] and rollout.group_B[b] == group]
            rewards = [rollout.rewards_B[b].item() for b in members]
            deviation = np.std(rewards) or np.std([1] + [0] * (len(members) - 1))
            inverse += [1 / deviation] * len(members)
            for b in members:
                length = rollout.response_len_B[b].item()
                weighted += length * rollout.rewards_B[b].item() / deviation  # (0 − R)² = R for 0 and 1
                n_tokens += length
        assert len(set(inverse)) > 1
        assert logged[f"critic{m}/loss"] == pytest.approx(weighted / np.mean(inverse) / n_tokens, rel=1e-5)


def test_groups_with_equal_deviations_are_fitted_as_without_normalisation(fitted):
    rollout = make_synthetic_rollout()
    shards_MB = two_shards(rollout)
    for b in range(len(rollout)):  # one right response in each shard's part of each group
        part = [c for c in range(b) if rollout.group_B[c] == rollout.group_B[b]]
        part = [c for c in part if (shards_MB[:, c] == shards_MB[:, b]).all()]
        rollout.rewards_B[b] = float(not part)
    plain, scaled = (fitted(rollout, shards_MB, norm=norm)[0] for norm in ("none", "std"))
    for a, b in zip(plain, scaled):
        assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_neutral_settings_leave_every_bit_as_it_is_without_them(fitted):
    rollout = make_synthetic_rollout()  # responses of at most 20 tokens
    shards_MB = two_shards(rollout)
    every_state = [(i + 0.5) / 40 for i in range(40)]
    plain, metrics, _ = fitted(rollout, shards_MB, epochs=2, minibatch_size=6)
    neutral, same, _ = fitted(rollout, shards_MB, epochs=2, minibatch_size=6, states=every_state, norm="none")
    assert all(map(same_weights, plain, neutral)) and metrics == same


# -- remedies: crossfit, gate, adaptive mask -----------------------------------------------------------------
@pytest.mark.parametrize("n_critics, flags", [(2, {}), (3, dict(norm="std")), (2, dict(states=[0.3, 0.9]))])
def test_the_crossfit_value_of_a_response_does_not_know_its_return(fitted, world, flags, n_critics):
    """If a response's reward flips, its own baseline stays to the last bit and others change."""
    rollout = make_synthetic_rollout(n_prompts=2)
    shards_MB = shard(rollout.group_B, n_critics, "group", generator(0, "shards", 1))

    def baseline(ensemble):
        models = fitted(rollout, shards_MB, minibatch_size=6, **flags)[2]
        return asyppo.aggregate(ensemble_values(models, rollout, 4096, world), ensemble, shards_MB)

    before = {ensemble: baseline(ensemble) for ensemble in ("crossfit", "mean")}
    for b in (0, 7):
        rollout.rewards_B[b] = 1 - rollout.rewards_B[b]
        after = {ensemble: baseline(ensemble) for ensemble in ("crossfit", "mean")}
        rollout.rewards_B[b] = 1 - rollout.rewards_B[b]
        assert torch.equal(after["crossfit"][b], before["crossfit"][b])
        assert not torch.equal(after["crossfit"], before["crossfit"])
        assert not torch.equal(after["mean"][b], before["mean"][b])


def test_unseen_values_are_those_of_the_critics_not_fitted_on_the_response():
    values_MBT = torch.tensor([[[0.1], [0.2]], [[0.3], [0.4]]])
    shards_MB = torch.tensor([[True, False], [False, True]])
    assert torch.equal(unseen_values(values_MBT, shards_MB), torch.tensor([[0.3], [0.2]]))
    shards_MB[1, 0] = True  # no critic is left for the first response
    assert unseen_values(values_MBT, shards_MB) is None


@pytest.mark.parametrize("explained, closed", [(0.1, 0.0), (0.0, 1.0), (-3.0, 1.0), (math.nan, 1.0)])
def test_the_gate_takes_reward_minus_group_mean_if_critics_explain_nothing(explained, closed):
    rollout = rollout_of([1, 2] * 4, SOME)
    raw_BT = torch.rand(8, 2)
    gated_BT, is_closed = gated(raw_BT, rollout, explained)
    assert is_closed == closed
    centred = [0.5, -0.5, -0.5, 0.5, -0.25, -0.25, 0.75, -0.25]
    expected_BT = torch.tensor([[x, x * (b % 2)] for b, x in enumerate(centred)]) if closed else raw_BT
    assert torch.allclose(gated_BT, expected_BT)


@pytest.mark.parametrize("explained, k", [
    (-1.0, 0.2), (0.0, 0.2), (0.25, 0.15), (0.75, 0.05), (1.0, 0.0), (math.nan, 0.2)])
def test_the_adaptive_fraction_shrinks_with_the_variance_left_to_explain(explained, k):
    assert adaptive_fraction(explained) == pytest.approx(k)


# -- metrics -------------------------------------------------------------------------------------------------
def test_explained_variance_of_perfect_constant_and_opposite_values():
    returns = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1.0)
    assert explained_variance(torch.full((4,), 0.3), returns) == pytest.approx(0.0)
    assert explained_variance(1 - returns, returns) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(returns, torch.ones(4)))


def test_the_share_of_variance_within_responses_worked_by_hand():
    nan = math.nan
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    # values 0, 2 and 4: variance 8/3, of which (1 + 1 + 0)/3 lies within the first response
    assert share_within(torch.tensor([[0.0, 2.0, nan], [4.0, nan, nan]]), mask_BT) == pytest.approx(0.25)
    mask_BT = torch.tensor([[True, True, True], [True, True, False]])
    flat = torch.tensor([[0.25, 0.25, 0.25], [0.75, 0.75, nan]])
    assert share_within(flat, mask_BT) == 0
    same_mean = torch.tensor([[0.0, 0.5, 1.0], [0.25, 0.75, nan]])
    assert share_within(same_mean, mask_BT) == pytest.approx(1)
    assert math.isnan(share_within(torch.zeros(2, 3), mask_BT))  # no variance; the log leaves NaN out


def test_the_share_within_is_what_one_way_analysis_of_variance_gives():
    rollout = make_synthetic_rollout()
    x_BT = torch.randn(rollout.mask_BT.shape)
    responses = [x_BT[b, :n].double().numpy() for b, n in enumerate(rollout.response_len_B.tolist())]
    everything = np.concatenate(responses)
    between = sum(len(x) * (x.mean() - everything.mean()) ** 2 for x in responses)
    expected = 1 - between / ((everything - everything.mean()) ** 2).sum()
    assert share_within(x_BT, rollout.mask_BT) == pytest.approx(expected)


def test_the_ensembles_explained_variance_is_that_of_its_mean_value_and_held_out_that_of_unseen_critics():
    rollout = make_synthetic_rollout()
    shards_MB, returns_BT = two_shards(rollout), response_rewards(rollout)
    values_MBT = returns_BT + 0.4 * torch.randn(2, *returns_BT.shape)
    std_BT = asyppo.disagreement(values_MBT)
    metrics = measure(values_MBT, returns_BT, rollout, shards_MB)
    means, unseen, returns = [], [], []
    for b, length in enumerate(rollout.response_len_B.tolist()):
        for t in range(length):
            pair = values_MBT[:, b, t].double().tolist()
            means.append(sum(pair) / 2)
            unseen.append(pair[1] if shards_MB[0, b] else pair[0])
            returns.append(rollout.rewards_B[b].item())
    for name, values in (("explained_variance", means), ("explained_variance_heldout", unseen)):
        left = np.var(np.array(returns) - np.array(values))
        assert metrics[f"ensemble/{name}"] == pytest.approx(1 - left / np.var(returns), rel=1e-5)
    # the mean of two independent errors is better than either
    assert metrics["ensemble/explained_variance"] > metrics["critic0/explained_variance"]
    assert metrics["value_std_within"] == share_within(std_BT, rollout.mask_BT)
    assert metrics["value_within"] == share_within(values_MBT.mean(0), rollout.mask_BT)


def test_values_and_sigma_are_correlated_with_entropy_and_with_the_objectives_gradient_in_the_logits():
    rollout = make_synthetic_rollout()
    mask_BT, shape = rollout.mask_BT, rollout.mask_BT.shape
    torch.manual_seed(0)
    logits_BTV = (3 * torch.randn(*shape, 9)).requires_grad_()
    targets_BT1 = torch.randint(9, (*shape, 1))
    logp_BTV = torch.log_softmax(logits_BTV, -1)
    logp_BT = logp_BTV.gather(2, targets_BT1).squeeze(2)
    rollout.old_entropy_BT = torch.distributions.Categorical(logits=logits_BTV.detach()).entropy()
    (grad_BTV,) = torch.autograd.grad(logp_BT.sum(), logits_BTV, retain_graph=True)
    rollout.old_slope_BT = grad_BTV.norm(dim=2)
    advantages_BT, values_MBT = torch.randn(shape), torch.randn(2, *shape)
    data = asyppo.PolicyData(logp_BT.detach(), advantages_BT, mask_BT, mask_BT)
    terms_BT = asyppo.objective(logp_BT, None, data, clip_low=0.2, clip_high=0.2, entropy_coef=0.0)
    (grad_BTV,) = torch.autograd.grad(terms_BT.sum(), logits_BTV)
    std_BT = asyppo.disagreement(values_MBT)
    metrics = correlation_metrics(values_MBT, std_BT, advantages_BT, rollout)
    expected = {}
    for name, x_BT in (("value", values_MBT.mean(0)), ("value_std", std_BT)):
        for of, y_BT in (("entropy", rollout.old_entropy_BT), ("gradient", grad_BTV.norm(dim=2))):
            expected[f"{name}_{of}_corr"] = np.corrcoef(x_BT[mask_BT], y_BT[mask_BT])[0, 1]
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_metrics_that_do_not_exist_are_nan_and_the_others_finite(reward):
    rollout = rollout_of([3, 1, 4, 2], [reward] * 4)
    shards_MB = torch.tensor([[True, True, False, False], [False, False, True, True]])
    metrics = measure(torch.rand(2, *rollout.mask_BT.shape), response_rewards(rollout), rollout, shards_MB)
    missing = "value_wrong" if reward else "value_correct"
    for key, value in metrics.items():
        assert math.isnan(value) == (key.endswith(missing) or "explained_variance" in key), key


def test_the_log_leaves_out_metrics_that_do_not_exist(tmp_path, world):
    Log(tmp_path, 0, 1, None, None, world).write(1, {"a": 0.5, "b": math.nan, "c": math.inf})
    assert rows(tmp_path) == [{"step": 1, "a": 0.5}]


def test_correlations_are_measured_in_evaluated_steps_only(step_on):
    names = {f"{x}_{of}_corr" for x in ("value", "value_std") for of in ("entropy", "gradient")}

    def measured(*flags):
        metrics = step_on(rollout_of([5, 9, 3, 7, 4, 6, 8, 2], SOME), *flags)[0]
        return {name for name in names if math.isfinite(metrics.get(name, math.nan))}

    assert measured("--eval-every", 1) == names and measured("--eval-every", 2) == set()
    # one critic has values, but no disagreement
    one_critic = {"value_entropy_corr", "value_gradient_corr"}
    assert measured("--eval-every", 1, "--n-critics", 1) == one_critic


def test_explained_variance_is_of_returns_and_not_of_targets_that_hold_the_critics_own_values(step_on):
    rollout = rollout_of([5, 9, 3, 7, 4, 6, 8, 2], SOME)
    metrics = step_on(rollout, "--critic-lam", 0.5, "--critic-lr", 1e-2)[0]
    for m, fitted_B in enumerate(rollout.shards_MB):
        mask_BT = rollout.mask_BT & ~fitted_B[:, None]
        returns_N, values_N = response_rewards(rollout)[mask_BT], rollout.values_MBT[m][mask_BT]
        explained = 1 - (returns_N - values_N).double().numpy().var() / returns_N.double().numpy().var()
        assert metrics[f"critic{m}/explained_variance_heldout"] == pytest.approx(explained, abs=1e-5)
