"""What was learned about critics in 2026: each flag means what it says, what is logged is what it is called.

The warm-up, for which whole runs are needed, is in test_warmup.py.
"""

import math

import numpy as np
import pytest
import torch

import asyppo
import head
import train
import updates
from critics import correlation_metrics, ensemble_values, inverse_group_std, shard, share_within, state_counts
from critics import value_metrics
from distributed import generator
from rollout import Response, make_rollout
from tests.synthetic import fit, full_weights, make_synthetic_rollout, response_rewards, same_weights
from updates import score_responses

LENGTHS = [5, 9, 3, 7, 4, 6, 8, 2]
REWARDS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]  # means of the two groups of four: 0.5 and 0.25


def two_shards(rollout, step: int = 1) -> torch.Tensor:
    return shard(rollout.group_B, 2, "group", generator(0, "shards", step))


@pytest.fixture
def fitted(new_critics, world):
    """fitted(rollout, shards, returns=None, **flags) -> each critic's weights after its fit, what was logged,
    and the critics"""

    def fit_new(rollout, shards_MB, returns_BT=None, **flags):
        models = new_critics(len(shards_MB))
        logged, _ = fit(models, rollout, shards_MB, world, returns_BT, **flags)
        return [full_weights(model) for model in models], logged, models

    return fit_new


@pytest.fixture
def step(qwen, world, monkeypatch, tmp_path):
    """train_step on a batch made by hand, with values made by hand. -> metrics, what the policy learns from

    values(shards_MB) -> every critic's value of every response, [M, B]
    """
    common = (
        f"--model {qwen} --critics {qwen} --data tiny/train.jsonl --n-problems 2 "
        "--prompts-per-step 2 --group-size 4 --no-gradient-checkpointing --no-whiten"
    ).split()

    def one_step(values, *flags, rewards=REWARDS):
        order = torch.Generator().manual_seed(0)
        tokens = [torch.randint(3, 60, (n - 1,), generator=order).tolist() + [1] for n in LENGTHS]
        responses = [Response([5, 6, 7], t, False) for t in tokens]
        rollout = make_rollout(responses, golds=[""] * 8, answers=[""] * 8, rewards=rewards, group_size=4)
        out = ["--out", str(tmp_path / str(len(list(tmp_path.iterdir()))))]
        run = train.set_up(train.parse_args([*common, *out, *flags]), world)
        scores = score_responses(run.actor, rollout, run.args.token_budget, world)
        rollout.old_logp_BT, rollout.old_entropy_BT, rollout.old_slope_BT = scores
        shards_MB = shard(rollout.group_B, 2, "group", generator(0, "shards", 1))
        values_MBT = values(shards_MB)[:, :, None] * rollout.mask_BT
        monkeypatch.setattr(train, "sample_rollout", lambda run, step, metrics: rollout)
        monkeypatch.setattr(train, "shard", lambda *_: shards_MB)
        monkeypatch.setattr(train, "ensemble_values", lambda *_: values_MBT)
        metrics, _, data = train.train_step(run, step=1)
        assert all(math.isfinite(x) for x in metrics.values()), metrics
        return metrics, data

    return one_step


def shrunk(share: float):
    """Both critics say the same: share · reward; they explain 1 − (1 − share)² of the returns."""
    return lambda shards_MB: share * torch.tensor(REWARDS).expand(2, -1)


# -- --critic-minibatch-size ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, steps, largest",
    # 3 groups of 5 make shards of 8 and 7 responses
    [(None, (1, 1), 8), (99, (1, 1), 8), (7, (2, 1), 7), (4, (2, 2), 4), (3, (3, 3), 3), (1, (8, 7), 1)],
)
def test_a_critic_takes_an_optimizer_step_for_each_minibatch_of_at_most_so_many_responses(
    new_critics, world, monkeypatch, size, steps, largest
):
    rollout, seen = make_synthetic_rollout(n_prompts=3, group_size=5), []
    shards_MB = two_shards(rollout)
    shards_MB = shards_MB[shards_MB.sum(1).argsort(descending=True)]
    assert shards_MB.sum(1).tolist() == [8, 7]
    real = updates.minibatches

    def remember(*args):
        seen.append(real(*args))
        return seen[-1]

    monkeypatch.setattr(updates, "minibatches", remember)
    flags = dict(critic_minibatch_size=size, critic_epochs=3, minibatch_size=15)
    _, optimizers = fit(new_critics(), rollout, shards_MB, world, **flags)
    taken = [{int(state["step"]) for state in optimizer.state.values()} for optimizer in optimizers]
    assert taken == [{3 * n} for n in steps]
    assert max(len(part) for epoch in seen for part in epoch) == largest
    for i, epoch in enumerate(seen):  # three passes of each critic, of all its responses
        assert sorted(sum(epoch, [])) == torch.nonzero(shards_MB[i // 3]).flatten().tolist()


# -- --critic-states -----------------------------------------------------------------------------------------


def test_the_states_at_fractions_of_a_response_worked_by_hand():
    mask_BT = torch.arange(10) < torch.tensor([1, 2, 3, 4, 10])[:, None]
    expected = {
        (0.3, 0.6, 0.9): [{0}, {0, 1}, {0, 1, 2}, {1, 2, 3}, {3, 6, 9}],
        (0.0,): [{0}, {0}, {0}, {0}, {0}],
        (1.0,): [{0}, {1}, {2}, {3}, {9}],
        (0.0, 0.5, 1.0): [{0}, {0, 1}, {0, 1, 2}, {0, 2, 3}, {0, 5, 9}],
    }
    for fractions, states in expected.items():
        counts_BT = state_counts(mask_BT, list(fractions))
        # once each, where two fractions of a short response meet as well
        assert set(counts_BT.unique().tolist()) <= {0.0, 1.0}
        assert [set(torch.nonzero(row).flatten().tolist()) for row in counts_BT] == states


@pytest.mark.parametrize("minibatch", [None, 4])
@pytest.mark.parametrize("fractions", [[0.0], [1.0], [0.3, 0.6, 0.9]])
def test_returns_at_other_states_change_nothing_and_the_loss_is_the_mean_over_these(
    fitted, fractions, minibatch
):
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
    flags = dict(critic_states=fractions, critic_epochs=2, critic_minibatch_size=minibatch)
    mine, _, _ = fitted(rollout, shards_MB, returns_BT, **flags)
    assert all(map(same_weights, mine, fitted(rollout, shards_MB, elsewhere_BT, **flags)[0]))
    assert not any(map(same_weights, mine, fitted(rollout, shards_MB, inside_BT, **flags)[0]))
    # the first loss is taken at V = 0
    _, logged, _ = fitted(rollout, shards_MB, returns_BT, critic_states=fractions)
    for m in range(2):
        squares = [
            returns_BT[b, t].item() ** 2
            for b in range(len(rollout)) for t in range(rollout.mask_BT.shape[1])
            if shards_MB[m, b] and chosen_BT[b, t]
        ]
        assert logged[f"critic{m}/loss"] == pytest.approx(sum(squares) / len(squares), rel=1e-5)


# -- --critic-norm -------------------------------------------------------------------------------------------


def test_a_groups_scale_is_one_over_its_shards_deviation_with_a_floor_where_all_are_equal():
    rewards_B = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1])
    group_B = torch.tensor([0] * 4 + [1] * 4 + [2] * 4 + [3] + [4] * 3)
    one_of_four, half = 4 / math.sqrt(3), 2.0  # 1 / √(1/4 · 3/4), 1 / √(1/2 · 1/2)
    # no spread: as if one of the four were wrong; a single response can have none: 1; three: as if one, √2/3
    expected = [one_of_four] * 4 + [half] * 4 + [one_of_four] * 4 + [1.0] + [3 / math.sqrt(2)] * 3
    everything = torch.ones(16, dtype=torch.bool)
    assert inverse_group_std(rewards_B, group_B, everything).tolist() == pytest.approx(expected)
    # of a shard: 1, 0 of the first group, 1, 1 of the second, one response of the third, none of the others
    shard_B = torch.zeros(16, dtype=torch.bool)
    shard_B[[0, 3, 4, 5, 9]] = True
    scale_B = inverse_group_std(rewards_B, group_B, shard_B)
    assert scale_B[shard_B].tolist() == pytest.approx([2.0, 2.0, 2.0, 2.0, 1.0])
    assert (scale_B[~shard_B] == 0).all()


def test_the_normalised_loss_is_the_mean_weighted_by_these_scales(fitted):
    rollout = make_synthetic_rollout()
    shards_MB = two_shards(rollout)
    _, logged, _ = fitted(rollout, shards_MB, critic_norm="std")
    for m in range(2):
        above = below = 0.0
        for group in range(4):
            members = [b for b in range(len(rollout)) if shards_MB[m, b] and rollout.group_B[b] == group]
            rewards = [rollout.rewards_B[b].item() for b in members]
            deviation = np.std(rewards) or np.std([1] + [0] * (len(members) - 1))
            for b in members:
                n_tokens = rollout.response_len_B[b].item()
                above += n_tokens * rollout.rewards_B[b].item() / deviation  # (0 − R)² = R for 0 and 1
                below += n_tokens / deviation
        assert logged[f"critic{m}/loss"] == pytest.approx(above / below, rel=1e-5)


def test_groups_of_one_spread_are_fitted_as_without_the_flag(fitted):
    rollout = make_synthetic_rollout()
    shards_MB = two_shards(rollout)
    for b in range(len(rollout)):  # in each part of each group one right response
        part = [c for c in range(b) if rollout.group_B[c] == rollout.group_B[b]]
        part = [c for c in part if (shards_MB[:, c] == shards_MB[:, b]).all()]
        rollout.rewards_B[b] = float(not part)
    plain, scaled = (fitted(rollout, shards_MB, critic_norm=how)[0] for how in ("none", "std"))
    for a, b in zip(plain, scaled):
        assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


# -- --aggregate crossfit ------------------------------------------------------------------------------------


def test_crossfit_is_the_mean_of_the_critics_that_were_not_fitted_on_the_response():
    values_MB = torch.tensor([[1.0, 2.0, 4.0], [10.0, 20.0, 40.0], [100.0, 200.0, math.nan]])
    shards_MB = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
    crossfit_BT = asyppo.aggregate(values_MB[:, :, None], "crossfit", shards_MB)
    # (10 + 100)/2, (2 + 200)/2, (4 + 40)/2: what the fitted one says is not looked at
    assert crossfit_BT.flatten().tolist() == [55.0, 101.0, 22.0]


@pytest.mark.parametrize("n_critics", [2, 3])
@pytest.mark.parametrize("flags", [{}, dict(critic_norm="std"), dict(critic_states=[0.3, 0.9])], ids=str)
def test_the_crossfit_value_of_a_response_does_not_know_its_return(fitted, world, flags, n_critics):
    """Each return in turn is turned round: its own baseline stays to the last bit, others' change."""
    rollout = make_synthetic_rollout(n_prompts=2)
    shards_MB = shard(rollout.group_B, n_critics, "group", generator(0, "shards", 1))

    def baseline(how):
        models = fitted(rollout, shards_MB, minibatch_size=12, **flags)[2]
        return asyppo.aggregate(ensemble_values(models, rollout, 4096, world), how, shards_MB)

    before = {how: baseline(how) for how in ("crossfit", "mean")}
    for b in (0, 7):
        rollout.rewards_B[b] = 1 - rollout.rewards_B[b]
        after = {how: baseline(how) for how in ("crossfit", "mean")}
        rollout.rewards_B[b] = 1 - rollout.rewards_B[b]
        assert torch.equal(after["crossfit"][b], before["crossfit"][b])
        assert not torch.equal(after["crossfit"], before["crossfit"])
        assert not torch.equal(after["mean"][b], before["mean"][b])


def test_the_advantage_of_a_step_is_held_against_the_critic_that_did_not_learn_from_the_response(step):
    seen = {}

    def one_and_two(shards_MB):
        seen["by critic 0"] = shards_MB[0]
        return torch.tensor([[0.1], [0.2]]).expand(2, 8)

    _, data = step(one_and_two, "--aggregate", "crossfit")
    expected_B = torch.tensor(REWARDS) - torch.where(seen["by critic 0"], 0.2, 0.1)
    assert torch.allclose(data.advantage[:, 0], expected_B)


# -- --gate --------------------------------------------------------------------------------------------------

GROUP_MEANS = torch.tensor([0.5] * 4 + [0.25] * 4)


@pytest.mark.parametrize(
    "share, explained, is_open",
    [(1.0, 1.0, True), (0.5, 0.75, True), (0.0, 0.0, False), (-1.0, -3.0, False), (3.0, -3.0, False)],
)
def test_critics_that_explain_nothing_are_replaced_by_the_mean_of_the_group(step, share, explained, is_open):
    metrics, data = step(shrunk(share), "--gate")
    assert metrics["ensemble/explained_variance_heldout"] == pytest.approx(explained, abs=1e-6)
    rewards_B = torch.tensor(REWARDS)
    baseline_B = share * rewards_B if is_open else GROUP_MEANS
    mask_BT = torch.arange(9) < torch.tensor(LENGTHS)[:, None]
    expected_BT = torch.where(mask_BT, (rewards_B - baseline_B)[:, None], 0.0)
    assert torch.allclose(data.advantage, expected_BT, atol=1e-6)
    # without the flag never
    _, data = step(shrunk(share))
    expected_BT = torch.where(mask_BT, (rewards_B - share * rewards_B)[:, None], 0.0)
    assert torch.allclose(data.advantage, expected_BT, atol=1e-6)


def test_what_critics_know_of_the_responses_that_they_were_fitted_on_does_not_open_the_gate(step):
    """All right where fitted, a little wrong elsewhere: their mean, 0.25 + 0.4 R, explains 0.64."""

    def learned_by_heart(shards_MB):
        rewards_B = torch.tensor(REWARDS)
        return torch.where(shards_MB, rewards_B, 0.5 - 0.2 * rewards_B)

    metrics, data = step(learned_by_heart, "--gate")
    assert metrics["ensemble/explained_variance"] == pytest.approx(0.64)
    assert metrics["ensemble/explained_variance_heldout"] == pytest.approx(1 - 1.2**2)
    assert data.advantage[:, 0].tolist() == (torch.tensor(REWARDS) - GROUP_MEANS).tolist()


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_a_batch_of_equal_rewards_has_nothing_to_explain_and_the_gate_gives_no_gradient(step, reward):
    metrics, data = step(shrunk(0.5), "--gate", "--mask-fraction", "adaptive", rewards=[reward] * 8)
    assert "ensemble/explained_variance_heldout" not in metrics and (data.advantage == 0).all()
    assert metrics["adv_masked_frac"] == pytest.approx(round(0.2 * 44) / 44)


# -- --mask-fraction adaptive --------------------------------------------------------------------------------


@pytest.mark.parametrize("explained, k", [(-1.0, 0.2), (0.0, 0.2), (0.25, 0.15), (0.75, 0.05), (1.0, 0.0)])
def test_the_adaptive_mask_shrinks_with_what_is_left_to_explain(step, explained, k):
    share = 1 - math.sqrt(1 - explained)
    metrics, data = step(shrunk(share), "--mask-fraction", "adaptive")
    assert metrics["ensemble/explained_variance_heldout"] == pytest.approx(explained, abs=1e-6)
    assert 44 - int(data.advantage_mask.sum()) == round(k * 44)
    # the entropy filter's share does not adapt
    assert metrics["entropy_filtered_frac"] == pytest.approx(round(0.2 * 44) / 44)


# -- none of them --------------------------------------------------------------------------------------------


def test_flags_at_their_neutral_values_leave_every_bit_as_it_is_without_them(fitted):
    rollout = make_synthetic_rollout()  # 24 responses of at most 20 tokens, shards of 12
    shards_MB = two_shards(rollout)
    every_state = [(i + 0.5) / 40 for i in range(40)]
    neutral = dict(critic_minibatch_size=6, critic_states=every_state, critic_norm="none")
    plain, logged, _ = fitted(rollout, shards_MB, critic_epochs=2, minibatch_size=12)
    with_flags, same, _ = fitted(rollout, shards_MB, critic_epochs=2, minibatch_size=12, **neutral)
    assert all(map(same_weights, plain, with_flags)) and logged == same


def test_no_flag_is_on_by_default():
    args = train.parse_args(["--model", "Qwen/Qwen3-4B-Base"])  # the embedded default asks for one of them
    assert (args.critic_minibatch_size, args.critic_warmup, args.critic_states) == (None, 0, None)
    assert (args.critic_norm, args.aggregate, args.gate, args.mask_fraction) == ("none", "mean", False, 0.2)


# -- what is logged ------------------------------------------------------------------------------------------


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
    assert math.isnan(share_within(torch.zeros(2, 3), mask_BT))  # there is no variance: left out of the log


def test_the_share_within_is_what_one_way_analysis_of_variance_gives():
    rollout = make_synthetic_rollout()
    x_BT = torch.randn(rollout.mask_BT.shape)
    responses = [x_BT[b, :n].double().numpy() for b, n in enumerate(rollout.response_len_B.tolist())]
    everything = np.concatenate(responses)
    between = sum(len(x) * (x.mean() - everything.mean()) ** 2 for x in responses)
    expected = 1 - between / ((everything - everything.mean()) ** 2).sum()
    assert share_within(x_BT, rollout.mask_BT) == pytest.approx(expected)


def test_the_ensembles_explained_variance_is_its_mean_values_and_held_out_that_of_unseen_critics():
    rollout = make_synthetic_rollout()
    shards_MB, returns_BT = two_shards(rollout), response_rewards(rollout)
    values_MBT = returns_BT + 0.4 * torch.randn(2, *returns_BT.shape)
    std_BT = asyppo.disagreement(values_MBT)
    metrics = value_metrics(values_MBT, std_BT, returns_BT, rollout, shards_MB)
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


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, 8.0], ids=["uncertain", "confident"])
def test_the_slope_is_the_length_of_the_log_probabilitys_gradient_in_the_logits(
    monkeypatch, scale, temperature
):
    """Also where p is 1 within 1e-6: there a difference of squares would be rounding noise."""
    monkeypatch.setattr(head, "HEAD_CHUNK", 7)
    torch.manual_seed(0)
    hidden_NH, weight_VH = scale * torch.randn(60, 4), torch.randn(50, 4)
    logits_NV = (hidden_NH @ weight_VH.T).double() / temperature
    targets_N = torch.where(torch.arange(60) % 3 == 0, torch.randint(50, (60,)), logits_NV.argmax(1))
    logits_NV.requires_grad_()
    logp_N = torch.log_softmax(logits_NV, -1).gather(1, targets_N[:, None])
    (grad_NV,) = torch.autograd.grad(logp_N.sum(), logits_NV)
    logp_N, entropy_N, slope_N = head.score(hidden_NH, weight_VH, targets_N, temperature)
    assert torch.allclose(slope_N.double(), grad_NV.norm(dim=1), rtol=1e-3, atol=1e-12)


def test_the_signals_are_correlated_with_entropy_and_with_the_objectives_gradient_in_the_logits():
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
