"""Shards, and what each critic learns from."""

import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import asyppo
from actor import load_actor, load_tokenizer
from critics import ensemble_values, explained_variance, fit_critics, load_critic, save_critic, shard, value_metrics
from distributed import UserError, adamw, generator
from rollout import score_responses
from tests.synthetic import full_gradients, full_weights, make_synthetic_rollout, settings


def optimizers(critics):
    return [adamw(c, 1e-2) for c in critics]


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


def test_a_critic_never_sees_another_shards_responses(qwen, world):
    def weights_after_fitting(spoil: bool):
        rollout = make_synthetic_rollout()
        shards_MB = shard(rollout.group_B, 2, "group", generator(0, "shards", 1))
        returns_BT = rollout.mask_BT * rollout.rewards_B[:, None]
        if spoil:
            # other tokens, other rewards for everything that critic 1 learns from; lengths stay
            others = torch.nonzero(shards_MB[1]).flatten()
            for b in others.tolist():
                start, end = int(rollout.prompt_len_B[b]), int(rollout.prompt_len_B[b] + rollout.response_len_B[b])
                rollout.tokens_BS[b, start:end] = (rollout.tokens_BS[b, start:end] + 7) % 60
            returns_BT[others] = 1 - returns_BT[others]
        critics = [load_critic(qwen, world, torch.float32) for _ in range(2)]
        fit_critics(
            critics,
            optimizers(critics),
            rollout,
            returns_BT.expand(len(shards_MB), -1, -1),
            shards_MB,
            settings(critic_epochs=3, minibatch_size=12),
            1,
            world,
        )
        return [full_weights(c) for c in critics]

    (mine, others), (mine_spoilt, others_spoilt) = weights_after_fitting(False), weights_after_fitting(True)
    assert all(torch.equal(mine[name], mine_spoilt[name]) for name in mine)
    assert any(not torch.equal(others[name], others_spoilt[name]) for name in others)
    assert any(not torch.equal(mine[name], others[name]) for name in mine)


def test_fitting_minimises_the_mean_squared_error_over_the_shards_tokens(qwen, world):
    """The head's gradient at V = 0, by hand: −2/N Σ_t R_t h_t, with h_t from plain transformers."""
    from transformers import AutoModel

    rollout = make_synthetic_rollout()
    shards_MB = shard(rollout.group_B, 2, "group", generator(0, "shards", 1))
    returns_BT = rollout.mask_BT * rollout.rewards_B[:, None]
    critics = [load_critic(qwen, world, torch.float32) for _ in range(2)]
    adamw = optimizers(critics)
    metrics = fit_critics(critics, adamw, rollout, returns_BT.expand(len(shards_MB), -1, -1), shards_MB, settings(), 1, world)
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
        gradients = full_gradients(critic, adamw[m])
        assert torch.allclose(gradients["head.weight"], gradient / n, atol=1e-5)
        assert gradients["head.bias"].item() == pytest.approx(bias / n, rel=1e-5)
        assert metrics[m]["loss"] == pytest.approx(error / n, rel=1e-5)


def test_critics_start_from_zero_without_noise_and_learn_to_tell_right_from_wrong(qwen, world):
    rollout = make_synthetic_rollout()
    # right and wrong responses begin with different tokens
    for b in range(len(rollout.texts)):
        rollout.tokens_BS[b, rollout.prompt_len_B[b]] = 3 if rollout.rewards_B[b] else 4
    returns_BT = rollout.mask_BT * rollout.rewards_B[:, None]
    critics = [load_critic(qwen, world, torch.float32) for _ in range(2)]
    values_MBT = ensemble_values(critics, rollout, 4096, world)
    assert (values_MBT == 0).all() and (asyppo.disagreement(values_MBT) == 0).all()
    shards_MB = shard(rollout.group_B, 2, "group", generator(0, "shards", 1))
    args = settings(critic_epochs=60, max_grad_norm=1.0)
    fit_critics(critics, optimizers(critics), rollout, returns_BT.expand(len(shards_MB), -1, -1), shards_MB, args, 1, world)
    values_MBT = ensemble_values(critics, rollout, 4096, world)
    assert torch.equal(values_MBT, ensemble_values(critics, rollout, 4096, world))
    metrics = value_metrics(
        values_MBT, asyppo.disagreement(values_MBT), returns_BT.expand(len(shards_MB), -1, -1), rollout, shards_MB
    )
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


def test_a_saved_critic_comes_back_with_its_head_and_a_wrong_head_is_refused(qwen, world, tmp_path):
    critic = load_critic(qwen, world, torch.float32)
    rollout = make_synthetic_rollout()
    returns_BT = rollout.mask_BT * rollout.rewards_B[:, None]
    everything = torch.ones(1, 24, dtype=torch.bool)
    fit_critics(
        [critic],
        optimizers([critic]),
        rollout,
        returns_BT.expand(len(everything), -1, -1),
        everything,
        settings(critic_epochs=3),
        1,
        world,
    )
    save_critic(critic, load_tokenizer(qwen, "--critics"), tmp_path, world)
    again = load_critic(str(tmp_path), world, torch.float32)
    assert torch.equal(ensemble_values([critic], rollout, 4096, world), ensemble_values([again], rollout, 4096, world))
    head = load_file(tmp_path / "value_head.safetensors")
    save_file({"weight": head["weight"][:, :8].contiguous(), "bias": head["bias"]}, tmp_path / "value_head.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        load_critic(str(tmp_path), world, torch.float32)


def test_weights_stay_in_fp32_under_bf16_compute_and_dropout_is_off_everywhere(tmp_path, world):
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=2, attention_dropout=0.5
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    rollout = make_synthetic_rollout()
    actor, critic = (load(str(tmp_path), world, torch.bfloat16) for load in (load_actor, load_critic))
    assert {p.dtype for model in (actor, critic) for p in model.parameters()} == {torch.float32}
    assert actor.training and critic.training
    for model, rest in ((actor, [1.0]), (critic, [])):
        first, second = (score_responses(model, rollout, 4096, world, *rest)[0] for _ in range(2))
        assert torch.equal(first, second)


def test_a_model_whose_weights_are_incomplete_is_refused(qwen, tmp_path, world):
    shutil.copytree(qwen, tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing, layers.1.mlp.up_proj.weight"):
        load_critic(str(tmp_path / "model"), world, torch.float32)
    (tmp_path / "model/model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="could not be loaded"):
        load_actor(str(tmp_path / "model"), world, torch.float32)
