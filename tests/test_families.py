"""Model families: generation, scores and gradients are those of plain transformers.

The families are random models of two layers. Three run in the fast tier, the others are slow.
"""

from typing import NamedTuple

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from engine.batch import make_rollout
from engine.generation import can_refill
from engine.model_check import check_generation
from engine.models import load_actor, load_critic, save_actor
from engine.sharding import whole_weights
from tests.conftest import save_model, shape
from tests.synthetic import draw_responses, inputs_of

EXPERTS = dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
MIXED = dict(layer_types=["linear_attention", "full_attention"])
MAMBA = dict(mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=8)
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8)
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": dict(head_dim=16),
    "qwen3_moe": dict(head_dim=16) | EXPERTS,
    "mistral": dict(sliding_window=8),
    "mixtral": dict(sliding_window=None, router_jitter_noise=0.5) | EXPERTS,
    "phimoe": dict(sliding_window=None) | EXPERTS,
    "gemma2": dict(head_dim=16, query_pre_attn_scalar=4, sliding_window=8, final_logit_softcapping=2.0),
    "gemma3_text": dict(head_dim=16, sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    "granite": dict(logits_scaling=0.3),
    "cohere": dict(logit_scale=3.0),
    "phi3": dict(sliding_window=None),
    "gpt_neox": {},
    "gpt2": dict(n_embd=32, n_layer=2, n_head=2, n_positions=256),
    "olmo2": {},
    "gpt_oss": dict(head_dim=16, sliding_window=8) | EXPERTS,
    "llama4_text": dict(head_dim=16, attention_chunk_size=8, intermediate_size_mlp=48) | EXPERTS,
    "qwen3_5_text": dict(head_dim=16) | DELTA | MIXED,
    "lfm2": dict(layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    "granitemoehybrid": dict(layer_types=["mamba", "attention"]) | MAMBA | EXPERTS,
}
FAST = ("qwen3", "gemma2", "qwen3_5_text")  # tied, capped with a sliding window, without refilling
STOPS = frozenset(range(3, 9))
PROMPTS = [torch.randint(9, 64, (n,)).tolist() for n in (5, 9, 5, 3)]


class Nothing(NamedTuple):
    pass


def greedy(plain, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    ends = GenerationConfig(do_sample=False, max_new_tokens=12, eos_token_id=sorted(STOPS), pad_token_id=0)
    whole = plain.generate(ids, attention_mask=torch.ones_like(ids), generation_config=ends)
    return whole[0, len(prompt) :].tolist()


def make(name: str, folder) -> str:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **shape(**FAMILIES[name]))
    return save_model(AutoModelForCausalLM.from_config(config), folder)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES])
def test_a_family_generates_scores_and_learns_as_transformers_computes_it(
        name, tokenizer, tmp_path, world, monkeypatch):
    folder, temperature = make(name, tmp_path), 0.7
    plain = AutoModelForCausalLM.from_pretrained(folder)
    actor = load_actor(folder, world, torch.float32, temperature=temperature)
    check_generation(actor, tokenizer, [PROMPTS[0]], 6, name, world, torch.float32)

    expected = [greedy(plain, prompt) for prompt in PROMPTS]
    settings = dict(temperature=0, max_new_tokens=12, stop_ids=STOPS, batch=3)
    with monkeypatch.context() as uncompiled:
        uncompiled.setattr(torch, "compile", lambda function, **_: function)
        drawn = draw_responses(actor, tokenizer, world, PROMPTS, decode="graph", **settings)
    assert [r.tokens for r in drawn] == expected
    drawn = draw_responses(actor, tokenizer, world, PROMPTS, **settings)
    assert [r.tokens for r in drawn] == expected

    none = [""] * len(drawn)
    rollout = make_rollout(drawn, none, none, [0.0] * len(drawn), group_size=1)
    inputs, n = rollout.inputs(range(len(drawn)), world.device), int(rollout.mask_BT.sum())
    weights_N, seen = torch.linspace(-1, 1, n), []

    def token_loss(logp_N, entropy_N, data):
        seen.append(torch.stack([logp_N, entropy_N]).detach())
        return logp_N + 0.3 * entropy_N, {}

    loss, _ = actor.loss(inputs, weights_N, Nothing(), token_loss, with_entropy=True)
    loss.backward()
    logp_NV = []
    for r in drawn:  # each alone, without padding
        logits_SV = plain(torch.tensor([r.prompt + r.tokens]), use_cache=False).logits[0]
        logp_NV.append(torch.log_softmax(logits_SV[len(r.prompt) - 1 : -1] / temperature, -1))
    logp_NV = torch.cat(logp_NV)
    logp_N = logp_NV.gather(1, torch.tensor([[t] for r in drawn for t in r.tokens])).squeeze(1)
    entropy_N = -(logp_NV.exp() * logp_NV).sum(1)
    (weights_N * (logp_N + 0.3 * entropy_N)).sum().backward()
    exact = torch.stack([logp_N, entropy_N]).detach()
    torch.testing.assert_close(actor.score(inputs), exact, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(seen, 1), exact, atol=2e-5, rtol=1e-5)
    gradients = {key: p.grad for key, p in actor.lm.named_parameters()}
    for key, p in plain.named_parameters():
        if p.grad is not None:
            assert (gradients[key] - p.grad).norm() < 1e-4 * p.grad.norm() + 1e-6, key


@pytest.mark.slow
def test_the_text_model_of_a_multimodal_checkpoint_is_loaded_and_saved(tokenizer, tmp_path, world):
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text = shape(head_dim=16, sliding_window=8)
    vision |= dict(image_size=16, patch_size=8)
    whole = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    folder = save_model(Gemma3ForConditionalGeneration(whole), tmp_path / "both")
    plain = AutoModelForImageTextToText.from_pretrained(folder)
    actor = load_actor(folder, world, torch.float32)
    settings = dict(temperature=0, max_new_tokens=12, stop_ids=STOPS)
    drawn = draw_responses(actor, tokenizer, world, PROMPTS, **settings)
    assert [r.tokens for r in drawn] == [greedy(plain, prompt) for prompt in PROMPTS]
    load_critic(folder, world, torch.float32)
    save_actor(actor, tokenizer, tmp_path / "text", world)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    assert type(again).__name__ == "Gemma3ForCausalLM"
    assert [greedy(again, prompt) for prompt in PROMPTS] == [r.tokens for r in drawn]


def test_a_model_with_recurrent_states_is_announced(tokenizer, tmp_path, world, capsys):
    actor = load_actor(make("lfm2", tmp_path), world, torch.float32)
    check_generation(actor, tokenizer, [PROMPTS[1]], 6, "LFM2", world, torch.float32)
    assert not can_refill(actor)
    assert "LFM2 keeps more than keys and values" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["qwen3", "mixtral"])
def test_checkpointed_gradients_are_the_same_and_no_module_is_ever_in_training_mode(name, tmp_path, world):
    """Some modules add noise in training mode."""
    folder, gradients, runs = make(name, tmp_path), [], []
    for checkpointing in (False, True):
        actor = load_actor(folder, world, torch.float32, gradient_checkpointing=checkpointing)
        with whole_weights(actor):
            assert not any(module.training for module in actor.modules())
        assert not any(module.training for module in actor.modules())
        count = []
        actor.lm.model.layers[0].self_attn.register_forward_hook(lambda *call: count.append(1))
        inputs = inputs_of([PROMPTS[1]], [3], [6])
        options = dict(token_loss=lambda logp_N, *_: (logp_N, {}), with_entropy=False)
        loss, _ = actor.loss(inputs, torch.ones(6), data=Nothing(), **options)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in actor.parameters() if p.grad is not None]))
        runs.append(len(count))
    assert runs == [1, 2] and torch.equal(*gradients)
