"""The plan's bytes are those that phases allocate, and --offload and --generate-batch follow from it."""

import json
import weakref
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import asyppo
import train
from critics import ensemble_values, fit_critics
from engine import plan
from engine.batch import Response, make_rollout
from engine.distributed import World
from engine.duration import CARDS, step_seconds
from engine.generation import SamplingConfig, generate_responses
from engine.models import load_actor, load_critic
from engine.plan import Workload
from engine.updates import adamw, score_responses
from tests.conftest import save_model, shape
from tests.runs import FEW, run
from tests.synthetic import critic_config, settings

ROWS, LENGTH = 16, 32
SHAPE = dict(vocab_size=1500, hidden_size=64, num_hidden_layers=4, intermediate_size=192)
SHAPE |= dict(num_attention_heads=8, num_key_value_heads=2, head_dim=16)
MODELS = {
    "qwen": lambda: Qwen3ForCausalLM(Qwen3Config(**shape(**SHAPE, tie_word_embeddings=True))),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape(**SHAPE, tie_word_embeddings=False))),
}


class Peak(TorchDispatchMode):
    """Measures the peak of bytes in the storages of these tensors and of all results of operators."""

    def __init__(self, tensors):
        super().__init__()
        self.storages, self.most = weakref.WeakSet(), 0
        self.see(tensors)

    def see(self, tensors):
        before = len(self.storages)
        for x in filter(torch.is_tensor, tree_leaves(tensors)):
            self.storages.add(local(x).untyped_storage())
        if len(self.storages) > before:
            self.most = max(self.most, sum(storage.nbytes() for storage in self.storages))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.see(out)
        return out


def local(x: torch.Tensor) -> torch.Tensor:
    return x._local_tensor if isinstance(x, DTensor) else x


def n_bytes(tensors) -> int:
    storages = [local(x).untyped_storage() for x in tensors]
    # FSDP2 keeps a unit's gradients in one storage
    return sum({x.data_ptr(): x.nbytes() for x in storages}.values())


def moments(*optimizers) -> list[torch.Tensor]:
    return [x for o in optimizers for state in o.state.values() for x in state.values() if x.dim()]


# before the tests with a process group of their own: it starts runs
@pytest.mark.slow
def test_a_resumed_run_keeps_the_generate_batch_that_auto_chose(tmp_path, monkeypatch, around):
    seen = []
    around("SamplingConfig", after=lambda sampling: seen.append(sampling.batch) or sampling)
    flags = ["--out", tmp_path / "run", *FEW, "--generate-batch", "auto", "--max-new-tokens", 8]
    flags += ["--epochs", 1, "--critic-epochs", 1]
    monkeypatch.setattr(plan, "MIN_BATCH", 3)
    run("train.py", *flags, "--steps", 1)
    assert json.loads((tmp_path / "run/config.json").read_text())["settings"]["generate_batch"] == 3
    monkeypatch.setattr(plan, "MIN_BATCH", 5)
    run("train.py", *flags, "--steps", 2, "--resume", "--offload", "moments")
    assert seen == [3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name, dtype, checkpointing", [
    ("qwen", torch.bfloat16, True), ("llama", torch.float32, False)])
def test_every_phase_allocates_as_planned(tmp_path, world, name, dtype, checkpointing):
    """Weights, moments and gradients to the byte, and the sum of all parts within 10 % of the peak."""
    torch.manual_seed(0)
    path, budget = save_model(MODELS[name](), tmp_path), ROWS * LENGTH
    work = Workload(path, [path] * 2, ROWS, ROWS // 2, 4, LENGTH - 4, budget, checkpointing, "none", ROWS)
    models = [load(path, world, dtype, gradient_checkpointing=checkpointing)
              for load in (load_actor, load_critic, load_critic)]
    actor, *critics = models
    actor_optimizer, *critic_optimizers = optimizers = [adamw(model, 1e-5) for model in models]
    tokens = torch.randint(3, 1500, (ROWS, LENGTH)).tolist()
    rollout = make_rollout([Response(row[:4], row[4:], False) for row in tokens], [""] * ROWS, [""] * ROWS,
                           [b % 2.0 for b in range(ROWS)], ROWS // 2)
    ones, mask = torch.ones(rollout.mask_BT.shape), rollout.mask_BT
    rollout.old_logp_BT = -ones
    data = asyppo.PolicyData(rollout.old_logp_BT, ones, mask, mask)
    rollout.shards_MB = torch.ones(2, ROWS, dtype=torch.bool)
    sampling = SamplingConfig(LENGTH - 4, 1.0, frozenset(), (), ROWS)
    prompts = [row[:4] for row in tokens[:2] for _ in range(ROWS // 2)]
    args = settings(minibatch_size=ROWS, token_budget=budget)
    policy = SimpleNamespace(args=args, actor=actor, actor_optimizer=actor_optimizer, world=world)
    do = {
        "policy": lambda: train.update_policy(policy, rollout, data, 1),
        "fit_critics": lambda: fit_critics(
            critics, critic_optimizers, rollout, torch.stack([ones, ones]), critic_config(token_budget=budget), 1,
            world),
        "score": lambda: score_responses(actor, rollout, budget, world),
        "values": lambda: ensemble_values(critics, rollout, budget, world),
        "generate": lambda: generate_responses(actor, None, prompts, sampling, world, 0, ""),
    }
    do["policy"](), do["fit_critics"]()  # the moments exist from the first update on
    sizes = [plan.size_of(path, flag, dtype.itemsize) for flag in ("--model", "--critics")]
    planned = plan.phases(sizes[0], [sizes[1]] * 2, work, "none", 1, 1)
    planned["generate"] |= plan.in_flight(sizes[0], work, ROWS)
    assert set(planned) == set(do)
    parameters = [p for model in models for p in model.parameters()]
    gradients = {}
    for phase, optimizer in {"policy": actor_optimizer, "fit_critics": critic_optimizers[0]}.items():
        optimizer.register_step_pre_hook(lambda o, *_, phase=phase: gradients.__setitem__(
            phase, n_bytes(p.grad for p in o.param_groups[0]["params"])))
    for phase, part in planned.items():
        assert part["weights"] == n_bytes(parameters) and part["moments"] == n_bytes(moments(*optimizers))
        with Peak([parameters, moments(*optimizers)]) as peak:
            do[phase]()
        assert sum(part.values()) == pytest.approx(peak.most, rel=0.1), phase
    assert gradients == {phase: planned[phase]["gradients"] for phase in ("policy", "fit_critics")}


# hidden size, layers, intermediate size, heads, tied embeddings, parameters in the published files
QWEN3 = {
    "0.6B": (1024, 28, 3072, 16, True, 596_049_920), "1.7B": (2048, 28, 6144, 16, True, 1_720_574_976),
    "4B": (2560, 36, 9728, 32, True, 4_022_468_096), "8B": (4096, 36, 12288, 32, False, 8_190_735_360),
    "14B": (5120, 40, 17408, 40, False, 14_768_307_200),
}


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    """A folder for each size that holds config.json only."""
    folder = tmp_path_factory.mktemp("qwen3")
    for name, (hidden, layers, inner, heads, tied, _) in QWEN3.items():
        Qwen3Config(
            hidden_size=hidden, num_hidden_layers=layers, intermediate_size=inner, num_attention_heads=heads,
            num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=tied,
        ).save_pretrained(folder / name)
    return folder


def test_parameters_are_counted_from_config_json_alone(qwen3):
    for name, (*_, n) in QWEN3.items():
        assert plan.size_of(qwen3 / name, "--model", 2).params == n
        # a critic has no output embedding, and a head of its own
        untied = 0 if QWEN3[name][4] else 151936 * QWEN3[name][0]
        assert plan.size_of(qwen3 / name, "--critics", 2).params == n - untied + QWEN3[name][0] + 1


def test_processes_with_a_copy_each_gather_too_and_a_single_one_in_fp32_does_not(qwen3):
    evaluation = Workload(str(qwen3 / "0.6B"), None, 1024, 32, 1024, 8192)
    size = plan.size_of(qwen3 / "0.6B", "--model", 4)
    alone, two = (plan.phases(size, None, evaluation, "none", 1, n)["generate"]["gathered"] for n in (1, 2))
    assert (alone, two) == (0, 4 * size.params)


FakeMesh = namedtuple("FakeMesh", "shape")
GIB = 2**30


def flags_of(qwen3: Path, *more) -> list[str]:
    return list(map(str, ["--model", qwen3 / "4B", "--critics", qwen3 / "0.6B", *more]))


def work_of(qwen3: Path, *more) -> Workload:
    """The default settings: 32 × 32 responses of 8,192 tokens, prompts of 1,024."""
    args = train.parse_args(flags_of(qwen3, *more))
    return train.workload(args, train.critic_names(args), 1024)


def on_gpus(monkeypatch, gib: float) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib * GIB, 80 * GIB))


def test_the_settings_of_a_gpu_run_follow_from_its_free_memory_and_the_plan_is_printed(
        qwen3, world, monkeypatch, capsys):
    work = work_of(qwen3)
    on_cpu = dict(offload="none", generate_batch=16)
    assert plan.settle(work, "auto", None, world) == (on_cpu, world)
    assert not capsys.readouterr().out
    on_gpus(monkeypatch, 79)
    chosen, _ = plan.settle(work, "auto", None, replace(world, device=torch.device("cuda")))
    assert chosen["offload"] == "moments" and 16 < chosen["generate_batch"] < 64
    assert "policy" in capsys.readouterr().out


@pytest.mark.parametrize("gib, mesh, offload", [
    (140, (2, 1), "none"), (80, (2, 1), "moments"), (48, (2,), "moments")])
def test_a_machine_holds_a_copy_of_its_own_if_it_fits_else_all_machines_share_one(
        qwen3, monkeypatch, gib, mesh, offload):
    on_gpus(monkeypatch, gib)
    monkeypatch.setattr(plan, "gather_list", lambda local, world: local)
    monkeypatch.setattr("engine.distributed.gather_list", lambda local, world: local)
    monkeypatch.setattr(plan, "make_mesh", lambda device, size, ranks: FakeMesh((size,)))
    two_machines = World(0, 2, torch.device("cuda"), FakeMesh((2, 1)))
    for ranks_per_copy, expected in ((None, mesh), (1, (2, 1))):
        chosen, world = plan.settle(work_of(qwen3), "auto", ranks_per_copy, two_machines)
        assert world.mesh.shape == expected
        assert chosen["offload"] == (offload if expected == mesh else "all")


def test_few_responses_in_flight_are_no_reason_to_share_one_copy(qwen3):
    training = work_of(qwen3, "--offload", "none")
    evaluation = Workload(training.actor, None, 1024, 32, 1024, 8192)
    for work, gib in ((training, 88), (evaluation, 30)):
        chosen, text = plan.choose(work, 2, 2, [1, 2], gib * GIB)
        assert chosen["ranks_per_copy"] == 1 and chosen["generate_batch"] < 16
        assert ("--offload" in text) == (work is training), "an evaluation has no such flag"


def test_plan_prints_the_table_from_config_json_alone_and_starts_nothing(qwen3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run("train.py", *flags_of(qwen3, "--plan", "1x80")).stdout
    assert "--offload moments --generate-batch" in text and "DOES NOT FIT" not in text
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "GiB", "generate", "score", "fit_critics", "values", "policy", "Time,", "seconds", "H100", "H200", "A100"]
    for line in lines[2:7]:
        *parts, total = map(float, line.split()[1:])
        assert sum(parts) == pytest.approx(total, abs=0.4) and total <= 0.95 * 80 + 0.05
    assert not list(tmp_path.iterdir())
    named = run("train.py", *flags_of(qwen3, "--plan", "1x80", "--offload", "none")).stdout
    assert "Chosen: --offload none" in named and "DOES NOT FIT" in named
    assert "use more GPUs" in run("train.py", *flags_of(qwen3, "--plan", "1x8"), code=2).stderr
    two_machines = run("train.py", *flags_of(qwen3, "--plan", "16x80")).stdout
    assert "8 or 16 GPUs shard a copy" in two_machines and "--ranks-per-copy 8" in two_machines
    three = run("train.py", *flags_of(qwen3, "--plan", "8x80", "--ranks-per-copy", 3), code=2).stderr
    assert "does not divide the 8 GPUs" in three
    assert "none of H100, H200, A100, RTX 4090 has 180 GiB" in run(
        "train.py", *flags_of(qwen3, "--plan", "8x180")).stdout


def test_the_seconds_of_a_step_are_those_worked_by_hand(qwen3):
    work, h100 = work_of(qwen3), CARDS["H100"]
    chosen = dict(generate_batch=32, ranks_per_copy=1, offload="none")
    seconds = step_seconds(work, 2, chosen, h100, 1, 0.5e-3, [2048] * 1024)
    # 32 turns of 2048 forward passes, each reads 8.04 GB; a row reads 144 KiB for each token so far, 1280 on average
    assert seconds["graph"] == pytest.approx((65536 * 8.045e9 + 1024 * 2048 * 1280 * 147456) / 1.34e12, rel=0.01)
    assert seconds["eager"] == pytest.approx(65536 * 36 * 0.5e-3)
    # 2.36 M tokens; 2 FLOPs a parameter forward, 8 in an update; each token is in one critic's shard
    assert seconds["score"] == pytest.approx(2.36e6 * 2 * (4.022e9 + 2 * 0.596e9) / 395.6e12, rel=0.01)
    assert seconds["policy"] == pytest.approx(4 * 2.36e6 * 8 * 4.022e9 / 395.6e12, rel=0.01)
    assert seconds["fit_critics"] == pytest.approx(4 * 2.36e6 * 8 * 0.596e9 / 395.6e12, rel=0.01)
    assert seconds["transfers"] == 0
    moments = step_seconds(work, 2, chosen | dict(offload="moments"), h100, 1, 0.5e-3, [2048] * 1024)
    assert moments["transfers"] == pytest.approx(4 * 8 * 5.214e9 / 20e9, rel=0.01)
    eight = step_seconds(work, 2, chosen | dict(ranks_per_copy=8), h100, 8, 0.5e-3, [2048] * 128)
    assert all(eight[phase] == pytest.approx(seconds[phase] / 8) for phase in seconds)


@pytest.mark.parametrize("gpus", ["8", "8x", "x80", "0x80", "8x-1", "8x80x2", "1.5x80"])
def test_plan_wants_gpus_x_gib(qwen3, gpus):
    assert "8x80" in run("train.py", *flags_of(qwen3, "--plan", gpus), code=2).stderr


def test_auto_keeps_as_much_on_the_gpu_as_fits_and_generates_as_many_responses_as_there_is_room_for(qwen3):
    work, chosen = work_of(qwen3), []
    for gpus, memory in [(1, 24), (1, 80), (1, 141), (8, 141)]:
        settled, _ = plan.choose(work, 2, gpus, [gpus], memory * GIB)
        chosen.append((settled["offload"], settled["generate_batch"]))
    offloads, batches = zip(*chosen)
    assert offloads == ("all", "moments", "none", "none")
    # by hand: 24 GiB less 5 %, the bf16 copy of 7.5 and 0.3 for a prompt; 9,344 tokens of 144 KiB each
    assert batches[0] == 11 and 16 <= batches[1] < batches[2] < batches[3] <= 128
    settled, _ = plan.choose(replace(work, responses=4, group_size=2), 2, 1, [1], 80 * GIB)
    assert settled["generate_batch"] == 4, "no more than there are"
    # an evaluation holds neither critics nor moments, and has no other phase
    settled, text = plan.choose(Workload(work.actor, None, 1200, 4, 1024, 8192), 2, 1, [1], 80 * GIB)
    assert len(text.splitlines()) == 3 and settled["generate_batch"] > batches[1]


def test_a_full_gpu_ends_the_run_with_a_sentence(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(train, "train", full)
    said = run("train.py", code=1).stderr
    assert "Tried to allocate 20.00 GiB" in said and "--resume and a smaller" in said
    assert "Traceback" not in said
