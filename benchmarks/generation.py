"""Compare useful tokens a second: engine/generation.py and one padded `generate` call of plain transformers.

    python benchmarks/generation.py                              # a random Qwen3-shaped model, CPU or GPU
    python benchmarks/generation.py --model Qwen/Qwen3-4B-Base --responses 256 --group-size 32 --longest 2048
    python benchmarks/generation.py --decoders 4 16 64           # --decode eager and graph, where Python is the limit

Both decode greedily, so they make the same tokens. Each response ends after a given length, from longest / 4
to longest. The padded call runs to the longest response, and tokens after a response's end are useless.
Rounds alternate in one process; the result is the ratio within a round.

--decoders ROWS: processor time of a token of both decoders, in milliseconds. The model has 36 layers but hardly
anything to compute (hidden size 64, contexts of at most 48 tokens), so most of that time is Python and dispatch.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

# before this file's own folder, which has a verifier.py too
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine import generation
from engine.distributed import start, stop
from engine.models import Actor, load_actor, prepare
from engine.sharding import compute_dtype


class ForcedStops(generation.Stops):
    """Ends responses after given lengths, and counts the bytes that decoding must read from memory."""

    running_B = waiting_B = torch.zeros(0, dtype=torch.long)  # lengths at which responses end
    weight_bytes = token_bytes = bytes_read = 0

    def __init__(self, sampling, tokenizer, start_B, ids):
        super().__init__(sampling, tokenizer, start_B, ids)
        # generate_responses appends new responses to the running ones
        n_new = len(start_B) - len(self.running_B)
        self.end_B = torch.cat([self.running_B, self.waiting_B[:n_new]]).to(ids.device)
        ForcedStops.waiting_B = self.waiting_B[n_new:]

    def ended(self, input_ids):
        n_responses, width = input_ids.shape
        ForcedStops.bytes_read += self.weight_bytes + n_responses * width * self.token_bytes
        return self.end_B <= width - self.start_B

    def __call__(self, input_ids, scores, **kwargs):
        ended_B = super().__call__(input_ids, scores)
        ForcedStops.running_B = self.end_B[~self.finished_B].cpu()
        return ended_B


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a plain copy of 256 MiB reads and writes, the best of ten."""
    a = torch.ones(2**26, device=device)
    b, seconds = torch.empty_like(a), []
    for _ in range(10):
        seconds.append(timed(lambda: b.copy_(a), device)[0])
    return 2 * a.nbytes / min(seconds)


def timed(work, device: torch.device):
    """-> seconds by the wall clock, seconds of the processor, and what work returned"""
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor, result


def decoders(rows: list[int], rounds: int, world) -> None:
    """Print milliseconds of processor time a token, without the prefill."""
    few, many = 8, 32
    config = Qwen3Config(
        vocab_size=256, tie_word_embeddings=True, eos_token_id=None, bos_token_id=None, hidden_size=64,
        intermediate_size=64, num_hidden_layers=36, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        initializer_range=0.1
    )
    lm = Qwen3ForCausalLM(config)
    actor = prepare(Actor(lm), lm.model, "random", world, torch.float32, False, "none")
    for n_rows in rows:
        prompts = [torch.randint(256, (8 + i % 9,)).tolist() for i in range(n_rows)]
        eager = generation.SamplingConfig(many, 0.0, frozenset(), (), n_rows)

        def timed_draw(decode: str, n: int):
            sampling = dataclasses.replace(eager, decode=decode, max_new_tokens=n)
            draw = lambda: generation.generate_responses(actor, None, prompts, sampling, world, 0, "")
            return timed(draw, world.device)

        first = timed_draw("graph", many)
        same = sum(a.tokens == b.tokens for a, b in zip(first[2], timed_draw("eager", many)[2]))
        found = {"eager": [], "graph": []}
        for _ in range(rounds):
            for name, ms in found.items():
                ms.append(1e3 * (timed_draw(name, many)[1] - timed_draw(name, few)[1]) / (many - few))
        ratio = statistics.median(g / e for e, g in zip(*found.values()))
        spread = "; ".join(f"{name} {statistics.median(ms):.1f} ms a token ({min(ms):.1f} to {max(ms):.1f})"
                           for name, ms in found.items())
        print(f"{n_rows} rows: {spread}; ratio {ratio:.2f}; {same} of {n_rows} responses the same; "
              f"graph's first call took {first[0]:.0f} s, {first[1]:.0f} s of the processor", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", help="directory or hub id; default: random weights of the sizes below")
    add("--hidden", type=int, default=512)
    add("--layers", type=int, default=8)
    add("--vocabulary", type=int, default=8192)
    add("--responses", type=int, default=48)
    add("--group-size", type=int, default=8)
    add("--batch", type=int, help="responses that we generate together; default all")
    add("--prompt", type=int, default=64, help="tokens of the longest prompt; the shortest has a quarter")
    add("--longest", type=int, default=192, help="tokens of the longest response; the shortest has a quarter")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=1)
    add("--dtype", choices=("fp32", "bf16"), default="fp32")
    add("--decoders", nargs="+", type=int, metavar="ROWS", help="compare the decoders at these numbers of rows")
    args = parser.parse_args()
    torch.manual_seed(0)
    world = start()
    dtype = compute_dtype(args.dtype, world)
    torch.set_num_threads(args.threads)  # start() has set another number
    if args.decoders:
        decoders(args.decoders, args.rounds, world)
        stop()
        return

    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            args.model = folder
            config = Qwen3Config(
                vocab_size=args.vocabulary, tie_word_embeddings=True, eos_token_id=None, bos_token_id=None,
                hidden_size=args.hidden, intermediate_size=3 * args.hidden, num_hidden_layers=args.layers,
                num_attention_heads=args.hidden // 64, num_key_value_heads=args.hidden // 128, head_dim=64
            )
            Qwen3ForCausalLM(config).save_pretrained(folder)
        plain = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).to(world.device).eval()
        plain.generation_config = GenerationConfig()
        actor = load_actor(args.model, world, dtype)

    config = plain.config
    ForcedStops.weight_bytes = sum(p.nbytes for p in plain.parameters())
    if not config.tie_word_embeddings:  # the input embedding is looked up, not read
        ForcedStops.weight_bytes -= plain.get_input_embeddings().weight.nbytes
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    n_values = config.num_hidden_layers * config.num_key_value_heads * head_dim
    ForcedStops.token_bytes = 2 * n_values * dtype.itemsize
    generation.Stops = ForcedStops

    # prompts longest first: generate_responses then keeps their order
    n_groups = args.responses // args.group_size
    widths = sorted(torch.randint(args.prompt // 4, args.prompt + 1, (n_groups,)).tolist(), reverse=True)
    groups = [torch.randint(3, config.vocab_size, (width,)).tolist() for width in widths]
    prompts = [prompt for prompt in groups for _ in range(args.group_size)]
    # logarithms evenly spread: half of the padded batch is of use
    share_B = torch.linspace(0, 1, len(prompts))[torch.randperm(len(prompts))]
    lengths_B = (args.longest / 4 * 4**share_B).round().long()
    missing_B = [widths[0] - len(prompt) for prompt in prompts]
    ids_BS = torch.tensor([[0] * n + prompt for n, prompt in zip(missing_B, prompts)], device=world.device)
    mask_BS = torch.tensor([[0] * n + [1] * (widths[0] - n) for n in missing_B], device=world.device)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=args.longest)
    sampling = generation.SamplingConfig(args.longest, 0.0, frozenset(), (), args.batch or len(prompts))

    def padded():
        out = plain.generate(inputs=ids_BS, attention_mask=mask_BS, generation_config=greedy)
        return [row[:n].tolist() for row, n in zip(out[:, widths[0] :], lengths_B.tolist())]

    def ours():
        ForcedStops.waiting_B = lengths_B
        responses = generation.generate_responses(actor, None, prompts, sampling, world, 0, "")
        return [r.tokens for r in responses]

    useful = int(lengths_B.sum())
    n_params = sum(p.numel() for p in plain.parameters())
    print(
        f"{n_params / 1e6:.0f} M parameters, {args.dtype}, {world.device.type}; "
        f"{len(prompts)} responses in groups of {args.group_size}, "
        f"lengths {lengths_B.min()} to {lengths_B.max()}, fill {useful / len(prompts) / args.longest:.2f}",
        flush=True
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
        reads = ForcedStops.bytes_read / ours_s
        print(
            f"padded {useful / padded_s:.0f} tokens/s, ours {useful / ours_s:.0f} tokens/s, "
            f"ratio {ratios[-1]:.2f} (processor time {processor_ratios[-1]:.2f}); "
            f"{same} of {len(prompts)} responses the same; "
            f"ours reads {reads / 1e9:.1f} GB/s, {reads / bandwidth:.0%} of a copy's",
            flush=True
        )
    medians = [statistics.median(x) for x in (ratios, processor_ratios)]
    print(f"median ratio {medians[0]:.2f} (processor time {medians[1]:.2f})")
    stop()


if __name__ == "__main__":
    main()
