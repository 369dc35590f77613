"""Prompts → responses, sampled exactly as by the plain call on left-padded prompts

    lm.generate(ids, attention_mask=mask, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
                max_new_tokens=n, eos_token_id=stops)

but faster. `generate` is called again and again and resumes from its own KV cache: as soon as 1/8 of the rows have
finished it returns, finished rows are refilled with waiting prompts, and equal prompts are prefilled once. With
--decode graph, graph_decode.py stands in for these calls.

Legend for shape suffixes: B responses in flight, S tokens so far (left-padded).
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Self

import torch
import torch.nn.functional as F
from transformers import Cache, DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from engine.batch import Response
from engine.distributed import World, gather_list, own_slice, progress
from engine.models import Actor
from engine.sharding import whole_weights
from engine.streams import stream_seed


@dataclass(frozen=True)
class SamplingConfig:
    """How responses are sampled."""

    max_new_tokens: int
    temperature: float  # 0 is greedy
    stop_ids: frozenset[int]
    stop_strings: tuple[str, ...]
    batch: int  # responses in flight on a process
    decode: str = "eager"  # or graph


@torch.no_grad()
def generate_responses(actor: Actor, tokenizer, prompts: list[list[int]], sampling: SamplingConfig, world: World,
                       seed: int, label: str) -> list[Response]:
    """Draw one response to each prompt. -> in the prompts' order, the same list on every rank. Collective.

    Sampling is exactly softmax(logits / temperature). `generate` takes settings that it is not given from the model's
    files or from defaults such as top-k 50, so all are given here (TRL#3029). If the GPU runs out of memory, the
    batch is halved and unfinished responses continue; restarting would favour short ones.
    """
    exact = dict(do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0)
    exact = exact if sampling.temperature else dict(do_sample=False)
    settings = GenerationConfig(max_new_tokens=sampling.max_new_tokens, **exact)
    local = prompts[own_slice(len(prompts), world)]
    sequences = list(local)  # after an OOM: the prompt and the tokens so far
    queue = sorted(range(len(local)), key=lambda i: -len(local[i]))  # indices; the longest prompts first
    batch, capacity, refills = InFlight([]), sampling.batch, can_refill(actor)
    torch.manual_seed(stream_seed(seed, "sampling", world.rank))
    responses: list[Response] = [None] * len(local)
    longest = max(map(len, local), default=0) + sampling.max_new_tokens
    with whole_weights(actor), progress(len(local), label, "response", world) as bar:
        decoder = None
        if sampling.decode == "graph":
            from engine import graph_decode  # with torch.compile, which takes seconds that --help need not take

            decoder = graph_decode.open_decoder(actor, refills, longest, sampling.temperature)
        while batch.rows or queue:
            admitted = queue[: capacity - len(batch.rows)]
            if not refills:  # only prompts of equal length share a batch, and only from its start
                same = takewhile(lambda i: len(sequences[i]) == len(sequences[admitted[0]]), admitted)
                admitted = [] if batch.rows else list(same)
            try:
                if admitted:
                    batch.add(prefill(actor, admitted, [sequences[i] for i in admitted], world.device, refills))
            except torch.OutOfMemoryError:
                capacity = (len(batch.rows) + len(admitted)) // 2
                if not capacity:
                    raise
                for i, tokens in zip(batch.rows, batch.sequences()):
                    sequences[i] = tokens
                queue, batch = batch.rows + queue, InFlight([])
                if decoder:
                    decoder.clear()
                continue
            queue = queue[len(admitted) :]
            width = batch.ids.shape[1]
            start_B = width - batch.mask.sum(1).cpu() + torch.tensor([len(local[i]) for i in batch.rows])
            stops = Stops(sampling, tokenizer, start_B, batch.ids.cpu() if decoder else batch.ids)
            try:
                batch.ids = decoder.generate(batch, stops) if decoder else actor.generate(
                    inputs=batch.ids, attention_mask=batch.mask, past_key_values=batch.cache,
                    generation_config=settings, stopping_criteria=StoppingCriteriaList([stops]))
                broken_off = False
            except torch.OutOfMemoryError:
                if len(batch.rows) == 1:
                    raise
                batch.ids, broken_off, capacity = stops.seen, True, len(batch.rows) // 2
            except Exception as error:
                if not (decoder and graph_decode.cannot_compile(actor, error)):
                    raise
                decoder, batch.ids, broken_off = None, stops.seen, True
            ids, finished_B, lengths = batch.ids.cpu(), stops.finished_B.cpu(), stops.length_B.tolist()
            for b in finished_B.nonzero().flatten().tolist():
                i, first = batch.rows[b], stops.starts[b]
                tokens = ids[b, first : first + (lengths[b] or sampling.max_new_tokens)].tolist()
                responses[i] = Response(local[i], tokens, truncated=lengths[b] == 0)
            bar.update(int(finished_B.sum()))
            unfinished = (~finished_B).nonzero().flatten()
            if broken_off:
                for i, tokens in zip(batch.rows, batch.sequences()):
                    sequences[i] = tokens
                queue, batch = [batch.rows[b] for b in unfinished.tolist()] + queue, InFlight([])
                if decoder:
                    decoder.clear()
            else:
                batch.keep(unfinished)
    return gather_list(responses, world)


def can_refill(actor: Actor) -> bool:
    """Does the model keep only keys and values of its tokens? Then rows can join a running batch."""
    layers = DynamicCache(config=actor.lm.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


class Stops(StoppingCriteria):
    """Ends each response at a stop token or stop string and records its length: length_B is 0 until then.

    Truncation is read from this record, because widths and padding mislead (AReaL#1637, TRL#5303). The call of
    `generate` ends when an eighth of the rows have finished.
    """

    def __init__(self, sampling: SamplingConfig, tokenizer, start_B: torch.Tensor, ids_BS: torch.Tensor):
        self.sampling, self.tokenizer = sampling, tokenizer
        self.starts = start_B.tolist()  # the columns where the responses begin
        self.start_B, self.stop_ids = (
            x.to(ids_BS.device, non_blocking=True) for x in (start_B, torch.tensor(sorted(sampling.stop_ids))))
        # a token is at least a byte; 8 more for a token that begins before the string
        self.window = max((len(s.encode()) for s in sampling.stop_strings), default=0) + 8
        self.length_B = torch.zeros_like(self.start_B)
        self.finished_B = torch.zeros_like(self.start_B, dtype=torch.bool)
        self.seen = ids_BS  # the tokens at the last call

    def ended(self, ids_BS: torch.Tensor) -> torch.Tensor:
        ended_B = torch.isin(ids_BS[:, -1], self.stop_ids)
        if not self.sampling.stop_strings:
            return ended_B
        # texts are read on the CPU, which waits for the GPU
        ended, first = (self.finished_B | ended_B).tolist(), max(0, ids_BS.shape[1] - self.window)
        for b, tail in enumerate(ids_BS[:, first:].tolist()):
            if not ended[b]:
                text = self.tokenizer.decode(tail[max(0, self.starts[b] - first) :], skip_special_tokens=True)
                ended[b] = any(s in text for s in self.sampling.stop_strings)
        return torch.tensor(ended, device=ids_BS.device)

    def __call__(self, input_ids, scores, **kwargs):
        self.seen, length_B = input_ids, input_ids.shape[1] - self.start_B
        ended_B = self.ended(input_ids) & ~self.finished_B
        self.length_B = torch.where(ended_B, length_B, self.length_B)
        self.finished_B = self.finished_B | ended_B | (length_B == self.sampling.max_new_tokens)
        return self.finished_B | (8 * self.finished_B.sum() >= len(length_B))


class RoomyLayer(DynamicLayer):
    """A layer of the KV cache that grows ROOM tokens at a time; DynamicLayer copies everything at every token.

    Sliding windows keep all columns, which refilling needs.
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
        """Append other's rows; pad or cut both at the left to this many columns."""
        for name in ("keys", "values"):
            both = (getattr(self, name), getattr(other, name))
            setattr(self, name, torch.cat([F.pad(x, (0, 0, columns - x.shape[2], 0)) for x in both]))
        self.room = None


@dataclass
class InFlight:
    """Responses being generated, right-aligned."""

    rows: list[int]  # index of each row's prompt
    ids: torch.Tensor | None = None  # prompt and response so far [B, S]
    mask: torch.Tensor | None = None  # 1 where ids holds a token
    cache: Cache | None = None  # keys and values of all columns but the last

    def add(self, new: Self) -> None:
        """Append new rows, as wide as the longest row needs."""
        if not self.rows:
            self.rows, self.ids, self.mask, self.cache = new.rows, new.ids, new.mask, new.cache
            return
        width = max(int(x.mask.sum(1).max()) for x in (self, new))
        for layer, other in zip(self.cache.layers, new.cache.layers):
            layer.join(other, width - 1)
        # after the layers: if one of them runs out of memory, rows, ids and mask are still those of before
        self.rows = self.rows + new.rows
        self.ids, self.mask = (
            torch.cat([F.pad(x, (width - x.shape[1], 0)) for x in pair])  # negative padding cuts
            for pair in ((self.ids, new.ids), (self.mask, new.mask)))

    def sequences(self) -> list[list[int]]:
        """Return each row's prompt and response so far."""
        if not self.rows:
            return []
        padding = (self.mask == 0).sum(1).tolist()  # the mask may lack the newest columns
        return [row[n:].tolist() for row, n in zip(self.ids.cpu(), padding)]

    def keep(self, kept: torch.Tensor) -> None:
        """Keep these rows only, and extend the mask over the new tokens."""
        self.rows, kept = [self.rows[b] for b in kept.tolist()], kept.to(self.ids.device)
        self.cache.reorder_cache(kept)
        new_tokens = self.ids.shape[1] - self.mask.shape[1]
        self.ids, self.mask = self.ids[kept], F.pad(self.mask[kept], (0, new_tokens), value=1)


def prefill(actor: Actor, rows: list[int], sequences: list[list[int]], device: torch.device, refills: bool) -> InFlight:
    """Compute the KV cache of the sequences; equal sequences pass through the model once."""
    unique = {tokens: u for u, tokens in enumerate(dict.fromkeys(map(tuple, sequences)))}
    width = max(2, *map(len, unique))  # at least one column before the last
    ids = torch.tensor([[0] * (width - len(tokens)) + list(tokens) for tokens in unique], device=device)
    mask = torch.tensor([[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in unique], device=device)
    # generate always draws a token; this one is dropped
    settings = GenerationConfig(do_sample=False, max_new_tokens=1)
    cache = Cache(layer_class_to_replicate=RoomyLayer) if refills else DynamicCache(config=actor.lm.config)
    inputs = dict(inputs=ids[:, :-1], attention_mask=mask[:, :-1])
    actor.generate(**inputs, past_key_values=cache, generation_config=settings)
    copies = torch.tensor([unique[tuple(tokens)] for tokens in sequences], device=device)
    cache.reorder_cache(copies)
    return InFlight(rows, ids[copies], mask[copies], cache)
