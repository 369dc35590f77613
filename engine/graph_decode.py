"""--decode graph: the forward pass of a token, compiled, on tensors that keep their addresses.

A forward pass of one token is a thousand small operations, and Python starts each. Here torch.compile fuses them, and
on a GPU a CUDA graph starts all of them at once. The loop is ours, not `generate`'s with its CompileConfig: that one
cannot refill rows, makes the mask and asks for stops outside of the compiled part, and its compiled attention copies
keys and values for every query head at every token.

Legend for shape suffixes: B rows in flight and free rows, C columns of the cache, S tokens so far, V vocabulary.
"""

import copy
import os
import sys
import types

import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo import exc
from torch.fx.experimental import _config as symbols
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import DynamicLayer, StaticLayer
from transformers.masking_utils import sdpa_mask

LOOK = 8  # tokens between two looks at the stops; tokens drawn after a round's end are dropped


class FixedLayer(StaticLayer):
    """A layer of the KV cache whose rows are right-aligned in buffers that never move.

    Keys and values are the buffers' first rows and columns. Sliding windows keep all columns, as in RoomyLayer.
    """

    def __init__(self, like: DynamicLayer, rows: int, columns: int, column: torch.Tensor):
        super().__init__(columns)
        self.buffers = [x.new_zeros(rows, x.shape[1], columns, x.shape[3]) for x in (like.keys, like.values)]
        self.column = column  # where the next keys and values are written, in all rows
        self.n_rows = self.filled = 0  # rows and columns with content
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[2], 0

    def get_seq_length(self) -> torch.Tensor:
        return self.column

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.n_rows = len(beam_idx)
        for x in self.buffers:
            x[: self.n_rows, :, : self.filled] = x[:, :, : self.filled].index_select(0, beam_idx)

    def join(self, other: DynamicLayer, columns: int) -> None:
        """Append other's rows; pad or cut both at the left to this many columns."""
        self.align(columns)
        for x, new in zip(self.buffers, (other.keys[:, :, -columns:], other.values[:, :, -columns:])):
            x[self.n_rows : self.n_rows + len(new), :, columns - new.shape[2] : columns] = new
        self.n_rows += len(new)

    def align(self, columns: int) -> None:
        """Pad or cut at the left to this many columns."""
        kept = min(columns, self.filled)
        for x in self.buffers if columns != self.filled else ():
            moved = x[: self.n_rows, :, self.filled - kept : self.filled].clone()
            x[: self.n_rows, :, columns - kept : columns] = moved
        self.filled = columns


def packed_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Attend from one position with the query heads of a key head side by side, so that keys are not repeated.

    transformers does this too, but not inside torch.compile.
    """
    rows, heads, _, size = query.shape
    query = query.reshape(rows, key.shape[1], -1, size)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(rows, 1, heads, -1), None


AttentionInterface.register("packed", packed_attention)
AttentionMaskInterface.register("packed", sdpa_mask)


def next_logits(lm: nn.Module, ids_B1, mask_BC, position_B1, cache: Cache) -> torch.Tensor:
    return lm(input_ids=ids_B1, attention_mask=mask_BC, position_ids=position_B1, past_key_values=cache).logits[:, -1]


def bare_copy(lm: nn.Module) -> nn.Module:
    """Return lm without FSDP's hooks and gradient checkpointing, which cannot be compiled; it has no weights."""
    config = copy.deepcopy(lm.config)
    with torch.device("meta"):
        bare = type(lm)(config).eval()
    if config._attn_implementation == "sdpa":
        config._attn_implementation = "packed"
    # Skip torch.compile's guards on modules: a bare copy never changes, and the guards take 40 % of the time.
    # torch.compile caches by code object, so each bare copy gets its own.
    own = types.FunctionType(next_logits.__code__.replace(), globals())
    options = dict(guard_filter_fn=torch.compiler.skip_guard_on_all_nn_modules_unsafe,
                   assert_indirect_indexing=False)  # torch 2.11 runs these checks before it computes their inputs
    bare.next_logits = torch.compile(own, fullgraph=True, dynamic=True, options=options)
    return bare


def open_decoder(actor, refills: bool, longest: int, temperature: float) -> "GraphDecoder | None":
    """Return a decoder for one rollout, or None if the model cannot be compiled. Call it inside whole_weights.

    refills: does the model keep only keys and values? longest: tokens of the longest prompt and response.
    """
    state = vars(actor)  # a bare copy must be no submodule
    if "bare" not in state and refills and actor.lm._can_compile_fullgraph:
        state["bare"] = bare_copy(actor.lm)
    elif "bare" not in state:
        give_up(actor, "the model keeps more than keys and values, or transformers cannot compile it")
    return GraphDecoder(actor.lm, state["bare"], longest, temperature) if state["bare"] else None


def give_up(actor, why) -> None:
    """Let this actor decode eagerly, and say so once."""
    vars(actor)["bare"] = None
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"--decode graph is not possible here, so eager decodes: {str(why).strip().splitlines()[0]}.",
              file=sys.stderr, flush=True)


def cannot_compile(actor, error: Exception) -> bool:
    """Is this an error of torch.compile? Then eager decodes from now on."""
    found = isinstance(error, (exc.TorchDynamoException, exc.FailOnRecompileLimitHit))
    if found:
        give_up(actor, error)
    return found


class GraphDecoder:
    """Decodes a rollout's rounds.

    Whole weights and the cache get other addresses in each rollout, so CUDA graphs are captured anew: one for each
    number of rows (powers of two) and of columns (four to an octave), in two forward passes of host time.
    Compiled code is kept: the sizes are symbols in it.
    """

    def __init__(self, lm: nn.Module, bare: nn.Module, longest: int, temperature: float):
        """longest: tokens of the longest prompt and response"""
        for mine, theirs in zip(bare.modules(), lm.modules(), strict=True):
            mine._parameters.update(theirs._parameters)  # inside whole_weights: plain tensors
            mine._buffers.update(theirs._buffers)
        self.lm, self.temperature, self.device = bare, temperature, lm.device
        self.columns = -(-longest // LOOK) * LOOK + LOOK
        self.clear()

    def clear(self) -> None:
        """Free the cache and the graphs."""
        self.cache, self.pool, self.graphs = None, None, {}  # (rows, columns) -> a function that gives logits

    def allocate(self, cache: Cache, n_rows: int) -> None:
        """Make buffers for as many rows as the first batch has, at full length: as much as the plan reckons with."""
        n_rows = max(2, n_rows)  # torch.compile makes special code for one row
        zeros = lambda *shape: torch.zeros(shape, dtype=torch.long, device=self.device)
        self.ids_B1, self.position_B1, self.column = zeros(n_rows, 1), zeros(n_rows, 1), zeros(1)
        columns = self.columns + LOOK  # no graph uses all of them: torch.compile makes special code for whole buffers
        self.mask_BC = zeros(n_rows, columns)
        self.cache = Cache(layers=[FixedLayer(x, n_rows, columns, self.column) for x in cache.layers])

    def generate(self, batch, stops) -> torch.Tensor:
        """Draw tokens as lm.generate does, until stops ends the round or the columns end. -> ids [rows, S]"""
        n_rows, width = batch.ids.shape
        longest = max(2, int(batch.mask.sum(1).max()))  # at least one column before the last
        if batch.cache is not self.cache:  # nothing is in flight in the buffers
            if self.cache is None:
                self.allocate(batch.cache, n_rows)
            for layer, new in zip(self.cache.layers, batch.cache.layers):
                layer.n_rows = 0
                layer.join(new, longest - 1)
                new.reset()
            batch.cache = self.cache
        for layer in self.cache.layers:
            layer.align(longest - 1)
        self.column.fill_(longest - 1)
        self.position_B1.zero_()
        self.ids_B1[:n_rows] = batch.ids[:, -1:]
        self.position_B1[:n_rows] = batch.mask.sum(1, keepdim=True) - 1
        self.mask_BC.zero_()
        self.mask_BC[:n_rows, :longest] = batch.mask[:, -longest:]
        self.mask_BC[n_rows:, longest - 1] = 1  # a free row, too, attends to something
        seen, ended = batch.ids.cpu(), False
        n_B = min(len(self.ids_B1), max(2, 1 << (n_rows - 1).bit_length()))
        while not ended and longest + LOOK <= self.columns:
            n_C = min(round_up(longest + LOOK), self.columns)
            drawn = torch.cat([self.draw(n_B, n_C) for _ in range(LOOK)], dim=1)
            longest += LOOK
            whole = torch.cat([seen, drawn[:n_rows].cpu()], dim=1)  # the only wait for the GPU
            for end in range(seen.shape[1] + 1, whole.shape[1] + 1):
                seen = whole[:, :end]
                ended = bool(stops(seen, None).all())
                if ended:
                    break
        for layer in self.cache.layers:
            layer.filled += seen.shape[1] - width
        return seen.to(self.device)

    def draw(self, n_B: int, n_C: int) -> torch.Tensor:
        """Draw a token for each row. -> [B, 1]"""
        if (n_B, n_C) not in self.graphs:
            self.graphs[n_B, n_C] = self.capture(n_B, n_C)
        logits_BV = self.graphs[n_B, n_C]().float()
        if self.temperature:
            # torch.multinomial's method, without its check of the input, which waits for the GPU
            p_BV = torch.softmax(logits_BV / self.temperature, dim=-1)
            logits_BV = p_BV / torch.empty_like(p_BV).exponential_()
        ids_B1 = logits_BV.argmax(dim=-1, keepdim=True)
        self.ids_B1[:n_B] = ids_B1
        self.position_B1 += 1
        self.column += 1
        self.mask_BC.index_fill_(1, self.column, 1)
        return ids_B1

    def capture(self, n_B: int, n_C: int):
        """-> a function that computes the logits of n_B rows over n_C columns"""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:
            layer.keys, layer.values = (x[:n_B, :, :n_C].data for x in layer.buffers)
        # .data makes a tensor that is no view: code compiled for a view depends on the sizes of its base
        small = self.ids_B1[:n_B].data, self.mask_BC[:n_B, :n_C].data, self.position_B1[:n_B].data
        run = lambda: self.lm.next_logits(self.lm, *small, cache)
        # Compile and warm up; the next run writes the same keys again. use_duck_shape=False keeps sizes apart that are
        # equal by chance.
        with symbols.patch(use_duck_shape=False):
            run()
        if self.device.type != "cuda":
            return run
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            logits_BV = run()
        self.pool = graph.pool()
        return lambda: graph.replay() or logits_BV


def round_up(columns: int) -> int:
    """Return the next of four sizes to an octave, at least 32."""
    step = max(32, 1 << max(0, columns.bit_length() - 3))
    return -(-columns // step) * step
