"""Flags: defaults of each setting, the paper's command, and one clear sentence for every mistake."""

import re

import pytest
from transformers import Qwen3Config

import train
from distributed import UserError
from generation import sampling_of
from tests.runs import launch

QWEN3_SIZES = {"4B": (2560, 36), "8B": (4096, 36), "14B": (5120, 40)}


def qwen3_config(folder, size) -> str:
    hidden_size, layers = QWEN3_SIZES[size]
    Qwen3Config(hidden_size=hidden_size, num_hidden_layers=layers).save_pretrained(folder)
    return str(folder)


def test_the_papers_command_has_the_papers_settings():
    args = train.parse_args(["--model", "Qwen/Qwen3-4B-Base"])
    expected = dict(
        algo="asyppo", n_critics=2, shard_by="group", aggregate="mean", critic_order="first",
        prompts_per_step=32, group_size=32, minibatch_size=1024, epochs=4, critic_epochs=4, n_problems=5000,
        max_new_tokens=8192, temperature=1.0, template=None, extract="boxed", data="zwhe99/DeepMath-103K",
        lr=1e-6, critic_lr=5e-6, gamma=1.0, lam=1.0, critic_lam=1.0, whiten=True,
        clip_low=0.2, clip_high=0.2, entropy_coef=1e-3, loss_norm="sequence",
        mask_by="std", mask_fraction=0.2, filter_by="std", filter_fraction=0.2, gradient_checkpointing=True
    )
    assert {key: getattr(args, key) for key in expected} == expected


@pytest.mark.parametrize("size, critic", [("4B", "0.6B"), ("8B", "1.7B"), ("14B", "4B")])
def test_critics_default_by_the_actors_family_and_size(tmp_path, size, critic):
    args = train.parse_args(["--model", qwen3_config(tmp_path, size)])
    assert train.critic_names(args) == [f"Qwen/Qwen3-{critic}-Base"] * 2


def test_any_other_model_needs_critics_named(qwen):
    def names(*flags):
        return train.critic_names(train.parse_args(["--model", qwen, *flags]))

    with pytest.raises(UserError, match="name them with --critics"):
        names()
    assert names("--critics", "a", "b") == ["a", "b"]
    assert names("--critics", "a", "--n-critics", "3") == ["a"] * 3
    # classic PPO's critic is as large as the actor
    assert names("--algo", "ppo") == [qwen]
    assert names("--algo", "grpo") == []


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


def test_a_stop_string_is_kept_as_given_and_its_newline_is_one_when_responses_are_drawn():
    """Shells pass \\n on as two characters."""
    args = train.parse_args(["--stop", "\\nQ:", "END"])
    assert args.stop == ["\\nQ:", "END"]
    assert sampling_of(args, stop_ids={1}).stop_strings == ("\nQ:", "END")


def test_every_flag_is_explained_and_shows_its_default():
    text = launch("train.py", "--help").stdout
    flags = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
    assert len(flags) > 40
    for flag in flags:
        (entry,) = re.findall(rf"^  {flag}\b(.*?)(?=^  -|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        assert len(re.sub(r"--\S+|[A-Z_]{3,}|{.*?}", "", entry).split()) >= 4, f"{flag} has no help: {entry}"
    assert "(default: 8192)" in text and "(default: None)" not in text
