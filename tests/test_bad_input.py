"""Every mistake of a user gets one sentence that says what to do, and nothing is written or overwritten.

Exit code 2; faults of the machine while a run goes on (a full disk, a lost rank) are in test_resume.py.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runs import ROOT, run

# flags of train.py; DIR stands for the folder that `files` fills
TRAIN = [
    # values
    ("--group-size 0", "argument --group-size: must be an integer of at least 1, not 0"),
    ("--keep 0", "argument --keep: must be an integer of at least 1, not 0"),
    ("--lr -1", "argument --lr: must be a number above 0, not -1"),
    ("--lr nan", "argument --lr: must be a number above 0, not nan"),
    ("--timeout 0", "argument --timeout: must be a number above 0, not 0"),
    ("--gamma 1.5", "argument --gamma: must be a number of at least 0 and at most 1, not 1.5"),
    ("--mask-fraction -0.1", "--mask-fraction: must be a number of at least 0 and at most 1, not -0.1"),
    ("--entropy-coef nan", "argument --entropy-coef: must be a number of at least 0, not nan"),
    ("--n-problems -1", "argument --n-problems: must be an integer of at least 0, not -1"),
    ("--mask-fraction little", "--mask-fraction: must be a number of at least 0 and at most 1, not little"),
    ("--critic-warmup -1", "argument --critic-warmup: must be an integer of at least 0, not -1"),
    ("--critic-minibatch-size 0", "--critic-minibatch-size: must be an integer of at least 1, not 0"),
    ("--critic-states 0.3 1.5", "--critic-states: must be a number of at least 0 and at most 1, not 1.5"),
    ("--critic-states", "argument --critic-states: expected at least one argument"),
    ("--critic-norm mad", "argument --critic-norm: invalid choice"),
    ("--steps many", "argument --steps: must be an integer of at least 1, not many"),
    ("--algo reinforce", "invalid choice"),
    ("--no-such-flag", "unrecognized arguments"),
    ("--stop ''", "argument --stop: '' would end every response at once"),
    ("--device cuda", "torch sees no CUDA GPU"),
    ("--wandb online", "no login is known here"),
    # pairs that contradict each other
    ("--group-size 1", "cannot be divided over 2 critics"),
    ("--shard-by prompt --prompts-per-step 1", "cannot be divided over 2 critics"),
    ("--minibatch-size 0", "argument --minibatch-size: must be an integer of at least 1, not 0"),
    ("--model tiny/actor --critics tiny/critic --minibatch-size 1", "leaves critics without a response"),
    ("--model tiny/actor --critics tiny/critic --shard-by prompt --prompts-per-step 3 --group-size 4 "
     "--minibatch-size 2", "leaves critics without"),
    ("--shard-by none --critic-minibatch-size 256", "would fit equal critics alike"),
    ("--mask-by none --mask-fraction 0.2", "needs a signal"),
    ("--algo ppo --filter-fraction 0.5", "needs a signal"),
    ("--token-budget 10", "cannot hold the longest prompt and response"),
    ("--token-budget 85", "cannot hold the longest prompt and response"),
    ("--max-new-tokens 300", "beyond 256 tokens its context (max_position_embeddings) ends"),
    ("--critics a b c", "names 3 models for --n-critics 2"),
    ("--algo grpo --n-critics 2", "--algo grpo has no critics"),
    ("--algo grpo --mask-by std", "need critics"),
    ("--n-critics 0", "use --algo grpo"),
    ("--algo grpo --critic-warmup 1", "--critic-warmup needs critics"),
    ("--algo ppo --aggregate crossfit", "crossfit needs responses that a critic was not fitted on"),
    ("--n-critics 1 --gate", "--gate needs responses that a critic was not fitted on"),
    ("--algo grpo --gate", "--gate needs responses that a critic was not fitted on"),
    ("--shard-by none --minibatch-size 64 --mask-fraction adaptive",
     "--mask-fraction adaptive needs responses that a critic was not fitted on"),
    ("--mask-by none --mask-fraction adaptive", "--mask-fraction adaptive needs a signal"),
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
    ("--model DIR/no-template --critics DIR/no-template", "has no chat template; give --template"),
    ("--model DIR/no-template", "name them with --critics"),
    ("--critics DIR/other-tokenizer", "its tokenizer is not the actor's"),
    ("--critics DIR/pickled", "its weights could not be loaded"),
    ("--critics DIR/half", "weights are missing"),
    ("--critics DIR/noise", "its weights could not be loaded"),
    ("--critics DIR/code", "no model could be read there"),
    ("--template nothing", "neither a text with {problem}"),
    ("--template " + "x" * 300, "neither a text with {problem}"),
    ("--template DIR/noise.parquet", "neither a text with {problem} in it nor a text file"),
    ("OWN DIR/raises", "raises: its chat template fails; mend it, or give --template"),
    ("OWN DIR/unparsed", "unparsed: its chat template fails; mend it"),
    ("OWN DIR/only-user", "only-user: its chat template fails; mend it"),
    # folders
    ("--resume", "--resume needs the folder"),
    ("--resume ''", "--out is the working directory"),
    ("--out ''", "--out is the working directory"),
    ("--out DIR/empty.jsonl/run", "empty.jsonl/run cannot be written; name another folder"),
    ("--out /proc/run", "/proc/run cannot be written; name another folder"),
    ("--out DIR/dangling", "dangling cannot be written; name another folder"),
    ("--out DIR/dangling/run", "dangling/run cannot be written; name another folder"),
    ("--out DIR/new/" + "x" * 300, "cannot be written; name another folder"),
    ("--resume a --out b", "name two folders"),
    ("--resume tiny/actor", "holds no run"),
    ("--out DIR/run", "holds another run"),
    ("--out DIR/empty.jsonl", "is a file"),
]
# flags of evaluate.py; GOOD stands for a model and a benchmark that are there
EVALUATE = [
    ("--model tiny/actor", "give --model and --benchmarks"),
    ("--model tiny/actor --benchmarks none.jsonl", "no such file"),
    ("--model tiny/actor --benchmarks aime99",
     "--benchmarks aime99: the data set could not be loaded from the hub"),
    ("--model tiny/actor --benchmarks DIR/aime24.jsonl", "aime24.jsonl: there is no such file"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl a/test.jsonl", "two sets of one name"),
    ("--model no/model --benchmarks tiny/test.jsonl", "no tokenizer could be read"),
    ("--model DIR/no-template --benchmarks tiny/test.jsonl", "has no chat template"),
    ("GOOD --k 0", "argument --k: must be an integer of at least 1, not 0"),
    ("GOOD --temperature -1", "argument --temperature: must be a number of at least 0, not -1"),
    ("GOOD --timeout 0", "argument --timeout: must be a number above 0, not 0"),
    ("GOOD --out ''", "--out is the working directory"),
    ("GOOD --out /proc/run", "/proc/run cannot be written; name another folder"),
    ("GOOD --template x", "neither a text with {problem}"),
    ("GOOD --resume", "--resume needs the folder"),
    ("GOOD --resume --out DIR", "holds no run"),
    ("GOOD --out DIR/run", "holds another run"),
    ("GOOD --out DIR/empty.jsonl", "is a file"),
    ("--compare none none", "not a file that evaluate.py wrote"),
]


@pytest.fixture(scope="module")
def files(qwen, tmp_path_factory) -> Path:
    """Broken data, and models with something wrong."""
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
    # a repository with code of its own, which must not run
    code = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (folder / "code/config.json").write_text(json.dumps(code))
    (folder / "code/own.py").write_text(f"open({str(folder / 'executed')!r}, 'w')\n")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "script, flags, sentence",
    [("train.py", *row) for row in TRAIN] + [("evaluate.py", *row) for row in EVALUATE],
    ids=lambda x: x[:60]
)
def test_a_mistake_gets_one_sentence_and_exit_code_2_and_nothing_is_written(
    script, flags, sentence, files, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before, out = contents(files), tmp_path / "run"
    flags = flags.replace("GOOD", "--model tiny/actor --benchmarks tiny/test.jsonl --max-new-tokens 80")
    own = "--critics tiny/critic --data tiny/test.jsonl --n-problems 0 --max-new-tokens 80 --model"
    flags = flags.replace("OWN", own)
    argv = ["" if flag == "''" else flag for flag in flags.replace("DIR", str(files)).split()]
    if "--out" not in flags and "--resume" not in flags:
        argv += ["--out", out]
    error = run(script, *argv, code=2).stderr
    assert sentence in error and "Traceback" not in error, error
    said = [line for line in error.splitlines() if ": error: " in line]
    assert len(said) == 1, error
    # nothing is written before the command is found to be good
    assert not out.exists() and contents(files) == before


def test_mistakes_under_torchrun_are_said_once(begun, request):
    """--data none.jsonl; --group-size 1"""
    no_data, no_groups = (done.stderr for done in begun[request.node.name][1].result())
    assert no_data.count("there is no such file") == 1 and "in load_problems" not in no_data
    assert no_groups.count("cannot be divided over 2 critics") == 1


def test_a_mistake_that_rank_0_alone_can_find_is_raised_on_all_ranks(files, tmp_path):
    flags = ["--model", files / "half", "--critics", "tiny/critic", "--data", "tiny/test.jsonl"]
    flags += ["--n-problems", 0, "--max-new-tokens", 80, "--out", tmp_path / "run"]
    done = run("train.py", *flags, processes=2, code=2)
    assert done.stderr.count("it would start random") == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "what, sentence",
    [("folder", "--out run is not the same folder on every machine"),
     ("data", "--data names different things")]
)
def test_machines_that_do_not_share_what_they_must_are_told(what, sentence, tmp_path):
    for rank in "01":
        (tmp_path / rank).mkdir()
    done = run("tests/elsewhere.py", what, tmp_path, processes=2, code=2)
    assert done.stdout.count(sentence) == 2 and not [*tmp_path.glob("*/*"), *tmp_path.glob("run")]


@pytest.mark.parametrize("size, sentence", [(3, "does not divide the 1 processes"), (0, "at least 1")])
def test_copies_of_the_weights_that_cannot_be_are_refused(size, sentence, tmp_path):
    assert sentence in run("train.py", "--ranks-per-copy", size, "--out", tmp_path / "run", code=2).stderr


@pytest.mark.parametrize(
    "variables, reason",
    [({"WORLD_SIZE": "2"}, "RANK expected"), ({"WORLD_SIZE": "two", "RANK": "0"}, "invalid literal")]
)
def test_a_process_that_torchrun_did_not_start_but_that_is_told_of_others_says_so(
    variables, reason, tmp_path, monkeypatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    error = run("train.py", "--out", tmp_path / "run", code=2).stderr
    assert "the processes that WORLD_SIZE counts cannot meet" in error and reason in error
