"""Every mistake of a user gets one sentence that says what to do, and nothing is written or overwritten.

Exit code 2; faults of the machine while a run goes on (a full disk, a lost rank) are in test_resume.py, with exit code 1.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import evaluate
import train
from tests.conftest import ROOT, run_script

# flags of train.py; DIR stands for the folder that `files` fills
TRAIN = [
    # values
    ("--group-size 0", "--group-size must be at least 1"),
    ("--keep 0", "--keep must be at least 1"),
    ("--lr -1", "--lr must be a positive number"),
    ("--lr nan", "--lr must be a positive number"),
    ("--timeout 0", "--timeout must be a positive number"),
    ("--gamma 1.5", "--gamma must lie between 0 and 1"),
    ("--mask-fraction -0.1", "--mask-fraction must lie between 0 and 1"),
    ("--entropy-coef nan", "--entropy-coef must be a number of at least 0"),
    ("--n-problems -1", "--n-problems must be a number of at least 0"),
    ("--steps many", "invalid int value"),
    ("--algo reinforce", "invalid choice"),
    ("--no-such-flag", "unrecognized arguments"),
    ("--stop ''", "would end every response at once"),
    ("--device cuda", "torch sees no CUDA GPU"),
    ("--wandb online", "no login is known here"),
    # pairs that contradict each other
    ("--group-size 1", "cannot be divided over 2 critics"),
    ("--shard-by prompt --prompts-per-step 1", "cannot be divided over 2 critics"),
    ("--minibatch-size 100", "does not divide the"),
    ("--minibatch-size 0", "does not divide the"),
    ("--minibatch-size 1", "leaves critics without a response"),
    ("--shard-by prompt --prompts-per-step 3 --group-size 4 --minibatch-size 2", "leaves critics without"),
    ("--shard-by none", "would fit equal critics alike"),
    ("--mask-by none --mask-fraction 0.2", "needs a signal"),
    ("--algo ppo --filter-fraction 0.5", "needs a signal"),
    ("--token-budget 10", "smaller than a response"),
    ("--token-budget 70", "cannot hold the longest prompt and response"),
    ("--critics a b c", "names 3 models for --n-critics 2"),
    ("--algo grpo --n-critics 2", "--algo grpo has no critics"),
    ("--algo grpo --mask-by std", "need critics"),
    ("--n-critics 0", "use --algo grpo"),
    # data
    ("--data none.jsonl", "no such file"),
    ("--data DIR/cut.jsonl", "cut.jsonl, line 2: not a JSON object"),
    ("--data DIR/no-answer.jsonl", "no-answer.jsonl, line 1: no answer"),
    ("--data DIR/empty.jsonl", "holds no problem"),
    ("--data DIR/noise.parquet", "not a readable parquet file"),
    ("--data zwhe99/DeepMath-103K", "could not be loaded from the hub"),
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
    # folders
    ("--resume", "--resume needs the folder"),
    ("--resume a --out b", "name two folders"),
    ("--resume tiny/actor", "holds no run"),
    ("--out DIR/run", "holds another run"),
    ("--out DIR/empty.jsonl", "is a file"),
]
EVALUATE = [
    ("--model tiny/actor", "give --model and --benchmarks"),
    ("--model tiny/actor --benchmarks none.jsonl", "no such file"),
    ("--model tiny/actor --benchmarks aime99", "--benchmarks aime99: the data set could not be loaded from the hub"),
    ("--model tiny/actor --benchmarks aime24 --data-dir DIR", "no such file"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl a/test.jsonl", "two sets of one name"),
    ("--model no/model --benchmarks tiny/test.jsonl", "no tokenizer could be read"),
    ("--model DIR/no-template --benchmarks tiny/test.jsonl", "has no chat template"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --k 0", "--k must be at least 1"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --temperature -1", "--temperature must not be negative"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --timeout 0", "--timeout must be a positive number"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --template x", "neither a text with {problem}"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --resume", "--resume needs the folder"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --resume --out DIR", "holds no run"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --out DIR/run", "holds another run"),
    ("--model tiny/actor --benchmarks tiny/test.jsonl --out DIR/empty.jsonl", "is a file"),
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
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text("{}")
    shutil.copytree(qwen, folder / "no-template")
    (folder / "no-template/chat_template.jinja").unlink()
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
    [(train, *row) for row in TRAIN] + [(evaluate, *row) for row in EVALUATE],
    ids=lambda x: x[:60] if isinstance(x, str) else x.__name__,
)
def test_a_mistake_gets_one_sentence_and_exit_code_2_and_nothing_is_written(
    script, flags, sentence, files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before, out = contents(files), tmp_path / "run"
    argv = ["" if flag == "''" else flag.replace("DIR", str(files)) for flag in flags.split()]
    if "--out" not in flags and "--resume" not in flags:
        argv += ["--out", str(out)]
    try:
        code = script.main(argv)
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err
    assert code == 2 and sentence in error and "Traceback" not in error, error
    said = [line for line in error.splitlines() if ": error: " in line]
    assert len(said) == 1, error
    assert not out.exists() and contents(files) == before, "nothing is written before the command is found to be good"


def test_mistakes_under_torchrun_are_said_once(tmp_path):
    done = run_script("train.py", "--data", "none.jsonl", "--out", tmp_path / "run", processes=2)
    assert done.returncode != 0
    assert done.stderr.count("there is no such file") == 1 and "in load_problems" not in done.stderr
    done = run_script("train.py", "--group-size", 1, processes=2)
    assert done.returncode != 0 and done.stderr.count("cannot be divided over 2 critics") == 1
