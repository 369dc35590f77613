"""benchmarks/gpu.py finds right code right and wrong code wrong; all on the CPU at tiny sizes."""

import ast
import importlib
import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu
from engine import models
from engine.distributed import stop
from engine.graph_decode import FixedLayer
from tests.runs import ROOT

pytestmark = pytest.mark.slow


def found(part, *flags) -> list[dict]:
    results = []
    try:
        part(gpu.parse_args(["--device", "cpu", *flags]), results.append)
    finally:
        stop()
    return results


def test_the_code_is_found_right_on_the_cpu_in_fp32_and_bf16():
    results = found(gpu.correct)
    assert len(results) == 12 and all(x["right"] for x in results), results


def test_graph_is_found_right_on_the_cpu_and_wrong_if_keys_go_astray(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    results = found(gpu.graph)
    assert len(results) == 4 and all(x["right"] for x in results), results
    update = FixedLayer.update
    monkeypatch.setattr(FixedLayer, "update", lambda layer, k, v, *rest: update(layer, k.flip(0), v))
    assert {x["check"] for x in found(gpu.graph) if not x["right"]} == {"greedy responses of graph"}


def test_a_model_that_eager_decodes_is_not_timed_as_graph(monkeypatch):
    monkeypatch.setattr(gpu.Qwen3ForCausalLM, "_can_compile_fullgraph", False)
    with pytest.raises(RuntimeError, match="eager stood in"):
        found(gpu.decode, "--contexts", "5", "--decode-rows", "2")


def test_states_that_are_one_token_late_are_found_wrong(monkeypatch):
    states = models.response_states
    monkeypatch.setattr(models, "response_states", lambda *a: (states(*a)[0].roll(1, 0), states(*a)[1]))
    wrong = {x["check"] for x in found(gpu.correct) if not x["right"]}
    assert wrong == {"log-probabilities", "entropies", "gradient", "values", "σ"}


def test_decoding_is_timed_for_both_decoders_every_number_of_rows_and_every_context(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    results = found(gpu.decode, "--contexts", "5", "9", "--decode-rows", "2", "3")
    sizes = [(5, 2), (5, 3), (9, 2), (9, 3)]
    assert [(x["decoder"], x["context"], x["rows"]) for x in results] == [
        (decoder, *size) for decoder in ("eager", "graph") for size in sizes]
    assert all(x["waits_a_token"] == "not counted on a CPU" for x in results)
    assert all(x["tokens_per_s"] == pytest.approx(x["rows"] / x["ms_a_token"] * 1e3) for x in results)


# as if these packages were not installed
HIDE = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.split(".")[0] in ("wandb", "math_verify", "datasets", "pyarrow", "hypothesis", "pytest")
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


def test_every_part_runs_with_torch_transformers_numpy_and_tqdm_alone(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--minutes", "9", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert not [x for x in results if "failed" in x or not x.get("right", True)], done.stdout + done.stderr
    assert {x["part"] for x in results} == set(gpu.PARTS)
    steps = [x for x in results if x["part"] == "step" and "step_s" in x]
    assert [x["row"] for x in steps] == gpu.CPU["rows"] and all(x["skipped"] == 0 for x in steps)


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "benchmarks").glob("*.py")))
def test_the_names_that_a_script_imports_from_this_repo_exist(script):
    tree = ast.parse((ROOT / "benchmarks" / script).read_text())
    ours = {path.stem for path in ROOT.iterdir()}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ours:
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")
