"""Step 1 of the method: problems → prompts → responses → rewards, as one `Rollout`.

A step has P prompts with a group of G responses each; the responses of one group are neighbours.
"""

import hashlib
import json
import math
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import numpy as np

from engine.batch import Response, Rollout, make_rollout
from engine.data import read_rows
from engine.distributed import World, gather_list, own_slice
from engine.errors import require, user_error
from engine.generation import SamplingConfig, generate_responses
from engine.metrics import Timer
from engine.models import Actor
from engine.streams import stream_seed
from engine.updates import score_responses
from verifier import Verifier, extract_answer, last_boxed

INSTRUCTION = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class Problem:
    problem: str
    answer: str
    prompt: tuple[int, ...] = ()  # token ids, set by `tokenize`


@dataclass(frozen=True)
class RolloutConfig:
    """How problems become responses with rewards."""

    group_size: int  # responses to each prompt
    sampling: SamplingConfig
    extract: str  # boxed or last_number: where a response's answer stands
    reward: Callable  # (texts, golds) -> 1.0 for each right text, else 0.0; replace it to use another reward
    token_budget: int  # tokens of a micro-batch when responses are scored


def sample_rollout(actor: Actor, tokenizer, problems: list[Problem], config: RolloutConfig, seed: int,
                   timer: Timer, world: World, with_slope: bool = False) -> Rollout:
    """Step 1: draw responses to each problem, verify them, score them (with_slope: slopes too). Collective."""
    prompts = [list(p.prompt) for p in problems for _ in range(config.group_size)]
    golds = [p.answer for p in problems for _ in range(config.group_size)]
    with timer.phase("generate"):
        responses = generate_responses(actor, tokenizer, prompts, config.sampling, world, seed, "generate")
    with timer.phase("verify"):
        answers, rewards = verify(responses, golds, config.extract, config.reward, tokenizer, world)
    rollout = make_rollout(responses, golds, answers, rewards, config.group_size)
    with timer.phase("score"):
        scores = score_responses(actor, rollout, config.token_budget, world, with_slope=with_slope)
    (rollout.old_logp_BT, rollout.old_entropy_BT), rollout.old_slope_BT = scores[:2], scores[2] if with_slope else None
    return rollout


def verify(responses: list[Response], golds: list[str], extract: str, reward: Callable, tokenizer,
           world: World) -> tuple[list[str | None], list[float]]:
    """-> extracted answers and rewards of all responses; ranks share the work. Collective."""
    part = own_slice(len(responses), world)
    texts = [tokenizer.decode(r.tokens, skip_special_tokens=True) for r in responses[part]]
    answers = gather_list([extract_answer(text, extract) for text in texts], world)
    return answers, gather_list(reward(texts, golds[part]), world)


def print_unparsable(name: str, problems: list[Problem], verifier: Verifier) -> None:
    """Print how many gold answers the verifier cannot parse."""
    golds = [problems[i].answer for i in verifier.unparsable([p.answer for p in problems])]
    if golds:
        print(f"{name}: only the same text can match {len(golds)} of {len(problems)} golds, such as {golds[:3]}.")


def rollout_samples(rollout: Rollout, tokenizer, step: int, n: int = 4) -> list[dict]:
    """Return a few decoded responses with special tokens, spread over the batch, for the log."""
    samples = []
    for row in list(range(0, len(rollout), max(1, len(rollout) // n)))[:n]:
        prompt_len, length = int(rollout.prompt_len_B[row]), int(rollout.response_len_B[row])
        tokens = rollout.tokens_BS[row].tolist()
        samples.append(dict(
            step=step, prompt=tokenizer.decode(tokens[:prompt_len]),
            response=tokenizer.decode(tokens[prompt_len : prompt_len + length]), answer=rollout.answers[row],
            gold=rollout.golds[row], reward=rollout.rewards_B[row].item(), length=length,
            truncated=bool(rollout.truncated_B[row])))
    return samples


# -- problems ------------------------------------------------------------------------------------------------
def load_problems(source: str, n: int | None, seed: int, split: str = "train", flag: str = "--data") -> list[Problem]:
    """Load problems from a local .jsonl or .parquet file, or from the hub as ID, ID:CONFIG or ID:CONFIG:SPLIT.

    n: take this many, drawn by seed; None takes all, in file order. Columns: see `read_problem`.
    """
    problems = [read_problem(row, f"{flag} {source}, {where}") for where, row in read_rows(source, split, flag)]
    require(problems, f"{flag} {source}: it holds no problem.")
    if n is None:
        return problems
    require(n <= len(problems), f"{flag} {source}: it holds {len(problems)} problems, fewer than the {n} asked for.")
    return random.Random(stream_seed(seed, "problems")).sample(problems, n)


def read_problem(row: dict, where: str) -> Problem:
    """Read a row. The problem is in problem, question or prompt (text or chat messages). The answer is in answer
    (GSM8K's after ####), final_answer (a list is joined), reward_model.ground_truth, or solution's last box."""
    problem = next((row[k] for k in ("problem", "question", "prompt") if row.get(k)), None)
    if isinstance(problem, list):
        turns = [m for m in problem if isinstance(m, dict) and m.get("role") == "user"]
        problem = turns[-1].get("content") if turns else None
    truth = row["reward_model"].get("ground_truth") if isinstance(row.get("reward_model"), dict) else None
    given = (row.get("answer"), row.get("final_answer"), truth)
    answer = next(filter(None, (answer_text(x, where) for x in given)), "")
    if not answer and isinstance(row.get("solution"), str):
        answer = answer_text(last_boxed(row["solution"]), where)
    columns = f"columns are {', '.join(row)}."
    require(isinstance(problem, str) and problem.strip(), f"{where}: no text in problem, question or prompt; {columns}")
    require(answer, f"{where}: no answer in answer, final_answer or solution's box; {columns}")
    return Problem(clean(problem, where), clean(answer, where))


def clean(text: str, where: str) -> str:
    """Remove byte order marks. Raise for half of a surrogate pair, which no tokenizer can encode."""
    require(not re.search("[\ud800-\udfff]", text), f"{where}: it holds a lone surrogate, which is no character.")
    return text.replace("\ufeff", "")


def answer_text(x, where: str) -> str:
    """Return text, an integer, a finite float or a list of these as text; "" for a missing answer."""
    parts = [] if x is None else x if isinstance(x, list) else [x]
    for part in parts:
        number = isinstance(part, (int, float, np.integer, np.floating)) and not isinstance(part, bool)
        require(isinstance(part, str) or (number and abs(part) < math.inf),
                f"{where}: an answer is text, an integer, a finite float, or a list of these, not "
                f"{part if number else type(part).__name__}.")
    text = ", ".join(map(str, parts)).rsplit("####", 1)[-1].strip().strip("$").strip()
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text


def digests(problems: list[Problem]) -> tuple[str, str]:
    """Return a hash of the problems with their answers, and a hash of the prompts' tokens."""
    parts = ([[p.problem, p.answer] for p in problems], [p.prompt for p in problems])
    return tuple(hashlib.sha256(json.dumps(part).encode()).hexdigest() for part in parts)


def problems_of_step(problems: list[Problem], step: int, n: int, seed: int) -> list[Problem]:
    """Return the n problems of a step (from 1). An epoch has every problem once, in an order of its own."""
    chosen, orders = [], {}
    for i in range((step - 1) * n, step * n):
        epoch, place = divmod(i, len(problems))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng(stream_seed(seed, "data", epoch)).permutation(len(problems))
        chosen.append(problems[orders[epoch][place]])
    return chosen


# -- prompts -------------------------------------------------------------------------------------------------
def read_template(template: str | None, tokenizer, name: str) -> str | None:
    """Return --template as text with {problem} in it, given as such or as a file; None: the chat template."""
    if template is None:
        require(tokenizer.chat_template, f"{name} has no chat template; give --template FILE or TEXT "
                "with {problem} where the problem goes.")
    elif "{problem}" not in template:
        with user_error(f"--template {template[:255]!r}: neither a text with {{problem}} in it nor a text file"):
            template = Path(template).read_text(encoding="utf-8")
        require("{problem}" in template, "--template: the file does not say {problem} where the problem goes.")
    return template and clean(template, "--template")


def tokenize(problems: list[Problem], template: str | None, tokenizer) -> list[Problem]:
    """Add the prompts' tokens, once for a run: a chat template may hold the date (vllm#14344)."""
    return [replace(p, prompt=tuple(prompt_tokens(p.problem, template, tokenizer))) for p in problems]


def prompt_tokens(problem: str, template: str | None, tokenizer) -> list[int]:
    """Return a problem's prompt as token ids."""
    if template is None:
        messages = [{"role": "user", "content": problem + INSTRUCTION}]
        text = chat(messages, tokenizer, add_generation_prompt=True)
        return tokenizer.encode(text, add_special_tokens=False)
    text = template.replace("{problem}", problem)
    bare, whole = tokenizer.encode(text, add_special_tokens=False), tokenizer.encode(text)
    # add BOS unless the template has it (vllm#7491); drop an appended EOS, which would end the prompt (trlx#253)
    front = whole[: next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)]
    return bare if bare[: len(front)] == front else front + bare


def chat(messages: list[dict], tokenizer, **kwargs) -> str:
    """Apply the chat template. Templates are programs and may raise anything."""
    with user_error(f"{tokenizer.name_or_path}: its chat template fails; mend it, or give --template FILE or "
                    "TEXT with {problem} in it", Exception):
        return tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)


def stop_token_ids(actor: Actor, tokenizer, template: str | None) -> set[int]:
    """Return every token that ends a response: base models name different ones in config, generation config and
    tokenizer (Qwen3#927), and the chat template ends turns with another."""
    ids: set[int] = set()
    for source in (actor.lm.config, actor.saved_generation_config, tokenizer):
        eos = source.eos_token_id
        ids.update([eos] if isinstance(eos, int) else eos or [])
    if template is None:
        turn = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "ANSWER"}]
        rest = chat(turn, tokenizer).rsplit("ANSWER", 1)[-1]
        after = tokenizer.encode(rest, add_special_tokens=False)
        special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
        if after and after[0] in special:
            ids.add(after[0])
    return ids
