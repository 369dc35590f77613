"""Whole runs, as users start them."""

import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import train
from tests.conftest import ROOT, run_script

# half the embedded default's batch
SMALL = ["--prompts-per-step", 8, "--group-size", 8, "--eval-every", 0]
PROMISED = """step reward_mean reward_std response_len_mean truncated_frac entropy policy_loss clip_frac approx_kl grad_norm
adv_mean adv_std adv_masked_frac entropy_filtered_frac value_mean value_std_p10 value_std_p50 value_std_p90 critic_corr
critic0/loss critic0/explained_variance critic0/value_correct critic0/value_wrong critic0/grad_norm
critic1/loss critic1/explained_variance critic1/value_correct critic1/value_wrong critic1/grad_norm
time/generate time/verify time/fit_critics time/values time/policy time/step tokens_per_s peak_memory_gb""".split()


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def run_train(out: Path, *flags, processes: int = 0):
    done = run_script("train.py", "--out", out, *flags, processes=processes)
    assert done.returncode == 0, done.stderr
    return done


def run_here(out: Path, *flags) -> None:
    """The same without a new process, for tests that compare many runs."""
    assert train.main(["--out", str(out), *map(str, flags)]) == 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = [
        folder / "model/model.safetensors",
        folder / "critic0/model.safetensors",
        folder / "critic1/value_head.safetensors",
    ]
    return {f"{file}{name}".removeprefix(str(folder)): x for file in files for name, x in load_file(file).items()}


def test_the_embedded_default_improves_its_reward_within_a_few_steps(tmp_path):
    done = run_train(tmp_path / "run", "--steps", 8)
    metrics = rows(tmp_path / "run")
    assert [m["step"] for m in metrics] == list(range(9))
    assert metrics[-1]["eval/test"] > metrics[0]["eval/test"] + 0.1
    first, last = ([m["reward_mean"] for m in metrics[a:b]] for a, b in ((1, 3), (7, 9)))
    assert sum(last) / 2 > sum(first) / 2 + 0.1
    for key in PROMISED:
        assert all(key in m and math.isfinite(m[key]) for m in metrics[1:]), key
    for m in metrics[1:]:
        assert m["adv_masked_frac"] == pytest.approx(0.2, abs=1e-3) == m["entropy_filtered_frac"]
        assert abs(m["approx_kl_first"]) < 1e-6, "the first update of a rollout is on-policy"
    assert done.stdout.count("step ") >= 9 and "held-out accuracy" in done.stdout and "--resume" in done.stdout
    samples = rows(tmp_path / "run", "rollouts.jsonl")
    assert {s["step"] for s in samples} == set(range(1, 9))
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


def test_half_a_run_resumed_equals_a_whole_one_to_the_last_bit(tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    run_train(whole, "--steps", 4, *SMALL)
    run_train(half, "--steps", 2, *SMALL)
    run_train(half, "--steps", 4, *SMALL, "--resume")
    assert weights(whole).keys() == weights(half).keys()
    for name, expected in weights(whole).items():
        assert torch.equal(expected, weights(half)[name]), name

    def without_clock(folder):
        return [
            {k: v for k, v in m.items() if "time" not in k and "per_s" not in k and "memory" not in k} for m in rows(folder)
        ]

    resumed = [m for m in without_clock(half) if m["step"] > 2]
    assert resumed == [m for m in without_clock(whole) if m["step"] > 2]
    assert [m["step"] for m in rows(half)] == [0, 1, 2, 3, 4]
    for flags, sentence in ((["--steps", 6, "--lr", "1e-5"], "has --lr"), (["--steps", 3], "has done 4 steps already")):
        refused = run_script("train.py", "--out", half, *SMALL, "--resume", *flags)
        assert refused.returncode == 2 and sentence in refused.stderr and "Traceback" not in refused.stderr


def test_a_log_whose_last_line_was_cut_by_a_kill_is_mended_on_resume(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    assert train.finished_rows(log, 2) == ['{"step": 1}\n', '{"step": 2}\n']
    assert train.finished_rows(log, 9) == ['{"step": 1}\n', '{"step": 2}\n', '{"step": 3}\n']


def test_a_run_of_two_processes_saves_models_that_plain_transformers_loads(tmp_path):
    run_train(tmp_path / "run", "--steps", 2, *SMALL, "--save-every", 1, processes=2)
    model, tokenizer = (c.from_pretrained(tmp_path / "run/model") for c in (AutoModelForCausalLM, AutoTokenizer))
    base = AutoModelForCausalLM.from_pretrained(ROOT / "tiny/actor")
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters()))
    prompt = tokenizer("3+4-2\n", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=False)[0])
    assert "3+4=7\n7-2=5\n\\boxed{5}<|eos|>" in text
    # the critics can be used again, heads included
    run_train(
        tmp_path / "again", "--critics", tmp_path / "run/critic0", tmp_path / "run/critic1", "--lr", "1e-9", "--critic-lr", "1e-9",
        "--steps", 1, *SMALL, "--eval-data", "",
    )  # fmt: skip
    before, after = rows(tmp_path / "run")[-1], rows(tmp_path / "again")[-1]
    assert after["value_mean"] == pytest.approx(before["value_mean"], abs=0.1) and abs(after["value_mean"]) > 1e-3
    done = run_script(
        "evaluate.py", "--model", tmp_path / "run/model", "--benchmarks", "tiny/test.jsonl", "--k", 2, "--n-problems", 20, "--max-new-tokens", 64, "--out", tmp_path / "eval", processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "eval/eval.json").read_text())["results"]["test"]["problems"] == 20


def test_wandb_offline_asks_for_no_login_and_a_resumed_run_goes_on_in_the_same_curves(tmp_path):
    out = tmp_path / "run"
    flags = [*SMALL, "--eval-data", "", "--wandb", "offline"]
    run_train(out, "--steps", 1, *flags)
    name = (out / "wandb_id").read_text()
    run_train(out, "--steps", 2, *flags, "--resume")
    runs = [folder.name for folder in (out / "wandb").glob("offline-run-*")]
    assert len(runs) == 2 and all(run.endswith(f"-{name}") for run in runs)


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
    base = ["--steps", 2, "--prompts-per-step", 4, "--group-size", 8, "--eval-data", ""]

    def fingerprint(name, *flags):
        run_here(tmp_path / name, *base, *flags)
        last = rows(tmp_path / name)[-1]
        return last["policy_loss"], last["grad_norm"], last["reward_mean"], last["entropy"], last["value_mean"]

    flags = {
        "default": [], "order": ["--critic-order", "last"], "shard": ["--shard-by", "prompt"], "aggregate": ["--aggregate", "min"],
        "mask": ["--mask-by", "entropy"], "filter": ["--filter-by", "none", "--entropy-coef", "0.05"],
        "norm": ["--loss-norm", "token"], "lam": ["--lam", "0.9", "--critic-lam", "0.9"], "minibatch": ["--minibatch-size", "16"],
    }  # fmt: skip
    prints = {name: fingerprint(name, *extra) for name, extra in flags.items()}
    assert len(set(prints.values())) == len(prints), prints
    assert fingerprint("again") == prints["default"]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_that_is_told_to_stop_finishes_its_step_saves_and_goes_on_where_it_was(tmp_path, processes):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [*SMALL, "--eval-data", "", "--steps"]
    launcher = [sys.executable]
    if processes:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    child = subprocess.Popen(
        [*launcher, "train.py", *map(str, flags), "500", "--out", stopped], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in child.stdout:
        if line.startswith("step    1/"):
            child.send_signal(signal.SIGTERM)
            break
    rest, errors = child.communicate(timeout=100)
    # the signal comes just before or after the run looks for one
    stop = re.search(r"Stopped after step ([12]): SIGTERM. Saved; go on with .* --resume", rest)
    assert stop, errors
    assert child.returncode != 0 if processes else child.returncode == 143
    assert [m["step"] for m in rows(stopped)] == [1, 2][: int(stop[1])]
    run_train(stopped, *flags, 3, "--resume", processes=processes)
    run_train(whole, *flags, 3, processes=processes)
    for name, expected in weights(whole).items():
        assert torch.equal(expected, weights(stopped)[name]), name


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
