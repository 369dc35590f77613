"""Useful tokens a second: rollout.py's generation beside one padded `generate` call of plain transformers.

    python benchmarks/generation.py                                     # a random Qwen3-shaped model, CPU or GPU
    python benchmarks/generation.py --model Qwen/Qwen3-4B-Base --responses 256 --group-size 32 --longest 2048

Both decode greedily, so that they make the same tokens; response b ends after a length of its own, from longest / 4 to
longest. The padded call goes on to the longest, and tokens after a response's end are of no use. Rounds alternate in
one process; what counts is the ratio within each round.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import rollout
from actor import load_actor
from distributed import start, stop


class ForcedStops(rollout.Stops):
    """Ends responses after lengths of their own, and counts the bytes that decoding must read from memory."""

    going_B = waiting_B = torch.zeros(0, dtype=torch.long)
    weight_bytes = token_bytes = bytes_read = 0

    def __init__(self, sampling, tokenizer, start_B):
        super().__init__(sampling, tokenizer, start_B)
        # rollout.py puts new responses after those that go on
        n_new = len(start_B) - len(self.going_B)
        self.mine_B = torch.cat([self.going_B, self.waiting_B[:n_new]])
        ForcedStops.waiting_B = self.waiting_B[n_new:]

    def ended(self, input_ids):
        n_responses, width = input_ids.shape
        ForcedStops.bytes_read += self.weight_bytes + n_responses * width * self.token_bytes
        return self.mine_B <= width - self.start_B

    def __call__(self, input_ids, scores, **kwargs):
        ended_B = super().__call__(input_ids, scores)
        ForcedStops.going_B = self.mine_B[~self.finished_B]
        return ended_B


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a plain copy of 256 MiB reads and writes, the best of ten."""
    a = torch.ones(2**26, device=device)
    b, seconds = torch.empty_like(a), []
    for _ in range(10):
        seconds.append(timed(lambda: b.copy_(a), device)[0])
    return 2 * a.nbytes / min(seconds)


def timed(work, device: torch.device):
    """-> seconds by the wall clock, by the processor's, and what work returned."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", help="directory or hub id; default: random weights of the sizes below")
    add("--hidden", type=int, default=512)
    add("--layers", type=int, default=8)
    add("--vocabulary", type=int, default=8192)
    add("--responses", type=int, default=48)
    add("--group-size", type=int, default=8)
    add("--batch", type=int, help="responses generated together by rollout.py; default all")
    add("--prompt", type=int, default=64, help="tokens of the longest prompt; the shortest has a quarter")
    add("--longest", type=int, default=192, help="tokens of the longest response; the shortest has a quarter")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=1)
    add("--dtype", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    world, dtype = start("auto"), dict(fp32=torch.float32, bf16=torch.bfloat16)[args.dtype]
    torch.set_num_threads(args.threads)

    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            args.model = folder
            config = Qwen3Config(
                vocab_size=args.vocabulary, hidden_size=args.hidden, intermediate_size=3 * args.hidden,
                num_hidden_layers=args.layers, num_attention_heads=args.hidden // 64, num_key_value_heads=args.hidden // 128,
                head_dim=64, tie_word_embeddings=True, eos_token_id=None, bos_token_id=None,
            )  # fmt: skip
            Qwen3ForCausalLM(config).save_pretrained(folder)
        plain = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).to(world.device).eval()
        plain.generation_config = GenerationConfig()
        actor = load_actor(args.model, world, dtype)

    config = plain.config
    ForcedStops.weight_bytes = sum(p.nbytes for p in plain.parameters())
    if not config.tie_word_embeddings:  # the input embedding is looked up, not read
        ForcedStops.weight_bytes -= plain.get_input_embeddings().weight.nbytes
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    ForcedStops.token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * dtype.itemsize
    rollout.Stops = ForcedStops

    # prompts longest first: rollout.py then keeps their order
    n_groups = args.responses // args.group_size
    widths = sorted(torch.randint(args.prompt // 4, args.prompt + 1, (n_groups,)).tolist(), reverse=True)
    groups = [torch.randint(3, config.vocab_size, (width,)).tolist() for width in widths]
    prompts = [prompt for prompt in groups for _ in range(args.group_size)]
    # logarithms evenly spread: half of the padded batch is of use
    share_B = torch.linspace(0, 1, len(prompts))[torch.randperm(len(prompts))]
    lengths_B = (args.longest / 4 * 4**share_B).round().long()
    ids_BS = torch.tensor([[0] * (widths[0] - len(p)) + p for p in prompts], device=world.device)
    mask_BS = torch.tensor([[0] * (widths[0] - len(p)) + [1] * len(p) for p in prompts], device=world.device)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=args.longest)
    sampling = rollout.Sampling(args.longest, 0, frozenset(), (), args.batch or len(prompts))

    def padded():
        out = plain.generate(inputs=ids_BS, attention_mask=mask_BS, generation_config=greedy)
        return [row[:n].tolist() for row, n in zip(out[:, widths[0] :], lengths_B.tolist())]

    def ours():
        ForcedStops.waiting_B = lengths_B
        return [r.tokens for r in rollout.generate_responses(actor, None, prompts, sampling, world, 0, "")]

    useful = int(lengths_B.sum())
    print(
        f"{sum(p.numel() for p in plain.parameters()) / 1e6:.0f} M parameters, {args.dtype}, {world.device.type}; "
        f"{len(prompts)} responses in groups of {args.group_size}, lengths {lengths_B.min()} to {lengths_B.max()}, "
        f"fill {useful / len(prompts) / args.longest:.2f}",
        flush=True,
    )
    bandwidth, ratios, processor_ratios = copy_bandwidth(world.device), [], []
    padded(), ours()
    for _ in range(args.rounds):
        ForcedStops.bytes_read = 0
        padded_s, padded_processor_s, expected = timed(padded, world.device)
        ours_s, ours_processor_s, tokens = timed(ours, world.device)
        ratios.append(padded_s / ours_s)
        processor_ratios.append(padded_processor_s / ours_processor_s)
        same = sum(a == b for a, b in zip(tokens, expected))
        print(
            f"padded {useful / padded_s:.0f} tokens/s, ours {useful / ours_s:.0f} tokens/s, ratio {ratios[-1]:.2f} (processor "
            f"time {processor_ratios[-1]:.2f}); {same} of {len(prompts)} responses the same; ours reads "
            f"{ForcedStops.bytes_read / ours_s / 1e9:.1f} GB/s, {ForcedStops.bytes_read / ours_s / bandwidth:.0%} of a copy's",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.2f} (processor time {statistics.median(processor_ratios):.2f})")
    stop()


if __name__ == "__main__":
    main()
