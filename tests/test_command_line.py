"""Flags: defaults of each setting, the paper's command, and one clear sentence for every mistake."""

import json
import re

import pytest
from transformers import Qwen3Config

import train
from distributed import UserError
from tests.conftest import run_script

QWEN3_SIZES = {"4B": (2560, 36), "8B": (4096, 36), "14B": (5120, 40)}


def qwen3_config(folder, size) -> str:
    hidden_size, layers = QWEN3_SIZES[size]
    Qwen3Config(hidden_size=hidden_size, num_hidden_layers=layers).save_pretrained(folder)
    return str(folder)


def test_the_papers_command_has_the_papers_settings():
    args = train.parse_args(["--model", "Qwen/Qwen3-4B-Base"])
    expected = dict(
        algo="asyppo", n_critics=2, shard_by="group", prompts_per_step=32, group_size=32, minibatch_size=1024, epochs=4,
        critic_epochs=4, max_new_tokens=8192, lr=1e-6, critic_lr=5e-6, gamma=1.0, lam=1.0, critic_lam=1.0, clip_low=0.2,
        clip_high=0.2, entropy_coef=1e-3, mask_by="std", mask_fraction=0.2, filter_by="std", filter_fraction=0.2,
        aggregate="mean", loss_norm="sequence", temperature=1.0, whiten=True, critic_order="first", n_problems=5000,
        data="zwhe99/DeepMath-103K", extract="boxed", template=None, gradient_checkpointing=True,
    )  # fmt: skip
    assert {key: getattr(args, key) for key in expected} == expected


@pytest.mark.parametrize("size, critic", [("4B", "0.6B"), ("8B", "1.7B"), ("14B", "4B")])
def test_critics_default_by_the_actors_family_and_size(tmp_path, size, critic):
    args = train.parse_args(["--model", qwen3_config(tmp_path, size)])
    assert train.critic_names(args) == [f"Qwen/Qwen3-{critic}-Base"] * 2


def test_any_other_model_needs_critics_named(qwen):
    with pytest.raises(UserError, match="name them with --critics"):
        train.critic_names(train.parse_args(["--model", qwen]))
    assert train.critic_names(train.parse_args(["--model", qwen, "--critics", "a", "b"])) == ["a", "b"]
    assert train.critic_names(train.parse_args(["--model", qwen, "--critics", "a", "--n-critics", "3"])) == ["a"] * 3
    # classic PPO's critic is as large as the actor
    assert train.critic_names(train.parse_args(["--model", qwen, "--algo", "ppo"])) == [qwen]
    assert train.critic_names(train.parse_args(["--model", qwen, "--algo", "grpo"])) == []


def test_algo_and_the_embedded_default_only_set_defaults():
    tiny = train.parse_args([])
    assert tiny.model.endswith("tiny/actor") and tiny.critics[0].endswith("tiny/critic")
    assert train.parse_args(["--lr", "0.5", "--group-size", "4"]).lr == 0.5
    ppo = train.parse_args(["--algo", "ppo", "--mask-by", "entropy"])
    assert (ppo.n_critics, ppo.mask_by, ppo.filter_by, ppo.shard_by) == (1, "entropy", "none", "none")
    grpo = train.parse_args(["--algo", "grpo", "--entropy-coef", "0.5"])
    assert (grpo.n_critics, grpo.whiten, grpo.entropy_coef) == (0, False, 0.5)


def test_one_critic_turns_the_disagreement_masks_off_and_says_so(capsys):
    args = train.parse_args(["--n-critics", "1"])
    assert args.mask_by == args.filter_by == "none" and args.mask_fraction == args.filter_fraction == 0
    assert "One critic has no disagreement" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--group-size", "0"], "--group-size must be at least 1"),
        (["--group-size", "1"], "cannot be divided over 2 critics"),
        (["--lr", "-1"], "--lr must be a positive number"),
        (["--lr", "nan"], "--lr must be a positive number"),
        (["--gamma", "1.5"], "--gamma must lie between 0 and 1"),
        (["--mask-fraction", "-0.1"], "--mask-fraction must lie between 0 and 1"),
        (["--minibatch-size", "100"], "does not divide the"),
        (["--minibatch-size", "0"], "does not divide the"),
        (["--minibatch-size", "1"], "leaves critics without a response"),
        (
            ["--shard-by", "prompt", "--prompts-per-step", "3", "--group-size", "4", "--minibatch-size", "2"],
            "leaves critics without",
        ),
        (["--shard-by", "none"], "would fit equal critics alike"),
        (["--mask-by", "none", "--mask-fraction", "0.2"], "needs a signal"),
        (["--algo", "ppo", "--filter-fraction", "0.5"], "needs a signal"),
        (["--entropy-coef", "nan"], "--entropy-coef must be a number of at least 0"),
        (["--n-problems", "-1"], "--n-problems must be a number of at least 0"),
        (["--stop", ""], "would end every response at once"),
        (["--template", "x" * 300], "neither a text with {problem}"),
        (["--token-budget", "10"], "smaller than a response"),
        (["--token-budget", "70"], "cannot hold the longest prompt and response"),
        (["--critics", "a", "b", "c"], "names 3 models for --n-critics 2"),
        (["--algo", "grpo", "--n-critics", "2"], "--algo grpo has no critics"),
        (["--algo", "grpo", "--mask-by", "std"], "need critics"),
        (["--n-critics", "0"], "use --algo grpo"),
        (["--algo", "reinforce"], "invalid choice"),
        (["--no-such-flag"], "unrecognized arguments"),
        (["--resume"], "--resume needs the folder"),
        (["--resume", "a", "--out", "b"], "name two folders"),
        (["--resume", "tiny/actor"], "is no run with a checkpoint"),
        (["--data", "none.jsonl"], "no such file"),
        (["--model", "no/such-model", "--critics", "x"], "no tokenizer could be read"),
        (["--template", "no placeholder"], "neither a text with {problem}"),
        (["--device", "cuda"], "torch sees no CUDA GPU"),
        (["--n-problems", "1000000"], "fewer than the 1000000 asked for"),
    ],
)
def test_a_bad_command_gets_one_sentence_and_exit_code_2(flags, sentence, tmp_path, capsys, monkeypatch):
    if "cuda" in flags:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = tmp_path / "run"
    argv = flags if "--resume" in flags else [*flags, "--out", str(out)]
    try:
        code = train.main(argv)
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err
    assert code == 2 and sentence in error and "Traceback" not in error
    assert not out.exists(), "nothing is written before the command is found to be good"


def test_critics_with_another_tokenizer_are_refused(qwen, tmp_path, capsys):
    from tiny.make_tiny import make_tokenizer

    other = make_tokenizer()
    other.add_tokens(["extra"])
    other.save_pretrained(tmp_path)
    json.dump(json.load(open(f"{qwen}/config.json")), open(tmp_path / "config.json", "w"))
    assert train.main(["--critics", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "its tokenizer is not the actor's" in capsys.readouterr().err


def test_a_folder_with_another_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert train.main(["--out", str(tmp_path)]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == "{}"
    (tmp_path / "file").write_text("")
    assert train.main(["--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_mistakes_under_torchrun_are_said_once(tmp_path):
    done = run_script("train.py", "--data", "none.jsonl", "--out", tmp_path / "run", processes=2)
    assert done.returncode != 0
    assert done.stderr.count("there is no such file") == 1 and "in load_problems" not in done.stderr
    done = run_script("train.py", "--group-size", 1, processes=2)
    assert done.returncode != 0 and done.stderr.count("cannot be divided over 2 critics") == 1


def test_every_flag_is_explained_and_shows_its_default():
    text = run_script("train.py", "--help").stdout
    flags = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
    assert len(flags) > 40
    for flag in flags:
        (entry,) = re.findall(rf"^  {flag}\b(.*?)(?=^  -|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        assert len(re.sub(r"--\S+|[A-Z_]{3,}|{.*?}", "", entry).split()) >= 4, f"{flag} has no help: {entry}"
    assert "(default: 8192)" in text and "(default: None)" not in text
