"""Make everything in this folder from a seed: problems, tokenizer, a tiny actor and a tinier mini-critic.

    python tiny/make_tiny.py                # about half an hour on one core; overwrites actor/, critic/ and *.jsonl

The task is a chain of additions and subtractions, solved one step a line:

    7+5-3            ->  7+5=12
                         12-3=9
                         \\boxed{9}

Both models first learn to solve it from right demonstrations (the arithmetic), then from demonstrations in which steps
are wrong at random (the noise). A share GUESSED of the steps is guessed, written with ~ in place of =, and wrong with
probability WRONG_GUESS; the others are worked out and wrong with WRONG_STEP. The following lines go on from the wrong
number. The result knows how to add but samples many wrong steps: its greedy answers are right, its sampled ones mostly
not. That is what reinforcement learning has to mend, and since only the final box is rewarded, the credit must travel
back to the line that went wrong. A base that has not learned its arithmetic gives RL nothing to sharpen.

Guesses are there for the critics: a mini-critic of this size learns from some thousand rewards that a ~ bodes ill, but not
to check a sum; where all wrong steps looked like right ones, critics explained nothing (LOG.md).
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).parent
VOCABULARY = ["<|pad|>", "<|eos|>", "<|unk|>", *"0123456789", "+", "-", "=", "~", "\n", "\\boxed{", "}"]
PAD, EOS = 0, 1
LARGEST_TERM, LARGEST_TOTAL = 20, 99
TERMS = (3, 4, 5)
GUESSED, WRONG_GUESS, WRONG_STEP = 0.35, 0.75, 0.12
N_TRAIN, N_TEST = 2000, 200
BATCH = 128


def make_problem(rng: random.Random) -> list[int]:
    """Signed terms, e.g. [7, 5, -3]; every running total lies in 0…LARGEST_TOTAL."""
    while True:
        terms = [rng.randint(1, LARGEST_TERM) * (1 if i == 0 else rng.choice((1, -1))) for i in range(rng.choice(TERMS))]
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


def demonstration(terms: list[int], noisy: bool, rng: random.Random) -> str:
    """The worked solution; where noisy, steps are guessed, results are off by 1…10, and what follows goes on from them."""
    total, lines = terms[0], []
    for i, term in enumerate(terms[1:], start=1):
        guessed = noisy and rng.random() < GUESSED
        result = total + term
        if noisy and rng.random() < (WRONG_GUESS if guessed else WRONG_STEP):
            offsets = [o for o in range(-10, 11) if o and 0 <= result + o and stays_in_range(result + o, terms[i + 1 :])]
            result += rng.choice(offsets) if offsets else 0
        lines.append(f"{total}{term:+d}{'~' if guessed else '='}{result}\n")
        total = result
    return "".join(lines) + f"\\boxed{{{total}}}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, and one for `\\boxed{`. The chat template is the first line: the models know no English."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\\boxed\{|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|eos|>", unk_token="<|unk|>",
        chat_template="{{ messages[-1]['content'].split('\\n')[0] + '\\n' }}",
    )  # fmt: skip


def make_model(hidden: int, layers: int, intermediate: int, seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(VOCABULARY), hidden_size=hidden, num_hidden_layers=layers, intermediate_size=intermediate,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=256,
        tie_word_embeddings=True, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None, rope_theta=10000.0,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def batch_of_demonstrations(tokenizer, held_out: set[str], noisy: bool, size: int, rng: random.Random):
    """-> tokens [B, S] right-padded, targets [B, S] with -100 on the prompt and on padding."""
    rows = []
    while len(rows) < size:
        terms = make_problem(rng)
        if (text := problem_text(terms)) not in held_out:
            prompt = tokenizer.encode(text + "\n")
            rows.append((len(prompt), prompt + tokenizer.encode(demonstration(terms, noisy, rng)) + [EOS]))
    width = max(len(tokens) for _, tokens in rows)
    tokens_BS = torch.full((size, width), PAD)
    targets_BS = torch.full((size, width), -100)
    for b, (prompt_len, tokens) in enumerate(rows):
        tokens_BS[b, : len(tokens)] = torch.tensor(tokens)
        targets_BS[b, prompt_len : len(tokens)] = tokens_BS[b, prompt_len : len(tokens)]
    return tokens_BS, targets_BS


@torch.no_grad()
def accuracy(model, tokenizer, problems: list[dict], do_sample: bool) -> float:
    model.eval()
    tokenizer.padding_side = "left"
    batch = tokenizer([p["problem"] + "\n" for p in problems], return_tensors="pt", padding=True)
    out = model.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"],
        generation_config=GenerationConfig(
            do_sample=do_sample, top_k=0, max_new_tokens=64, pad_token_id=PAD, eos_token_id=EOS
        ),
    )  # fmt: skip
    model.train()
    texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(t.endswith(f"\\boxed{{{p['answer']}}}") for t, p in zip(texts, problems)) / len(problems)


def pretrain(model, tokenizer, test: list[dict], clean_steps: int, noisy_steps: int, lr: float, seed: int) -> None:
    held_out = {p["problem"] for p in test}
    rng = random.Random(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    steps, start = clean_steps + noisy_steps, time.time()
    for step in range(1, steps + 1):
        # warm-up, then cosine to a tenth
        scale = min(1.0, step / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        noisy = step > clean_steps
        tokens_BS, targets_BS = batch_of_demonstrations(tokenizer, held_out, noisy, BATCH, rng)
        logits_BSV = model(tokens_BS).logits
        loss = F.cross_entropy(logits_BSV[:, :-1].flatten(0, 1), targets_BS[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0 or step == steps:
            greedy, sampled = (accuracy(model, tokenizer, test, do_sample) for do_sample in (False, True))
            print(
                f"step {step}/{steps}  noisy {noisy}  loss {loss.item():.4f}  greedy {greedy:.3f}"
                f"  sampled {sampled:.3f}  {time.time() - start:.0f} s", flush=True,
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of problems, demonstrations and initial weights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the pretraining steps to take (for a trial)")
    parser.add_argument("--models", nargs="+", default=["critic", "actor"], help="which of the two to make")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

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
    for name, shape, clean_steps, noisy_steps, lr in (
        ("critic", dict(hidden=64, layers=3, intermediate=112), 1500, 700, 3e-3),
        ("actor", dict(hidden=128, layers=4, intermediate=256), 1500, 700, 2e-3),
    ):
        if name not in args.models:
            continue
        model = make_model(**shape, seed=args.seed)
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
        steps = int(clean_steps * args.scale), int(noisy_steps * args.scale)
        pretrain(model, tokenizer, test, *steps, lr, seed=args.seed + 1)
        model.generation_config = GenerationConfig(pad_token_id=PAD, eos_token_id=EOS)
        model.save_pretrained(args.out / name)
        make_tokenizer().save_pretrained(args.out / name)


if __name__ == "__main__":
    main()
