"""What is sampled and where responses end; refilling and shared prefills change no probability.

Most tests run for both decoders. To compile takes a minute, so the fast tier runs graph's code uncompiled.
"""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig
from transformers import MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from engine import generation
from engine.generation import RoomyLayer
from engine.graph_decode import FixedLayer
from engine.models import load_actor
from tests.conftest import save_model, shape
from tests.synthetic import draw_responses

ARCHITECTURES = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**shape())),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**shape(head_dim=16))),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape(tie_word_embeddings=True))),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**shape(sliding_window=None))),
    "mistral with a window of 8 tokens": lambda: MistralForCausalLM(MistralConfig(**shape(sliding_window=8))),
}
STOPS = frozenset(range(1, 14))


@pytest.fixture(params=["eager", "graph", pytest.param("compiled", marks=pytest.mark.slow)])
def decode(request, monkeypatch):
    """--decode: eager; graph, uncompiled; graph, compiled"""
    if request.param == "graph":
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    torch.compiler.reset()
    counters.clear()
    yield request.param.replace("compiled", "graph")
    assert bool(counters["stats"]) == (request.param == "compiled"), "the wrong code was tested"


@pytest.fixture
def draw(actor, tokenizer, world, decode):
    """draw(prompts, seed=0, **settings of SamplingConfig) -> responses of the tiny actor"""
    return partial(draw_responses, actor, tokenizer, world, decode=decode)


only_eager = pytest.mark.parametrize("decode", ["eager"], indirect=True)


# -- what is sampled, where responses end --------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_frequencies_are_the_softmax_although_the_generation_config_says_top_k_20(
        qwen, actor, draw, temperature):
    assert actor.saved_generation_config.top_k == 20
    prompts = [[3, 4, 5], [9, 8, 7, 6, 5]]
    plain = AutoModelForCausalLM.from_pretrained(qwen)
    n = 4000
    for prompt in prompts:
        with torch.no_grad():
            p_V = torch.softmax(plain(torch.tensor([prompt])).logits[0, -1].double() / temperature, -1)
        drawn = draw([prompt] * n, seed=5, temperature=temperature)
        counts_V = torch.bincount(torch.tensor([r.tokens[0] for r in drawn]), minlength=64).double()
        expected_V = p_V * n
        # Pearson's statistic, rare tokens pooled: at the softmax its mean is the degrees of freedom f
        # and its variance 2 f
        often = expected_V >= 5
        counts = torch.cat([counts_V[often], counts_V[~often].sum()[None]])
        expected = torch.cat([expected_V[often], expected_V[~often].sum()[None]])
        counts, expected = counts[expected > 0], expected[expected > 0]
        statistic, freedom = ((counts - expected) ** 2 / expected).sum().item(), len(counts) - 1
        assert often.sum() > 20, "the test needs tokens beyond top-k 20"
        assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


def test_a_response_does_not_depend_on_the_batch_and_its_padding(qwen, draw):
    prompts = [[5, 6, 7, 8, 9, 10], [4], [11, 12, 3], [7, 7, 7, 7]]
    together = draw(prompts, temperature=0, max_new_tokens=12, batch=4)
    plain = AutoModelForCausalLM.from_pretrained(qwen)
    for prompt, response in zip(prompts, together):
        tokens = list(prompt)
        for _ in range(12):
            with torch.no_grad():
                tokens.append(plain(torch.tensor([tokens])).logits[0, -1].argmax().item())
        assert response.prompt == prompt and response.tokens == tokens[len(prompt) :]


def test_responses_end_at_any_stop_token_and_keep_it(draw):
    stops = frozenset(range(1, 12))
    drawn = draw([[20, 21]] * 200, seed=1, max_new_tokens=6, stop_ids=stops)
    ended = {r.tokens[-1] for r in drawn if not r.truncated}
    assert len(ended) > 3, "several different stop tokens should have ended responses"
    for r in drawn:
        assert not stops & set(r.tokens[:-1])
        if r.truncated:
            assert len(r.tokens) == 6 and r.tokens[-1] not in stops
        else:
            assert r.tokens[-1] in stops
    assert any(r.truncated for r in drawn)
    assert any(len(r.tokens) == 6 and not r.truncated for r in drawn)


def test_stop_strings_end_responses_and_never_match_the_prompt(tokenizer, draw):
    prompt = tokenizer.encode("1+2=")
    drawn = draw([prompt] * 100, seed=2, max_new_tokens=20, stop_strings=("=", "7"))
    for r in drawn:
        text = tokenizer.decode(r.tokens, skip_special_tokens=True)
        before = tokenizer.decode(r.tokens[:-1], skip_special_tokens=True)
        assert "=" not in before and "7" not in before
        assert r.truncated == ("=" not in text and "7" not in text)
    assert any(not r.truncated for r in drawn)


def test_sampling_is_repeated_by_its_seed_and_changed_by_another(draw):
    def tokens(seed):
        return [r.tokens for r in draw([[5, 6]] * 8, seed=seed, max_new_tokens=8)]

    assert tokens(1) == tokens(1) != tokens(2)


# -- the batch in flight -------------------------------------------------------------------------------------
def mixed_prompts(n_groups: int = 8, group_size: int = 3) -> list[list[int]]:
    order = torch.Generator().manual_seed(0)
    lengths = [1, 12, 5, 2, *torch.randint(1, 13, (n_groups - 4,), generator=order).tolist()]
    prompts = [torch.randint(14, 64, (n,), generator=order).tolist() for n in lengths]
    return [prompt for prompt in prompts for _ in range(group_size)]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if "qwen3" in name or "window" in name else pytest.mark.slow)
    for name in ARCHITECTURES])
def test_greedy_responses_are_those_of_plain_generate_in_whatever_order_they_finish(
        name, decode, tokenizer, tmp_path, world, monkeypatch):
    monkeypatch.setattr(RoomyLayer, "ROOM", 3)  # the cache grows many times
    torch.manual_seed(2)
    folder = save_model(ARCHITECTURES[name](), tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    actor = load_actor(folder, world, torch.float32)
    prompts = mixed_prompts()
    ends = dict(max_new_tokens=40, eos_token_id=sorted(STOPS), pad_token_id=0)
    settings = GenerationConfig(do_sample=False, **ends)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = plain.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        expected.append(whole[0, len(prompt) :].tolist())
    assert len({len(tokens) for tokens in expected}) > 4, "the test needs responses that finish at many times"
    greedy = dict(temperature=0, max_new_tokens=40, stop_ids=STOPS, decode=decode)
    for batch in (5, 24):
        drawn = draw_responses(actor, tokenizer, world, prompts, batch=batch, **greedy)
        assert [r.tokens for r in drawn] == expected
        assert [r.prompt for r in drawn] == prompts
        assert [r.truncated for r in drawn] == [len(t) == 40 and t[-1] not in STOPS for t in expected]


@only_eager
def test_a_prompt_is_prefilled_once_and_finished_responses_cost_no_more_computation(actor, draw):
    shapes = []

    def note(lm, args, kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))

    actor.lm.register_forward_pre_hook(note, with_kwargs=True)
    prompts = [[20, 21, 22, 23]] * 16 + [[30, 31, 32]] * 16
    drawn = draw(prompts, max_new_tokens=60, stop_ids=STOPS, batch=32)
    assert shapes[0] == (2, 3), "two prompts, all but the last token"
    assert all(width == 1 for _, width in shapes[1:])
    needed = sum(len(r.tokens) for r in drawn)
    computed = sum(rows for rows, _ in shapes[1:])
    assert needed <= computed < 1.2 * needed < 0.6 * 32 * max(len(r.tokens) for r in drawn)


def test_tokens_are_a_fair_draw_at_every_place_of_responses_that_share_slots(qwen, draw):
    """The sum of −log p − entropy over tokens in a row is a martingale, however rows are stopped and refilled."""
    plain, sums = AutoModelForCausalLM.from_pretrained(qwen), torch.zeros(3, 2, dtype=torch.float64)
    for r in draw(mixed_prompts(40, 4), seed=3, max_new_tokens=40, stop_ids=STOPS, batch=9):
        with torch.no_grad():
            logits_SV = plain(torch.tensor([r.prompt + r.tokens])).logits[0, len(r.prompt) - 1 : -1]
        logp_TV = torch.log_softmax(logits_SV.double(), -1)
        surprise_T = -logp_TV[range(len(r.tokens)), r.tokens]
        mean_T = -(logp_TV.exp() * logp_TV).sum(1)
        variance_T = (logp_TV.exp() * logp_TV.square()).sum(1) - mean_T.square()
        for place, part in enumerate((slice(0, 2), slice(2, 6), slice(6, None))):
            sums[place] += torch.stack([(surprise_T - mean_T)[part].sum(), variance_T[part].sum()])
    assert (sums[:, 1] > 30).all(), "the test needs tokens at every place"
    assert (sums[:, 0].abs() < 4 * sums[:, 1].sqrt()).all(), sums


@pytest.mark.slow
def test_the_second_and_third_token_have_softmax_frequencies_too_after_rows_have_left(qwen, draw):
    """Pairs and triples of tokens against their exact probabilities; half of all tokens end a response."""
    plain, prompt, n = AutoModelForCausalLM.from_pretrained(qwen), [9, 8, 7], 40000
    stops = frozenset(range(32))
    drawn = draw([prompt] * n, seed=7, max_new_tokens=3, stop_ids=stops, batch=8000)

    def p_after(tokens):
        with torch.no_grad():
            return torch.softmax(plain(torch.tensor([prompt + tokens])).logits[0, -1].double(), -1)

    # every possible response and its probability
    probability = {}
    for a, p_a in enumerate(p_after([]).tolist()):
        if a in stops:
            probability[(a,)] = p_a
            continue
        for b, p_b in enumerate(p_after([a]).tolist()):
            if b in stops:
                probability[(a, b)] = p_a * p_b
            elif p_a * p_b * n > 20:
                for c, p_c in enumerate(p_after([a, b]).tolist()):
                    probability[(a, b, c)] = p_a * p_b * p_c
    counts = {}
    for r in drawn:
        counts[tuple(r.tokens)] = counts.get(tuple(r.tokens), 0) + 1
    often = [tokens for tokens, p in probability.items() if p * n >= 5]
    assert {len(tokens) for tokens in often} == {1, 2, 3}
    for length in (1, 2, 3):
        some = [tokens for tokens in often if len(tokens) == length]
        p, seen = ([f.get(tokens, 0) for tokens in some] for f in (probability, counts))
        cells = [(s, q * n) for s, q in zip(seen, p)] + [(n - sum(seen), n * (1 - sum(p)))]
        statistic, freedom = sum((s - e) ** 2 / e for s, e in cells), len(cells) - 1
        # Pearson's statistic has mean f and variance 2 f
        assert freedom > 10 and abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5, length


def test_any_number_of_prompts_is_answered(draw):
    for n in (0, 1, 2, 7):
        drawn = draw([[20]] * n, max_new_tokens=5, stop_ids=STOPS, batch=4)
        assert len(drawn) == n and all(1 <= len(r.tokens) <= 5 for r in drawn)


@pytest.mark.parametrize("decode", ["eager", "graph"], indirect=True)
@pytest.mark.parametrize("offload", ["none", "all"])
def test_after_an_out_of_memory_error_responses_continue_from_their_tokens_in_smaller_batches(
        qwen, tokenizer, world, monkeypatch, offload, decode):
    actor = load_actor(qwen, world, torch.float32, offload=offload)
    prompts = [torch.randint(14, 64, (n,)).tolist() for n in (3, 9, 5, 2, 7, 4, 6, 8)]
    greedy = dict(temperature=0, max_new_tokens=30, stop_ids=frozenset(range(1, 5)), batch=6, decode=decode)
    expected = draw_responses(actor, tokenizer, world, prompts, **greedy)
    kind = FixedLayer if decode == "graph" else RoomyLayer
    real, full = kind.update, []

    def update(layer, keys, *rest):
        columns = int(layer.column) if decode == "graph" else layer.keys.shape[2] if layer.is_initialized else 0
        if len(keys) > 2 and columns * len(keys) > 50:
            full.append(len(keys))
            raise torch.OutOfMemoryError("full")
        return real(layer, keys, *rest)

    monkeypatch.setattr(kind, "update", update)
    widths = []
    actor.lm.register_forward_pre_hook(
        lambda lm, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    assert draw_responses(actor, tokenizer, world, prompts, **greedy) == expected
    assert full[0] > full[-1] > 2, "halved more than once"
    assert max(widths) >= max(map(len, prompts)), "a prefill held tokens of a response"


@only_eager
@pytest.mark.parametrize("name", ["prefill", "join"])
def test_an_out_of_memory_error_while_prompts_are_admitted_changes_no_response(draw, monkeypatch, name):
    prompts = [torch.randint(14, 64, (n,)).tolist() for n in (3, 9, 5, 2, 7, 4, 6, 8) * 3]
    greedy = dict(temperature=0, max_new_tokens=30, stop_ids=STOPS, batch=6)
    expected = draw(prompts, **greedy)
    owner = generation if name == "prefill" else RoomyLayer
    real, calls = getattr(owner, name), []

    def admit(*args):
        calls.append(name)
        if len(calls) in (2, 5):  # join: in the last layer of the first refill, and later in a first layer
            raise torch.OutOfMemoryError("full")
        return real(*args)

    monkeypatch.setattr(owner, name, admit)
    assert draw(prompts, **greedy) == expected
    assert len(calls) >= 5


# -- --decode graph ---------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("offload", ["none", "all"])  # all: FSDP2 gathers the weights to other addresses
def test_code_is_compiled_once_for_all_sizes_and_rollouts(qwen, tokenizer, world, offload):
    torch.compiler.reset()
    counters.clear()
    actor = load_actor(qwen, world, torch.float32, gradient_checkpointing=True, offload=offload)
    settings = dict(temperature=0, stop_ids=STOPS, max_new_tokens=60)
    for change in (0.0, 1e-2):
        with torch.no_grad():
            for p in actor.parameters():  # as an update between two rollouts
                p.add_(change)
        for batch in (32, 5):  # first 32 rows and 32 columns
            drawn = [draw_responses(actor, tokenizer, world, mixed_prompts(16), batch=batch, decode=decode, **settings)
                     for decode in ("eager", "graph")]
            assert drawn[0] == drawn[1]
    assert counters["stats"]["unique_graphs"] == 1


def test_a_model_that_cannot_be_compiled_decodes_eagerly_and_says_so_once(qwen, tokenizer, world, monkeypatch, capsys):
    prompts, settings = mixed_prompts(), dict(temperature=1, max_new_tokens=9, stop_ids=STOPS, batch=5)
    expected = draw_responses(load_actor(qwen, world, torch.float32), tokenizer, world, prompts, **settings)

    actor = load_actor(qwen, world, torch.float32)
    monkeypatch.setattr(type(actor.lm), "_can_compile_fullgraph", False)
    for _ in range(2):
        assert draw_responses(actor, tokenizer, world, prompts, decode="graph", **settings) == expected
    assert capsys.readouterr().err.count("--decode graph is not possible here") == 1

    monkeypatch.undo()  # now it is found by compiling
    monkeypatch.setattr(FixedLayer, "update", lambda *_, **__: torch._dynamo.graph_break())
    actor = load_actor(qwen, world, torch.float32)
    torch.compiler.reset()
    for _ in range(2):
        assert draw_responses(actor, tokenizer, world, prompts, decode="graph", **settings) == expected
    assert capsys.readouterr().err.count("--decode graph is not possible here") == 1
