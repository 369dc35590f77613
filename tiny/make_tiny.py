"""Make everything in this folder from a seed: problems, tokenizer, a tiny actor and a tinier mini-critic.

    python tiny/make_tiny.py           # about half an hour on one core; overwrites actor/, critic/, *.jsonl
    python tiny/make_tiny.py --shares  # a minute: what could be known of the returns at all; makes nothing

The task is a chain of additions and subtractions, solved one step a line:

    7+5-3            ->  7+5=12
                         12-3=9
                         \\boxed{9}

Steps are wrong at random, those with a HARD term often, the others seldom, and the lines after a wrong one go
on from its number. So a model that has learned from such solutions knows how to add (its greedy answers are
right), but most of its samples are wrong. That is what reinforcement learning has to mend, and since only the
final box is rewarded, the credit must travel back to the line that went wrong. A base that has not learned
its arithmetic gives RL nothing to sharpen.

Both models are pretrained on homework that a teacher has begun to mark: in half of the cases the reading
stops behind a line with a mark, `.` where everything up to here is right and `x` where something is not. To
write it a model must know at every line whether all lines above it are right, and it can never read that off
an earlier mark. From rewards alone a critic of this size does not learn to check a sum (LOG.md); this one
need only say what it knows already, and after a second course, with marks anywhere in a line, it knows it at
every token. The actor then learns from homework without marks, so that it writes none: the critics judge by
the sums alone.
"""

import argparse
import json
import math
import random
import re
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Hashable

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).parent
# ~ is written by no one here, but keeps the place of every token
VOCABULARY = ["<|pad|>", "<|eos|>", "<|unk|>", *"0123456789+-=~\n", "\\boxed{", "}", ".", "x"]
TOKEN = r"\\boxed\{|[\s\S]"
PAD, EOS = 0, 1
RIGHT_SO_FAR, WRONG_SO_FAR = ".", "x"
TERMS = range(3, 11)  # how many: chains of all lengths, for a wide spread of difficulty
LARGEST_TERM, LARGEST_TOTAL = 9, 30
HARD = range(7, 10)  # steps with these terms are wrong with probability WRONG_HARD, others with WRONG_EASY
WRONG_HARD, WRONG_EASY = 0.6, 0.05
# how often not a token is the target, but the mark of a teacher who stops there
MARKED = {"behind lines": 0.5, "anywhere": 0.3, "nowhere": 0.0}
N_TRAIN, N_TEST = 2000, 200
BATCH, POOL = 64, 8  # a pool of batches is drawn at once and sorted by length: less padding
# model: shape, and its courses; a course: highest learning rate, how many steps with marks where
MODELS = {
    "critic": (
        dict(hidden=64, layers=4, intermediate=128),
        [(3e-3, [(3000, "behind lines")]), (1e-3, [(600, "anywhere")])],
    ),
    "actor": (
        dict(hidden=128, layers=4, intermediate=256),
        [(2e-3, [(1400, "behind lines"), (400, "nowhere")])],
    ),
}


# -- problems and demonstrations -----------------------------------------------------------------------------


def make_problem(rng: random.Random) -> list[int]:
    """Signed terms, e.g. [7, 5, -3]; every running total lies in 0…LARGEST_TOTAL."""
    while True:
        terms = [
            rng.randint(1, LARGEST_TERM) * (1 if i == 0 else rng.choice((1, -1)))
            for i in range(rng.choice(TERMS))
        ]
        if stays_in_range(0, terms):
            return terms


def stays_in_range(total: int, terms: list[int]) -> bool:
    for term in terms:
        total += term
        if not 0 <= total <= LARGEST_TOTAL:
            return False
    return True


def problem_text(terms: list[int]) -> str:
    return str(terms[0]) + "".join(f"{t:+d}" for t in terms[1:])


def wrong_probability(term: int) -> float:
    return WRONG_HARD if abs(term) in HARD else WRONG_EASY


def write_steps(terms: list[int], rng: random.Random, errs: float = 1.0) -> list[int]:
    """The totals that someone who errs would write, `errs` times as often as in the homework; a wrong one is
    off by 1…9, and what follows goes on from it."""
    total, totals = terms[0], []
    for i, term in enumerate(terms[1:], start=1):
        total += term
        if rng.random() < errs * wrong_probability(term):
            # a few chains use the whole range: where no other number can be gone on from, the step is right
            offsets = [o for o in range(-9, 10) if o and stays_in_range(total + o, [0, *terms[i + 1 :]])]
            total += rng.choice(offsets) if offsets else 0
        totals.append(total)
    return totals


def solution(terms: list[int], totals: list[int]) -> str:
    """The solution with these totals as text."""
    steps = zip([terms[0], *totals], terms[1:], totals)
    lines = "".join(f"{before}{term:+d}={total}\n" for before, term, total in steps)
    return lines + f"\\boxed{{{totals[-1]}}}"


def right_solution(terms: list[int]) -> str:
    return solution(terms, [sum(terms[: i + 1]) for i in range(1, len(terms))])


# -- what can be known of the returns ------------------------------------------------------------------------


def explained_share(known: list[tuple[Hashable, float]], new: list[tuple[Hashable, float]]) -> float:
    """The share of new returns' variance that is explained by whoever knows their keys, and what the mean
    return of each key was so far (of all keys, for one not met yet). New ones, since on the old ones many
    keys explain noise."""
    sums: dict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for key, value in known:
        sums[key][0] += 1
        sums[key][1] += value
    mean_known = sum(value for _, value in known) / len(known)
    mean_new = sum(value for _, value in new) / len(new)
    worth = defaultdict(lambda: mean_known, {key: total / count for key, (count, total) in sums.items()})
    left = sum((value - worth[key]) ** 2 for key, value in new)
    return 1 - left / sum((value - mean_new) ** 2 for _, value in new)


def steps_of_each_kind(terms: list[int]) -> tuple[int, int]:
    """How many of these steps are hard and how many easy: all that there is to know of their difficulty."""
    hard = sum(abs(term) in HARD for term in terms)
    return hard, len(terms) - hard


def known_at(terms: list[int], written: str, right: str) -> dict[str, Hashable]:
    """What three readers know of the state behind a prompt and the solution written so far.

    prompt: how many steps of each kind there are. signs: also of how many the results do not stand there yet,
    which can be read off the text without doing a sum. everything: also whether all that is written is right.
    """
    done = len(re.findall(r"=\d", written))
    prompt, to_come = steps_of_each_kind(terms[1:]), steps_of_each_kind(terms[1 + done :])
    return {
        "prompt": prompt,
        "signs": (prompt, to_come),
        "everything": (prompt, to_come, right.startswith(written)),
    }


def returns_known(n: int, errs: float, seed: int) -> dict[str, float]:
    """What share of the returns' variance, over all tokens of n demonstrations, the prompt explains, signs in
    the text, and everything; and the mean return itself. By simulation: no model is asked.

    The final 0/1 reward is the return of every token, and its state is what stands before it, as in training.
    """
    rng = random.Random(seed)
    halves: list[dict[str, list[tuple[Hashable, float]]]] = [defaultdict(list), defaultdict(list)]
    for i in range(n):
        terms = make_problem(rng)
        totals = write_steps(terms, rng, errs)
        text, right = solution(terms, totals), right_solution(terms)
        starts = [token.start() for token in re.finditer(TOKEN, text)]
        for start in [*starts, len(text)]:  # EOS comes last
            for name, key in known_at(terms, text[:start], right).items():
                halves[i % 2][name].append((key, float(totals[-1] == sum(terms))))
    known, new = halves
    returns = [value for _, value in new["prompt"]]
    shares = {name: explained_share(known[name], new[name]) for name in known}
    return {"mean return": sum(returns) / len(returns)} | shares


# -- models and their pretraining ----------------------------------------------------------------------------


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, and one for `\\boxed{`. The chat template is the first line: no model here knows
    English."""
    places = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(places, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|eos|>", unk_token="<|unk|>",
        chat_template="{{ messages[-1]['content'].split('\\n')[0] + '\\n' }}",
    )


def make_model(hidden: int, layers: int, intermediate: int, seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(VOCABULARY), hidden_size=hidden, intermediate_size=intermediate,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        max_position_embeddings=256, rope_theta=10000.0, tie_word_embeddings=True,
        pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def homework(held_out: set[str], rng: random.Random) -> tuple[list[int], str, str]:
    """-> terms of a problem that is not held out, the prompt, a solution with errors."""
    while True:
        terms = make_problem(rng)
        if problem_text(terms) not in held_out:
            return terms, problem_text(terms) + "\n", solution(terms, write_steps(terms, rng))


def marks(terms: list[int], text: str, anywhere: bool = False) -> dict[int, str]:
    """The teacher's mark in place of each newline of a solution, by the index of that token; or in place of
    each token, where a teacher who stops within a line judges what stands there so far."""
    right, found = right_solution(terms), {}
    for t, token in enumerate(re.finditer(TOKEN, text)):
        if anywhere or token.group() == "\n":
            read = text[: token.end() if token.group() == "\n" else token.start()]
            found[t] = RIGHT_SO_FAR if right.startswith(read) else WRONG_SO_FAR
    return found


def batches_of_homework(tokenizer, held_out: set[str], where: str, rng: random.Random):
    """Yields, endlessly, tokens [B, S] and targets [B, S], the next tokens; -100 before the solution and on
    padding.

    With probability MARKED[where] a token is no target, but the mark in its place is. The tokens go on
    without it: homework that stops at a mark shares its beginning, and its pass, with homework that goes on.
    """
    while True:
        rows = []
        for _ in range(BATCH * POOL):
            terms, prompt, text = homework(held_out, rng)
            tokens = tokenizer.encode(prompt + text) + [EOS]
            targets = [-100] * (len(prompt) - 1) + tokens[len(prompt) :]
            for t, mark in marks(terms, text, where == "anywhere").items():
                if rng.random() < MARKED[where]:
                    targets[len(prompt) - 1 + t] = tokenizer.convert_tokens_to_ids(mark)
            rows.append((tokens[:-1], targets))
        rows.sort(key=lambda row: len(row[0]))
        batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        rng.shuffle(batches)
        for batch in batches:
            tokens_BS = torch.full((BATCH, max(len(tokens) for tokens, _ in batch)), PAD)
            targets_BS = torch.full_like(tokens_BS, -100)
            for b, (tokens, targets) in enumerate(batch):
                tokens_BS[b, : len(tokens)] = torch.tensor(tokens)
                targets_BS[b, : len(tokens)] = torch.tensor(targets)
            yield tokens_BS, targets_BS


@torch.no_grad()
def accuracy(model, tokenizer, problems: list[dict], do_sample: bool) -> float:
    model.eval()
    tokenizer.padding_side = "left"
    prompts = tokenizer([p["problem"] + "\n" for p in problems], return_tensors="pt", padding=True)
    settings = GenerationConfig(
        do_sample=do_sample, top_k=0 if do_sample else None, max_new_tokens=100,
        pad_token_id=PAD, eos_token_id=EOS,
    )
    out = model.generate(
        prompts["input_ids"], attention_mask=prompts["attention_mask"], generation_config=settings
    )
    model.train()
    texts = tokenizer.batch_decode(out[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(t.endswith(f"\\boxed{{{p['answer']}}}") for t, p in zip(texts, problems)) / len(problems)


@torch.no_grad()
def verdicts(model, tokenizer, n: int, seed: int) -> dict[str, float]:
    """How well the model knows what is wrong: the probability that the mark behind a line, if there is one,
    is an x.

    Means over lines of n solutions up to which all is right, at the first wrong one, and after it; and the
    probability of any mark."""
    rng = random.Random(seed)
    found: dict[str, list[float]] = defaultdict(list)
    dot, cross = tokenizer.convert_tokens_to_ids([RIGHT_SO_FAR, WRONG_SO_FAR])
    for _ in range(n):
        terms, prompt, text = homework(set(), rng)
        p_SV = model(torch.tensor([tokenizer.encode(prompt + text)])).logits[0].softmax(-1)
        wrong_before = False
        for t, mark in marks(terms, text).items():
            p_V = p_SV[len(prompt) + t - 1]
            where = "x later" if wrong_before else "x at the first error"
            where = "x where right" if mark == RIGHT_SO_FAR else where
            found[where].append((p_V[cross] / (p_V[cross] + p_V[dot])).item())
            found["any mark"].append((p_V[cross] + p_V[dot]).item())
            wrong_before = mark == WRONG_SO_FAR
    return {where: sum(p) / len(p) for where, p in found.items()}


def pretrain(model, tokenizer, test: list[dict], lr: float, parts: list[tuple[int, str]], seed: int) -> None:
    """One course, part after part: so many steps on homework with marks there."""
    held_out = {p["problem"] for p in test}
    rng = random.Random(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    steps, start = sum(n for n, _ in parts), time.time()
    endless = ((n, batches_of_homework(tokenizer, held_out, where, rng)) for n, where in parts)
    batches = (batch for n, part in endless for batch in islice(part, n))
    for step, (tokens_BS, targets_BS) in enumerate(batches, start=1):
        # warm-up, then cosine to a tenth
        scale = min(1.0, step / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        logits_BSV = model(tokens_BS).logits
        loss = F.cross_entropy(logits_BSV.flatten(0, 1), targets_BS.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 400 == 0 or step == steps:
            greedy, sampled = (accuracy(model, tokenizer, test, do_sample) for do_sample in (False, True))
            verdict = verdicts(model, tokenizer, 100, seed)
            known = "  ".join(f"{where} {p:.4f}" for where, p in verdict.items())
            scores = f"loss {loss.item():.4f}  greedy {greedy:.3f}  sampled {sampled:.3f}  {known}"
            print(f"step {step}/{steps}  {scores}  {time.time() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of problems, homework and initial weights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the pretraining steps to take")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="which of the two to make")
    parser.add_argument("--shares", action="store_true", help="only print what can be known of the returns")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.shares:
        for errs in (1.0, 0.5, 0.2, 0.1):
            shares = returns_known(8000, errs, args.seed)
            print(f"errors × {errs}:  " + "  ".join(f"{name} {share:.3f}" for name, share in shares.items()))
        return

    rng = random.Random(args.seed)
    chains = {}
    while len(chains) < N_TRAIN + N_TEST:
        terms = make_problem(rng)
        chains[problem_text(terms)] = str(sum(terms))
    problems = [{"problem": problem, "answer": answer} for problem, answer in chains.items()]
    train, test = problems[:N_TRAIN], problems[N_TRAIN:]
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        (args.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    tokenizer = make_tokenizer()
    for name in args.models:
        shape, courses = MODELS[name]
        model = make_model(**shape, seed=args.seed)
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
        for i, (lr, parts) in enumerate(courses, start=1):
            parts = [(int(n * args.scale), where) for n, where in parts]
            pretrain(model, tokenizer, test, lr, parts, seed=args.seed + i)
        model.generation_config = GenerationConfig(pad_token_id=PAD, eos_token_id=EOS)
        model.save_pretrained(args.out / name)
        make_tokenizer().save_pretrained(args.out / name)


if __name__ == "__main__":
    main()
