"""Time and memory of the actor's linear head, forward and backward of the policy objective: ours beside others.

    python benchmarks/head.py                                                  # minutes, and 9 GB for the plain version
    python benchmarks/head.py --vocabulary 8192 --tokens 512 --hidden 256      # seconds

plain: all logits at once, log_softmax and entropy by autograd. ours: actor.LinearHead. torch: PyTorch's own chunked
linear_cross_entropy, which has no entropy and takes no loss but a sum of log-probabilities: a bound, not a choice.
Time is the median over rounds of the ratio to plain in the same round. Memory is the highest resident size of a fresh
process over that before the call, less the two gradients.

Legend for shape suffixes: N response tokens, H hidden size, V vocabulary.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear_cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import actor
from asyppo import objective

TEMPERATURE = 0.8


def inputs(n_tokens: int, n_hidden: int, n_vocabulary: int, dtype: torch.dtype):
    """Hidden states, output embedding, targets, and the rest of what the objective needs, reproducible."""
    torch.manual_seed(0)
    hidden_NH = torch.randn(n_tokens, n_hidden, dtype=dtype).requires_grad_()
    weight_VH = torch.randn(n_vocabulary, n_hidden, dtype=dtype).mul_(2 / n_hidden**0.5).requires_grad_()
    targets_N = torch.randint(n_vocabulary, (n_tokens,))
    old_logp_N, advantages_N = -14 + torch.randn(n_tokens), torch.randn(n_tokens)
    return hidden_NH, weight_VH, targets_N, old_logp_N, advantages_N, torch.rand(n_tokens) > 0.2, torch.rand(n_tokens) > 0.2


def plain(hidden_NH, weight_VH, targets_N, old_logp_N, advantages_N, keep_N, keep_entropy_N, coef: float) -> None:
    logp_NV = torch.log_softmax((hidden_NH @ weight_VH.T).float() / TEMPERATURE, -1)
    logp_N = logp_NV.gather(1, targets_N[:, None]).squeeze(1)
    entropy_N = -(logp_NV.exp() * logp_NV).sum(-1) if coef else None
    objective(logp_N, old_logp_N, advantages_N, entropy_N, keep_N, keep_entropy_N, 0.2, 0.2, coef).sum().backward()


def ours(hidden_NH, weight_VH, targets_N, old_logp_N, advantages_N, keep_N, keep_entropy_N, coef: float) -> None:
    def token_loss(logp_C, entropy_C, part):
        rest = keep_N[part], keep_entropy_N[part], 0.2, 0.2, coef
        return objective(logp_C, old_logp_N[part], advantages_N[part], entropy_C, *rest)

    actor.LinearHead.apply(hidden_NH, weight_VH, targets_N, TEMPERATURE, token_loss, coef > 0)[0].backward()


def torchs(hidden_NH, weight_VH, targets_N, *rest) -> None:
    options = LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=actor.HEAD_CHUNK)
    linear_cross_entropy(hidden_NH, weight_VH, targets_N, reduction="sum", options=options).backward()


VARIANTS = {"plain": plain, "ours": ours, "torch": torchs}


def resident_mb(which: str) -> float:
    """VmRSS: now; VmHWM: at most, since start or reset. (getrusage counts the parent's memory before exec as well.)"""
    return int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def peak_mb(name: str, data, coef: float) -> float:
    """Of this process, beyond what it holds before the call and the gradients after it."""
    VARIANTS[name](*inputs(8, 16, 32, data[0].dtype), coef)  # loads code and buffers that are needed for any size
    Path("/proc/self/clear_refs").write_text("5")  # reset VmHWM
    before = resident_mb("VmRSS")
    VARIANTS[name](*data, coef)
    return resident_mb("VmHWM") - before - sum(x.numel() * x.element_size() for x in data[:2]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="response tokens of a micro-batch")
    parser.add_argument("--hidden", type=int, default=1024, help="hidden size")
    parser.add_argument("--vocabulary", type=int, default=151936, help="rows of the output embedding")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of hidden states and weight")
    parser.add_argument("--chunk", type=int, default=actor.HEAD_CHUNK, help="tokens whose logits exist at once")
    parser.add_argument("--entropy-coef", type=float, nargs="+", default=[1e-3, 0.0], help="weights of the entropy bonus")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="plain first: the others' unit")
    parser.add_argument("--rounds", type=int, default=5, help="of timing, each variant once in each")
    parser.add_argument("--peak-only", action="store_true", help="print one variant's peak memory in MB (used by itself)")
    args = parser.parse_args()
    actor.HEAD_CHUNK = args.chunk
    data = inputs(args.tokens, args.hidden, args.vocabulary, getattr(torch, args.dtype))
    if args.peak_only:
        print(peak_mb(args.variants[0], data, args.entropy_coef[0]))
        return

    sizes = f"{args.tokens} tokens × {args.hidden} × {args.vocabulary}, {args.dtype}, chunks of {args.chunk}"
    print(f"{sizes}, {torch.get_num_threads()} threads\n")
    print("| variant | entropy coefficient | time / plain (range) | seconds | peak memory, MB | / plain |")
    print("| --- " * 6 + "|")
    for coef in args.entropy_coef:
        names = [name for name in args.variants if name != "torch" or coef == 0]
        seconds = {name: [] for name in names}
        for _ in range(args.rounds):
            for name in names:
                data[0].grad = data[1].grad = None
                began = time.perf_counter()
                VARIANTS[name](*data, coef)
                seconds[name].append(time.perf_counter() - began)
        data[0].grad = data[1].grad = None
        peaks = {}
        for name in names:
            command = [sys.executable, *sys.argv, "--peak-only", "--variants", name, "--entropy-coef", str(coef)]
            peaks[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for name in names:
            ratios = [x / y for x, y in zip(seconds[name], seconds[names[0]])]
            print(
                f"| {name} | {coef:g} | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) "
                f"| {statistics.median(seconds[name]):.1f} | {peaks[name]:.0f} | {peaks[name] / peaks[names[0]]:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
