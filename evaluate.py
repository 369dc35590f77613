"""How good is a model: avg@k, pass@k and maj@k with 95 % intervals on benchmarks, and how two models differ.

    python evaluate.py --model DIR_OR_ID --benchmarks aime24 aime25 math500 olympiadbench minervamath amc23 --k 4
    torchrun --nproc_per_node 8 evaluate.py --model DIR_OR_ID --benchmarks problems.jsonl --k 4
    python evaluate.py --compare runs/eval-A/eval.json runs/eval-B/eval.json

Legend for shape suffixes: P problems, K responses to each problem.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import fmean as mean
from typing import Callable, Sequence

import numpy as np

from engine import plan
from engine.command_line import AT_LEAST_0, COUNT, Parser, add_process_flags, add_response_flags, exit_code
from engine.distributed import World, gather_list, start
from engine.files import append_rows, jsonable, jsonl, replace_text, whole_rows
from engine.folder import open_folder
from engine.generation import SamplingConfig, generate_responses
from engine.model_check import check_config, check_generation, check_states
from engine.models import Actor, load_actor, load_tokenizer
from engine.sharding import compute_dtype
from engine.statistics import average_interval, compare, interval, interval_text
from engine.streams import stream_seed
from rollout import Problem, RolloutConfig, digests, load_problems, print_unparsable, read_template
from rollout import stop_token_ids, tokenize, verify
from verifier import MAX_LENGTH, Verifier, canonical

NAMES = ("aime24", "aime25", "math500", "olympiadbench", "minervamath", "amc23")
BENCHMARKS = {name: f"math-ai/{name}::test" for name in NAMES}

# settings that a resumed evaluation may change
MAY_CHANGE = {"out", "resume", "generate_batch", "decode", "ranks_per_copy", "compare"}

# -- scores --------------------------------------------------------------------------------------------------
def pass_at_k(n: int, right: int, k: int) -> float:
    """Probability that k of n responses, `right` of which are right, hold a right one (Chen et al. 2021)."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(answers: list[str | None], rewards: list[float]) -> float:
    """Is the most frequent answer right? A tie counts as the share of the tied answers that is.

    Right answers are one answer, however written; wrong ones are the same if their canonical texts are; a response
    without an answer has no vote.
    """
    votes = Counter()
    for answer, reward in zip(answers, rewards):
        if answer:
            # a very long one would take canonical seconds
            text = canonical(answer) if len(answer) <= MAX_LENGTH else answer
            votes["right" if reward else text + " wrong"] += 1
    winners = [answer for answer, n in votes.items() if n == max(votes.values())]
    return winners.count("right") / len(winners) if winners else 0.0


def summarise(records: list[dict]) -> dict:
    """A benchmark's row of the table from its records, which stand problem by problem with K responses each.

    pass@ holds the unbiased estimates for 1, 2, 4, … and K.
    """
    k = 1 + max(r["sample"] for r in records)
    groups = [records[i : i + k] for i in range(0, len(records), k)]
    rewards_PK = np.array([[r["reward"] for r in group] for group in groups])
    right_P = rewards_PK.sum(1).astype(int).tolist()
    ks = sorted({2**i for i in range(k.bit_length())} | {k})
    return {
        "problems": len(groups), "k": k,
        "avg@k": mean(rewards_PK.flat), "interval": interval(rewards_PK.mean(1)),
        "pass@": {str(n): mean(pass_at_k(k, right, n) for right in right_P) for n in ks},
        "maj@k": mean(majority([r["answer"] for r in g], [r["reward"] for r in g]) for g in groups),
        "length": mean(r["length"] for r in records),
        "truncated": mean(r["truncated"] for r in records),
        "unparsed": mean(not r["answer"] for r in records),
        "scores": rewards_PK.mean(1).tolist(),
        "digest": digests([Problem(group[0]["problem"], group[0]["gold"]) for group in groups])[0],
    }


def average(results: dict[str, dict]) -> dict:
    """Return the mean row over benchmarks with equal weights, as in the paper; its interval adds independent errors."""
    rows = list(results.values())
    row = {key: mean(r[key] for r in rows) for key in ("avg@k", "maj@k", "length", "truncated", "unparsed")}
    row["interval"] = average_interval([(r["avg@k"], r["interval"]) for r in rows])
    row["pass@"] = {k: mean(r["pass@"][k] for r in rows) for k in rows[0]["pass@"]}
    return row


def table(results: dict[str, dict]) -> str:
    k = next(iter(results.values()))["k"]
    width = max(16, *(len(name) + 2 for name in results))
    heads = (f"avg@{k}", "95 % interval", f"pass@{k}", f"maj@{k}", "length", "truncated", "unparsed")
    lines = [f"{'benchmark':<{width}} problems" + "".join(f"{head:>15}" for head in heads)]
    rows = results if len(results) == 1 else results | {"average": average(results)}
    for name, r in rows.items():
        cells = [f"{r['avg@k']:.1%}", interval_text(r["interval"])]
        cells += [f"{r['pass@'][str(k)]:.1%}", f"{r['maj@k']:.1%}", f"{r['length']:.1f}"]
        cells += [f"{r['truncated']:.1%}", f"{r['unparsed']:.1%}"]
        lines.append(f"{name:<{width}} {r.get('problems', ''):>8}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)


# -- responses -----------------------------------------------------------------------------------------------
def evaluate(actor: Actor, tokenizer, sets: dict[str, list[Problem]], config: RolloutConfig, seed: int, world: World,
             done: Sequence[dict] = (), keep: Callable = lambda records: None) -> list[dict]:
    """Draw config.group_size responses to every problem. -> a record of each, by set, problem and sample. Collective.

    The prompts of all sets are pooled and sorted by length, so that a small set wastes no batch. keep gets the
    records of each portion when it is finished. done are the records that an interrupted evaluation kept; whole
    portions of them are not drawn again.
    """
    k, sampling = config.group_size, config.sampling
    places = [(name, row) for name in sets for row in range(len(sets[name]))]
    prompts = {(name, row): list(sets[name][row].prompt) for name, row in places}
    order = [(*at, sample) for at in places for sample in range(k)]
    records = {(r["benchmark"], r["row"], r["sample"]): r for r in done}
    pool = sorted(order, key=lambda at: -len(prompts[at[:2]]))
    portion = 4 * sampling.batch * world.size
    for i in range(0, len(pool), portion):
        part = pool[i : i + portion]
        if records.keys() >= {*part}:
            continue
        problems = [sets[name][row] for name, row, _ in part]
        label = f"evaluate {i // portion + 1}/{-(-len(pool) // portion)}"
        responses = generate_responses(actor, tokenizer, [prompts[at[:2]] for at in part], sampling, world,
                                       stream_seed(seed, "evaluation", *part[0]), label)
        golds = [p.answer for p in problems]
        answers, rewards = verify(responses, golds, config.extract, config.reward, tokenizer, world)
        new = [
            dict(benchmark=name, row=row, sample=sample, problem=problem.problem, gold=problem.answer,
                 response=tokenizer.decode(response.tokens), answer=answer, reward=reward,
                 length=len(response.tokens), truncated=response.truncated)
            for (name, row, sample), problem, response, answer, reward
            in zip(part, problems, responses, answers, rewards)]
        keep(new)
        records |= zip(part, new)
    return [records[at] for at in order]


# -- command line --------------------------------------------------------------------------------------------
def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument_group("evaluation").add_argument
    add("--model", help="directory or hub id of the model")
    add("--benchmarks", nargs="+",
        help=f"any of {', '.join(BENCHMARKS)}; .jsonl or .parquet files; hub ids as ID[:CONFIG[:SPLIT]]")
    add("--n-problems", type=COUNT, help="take this many of each benchmark, drawn by seed; default: all")
    add("--k", type=COUNT, default=4, help="responses to each problem")
    add("--seed", type=int, default=0, help="seed of problems and sampling")
    add("--out", type=Path, help="folder for eval.json and responses.jsonl; default: runs/eval-TIME-XXXX")
    add("--resume", action="store_true", help="continue the interrupted evaluation in --out")
    add("--compare", nargs=2, metavar="EVAL_JSON", help="only print how two evaluations differ")
    add_response_flags(parser, AT_LEAST_0, "sampling temperature; 0 is greedy")
    add_process_flags(parser)
    args = parser.parse_args(argv)
    if not args.compare and not (args.model and args.benchmarks):
        parser.error("give --model and --benchmarks, or --compare with two eval.json files")
    if args.benchmarks and len({benchmark_name(b) for b in args.benchmarks}) < len(args.benchmarks):
        parser.error("--benchmarks has two sets of one name; their results would overwrite each other")
    if args.resume and not args.out:
        parser.error("--resume needs the folder of the evaluation: --out DIR")
    return args


def benchmark_name(benchmark: str) -> str:
    if benchmark.endswith((".jsonl", ".parquet")):
        return Path(benchmark).stem
    return benchmark.replace("/", "_").replace(":", "_")


def run(args: argparse.Namespace, world: World) -> None:
    """Evaluate a model on all benchmarks and write eval.json and responses.jsonl."""
    loaded = {benchmark_name(b): load_problems(BENCHMARKS.get(b, b), args.n_problems, args.seed, "test", "--benchmarks")
              for b in args.benchmarks}
    tokenizer = load_tokenizer(args.model, "--model")
    template = read_template(args.template, tokenizer, args.model)
    sets = {name: tokenize(problems, template, tokenizer) for name, problems in loaded.items()}
    prompts = [p.prompt for problems in sets.values() for p in problems]
    check_config(args.model, "--model", prompts, args.max_new_tokens)
    folder = open_folder(args.out, args.resume, jsonable(vars(args)), MAY_CHANGE, "eval", world)
    batch = args.generate_batch if args.generate_batch != "auto" else folder.old_generate_batch or "auto"
    work = plan.Workload(args.model, None, args.k * len(prompts), args.k, max(map(len, prompts)), args.max_new_tokens,
                         generate_batch=batch)
    chosen, world = plan.settle(work, args.dtype, args.ranks_per_copy, world)
    settings = jsonable(vars(args)) | {"generate_batch": chosen["generate_batch"]}

    dtype = compute_dtype(args.dtype, world)
    actor = load_actor(args.model, world, dtype)
    check_states(actor, args.model, world, dtype)
    check_generation(actor, tokenizer, prompts, args.max_new_tokens, args.model, world, dtype, args.decode)
    stops = frozenset(stop_token_ids(actor, tokenizer, template))  # before the folder: a chat template may fail
    hashes = {name: digests(problems) for name, problems in sets.items()}
    named = {"--model": actor.lm.digest} | {f"--benchmarks {name}": text for name, (text, _) in hashes.items()}
    named["--template (prompt tokens)"] = " ".join(tokens for _, tokens in hashes.values())
    folder.begin(settings, named, world)
    out, drawn = folder.path, []
    done = whole_rows(out / "responses.jsonl") if args.resume else []
    if world.is_main:
        replace_text(out / "responses.jsonl", jsonl(done))  # without a line that a kill has cut

    def keep(records: list[dict]) -> None:
        drawn.extend(records)
        if world.is_main:
            append_rows(out / "responses.jsonl", records)

    sampling = SamplingConfig(args.max_new_tokens, args.temperature, stops, tuple(args.stop),
                              settings["generate_batch"], args.decode)
    with Verifier(args.extract, method=args.verifier) as verifier:
        for name, problems in sets.items() if world.is_main else ():
            print_unparsable(name, problems, verifier)
        began = time.time()
        config = RolloutConfig(args.k, sampling, args.extract, verifier.reward, token_budget=0)  # nothing is scored
        records = evaluate(actor, tokenizer, sets, config, args.seed, world, done, keep)
        seconds = time.time() - began
        failures = sum(gather_list([verifier.failures], world))
    if world.is_main:
        results = {name: summarise([r for r in records if r["benchmark"] == name]) for name in sets}
        settings = {key: value for key, value in settings.items() if key not in MAY_CHANGE}
        summary = dict(settings=settings, results=results, average=average(results), verify_failures=failures)
        replace_text(out / "eval.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        replace_text(out / "responses.jsonl", jsonl(records))
        n_tokens = sum(r["length"] for r in drawn)
        print(table(results))
        print(f"{len(drawn)} responses, {n_tokens} tokens in {seconds:.0f} s: {n_tokens / seconds:.0f} tokens/s; "
              f"{failures} answers that the verifier gave up on.\n"
              f"Every response with its answer and verdict: {out}/responses.jsonl; the table: {out}/eval.json")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.compare:
        return exit_code("evaluate.py", lambda: print(compare(*args.compare)))
    return exit_code("evaluate.py", lambda: run(args, start(ranks_per_copy=args.ranks_per_copy)))


if __name__ == "__main__":
    sys.exit(main())
