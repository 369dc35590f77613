"""Starting train.py in tests, and reading what a run has left."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

import train
from tests.conftest import run_script
from tests.forks import run_forked

# half the embedded default's batch
SMALL = ["--prompts-per-step", 8, "--group-size", 8, "--eval-every", 0]


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def run_train(out: Path, *flags, processes: int = 0):
    done = run_script("train.py", "--out", out, *flags, processes=processes)
    assert done.returncode == 0, done.stderr
    return done


def run_ranks(out: Path, *flags, processes: int) -> None:
    """The same without torchrun and the time that imports take."""
    done = run_forked("train.py", "--out", out, *flags, processes=processes)
    assert done.returncode == 0, done.stderr


def run_here(out: Path, *flags) -> None:
    """The same without a new process, for tests that compare many runs."""
    assert train.main(["--out", str(out), *map(str, flags)]) == 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = [
        folder / "model/model.safetensors",
        folder / "critic0/model.safetensors",
        folder / "critic1/value_head.safetensors",
    ]
    return {f"{file}{name}".removeprefix(str(folder)): x for file in files for name, x in load_file(file).items()}
