"""Whole runs and steps of train.py: what they learn, log, save and survive, and what the flags change."""

import copy
import json
import math
import os
import re
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import asyppo
import rollout
import train
from critics import fit_critics, inverse_group_std
from engine.batch import Response, join_rollouts, make_rollout
from engine.command_line import replace_unencodable
from engine.updates import adamw, score_responses
from tests.runs import FEW, ROOT, launch, rows, run, weights
from tests.synthetic import critic_config, full_weights, make_synthetic_rollout, rollout_of, same_weights, settings

# a few responses and one pass over them
SHORT = [*FEW, "--max-new-tokens", 40, "--epochs", 1, "--critic-epochs", 1]

PROMISED = """
step reward_mean reward_std response_len_mean truncated_frac entropy policy_loss clip_frac
clip_frac_last approx_kl grad_norm
adv_mean adv_std adv_masked_frac entropy_filtered_frac
value_mean value_std_p10 value_std_p50 value_std_p90 critic_corr
critic0/loss critic0/explained_variance critic0/value_correct critic0/value_wrong critic0/grad_norm
critic1/loss critic1/explained_variance critic1/value_correct critic1/value_wrong critic1/grad_norm
time/generate time/verify time/fit_critics time/values time/policy time/step tokens_per_s peak_memory_gb
""".split()


# -- one run of each kind ------------------------------------------------------------------------------------
def test_a_run_of_the_default_logs_every_promised_metric_and_samples_of_its_responses(tmp_path):
    said = run("train.py", "--out", tmp_path, "--steps", 2, *FEW, "--group-size", 16).stdout
    metrics = rows(tmp_path)
    assert [m["step"] for m in metrics] == [1, 2]
    for m in metrics:
        assert not [key for key in PROMISED if not math.isfinite(m.get(key, math.nan))]
        assert m["adv_masked_frac"] == pytest.approx(0.2, abs=1e-3) == m["entropy_filtered_frac"]
        assert abs(m["approx_kl_first"]) < 1e-6, "the first update of a rollout is on-policy"
    assert said.count("\nstep ") == 2 and "--resume" in said
    samples = rows(tmp_path, "rollouts.jsonl")
    assert {s["step"] for s in samples} == {1, 2}
    for s in samples:
        assert s["reward"] == float(s["answer"] == s["gold"])
        assert s["truncated"] or s["response"].endswith("<|eos|>")


@pytest.mark.parametrize("algo, critics", [("ppo", 1), ("grpo", 0)])
def test_the_baselines_are_settings_of_the_same_code(tmp_path, algo, critics):
    run("train.py", "--out", tmp_path, "--algo", algo, "--steps", 1, *SHORT, "--group-size", 8)
    (metrics,) = rows(tmp_path)
    assert sum(key.endswith("/loss") for key in metrics) == critics
    assert metrics["adv_masked_frac"] == metrics["entropy_filtered_frac"] == 0 and metrics["grad_norm"] > 0
    assert (tmp_path / "critic0").exists() == bool(critics)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"]["algo"] == algo and config["packages"]["torch"]


@pytest.mark.slow
def test_the_papers_command_runs_with_a_stand_in_for_qwen3(qwen, tmp_path):
    """The paper's setting on a local directory of Qwen3's architecture: only sizes and names differ."""
    name = tmp_path / "Qwen3-stand-in"
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    tokenizer.chat_template = "{{ messages[0].content[:3] }}="
    tokenizer.save_pretrained(name)
    AutoModelForCausalLM.from_pretrained(qwen).save_pretrained(name)
    run("train.py", "--out", tmp_path / "run", "--model", name, "--critics", name, "--dtype", "bf16",
        "--data", ROOT / "tiny/train.jsonl", "--n-problems", 100, "--prompts-per-step", 2, "--group-size", 4,
        "--max-new-tokens", 16, "--steps", 2)
    last = rows(tmp_path / "run")[-1]
    assert last["step"] == 2 and all(math.isfinite(x) for x in last.values())
    # the model's own generation config is saved with it, although no response was drawn by it
    assert json.loads((tmp_path / "run/model/generation_config.json").read_text())["top_k"] == 20


@pytest.mark.slow
def test_the_default_improves_its_reward_and_held_out_accuracy_within_six_steps(tmp_path):
    said = launch("train.py", "--out", tmp_path, "--steps", 6, "--eval-every", 6).stdout
    metrics = rows(tmp_path)
    assert [m["step"] for m in metrics] == list(range(7)) and "held-out accuracy" in said
    assert metrics[-1]["eval/test"] > metrics[0]["eval/test"] + 0.1
    first, last = ([m["reward_mean"] for m in metrics[a:b]] for a, b in ((1, 3), (5, 7)))
    assert sum(last) / 2 > sum(first) / 2 + 0.1


@pytest.mark.slow
def test_a_run_of_two_processes_saves_models_that_plain_transformers_loads(tmp_path):
    out = tmp_path / "run"
    launch("train.py", "--out", out, "--steps", 2, *FEW, "--save-every", 1, processes=2)
    model, tokenizer = (c.from_pretrained(out / "model") for c in (AutoModelForCausalLM, AutoTokenizer))
    base = AutoModelForCausalLM.from_pretrained(ROOT / "tiny/actor")
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters()))
    prompt = tokenizer("3+4-2\n", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=False)[0])
    assert "3+4=7\n7-2=5\n\\boxed{5}<|eos|>" in text
    # the critics can be used again, heads included
    run("train.py", "--out", tmp_path / "again", "--critics", out / "critic0", out / "critic1",
        "--lr", "1e-9", "--critic-lr", "1e-9", "--steps", 1, *FEW)
    before, after = rows(out)[-1]["value_mean"], rows(tmp_path / "again")[-1]["value_mean"]
    assert after == pytest.approx(before, abs=0.1) and abs(after) > 1e-3
    run("evaluate.py", "--model", out / "model", "--benchmarks", "tiny/test.jsonl", "--k", 2,
        "--n-problems", 20, "--max-new-tokens", 80, "--out", tmp_path / "eval", processes=2)
    assert json.loads((tmp_path / "eval/eval.json").read_text())["results"]["test"]["problems"] == 20


# -- critic warm-up ------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_warm_up_of_two_rollouts_fits_the_critics_and_leaves_every_bit_of_the_actor(tmp_path, monkeypatch):
    real, models = train.train_step, {}

    def look(run, step):
        models.setdefault(0, [full_weights(x) for x in (run.actor, *run.critics)])
        result = real(run, step)
        models[step] = [full_weights(x) for x in (run.actor, *run.critics)]
        return result

    monkeypatch.setattr(train, "train_step", look)
    # enough responses for a right one in each shard: from V = 0 and no reward a critic has nothing to learn
    flags = [*SHORT, "--eval-every", 0, "--prompts-per-step", 4, "--group-size", 8, "--max-new-tokens", 80]
    said = run("train.py", "--out", tmp_path, *flags, "--critic-warmup", 2, "--steps", 1).stdout
    for after, changed in enumerate((False, False, True), start=1):
        assert same_weights(models[after][0], models[after - 1][0]) != changed
        assert not same_weights(models[after][1], models[after - 1][1])
        assert not same_weights(models[after][2], models[after - 1][2])
    metrics = rows(tmp_path)
    assert [m["step"] for m in metrics] == [1, 2, 3]
    assert ["policy_loss" in m for m in metrics] == [False, False, True]
    assert all("critic0/loss" in m for m in metrics)
    marked = ["actor not updated" in line for line in said.splitlines() if line.startswith("step ")]
    assert marked == [True, True, False]
    assert f"--resume {tmp_path} --steps 2" in said, "--steps counts the actor's steps"


def without_clock(folder) -> list[dict]:
    return [{k: x for k, x in m.items() if not re.search("time|per_s|memory", k)} for m in rows(folder)]


@pytest.mark.slow
def test_a_run_stopped_in_its_warm_up_and_resumed_equals_a_whole_one_to_the_last_bit(tmp_path, monkeypatch):
    """Its checkpoint holds an optimizer that has made no step yet."""
    flags = [*SHORT, "--critic-warmup", 1, "--steps", 1]
    run("train.py", "--out", tmp_path / "whole", *flags)
    real = train.train_step

    def stop_after(run, step):
        result = real(run, step)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(train, "train_step", stop_after)
    said = run("train.py", "--out", tmp_path / "half", *flags, code=128 + signal.SIGTERM).stdout
    assert "Stopped after step 1: SIGTERM" in said
    monkeypatch.setattr(train, "train_step", real)
    run("train.py", "--out", tmp_path / "half", *flags, "--resume")
    assert same_weights(weights(tmp_path / "whole"), weights(tmp_path / "half"))
    assert without_clock(tmp_path / "half") == without_clock(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) == 2


# -- what is logged ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "encoding, expected", [("ascii", b"? 1 ? 2"), ("latin-1", b"? 1 \xd7 2"), ("utf-8", None)])
def test_a_character_that_the_terminal_lacks_is_printed_as_a_question_mark(
        monkeypatch, tmp_path, encoding, expected):
    text = "σ 1 × 2"
    with (tmp_path / "out").open("w", encoding=encoding) as file:
        monkeypatch.setattr(sys, "stdout", file)
        replace_unencodable()
        print(text, end="", flush=True)
    assert (tmp_path / "out").read_bytes() == (expected or text.encode())


# -- memory --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [pytest.param("fp32", id="whole tensors"),
                                   pytest.param("bf16", id="sharded tensors", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_offloading_changes_no_number_and_moments_leave_memory(tmp_path, around, dtype):
    flags = ["--dtype", dtype, "--steps", 2, *SHORT]
    run("train.py", "--out", tmp_path / "stays", *flags)
    optimizers, seen = [], []

    def remember(optimizer):
        optimizers.append(optimizer)
        return optimizer

    def look():
        # AdamW's states as the process has them while it generates
        states = [x for o in optimizers for state in o.state.values() for x in state.values() if x.dim()]
        assert all(isinstance(x, DTensor) == (dtype == "bf16") for x in states)
        states = [x.to_local() if isinstance(x, DTensor) else x for x in states]
        seen.append((len(states), sum(x.untyped_storage().nbytes() for x in states)))

    around("adamw", after=remember)
    run("train.py", "--out", tmp_path / "all", *flags, "--offload", "all")
    assert all(isinstance(p, DTensor) for o in optimizers for p in o.param_groups[0]["params"])
    optimizers.clear()
    around("sample_rollout", before=look)
    run("train.py", "--out", tmp_path / "leaves", *flags, "--offload", "moments")
    assert [n > 0 for n, _ in seen] == [False, True] and all(n_bytes == 0 for _, n_bytes in seen)
    for name, expected in weights(tmp_path / "stays").items():
        assert torch.equal(expected, weights(tmp_path / "leaves")[name]), name
        assert torch.equal(expected, weights(tmp_path / "all")[name]), name


# -- steps that go wrong -------------------------------------------------------------------------------------
@pytest.mark.slow
def test_an_update_that_is_not_finite_is_skipped_and_saved_and_stops_the_run_if_it_recurs(
        tmp_path, around):
    """The targets of the first critic are spoilt in step 2 only, then in every step."""
    spoilt, step = set(), [0]

    def spoil(targets_MBT):
        step[0] += 1
        if step[0] in spoilt:
            targets_MBT = targets_MBT.clone()
            targets_MBT[0] = math.inf
        return targets_MBT

    around("targets", after=spoil)

    def run_spoilt(out, steps, code):
        spoilt.update(steps)
        step[0] = 0
        return run("train.py", "--out", out, *SHORT, "--steps", 3, "--max-bad-steps", 2, code=code).stdout

    once = tmp_path / "once"
    assert run_spoilt(once, {2}, code=0).count("1 updates SKIPPED") == 1
    metrics = rows(once)
    assert [m["skipped_updates"] for m in metrics] == [0, 1, 0]
    assert "critic0/loss" not in metrics[1] and metrics[2]["critic0/loss"] > 0
    assert all(x.isfinite().all() for x in weights(once).values())
    batch = torch.load(once / "bad-step-2.pt", weights_only=True)
    assert len(batch["answers"]) == 8 and batch["old_logp_BT"].shape == batch["advantage"].shape
    text = run_spoilt(tmp_path / "always", {1, 2, 3}, code=1)
    assert "Stopped after step 2: 2 steps in a row" in text


def nan_values(monkeypatch):
    real = train.ensemble_values
    monkeypatch.setattr(train, "ensemble_values", lambda *args: real(*args) * math.nan)


def nan_rewards(monkeypatch):
    real = rollout.verify
    monkeypatch.setattr(rollout, "verify", lambda responses, *args: (
        real(responses, *args)[0], [math.nan] * len(responses)))


# how many updates are skipped: the actor's, or those of both critics too
@pytest.mark.parametrize("spoil, skipped", [(nan_values, 1), (nan_rewards, 3)])
def test_values_or_rewards_that_are_not_finite_leave_the_policy_as_it_is(
        tmp_path, monkeypatch, spoil, skipped):
    spoil(monkeypatch)
    run("train.py", "--out", tmp_path, *SHORT, "--steps", 1)
    (metrics,) = rows(tmp_path)
    assert metrics["skipped_updates"] == skipped
    assert all(math.isfinite(value) for value in metrics.values()) and (tmp_path / "bad-step-1.pt").exists()
    after, before = weights(tmp_path), load_file(ROOT / "tiny/actor/model.safetensors")
    assert all(torch.equal(after[f"model/model.safetensors: {name}"], x) for name, x in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("flags, learns", [("", False), ("--no-whiten", True)], ids=["whitened", "raw"])
def test_a_batch_without_a_right_answer_teaches_the_critics_and_not_the_policy(tmp_path, flags, learns):
    """Its advantages are what the critics leave unexplained: whitening would make a whole step of them."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"problem": "4-2", "answer": "2"}\n{"problem": "4-2", "answer": "99"}\n')
    run("train.py", "--out", tmp_path / "run", "--data", data, "--n-problems", 0, "--eval-data", "",
        "--steps", 2, "--prompts-per-step", 1, "--group-size", 8, "--entropy-coef", 0,
        "--epochs", 1, "--seed", 1, *flags.split())
    first, second = rows(tmp_path / "run")
    assert first["reward_mean"] > 0 == second["reward_mean"] and second["adv_std"] > 0
    assert second["critic0/grad_norm"] > 0 and (second["grad_norm"] > 0) is learns


# -- flags of the method -------------------------------------------------------------------------------------
# these tests come last: the process group of their steps stays open, and a run starts its own
LENGTHS = [5, 9, 3, 7, 4, 6, 8, 2]
REWARDS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]  # means of the two groups of four: 0.5 and 0.25
VARIANTS = """
--critic-order last | --critic-lam 0.5 | --lam 0.9 | --gamma 0.9 | --shard-by prompt | --aggregate min
--aggregate crossfit | --gate | --mask-by entropy | --mask-by random | --mask-fraction 0.5
--filter-by none | --filter-by entropy | --filter-fraction 0.5 | --entropy-coef 0.05 | --loss-norm token
--minibatch-size 4 | --epochs 2 | --clip-low 0.01 | --clip-high 0.01 | --max-grad-norm 0.01
--critic-minibatch-size 1 | --critic-states 0.3 0.6 | --critic-epochs 1 | --critic-lr 1e-3 | --lr 2e-3
--no-whiten | --n-critics 3 | --shard-by none --critic-minibatch-size 4 | --algo ppo
--algo ppo --critic-norm std | --algo grpo | --algo grpo --no-group-std | --seed 1
"""


def test_every_flag_of_the_method_changes_a_step(open_run, qwen, monkeypatch):
    """A flag that did nothing would make the same update of the policy as no flag, or as another one."""
    run, rollout = open_run(), rollout_of(LENGTHS, REWARDS)
    rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(run.actor, rollout, run.args.token_budget, run.world)
    monkeypatch.setattr(train, "sample_rollout", lambda *_: rollout)
    # several passes, so that the clipping matters
    common = (f"--model {qwen} --prompts-per-step 2 --group-size 4 --lr 1e-3 --critic-lr 1e-2 --epochs 3 "
              "--critic-epochs 3").split()

    def policy_after(flags: str) -> float:
        args = train.parse_args([*common, *flags.split()])
        actor, *critics = (copy.deepcopy(x) for x in (run.actor, *run.critics[:1] * args.n_critics))
        optimizers = [adamw(critic, args.critic_lr) for critic in critics]
        variant = replace(run, args=args, actor=actor, actor_optimizer=adamw(actor, args.lr), critics=critics,
                          critic_optimizers=optimizers)
        train.train_step(variant, 1)
        return sum(p.double().sum().item() for p in actor.parameters())

    variants = ["", *map(str.strip, VARIANTS.strip().replace("\n", "|").split("|"))]
    policies = {flags: policy_after(flags) for flags in variants}
    equal = [sorted(flags for flags in variants if policies[flags] == x) for x in set(policies.values())]
    assert not [flags for flags in equal if len(flags) > 1]
    assert policy_after("") == policies[""], "the same seed makes the same step"


def test_crossfit_takes_the_value_of_the_critic_that_was_not_fitted_on_the_response(step_on):
    rollout = rollout_of(LENGTHS, REWARDS)
    values = lambda shards_MB: torch.tensor([[0.1], [0.2]]).expand(2, 8)
    _, data, _ = step_on(rollout, "--no-whiten", "--aggregate", "crossfit", values=values)
    expected_B = torch.tensor(REWARDS) - torch.where(rollout.shards_MB[0], 0.2, 0.1)
    assert torch.allclose(data.advantage[:, 0], expected_B)


def test_the_gate_opens_by_what_critics_know_of_unseen_responses(step_on):
    """All right where fitted, a little wrong elsewhere: their mean, 0.25 + 0.4 R, explains 0.64."""

    def learned_by_heart(shards_MB):
        rewards_B = torch.tensor(REWARDS)
        return torch.where(shards_MB, rewards_B, 0.5 - 0.2 * rewards_B)

    metrics, data, _ = step_on(rollout_of(LENGTHS, REWARDS), "--no-whiten", "--gate", values=learned_by_heart)
    assert metrics["ensemble/explained_variance"] == pytest.approx(0.64)
    assert metrics["ensemble/explained_variance_heldout"] == pytest.approx(1 - 1.2**2)
    group_means_B = torch.tensor([0.5] * 4 + [0.25] * 4)
    expected_B = torch.tensor(REWARDS) - group_means_B
    assert metrics["gated"] == 1 and data.advantage[:, 0].tolist() == expected_B.tolist()


def test_the_adaptive_mask_shrinks_with_what_is_left_to_explain(step_on):
    """Both critics value a response at half of its reward, so they leave a quarter of the variance."""
    values = lambda shards_MB: 0.5 * torch.tensor(REWARDS).expand(2, -1)
    metrics, data, _ = step_on(rollout_of(LENGTHS, REWARDS), "--mask-fraction", "adaptive", values=values)
    assert 44 - int(data.advantage_mask.sum()) == round(0.25 * 0.2 * 44)
    # the entropy filter's share does not adapt
    assert metrics["entropy_filtered_frac"] == pytest.approx(round(0.2 * 44) / 44)


def test_equal_rewards_close_the_gate_and_leave_the_adaptive_mask_whole(step_on):
    flags = ("--no-whiten", "--gate", "--mask-fraction", "adaptive")
    metrics, data, _ = step_on(rollout_of(LENGTHS, [1.0] * 8), *flags)
    assert metrics["gated"] == 1 and (data.advantage == 0).all()
    assert metrics["adv_masked_frac"] == pytest.approx(round(0.2 * 44) / 44)


def test_no_remedy_is_on_by_default():
    args = train.parse_args(["--model", "Qwen/Qwen3-4B-Base"])  # the embedded default uses one of them
    assert (args.critic_minibatch_size, args.critic_warmup, args.critic_states) == (None, 0, None)
    assert (args.critic_norm, args.aggregate, args.gate, args.mask_fraction) == ("none", "mean", False, 0.2)


# -- settings that are off by default ------------------------------------------------------------------------------
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
    rollout.shards_MB = torch.ones(1, 8, dtype=torch.bool)
    returns_MBT = (rollout.mask_BT * rollout.rewards_B[:, None]).expand(1, -1, -1)
    losses = []
    for size in (8, 4, 2):
        critics = new_critics(1)  # the head is zero, and so are the values: a learning rate of 0 keeps them
        logged = fit_critics(critics, [torch.optim.AdamW(critics[0].parameters(), lr=0.0)], rollout, returns_MBT,
                             critic_config(minibatch_size=size), step=1, world=world, norm="std")
        losses.append(logged["critic0/loss"])
    mean_inverse = (4 / 0.1875**0.5 + 4 / 0.5) / 8
    by_hand = (1 / 0.1875**0.5 + 2 / 0.5) / mean_inverse / 8
    assert losses == pytest.approx([by_hand] * 3, rel=1e-5)


def token_rows(rollout) -> list[list[int]]:
    return [rollout.tokens_BS[b, : p + n].tolist() for b, (p, n)
            in enumerate(zip(rollout.prompt_len_B.tolist(), rollout.response_len_B.tolist()))]


def test_joined_rollouts_keep_every_response_its_group_reward_and_shard():
    a, b = make_synthetic_rollout(2, 3, longest=5, seed=1), make_synthetic_rollout(2, 3, longest=9, seed=2)
    for one, seed in ((a, 3), (b, 4)):
        one.shards_MB = torch.rand(2, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
    joined = join_rollouts([a, b])
    assert token_rows(joined) == token_rows(a) + token_rows(b)
    assert joined.rewards_B.tolist() == a.rewards_B.tolist() + b.rewards_B.tolist()
    assert joined.group_B.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(joined.shards_MB, torch.cat([a.shards_MB, b.shards_MB], dim=1))


def test_critics_are_fitted_on_the_shards_of_the_last_k_rollouts(open_run, monkeypatch):
    run_ = open_run("--critic-replay", 2, "--max-new-tokens", 4)
    fitted, fit = [], train.fit_critics

    def record(critics, optimizers, rollout, targets_MBT, *rest):
        parts = rollout.shards_MB.clone(), targets_MBT.clone(), rollout.rewards_B.tolist()
        fitted.append((token_rows(rollout), *parts))
        return fit(critics, optimizers, rollout, targets_MBT, *rest)

    monkeypatch.setattr(train, "fit_critics", record)
    rollouts = [train.train_step(run_, step)[1] for step in (1, 2, 3)]
    for step, expected in ((0, rollouts[:1]), (1, rollouts[:2]), (2, rollouts[1:])):
        tokens, shards_MB, targets_MBT, rewards = fitted[step]
        assert tokens == [row for rollout in expected for row in token_rows(rollout)]
        assert torch.equal(shards_MB, torch.cat([rollout.shards_MB for rollout in expected], dim=1))
        assert rewards == [r for rollout in expected for r in rollout.rewards_B.tolist()]
        assert targets_MBT.shape[:2] == (2, len(tokens))
