"""The plan's bytes are those that phases allocate, and --offload and --generate-batch follow from it."""

import argparse
import dataclasses
import json
import weakref
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import asyppo
import generation
import plan
import train
from critics import ensemble_values, fit_critics
from distributed import World
from models import load_actor, load_critic
from rollout import Response, make_rollout
from tests.conftest import save_model, shape
from tests.synthetic import draw_responses
from tests.runs import FEW, run
from updates import adamw, score_responses

ROWS, LENGTH = 16, 32
SHAPE = dict(vocab_size=1500, hidden_size=64, num_hidden_layers=4, intermediate_size=192)
SHAPE |= dict(num_attention_heads=8, num_key_value_heads=2, head_dim=16)
MODELS = {
    "qwen": lambda: Qwen3ForCausalLM(Qwen3Config(**shape(**SHAPE, tie_word_embeddings=True))),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape(**SHAPE, tie_word_embeddings=False))),
}


class Peak(TorchDispatchMode):
    """The most bytes that the storages of these tensors, and of all that operators return, have at a time."""

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
    return sum({x.data_ptr(): x.nbytes() for x in storages}.values())  # FSDP2 has a unit's gradients in one


def moments(*optimizers) -> list[torch.Tensor]:
    return [x for o in optimizers for state in o.state.values() for x in state.values() if x.dim()]


@pytest.mark.parametrize("name, dtype, again", [
    ("qwen", torch.bfloat16, True), ("llama", torch.float32, False)])
def test_every_phase_allocates_what_the_plan_says(tmp_path, world, name, dtype, again):
    """Weights, moments and gradients to the byte, all together within 10 % of the peak."""
    torch.manual_seed(0)
    path = save_model(MODELS[name](), tmp_path)
    flags = ["--model", path, "--critics", path, "--token-budget", ROWS * LENGTH, "--offload", "none"]
    flags += ["--epochs", 1, "--critic-epochs", 1, "--prompts-per-step", 2, "--group-size", ROWS // 2]
    flags += ["--max-new-tokens", LENGTH - 4, "--generate-batch", ROWS]
    flags += ["--gradient-checkpointing" if again else "--no-gradient-checkpointing"]
    args = train.parse_args(list(map(str, flags)))
    loads = (load_actor, load_critic, load_critic)
    actor, *critics = models = [load(path, world, dtype, gradient_checkpointing=again) for load in loads]
    actor_optimizer, *critic_optimizers = optimizers = [adamw(model, 1e-5) for model in models]
    tokens = torch.randint(3, 1500, (ROWS, LENGTH)).tolist()
    rollout = make_rollout([Response(row[:4], row[4:], False) for row in tokens], [""] * ROWS, [""] * ROWS,
                           [b % 2.0 for b in range(ROWS)], ROWS // 2)
    ones, mask = torch.ones(rollout.mask_BT.shape), rollout.mask_BT
    rollout.old_logp_BT = -ones
    data = asyppo.PolicyData(rollout.old_logp_BT, ones, mask, mask)
    everything = torch.ones(2, ROWS, dtype=torch.bool)
    sampling = generation.Sampling(LENGTH - 4, 1.0, frozenset(), (), ROWS)
    prompts = [row[:4] for row in tokens[:2] for _ in range(ROWS // 2)]
    work = {
        "policy": lambda: asyppo.update_policy(actor, actor_optimizer, rollout, data, args, 1, world),
        "fit_critics": lambda: fit_critics(
            critics, critic_optimizers, rollout, torch.stack([ones, ones]), everything, args, 1, world),
        "score": lambda: score_responses(actor, rollout, args.token_budget, world),
        "values": lambda: ensemble_values(critics, rollout, args.token_budget, world),
        "generate": lambda: generation.generate_responses(actor, None, prompts, sampling, world, 0, ""),
    }
    work["policy"](), work["fit_critics"]()  # the moments exist from the first update on
    sizes = [plan.size_of(path, flag, dtype.itemsize) for flag in ("--model", "--critics")]
    planned = plan.phases(sizes[0], [sizes[1]] * 2, args, "none", 1, 1)
    planned["generate"] |= plan.drawing(sizes[0], plan.Draw(ROWS, ROWS, ROWS // 2, 4), ROWS, args)
    assert set(planned) == set(work)
    parameters = [p for model in models for p in model.parameters()]
    gradients = {}
    for phase, optimizer in {"policy": actor_optimizer, "fit_critics": critic_optimizers[0]}.items():
        optimizer.register_step_pre_hook(lambda o, *_, phase=phase: gradients.__setitem__(
            phase, n_bytes(p.grad for p in o.param_groups[0]["params"])))
    for phase, part in planned.items():
        assert part["weights"] == n_bytes(parameters) and part["moments"] == n_bytes(moments(*optimizers))
        with Peak([parameters, moments(*optimizers)]) as peak:
            work[phase]()
        assert sum(part.values()) == pytest.approx(peak.most, rel=0.1), phase
    assert gradients == {phase: planned[phase]["gradients"] for phase in ("policy", "fit_critics")}


@pytest.mark.parametrize("offload", ["none", "all"])
def test_responses_that_outgrow_the_memory_go_on_from_what_they_have(
    qwen, tokenizer, world, monkeypatch, offload
):
    actor = load_actor(qwen, world, torch.float32, offload=offload)
    prompts = [torch.randint(14, 64, (n,)).tolist() for n in (3, 9, 5, 2, 7, 4, 6, 8)]
    greedy = dict(temperature=0, max_new_tokens=30, stop_ids=frozenset(range(1, 5)), batch=6)
    expected = draw_responses(actor, tokenizer, world, prompts, **greedy)
    real, full = generation.RoomyLayer.update, []

    def update(layer, keys, *rest):
        if layer.is_initialized and len(keys) > 2 and layer.keys.shape[2] * len(keys) > 50:
            full.append(len(keys))
            raise torch.OutOfMemoryError("full")
        return real(layer, keys, *rest)

    monkeypatch.setattr(generation.RoomyLayer, "update", update)
    assert draw_responses(actor, tokenizer, world, prompts, **greedy) == expected
    assert full[0] > full[-1] > 2, "halved more than once"


# Qwen3's sizes: hidden, layers, intermediate, heads, tied, and the parameters that their files hold
QWEN3 = {
    "0.6B": (1024, 28, 3072, 16, True, 596_049_920), "1.7B": (2048, 28, 6144, 16, True, 1_720_574_976),
    "4B": (2560, 36, 9728, 32, True, 4_022_468_096), "8B": (4096, 36, 12288, 32, False, 8_190_735_360),
    "14B": (5120, 40, 17408, 40, False, 14_768_307_200),
}


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    """A folder for each size, with config.json alone."""
    folder = tmp_path_factory.mktemp("qwen3")
    for name, (hidden, layers, inner, heads, tied, _) in QWEN3.items():
        Qwen3Config(
            hidden_size=hidden, num_hidden_layers=layers, intermediate_size=inner, num_attention_heads=heads,
            num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=tied,
        ).save_pretrained(folder / name)
    return folder


def test_parameters_are_counted_without_loading_any(qwen3):
    for name, (*_, n) in QWEN3.items():
        assert plan.size_of(qwen3 / name, "--model", 2).params == n
        # a critic has no output embedding, and a head of its own
        untied = 0 if QWEN3[name][4] else 151936 * QWEN3[name][0]
        assert plan.size_of(qwen3 / name, "--critics", 2).params == n - untied + QWEN3[name][0] + 1


def test_processes_with_a_whole_copy_each_gather_as_well_and_a_single_one_in_fp32_does_not(qwen3):
    size = plan.size_of(qwen3 / "0.6B", "--model", 4)
    alone, two = (plan.phases(size, None, None, "none", 1, n)["generate"]["gathered"] for n in (1, 2))
    assert (alone, two) == (0, 4 * size.params)


# the default's: 32 × 32 responses
DRAW = plan.Draw("auto", 1024, 32, 1024)
FakeMesh = namedtuple("FakeMesh", "shape")


def flags_of(qwen3: Path, *more) -> list:
    return ["--model", qwen3 / "4B", "--critics", qwen3 / "0.6B", *more]


def test_a_gpu_runs_settings_are_settled_by_its_free_memory_and_printed(qwen3, world, monkeypatch, capsys):
    args = train.parse_args(list(map(str, flags_of(qwen3))))
    settled, _ = plan.settle(args, [qwen3 / "0.6B"] * 2, DRAW, world)
    assert (settled.offload, settled.generate_batch) == ("none", 16), "a CPU's"
    assert not capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (79 * 2**30, 80 * 2**30))
    gpu = dataclasses.replace(world, device=torch.device("cuda"))
    settled, _ = plan.settle(args, [qwen3 / "0.6B"] * 2, DRAW, gpu)
    assert settled.offload == "moments" and 16 < settled.generate_batch < 64
    assert "policy" in capsys.readouterr().out
    assert args.offload == args.generate_batch == "auto", "flags stay as they were given"


@pytest.mark.parametrize("gib, shape, offload", [
    (140, (2, 1), "none"), (80, (2, 1), "moments"), (48, (2,), "moments")])
def test_a_machine_holds_a_copy_of_its_own_if_it_fits_there_else_all_share_one(
    qwen3, monkeypatch, gib, shape, offload
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib * 2**30, gib * 2**30))
    monkeypatch.setattr(plan, "gather_list", lambda own, world: own)
    monkeypatch.setattr(plan, "mesh_of", lambda device, size, ranks: FakeMesh((size,)))
    two_machines = World(0, 2, torch.device("cuda"), FakeMesh((2, 1)))
    for flags, expected in (([], shape), (["--ranks-per-copy", 1], (2, 1))):
        args = train.parse_args(list(map(str, flags_of(qwen3, *flags))))
        settled, world = plan.settle(args, [qwen3 / "0.6B"] * 2, DRAW, two_machines)
        assert world.mesh.shape == expected
        assert settled.offload == (offload if expected == shape else "all")


def test_few_responses_under_way_are_no_reason_to_share_one_copy(qwen3):
    args = train.parse_args(list(map(str, flags_of(qwen3, "--offload", "none"))))
    evaluation = argparse.Namespace(model=args.model, max_new_tokens=8192)
    for args, critics, gib in ((args, [qwen3 / "0.6B"] * 2, 88), (evaluation, None, 30)):
        settled, text = plan.choose(args, critics, DRAW, 2, 2, [1, 2], gib * 2**30)
        assert settled["ranks_per_copy"] == 1 and settled["generate_batch"] < 16
        assert ("--offload" in text) == (critics is not None), "an evaluation has no such flag"


def test_plan_prints_the_table_from_config_json_alone_and_starts_nothing(qwen3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run("train.py", *flags_of(qwen3, "--plan", "--gpu-memory", 80)).stdout
    assert "--offload moments --generate-batch" in text and "DOES NOT FIT" not in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        "GiB", "generate", "score", "fit_critics", "values", "policy"]
    for line in text.splitlines()[2:]:
        *parts, total = map(float, line.split()[1:])
        assert sum(parts) == pytest.approx(total, abs=0.4) and total <= 0.95 * 80 + 0.05
    assert not list(tmp_path.iterdir())
    named = run("train.py", *flags_of(qwen3, "--plan", "--offload", "none")).stdout
    assert "Taken: --offload none" in named and "DOES NOT FIT" in named
    assert "use more GPUs" in run("train.py", *flags_of(qwen3, "--plan", "--gpu-memory", 8), code=2).stderr


def test_auto_keeps_as_much_on_the_gpu_as_fits_and_draws_as_many_as_there_is_room_for(qwen3):
    args, critics = train.parse_args(list(map(str, flags_of(qwen3)))), [qwen3 / "0.6B"] * 2
    chosen = []
    for gpus, memory in [(1, 24), (1, 80), (1, 141), (8, 141)]:
        settled, _ = plan.choose(args, critics, DRAW, 2, gpus, [gpus], memory * 2**30)
        chosen.append((settled["offload"], settled["generate_batch"]))
    offloads, batches = zip(*chosen)
    assert offloads == ("all", "moments", "none", "none")
    # by hand: 24 GiB less 5 %, the bf16 copy of 7.5 and 0.3 for a prompt; 9,344 tokens of 144 KiB each
    assert batches[0] == 11 and 16 <= batches[1] < batches[2] < batches[3] <= 128
    settled, _ = plan.choose(args, critics, plan.Draw("auto", 4, 2, 1024), 2, 1, [1], 80 * 2**30)
    assert settled["generate_batch"] == 4, "no more than there are"
    # an evaluation holds neither critics nor moments, and has no other phase
    alone = argparse.Namespace(model=args.model, max_new_tokens=8192)
    settled, text = plan.choose(alone, None, plan.Draw("auto", 1200, 4, 1024), 2, 1, [1], 80 * 2**30)
    assert len(text.splitlines()) == 3 and settled["generate_batch"] > batches[1]


def test_a_full_gpu_ends_the_run_with_a_sentence(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(train, "train", full)
    said = run("train.py", code=1).stderr
    assert "Tried to allocate 20.00 GiB" in said and "--resume with a smaller" in said
    assert "Traceback" not in said


def test_a_resumed_run_draws_with_the_number_that_auto_had_chosen(tmp_path, monkeypatch, around):
    seen = []
    around("sampling_of", after=lambda sampling: seen.append(sampling.batch) or sampling)
    flags = ["--out", tmp_path / "run", *FEW, "--generate-batch", "auto", "--max-new-tokens", 16]
    monkeypatch.setattr(plan, "FEW", 3)
    run("train.py", *flags, "--steps", 1)
    assert json.loads((tmp_path / "run/config.json").read_text())["settings"]["generate_batch"] == 3
    monkeypatch.setattr(plan, "FEW", 5)
    run("train.py", *flags, "--steps", 2, "--resume", "--offload", "moments")
    assert seen == [3, 3]
