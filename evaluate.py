"""How good is a model: avg@k and pass@k with 95 % intervals on benchmarks, JSONL files or hub data sets.

python evaluate.py --model DIR_OR_ID --benchmarks aime24 math500 --k 4
torchrun --nproc_per_node 8 evaluate.py --model DIR_OR_ID --benchmarks problems.jsonl --k 4
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

from actor import Actor, load_actor, load_tokenizer
from distributed import UserError, World, report, start, stop, stream_seed
from rollout import (
    Problem,
    Sampling,
    generate_responses,
    load_problems,
    prompt_tokens,
    read_template,
    stop_token_ids,
    verify_responses,
)
from verifier import Verifier

BENCHMARKS = {
    "aime24": "math-ai/aime24::test",
    "aime25": "math-ai/aime25::test",
    "math500": "math-ai/math500::test",
    "olympiadbench": "math-ai/olympiadbench::test",
    "minervamath": "math-ai/minervamath::test",
    "amc23": "math-ai/amc23::test",
}


def pass_at_k(n: int, right: int, k: int) -> float:
    """Probability that k of n responses, `right` of which are right, hold a right one (Chen et al. 2021, eq. 1)."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def summarise(rewards_PK: np.ndarray, lengths_PK: np.ndarray, truncated_PK: np.ndarray) -> dict:
    """P problems × K responses -> avg@k with the half-width of its 95 % interval, pass@k, length, truncated share.

    The interval's unit is the problem: a problem's K responses are not independent of one another.
    """
    n_problems, k = rewards_PK.shape
    per_problem = rewards_PK.mean(1)
    spread = per_problem.std(ddof=1) if n_problems > 1 else float("nan")
    return {
        "problems": n_problems,
        "k": k,
        "avg@k": float(per_problem.mean()),
        "interval": float(1.96 * spread / math.sqrt(n_problems)),
        "pass@k": float(np.mean([pass_at_k(k, int(right), k) for right in rewards_PK.sum(1)])),
        "length": float(lengths_PK.mean()),
        "truncated": float(truncated_PK.mean()),
    }


def evaluate(
    actor: Actor,
    tokenizer,
    problems: list[Problem],
    template: str | None,
    sampling: Sampling,
    extract: str,
    k: int,
    verifier: Verifier,
    world: World,
    seed: int,
    label: str,
) -> tuple[dict, list[dict]]:
    """k responses to each problem -> the summary, and a record of each response (problem by problem)."""
    prompts = [tokens for p in problems for tokens in [prompt_tokens(p.problem, template, tokenizer)] * k]
    golds = [p.answer for p in problems for _ in range(k)]
    responses = generate_responses(actor, tokenizer, prompts, sampling, world, stream_seed(seed, "evaluation"), label)
    texts = [tokenizer.decode(r.tokens, skip_special_tokens=True) for r in responses]
    answers, rewards = verify_responses(texts, golds, extract, verifier, world)
    shape = (len(problems), k)
    summary = summarise(
        np.array(rewards).reshape(shape),
        np.array([len(r.tokens) for r in responses]).reshape(shape),
        np.array([r.truncated for r in responses]).reshape(shape),
    )
    records = [
        {
            "problem": problems[i // k].problem,
            "response": tokenizer.decode(r.tokens),
            "answer": answers[i],
            "gold": golds[i],
            "reward": rewards[i],
            "length": len(r.tokens),
            "truncated": r.truncated,
        }
        for i, r in enumerate(responses)
    ]
    return summary, records


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", required=True, help="directory or hub id of the model")
    add("--benchmarks", nargs="+", required=True, help=f"any of {', '.join(BENCHMARKS)}; .jsonl or .parquet files; hub ids as ID[:CONFIG[:SPLIT]]")  # fmt: skip
    add("--n-problems", type=int, help="take this many of each benchmark, drawn by seed; default all")
    add("--k", type=int, default=4, help="responses to each problem")
    add("--max-new-tokens", type=int, default=8192, help="a longer response is cut and counted as truncated")
    add("--temperature", type=float, default=1.0, help="sampling temperature; 0 is greedy")
    add("--template", help="prompt as text or file with {problem} in it; default: the tokenizer's chat template")
    add("--stop", nargs="+", default=[], help="strings that end a response; \\n stands for a newline")
    add("--extract", choices=("boxed", "last_number"), default="boxed", help="where the answer stands in a response")
    add("--generate-batch", type=int, default=64, help="responses generated together on one process")
    add("--seed", type=int, default=0, help="seed of problems and sampling")
    add("--out", type=Path, default=Path("runs/eval"), help="folder for eval.json and the responses")
    add("--dtype", choices=("auto", "fp32", "bf16"), default="auto", help="compute type; auto: bf16 on GPU, fp32 on CPU")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    args = parser.parse_args(argv)
    for name in ("k", "max_new_tokens", "generate_batch", "n_problems"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if not (args.temperature >= 0 and math.isfinite(args.temperature)):
        parser.error("--temperature must not be negative")
    if len({benchmark_name(b) for b in args.benchmarks}) < len(args.benchmarks):
        parser.error("--benchmarks has two sets of one name; their results would overwrite each other")
    return args


def benchmark_name(benchmark: str) -> str:
    if benchmark.endswith((".jsonl", ".parquet")):
        return Path(benchmark).stem
    return benchmark.replace("/", "_").replace(":", "_")


def compute_dtype(name: str, world: World) -> torch.dtype:
    if name == "auto":
        name = "bf16" if world.device.type == "cuda" else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def stop_strings(flags: list[str]) -> tuple[str, ...]:
    """Shells pass \\n on as two characters."""
    if "" in flags:
        raise UserError("--stop '' would end every response at once; leave it out, or name a string.")
    return tuple(s.replace("\\n", "\n") for s in flags)


def run(args: argparse.Namespace, world: World) -> None:
    sets = {
        benchmark_name(b): load_problems(BENCHMARKS.get(b, b), args.n_problems, args.seed, split="test", flag="--benchmarks")
        for b in args.benchmarks
    }
    tokenizer = load_tokenizer(args.model, "--model")
    template = read_template(args.template, tokenizer, args.model)
    actor = load_actor(args.model, world, compute_dtype(args.dtype, world))
    sampling = Sampling(
        args.max_new_tokens,
        args.temperature,
        frozenset(stop_token_ids(actor, tokenizer, template)),
        stop_strings(args.stop),
        args.generate_batch,
    )
    if world.is_main:
        args.out.mkdir(parents=True, exist_ok=True)
        print(f"{'benchmark':<16} problems    avg@{args.k}   95 % interval   pass@{args.k}   length   truncated   tokens/s")
    results = {}
    with Verifier() as verifier:
        for name, problems in sets.items():
            began = time.time()
            results[name], records = evaluate(
                actor, tokenizer, problems, template, sampling, args.extract, args.k, verifier, world, args.seed, name
            )
            r = results[name]
            speed = r["length"] * len(records) / (time.time() - began)
            if world.is_main:
                print(
                    f"{name:<16} {r['problems']:>8} {r['avg@k']:>8.1%} {'± ' + format(r['interval'], '.1%'):>15}"
                    f" {r['pass@k']:>8.1%} {r['length']:>8.1f} {r['truncated']:>11.1%} {speed:>10.0f}",
                    flush=True,
                )
                (args.out / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in records))
    if world.is_main:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        (args.out / "eval.json").write_text(json.dumps({"settings": settings, "results": results}, indent=2))
        print(f"Every response, its answer and verdict: {args.out}/*.jsonl; the table: {args.out}/eval.json")


def main(argv: list[str] | None = None) -> int:
    args, code = parse_args(argv), 0
    try:
        run(args, start(args.device))
    except UserError as error:
        code = report("evaluate.py", error)
    stop()
    return code


if __name__ == "__main__":
    sys.exit(main())
