"""Flags: defaults of each setting, the paper's command, and one clear sentence for every mistake.

Faults of the machine during a run (a full disk, a lost rank) are in test_resume.py.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config

import train
from engine.errors import UserError
from tests.runs import ROOT, run

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
        mask_by="std", mask_fraction=0.2, filter_by="std", filter_fraction=0.2, gradient_checkpointing=True)
    assert {key: getattr(args, key) for key in expected} == expected


@pytest.mark.parametrize("size, critic", [("4B", "0.6B"), ("8B", "1.7B"), ("14B", "4B")])
def test_critics_default_by_the_actors_family_and_size(tmp_path, size, critic):
    args = train.parse_args(["--model", qwen3_config(tmp_path, size)])
    assert train.critic_names(args) == [f"Qwen/Qwen3-{critic}-Base"] * 2


def test_any_other_model_needs_critics_named(qwen):
    def names(*flags):
        return train.critic_names(train.parse_args(["--model", qwen, *flags]))

    with pytest.raises(UserError, match="name critics with --critics"):
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


def test_the_newline_of_a_stop_string_may_be_written_as_backslash_n():
    """Shells pass it on as two characters."""
    assert train.parse_args(["--stop", "\\nQ:", "END"]).stop == ["\nQ:", "END"]


def test_every_flag_is_explained_and_shows_its_default():
    text = run("train.py", "--help").stdout
    flags = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
    assert len(flags) > 40
    for flag in flags:
        (entry,) = re.findall(rf"^  {flag}(?![\w-])(.*?)(?=^  -|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
        assert len(re.sub(r"--\S+|[A-Z_]{3,}|{.*?}", "", entry).split()) >= 4, f"{flag} has no help: {entry}"
    assert "(default: 8192)" in text and "(default: None)" not in text


# -- mistakes ------------------------------------------------------------------------------------------------
# flags of train.py, and a part of the sentence; DIR is the folder of the fixture `files`, TEMPLATE and GOOD
# are flags of good runs
TRAIN = [
    # values
    ("--group-size 0", "--group-size: must be an integer of at least 1"),
    ("--keep 0", "--keep: must be an integer of at least 1"),
    ("--lr -1", "--lr: must be a number above 0, not -1"),
    ("--lr nan", "--lr: must be a number above 0, not nan"),
    ("--gamma 1.5", "--gamma: must be a number from 0 to 1, not 1.5"),
    ("--mask-fraction -0.1", "--mask-fraction: must be a number from 0 to 1, not -0.1"),
    ("--entropy-coef nan", "--entropy-coef: must be a number of at least 0, not nan"),
    ("--n-problems -1", "--n-problems: must be an integer of at least 0, not -1"),
    ("--mask-fraction little", "--mask-fraction: must be a number from 0 to 1, not little"),
    ("--critic-warmup -1", "--critic-warmup: must be an integer of at least 0, not -1"),
    ("--critic-minibatch-size 0", "--critic-minibatch-size: must be an integer of at least 1"),
    ("--critic-states 0.3 1.5", "--critic-states: must be a number from 0 to 1, not 1.5"),
    ("--critic-states", "--critic-states: expected at least one argument"),
    ("--critic-norm mad", "--critic-norm: invalid choice"),
    ("--steps many", "--steps: must be an integer of at least 1, not many"),
    ("--algo reinforce", "invalid choice"),
    ("--no-such-flag", "unrecognized arguments"),
    ("--stop ''", "--stop: '' would end every response at once"),
    ("--plan 8", "--plan: must be GPUs x GiB each"),
    ("--plan 8x", "--plan: must be GPUs x GiB each"),
    ("--wandb online", "no login is known here"),
    # flags that contradict each other
    ("--group-size 1", "cannot be split over 2 critics"),
    ("--shard-by prompt --prompts-per-step 1", "cannot be split over 2 critics"),
    ("--minibatch-size 0", "--minibatch-size: must be an integer of at least 1"),
    ("--model tiny/actor --critics tiny/critic --minibatch-size 1", "more optimizer steps a pass than its shard"),
    ("--model tiny/actor --critics tiny/critic --shard-by prompt --prompts-per-step 3 --group-size 4 "
     "--minibatch-size 2", "than its shard has responses (4)"),
    ("--shard-by none --critic-minibatch-size 256", "never disagree"),
    ("--mask-by none --mask-fraction 0.2", "has no effect with --mask-by none"),
    ("--algo ppo --filter-fraction 0.5", "has no effect with --filter-by none"),
    ("--token-budget 10", "cannot hold the longest prompt and response"),
    ("--token-budget 85", "cannot hold the longest prompt and response"),
    ("--max-new-tokens 300", "beyond 256 tokens its context"),
    ("--critics a b c", "names 3 models for --n-critics 2"),
    ("--algo grpo --n-critics 2", "--algo grpo has no critics"),
    ("--algo grpo --mask-by std", "need critics"),
    ("--n-critics 0", "use --algo grpo"),
    ("--algo grpo --critic-warmup 1", "--critic-warmup and --critic-replay need critics"),
    ("--algo grpo --critic-replay 8", "--critic-warmup and --critic-replay need critics"),
    ("--algo ppo --aggregate crossfit", "crossfit needs responses that a critic was not"),
    ("--n-critics 1 --gate", "--gate needs responses that a critic was not"),
    ("--algo grpo --gate", "--gate needs responses that a critic was not"),
    ("--shard-by none --minibatch-size 64 --mask-fraction adaptive", "adaptive needs responses that a"),
    ("--mask-by none --mask-fraction adaptive", "--mask-fraction adaptive has no effect with --mask-by none"),
    # data
    ("--data none.jsonl", "no such file"),
    ("--data DIR/cut.jsonl", "cut.jsonl, line 2: not a JSON object"),
    ("--data DIR/no-answer.jsonl", "no-answer.jsonl, line 1: no answer"),
    ("--data DIR/empty.jsonl", "holds no problem"),
    ("--data DIR/noise.parquet", "not a readable parquet file"),
    ("--data zwhe99/DeepMath-103K", "could not be loaded from the hub"),
    ("--data DIR/nan.jsonl", "nan.jsonl, line 1: an answer is text, an integer, a finite float"),
    ("--data DIR/half.jsonl", "half.jsonl, line 1: it holds a lone surrogate"),
    ("--eval-data none.jsonl", "--eval-data none.jsonl: there is no such file"),
    ("--n-problems 1000000", "fewer than the 1000000 asked for"),
    # models and prompts
    ("--model no/such-model --critics x", "no tokenizer could be read"),
    ("--model DIR/no-template --critics DIR/no-template", "has no chat template"),
    ("--model DIR/no-template", "name critics with --critics"),
    ("--critics DIR/other-tokenizer", "its tokenizer is not the actor's"),
    ("--critics DIR/pickled", "its weights could not be loaded"),
    ("--critics DIR/half", "weights are missing"),
    ("--critics DIR/noise", "its weights could not be loaded"),
    ("--critics DIR/code", "no model could be read there"),
    ("--template nothing", "neither a text with {problem}"),
    ("--template " + "x" * 300, "neither a text with {problem}"),
    ("--template DIR/noise.parquet", "neither a text with {problem} in it nor a text file"),
    ("TEMPLATE DIR/raises", "raises: its chat template fails"),
    ("TEMPLATE DIR/unparsed", "unparsed: its chat template fails"),
    ("TEMPLATE DIR/only-user", "only-user: its chat template fails"),
    # folders
    ("--resume", "--resume needs the folder"),
    ("--resume ''", "--out is the working directory"),
    ("--out ''", "--out is the working directory"),
    ("--out DIR/empty.jsonl/run", "empty.jsonl/run cannot be written"),
    ("--out /proc/run", "/proc/run cannot be written"),
    ("--out DIR/dangling", "dangling cannot be written"),
    ("--out DIR/dangling/run", "dangling/run cannot be written"),
    ("--out DIR/new/" + "x" * 300, "cannot be written"),
    ("--resume a --out b", "name two folders"),
    ("--resume tiny/actor", "holds no run"),
    ("--out DIR/run", "holds another run"),
    ("--out DIR/empty.jsonl", "is a file"),
]
# flags of evaluate.py
EVALUATE = [
    ("--model tiny/actor", "give --model and --benchmarks"),
    ("--model tiny/actor --benchmarks none.jsonl", "no such file"),
    ("--model tiny/actor --benchmarks aime99", "--benchmarks aime99: the data set could not be loaded"),
    ("--model tiny/actor --benchmarks DIR/aime24.jsonl", "aime24.jsonl: there is no such file"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl a/test.jsonl", "two sets of one name"),
    ("--model no/model --benchmarks tiny/test.jsonl", "no tokenizer could be read"),
    ("--model DIR/no-template --benchmarks tiny/test.jsonl", "has no chat template"),
    ("GOOD --k 0", "--k: must be an integer of at least 1"),
    ("GOOD --temperature -1", "--temperature: must be a number of at least 0, not -1"),
    ("GOOD --out ''", "--out is the working directory"),
    ("GOOD --out /proc/run", "/proc/run cannot be written"),
    ("GOOD --template x", "neither a text with {problem}"),
    ("GOOD --resume", "--resume needs the folder"),
    ("GOOD --resume --out DIR", "holds no run"),
    ("GOOD --out DIR/run", "holds another run"),
    ("GOOD --out DIR/empty.jsonl", "is a file"),
    ("--compare none none", "not a file that evaluate.py wrote"),
]


@pytest.fixture(scope="module")
def files(qwen, tmp_path_factory) -> Path:
    """Broken data and broken models."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "cut.jsonl").write_text('{"problem": "P", "answer": "1"}\n{"problem": "P", ')
    (folder / "no-answer.jsonl").write_text('{"problem": "P", "level": "1"}\n')
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "noise.parquet").write_bytes(bytes(range(256)))
    (folder / "nan.jsonl").write_text('{"problem": "P", "answer": NaN}\n')
    (folder / "half.jsonl").write_text('{"problem": "\\ud800", "answer": "1"}\n')
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text("{}")
    shutil.copytree(qwen, folder / "no-template")
    (folder / "no-template/chat_template.jinja").unlink()
    for name in ("raises", "unparsed", "only-user"):
        shutil.copytree(ROOT / "tiny/actor", folder / name)
    (folder / "raises/chat_template.jinja").write_text("{{ raise_exception('no') }}")
    (folder / "unparsed/chat_template.jinja").write_text("{% for message in messages %}")
    alone = "{{ raise_exception('one turn') if messages | length > 1 else messages[0].content }}"
    (folder / "only-user/chat_template.jinja").write_text(alone)
    for name in ("other-tokenizer", "pickled", "half", "noise", "code"):
        shutil.copytree(ROOT / "tiny/critic", folder / name)
    tokenizer = json.loads((folder / "other-tokenizer/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["5"], vocabulary["6"] = vocabulary["6"], vocabulary["5"]
    (folder / "other-tokenizer/tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "pickled/model.safetensors").unlink()
    torch.save({}, folder / "pickled/pytorch_model.bin")
    (folder / "noise/model.safetensors").write_bytes(bytes(range(256)))
    weights = load_file(folder / "half/model.safetensors")
    save_file(dict(list(weights.items())[::2]), folder / "half/model.safetensors", metadata={"format": "pt"})
    # code in a model's repository must not run
    code = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (folder / "code/config.json").write_text(json.dumps(code))
    (folder / "code/own.py").write_text(f"open({str(folder / 'executed')!r}, 'w')\n")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "script, flags, sentence",
    [("train.py", *row) for row in TRAIN] + [("evaluate.py", *row) for row in EVALUATE], ids=lambda x: x[:60])
def test_a_mistake_gets_one_sentence_and_exit_code_2_and_nothing_is_written(
        script, flags, sentence, files, tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before, out = contents(files), tmp_path / "run"
    flags = flags.replace("GOOD", "--model tiny/actor --benchmarks tiny/test.jsonl --max-new-tokens 80")
    good = "--critics tiny/critic --data tiny/test.jsonl --n-problems 0 --max-new-tokens 80 --model"
    flags = flags.replace("TEMPLATE", good)
    argv = ["" if flag == "''" else flag for flag in flags.replace("DIR", str(files)).split()]
    # few problems, unless the case has a number of its own
    argv = ["--n-problems", 20, *(["--eval-data", ""] if script == "train.py" else []), *argv]
    if "--out" not in flags and "--resume" not in flags:
        argv += ["--out", out]
    error = run(script, *argv, code=2).stderr
    assert sentence in error and "Traceback" not in error, error
    assert len([line for line in error.splitlines() if ": error: " in line]) == 1, error
    assert not out.exists() and contents(files) == before


@pytest.mark.parametrize("size, sentence", [(3, "does not divide the 1 processes"), (0, "at least 1")])
def test_a_copy_of_the_weights_needs_a_number_of_processes_that_divides_all(size, sentence, tmp_path):
    assert sentence in run("train.py", "--ranks-per-copy", size, "--out", tmp_path / "run", code=2).stderr


@pytest.mark.parametrize(
    "variables, reason",
    [({"WORLD_SIZE": "2"}, "RANK expected"), ({"WORLD_SIZE": "two", "RANK": "0"}, "invalid literal")])
def test_a_process_with_torchruns_variables_but_without_torchrun_says_so(
        variables, reason, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    error = run("train.py", "--out", tmp_path / "run", code=2).stderr
    assert "start them with torchrun" in error and reason in error
