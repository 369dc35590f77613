"""Dropping finished responses and prefilling a prompt once change no token and no probability."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from generation import RoomyLayer
from models import load_actor
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


def mixed_prompts(n_groups: int = 8, group_size: int = 3) -> list[list[int]]:
    order = torch.Generator().manual_seed(0)
    lengths = [1, 12, 5, 2, *torch.randint(1, 13, (n_groups - 4,), generator=order).tolist()]
    prompts = [torch.randint(14, 64, (n,), generator=order).tolist() for n in lengths]
    return [prompt for prompt in prompts for _ in range(group_size)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_responses_are_those_of_plain_generate_whatever_finishes_when(
    name, tokenizer, tmp_path, world, monkeypatch
):
    monkeypatch.setattr(RoomyLayer, "ROOM", 3)  # the cache finds more room many times
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
    greedy = dict(temperature=0, max_new_tokens=40, stop_ids=STOPS)
    for batch in (5, 24):
        drawn = draw_responses(actor, tokenizer, world, prompts, batch=batch, **greedy)
        assert [r.tokens for r in drawn] == expected
        assert [r.prompt for r in drawn] == prompts
        assert [r.truncated for r in drawn] == [len(t) == 40 and t[-1] not in STOPS for t in expected]


def test_a_prompt_is_prefilled_once_and_finished_responses_are_computed_no_longer(actor, draw):
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


def test_the_second_and_third_token_are_the_softmax_too_where_rows_have_been_dropped(qwen, draw):
    """Pairs and triples of tokens against their exact probabilities; half of all tokens end a response."""
    plain, prompt, n = AutoModelForCausalLM.from_pretrained(qwen), [9, 8, 7], 40000
    stops = frozenset(range(32))
    drawn = draw([prompt] * n, seed=7, max_new_tokens=3, stop_ids=stops, batch=8000)

    def p_after(tokens):
        with torch.no_grad():
            return torch.softmax(plain(torch.tensor([prompt + tokens])).logits[0, -1].double(), -1)

    # every response there is, with its probability
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


def test_rows_that_finish_while_others_go_on_may_be_of_any_batch_size(draw):
    for n in (0, 1, 2, 7):
        drawn = draw([[20]] * n, max_new_tokens=5, stop_ids=STOPS, batch=4)
        assert len(drawn) == n and all(1 <= len(r.tokens) <= 5 for r in drawn)
