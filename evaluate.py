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

import distributed
import generation
import plan
from distributed import World, gather_list, number, reading, refuse, replace_text, stream_seed
from folder import append_rows, digest, jsonl, open_folder, settings_of, whole_rows
from generation import Sampling, check_generation, generate_responses, sampling_of, stop_token_ids
from models import Actor, check_config, compute_dtype, load_actor, load_tokenizer
from rollout import Problem, load_problems, prompt_tokens, read_template, verify
from verifier import MAX_LENGTH, Verifier, canonical

NAMES = ("aime24", "aime25", "math500", "olympiadbench", "minervamath", "amc23")
BENCHMARKS = {name: f"math-ai/{name}::test" for name in NAMES}

# a resumed evaluation may have other ones
MAY_CHANGE = {"out", "resume", "generate_batch", "device", "timeout", "ranks_per_copy", "compare"}

# -- scores --------------------------------------------------------------------------------------------------
def pass_at_k(n: int, right: int, k: int) -> float:
    """Probability that k of n responses, `right` of which are right, hold a right one (Chen et al. 2021)."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(answers: list[str | None], rewards: list[float]) -> float:
    """Is the most frequent answer right? A tie counts as the share of the tied answers that is.

    Right answers are one answer, however written; wrong ones are the same if their canonical texts are; a
    response without an answer has no vote.
    """
    votes = Counter()
    for answer, reward in zip(answers, rewards):
        if answer:
            # a very long one would take canonical seconds
            text = canonical(answer) if len(answer) <= MAX_LENGTH else answer
            votes["right" if reward else text + " wrong"] += 1
    winners = [answer for answer, n in votes.items() if n == max(votes.values())]
    return winners.count("right") / len(winners) if winners else 0.0


def interval(scores_P: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean over problems, the unit of sampling: a problem's K responses are not
    independent of one another. Wilson's with continuity correction (Newcombe 1998, method 4) for the number
    of independent responses that scatter as the problems' scores do, at least P. None for a single problem.

    Few problems that are neither all right nor all wrong say little about the scatter, so it is drawn towards
    its bound, wholly dependent responses, as if by one problem more.
    """
    n_problems = len(scores_P)
    if n_problems < 2:
        return None
    p, z = scores_P.mean(), 1.96
    bound = p * (1 - p)
    telling = min((scores_P > 0).sum(), (scores_P < 1).sum())
    scatter = (telling * scores_P.var(ddof=1) + bound) / (telling + 1)
    n = max(n_problems, n_problems * bound / scatter) if scatter else n_problems
    low = 2 * n * p + z * z - 1 - z * math.sqrt(max(0, z * z - 2 - 1 / n + 4 * p * (n * (1 - p) + 1)))
    high = 2 * n * p + z * z + 1 + z * math.sqrt(max(0, z * z + 2 - 1 / n + 4 * p * (n * (1 - p) - 1)))
    low, high = (float(end / (2 * (n + z * z))) for end in (low, high))
    return (max(0.0, low) if p > 0 else 0.0), (min(1.0, high) if p < 1 else 1.0)


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
        "digest": digest([Problem(group[0]["problem"], group[0]["gold"]) for group in groups]),
    }


def average_interval(parts: list[tuple[float, tuple[float, float] | None]]) -> tuple[float, float] | None:
    """Of the mean of independent estimates, each with its interval: distances add in squares (MOVER)."""
    if any(ends is None for _, ends in parts):
        return None
    middle = mean(estimate for estimate, _ in parts)
    below = math.hypot(*(estimate - ends[0] for estimate, ends in parts)) / len(parts)
    above = math.hypot(*(ends[1] - estimate for estimate, ends in parts)) / len(parts)
    return middle - below, middle + above


def average(results: dict[str, dict]) -> dict:
    """Every benchmark counts alike, as the paper averages; their errors are independent."""
    rows = list(results.values())
    row = {key: mean(r[key] for r in rows) for key in ("avg@k", "maj@k", "length", "truncated", "unparsed")}
    row["interval"] = average_interval([(r["avg@k"], r["interval"]) for r in rows])
    row["pass@"] = {k: mean(r["pass@"][k] for r in rows) for k in rows[0]["pass@"]}
    return row


def interval_text(ends: tuple[float, float] | None, sign: str = "") -> str:
    return "–" if ends is None else f"{ends[0]:{sign}.1%} … {ends[1]:{sign}.1%}"


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


# -- two evaluations -----------------------------------------------------------------------------------------
def paired_interval(a_P: np.ndarray, b_P: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of mean A − mean B on the same problems, from the interval of each (Newcombe 1998,
    method 10): what is hard for A is hard for B, so that they vary together. The correlation is drawn towards
    0 as if by one problem more, beside those on which they differ."""
    if len(a_P) < 2:
        return None
    (low_a, high_a), (low_b, high_b), a, b = interval(a_P), interval(b_P), a_P.mean(), b_P.mean()
    scale = a_P.std() * b_P.std()
    differing = (a_P != b_P).sum()
    r = ((a_P - a) * (b_P - b)).mean() / scale * differing / (differing + 1) if scale else 0.0

    def distance(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * r * x * y + y * y))

    return float(a - b - distance(a - low_a, high_b - b)), float(a - b + distance(high_a - a, b - low_b))


def compare(path_a: str, path_b: str) -> str:
    """A table of A − B for every benchmark that both eval.json files hold."""
    both, settings = [], []
    for path in (path_a, path_b):
        with reading(f"--compare {path}: not a file that evaluate.py wrote", KeyError, TypeError):
            evaluation = json.loads(Path(path).read_text())
            settings.append(evaluation["settings"])
            rows = evaluation["results"].items()
            both.append({name: {key: r[key] for key in ("digest", "scores")} for name, r in rows})
    names = [name for name in both[0] if name in both[1]]
    refuse(not names, f"--compare: {path_a} and {path_b} have no benchmark in common.")
    for name in names:
        refuse(both[0][name]["digest"] != both[1][name]["digest"],
               f"--compare: the problems of {name} are not the same in the two files.")
    lines = [f"A = {path_a}", f"B = {path_b}"]
    for key in sorted({*settings[0], *settings[1]} - {"model", "benchmarks", "n_problems", "seed"}):
        a, b = (each.get(key) for each in settings)
        if a != b:
            lines.append(f"Not alike: --{key.replace('_', '-')} is {a!r} for A, {b!r} for B.")
    lines.append(f"{'benchmark':<16} {'A':>8} {'B':>8} {'A − B':>8}   95 % interval")
    rows, parts = [], []
    for name in names:
        a_P, b_P = (np.array(each[name]["scores"]) for each in both)
        rows.append((name, a_P.mean(), b_P.mean(), paired_interval(a_P, b_P)))
        parts.append((a_P.mean() - b_P.mean(), rows[-1][-1]))
    if len(names) > 1:
        rows.append(("average", *(mean(row[i] for row in rows) for i in (1, 2)), average_interval(parts)))
    for name, a, b, ends in rows:
        # not 0: sums of thirds and fifths are off by rounding
        verdict = "one problem: nothing can be said" if ends is None else "no difference shown"
        if ends and (ends[0] > 1e-9 or ends[1] < -1e-9):
            verdict = "A is better" if a > b else "B is better"
        shares = f"{a:>8.1%} {b:>8.1%} {a - b:>+8.1%}"
        lines.append(f"{name:<16} {shares}   {interval_text(ends, '+')}   {verdict}")
    return "\n".join(lines)


# -- responses -----------------------------------------------------------------------------------------------
def evaluate(actor: Actor, tokenizer, sets: dict[str, list[Problem]], template: str | None,
             sampling: Sampling, world: World, *, extract: str, reward: Callable, k: int, seed: int,
             done: Sequence[dict] = (), keep: Callable = lambda records: None) -> list[dict]:
    """k responses to every problem -> a record of each response, in the order of sets, problems and samples.

    The prompts of all sets are pooled and sorted by length, so that a small set wastes no batch. `keep` gets
    the records of each portion as soon as it is finished; `done` are those that an interrupted run kept, and
    whole portions of them are not drawn again.
    """
    places = [(name, row) for name in sets for row in range(len(sets[name]))]
    prompts = {at: prompt_tokens(sets[at[0]][at[1]].problem, template, tokenizer) for at in places}
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
        tokens = [prompts[at[:2]] for at in part]
        draw = stream_seed(seed, "evaluation", *part[0])
        responses = generate_responses(actor, tokenizer, tokens, sampling, world, draw, label)
        answers, rewards = verify(responses, [p.answer for p in problems], extract, reward, tokenizer, world)
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
    parser = distributed.Parser(__doc__)
    count = number(int, 1)
    add = parser.add_argument_group("evaluation").add_argument
    add("--model", help="directory or hub id of the model")
    add("--benchmarks", nargs="+", help=f"any of {', '.join(BENCHMARKS)}; .jsonl or .parquet files; hub ids as ID[:CONFIG[:SPLIT]]")
    add("--n-problems", type=count, help="take this many of each benchmark, drawn by seed; default all")
    add("--k", type=count, default=4, help="responses to each problem")
    add("--seed", type=int, default=0, help="seed of problems and sampling")
    add("--out", type=Path, help="folder for eval.json and responses.jsonl; default: runs/eval-TIME")
    add("--resume", action="store_true", help="go on with the interrupted evaluation in --out")
    add("--compare", nargs=2, metavar="EVAL_JSON", help="only print how two evaluations differ")
    generation.add_flags(parser, greedy=True)
    distributed.add_flags(parser)
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
    how = args.n_problems, args.seed, "test", "--benchmarks"
    sets = {benchmark_name(b): load_problems(BENCHMARKS.get(b, b), *how) for b in args.benchmarks}
    tokenizer = load_tokenizer(args.model, "--model")
    template = read_template(args.template, tokenizer, args.model)
    prompts = [prompt_tokens(p.problem, template, tokenizer) for problems in sets.values() for p in problems]
    check_config(args.model, "--model", prompts, args.max_new_tokens)
    folder = open_folder(args, "eval", MAY_CHANGE, world)
    draw = plan.Draw(folder.generate_batch, args.k * len(prompts), args.k, max(map(len, prompts)))
    args, world = plan.settle(args, None, draw, world)
    dtype = compute_dtype(args.dtype, world)
    actor = load_actor(args.model, world, dtype)
    sampling = sampling_of(args, stop_token_ids(actor, tokenizer, template))
    check_generation(actor, tokenizer, min(prompts, key=len), args.max_new_tokens, args.model, world, dtype)
    digests = {f"--benchmarks {name}": digest(problems) for name, problems in sets.items()}
    digests["--template"] = digest([Problem(template or tokenizer.chat_template, "")])
    folder.begin(args, {"--model": actor.lm.digest} | digests, world)
    out = folder.path
    done, drawn = whole_rows(out / "responses.jsonl") if args.resume else [], []
    if world.is_main:
        replace_text(out / "responses.jsonl", jsonl(done))  # without a line that a kill has cut

    def keep(records: list[dict]) -> None:
        drawn.extend(records)
        if world.is_main:
            append_rows(out / "responses.jsonl", records)

    with Verifier(args.extract) as verifier:
        for name, problems in sets.items() if world.is_main else ():
            for row in verifier.unparsable([p.answer for p in problems]):
                problem = problems[row]
                print(f"{name}, row {row} ({problem.problem[:40]!r} …): the verifier cannot parse the gold "
                      f"answer {problem.answer!r}; only the same text counts as right.", flush=True)
        began = time.time()
        records = evaluate(actor, tokenizer, sets, template, sampling, world, extract=args.extract,
                           reward=verifier.reward, k=args.k, seed=args.seed, done=done, keep=keep)
        seconds = time.time() - began
        failures = sum(gather_list([verifier.failures], world))
    if world.is_main:
        results = {name: summarise([r for r in records if r["benchmark"] == name]) for name in sets}
        settings = {key: value for key, value in settings_of(args).items() if key not in MAY_CHANGE}
        summary = dict(settings=settings, results=results, average=average(results), verify_failures=failures)
        replace_text(out / "eval.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        replace_text(out / "responses.jsonl", jsonl(records))
        n_tokens = sum(r["length"] for r in drawn)
        print(table(results))
        print(f"{len(drawn)} responses, {n_tokens} tokens in {seconds:.0f} s: "
              f"{n_tokens / seconds:.0f} tokens/s; {failures} answers that the verifier gave up on.\n"
              f"Every response with its answer and verdict: {out}/responses.jsonl; the table: "
              f"{out}/eval.json")


def main(argv: list[str] | None = None) -> int:
    distributed.secure_output()
    args = parse_args(argv)
    if args.compare:
        return distributed.exit_code("evaluate.py", lambda: print(compare(*args.compare)))
    world = lambda: distributed.start(args.device, args.timeout, args.ranks_per_copy)
    return distributed.exit_code("evaluate.py", lambda: run(args, world()))


if __name__ == "__main__":
    sys.exit(main())
