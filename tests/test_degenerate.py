"""Batches at the edge: what is undefined is left out of the metrics, nothing becomes NaN, and what can be learned is."""

import math

import pytest
import torch
from transformers import AutoTokenizer

import train
from actor import load_actor
from critics import load_critic
from distributed import adamw
from rollout import Response, make_rollout, score_responses
from tests.synthetic import full_weights
from verifier import Verifier

LENGTHS = {
    "ordinary": [5, 9, 3, 7, 4, 6, 8, 2],
    "one token each": [1] * 8,
    "one empty answer": [5, 1, 3, 7, 4, 6, 8, 2],  # nothing but the EOS token
}
SOME = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.fixture
def step(qwen, world, monkeypatch, tmp_path):
    """train_step on a batch made by hand. -> metrics, and whether the policy has changed"""

    def run(lengths, rewards, *flags, truncated=False) -> tuple[dict, bool]:
        order = torch.Generator().manual_seed(0)
        tokens = [torch.randint(3, 60, (n - 1,), generator=order).tolist() + [1] for n in lengths]
        rollout = make_rollout([Response([5, 6, 7], t, truncated) for t in tokens], [""] * 8, [""] * 8, rewards, 4)
        flags = ["--critics", qwen, "--prompts-per-step", "2", "--group-size", "4", "--out", str(tmp_path), *flags]
        args = train.parse_args(["--model", qwen, *flags, "--lr", "1e-3", "--no-gradient-checkpointing"])
        actor = load_actor(qwen, world, torch.float32)
        critics = [load_critic(qwen, world, torch.float32) for _ in range(args.n_critics)]
        rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(actor, rollout, args.token_budget, world, 1.0)
        monkeypatch.setattr(train, "sample_rollout", lambda *ignored: (rollout, [None] * 8))
        before = full_weights(actor)
        metrics, _ = train.train_step(
            train.Run(
                args, world, AutoTokenizer.from_pretrained(qwen), None, [], [], None, Verifier(), actor,
                adamw(actor, args.lr), critics, [adamw(critic, args.critic_lr) for critic in critics],
            ),
            1,
        )  # fmt: skip
        assert all(math.isfinite(value) for value in metrics.values()), metrics
        return metrics, any(not torch.equal(before[name], x) for name, x in full_weights(actor).items())

    return run


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(
    "rewards", [SOME, [0.0] * 8, [1.0] * 8, [1.0] * 4 + [0.0] * 4], ids=["some", "none", "all", "by group"]
)
def test_short_responses_and_equal_rewards_give_finite_numbers_and_an_update(step, lengths, rewards):
    metrics, changed = step(LENGTHS[lengths], rewards)
    assert metrics["skipped_updates"] == 0 and changed
    # where no response was wrong, or none was right, no value of such exists
    assert ("critic0/value_wrong" in metrics) == (0.0 in rewards) and ("critic0/value_correct" in metrics) == (1.0 in rewards)
    assert ("critic0/explained_variance" in metrics) == (len(set(rewards)) == 2)
    n_tokens = sum(LENGTHS[lengths])
    assert metrics["adv_masked_frac"] == pytest.approx(round(0.2 * n_tokens) / n_tokens)


def test_a_batch_of_truncated_responses_is_learned_from_and_counted(step):
    metrics, changed = step(LENGTHS["ordinary"], SOME, truncated=True)
    assert metrics["truncated_frac"] == 1.0 and metrics["skipped_updates"] == 0 and changed


def test_critics_that_agree_everywhere_still_mask_exactly_the_share_asked_for(step, monkeypatch):
    monkeypatch.setattr(train, "ensemble_values", lambda critics, rollout, *_: 0.5 * rollout.mask_BT.float().expand(2, -1, -1))
    metrics, changed = step(LENGTHS["ordinary"], SOME)
    assert metrics["value_std_p90"] == 0 and "critic_corr" not in metrics, "two constants have no correlation"
    assert metrics["adv_masked_frac"] == metrics["entropy_filtered_frac"] == pytest.approx(round(0.2 * 44) / 44)
    assert changed


def test_a_batch_whose_tokens_are_all_masked_leaves_the_policy_as_it_is(step):
    metrics, changed = step(LENGTHS["ordinary"], SOME, "--mask-fraction", "1", "--filter-fraction", "1")
    assert metrics["policy_loss"] == 0 == metrics["grad_norm"] and metrics["skipped_updates"] == 0
    assert metrics["adv_masked_frac"] == metrics["entropy_filtered_frac"] == 1 and not changed


def test_one_critic_gives_values_but_no_disagreement_and_says_so_once(step, capsys):
    metrics, changed = step(LENGTHS["ordinary"], SOME, "--n-critics", "1")
    assert "value_std_p50" not in metrics and "critic_corr" not in metrics and changed
    assert metrics["adv_masked_frac"] == 0 == metrics["entropy_filtered_frac"]
    assert capsys.readouterr().err.count("One critic has no disagreement") == 1
