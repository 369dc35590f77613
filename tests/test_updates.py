"""The update: packing, minibatches, weights, padding, and steps on degenerate batches."""

import math
from types import SimpleNamespace

import pytest
import torch

import asyppo
import train
from critics import ensemble_values, shard
from engine.errors import UserError
from engine.metrics import value_metrics
from engine.models import load_actor
from engine.streams import generator
from engine.updates import adamw, minibatches, pack, score_responses, token_weights
from tests.synthetic import fit, full_weights, make_synthetic_rollout, response_rewards, rollout_of
from tests.synthetic import same_weights, settings

# -- micro-batches, minibatches, weights ---------------------------------------------------------------------
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("budget", [50, 64, 333, 10**6])
def test_micro_batches_hold_every_response_once_within_the_budget(world_size, budget):
    lengths = torch.randint(1, 51, (97,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = list(range(5, 90))
    ranks = pack(rows, lengths, budget, world_size)
    assert len(ranks) == world_size and len({len(r) for r in ranks}) == 1
    counted = [row for r in ranks for m in r if m.weight == 1 for row in m.rows]
    assert sorted(counted) == rows
    for m in (m for r in ranks for m in r):
        assert m.weight in (0, 1) and len(m.rows) * max(lengths[row] for row in m.rows) <= budget
    # no rank does much more than another
    work = [sum(sum(lengths[row] for row in m.rows) for m in r if m.weight) for r in ranks]
    assert max(work) <= 1.3 * sum(work) / world_size + 50


def test_a_response_longer_than_the_budget_is_an_error_not_dropped():
    with pytest.raises(UserError, match="--token-budget 10"):
        pack([0, 1], [5, 11], 10, 1)


def realistic_lengths(median: int, spread: float) -> list[int]:
    """32 prompts of 50 to 300 tokens, each with 32 log-normal responses of at most 8,192 tokens.

    Two thirds of the responses are within a factor of `spread` of the median.
    """
    order = torch.Generator().manual_seed(0)
    responses = median * torch.exp(math.log(spread) * torch.randn(1024, generator=order))
    prompts = torch.randint(50, 301, (32,), generator=order).repeat_interleave(32)
    return (prompts + responses.round().clamp(1, 8192)).int().tolist()


@pytest.mark.parametrize("world_size", [1, 2, 8])
@pytest.mark.parametrize("budget", [16384, 32768])
@pytest.mark.parametrize("median, spread", [(500, 4), (2000, 4), (1000, 2)])
def test_padding_is_under_five_percent_and_no_rank_waits_long(median, spread, budget, world_size):
    lengths = realistic_lengths(median, spread)
    ranks = pack(list(range(1024)), lengths, budget, world_size)
    assert sorted(row for rank in ranks for m in rank if m.weight for row in m.rows) == list(range(1024))
    # the model computes a rectangle for each micro-batch
    area = [[len(m.rows) * max(lengths[row] for row in m.rows) for m in rank] for rank in ranks]
    total = sum(map(sum, area))
    assert max(map(max, area)) <= budget and len({len(rank) for rank in area}) == 1
    assert 1 - sum(lengths) / total < 0.05
    # ranks meet in every layer of every round, so each waits for the round's largest
    assert world_size * sum(map(max, zip(*area))) / total < 1.1


@pytest.mark.parametrize("loss_norm", ["sequence", "token"])
def test_the_weights_of_a_batch_sum_to_one(loss_norm):
    mask_BT = torch.arange(7) < torch.tensor([7, 1, 3])[:, None]
    weights_BT = token_weights(mask_BT, loss_norm)
    assert weights_BT.sum().item() == pytest.approx(1.0) and (weights_BT[~mask_BT] == 0).all()


def test_minibatches_cover_every_response_once():
    parts = minibatches(list(range(10, 23)), 4, torch.Generator().manual_seed(0))
    assert sorted(r for part in parts for r in part) == list(range(10, 23))
    assert {len(part) for part in parts} == {3, 4}


# -- padding -------------------------------------------------------------------------------------------------
def test_no_model_and_no_update_reads_the_padding(qwen, new_critics, world):
    def step(spoil: bool):
        def garbage(x_BT):
            return torch.where(mask_BT, x_BT, math.nan if spoil else 0.0)

        rollout = make_synthetic_rollout()
        mask_BT = rollout.mask_BT
        if spoil:
            width = torch.arange(rollout.tokens_BS.shape[1])
            padding_BS = width >= (rollout.prompt_len_B + rollout.response_len_B)[:, None]
            rollout.tokens_BS[padding_BS] = torch.randint(3, 60, (int(padding_BS.sum()),))
        actor, critics = load_actor(qwen, world, torch.float32), new_critics(1)
        old_logp_BT, old_entropy_BT = score_responses(actor, rollout, 120, world)
        returns_BT = garbage(response_rewards(rollout))
        shards_MB = shard(rollout.group_B, 1, "none", generator(0, "shards"))
        fit_metrics, _ = fit(critics, rollout, shards_MB, world, returns_BT, epochs=2)
        values_MBT = ensemble_values(critics, rollout, 120, world)
        spoilt_MBT = garbage(values_MBT)
        metrics = value_metrics(spoilt_MBT, None, spoilt_MBT[0], returns_BT, rollout, shards_MB)
        torch.manual_seed(1)
        data = asyppo.PolicyData(
            old_logp=garbage(old_logp_BT), advantage_mask=mask_BT, entropy_filter=mask_BT,
            advantage=garbage(torch.randn(mask_BT.shape)))
        optimizer, args = adamw(actor, 1e-2), settings(epochs=2)
        run = SimpleNamespace(args=args, actor=actor, actor_optimizer=optimizer, world=world)
        logged = train.update_policy(run, rollout, data, step=1)
        weights = [x for model in (actor, *critics) for x in full_weights(model).values()]
        return [old_logp_BT, old_entropy_BT, values_MBT, *weights], [fit_metrics, metrics, logged]

    (tensors, numbers), (spoilt_tensors, spoilt_numbers) = step(spoil=False), step(spoil=True)
    assert all(torch.equal(a, b) for a, b in zip(tensors, spoilt_tensors))
    assert numbers == spoilt_numbers


def test_the_value_of_a_state_does_not_depend_on_the_token_that_follows_it(new_critics, world):
    """values[t] is V(s_t), before token t (verl#1960); token t changes the values from t + 1 on."""
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


# -- degenerate batches --------------------------------------------------------------------------------------
LENGTHS = {
    "ordinary": [5, 9, 3, 7, 4, 6, 8, 2],
    "one token each": [1] * 8,
    "one empty answer": [5, 1, 3, 7, 4, 6, 8, 2],  # nothing but the EOS token
}
SOME = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.fixture
def step(step_on, around):
    """step(lengths, rewards, *flags) -> finite metrics, and whether the policy has changed"""

    def one_step(lengths, rewards, *flags, truncated=False, values=None) -> tuple[dict, bool]:
        before = {}
        around("load_actor", after=lambda actor: before.update(full_weights(actor)) or actor)
        rollout = rollout_of(lengths, rewards, truncated)
        metrics, _, run = step_on(rollout, "--lr", 1e-3, *flags, values=values)
        assert not any(math.isinf(x) for x in metrics.values())
        finite = {key: x for key, x in metrics.items() if not math.isnan(x)}
        # these do not exist in some batches, for instance the variance explained of equal returns
        may_lack = ("explained_variance", "heldout", "correct", "wrong", "within", "corr")
        assert all(key.endswith(may_lack) for key in metrics.keys() - finite.keys())
        return finite, not same_weights(before, full_weights(run.actor))

    return one_step


def skipped(metrics: dict) -> float:
    """Count the updates of actor and critics that were not applied."""
    return sum(value for key, value in metrics.items() if key.endswith("skipped_updates"))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("rewards", [SOME, [0.0] * 8, [1.0] * 8, [1.0] * 4 + [0.0] * 4],
                         ids=["some", "none", "all", "by group"])
def test_short_responses_and_equal_rewards_give_finite_numbers_and_an_update(step, lengths, rewards):
    metrics, changed = step(LENGTHS[lengths], rewards)
    assert skipped(metrics) == 0 and changed
    # a mean over wrong responses does not exist if all are right, and so on
    assert ("critic0/value_wrong" in metrics) == (0.0 in rewards)
    assert ("critic0/value_correct" in metrics) == (1.0 in rewards)
    assert ("critic0/explained_variance" in metrics) == (len(set(rewards)) == 2)
    n_tokens = sum(LENGTHS[lengths])
    assert metrics["adv_masked_frac"] == pytest.approx(round(0.2 * n_tokens) / n_tokens)


def test_a_batch_of_truncated_responses_is_learned_from_and_counted(step):
    metrics, changed = step(LENGTHS["ordinary"], SOME, truncated=True)
    assert metrics["truncated_frac"] == 1.0 and skipped(metrics) == 0 and changed


def test_critics_that_agree_everywhere_still_mask_exactly_the_requested_share(step):
    metrics, changed = step(LENGTHS["ordinary"], SOME, values=lambda shards_MB: torch.full((2, 8), 0.5))
    assert metrics["value_std_p90"] == 0 and "critic_corr" not in metrics, "two constants have no correlation"
    share = pytest.approx(round(0.2 * 44) / 44)
    assert metrics["adv_masked_frac"] == share == metrics["entropy_filtered_frac"] and changed


def test_a_batch_whose_tokens_are_all_masked_leaves_the_policy_as_it_is(step):
    metrics, changed = step(LENGTHS["ordinary"], SOME, "--mask-fraction", "1", "--filter-fraction", "1")
    assert metrics["policy_loss"] == 0 == metrics["grad_norm"] and skipped(metrics) == 0
    assert metrics["adv_masked_frac"] == metrics["entropy_filtered_frac"] == 1 and not changed


def test_one_critic_gives_values_but_no_disagreement_and_says_so_once(step, capsys):
    metrics, changed = step(LENGTHS["ordinary"], SOME, "--n-critics", "1")
    assert "value_std_p50" not in metrics and "critic_corr" not in metrics and changed
    assert metrics["adv_masked_frac"] == 0 == metrics["entropy_filtered_frac"]
    assert capsys.readouterr().err.count("One critic has no disagreement") == 1
