"""A step at the paper's sizes on one GPU: time and peak memory by phase, how near the machine's own ceilings.

    python benchmarks/gpu.py                    # Qwen3-4B, two 0.6B critics; 2k and 8k; three algorithms
    python benchmarks/gpu.py --rows asyppo:2048 --flags --offload        # one row, with flags of train.py
    python benchmarks/gpu.py --device cpu --actor tiny --critic tiny --rows asyppo:64 grpo:64   # does it run?

Random weights of Qwen3's published sizes, nothing is downloaded. A row is a process of its own: one step to
warm up, one that is timed, through train.train_step, with one pass over 8 prompts × 32 responses (256 random
tokens of prompt, responses of a quarter to all of the given length). Only generation is cut short: --decode
tokens from contexts of half the length. Ceilings are measured first: a bf16 matrix product, and a copy.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

# before this file's own folder, where other files have the names of our modules
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from distributed import World, start, stop
from folder import Stopwatch
from generation import Sampling, generate_responses
from models import Actor, MiniCritic, compute_dtype, prepare
from rollout import Response, Rollout, make_rollout
from updates import adamw, offloaded, score_responses

# hidden size, layers, intermediate size, heads, key-value heads, tied embeddings; heads of 128 (tiny: 16)
SIZES = {
    "tiny": (64, 2, 128, 4, 2, True),
    "0.6B": (1024, 28, 3072, 16, 8, True),
    "1.7B": (2048, 28, 6144, 16, 8, True),
    "4B": (2560, 36, 9728, 32, 8, True),
    "8B": (4096, 36, 12288, 32, 8, False),
}
PROMPT = 256


def config(size: str) -> Qwen3Config:
    hidden, layers, intermediate, heads, kv_heads, tied = SIZES[size]
    return Qwen3Config(
        vocab_size=151_936, tie_word_embeddings=tied, max_position_embeddings=32_768,
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=16 if size == "tiny" else 128
    )


def random_model(model_class, size: str, world: World):
    """fp32 weights, as in training, made on the device at once."""
    torch.manual_seed(0)
    with torch.device(world.device):
        return model_class(config(size))


def seconds(work, device: torch.device, n: int = 10) -> float:
    """Of one call of work, after two to warm up."""
    for i in range(n + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        if i == 2:
            began = time.perf_counter()
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / n


def ceilings(device: torch.device) -> dict[str, float]:
    """TFLOP/s of a bf16 matrix product, GB/s of a copy (read and written)."""
    n = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(2**30 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return {
        "tflops": 2 * n**3 / seconds(lambda: a @ b, device) / 1e12,
        "gbps": 2 * x.numel() / seconds(lambda: y.copy_(x), device) / 1e9,
    }


def random_run(algo: str, length: int, args: argparse.Namespace) -> train.Run:
    """What train.train_step needs of a run; no tokenizer, problems, verifier or folder."""
    world = start(args.device)
    flags = ["--model", "random", "--algo", algo, "--prompts-per-step", "8", "--group-size", "32"]
    flags += ["--epochs", "1", "--critic-epochs", "1", "--max-new-tokens", str(length)]
    flags += ["--token-budget", str(args.token_budget), "--generate-batch", str(args.generate_batch)]
    settings = train.parse_args([*flags, *args.flags])
    how = ("random", world, compute_dtype(settings.dtype, world), settings.gradient_checkpointing)
    lm = random_model(Qwen3ForCausalLM, args.actor, world)
    actor = prepare(Actor(lm, settings.temperature), lm.base_model, *how)
    critics = []
    for _ in range(settings.n_critics):
        backbone = random_model(Qwen3Model, args.actor if algo == "ppo" else args.critic, world)
        critics.append(prepare(MiniCritic(backbone), backbone, *how))
    return train.Run(
        args=settings, world=world, folder=None, tokenizer=None, template=None, problems=[], held_out=[],
        sampling=Sampling(args.decode, settings.temperature, frozenset(), (), settings.generate_batch),
        verifier=None, reward=None, actor=actor, actor_optimizer=adamw(actor, settings.lr),
        critics=critics, critic_optimizers=[adamw(critic, settings.critic_lr) for critic in critics]
    )


def row(algo: str, length: int, args: argparse.Namespace) -> dict:
    """-> time/… and memory/… of a step, and what the ceilings are compared with."""
    run = random_run(algo, length, args)
    order = torch.Generator().manual_seed(0)

    def tokens(n: int) -> list[int]:
        return torch.randint(1000, 150_000, (n,), generator=order).tolist()

    shuffled = torch.randperm(256, generator=order).tolist()
    lengths = [length // 4 + i * (length - length // 4) // 255 for i in shuffled]
    prompts = [tokens(PROMPT) for _ in range(8)]
    contexts = [tokens(PROMPT + length // 2) for _ in range(8)]
    rewards = [float(b % 3 == 0) for b in range(256)]

    def sample_rollout(run: train.Run, step: int, watch: Stopwatch) -> Rollout:
        """Like train's, but with random responses of the wanted lengths, not the few generated tokens."""
        optimizers = [run.actor_optimizer, *run.critic_optimizers]
        with watch.phase("generate"), offloaded(optimizers, run.args.offload):
            decoded = [context for context in contexts for _ in range(32)]
            generate_responses(run.actor, None, decoded, run.sampling, run.world, step, "generate")
        responses = [Response(prompts[b // 32], tokens(n), False) for b, n in enumerate(lengths)]
        rollout = make_rollout(responses, [""] * 256, [""] * 256, rewards, 32)
        with watch.phase("score"):
            scores = score_responses(run.actor, rollout, run.args.token_budget, run.world)
        rollout.old_logp_BT, rollout.old_entropy_BT = scores
        return rollout

    train.sample_rollout = sample_rollout
    for step in (1, 2):
        metrics, _, _ = train.train_step(run, step)

    _, layers, _, heads, kv_heads, _ = SIZES[args.actor]
    head_dim = run.actor.lm.config.head_dim
    n_params = sum(p.numel() for p in run.actor.parameters())
    rows = [PROMPT + n for n in lengths]
    # forward and backward: 6 a weight and token; of causal attention half of 12 · layers · width · length²
    flops = 6 * n_params * sum(rows) + 6 * layers * heads * head_dim * sum(n**2 for n in rows)
    # a step of decoding reads all weights, and keys and values of every response
    context, batch = PROMPT + length // 2 + args.decode / 2, run.sampling.batch
    itemsize = compute_dtype(run.args.dtype, run.world).itemsize
    n_bytes = itemsize * (n_params + batch * context * layers * 2 * kv_heads * head_dim)
    decoding_steps = args.decode * -(-256 // batch)
    return metrics | {
        "update_tflops": flops / metrics["time/policy"] / 1e12,
        "decode_gbps": n_bytes * decoding_steps / metrics["time/generate"] / 1e9,
        "decode_tokens_per_s": 256 * args.decode / metrics["time/generate"],
        "tokens": sum(lengths)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    default = [f"{algo}:{n}" for n in (2048, 8192) for algo in ("asyppo", "ppo", "grpo")]
    add("--rows", nargs="+", default=default, help="algorithm:length of the longest response")
    add("--actor", choices=SIZES, default="4B")
    add("--critic", choices=SIZES, default="0.6B")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--token-budget", type=int, default=16_384)
    add("--generate-batch", type=int, default=64)
    add("--decode", type=int, default=64, help="tokens of each response that are generated")
    add("--flags", nargs=argparse.REMAINDER, default=[], help="flags of train.py, at the end")
    add("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        algo, length = args.rows[0].split(":")
        print(json.dumps(row(algo, int(length), args)))
        stop()
        return
    device = torch.device("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")
    peak = ceilings(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}: {peak['tflops']:.1f} TFLOP/s bf16, {peak['gbps']:.0f} GB/s copy",
        flush=True
    )
    phases = ("generate", "score", "values", "fit_critics", "policy")
    columns = "".join(f"{phase + ' s/GiB':>20}" for phase in phases)
    print(f"{'row':<14}{columns}{'update MFU':>12}{'decode of copy':>16}{'tok/s':>8}", flush=True)
    base = [sys.executable, __file__, "--child", "--device", args.device]
    for flag in ("actor", "critic", "token_budget", "generate_batch", "decode"):
        base += [f"--{flag.replace('_', '-')}", str(getattr(args, flag))]
    for each in args.rows:
        command = [*base, "--rows", each, "--flags", *args.flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
            print(f"{each:<14} failed: {reason[:150]}", flush=True)
            continue
        m = json.loads(done.stdout.splitlines()[-1])
        cells = [
            f"{m[f'time/{p}']:.2f} / {m[f'memory/{p}']:.1f}" if f"time/{p}" in m else "–" for p in phases
        ]
        columns = "".join(f"{cell:>20}" for cell in cells)
        mfu, of_copy = m["update_tflops"] / peak["tflops"], m["decode_gbps"] / peak["gbps"]
        print(
            f"{each:<14}{columns}{mfu:>12.1%}{of_copy:>16.1%}{m['decode_tokens_per_s']:>8.0f}", flush=True
        )


if __name__ == "__main__":
    main()
