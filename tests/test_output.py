"""Whoever reads what a script prints, and in whatever encoding: no run ends by it."""

import os
import sys

import pytest

import evaluate
from distributed import secure_output
from tests.runs import FEW, FORKS, be_rank, rows


def test_a_run_goes_on_and_ends_well_after_its_reader_has_left(tmp_path):
    """As with `| head -1`: the pipe is broken after the first line."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    flags = [*FEW, "--steps", "1", "--out", str(tmp_path / "run")]
    # a process of its own, which ends as an interpreter does: by flushing what it has printed
    rank = FORKS.Process(target=be_rank, args=("train.py", flags, {}, [str(pipe), os.devnull]))
    rank.start()
    with pipe.open() as reader:
        assert reader.readline().startswith("asyppo: actor")
    rank.join()
    assert rank.exitcode == 0
    assert [m["step"] for m in rows(tmp_path / "run")] == [1] and (tmp_path / "run/model").exists()


def test_an_evaluation_whose_output_goes_to_a_full_disk_ends_well(tmp_path, monkeypatch):
    flags = "--model tiny/actor --benchmarks tiny/test.jsonl --n-problems 2 --max-new-tokens 4 --out".split()
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))
    assert evaluate.main([*flags, str(tmp_path / "run")]) == 0 and (tmp_path / "run/eval.json").exists()


@pytest.mark.parametrize(
    "encoding, expected", [("ascii", b"? 1 ? 2"), ("latin-1", b"? 1 \xd7 2"), ("utf-8", None)]
)
def test_what_an_encoding_lacks_is_printed_as_a_question_mark(monkeypatch, tmp_path, encoding, expected):
    text = "σ 1 × 2"
    with (tmp_path / "out").open("w", encoding=encoding) as file:
        monkeypatch.setattr(sys, "stdout", file)
        secure_output()
        print(text, end="", flush=True)
    assert (tmp_path / "out").read_bytes() == (expected or text.encode())
