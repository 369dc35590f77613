"""Write what the regime `smollm2` needs: additions of two-digit numbers, a three-shot prompt, the model.

    python experiments/claims/make_additions.py --model HuggingFaceTB/SmolLM2-135M-Instruct

-> runs/add_train.jsonl (2,000 problems), runs/add_test.jsonl (150), runs/three_shot.txt, and runs/smollm2,
the model with its weights rounded to bf16. Weights half-way between two bf16 numbers jump at the first update
(experiments/LOG.md).
"""

import argparse
import json
import random
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="hub id or folder; without it only the problems are written")
    args = parser.parse_args()
    runs = ROOT / "runs"
    runs.mkdir(exist_ok=True)
    draw = random.Random(0)
    pairs = draw.sample([(a, b) for a in range(10, 100) for b in range(10, 100)], 2150)
    lines = [json.dumps(dict(problem=f"{a} + {b}", answer=str(a + b))) + "\n" for a, b in pairs]
    (runs / "add_train.jsonl").write_text("".join(lines[:2000]))
    (runs / "add_test.jsonl").write_text("".join(lines[2000:]))
    (runs / "three_shot.txt").write_text("12 + 35 = 47\n60 + 21 = 81\n45 + 14 = 59\n{problem} =")
    if args.model:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
        model.save_pretrained(runs / "smollm2")
        AutoTokenizer.from_pretrained(args.model).save_pretrained(runs / "smollm2")
    print(f"{runs}: add_train.jsonl, add_test.jsonl, three_shot.txt" + (", smollm2" if args.model else ""))


if __name__ == "__main__":
    main()
