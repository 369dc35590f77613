"""Whole runs, as users start them."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import train
from tests.runs import FEW, ROOT, SMALL, launch, rows, run, weights

PROMISED = """
step reward_mean reward_std response_len_mean truncated_frac entropy policy_loss clip_frac
clip_frac_last approx_kl grad_norm
adv_mean adv_std adv_masked_frac entropy_filtered_frac
value_mean value_std_p10 value_std_p50 value_std_p90 critic_corr
critic0/loss critic0/explained_variance critic0/value_correct critic0/value_wrong critic0/grad_norm
critic1/loss critic1/explained_variance critic1/value_correct critic1/value_wrong critic1/grad_norm
time/generate time/verify time/fit_critics time/values time/policy time/step tokens_per_s peak_memory_gb
""".split()


def test_the_embedded_default_improves_its_reward_within_a_few_steps(begun, request):
    tmp_path, run_of_six_steps = begun[request.node.name]
    done = run_of_six_steps.result()
    metrics = rows(tmp_path / "run")
    assert [m["step"] for m in metrics] == list(range(7))
    assert metrics[-1]["eval/test"] > metrics[0]["eval/test"] + 0.1
    first, last = ([m["reward_mean"] for m in metrics[a:b]] for a, b in ((1, 3), (5, 7)))
    assert sum(last) / 2 > sum(first) / 2 + 0.1
    for key in PROMISED:
        assert all(key in m and math.isfinite(m[key]) for m in metrics[1:]), key
    for m in metrics[1:]:
        assert m["adv_masked_frac"] == pytest.approx(0.2, abs=1e-3) == m["entropy_filtered_frac"]
        assert abs(m["approx_kl_first"]) < 1e-6, "the first update of a rollout is on-policy"
    explained = (ROOT / "README.md").read_text()
    for key in {key for m in metrics for key in m if not key.startswith(("time/", "memory/", "eval/"))}:
        name = re.sub(r"^critic\d/", "critic{m}/", key)
        written = {name, name.split("/")[-1], "_" + name.split("_")[-1]}  # `value_std_p10`, `_p50`
        assert any(f"`{each}`" in explained for each in written), f"README's table lacks {key}"
    assert done.stdout.count("step ") >= 7
    assert "held-out accuracy" in done.stdout and "--resume" in done.stdout
    samples = rows(tmp_path / "run", "rollouts.jsonl")
    assert {s["step"] for s in samples} == set(range(1, 7))
    for s in samples:
        assert s["reward"] == float(s["answer"] == s["gold"])
        assert s["truncated"] or s["response"].endswith("<|eos|>")


@pytest.mark.parametrize("algo, critics", [("ppo", 1), ("grpo", 0)])
def test_the_baselines_are_settings_of_the_same_code(tmp_path, algo, critics):
    run("train.py", "--out", tmp_path / "run", "--algo", algo, "--steps", 1, *SMALL, "--eval-data", "")
    last = rows(tmp_path / "run")[-1]
    assert sum(key.endswith("/loss") for key in last) == critics
    assert last["adv_masked_frac"] == last["entropy_filtered_frac"] == 0 and last["grad_norm"] > 0
    assert (tmp_path / "run/critic0").exists() == bool(critics)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["settings"]["algo"] == algo and config["packages"]["torch"]


def test_a_run_of_two_processes_saves_models_that_plain_transformers_loads(begun, request):
    tmp_path, run_of_two_steps = begun[request.node.name]
    run_of_two_steps.result()
    out = tmp_path / "run"
    model, tokenizer = (c.from_pretrained(out / "model") for c in (AutoModelForCausalLM, AutoTokenizer))
    base = AutoModelForCausalLM.from_pretrained(ROOT / "tiny/actor")
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters()))
    prompt = tokenizer("3+4-2\n", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=False)[0])
    assert "3+4=7\n7-2=5\n\\boxed{5}<|eos|>" in text
    # the critics can be used again, heads included
    run(
        "train.py", "--out", tmp_path / "again", "--critics", out / "critic0", out / "critic1",
        "--lr", "1e-9", "--critic-lr", "1e-9", "--steps", 1, *FEW
    )
    before, after = rows(out)[-1]["value_mean"], rows(tmp_path / "again")[-1]["value_mean"]
    assert after == pytest.approx(before, abs=0.1) and abs(after) > 1e-3
    run(
        "evaluate.py", "--model", out / "model", "--benchmarks", "tiny/test.jsonl", "--k", 2,
        "--n-problems", 20, "--max-new-tokens", 80, "--out", tmp_path / "eval", processes=2
    )
    assert json.loads((tmp_path / "eval/eval.json").read_text())["results"]["test"]["problems"] == 20


def test_the_papers_command_runs_against_a_stand_in_for_qwen3(qwen, tmp_path):
    """The paper's setting on a local directory of Qwen3's architecture: only sizes and names differ."""
    name = tmp_path / "Qwen3-stand-in"
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    tokenizer.chat_template = "{{ messages[0].content[:3] }}="
    tokenizer.save_pretrained(name)
    AutoModelForCausalLM.from_pretrained(qwen).save_pretrained(name)
    launch(
        "train.py", "--out", tmp_path / "run", "--model", name, "--critics", name, "--dtype", "bf16",
        "--data", "tiny/train.jsonl", "--n-problems", 100, "--prompts-per-step", 2, "--group-size", 4,
        "--max-new-tokens", 16, "--steps", 2, processes=1
    )
    last = rows(tmp_path / "run")[-1]
    assert last["step"] == 2 and all(math.isfinite(v) for v in last.values())
    generation = json.loads((tmp_path / "run/model/generation_config.json").read_text())
    # the model's own generation config is saved with it, though not used here
    assert generation["top_k"] == 20


def test_every_ablation_flag_changes_the_run(tmp_path):
    """A flag that did nothing would leave the numbers of step 2 equal."""
    base = ["--steps", 2, *FEW]

    def fingerprint(name, flags):
        run("train.py", "--out", tmp_path / name, *base, *flags.split())
        last = rows(tmp_path / name)[-1]
        return tuple(last[k] for k in ("policy_loss", "grad_norm", "reward_mean", "entropy", "value_mean"))

    flags = {
        "default": "", "order": "--critic-order last", "shard": "--shard-by prompt",
        "aggregate": "--aggregate min", "mask": "--mask-by entropy",
        "filter": "--filter-by none --entropy-coef 0.05", "norm": "--loss-norm token",
        "lam": "--lam 0.9 --critic-lam 0.9", "minibatch": "--minibatch-size 4"
    }
    prints = {name: fingerprint(name, extra) for name, extra in flags.items()}
    assert len(set(prints.values())) == len(prints), prints
    assert fingerprint("again", "") == prints["default"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"], ids=["whole tensors", "sharded tensors"])
def test_what_is_offloaded_changes_no_number_and_moments_leave_memory(tmp_path, around, dtype):
    flags = ["--dtype", dtype, "--steps", 2, "--max-new-tokens", 40, *FEW]
    run("train.py", "--out", tmp_path / "stays", *flags)
    optimizers, seen = [], []

    def remember(optimizer):
        optimizers.append(optimizer)
        return optimizer

    def look():
        # the states of AdamW, as the process has them while it generates
        states = [x for o in optimizers for state in o.state.values() for x in state.values() if x.dim()]
        assert all(isinstance(x, DTensor) == (dtype == "bf16") for x in states)
        states = [x.to_local() if isinstance(x, DTensor) else x for x in states]
        seen.append((len(states), sum(x.untyped_storage().nbytes() for x in states)))

    around("adamw", after=remember)
    run("train.py", "--out", tmp_path / "all", *flags, "--offload", "all")
    assert all(isinstance(p, DTensor) for o in optimizers for p in o.param_groups[0]["params"])
    optimizers.clear()
    around("generate_responses", before=look)
    run("train.py", "--out", tmp_path / "leaves", *flags, "--offload", "moments")
    assert [n > 0 for n, _ in seen] == [False, True] and all(n_bytes == 0 for _, n_bytes in seen)
    for name, expected in weights(tmp_path / "stays").items():
        assert torch.equal(expected, weights(tmp_path / "leaves")[name]), name
        assert torch.equal(expected, weights(tmp_path / "all")[name]), name


def test_an_update_that_is_not_finite_is_skipped_kept_for_inspection_and_stops_the_run_if_it_goes_on(
    tmp_path, monkeypatch
):
    """The first critic is spoilt in step 2 only, then in every step."""
    real = train.fit_critics

    def run_spoilt(out, steps, code):
        def fit(critics, optimizers, rollout, targets_MBT, shards_MB, args, step, world):
            if step in steps:
                targets_MBT = targets_MBT.clone()
                targets_MBT[0] = float("inf")
            return real(critics, optimizers, rollout, targets_MBT, shards_MB, args, step, world)

        monkeypatch.setattr(train, "fit_critics", fit)
        flags = [*FEW, "--steps", 4, "--max-bad-steps", 2]
        return run("train.py", "--out", out, *flags, code=code).stdout

    once = tmp_path / "once"
    assert run_spoilt(once, steps={2}, code=0).count("4 updates SKIPPED") == 1
    metrics = rows(once)
    assert [m["skipped_updates"] for m in metrics] == [0, 4, 0, 0]
    assert "critic0/loss" not in metrics[1] and metrics[2]["critic0/loss"] > 0
    assert all(x.isfinite().all() for x in weights(once).values())
    batch = torch.load(once / "bad-step-2.pt", weights_only=True)
    assert len(batch["answers"]) == 8 and batch["old_logp_BT"].shape == batch["advantage"].shape
    text = run_spoilt(tmp_path / "always", steps={1, 2, 3, 4}, code=1)
    assert "Stopped after step 2: 2 steps in a row" in text


# what is spoilt, how, and how many updates are skipped: the actor's, or those of both critics too
SPOILT = {
    "ensemble_values": (lambda values_MBT: values_MBT * math.nan, 4),
    "verify": (lambda both: (both[0], [math.nan] * len(both[1])), 12)
}


@pytest.mark.parametrize("flags, learns", [("", False), ("--no-whiten", True)], ids=["whitened", "raw"])
def test_a_batch_without_a_right_answer_teaches_the_critics_and_not_the_policy(tmp_path, flags, learns):
    """Its advantages are what the critics leave unexplained: whitening would make a whole step of them."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"problem": "4-2", "answer": "2"}\n{"problem": "4-2", "answer": "99"}\n')
    run("train.py", "--out", tmp_path / "run", "--data", data, "--n-problems", 0, "--eval-data", "",
        "--steps", 2, "--prompts-per-step", 1, "--group-size", 8, "--entropy-coef", 0,
        "--seed", 1, *flags.split())
    first, second = rows(tmp_path / "run")
    assert first["reward_mean"] > 0 == second["reward_mean"] and second["adv_std"] > 0
    assert second["critic0/grad_norm"] > 0 and (second["grad_norm"] > 0) is learns


@pytest.mark.parametrize("spoilt", SPOILT)
def test_values_or_rewards_that_are_not_finite_leave_the_policy_as_it_is(tmp_path, around, spoilt):
    spoil, skipped = SPOILT[spoilt]
    around(spoilt, after=spoil)
    run("train.py", "--out", tmp_path, *FEW, "--steps", 1)
    (metrics,) = rows(tmp_path)
    assert metrics["skipped_updates"] == skipped
    assert all(math.isfinite(value) for value in metrics.values()) and (tmp_path / "bad-step-1.pt").exists()
    after, before = weights(tmp_path), load_file(ROOT / "tiny/actor/model.safetensors")
    assert all(torch.equal(after[f"model/model.safetensors: {name}"], x) for name, x in before.items())
