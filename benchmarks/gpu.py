"""Check the code on a GPU and compare its speed with the card's limits, in one call of at most 8 minutes.

    python benchmarks/gpu.py                                  # Qwen3-4B and two 0.6B critics
    python benchmarks/gpu.py --parts step --rows asyppo:8192 --flags --token-budget 32768
    python benchmarks/gpu.py --device cpu                     # try the script: tiny sizes, a minute or two

It needs torch, transformers, numpy and tqdm only. Weights are random, of Qwen3's published sizes; nothing is
downloaded. Each part is a process that appends a JSON line to OUT/results.jsonl for each number. So the
numbers stay when --minutes are over.

ceilings  TFLOP/s of a bf16 matrix product, GB/s of a copy (read and written)
correct   log-probabilities, entropies, gradients, values, σ, in fp32 and bf16, against plain fp32 autograd on
          the CPU; sampled tokens against their probabilities
graph     --decode graph: greedy tokens beside eager's; sampled tokens against their probabilities
decode    tokens/s of both decoders at several rows and contexts; bytes of weights, keys and values a second
          beside a copy's; times that the host waits for the device, a token
library   the same of transformers' own `generate` with a static cache, compiled, at the first rows and context:
          rows of equal length, no refilling
train     two steps of the embedded default, their first KL, their checkpoint resumed to the same weights
step      train.train_step: seconds and peak GiB of each phase, and the update's share of the matrix product's
          FLOP/s, and the host's waits. One pass over 8 × --group-size responses of an eighth to all of the
          given length, behind prompts of 256 random tokens. A small step warms up. Only a few tokens are
          generated.
"""

import argparse
import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Callable

import torch
from transformers import CompileConfig, GenerationConfig, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

# before this file's own folder, which has a verifier.py too
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyppo
import train
from critics import ensemble_values
from engine import folder, plan
from engine.batch import Response, Rollout, make_rollout
from engine.distributed import World, start, stop
from engine.generation import SamplingConfig, generate_responses
from engine.head import LogitsTransform
from engine.metrics import Timer
from engine.models import Actor, MiniCritic, prepare
from engine.sharding import compute_dtype
from engine.updates import adamw, score_responses
from rollout import Problem, RolloutConfig
from verifier import Verifier

# hidden size, layers, intermediate size, heads, key-value heads, size of a head, tied embeddings, vocabulary
SIZES = {
    "tiny": (64, 2, 128, 4, 2, 16, True, 4096),
    "small": (512, 4, 1536, 8, 4, 64, True, 151_936),
    "0.6B": (1024, 28, 3072, 16, 8, 128, True, 151_936),
    "1.7B": (2048, 28, 6144, 16, 8, 128, True, 151_936),
    "4B": (2560, 36, 9728, 32, 8, 128, True, 151_936),
    "8B": (4096, 36, 12288, 32, 8, 128, False, 151_936),
}
PROMPTS, PROMPT = 8, 256
Record = Callable[[dict], None]


def config(size: str) -> Qwen3Config:
    hidden, layers, intermediate, heads, kv_heads, head_dim, tied, vocabulary = SIZES[size]
    return Qwen3Config(
        vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=32_768,
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        # small models need larger weights: uniform probabilities would hide mistakes
        initializer_range=0.05 if hidden <= 512 else 0.02
    )


def random_model(model_class, size: str, device: torch.device | str = "cpu"):
    """Return a model with random fp32 weights, made on the device."""
    with torch.device(device):
        return model_class(config(size))


def sync(device: torch.device) -> float:
    """-> the clock, after all launched work is done"""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def count_waits(device: torch.device):
    """Yield a list; after the block it holds how often the host waited for the GPU, and on a CPU nothing."""
    found = []
    if device.type != "cuda":
        yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found.append(sum("synchronizing" in str(w.message) for w in caught))


def must_have_compiled(actor: Actor) -> None:
    if vars(actor).get("bare", actor) is None:
        raise RuntimeError("Error: --decode graph was not possible, and eager stood in")


# -- parts ---------------------------------------------------------------------------------------------------
def ceilings(args: argparse.Namespace, record: Record) -> None:
    device = torch.device(args.device)
    n = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(2**30 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)

    def seconds(work: Callable, n: int = 10) -> float:
        for i in range(n + 2):
            if i == 2:
                began = sync(device)
            work()
        return (sync(device) - began) / n

    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    gib = torch.cuda.mem_get_info()[1] / 2**30 if device.type == "cuda" else 0.0
    record({"device": name, "torch": torch.__version__, "gib": gib,
            "tflops": 2 * n**3 / seconds(lambda: a @ b) / 1e12,
            "gbps": 2 * x.numel() / seconds(lambda: y.copy_(x)) / 1e9})


def correct(args: argparse.Namespace, record: Record) -> None:
    world = start(args.device)
    torch.manual_seed(0)
    size, temperature, budget = args.small, 0.8, 512
    vocabulary = config(size).vocab_size
    lm, backbones = random_model(Qwen3ForCausalLM, size), [random_model(Qwen3Model, size) for _ in range(2)]
    critics = [MiniCritic(backbone) for backbone in backbones]
    for critic in critics:
        torch.nn.init.normal_(critic.value_head.weight, std=0.05)
    tokens = lambda n: torch.randint(vocabulary, (n,)).tolist()
    prompts = [tokens(n) for n in (3, 9, 17, 30)]
    responses = [Response(prompts[b // 4], tokens(3 + 5 * b), False) for b in range(16)]
    rollout = make_rollout(responses, [""] * 16, [""] * 16, [0.0] * 16, 4)
    mask_BT, rows = rollout.mask_BT, list(range(16))

    # plain torch, one response at a time, in fp32 on the CPU
    logp_BT, entropy_BT = torch.zeros(mask_BT.shape), torch.zeros(mask_BT.shape)
    values_MBT = torch.zeros(2, *mask_BT.shape)
    for b, r in enumerate(responses):
        ids = torch.tensor([r.prompt + r.tokens])
        states = slice(len(r.prompt) - 1, -1)
        logp_TV = torch.log_softmax(lm(ids).logits[0, states].double() / temperature, dim=-1)
        logp_BT[b, : len(r.tokens)] = logp_TV[range(len(r.tokens)), r.tokens]
        entropy_BT[b, : len(r.tokens)] = -(logp_TV.exp() * logp_TV).sum(1)
        for m, critic in enumerate(critics):
            hidden = critic.backbone(ids).last_hidden_state[0, states]
            values_MBT[m, b, : len(r.tokens)] = critic.value_head(hidden).squeeze(1).detach()
    plain = torch.stack([logp_BT, entropy_BT])
    # ratios within and beyond the clip, and none where rounding would carry it across
    ratio_BT = torch.tensor([0.5, 0.95, 1.05, 2.0])[torch.randint(4, mask_BT.shape)]
    data_BT = asyppo.PolicyData(
        old_logp=logp_BT.detach() - ratio_BT.log(), advantage=torch.randn(mask_BT.shape),
        advantage_mask=torch.rand(mask_BT.shape) < 0.8, entropy_filter=torch.rand(mask_BT.shape) < 0.8
    )
    weights_BT = mask_BT / mask_BT.sum()
    loss = partial(asyppo.policy_loss, clip_low=0.2, clip_high=0.2, entropy_coef=0.01)
    (weights_BT * loss(*plain, data_BT)[0]).sum().backward()
    gradient = {name: p.grad.clone() for name, p in lm.named_parameters()}
    lm.zero_grad()
    plain = plain.detach()[:, mask_BT]
    sigma_N = asyppo.disagreement(values_MBT)[mask_BT]
    shares_V = torch.softmax(lm(torch.tensor([prompts[-1]])).logits[0, -1].double() / temperature, dim=-1)

    def check(what: str, dtype: torch.dtype, off: float, bound: float) -> None:
        record({"check": what, "dtype": str(dtype)[6:], "off": off, "bound": bound, "right": off <= bound})

    # mean differences in nats; in shares of the gradient's length, the values' and σ's mean size
    for dtype, bound in ((torch.float32, 1e-3), (torch.bfloat16, 0.1)):
        settings = ("random", world, dtype, True, "none")
        ours = copy.deepcopy(lm)
        actor = prepare(Actor(ours, LogitsTransform(temperature)), ours.base_model, *settings)
        scores = score_responses(actor, rollout, budget, world)[:, mask_BT]
        for what, ours, theirs in zip(("log-probabilities", "entropies"), scores, plain):
            check(what, dtype, (ours - theirs).abs().mean().item(), bound)
        picked = [rollout.pick(x_BT, rows, world.device) for x_BT in (weights_BT, *data_BT)]
        inputs = rollout.inputs(rows, world.device)
        actor.loss(inputs, picked[0], asyppo.PolicyData(*picked[1:]), loss, True)[0].backward()
        whole = lambda x: x.full_tensor() if hasattr(x, "full_tensor") else x
        ours = {name[3:]: whole(p.grad).cpu() for name, p in actor.named_parameters()}
        off = sum((ours[name] - x).square().sum() for name, x in gradient.items())
        off = (off / sum(x.square().sum() for x in gradient.values())).sqrt()
        check("gradient", dtype, off.item(), bound)
        copies = [copy.deepcopy(critic) for critic in critics]
        ours = ensemble_values([prepare(x, x.backbone, *settings) for x in copies], rollout, budget, world)
        off = (ours - values_MBT)[:, mask_BT].abs().mean() / values_MBT[:, mask_BT].abs().mean()
        check("values", dtype, off.item(), bound)
        off = (asyppo.disagreement(ours)[mask_BT] - sigma_N).abs().mean() / sigma_N.mean()
        check("σ", dtype, off.item(), bound)
        sampling = SamplingConfig(1, temperature, frozenset(), (), min(args.draws, 1024))
        drawn = generate_responses(actor, None, [prompts[-1]] * args.draws, sampling, world, 0, "draw")
        check("χ² of samples", dtype, chi_square(drawn, shares_V), 50.0)


def chi_square(drawn: list[Response], shares_V: torch.Tensor) -> float:
    """Return χ² of first tokens in twenty bins of about equal probability: it has mean 19 and deviation 6.2."""
    counts_V = torch.bincount(torch.tensor([r.tokens[0] for r in drawn]), minlength=len(shares_V))
    likely = shares_V.argsort(descending=True)
    bin_V = (20 * (shares_V[likely].cumsum(0) - shares_V[likely] / 2)).long().clamp(max=19)
    binned = lambda x_V: torch.zeros(20).double().index_add(0, bin_V, x_V[likely].double())
    expected, found = binned(len(drawn) * shares_V), binned(counts_V)
    kept = expected > 0
    return ((found - expected).square() / expected)[kept].sum().item()


def graph(args: argparse.Namespace, record: Record) -> None:
    world = start(args.device)
    torch.manual_seed(0)
    lm = random_model(Qwen3ForCausalLM, args.small)
    prompts = [torch.randint(lm.config.vocab_size, (n,)).tolist() for n in (3, 9, 17, 30) for _ in range(3)]
    with torch.no_grad():
        shares_V = torch.softmax(lm(torch.tensor([prompts[-1]])).logits[0, -1].double(), dim=-1)
    # bf16 rounds some tokens to equal probability
    for dtype, bound in ((torch.float32, 0.1), (torch.bfloat16, 1.0)):
        ours = copy.deepcopy(lm)
        actor = prepare(Actor(ours), ours.base_model, "random", world, dtype, True, "none")
        sampling = SamplingConfig(40, 0.0, frozenset(range(lm.config.vocab_size // 32)), (), 5)
        eager, ours = (generate_responses(actor, None, prompts, replace(sampling, decode=decode), world, 0, "greedy")
                       for decode in ("eager", "graph"))
        must_have_compiled(actor)
        off = sum(a.tokens != b.tokens for a, b in zip(eager, ours)) / len(prompts)
        record({"check": "greedy responses of graph", "dtype": str(dtype)[6:], "off": off, "bound": bound,
                "right": off <= bound})
        sampling = SamplingConfig(1, 1.0, frozenset(), (), min(args.draws, 1024), "graph")
        drawn = generate_responses(actor, None, [prompts[-1]] * args.draws, sampling, world, 0, "draw")
        off = chi_square(drawn, shares_V)
        record({"check": "χ² of graph's samples", "dtype": str(dtype)[6:], "off": off, "bound": 50.0,
                "right": off <= 50})


def embedded(args: argparse.Namespace, record: Record) -> None:
    """Train two steps. Without math-verify only the verifier's own rules judge, and they know integers."""
    folder.PACKAGES = ("torch", "transformers", "numpy")
    Verifier._settle = lambda self, verdicts: verdicts.update(
        {pair: pair[0] == pair[1] for pair, verdict in verdicts.items() if verdict is None}
    )
    out = Path(args.out) / "embedded"
    shutil.rmtree(out, ignore_errors=True)
    flags = ["--steps", "2", "--eval-data", "", "--save-every", "1", "--out", str(out), *args.train_flags]
    began = time.perf_counter()
    code = train.main(flags)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kl, skipped = (max(m[key] for m in lines) for key in ("approx_kl_first", "skipped_updates"))
    record({"check": "two steps", "code": code, "steps": len(lines), "skipped": skipped,
            "seconds": time.perf_counter() - began, "right": code == skipped == 0 and len(lines) == 2})
    record({"check": "first KL", "off": kl, "bound": 1e-3, "right": kl < 1e-3})
    first = out.with_name("embedded-model")
    shutil.rmtree(first, ignore_errors=True)
    (out / "model").rename(first)
    code = train.main([*flags, "--resume"])
    a, b = ((path / "model.safetensors").read_bytes() for path in (first, out / "model"))
    record({"check": "checkpoint resumed", "code": code, "right": code == 0 and a == b})


def decode(args: argparse.Namespace, record: Record) -> None:
    world = start(args.device)
    torch.manual_seed(0)
    dtype = compute_dtype("auto", world)
    lm = random_model(Qwen3ForCausalLM, args.actor, world.device)
    actor = prepare(Actor(lm), lm.base_model, "random", world, dtype, True, "none")
    for decoder, context, rows in itertools.product(("eager", "graph"), args.contexts, args.decode_rows):
        prompts, result = random_prompts(args, rows, context), {"decoder": decoder, "rows": rows, "context": context}

        def draw(n: int) -> None:
            sampling = SamplingConfig(n, 1.0, frozenset(), (), rows, decoder)
            generate_responses(actor, None, prompts, sampling, world, 0, "decode")

        try:
            result |= timed_tokens(draw, rows, context, dtype, world.device, args)
        except torch.OutOfMemoryError:
            result["failed"] = "out of memory"
            torch.cuda.empty_cache()
        must_have_compiled(actor)
        record(result)


def library(args: argparse.Namespace, record: Record) -> None:
    world = start(args.device)
    torch.manual_seed(0)
    dtype = compute_dtype("auto", world)
    lm = random_model(Qwen3ForCausalLM, args.actor, world.device).to(dtype).eval()
    rows, context = args.decode_rows[0], args.contexts[0]
    ids = torch.tensor(random_prompts(args, rows, context), device=world.device)
    compiling = CompileConfig()
    compiling._compile_all_devices = True  # on the CPU, too

    def draw(n: int) -> None:
        settings = GenerationConfig(
            do_sample=True, top_k=0, top_p=1.0, max_new_tokens=n, min_new_tokens=n, cache_implementation="static",
            compile_config=compiling, max_cache_len=context + 8 + args.decode)
        lm.generate(inputs=ids, attention_mask=torch.ones_like(ids), generation_config=settings)

    record({"decoder": "library", "rows": rows, "context": context}
           | timed_tokens(draw, rows, context, dtype, world.device, args))


def random_prompts(args: argparse.Namespace, rows: int, context: int) -> list[list[int]]:
    ids = torch.randint(config(args.actor).vocab_size, (min(PROMPTS, rows), context)).tolist()
    return [ids[i * len(ids) // rows] for i in range(rows)]


def timed_tokens(draw: Callable, rows: int, context: int, dtype: torch.dtype, device: torch.device,
                 args: argparse.Namespace) -> dict:
    """Time draw(n), which draws n tokens a row. -> rates, the first call's seconds, waits of the host a token"""
    times, waits = [], []
    for n in (8, 8, 8 + args.decode):  # the first warms up; the difference has no prefill
        began = sync(device)
        draw(n)
        times.append(sync(device) - began)
    for n in (8, 24):
        with count_waits(device) as found:
            draw(n)
        waits += found
    taken = times[2] - times[1]
    n_bytes = decoding_bytes(args.actor, dtype, rows * (context + 8 + args.decode / 2)) * args.decode
    gbps = n_bytes / taken / 1e9
    return {"tokens_per_s": rows * args.decode / taken, "gbps": gbps, "ms_a_token": 1e3 * taken / args.decode,
            "of_copy": gbps / args.gbps, "first_s": times[0],
            "waits_a_token": (waits[1] - waits[0]) / 16 if waits else "not counted on a CPU"}


def decoding_bytes(size: str, dtype: torch.dtype, tokens: float) -> float:
    """Return the bytes that a step of decoding reads: used weights, keys and values."""
    _, layers, _, _, kv_heads, head_dim, _, _ = SIZES[size]
    return dtype.itemsize * (used_parameters(size) + tokens * layers * 2 * kv_heads * head_dim)


def used_parameters(size: str) -> int:
    """Return the number of parameters that a token is multiplied with: all but an untied input embedding."""
    with torch.device("meta"):
        lm = Qwen3ForCausalLM(config(size))
    tied = lm.config.tie_word_embeddings
    return sum(p.numel() for p in lm.parameters()) - (0 if tied else lm.get_input_embeddings().weight.numel())


def random_run(algo: str, length: int, args: argparse.Namespace) -> tuple[train.Run, plan.Workload]:
    """Return what train.train_step needs, with random models; no tokenizer, problems, verifier or folder."""
    world = start(args.device)
    folders = {size: f"{args.out}/{size}" for size in (args.actor, args.critic)}
    for size, path in folders.items():
        config(size).save_pretrained(path)  # the plan reads configurations
    flags = ["--model", folders[args.actor], "--algo", algo, "--prompts-per-step", str(PROMPTS)]
    flags += ["--group-size", str(args.group_size), "--max-new-tokens", str(length)]
    flags += ["--epochs", "1", "--critic-epochs", "1", "--eval-every", "0"]
    settings = train.parse_args([*flags, *args.flags])
    critic = args.actor if algo == "ppo" else args.critic
    work = train.workload(settings, [folders[critic]] * settings.n_critics, PROMPT)
    chosen, world = plan.settle(work, settings.dtype, settings.ranks_per_copy, world)
    vars(settings).update(chosen)
    dtype = compute_dtype(settings.dtype, world)
    loading = ("random", world, dtype, settings.gradient_checkpointing, settings.offload)
    torch.manual_seed(0)
    lm = random_model(Qwen3ForCausalLM, args.actor, world.device)
    actor = prepare(Actor(lm, LogitsTransform(settings.temperature)), lm.base_model, *loading)
    critics = []
    for _ in range(settings.n_critics):
        backbone = random_model(Qwen3Model, critic, world.device)
        critics.append(prepare(MiniCritic(backbone), backbone, *loading))
    sampling = SamplingConfig(args.decode, settings.temperature, frozenset(), (), settings.generate_batch)
    run = train.Run(
        args=settings, world=world, folder=None, tokenizer=None, problems=[Problem("", "")], held_out=[],
        rollout_config=RolloutConfig(args.group_size, sampling, "boxed", None, settings.token_budget),
        verifier=None, actor=actor, actor_optimizer=adamw(actor, settings.lr),
        critics=critics, critic_optimizers=[adamw(critic, settings.critic_lr) for critic in critics], replay=[])
    return run, work


def step(args: argparse.Namespace, record: Record) -> None:
    algo, length = args.rows[0].split(":")[0], int(args.rows[0].split(":")[1])
    order, (run, work) = torch.Generator().manual_seed(0), random_run(algo, length, args)
    tokens = lambda n: torch.randint(run.actor.lm.config.vocab_size, (n,), generator=order).tolist()
    prompts, contexts = ([tokens(n) for _ in range(PROMPTS)] for n in (PROMPT, PROMPT + length // 2))
    lengths: list[int] = []  # of the running step's responses

    class ReportingTimer(Timer):
        """Records a phase as soon as it is over, except in the small first step."""

        @contextmanager
        def phase(self, name: str):
            with super().phase(name):
                yield
            if len(lengths) > 2 * PROMPTS:
                record({"row": args.rows[0], "responses": len(lengths), "phase": name,
                        "seconds": self.seconds[name], "gib": self.gib[name]})

    def sample_rollout(actor, tokenizer, problems, config: RolloutConfig, seed: int, timer: Timer,
                       world: World, with_slope: bool) -> Rollout:
        """Like rollout.sample_rollout, but responses are random tokens of the wanted lengths."""
        group = args.group_size if lengths else 2
        n = PROMPTS * group
        shuffled = torch.randperm(n, generator=order).tolist()
        lengths[:] = [length // 8 + i * (length - length // 8) // (n - 1) for i in shuffled]
        with timer.phase("generate"):
            decoded = [context for context in contexts for _ in range(group)]
            generate_responses(actor, None, decoded, config.sampling, world, seed, "generate")
        responses = [Response(prompts[b // group], tokens(k), False) for b, k in enumerate(lengths)]
        rewards = [float(b % 3 == 0) for b in range(n)]
        rollout = make_rollout(responses, [""] * n, [""] * n, rewards, group)
        with timer.phase("score"):
            scores = score_responses(actor, rollout, config.token_budget, world, with_slope=with_slope)
        rollout.old_logp_BT, rollout.old_entropy_BT, rollout.old_slope_BT = (*scores, None)[:3]
        return rollout

    train.Timer, train.sample_rollout = ReportingTimer, sample_rollout
    train.train_step(run, 1)
    with count_waits(run.world.device) as waits:
        metrics, _, _ = train.train_step(run, 2)
    _, layers, _, heads, _, head_dim, _, _ = SIZES[args.actor]
    rows = [PROMPT + n for n in lengths]
    item = compute_dtype(run.args.dtype, run.world).itemsize
    actor = plan.size_of(run.args.model, "--model", item)
    critics = [plan.size_of(name, "--critics", item) for name in work.critics]
    planned = plan.phases(actor, critics, work, run.args.offload, 1, 1)
    batch = min(run.args.generate_batch, len(lengths))
    # more than this script's generation needs: it has contexts of half the length and draws a few tokens
    planned["generate"] |= plan.in_flight(actor, work, batch)
    # forward and backward: 6 a weight and token, without recomputation; of causal attention half of
    # 12 · layers · width · length²
    flop = 6 * used_parameters(args.actor) * sum(rows)
    flop += 6 * layers * heads * head_dim * sum(n**2 for n in rows)
    record({"row": args.rows[0], "responses": len(lengths), "tokens": sum(rows),
            "step_s": metrics["time/step"], "peak_gib": metrics["peak_memory_gb"],
            "offload": run.args.offload, "generate_batch": run.args.generate_batch,
            "plan_gib": {name: sum(part.values()) / 2**30 for name, part in planned.items()},
            "mfu": flop / metrics["time/policy"] / 1e12 / args.tflops,
            "waits": waits[0] if waits else "not counted on a CPU",
            "approx_kl_first": metrics["approx_kl_first"], "skipped": metrics["skipped_updates"]})


# -- one call ------------------------------------------------------------------------------------------------
PARTS = {"ceilings": ceilings, "correct": correct, "graph": graph, "decode": decode, "library": library,
         "train": embedded, "step": step}
CPU = dict(  # tiny sizes that run every branch
    actor="tiny", critic="tiny", small="tiny", contexts=[20, 40], decode_rows=[2, 8], decode=8, draws=512,
    rows=["asyppo:64", "grpo:64", "ppo:64"], group_size=4,
    train_flags="--prompts-per-step 4 --group-size 4 --n-problems 50 --minibatch-size 8 --dtype bf16".split()
)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    rows = ["asyppo:4096", "grpo:4096", "ppo:4096"]
    add("--rows", nargs="+", default=rows, help="rows of step: ALGO:LONGEST, the longest response in tokens")
    add("--actor", choices=SIZES, default="4B")
    add("--critic", choices=SIZES, default="0.6B")
    add("--small", choices=SIZES, default="small", help="model of correct")
    add("--draws", type=int, default=8192, help="tokens that correct samples")
    add("--contexts", nargs="+", type=int, default=[1000, 4000], help="contexts of decode, in tokens")
    add("--decode-rows", nargs="+", type=int, default=[16, 64, 256])
    add("--decode", type=int, default=64, help="tokens of each response that decode times")
    add("--group-size", type=int, default=32, help="responses to a prompt in step; halved when time is short")
    add("--minutes", type=float, default=8.0)
    add("--out", default="runs/gpu")
    add("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    add("--flags", nargs=argparse.REMAINDER, default=[], help="flags of train.py for step; give them last")
    add("--child", help=argparse.SUPPRESS)
    parser.set_defaults(train_flags=[], tflops=1.0, gbps=1.0)
    first, _ = parser.parse_known_args(argv)
    if first.device == "cpu":
        parser.set_defaults(**CPU)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.child:  # the parent's settings and which part
        args = argparse.Namespace(**json.loads(args.child))
    results = Path(args.out) / "results.jsonl"

    def record(result: dict) -> None:
        line = json.dumps({"part": args.part} | result, ensure_ascii=False)
        print(line, flush=True)
        with results.open("a") as file:
            print(line, file=file)

    if "part" in args:
        PARTS[args.part](args, record)
        stop()
        return

    deadline = time.monotonic() + 60 * args.minutes
    results.parent.mkdir(parents=True, exist_ok=True)
    results.touch()
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {})
    read = lambda: [json.loads(line) for line in results.read_text().splitlines()]
    n_before = len(read())

    def run(part: str, **changes) -> float:
        """Run a part in a new process, at most until the deadline. -> its seconds"""
        vars(args).update(changes, part=part)
        settings, began = json.dumps(vars(args)), time.monotonic()
        command, why = [sys.executable, __file__, "--child", settings], None
        try:
            left = max(1.0, deadline - began)
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=left, env=environment)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if "Error" in line or "error" in line]
                why = (errors or done.stderr.splitlines() or ["no message"])[-1][:300]
        except subprocess.TimeoutExpired:
            why = f"cut off after {left:.0f} s"
        if why:
            record(changes | {"failed": why})
        return time.monotonic() - began

    for part in args.parts:
        if part != "step":
            run(part)
        ceiling = next((row for row in reversed(read()) if "tflops" in row), {})
        args.tflops, args.gbps = ceiling.get("tflops", 1.0), ceiling.get("gbps", 1.0)
    # the rows share the time that is left, by their passes; each pass may take as long as the slowest so far
    rows, largest, a_pass = args.rows if "step" in args.parts else [], args.group_size, 0.0
    passes = [1 + row.startswith("ppo") for row in rows]
    for i, row in enumerate(rows):
        left, group = deadline - time.monotonic(), largest
        while group > 2 and a_pass * sum(passes[i:]) * group > left - 30 * (len(rows) - i):
            group //= 2
        taken = run("step", rows=[row], group_size=group)
        a_pass = max(a_pass, (taken - 30) / passes[i] / group)
    found = read()[n_before:]
    wrong = [x for x in found if not x.get("right", True) or "failed" in x]
    print(f"{len(found)} results in {results}; wrong, failed or cut off: {wrong or 'none'}")


if __name__ == "__main__":
    main()
