"""A rehearsed GPU: every tensor lies where it belongs, and nothing waits for the GPU more often than it must.

tests/rehearsal.py says what a rehearsal can see. Tests of faults break the code and expect the fault to be found.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import asyppo
import train
from engine import head
from engine.batch import Rollout
from engine.models import load_actor
from engine.updates import adamw, score_responses
from tests.rehearsal import CUDA, Record, rehearse
from tests.runs import FEW, ROOT, rows, run
from tests.synthetic import make_synthetic_rollout, settings
from tests.test_families import make

SMALL = [*FEW, *("--dtype fp32 --max-new-tokens 12 --epochs 2 --critic-epochs 2 --eval-every 0 --token-budget 64 "
                 "--generate-batch 5 --critic-minibatch-size 3").split()]
CLOCKS = ("time/", "memory/", "peak_memory", "tokens_per_s")


def numbers(out: Path) -> list[dict]:
    """Return everything that a run has logged, without clocks and memory."""
    return [{key: x for key, x in row.items() if not key.startswith(CLOCKS)} for row in rows(out)]


def rehearsed(script: str, *flags) -> Record:
    with rehearse() as record:
        run(script, *flags)
    assert not record.faults
    return record


# -- whole runs, first, because they start process groups of their own ------------------------------------------
REMEDIES = ("--critic-warmup 1 --critic-states 0.3 0.6 0.9 --critic-norm std --gate --aggregate crossfit "
            "--mask-fraction adaptive --lam-by-length 0.5 --truncated masked --critic-replay 2")
RUNS = {
    "asyppo": "--eval-every 1",
    "ppo": "--algo ppo",
    "grpo": "--algo grpo --eval-every 1",
    "remedies": REMEDIES,
    "bootstrapped": "--critic-order last --critic-lam 0.9 --lam 0.95 --aggregate min --loss-norm token --no-whiten",
    "by entropy": "--mask-by entropy --filter-by random --shard-by prompt --entropy-coef 0.1",
    "at random": "--mask-by random --filter-by entropy --shard-by none",
    "stop strings": "--stop 7 = --gradient-checkpointing",
    "offloaded moments": "--offload moments",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_the_rehearsed_gpu_has_the_cpus_numbers(name, tmp_path):
    flags = [*SMALL, "--steps", "2", *RUNS[name].split()]
    run("train.py", *flags, "--out", tmp_path / "cpu")
    rehearsed("train.py", *flags, "--out", tmp_path / "gpu")
    assert numbers(tmp_path / "cpu") == numbers(tmp_path / "gpu")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_5_text", "gemma2", "gemma3_text"])  # recurrent, capped, with windows
def test_a_family_on_the_rehearsed_gpu_has_the_cpus_numbers(family, tmp_path):
    folder = make(family, tmp_path / family)
    flags = [*SMALL, "--steps", "1", "--model", folder, "--critics", folder, "--template", "{problem}", "--data",
             f"{ROOT}/tiny/train.jsonl"]
    run("train.py", *flags, "--out", tmp_path / "cpu")
    rehearsed("train.py", *flags, "--out", tmp_path / "gpu")
    assert numbers(tmp_path / "cpu") == numbers(tmp_path / "gpu")


@pytest.mark.slow
def test_a_resumed_run_an_evaluation_and_values_of_states_have_the_cpus_numbers(tmp_path):
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    run("train.py", *SMALL, "--steps", "2", "--out", cpu)
    for steps, more in (("1", []), ("2", ["--resume"])):
        rehearsed("train.py", *SMALL, "--steps", steps, "--out", gpu, *more)
    assert numbers(cpu) == numbers(gpu)

    flags = ["--model", cpu / "model", "--benchmarks", f"{ROOT}/tiny/test.jsonl", "--n-problems", "3", "--k", "2",
             "--max-new-tokens", "12", "--generate-batch", "4", "--dtype", "fp32"]
    run("evaluate.py", *flags, "--out", tmp_path / "cpu_eval")
    rehearsed("evaluate.py", *flags, "--out", tmp_path / "gpu_eval")
    assert rows(tmp_path / "cpu_eval", "responses.jsonl") == rows(tmp_path / "gpu_eval", "responses.jsonl")

    flags = [cpu, "--problems", "2", "--continuations", "2", "--every", "6"]
    run("experiments/values/values.py", *flags, "--json", tmp_path / "cpu.json")
    rehearsed("experiments/values/values.py", *flags, "--json", tmp_path / "gpu.json")
    assert json.loads((tmp_path / "cpu.json").read_text()) == json.loads((tmp_path / "gpu.json").read_text())


# -- what a rehearsal sees ---------------------------------------------------------------------------------------
MASK, ORDER = torch.tensor([True, False, True]), torch.Generator()
FAULTS = {  # g lies on the GPU, c on the CPU
    "a sum of both": lambda g, c: g + c,
    "a number on the GPU": lambda g, c: c * g.sum(),
    "indices on the GPU": lambda g, c: c[g.long()],
    "values of the other device": lambda g, c: g.index_put((MASK,), c[:2]),
    "a generator of the CPU": lambda g, c: torch.randperm(3, generator=ORDER, device=CUDA),
    "a generator of the CPU in place": lambda g, c: g.uniform_(generator=ORDER),
    "an array": lambda g, c: g.numpy(),
    "a factory without a device": lambda g, c: g * torch.arange(3),
    "gradients of the other device": lambda g, c: torch.autograd.grad(g.requires_grad_().exp(), g, c),
}
WAITS = {
    "item": lambda g, c: g[0].item(), "bool": lambda g, c: bool(g[0] > 0), "int": lambda g, c: int(g[0]),
    "tolist": lambda g, c: g.tolist(), "max": lambda g, c: max(g[0], 2), "equal": lambda g, c: torch.equal(g, g),
    "nonzero": lambda g, c: g.nonzero(), "unique": lambda g, c: g.unique(), "cpu": lambda g, c: g.cpu(),
    "to": lambda g, c: c.to(CUDA), "to a tensor": lambda g, c: c.to(g),
    "tensor": lambda g, c: torch.tensor([1], device=CUDA),
    "mask": lambda g, c: g[g > 0], "indices": lambda g, c: g[[0, 2]], "copy": lambda g, c: c.copy_(g),
}
FREE = {
    "to": lambda g, c: c.to(CUDA, non_blocking=True) + g, "number": lambda g, c: g * c.sum() + 1,
    "slice": lambda g, c: g[1:].add_(g[0]), "indices": lambda g, c: g[torch.arange(2, device=CUDA)],
    "like": lambda g, c: g + torch.ones_like(g) + g.new_zeros(3) + torch.zeros(3, device=g.device),
    "where": lambda g, c: torch.where(g > 0, g, 0.0),
    "backward": lambda g, c: g.requires_grad_().exp().sum().backward(),
}


@pytest.mark.parametrize("cases, faults, waits", [(FAULTS, 1, None), (WAITS, 0, 1), (FREE, 0, 0)],
                         ids=["faults", "waits", "free"])
def test_a_rehearsal_sees_faults_and_waits_and_nothing_else(cases, faults, waits):
    for name, case in cases.items():
        with rehearse() as record:
            on_gpu, on_cpu = torch.ones(3).to(CUDA, non_blocking=True), torch.ones(3)
            case(on_gpu, on_cpu)
        assert len(record.faults) == faults, (name, record.faults)
        assert waits is None or record.waits.total() == waits, (name, record.waits)


def test_a_rehearsal_sees_what_backward_waits_for():
    with rehearse() as record:
        x = torch.ones(3).to(CUDA, non_blocking=True).requires_grad_()
        chosen = x[(x > 0).detach()]
        before = record.waits.total()
        chosen.sum().backward()
    assert before == 1 and record.waits.total() == 2 and not record.faults


# -- one step ----------------------------------------------------------------------------------------------------
# The most waits for each unit. The library reads a value in each micro-batch and two for each token.
MOST_WAITS = {"sampled token": 2.21, "call of generate": 14.75, "micro-batch of an update": 1, "optimizer step": 1,
              "scored micro-batch": 1, "scoring pass": 1, "step": 6}


def test_a_step_has_no_fault_and_waits_no_more_than_it_must(open_run, world):
    small = "--dtype fp32 --max-new-tokens 12 --generate-batch 5 --token-budget 48 --epochs 1 --critic-epochs 1"
    with rehearse() as record:
        opened = open_run(*small.split(), world=replace(world, device=CUDA))
        with opened.verifier:
            train.train_step(opened, 1)
    assert not record.faults
    assert record.units["micro-batch of an update"] > 2 * record.units["optimizer step"]
    waits = record.per_unit()
    assert waits.keys() >= MOST_WAITS.keys()
    assert {unit: waits[unit] for unit, most in MOST_WAITS.items() if waits[unit] > most} == {}, record.rates()


@pytest.fixture
def rehearsed_update(qwen, world):
    """rehearsed_update() -> the record of one update of the policy on the rehearsed GPU"""

    def update() -> Record:
        rollout, gpu = make_synthetic_rollout(), replace(world, device=CUDA)
        mask_BT = rollout.mask_BT
        with rehearse() as record:
            actor = load_actor(qwen, gpu, torch.float32)
            rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(actor, rollout, 120, gpu)
            data = asyppo.PolicyData(rollout.old_logp_BT, torch.randn(mask_BT.shape), mask_BT, mask_BT)
            args, optimizer = settings(token_budget=120), adamw(actor, 1e-3)
            run = SimpleNamespace(args=args, actor=actor, actor_optimizer=optimizer, world=gpu)
            train.update_policy(run, rollout, data, step=1)
        return record

    return update


def test_data_that_stay_on_the_cpu_are_found(rehearsed_update, monkeypatch):
    monkeypatch.setattr(Rollout, "pick", lambda self, x_BT, rows, device: x_BT[rows][self.mask_BT[rows]])
    assert any(fault.startswith("asyppo.py: policy_loss: sub of cuda:0") for fault in rehearsed_update().faults)


def test_places_that_are_on_the_wrong_device_are_found(rehearsed_update, monkeypatch):
    chunk = head.loss
    monkeypatch.setattr(head, "loss", lambda hidden_NH, weight_VH, targets_N, *rest: chunk(
        hidden_NH, weight_VH, targets_N.cpu(), *rest))
    assert any(fault.startswith("engine/head.py: loss: gather of cuda:0") for fault in rehearsed_update().faults)


def test_a_value_that_is_read_in_every_micro_batch_is_found(rehearsed_update, monkeypatch):
    plain = asyppo.policy_loss

    def reads(*args, **kwargs):
        loss_N, logged = plain(*args, **kwargs)
        return loss_N * float(loss_N.isfinite().all()), logged

    monkeypatch.setattr(asyppo, "policy_loss", reads)
    record = rehearsed_update()
    assert not record.faults
    assert record.per_unit()["micro-batch of an update"] == MOST_WAITS["micro-batch of an update"] + 1
