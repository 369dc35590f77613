"""Problems → prompts → responses → rewards, as one `Rollout`.

Legend for shape suffixes: B responses, S prompt + response tokens, T response tokens; prompts stand P a step in groups
of G responses, B = P · G, responses of one group are neighbours.
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Cache, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from actor import Actor
from distributed import UserError, World, gather_list, own_slice, pack, progress, stream_seed, sum_over_ranks, whole_weights
from verifier import Verifier, extract_answer, last_boxed

INSTRUCTION = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."


# -- problems -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    problem: str
    answer: str


def load_problems(source: str, n: int | None, seed: int, split: str = "train", flag: str = "--data") -> list[Problem]:
    """Problems from a local .jsonl or .parquet file, or from the hub as ID, ID:CONFIG or ID:CONFIG:SPLIT.

    n: take this many, drawn by seed; None takes all, in file order. Columns: see `read_problem`.
    """
    if source.endswith((".jsonl", ".parquet")):
        if not Path(source).is_file():
            raise UserError(f"{flag} {source}: there is no such file; give a .jsonl or .parquet file, or a hub data set id.")
        rows = read_jsonl(source, flag) if source.endswith(".jsonl") else read_parquet(source, flag)
    else:
        rows = read_hub(source, split, flag)
    problems = [read_problem(row, where, flag) for where, row in rows]
    if not problems:
        raise UserError(f"{flag} {source}: it holds no problem.")
    if n is None:
        return problems
    if n > len(problems):
        raise UserError(f"{flag} {source}: it holds {len(problems)} problems, fewer than the {n} asked for.")
    return random.Random(stream_seed(seed, "problems")).sample(problems, n)


def read_jsonl(path: str, flag: str) -> list[tuple[str, dict]]:
    rows = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
            except ValueError as error:
                raise UserError(f"{flag} {path}, line {number}: not a JSON object on one line ({error}).") from error
            rows.append((f"{path}, line {number}", row))
    return rows


def read_parquet(path: str, flag: str) -> list[tuple[str, dict]]:
    import pyarrow.parquet  # comes with datasets

    try:
        table = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise UserError(f"{flag} {path}: not a readable parquet file ({error}).") from error
    return [(f"{path}, row {i}", row) for i, row in enumerate(table, start=1)]


def read_hub(source: str, split: str, flag: str) -> list[tuple[str, dict]]:
    import datasets

    name, config, named_split = (source.split(":") + ["", ""])[:3]
    try:
        table = datasets.load_dataset(name, config or None, split=named_split or split)
    except Exception as error:  # the library raises dozens of types for a wrong name and for a hub out of reach
        raise UserError(
            f"{flag} {source}: the data set could not be loaded from the hub ({str(error).strip().splitlines()[0]}); "
            "give a local .jsonl or .parquet file where the hub is out of reach."
        ) from error
    return [(f"{source}, row {i}", row) for i, row in enumerate(table, start=1)]


def read_problem(row: dict, where: str, flag: str) -> Problem:
    """The problem is in problem, question or prompt (text or chat messages); the answer in answer (GSM8K's after ####),
    final_answer (a list is joined), reward_model.ground_truth, or the last box of solution."""
    problem = next((row[k] for k in ("problem", "question", "prompt") if row.get(k)), None)
    if isinstance(problem, list):
        turns = [m for m in problem if isinstance(m, dict) and m.get("role") == "user"]
        problem = turns[-1].get("content") if turns else None
    answer = row.get("answer") if row.get("answer") is not None else row.get("final_answer")
    if answer is None and isinstance(row.get("reward_model"), dict):
        answer = row["reward_model"].get("ground_truth")
    if answer is None and row.get("solution"):
        answer = last_boxed(str(row["solution"]))
    if isinstance(answer, list):
        answer = ", ".join(str(a) for a in answer)
    answer = str(answer if answer is not None else "").rsplit("####", 1)[-1].strip().strip("$").strip()
    if re.fullmatch(r"-?\d+\.0", answer):
        answer = answer[:-2]
    if not isinstance(problem, str) or not problem.strip():
        raise UserError(f"{flag} {where}: no text in problem, question or prompt; columns are {', '.join(row)}.")
    if not answer:
        raise UserError(f"{flag} {where}: no answer in answer, final_answer or solution's box; columns are {', '.join(row)}.")
    return Problem(problem, answer)


def problems_of_step(problems: list[Problem], step: int, n: int, seed: int) -> list[Problem]:
    """The n problems of a step (counted from 1): every epoch goes through all problems once, in an order of its own."""
    position = (step - 1) * n
    orders: dict[int, np.ndarray] = {}
    chosen = []
    for i in range(position, position + n):
        epoch, place = divmod(i, len(problems))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng(stream_seed(seed, "data", epoch)).permutation(len(problems))
        chosen.append(problems[orders[epoch][place]])
    return chosen


# -- prompts ------------------------------------------------------------------------------------------------------------


def read_template(template: str | None, tokenizer, name: str) -> str | None:
    """--template as text with {problem} in it: given as such, or as a file. None stands for the chat template."""
    if template is None:
        if not tokenizer.chat_template:
            raise UserError(
                f"{name} has no chat template; give --template FILE or TEXT with {{problem}} where the problem goes."
            )
        return None
    if "{problem}" not in template:
        # a path longer than 255 characters is an error to the system
        if len(template) > 255 or not Path(template).is_file():
            raise UserError(f"--template {template[:255]!r}: neither a text with {{problem}} in it nor a file.")
        template = Path(template).read_text()
        if "{problem}" not in template:
            raise UserError("--template: the file does not say {problem} where the problem goes.")
    return template


def prompt_tokens(problem: str, template: str | None, tokenizer) -> list[int]:
    if template is not None:
        return tokenizer.encode(template.replace("{problem}", problem))
    messages = [{"role": "user", "content": problem + INSTRUCTION}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer.encode(text, add_special_tokens=False)


def stop_token_ids(actor: Actor, tokenizer, template: str | None) -> set[int]:
    """Every token that ends a response: base models name different ones in config, generation config and tokenizer
    (Qwen3#927), and the chat template ends turns with another."""
    ids: set[int] = set()
    for source in (actor.lm.config.eos_token_id, actor.saved_generation_config.eos_token_id, tokenizer.eos_token_id):
        ids.update([source] if isinstance(source, int) else source or [])
    if template is None:
        turn = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "ANSWER"}]
        rest = tokenizer.apply_chat_template(turn, tokenize=False).rsplit("ANSWER", 1)[-1]
        after = tokenizer.encode(rest, add_special_tokens=False)
        special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
        if after and after[0] in special:
            ids.add(after[0])
    return ids


# -- responses ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. temperature 0 means greedy; batch is the number of responses generated together."""

    max_new_tokens: int
    temperature: float
    stop_ids: frozenset[int]
    stop_strings: tuple[str, ...]
    batch: int


@dataclass(frozen=True)
class Response:
    prompt: list[int]
    tokens: list[int]  # with the token that ended it
    truncated: bool  # it was still going on at max_new_tokens


class Stops(StoppingCriteria):
    """Ends each response at a stop token or stop string, and remembers where: length_B is 0 while a response goes on.

    That record, and neither width nor padding, says later which responses were truncated (AReaL#1637, TRL#5303).
    Once an eighth of the rows have ended it ends the call of `generate`, so that the next one goes on without them.
    """

    def __init__(self, sampling: Sampling, tokenizer, start_B: torch.Tensor):
        self.ids = torch.tensor(sorted(sampling.stop_ids))
        self.strings = sampling.stop_strings
        # a token is at least a byte; some more for one that begins before the string
        self.window = max((len(s.encode()) for s in self.strings), default=0) + 8
        self.tokenizer = tokenizer
        self.start_B = start_B  # the columns where the responses begin
        self.max_new_tokens = sampling.max_new_tokens
        self.length_B = torch.zeros_like(start_B)
        self.finished_B = torch.zeros_like(start_B, dtype=torch.bool)

    def ended(self, input_ids):
        ended_B = torch.isin(input_ids[:, -1], self.ids.to(input_ids.device)).cpu()
        if self.strings:
            for b in torch.nonzero(~self.finished_B & ~ended_B).flatten().tolist():
                tail = input_ids[b, max(int(self.start_B[b]), input_ids.shape[1] - self.window) :]
                text = self.tokenizer.decode(tail, skip_special_tokens=True)
                ended_B[b] = any(s in text for s in self.strings)
        return ended_B

    def __call__(self, input_ids, scores, **kwargs):
        new_B = input_ids.shape[1] - self.start_B
        ended_B = ~self.finished_B & self.ended(input_ids)
        self.length_B[ended_B] = new_B[ended_B]
        self.finished_B |= ended_B | (new_B == self.max_new_tokens)
        return (self.finished_B | (8 * self.finished_B.sum() >= len(new_B))).to(input_ids.device)


class RoomyLayer(DynamicLayer):
    """A layer of the KV cache with room for ROOM more tokens; DynamicLayer itself copies everything at every token.

    Sliding windows keep all columns, as `join` needs.
    """

    ROOM = 128
    room: list[torch.Tensor] | None = None  # keys and values are the beginnings of these

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            return super().update(key_states, value_states)
        begin, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if self.room is None or self.room[0].shape[2] < end:
            self.room = [F.pad(x, (0, 0, 0, end - begin + self.ROOM)) for x in (self.keys, self.values)]
        for room, new in zip(self.room, (key_states, value_states)):
            room[:, :, begin:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self.room = None

    def join(self, other: Self, columns: int) -> None:
        """Append other's rows; both are cut or padded at the left to this many columns."""
        for name in ("keys", "values"):
            both = (getattr(self, name), getattr(other, name))
            setattr(self, name, torch.cat([F.pad(x, (0, 0, columns - x.shape[2], 0)) for x in both]))
        self.room = None


@dataclass
class Batch:
    """Responses under way, right-aligned: prompt and what is drawn so far [B, S], their mask, the KV cache without the
    last column."""

    ids: torch.Tensor
    mask: torch.Tensor
    cache: Cache


def prefill(actor: Actor, prompts: list[list[int]], device: torch.device) -> Batch:
    """Equal prompts pass through the model once."""
    unique = {prompt: u for u, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    width = max(2, *map(len, unique))  # at least one column before the last
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in unique], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in unique], device=device)
    # generate always draws a token; this one is forgotten
    settings = GenerationConfig(do_sample=False, max_new_tokens=1)
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    actor.generate(inputs=ids[:, :-1], attention_mask=mask[:, :-1], past_key_values=cache, generation_config=settings)
    rows = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=device)
    cache.batch_select_indices(rows)
    return Batch(ids[rows], mask[rows], cache)


def join(a: Batch, b: Batch) -> Batch:
    """Both as one, as wide as the longest row needs."""
    width = max(int(x.mask.sum(1).max()) for x in (a, b))
    # a negative padding cuts
    ids, mask = (torch.cat([F.pad(x, (width - x.shape[1], 0)) for x in pair]) for pair in ((a.ids, b.ids), (a.mask, b.mask)))
    for to, other in zip(a.cache.layers, b.cache.layers):
        to.join(other, width - 1)
    return Batch(ids, mask, a.cache)


@torch.no_grad()
def generate_responses(
    actor: Actor, tokenizer, prompts: list[list[int]], sampling: Sampling, world: World, seed: int, label: str
) -> list[Response]:
    """One response a prompt, in order, the same list on every rank; each rank draws its part of them.

    Sampling is exactly softmax(logits / temperature): every other setting of `generate` is named here as off, because
    it takes those not named from the model's files or from defaults such as top-k 50 (TRL#3029). `generate` is called
    again and again, each time from the KV cache that the last call left: without the responses that have ended, and
    with new ones in their places.
    """
    exact = dict(do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0)
    exact = exact if sampling.temperature else dict(do_sample=False)
    own = prompts[own_slice(len(prompts), world)]
    waiting = sorted(range(len(own)), key=lambda i: -len(own[i]))
    rows, batch = [], None
    torch.manual_seed(stream_seed(seed, "sampling", world.rank))
    responses: list[Response] = [None] * len(own)
    bar = progress(len(own), label, "response", world)
    with whole_weights(actor), bar:
        while rows or waiting:
            free = sampling.batch - len(rows)
            if new := waiting[:free]:
                fresh = prefill(actor, [own[row] for row in new], world.device)
                batch = join(batch, fresh) if rows else fresh
                rows, waiting = rows + new, waiting[free:]
            width = batch.ids.shape[1]
            start_B = width - batch.mask.sum(1).cpu() + torch.tensor([len(own[row]) for row in rows])
            stops = Stops(sampling, tokenizer, start_B)
            ids = actor.generate(
                inputs=batch.ids,
                attention_mask=batch.mask,
                past_key_values=batch.cache,
                generation_config=GenerationConfig(max_new_tokens=sampling.max_new_tokens, **exact),
                stopping_criteria=StoppingCriteriaList([stops]),
            )
            for b in stops.finished_B.nonzero().flatten().tolist():
                length, begin = int(stops.length_B[b]), int(start_B[b])
                tokens = ids[b, begin : begin + (length or sampling.max_new_tokens)].tolist()
                responses[rows[b]] = Response(own[rows[b]], tokens, truncated=length == 0)
            bar.update(int(stops.finished_B.sum()))
            going = (~stops.finished_B).nonzero().flatten()
            rows = [rows[b] for b in going.tolist()]
            going = going.to(world.device)
            batch.cache.batch_select_indices(going)
            batch.ids, batch.mask = ids[going], F.pad(batch.mask[going], (0, ids.shape[1] - width), value=1)
    return gather_list(responses, world)


def verify_responses(
    texts: list[str], golds: list[str], how: str, verifier: Verifier, world: World
) -> tuple[list[str | None], list[float]]:
    """Extracted answers and rewards (1.0 right, 0.0 wrong) of all responses; each rank verifies its part of them."""
    part = own_slice(len(texts), world)
    answers = [extract_answer(text, how) for text in texts[part]]
    rewards = verifier.score(answers, golds[part])
    return tuple(map(list, zip(*gather_list(list(zip(answers, rewards)), world))))


# -- one step's batch ---------------------------------------------------------------------------------------------------


@dataclass
class Rollout:
    """All responses of a step, the same on every rank, on the CPU. Column t of a [B, T] array belongs to o_{t+1}."""

    tokens_BS: torch.Tensor  # prompt, response, padding, without gaps
    prompt_len_B: torch.Tensor
    response_len_B: torch.Tensor
    truncated_B: torch.Tensor  # bool
    group_B: torch.Tensor  # index of the prompt within the step
    rewards_B: torch.Tensor  # 0.0 or 1.0
    mask_BT: torch.Tensor  # bool: a response token, the ending one included, stands here
    texts: list[str]
    golds: list[str]
    old_logp_BT: torch.Tensor | None = None  # of the policy that drew them, at the sampling temperature
    old_entropy_BT: torch.Tensor | None = None

    @property
    def lengths(self) -> list[int]:
        return (self.prompt_len_B + self.response_len_B).tolist()

    def inputs(self, rows: list[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """tokens, prompt and response lengths of these responses, cut to the longest of them."""
        width = int((self.prompt_len_B + self.response_len_B)[rows].max())
        return tuple(x.to(device) for x in (self.tokens_BS[rows, :width], self.prompt_len_B[rows], self.response_len_B[rows]))

    def pick(self, x_BT: torch.Tensor, rows: list[int], device: torch.device) -> torch.Tensor:
        """Entries of a [B, T] array at these rows' response tokens, [N] as the models return them."""
        return x_BT[rows][self.mask_BT[rows]].to(device)


def make_rollout(
    responses: list[Response], texts: list[str], golds: list[str], rewards: list[float], group_size: int
) -> Rollout:
    prompt_len_B = torch.tensor([len(r.prompt) for r in responses])
    response_len_B = torch.tensor([len(r.tokens) for r in responses])
    tokens_BS = torch.zeros(len(responses), int((prompt_len_B + response_len_B).max()), dtype=torch.long)
    for b, r in enumerate(responses):
        tokens_BS[b, : len(r.prompt) + len(r.tokens)] = torch.tensor(r.prompt + r.tokens)
    return Rollout(
        tokens_BS=tokens_BS,
        prompt_len_B=prompt_len_B,
        response_len_B=response_len_B,
        truncated_B=torch.tensor([r.truncated for r in responses]),
        group_B=torch.arange(len(responses)) // group_size,
        rewards_B=torch.tensor(rewards),
        mask_BT=torch.arange(int(response_len_B.max())) < response_len_B[:, None],
        texts=texts,
        golds=golds,
    )


@torch.no_grad()
def score_responses(model, rollout: Rollout, token_budget: int, world: World, *args) -> list[torch.Tensor]:
    """Run model(tokens, prompt lengths, response lengths, *args) over all responses, the work spread over the ranks.

    The model returns a tuple of [N] tensors; -> the same as [B, T] fp32 on the CPU, zero outside the responses.
    """
    rows = list(range(len(rollout.texts)))
    outputs_BT: list[torch.Tensor] = []
    for micro_batch in pack(rows, rollout.lengths, token_budget, world.size)[world.rank]:
        parts_N = model(*rollout.inputs(micro_batch.rows, world.device), *args)
        outputs_BT = outputs_BT or [torch.zeros(rollout.mask_BT.shape) for _ in parts_N]
        if micro_batch.weight:
            for out_BT, part_N in zip(outputs_BT, parts_N):
                mask = rollout.mask_BT[micro_batch.rows]
                out_BT[micro_batch.rows] = torch.zeros(mask.shape).masked_scatter(mask, part_N.float().cpu())
    return [sum_over_ranks(out_BT) for out_BT in outputs_BT]
