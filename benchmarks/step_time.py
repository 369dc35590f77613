"""Hold the formulas of `train.py --plan` against measured steps of small models on this CPU.

    python benchmarks/step_time.py

Models are random, over 4096 tokens, so that hardly a response ends early. A card is what this CPU reaches in one
matrix product and in one sum. For every phase it prints the planned and the measured seconds, and their ratio. They
are processor seconds of one thread. A measured number is the median of the steps after the first.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.duration import Card, measure_host, step_seconds
from engine.plan import Workload
from peers import CPU_CLOCK
from tiny.make_tiny import make_tokenizer

SIZES = {"small": (256, 4), "medium": (512, 8), "large": (768, 12)}  # hidden size, layers of the actor
PROMPTS, GROUP, TOKENS, BATCH, BUDGET, PASSES, STEPS = 4, 8, 96, 16, 2048, 2, 3


def make_model(folder: Path, hidden: int, layers: int) -> str:
    tokenizer = make_tokenizer()
    Qwen3ForCausalLM(Qwen3Config(
        vocab_size=4096, hidden_size=hidden, num_hidden_layers=layers, intermediate_size=3 * hidden,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128, head_dim=64, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def fastest(work, repeats: int = 20) -> float:
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def this_cpu(hidden: int) -> Card:
    a, b, big = torch.randn(BUDGET, hidden), torch.randn(hidden, 3 * hidden), torch.randn(2**25)
    flops = 2 * BUDGET * hidden * 3 * hidden / fastest(lambda: a @ b)
    return Card(0, flops, 4 * len(big) / fastest(lambda: big.sum()), reached=1.0)


def measured_step(folder: Path, actor: str, critic: str) -> tuple[dict[str, float], float]:
    """-> median seconds of each phase, mean tokens of a response"""
    flags = (f"--model {actor} --critics {critic} --data {ROOT}/tiny/train.jsonl --n-problems 32 --out {folder}/run "
             f"--prompts-per-step {PROMPTS} --group-size {GROUP} --max-new-tokens {TOKENS} --stop never "
             f"--generate-batch {BATCH} --token-budget {BUDGET} --epochs {PASSES} --critic-epochs {PASSES} "
             f"--steps {STEPS} --eval-every 0 --save-every 0 --no-gradient-checkpointing")
    subprocess.run([sys.executable, "-c", CPU_CLOCK, *flags.split()], cwd=ROOT, check=True, capture_output=True,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()][1:]
    assert all(row["response_len_mean"] > 0.9 * TOKENS for row in rows), "responses end early; take other models"
    phases = {phase: statistics.median(row[f"time/{phase}"] for row in rows)
              for phase in ("generate", "score", "values", "fit_critics", "policy")}
    return phases, sum(row["response_len_mean"] for row in rows) / len(rows)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| actor | phase | planned, s | measured, s | measured / planned |\n| --- | --- | ---: | ---: | ---: |")
    for name, (hidden, layers) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            actor, critic = make_model(folder / "actor", hidden, layers), make_model(folder / "critic", 256, 2)
            measured, length = measured_step(folder, actor, critic)
            work = Workload(actor, [critic] * 2, PROMPTS * GROUP, GROUP, 0, TOKENS, BUDGET, passes=PASSES,
                            critic_passes=PASSES)
            chosen = dict(generate_batch=BATCH, ranks_per_copy=1, offload="none")
            planned = step_seconds(work, 4, chosen, this_cpu(hidden), 1, measure_host(),
                                   [round(length)] * work.responses, prompt=12)
        measured["score"] += measured.pop("values")
        measured["eager"] = measured.pop("generate")
        measured["step"], planned["step"] = sum(measured.values()), sum(planned.values()) - planned["graph"]
        for phase in ("eager", "score", "fit_critics", "policy", "step"):
            ratio = measured[phase] / planned[phase]
            print(f"| {name} | {phase} | {planned[phase]:.2f} | {measured[phase]:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
