"""Compare time and memory of the actor's linear head, forward and backward of the policy objective.

    python benchmarks/head.py                                                # minutes, and 9 GB for plain
    python benchmarks/head.py --vocabulary 8192 --tokens 512 --hidden 256    # seconds

plain: all logits at once, log_softmax and entropy by autograd. ours: engine/head.py's loss, with the logged
sums. torch: PyTorch's own chunked linear_cross_entropy. It knows no entropy and no loss but the sum of
log-probabilities, so it is a bound and not an alternative. Time is the median over rounds of the ratio to
plain in the same round. Memory is the highest resident size of a fresh process, less its size before the call
and less the two gradients.

Legend for shape suffixes: N response tokens, H hidden size, V vocabulary.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear_cross_entropy

# before this file's own folder, which has a verifier.py too
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from asyppo import PolicyData, policy_loss
from engine import head

TEMPERATURE = 0.8
SHAPE = head.LogitsTransform(TEMPERATURE)


def inputs(n_tokens: int, n_hidden: int, n_vocabulary: int, dtype: torch.dtype):
    """-> hidden states, output embedding, targets, weight of each token, data for the loss"""
    torch.manual_seed(0)
    hidden_NH = torch.randn(n_tokens, n_hidden, dtype=dtype).requires_grad_()
    weight_VH = torch.randn(n_vocabulary, n_hidden, dtype=dtype).mul_(2 / n_hidden**0.5).requires_grad_()
    targets_N = torch.randint(n_vocabulary, (n_tokens,))
    data = PolicyData(
        old_logp=-14 + torch.randn(n_tokens), advantage=torch.randn(n_tokens),
        advantage_mask=torch.rand(n_tokens) > 0.2, entropy_filter=torch.rand(n_tokens) > 0.2
    )
    return hidden_NH, weight_VH, targets_N, torch.full((n_tokens,), 1 / n_tokens), data


def token_loss_of(coef: float):
    return partial(policy_loss, clip_low=0.2, clip_high=0.2, entropy_coef=coef)


def plain(hidden_NH, weight_VH, targets_N, weights_N, data: PolicyData, coef: float) -> None:
    logp_NV = torch.log_softmax((hidden_NH @ weight_VH.T).float() / TEMPERATURE, -1)
    logp_N = logp_NV.gather(1, targets_N[:, None]).squeeze(1)
    entropy_N = -(logp_NV.exp() * logp_NV).sum(-1) if coef else None
    loss_N, _ = token_loss_of(coef)(logp_N, entropy_N, data)
    (weights_N * loss_N).sum().backward()


def ours(hidden_NH, weight_VH, targets_N, weights_N, data: PolicyData, coef: float) -> None:
    states = (hidden_NH, weight_VH, targets_N)
    loss, _ = head.loss(*states, SHAPE, token_loss_of(coef), coef > 0, weights_N, data)
    loss.backward()


def torchs(hidden_NH, weight_VH, targets_N, *rest) -> None:
    options = LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=head.HEAD_CHUNK)
    linear_cross_entropy(hidden_NH, weight_VH, targets_N, reduction="sum", options=options).backward()


VARIANTS = {"plain": plain, "ours": ours, "torch": torchs}


def resident_mb(which: str) -> float:
    """Return VmRSS, the size now, or VmHWM, the largest size since the last reset.

    getrusage would count the parent's size before exec too.
    """
    return int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def peak_mb(name: str, arrays, coef: float) -> float:
    """Return this process's peak, less its size before the call and the gradients."""
    # a small call first: it loads code and buffers that any size needs
    VARIANTS[name](*inputs(8, 16, 32, arrays[0].dtype), coef)
    Path("/proc/self/clear_refs").write_text("5")  # reset VmHWM
    before = resident_mb("VmRSS")
    VARIANTS[name](*arrays, coef)
    return resident_mb("VmHWM") - before - sum(x.nbytes for x in arrays[:2]) / 2**20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tokens", type=int, default=2048, help="response tokens of a micro-batch")
    add("--hidden", type=int, default=1024, help="hidden size")
    add("--vocabulary", type=int, default=151936, help="rows of the output embedding")
    add(
        "--dtype", choices=("float32", "bfloat16"), default="float32",
        help="of hidden states and weight"
    )
    add("--chunk", type=int, default=head.HEAD_CHUNK, help="tokens whose logits exist at once")
    add(
        "--entropy-coef", type=float, nargs="+", default=[1e-3, 0.0],
        help="weights of the entropy bonus"
    )
    add(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS),
        help="the first is the others' unit"
    )
    add("--rounds", type=int, default=5, help="of timing, each variant once in each")
    add("--peak-only", action="store_true", help="print one variant's peak memory in MB (used by itself)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    head.HEAD_CHUNK = args.chunk
    arrays = inputs(args.tokens, args.hidden, args.vocabulary, getattr(torch, args.dtype))
    if args.peak_only:
        print(peak_mb(args.variants[0], arrays, args.entropy_coef[0]))
        return

    sizes = f"{args.tokens} tokens × {args.hidden} × {args.vocabulary}, {args.dtype}, chunks of {args.chunk}"
    print(f"{sizes}, {torch.get_num_threads()} threads\n")
    unit = args.variants[0]
    print(f"| variant | entropy coefficient | time / {unit} (range) | seconds | peak memory, MB | / {unit} |")
    print("| --- " * 6 + "|")
    for coef in args.entropy_coef:
        names = [name for name in args.variants if name != "torch" or coef == 0]
        seconds = {name: [] for name in names}
        for _ in range(args.rounds):
            for name in names:
                arrays[0].grad = arrays[1].grad = None
                began = time.perf_counter()
                VARIANTS[name](*arrays, coef)
                seconds[name].append(time.perf_counter() - began)
        arrays[0].grad = arrays[1].grad = None
        peaks = {}
        for name in names:
            own = ["--peak-only", "--variants", name, "--entropy-coef", str(coef)]
            command = [sys.executable, *sys.argv, *own]
            peaks[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for name in names:
            ratios = [x / y for x, y in zip(seconds[name], seconds[names[0]])]
            print(
                f"| {name} | {coef:g} "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) "
                f"| {statistics.median(seconds[name]):.1f} "
                f"| {peaks[name]:.0f} | {peaks[name] / peaks[names[0]]:.3f} |",
                flush=True
            )


if __name__ == "__main__":
    main()
