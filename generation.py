"""Prompts → responses. For a batch of prompts, padded on the left, with their mask, they are drawn as by

    lm.generate(ids, attention_mask=mask, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
                max_new_tokens=n, eos_token_id=stops)

and are the same tokens where it is greedy. For speed `generate` is called again and again, each time from the
KV cache that the last call left: without ended responses, with waiting ones in their places, and with equal
prompts prefilled once.

Legend for shape suffixes: B responses under way.
"""

import argparse
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from transformers import Cache, DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from distributed import World, gather_list, number, own_slice, progress, reading, refuse, stream_seed
from models import TOLERANCE, Actor, whole_weights
from rollout import Response, chat


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. temperature 0 means greedy; batch: responses generated together."""

    max_new_tokens: int
    temperature: float
    stop_ids: frozenset[int]
    stop_strings: tuple[str, ...]
    batch: int


def add_flags(parser: argparse.ArgumentParser, greedy: bool) -> None:
    """What a prompt looks like, and how responses are drawn and read."""
    add = parser.add_argument_group("prompts and responses").add_argument
    add("--template", help="prompt: text or file with {problem} in it; default: the tokenizer's chat template")
    add("--extract", choices=("boxed", "last_number"), default="boxed", help="where a response's answer stands")
    add("--max-new-tokens", type=number(int, 1), default=8192, help="a longer response is cut, counted as truncated")
    text = "sampling temperature" + (", 0 is greedy" if greedy else "; log-probabilities are taken at it too")
    add("--temperature", type=number(float, 0, above=not greedy), default=1.0, help=text)
    add("--stop", type=stop_string, nargs="+", default=[], help="strings that end a response; \\n is a newline")
    add("--generate-batch", type=lambda text: text if text == "auto" else number(int, 1)(text), default="auto", help="responses under way at once on a process; auto: as the GPU's memory allows (plan.py), on a CPU 16")


def stop_string(flag: str) -> str:
    if not flag:
        raise argparse.ArgumentTypeError("'' would end every response at once; leave it out or name a string")
    return flag


def sampling_of(args: argparse.Namespace, stop_ids: set[int]) -> Sampling:
    strings = tuple(s.replace("\\n", "\n") for s in args.stop)  # shells pass \\n on as two characters
    return Sampling(args.max_new_tokens, args.temperature, frozenset(stop_ids), strings, args.generate_batch)


@torch.no_grad()
def generate_responses(actor: Actor, tokenizer, prompts: list[list[int]], sampling: Sampling, world: World,
                       seed: int, label: str) -> list[Response]:
    """One response a prompt, in order, the same list on every rank; each rank draws its part of them.

    Sampling is exactly softmax(logits / temperature): every other setting of `generate` is named here as off,
    because it takes those not named from the model's files or from defaults such as top-k 50 (TRL#3029).
    Where the GPU's memory does not hold so many responses under way, none is lost or drawn anew.
    """
    exact = dict(do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0)
    exact = exact if sampling.temperature else dict(do_sample=False)
    settings = GenerationConfig(max_new_tokens=sampling.max_new_tokens, **exact)
    # own: this rank's prompts; rows and waiting: indices of those under way and of the others; most: how many
    # may be under way; begun: index -> prompt and what was drawn before memory was full
    own = prompts[own_slice(len(prompts), world)]
    waiting = sorted(range(len(own)), key=lambda i: -len(own[i]))
    rows, batch, most, begun = [], None, sampling.batch, {}
    torch.manual_seed(stream_seed(seed, "sampling", world.rank))
    responses: list[Response] = [None] * len(own)
    joinable = keeps_only_attention(actor)
    bar = progress(len(own), label, "response", world)
    with whole_weights(actor), bar:
        while rows or waiting:
            free = most - len(rows)
            if not joinable:
                lengths = [len(begun.get(row, own[row])) for row in waiting[:free]]
                free = 0 if rows else next((i for i, n in enumerate(lengths) if n != lengths[0]), free)
            if new := waiting[:free]:
                fresh = prefill(actor, [begun.get(row, own[row]) for row in new], world.device)
                batch = join(batch, fresh) if rows else fresh
                del fresh  # its keys and values have been copied
                rows, waiting = rows + new, waiting[free:]
            width = batch.ids.shape[1]
            start_B = width - batch.mask.sum(1).cpu() + torch.tensor([len(own[row]) for row in rows])
            stops = Stops(sampling, tokenizer, start_B, batch.ids)
            try:
                ids = actor.generate(
                    inputs=batch.ids, attention_mask=batch.mask, past_key_values=batch.cache,
                    generation_config=settings, stopping_criteria=StoppingCriteriaList([stops]))
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                ids, most, batch.cache = stops.seen, len(rows) // 2, None
            for b in stops.finished_B.nonzero().flatten().tolist():
                length, begin = int(stops.length_B[b]), int(start_B[b])
                tokens = ids[b, begin : begin + (length or sampling.max_new_tokens)].tolist()
                responses[rows[b]] = Response(own[rows[b]], tokens, truncated=length == 0)
            bar.update(int(stops.finished_B.sum()))
            going = (~stops.finished_B).nonzero().flatten()
            if batch.cache is None:  # go on from what was drawn, half at a time: anew would favour short ones
                begun |= {rows[b]: ids[b, start_B[b] - len(own[rows[b]]) :].tolist() for b in going.tolist()}
                rows, waiting = [], [rows[b] for b in going.tolist()] + waiting
                continue
            rows = [rows[b] for b in going.tolist()]
            going = going.to(world.device)
            batch.cache.reorder_cache(going)
            batch.ids, batch.mask = ids[going], F.pad(batch.mask[going], (0, ids.shape[1] - width), value=1)
    return gather_list(responses, world)


def keeps_only_attention(actor: Actor) -> bool:
    """Does the model remember keys and values of its tokens only? Then rows can join in a cache."""
    layers = DynamicCache(config=actor.lm.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@torch.no_grad()
def check_generation(actor: Actor, tokenizer, prompt: list[int], most: int, name: str, world: World,
                     dtype: torch.dtype) -> None:
    """Refuse a model of which a few greedy tokens, `most` at most, are not those of plain `generate`, or not
    scored as they were drawn; say it of one that cannot be drawn as others are. All ranks see the same."""
    prompts, n = [prompt, *[prompt[len(prompt) // 2 :]] * 3], min(6, most)
    settings = dict(do_sample=False, max_new_tokens=n, output_logits=True, return_dict_in_generate=True)
    plain, scored, swapped = [], [], [0.0]

    def score(prompt: list[int], response: list[int]) -> torch.Tensor:
        lengths = (torch.tensor([len(x)], device=world.device) for x in (prompt, response))
        return actor.score((torch.tensor([prompt + response], device=world.device), *lengths))[0].cpu()

    with reading(f"--model {name}: it fails while a few tokens are generated", Exception):
        for tokens in prompts[:2]:
            ids = torch.tensor([tokens], device=world.device)
            how = dict(attention_mask=torch.ones_like(ids), generation_config=GenerationConfig(**settings))
            with whole_weights(actor):
                out = actor.generate(inputs=ids, **how)
            logp_NV = torch.log_softmax(torch.cat(out.logits).float() / actor.temperature, dim=-1)
            drawn = out.sequences[0, len(tokens) :].tolist(), logp_NV.amax(1).cpu()
            response, logp_N = gather_list([drawn], world)[0]
            plain.append(response)
            scored.append((score(tokens, response) - logp_N).abs().mean().item())
        # a token that the second has later or never ends the first, and the fourth prompt takes its place
        ends = [t for t in plain[0] if plain[0].index(t) < (plain[1] + [t]).index(t)]
        sampling = Sampling(n, 0.0, frozenset(ends[:1]), (), batch=3)
        drawn = generate_responses(actor, tokenizer, prompts * world.size, sampling, world, 0, "check")
        for ours, expected in zip(drawn, [*plain, plain[1], plain[1]] * world.size):
            at = [t for t, (a, b) in enumerate(zip(ours.tokens, expected)) if a != b]
            if at:  # rounding may swap tokens of about equal probability: in bf16, of 0.25 nats apart
                pair = [score(ours.prompt, x[: at[0] + 1])[-1].item() for x in (ours.tokens, expected)]
                swapped.append(abs(pair[0] - pair[1]) / 3)
    for what, nats in [("scored otherwise than it is drawn", scored), ("not that of `generate`", swapped)]:
        off = torch.tensor(gather_list(nats, world)).max().item()  # NaN, if one is
        refuse(not off < 2 * TOLERANCE[dtype],
               f"--model {name}: a greedy response of {n} tokens is {what} (by {off:.2g} nats); it cannot be "
               "trained with this version of transformers.")
    if world.is_main and not keeps_only_attention(actor):
        print(f"{name} keeps more than keys and values: only prompts of one length are drawn together, and "
              "none takes the place of a response that has ended.", flush=True)


def stop_token_ids(actor: Actor, tokenizer, template: str | None) -> set[int]:
    """Every token that ends a response: base models name different ones in config, generation config and
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


class Stops(StoppingCriteria):
    """Ends each response at a stop token or stop string, and remembers where: length_B is 0 while it goes on.

    That record, and neither width nor padding, says later which responses were truncated (AReaL#1637,
    TRL#5303). Once an eighth of the rows have ended it ends the call of `generate`, so that the next one goes
    on without them.
    """

    def __init__(self, sampling: Sampling, tokenizer, start_B: torch.Tensor, ids: torch.Tensor):
        self.sampling, self.tokenizer = sampling, tokenizer
        self.start_B = start_B  # the columns where the responses begin
        self.ids = torch.tensor(sorted(sampling.stop_ids))
        # a token is at least a byte; some more for one that begins before the string
        self.window = max((len(s.encode()) for s in sampling.stop_strings), default=0) + 8
        self.length_B = torch.zeros_like(start_B)
        self.finished_B = torch.zeros_like(start_B, dtype=torch.bool)
        self.seen = ids  # with all that was drawn

    def ended(self, input_ids):
        ended_B = torch.isin(input_ids[:, -1], self.ids.to(input_ids.device)).cpu()
        if self.sampling.stop_strings:
            for b in torch.nonzero(~self.finished_B & ~ended_B).flatten().tolist():
                tail = input_ids[b, max(int(self.start_B[b]), input_ids.shape[1] - self.window) :]
                text = self.tokenizer.decode(tail, skip_special_tokens=True)
                ended_B[b] = any(s in text for s in self.sampling.stop_strings)
        return ended_B

    def __call__(self, input_ids, scores, **kwargs):
        self.seen, new_B = input_ids, input_ids.shape[1] - self.start_B
        ended_B = ~self.finished_B & self.ended(input_ids)
        self.length_B[ended_B] = new_B[ended_B]
        self.finished_B |= ended_B | (new_B == self.sampling.max_new_tokens)
        return (self.finished_B | (8 * self.finished_B.sum() >= len(new_B))).to(input_ids.device)


class RoomyLayer(DynamicLayer):
    """A layer of the KV cache with room for ROOM more tokens; DynamicLayer copies everything at every token.

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

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.room = None

    def join(self, other: Self, columns: int) -> None:
        """Append other's rows; both are cut or padded at the left to this many columns."""
        for name in ("keys", "values"):
            both = (getattr(self, name), getattr(other, name))
            setattr(self, name, torch.cat([F.pad(x, (0, 0, columns - x.shape[2], 0)) for x in both]))
        self.room = None


@dataclass
class Batch:
    """Responses under way, right-aligned: prompt and what is drawn so far [B, S], their mask, the KV cache
    without the last column."""

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
    roomy = keeps_only_attention(actor)
    cache = Cache(layer_class_to_replicate=RoomyLayer) if roomy else DynamicCache(config=actor.lm.config)
    inputs = dict(inputs=ids[:, :-1], attention_mask=mask[:, :-1])
    actor.generate(**inputs, past_key_values=cache, generation_config=settings)
    rows = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=device)
    cache.reorder_cache(rows)
    return Batch(ids[rows], mask[rows], cache)


def join(a: Batch, b: Batch) -> Batch:
    """Both as one, as wide as the longest row needs."""
    width = max(int(x.mask.sum(1).max()) for x in (a, b))
    ids, mask = (torch.cat([F.pad(x, (width - x.shape[1], 0)) for x in pair])  # a negative padding cuts
                 for pair in ((a.ids, b.ids), (a.mask, b.mask)))
    for to, other in zip(a.cache.layers, b.cache.layers):
        to.join(other, width - 1)
    return Batch(ids, mask, a.cache)
