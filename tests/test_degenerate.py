"""Batches at the edge: undefined metrics are left out, nothing is NaN, and what can be learned is."""

import math

import pytest
import torch

import train
from rollout import Response, make_rollout
from tests.synthetic import full_weights
from updates import score_responses

LENGTHS = {
    "ordinary": [5, 9, 3, 7, 4, 6, 8, 2],
    "one token each": [1] * 8,
    "one empty answer": [5, 1, 3, 7, 4, 6, 8, 2],  # nothing but the EOS token
}
SOME = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.fixture
def step(qwen, world, monkeypatch, tmp_path):
    """train_step on a batch made by hand. -> metrics, and whether the policy has changed"""
    common = (
        f"--model {qwen} --critics {qwen} --data tiny/train.jsonl --n-problems 2 --out {tmp_path}/run "
        "--prompts-per-step 2 --group-size 4 --lr 1e-3 --no-gradient-checkpointing"
    ).split()

    def one_step(lengths, rewards, *flags, truncated=False) -> tuple[dict, bool]:
        order = torch.Generator().manual_seed(0)
        tokens = [torch.randint(3, 60, (n - 1,), generator=order).tolist() + [1] for n in lengths]
        responses = [Response([5, 6, 7], t, truncated) for t in tokens]
        rollout = make_rollout(responses, golds=[""] * 8, answers=[""] * 8, rewards=rewards, group_size=4)
        run = train.set_up(train.parse_args([*common, *flags]), world)
        scores = score_responses(run.actor, rollout, run.args.token_budget, world)
        rollout.old_logp_BT, rollout.old_entropy_BT, rollout.old_slope_BT = scores
        monkeypatch.setattr(train, "sample_rollout", lambda run, step, metrics: rollout)
        before = full_weights(run.actor)
        metrics, _, _ = train.train_step(run, step=1)
        assert all(math.isfinite(value) for value in metrics.values()), metrics
        return metrics, any(not torch.equal(before[name], x) for name, x in full_weights(run.actor).items())

    return one_step


def skipped(metrics: dict) -> float:
    """Updates of actor and critics that were not applied."""
    return sum(value for key, value in metrics.items() if key.endswith("skipped_updates"))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(
    "rewards", [SOME, [0.0] * 8, [1.0] * 8, [1.0] * 4 + [0.0] * 4],
    ids=["some", "none", "all", "by group"]
)
def test_short_responses_and_equal_rewards_give_finite_numbers_and_an_update(step, lengths, rewards):
    metrics, changed = step(LENGTHS[lengths], rewards)
    assert skipped(metrics) == 0 and changed
    # where no response was wrong, or none was right, no value of such exists
    assert ("critic0/value_wrong" in metrics) == (0.0 in rewards)
    assert ("critic0/value_correct" in metrics) == (1.0 in rewards)
    assert ("critic0/explained_variance" in metrics) == (len(set(rewards)) == 2)
    n_tokens = sum(LENGTHS[lengths])
    assert metrics["adv_masked_frac"] == pytest.approx(round(0.2 * n_tokens) / n_tokens)


def test_a_batch_of_truncated_responses_is_learned_from_and_counted(step):
    metrics, changed = step(LENGTHS["ordinary"], SOME, truncated=True)
    assert metrics["truncated_frac"] == 1.0 and skipped(metrics) == 0 and changed


def test_critics_that_agree_everywhere_still_mask_exactly_the_share_asked_for(step, monkeypatch):
    def halves(critics, rollout, token_budget, world):
        return 0.5 * rollout.mask_BT.float().expand(2, -1, -1)

    monkeypatch.setattr(train, "ensemble_values", halves)
    metrics, changed = step(LENGTHS["ordinary"], SOME)
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
