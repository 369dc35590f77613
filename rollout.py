"""Problems → prompts → rewards, as one `Rollout`. Prompts become responses in generation.py.

Legend for shape suffixes: B responses, S prompt + response tokens, T response tokens; prompts stand P a step
in groups of G responses, B = P · G, responses of one group are neighbours.
"""

import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from distributed import World, gather_list, own_slice, reading, refuse, stream_seed
from verifier import extract_answer, last_boxed

INSTRUCTION = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."


# -- problems ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Problem:
    problem: str
    answer: str


def load_problems(source: str, n: int | None, seed: int, split: str = "train",
                  flag: str = "--data") -> list[Problem]:
    """Problems from a local .jsonl or .parquet file, or from the hub as ID, ID:CONFIG or ID:CONFIG:SPLIT.

    n: take this many, drawn by seed; None takes all, in file order. Columns: see `read_problem`.
    """
    refuse(source.endswith((".jsonl", ".parquet")) and not Path(source).is_file(),
           f"{flag} {source}: there is no such file; give a .jsonl or .parquet file, or a hub data set id.")
    if source.endswith(".jsonl"):
        rows = read_jsonl(source, flag)
    else:
        table = read_parquet(source, flag) if source.endswith(".parquet") else read_hub(source, split, flag)
        rows = ((f"row {i}", row) for i, row in enumerate(table, start=1))
    problems = [read_problem(row, f"{flag} {source}, {where}") for where, row in rows]
    refuse(not problems, f"{flag} {source}: it holds no problem.")
    if n is None:
        return problems
    refuse(n > len(problems),
           f"{flag} {source}: it holds {len(problems)} problems, fewer than the {n} asked for.")
    return random.Random(stream_seed(seed, "problems")).sample(problems, n)


def read_jsonl(path: str, flag: str) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if line.strip():
            with reading(f"{flag} {path}, line {number}: not a JSON object on one line", RecursionError):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"but a {type(row).__name__}")
            yield f"line {number}", row


def read_parquet(path: str, flag: str) -> Iterator[dict]:
    import pyarrow.parquet  # comes with datasets

    with reading(f"{flag} {path}: not a readable parquet file"):
        for part in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
            yield from (exact(row, part.schema) for row in part.to_pylist())


def exact(x, kind):
    """A value of this arrow type. A float32 stays one, which is written 0.1 and not 0.10000000149011612."""
    if isinstance(x, dict):
        return {field.name: exact(x[field.name], field.type) for field in kind}
    if isinstance(x, list):
        return [exact(y, kind.field(0).type) for y in x]
    narrow = {"float": np.float32, "halffloat": np.float16}
    return narrow.get(str(kind), float)(x) if isinstance(x, float) else x


def read_hub(source: str, split: str, flag: str) -> Iterator[dict]:
    import datasets

    name, config, named_split = (source.split(":") + ["", ""])[:3]
    # the library raises dozens of types for a wrong name and for a hub out of reach
    with reading(f"{flag} {source}: the data set could not be loaded from the hub; give a local .jsonl or "
                 ".parquet file where the hub is out of reach", Exception):
        found = datasets.load_dataset(name, config or None, split=named_split or split)
        for part in found.with_format("arrow").iter(1000):  # and not a list: solutions are long
            yield from (exact(row, part.schema) for row in part.to_pylist())


def read_problem(row: dict, where: str) -> Problem:
    """The problem is in problem, question or prompt (text or chat messages); the answer in answer (GSM8K's
    after ####), final_answer (a list is joined), reward_model.ground_truth, or the last box of solution."""
    problem = next((row[k] for k in ("problem", "question", "prompt") if row.get(k)), None)
    if isinstance(problem, list):
        turns = [m for m in problem if isinstance(m, dict) and m.get("role") == "user"]
        problem = turns[-1].get("content") if turns else None
    ground = row["reward_model"].get("ground_truth") if isinstance(row.get("reward_model"), dict) else None
    given = (row.get("answer"), row.get("final_answer"), ground)
    answer = next(filter(None, (answer_text(x, where) for x in given)), "")
    if not answer and isinstance(row.get("solution"), str):
        answer = answer_text(last_boxed(row["solution"]), where)
    columns = f"columns are {', '.join(row)}."
    refuse(not isinstance(problem, str) or not problem.strip(),
           f"{where}: no text in problem, question or prompt; {columns}")
    refuse(not answer, f"{where}: no answer in answer, final_answer or solution's box; {columns}")
    return Problem(clean(problem, where), clean(answer, where))


def clean(text: str, where: str) -> str:
    """Without byte order marks. Refused is one half of a surrogate pair, which no tokenizer can encode."""
    refuse(re.search("[\ud800-\udfff]", text), f"{where}: it holds a lone surrogate, which is no character.")
    return text.replace("\ufeff", "")


def answer_text(x, where: str) -> str:
    """Text, an integer, a finite float or a list of these, as text; "" for what is missing."""
    parts = [] if x is None else x if isinstance(x, list) else [x]
    for part in parts:
        number = isinstance(part, (int, float, np.integer, np.floating)) and not isinstance(part, bool)
        refuse(not isinstance(part, str) and not (number and abs(part) < math.inf),
               f"{where}: an answer is text, an integer, a finite float, or a list of these, not "
               f"{part if number else type(part).__name__}.")
    text = ", ".join(map(str, parts)).rsplit("####", 1)[-1].strip().strip("$").strip()
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text


def problems_of_step(problems: list[Problem], step: int, n: int, seed: int) -> list[Problem]:
    """The n problems of a step (counted from 1): every epoch has all problems once, in its own order."""
    chosen, orders = [], {}
    for i in range((step - 1) * n, step * n):
        epoch, place = divmod(i, len(problems))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng(stream_seed(seed, "data", epoch)).permutation(len(problems))
        chosen.append(problems[orders[epoch][place]])
    return chosen


# -- prompts -------------------------------------------------------------------------------------------------
def read_template(template: str | None, tokenizer, name: str) -> str | None:
    """--template as text with {problem} in it: given as such, or as a file. None: the chat template."""
    if template is None:
        refuse(not tokenizer.chat_template, f"{name} has no chat template; give --template FILE or TEXT "
               "with {problem} where the problem goes.")
    elif "{problem}" not in template:
        with reading(f"--template {template[:255]!r}: neither a text with {{problem}} in it nor a text file"):
            template = Path(template).read_text(encoding="utf-8")
        refuse("{problem}" not in template,
               "--template: the file does not say {problem} where the problem goes.")
    return template and clean(template, "--template")


def prompt_tokens(problem: str, template: str | None, tokenizer) -> list[int]:
    if template is None:
        messages = [{"role": "user", "content": problem + INSTRUCTION}]
        text = chat(messages, tokenizer, add_generation_prompt=True)
        return tokenizer.encode(text, add_special_tokens=False)
    text = template.replace("{problem}", problem)
    bare, whole = tokenizer.encode(text, add_special_tokens=False), tokenizer.encode(text)
    # what the tokenizer puts in front stays, unless the template has it already (vllm#7491); what it puts
    # behind, such as EOS, would end the prompt (trlx#253)
    front = whole[: next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)]
    return bare if bare[: len(front)] == front else front + bare


def chat(messages: list[dict], tokenizer, **how) -> str:
    """The text that the chat template makes of messages; templates are programs, and raise what they like."""
    with reading(f"{tokenizer.name_or_path}: its chat template fails; mend it, or give --template FILE or "
                 "TEXT with {problem} in it", Exception):
        return tokenizer.apply_chat_template(messages, tokenize=False, **how)


# -- one step's batch ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Response:
    prompt: list[int]
    tokens: list[int]  # with the token that ended it
    truncated: bool  # it was still going on at max_new_tokens


@dataclass
class Rollout:
    """All responses of a step, the same on every rank, on the CPU. Column t of a [B, T] array belongs to
    token t of the response, counted from 0, and to the state before it."""

    tokens_BS: torch.Tensor  # prompt, response, padding, without gaps
    prompt_len_B: torch.Tensor
    response_len_B: torch.Tensor
    truncated_B: torch.Tensor  # bool
    group_B: torch.Tensor  # index of the prompt within the step
    rewards_B: torch.Tensor  # 0.0 or 1.0
    mask_BT: torch.Tensor  # bool: a response token, the ending one included, stands here
    golds: list[str]
    answers: list[str | None]  # as extracted from the responses
    old_logp_BT: torch.Tensor | None = None  # of the policy that drew them, at the sampling temperature
    old_entropy_BT: torch.Tensor | None = None
    old_slope_BT: torch.Tensor | None = None  # length of ∂ log π(o_t | s_t)/∂z
    values_MBT: torch.Tensor | None = None  # of every critic
    shards_MB: torch.Tensor | None = None  # bool: which responses each critic is fitted on

    def __len__(self) -> int:
        return len(self.response_len_B)

    @property
    def lengths(self) -> list[int]:
        return (self.prompt_len_B + self.response_len_B).tolist()

    def inputs(self, rows: list[int], device: torch.device) -> tuple[torch.Tensor, ...]:
        """tokens, prompt and response lengths of these responses, cut to the longest of them."""
        width = int((self.prompt_len_B + self.response_len_B)[rows].max())
        parts = (self.tokens_BS[rows, :width], self.prompt_len_B[rows], self.response_len_B[rows])
        return tuple(x.to(device) for x in parts)

    def pick(self, x_BT: torch.Tensor, rows: list[int], device: torch.device) -> torch.Tensor:
        """Entries of a [B, T] array at these rows' response tokens, [N] as the models return them."""
        return x_BT[rows][self.mask_BT[rows]].to(device)


def make_rollout(responses: list[Response], golds: list[str], answers: list[str | None],
                 rewards: list[float], group_size: int) -> Rollout:
    prompt_len_B = torch.tensor([len(r.prompt) for r in responses])
    response_len_B = torch.tensor([len(r.tokens) for r in responses])
    tokens_BS = pad_sequence([torch.tensor(r.prompt + r.tokens) for r in responses], batch_first=True)
    return Rollout(tokens_BS=tokens_BS, prompt_len_B=prompt_len_B, response_len_B=response_len_B,
                   truncated_B=torch.tensor([r.truncated for r in responses]), golds=golds, answers=answers,
                   group_B=torch.arange(len(responses)) // group_size,
                   rewards_B=torch.tensor(rewards, dtype=torch.float32),
                   mask_BT=torch.arange(int(response_len_B.max())) < response_len_B[:, None])


def verify(responses: list[Response], golds: list[str], how: str, reward: Callable, tokenizer,
           world: World) -> tuple[list[str | None], list[float]]:
    """-> extracted answers and rewards of all responses; each rank verifies its part of them.

    reward(texts, golds) -> rewards, 1.0 right, 0.0 wrong, for each response; how: see extract_answer.
    """
    part = own_slice(len(responses), world)
    texts = [tokenizer.decode(r.tokens, skip_special_tokens=True) for r in responses[part]]
    answers = gather_list([extract_answer(text, how) for text in texts], world)
    return answers, gather_list(reward(texts, golds[part]), world)
