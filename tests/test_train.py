"""Whole runs, as users start them."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import train
from tests.conftest import ROOT, run_script
from tests.runs import SMALL, rows, run_here, run_ranks, run_train, weights

PROMISED = """step reward_mean reward_std response_len_mean truncated_frac entropy policy_loss clip_frac approx_kl grad_norm
adv_mean adv_std adv_masked_frac entropy_filtered_frac value_mean value_std_p10 value_std_p50 value_std_p90 critic_corr
critic0/loss critic0/explained_variance critic0/value_correct critic0/value_wrong critic0/grad_norm
critic1/loss critic1/explained_variance critic1/value_correct critic1/value_wrong critic1/grad_norm
time/generate time/verify time/fit_critics time/values time/policy time/step tokens_per_s peak_memory_gb""".split()


def test_the_embedded_default_improves_its_reward_within_a_few_steps(tmp_path):
    done = run_train(tmp_path / "run", "--steps", 7)
    metrics = rows(tmp_path / "run")
    assert [m["step"] for m in metrics] == list(range(8))
    assert metrics[-1]["eval/test"] > metrics[0]["eval/test"] + 0.1
    first, last = ([m["reward_mean"] for m in metrics[a:b]] for a, b in ((1, 3), (6, 8)))
    assert sum(last) / 2 > sum(first) / 2 + 0.1
    for key in PROMISED:
        assert all(key in m and math.isfinite(m[key]) for m in metrics[1:]), key
    for m in metrics[1:]:
        assert m["adv_masked_frac"] == pytest.approx(0.2, abs=1e-3) == m["entropy_filtered_frac"]
        assert abs(m["approx_kl_first"]) < 1e-6, "the first update of a rollout is on-policy"
    assert done.stdout.count("step ") >= 8 and "held-out accuracy" in done.stdout and "--resume" in done.stdout
    samples = rows(tmp_path / "run", "rollouts.jsonl")
    assert {s["step"] for s in samples} == set(range(1, 8))
    for s in samples:
        assert s["reward"] == float(s["answer"] == s["gold"])
        assert s["truncated"] or s["response"].endswith("<|eos|>")


@pytest.mark.parametrize("algo, critics", [("ppo", 1), ("grpo", 0)])
def test_the_baselines_are_settings_of_the_same_code(tmp_path, algo, critics):
    run_here(tmp_path / "run", "--algo", algo, "--steps", 2, *SMALL, "--eval-data", "")
    last = rows(tmp_path / "run")[-1]
    assert sum(key.endswith("/loss") for key in last) == critics
    assert last["adv_masked_frac"] == last["entropy_filtered_frac"] == 0 and last["grad_norm"] > 0
    assert (tmp_path / "run/critic0").exists() == bool(critics)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["settings"]["algo"] == algo and config["packages"]["torch"]


def test_a_run_of_two_processes_saves_models_that_plain_transformers_loads(tmp_path):
    run_train(tmp_path / "run", "--steps", 2, *SMALL, "--save-every", 1, processes=2)
    model, tokenizer = (c.from_pretrained(tmp_path / "run/model") for c in (AutoModelForCausalLM, AutoTokenizer))
    base = AutoModelForCausalLM.from_pretrained(ROOT / "tiny/actor")
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters()))
    prompt = tokenizer("3+4-2\n", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=False)[0])
    assert "3+4=7\n7-2=5\n\\boxed{5}<|eos|>" in text
    # the critics can be used again, heads included
    run_ranks(
        tmp_path / "again", "--critics", tmp_path / "run/critic0", tmp_path / "run/critic1", "--lr", "1e-9", "--critic-lr", "1e-9",
        "--steps", 1, *SMALL, "--eval-data", "", processes=0,
    )  # fmt: skip
    before, after = rows(tmp_path / "run")[-1], rows(tmp_path / "again")[-1]
    assert after["value_mean"] == pytest.approx(before["value_mean"], abs=0.1) and abs(after["value_mean"]) > 1e-3
    done = run_script(
        "evaluate.py", "--model", tmp_path / "run/model", "--benchmarks", "tiny/test.jsonl", "--k", 2, "--n-problems", 20, "--max-new-tokens", 64, "--out", tmp_path / "eval", processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "eval/eval.json").read_text())["results"]["test"]["problems"] == 20


def test_the_papers_command_runs_against_a_stand_in_for_qwen3(qwen, tmp_path):
    """The paper's setting on a local directory with Qwen3's configuration shrunk: only sizes and names are given."""
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    tokenizer.chat_template = "{{ messages[0].content[:3] }}="
    model = AutoModelForCausalLM.from_pretrained(qwen)
    model.save_pretrained(tmp_path / "Qwen3-stand-in")
    tokenizer.save_pretrained(tmp_path / "Qwen3-stand-in")
    name = tmp_path / "Qwen3-stand-in"
    run_train(
        tmp_path / "run", "--model", name, "--critics", name, "--data", "tiny/train.jsonl", "--n-problems", 100,
        "--prompts-per-step", 2, "--group-size", 4, "--max-new-tokens", 16, "--steps", 2, "--dtype", "bf16", processes=1,
    )  # fmt: skip
    last = rows(tmp_path / "run")[-1]
    assert last["step"] == 2 and all(math.isfinite(v) for v in last.values())
    generation = json.loads((tmp_path / "run/model/generation_config.json").read_text())
    assert generation["top_k"] == 20, "the model's own generation config is saved with it, though not used here"


def test_every_ablation_flag_changes_the_run(tmp_path):
    """Each of these is one word on the command line; a flag that did nothing would leave the second step's numbers equal."""
    base = ["--steps", 2, "--prompts-per-step", 4, "--group-size", 4, "--eval-data", ""]

    def fingerprint(name, *flags):
        run_here(tmp_path / name, *base, *flags)
        last = rows(tmp_path / name)[-1]
        return last["policy_loss"], last["grad_norm"], last["reward_mean"], last["entropy"], last["value_mean"]

    flags = {
        "default": [], "order": ["--critic-order", "last"], "shard": ["--shard-by", "prompt"], "aggregate": ["--aggregate", "min"],
        "mask": ["--mask-by", "entropy"], "filter": ["--filter-by", "none", "--entropy-coef", "0.05"],
        "norm": ["--loss-norm", "token"], "lam": ["--lam", "0.9", "--critic-lam", "0.9"], "minibatch": ["--minibatch-size", "8"],
    }  # fmt: skip
    prints = {name: fingerprint(name, *extra) for name, extra in flags.items()}
    assert len(set(prints.values())) == len(prints), prints
    assert fingerprint("again") == prints["default"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"], ids=["whole tensors", "sharded tensors"])
def test_offloaded_optimizer_states_leave_memory_and_change_no_number(tmp_path, monkeypatch, dtype):
    flags = ["--dtype", dtype, "--steps", 3, "--prompts-per-step", 2, "--group-size", 4, "--n-problems", 50, "--eval-data", ""]
    run_here(tmp_path / "stays", *flags)
    real, seen = train.generate_responses, []

    def generate(*args):
        # the states of AdamW, as the process has them while it generates
        states = [x for o in optimizers for state in o.state.values() for x in state.values() if x.dim()]
        assert all(isinstance(x, DTensor) == (dtype == "bf16") for x in states)
        states = [x.to_local() if isinstance(x, DTensor) else x for x in states]
        seen.append((len(states), sum(x.untyped_storage().nbytes() for x in states)))
        return real(*args)

    optimizers = []
    adamw = torch.optim.AdamW
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda *args, **kwargs: optimizers.append(adamw(*args, **kwargs)) or optimizers[-1]
    )
    monkeypatch.setattr(train, "generate_responses", generate)
    run_here(tmp_path / "leaves", *flags, "--offload")
    assert [n > 0 for n, _ in seen] == [False, True, True] and all(n_bytes == 0 for _, n_bytes in seen)
    for name, expected in weights(tmp_path / "stays").items():
        assert torch.equal(expected, weights(tmp_path / "leaves")[name]), name


def test_an_update_that_is_not_finite_is_skipped_kept_for_inspection_and_stops_the_run_if_it_goes_on(
    tmp_path, monkeypatch, capsys
):
    """The first critic is spoilt in step 2 only, then in every step."""
    real = train.fit_critics

    def run(spoilt_steps, out):
        def fit(critics, optimizers, rollout, returns_MBT, shards_MB, args, step, world):
            if step in spoilt_steps:
                returns_MBT = returns_MBT.clone()
                returns_MBT[0] = float("inf")
            return real(critics, optimizers, rollout, returns_MBT, shards_MB, args, step, world)

        monkeypatch.setattr(train, "fit_critics", fit)
        code = train.main([*map(str, SMALL), "--eval-data", "", "--steps", "4", "--max-bad-steps", "2", "--out", str(out)])
        return code, capsys.readouterr().out

    code, text = run({2}, tmp_path / "once")
    assert code == 0 and text.count("4 updates SKIPPED") == 1
    assert [m["skipped_updates"] for m in rows(tmp_path / "once")] == [0, 4, 0, 0]
    assert "critic0/loss" not in rows(tmp_path / "once")[1] and rows(tmp_path / "once")[2]["critic0/loss"] > 0
    assert all(x.isfinite().all() for x in weights(tmp_path / "once").values())
    batch = torch.load(tmp_path / "once/bad-step-2.pt", weights_only=True)
    assert len(batch["texts"]) == 64 and batch["old_logp_BT"].shape == batch["advantages_BT"].shape
    code, text = run({1, 2, 3, 4}, tmp_path / "always")
    assert code == 1 and "Stopped after step 2: 2 steps in a row" in text


@pytest.mark.parametrize("spoilt", ["ensemble_values", "verify_responses"])
def test_values_or_rewards_that_are_not_finite_leave_the_policy_as_it_is(tmp_path, monkeypatch, spoilt):
    real = getattr(train, spoilt)

    def spoil(*args):
        result = real(*args)
        return result * math.nan if spoilt == "ensemble_values" else (result[0], [math.nan] * len(result[1]))

    monkeypatch.setattr(train, spoilt, spoil)
    flags = ["--prompts-per-step", "2", "--group-size", "4", "--n-problems", "50", "--eval-data", "", "--steps", "1"]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 0
    (metrics,) = rows(tmp_path / "run")
    assert metrics["skipped_updates"] == (4 if spoilt == "ensemble_values" else 12)
    assert all(math.isfinite(value) for value in metrics.values()) and (tmp_path / "run/bad-step-1.pt").exists()
    after, before = weights(tmp_path / "run"), load_file(ROOT / "tiny/actor/model.safetensors")
    assert all(torch.equal(after[f"/model/model.safetensors{name}"], x) for name, x in before.items())
