"""Model families: what is drawn, scored and learned is what plain transformers computes; the rest is refused.

The families are random models of two layers; the README has the table of all that were tried.
"""

import json
from typing import NamedTuple

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

import generation
from distributed import UserError
from generation import check_generation, keeps_only_attention
from models import check_config, check_states, load_actor, load_critic, save_actor, whole_weights
from rollout import make_rollout
from tests.conftest import save_model, shape
from tests.runs import FEW, run
from tests.synthetic import draw_responses

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


# the first, for it starts a process group of its own
def test_nothing_is_written_for_a_model_that_is_drawn_wrongly(tmp_path, monkeypatch):
    monkeypatch.setattr(generation.RoomyLayer, "reorder_cache", lambda self, rows: None)
    error = run("train.py", *FEW, "--out", tmp_path / "run", code=2).stderr
    assert "train.py: error: --model" in error and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_drawn_scored_and_trained_as_transformers_computes_it(name, tokenizer, tmp_path, world):
    folder, temperature = make(name, tmp_path), 0.7
    plain = AutoModelForCausalLM.from_pretrained(folder)
    actor = load_actor(folder, world, torch.float32, temperature=temperature)
    check_generation(actor, tokenizer, PROMPTS[0], 6, name, world, torch.float32)

    expected = [greedy(plain, prompt) for prompt in PROMPTS]
    settings = dict(temperature=0, max_new_tokens=12, stop_ids=STOPS, batch=3)
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
    for r in drawn:  # one at a time, without padding
        logits_SV = plain(torch.tensor([r.prompt + r.tokens]), use_cache=False).logits[0]
        logp_NV.append(torch.log_softmax(logits_SV[len(r.prompt) - 1 : -1] / temperature, -1))
    logp_NV = torch.cat(logp_NV)
    logp_N = logp_NV.gather(1, torch.tensor([[t] for r in drawn for t in r.tokens])).squeeze(1)
    entropy_N = -(logp_NV.exp() * logp_NV).sum(1)
    (weights_N * (logp_N + 0.3 * entropy_N)).sum().backward()
    exact = torch.stack([logp_N, entropy_N]).detach()
    torch.testing.assert_close(actor.score(inputs)[:2].detach(), exact, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(seen, 1), exact, atol=2e-5, rtol=1e-5)
    gradients = {key: p.grad for key, p in actor.lm.named_parameters()}
    for key, p in plain.named_parameters():
        if p.grad is not None:
            assert (gradients[key] - p.grad).norm() < 1e-4 * p.grad.norm() + 1e-6, key


def test_the_text_model_of_a_multimodal_checkpoint_is_taken_and_saved(tokenizer, tmp_path, world):
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


# -- what is refused -----------------------------------------------------------------------------------------
DYNAMIC = dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0)
FACTORS = dict(short_factor=[1.0] * 8, long_factor=[4.0] * 8, factor=4.0, rope_theta=10000.0)
LONG = dict(rope_type="longrope", original_max_position_embeddings=64) | FACTORS


@pytest.mark.parametrize(
    "changes, response, sentence",
    [
        (dict(max_position_embeddings=64), 56, r"beyond 64 tokens its context \(.*\) ends, .* have 65;"),
        (dict(index_topk=64), 56, "beyond 64 tokens its attention is scored otherwise than drawn"),
        (dict(rope_parameters=LONG), 56, r"beyond 64 tokens its positions \(longrope RoPE\) depend on"),
        (dict(vocab_size=60), 8, "has 60 rows, too few for the tokenizer's token 63"),
        (dict(quantization_config=dict(quant_method="gptq")), 8, r"its weights are quantized \(gptq\)"),
    ]
)
def test_a_model_that_cannot_read_the_run_is_refused_by_its_configuration(
    changes, response, sentence, tmp_path
):
    def check(changes, response):
        config = AutoConfig.for_model("llama", **shape()).to_dict() | changes
        (tmp_path / "config.json").write_text(json.dumps(config))
        return check_config(str(tmp_path), "--model", PROMPTS, response, ids=[63])

    assert check({}, response) == check(changes | dict(vocab_size=64, quantization_config=None), 55) == 64
    with pytest.raises(UserError, match=sentence):
        check(changes, response)


def test_positions_that_depend_on_the_batch_and_noise_are_refused(tmp_path, world):
    config = AutoConfig.for_model("llama", **shape(max_position_embeddings=12, rope_parameters=DYNAMIC))
    folder = save_model(AutoModelForCausalLM.from_config(config), tmp_path / "dynamic")
    for load in (load_actor, load_critic):
        with pytest.raises(UserError, match="scored alone and beside another, differ by"):
            load(folder, world, torch.float32)
    noisy = load_actor(make("phimoe", tmp_path / "phimoe"), world, torch.float32)
    with pytest.raises(UserError, match="scored .*, differ by"):
        check_states(noisy.train(), "phimoe", world, torch.float32)


def test_responses_that_are_not_those_of_generate_or_not_scored_as_drawn_are_refused(
    qwen, tokenizer, world, monkeypatch
):
    def check():
        check_generation(actor, tokenizer, PROMPTS[1], 6, "MODEL", world, torch.float32)

    actor = load_actor(qwen, world, torch.float32)
    check()
    with monkeypatch.context() as fault:
        fault.setitem(actor.logits, "temperature", 0.8)
        with pytest.raises(UserError, match="--model MODEL: .* is scored otherwise than it is drawn"):
            check()
    # the cache's rows stay where they were when a response has ended
    monkeypatch.setattr(generation.RoomyLayer, "reorder_cache", lambda self, rows: None)
    with pytest.raises(UserError, match="--model MODEL: .*(not that of `generate`|fails while a few tokens)"):
        check()


def test_a_model_with_recurrent_states_is_announced(tokenizer, tmp_path, world, capsys):
    actor = load_actor(make("lfm2", tmp_path), world, torch.float32)
    check_generation(actor, tokenizer, PROMPTS[1], 6, "LFM2", world, torch.float32)
    assert not keeps_only_attention(actor)
    assert "LFM2 keeps more than keys and values" in capsys.readouterr().out


def test_a_critic_reads_ids_beyond_its_embedding_as_its_last_one(qwen, world):
    critic = load_critic(qwen, world, torch.float32)
    torch.nn.init.normal_(critic.value_head.weight)
    lengths = torch.tensor([2]), torch.tensor([3])
    with torch.no_grad():
        beyond, last = (critic.score((torch.tensor([[9, 8, i, 7, 6]]), *lengths)) for i in (1000, 63))
    assert torch.equal(beyond, last)


@pytest.mark.parametrize("name", ["qwen3", "mixtral"])
def test_checkpointed_gradients_are_the_same_and_drawing_leaves_checkpointing_on(name, tmp_path, world):
    """And nothing of ours is in training mode, where some modules add noise."""
    folder, gradients, runs = make(name, tmp_path), [], []
    for checkpointing in (False, True):
        actor = load_actor(folder, world, torch.float32, gradient_checkpointing=checkpointing)
        with whole_weights(actor):
            assert not any(module.training for module in actor.modules())
        assert not any(module.training for module in actor.modules())
        count = []
        actor.lm.model.layers[0].self_attn.register_forward_hook(lambda *call: count.append(1))
        inputs = torch.tensor([PROMPTS[1]]), torch.tensor([3]), torch.tensor([6])
        how = dict(token_loss=lambda logp_N, *_: (logp_N, {}), with_entropy=False)
        loss, _ = actor.loss(inputs, torch.ones(6), data=Nothing(), **how)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in actor.parameters() if p.grad is not None]))
        runs.append(len(count))
    assert runs == [1, 2] and torch.equal(*gradients)


def test_the_check_stays_within_a_context_that_just_holds_one_prompt_and_its_response(
    tokenizer, tmp_path, world
):
    few = shape(max_position_embeddings=24) | dict(n_embd=32, n_layer=2, n_head=2, n_positions=24)
    folder = save_model(AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **few)), tmp_path)
    prompt = list(range(9, 29))
    check_config(folder, "--model", [prompt], 4)
    actor = load_actor(folder, world, torch.float32)
    check_generation(actor, tokenizer, prompt, 4, folder, world, torch.float32)
    with pytest.raises(UserError, match="beyond 24 tokens"):
        check_config(folder, "--model", [prompt], 5)
