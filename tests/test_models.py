"""Actor and critic: positions, precision, the head, loading and saving, and the checks before a run."""

import dataclasses
import json
import shutil
from typing import NamedTuple

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

import asyppo
from critics import ValueData, ensemble_values
from engine import generation, head
from engine.errors import UserError
from engine.head import LogitsTransform
from engine.model_check import check_config, check_generation, check_states
from engine.models import load_actor, load_critic, save_critic
from engine.updates import score_responses
from tests.conftest import save_model, shape
from tests.runs import FEW, run
from tests.synthetic import fit, inputs_of, make_synthetic_rollout

PROMPTS = [torch.randint(9, 64, (n,)).tolist() for n in (5, 9)]


@pytest.fixture
def model_with_dropout(tmp_path) -> str:
    LlamaForCausalLM(LlamaConfig(**shape(attention_dropout=0.5))).save_pretrained(tmp_path)
    return str(tmp_path)


# first, because it starts a process group of its own
def test_nothing_is_written_for_a_model_that_generates_wrongly(tmp_path, monkeypatch):
    monkeypatch.setattr(generation.RoomyLayer, "reorder_cache", lambda self, rows: None)
    error = run("train.py", *FEW, "--out", tmp_path / "run", code=2).stderr
    assert "train.py: error: --model" in error and not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_scores_are_those_of_the_next_token_in_plain_transformers(model, request, world):
    name = request.getfixturevalue(model)
    plain = AutoModelForCausalLM.from_pretrained(name)
    actor = load_actor(name, world, torch.float32, temperature=0.8)
    torch.manual_seed(0)
    prompt_len, response_len = [3, 5, 1], [4, 1, 6]
    tokens = torch.randint(3, 60, (3, 9))
    with torch.no_grad():
        logp_N, entropy_N = actor.score(inputs_of(tokens.tolist(), prompt_len, response_len))
        expected_logp, expected_entropy = [], []
        for b in range(3):
            sequence = tokens[b : b + 1, : prompt_len[b] + response_len[b]]  # alone, without padding
            logp_SV = torch.log_softmax(plain(sequence).logits[0].double() / 0.8, -1)
            for t in range(prompt_len[b], prompt_len[b] + response_len[b]):
                expected_logp.append(logp_SV[t - 1, sequence[0, t]].item())
                expected_entropy.append(-(logp_SV[t - 1].exp() * logp_SV[t - 1]).sum().item())
    assert logp_N.tolist() == pytest.approx(expected_logp, abs=1e-5)
    assert entropy_N.tolist() == pytest.approx(expected_entropy, abs=1e-5)


def test_a_model_whose_logits_are_not_a_plain_head_is_refused(tmp_path, world):
    model = PhiForCausalLM(PhiConfig(**shape()))
    torch.nn.init.ones_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="plain linear map"):
        load_actor(str(tmp_path), world, torch.float32)


def test_dropout_is_off_even_in_training_mode(model_with_dropout, world):
    actor = load_actor(model_with_dropout, world, torch.float32).train()
    inputs = inputs_of(torch.randint(3, 60, (2, 12)).tolist(), [4, 4], [8, 8])
    with torch.no_grad():
        assert torch.equal(actor.score(inputs), actor.score(inputs))


def test_weights_stay_in_fp32_under_bf16_compute_and_dropout_is_off_everywhere(model_with_dropout, world):
    rollout = make_synthetic_rollout()
    for load in (load_actor, load_critic):
        model = load(model_with_dropout, world, torch.bfloat16).train()
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        first, second = (score_responses(model, rollout, 4096, world) for _ in range(2))
        assert torch.equal(first, second)


# bf16 would round it to 1
FINE = 1 + 2**-12


@pytest.mark.parametrize("load", [load_actor, load_critic])
def test_the_inputs_of_a_loss_are_not_rounded_under_bf16_compute(load, qwen, world):
    """FSDP casts the arguments of a model's methods to the compute type unless told otherwise."""
    model = load(qwen, world, torch.bfloat16)
    rollout = make_synthetic_rollout()
    every, n = list(range(len(rollout))), int(rollout.mask_BT.sum())
    fine_N, on_N = torch.full((n,), FINE), torch.ones(n, dtype=torch.bool)
    seen = []

    def token_loss(scores_N, *rest):
        seen.append(rest[-1])
        # 1 for every token, and differentiable in the model's output
        return scores_N - scores_N.detach() + 1, {}

    if load is load_actor:
        data, options = asyppo.PolicyData(-fine_N, fine_N, on_N, on_N), dict(with_entropy=False)
    else:
        data, options = ValueData(fine_N), {}
    # the sum of weight · 1 is then this one weight
    weights_N = torch.zeros(n)
    weights_N[0] = FINE
    loss, _ = model.loss(rollout.inputs(every, world.device), weights_N, data, token_loss, **options)
    assert loss.dtype == torch.float32 and loss.item() == FINE
    for given, received in zip(data, map(torch.cat, zip(*seen))):
        assert received.dtype == given.dtype and torch.equal(received, given)


def test_a_saved_critic_comes_back_with_its_head_and_a_wrong_head_is_refused(
        new_critics, tokenizer, world, tmp_path, monkeypatch):
    (critic,) = new_critics(1)
    rollout = make_synthetic_rollout()
    fit([critic], rollout, torch.ones(1, 24, dtype=torch.bool), world, epochs=3)
    uploaded = tmp_path / "models--user--critic"  # as in the hub's cache
    folder = uploaded / "snapshots/1"
    save_critic(critic, tokenizer, folder, world)
    (uploaded / "refs").mkdir()
    (uploaded / "refs/main").write_text("1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    values = ensemble_values([critic], rollout, 4096, world)
    assert (values != 0).any()
    for name in (str(folder), "user/critic"):
        again = load_critic(name, world, torch.float32)
        assert torch.equal(ensemble_values([again], rollout, 4096, world), values)
    head = load_file(folder / "value_head.safetensors")
    head["weight"] = head["weight"][:, :8].contiguous()
    save_file(head, folder / "value_head.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        load_critic(str(folder), world, torch.float32)


def test_a_model_whose_weights_are_incomplete_is_refused(qwen, tmp_path, world):
    shutil.copytree(qwen, tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing.*layers.1.mlp.up_proj.weight"):
        load_critic(str(tmp_path / "model"), world, torch.float32)
    (tmp_path / "model/model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="could not be loaded"):
        load_actor(str(tmp_path / "model"), world, torch.float32)


def test_a_critic_reads_ids_beyond_its_embedding_as_its_last_row(qwen, world):
    critic = load_critic(qwen, world, torch.float32)
    torch.nn.init.normal_(critic.value_head.weight)
    with torch.no_grad():
        beyond, last = (critic.score(inputs_of([[9, 8, i, 7, 6]], [2], [3])) for i in (1000, 63))
    assert torch.equal(beyond, last)


# -- the checks before a run ---------------------------------------------------------------------------------
DYNAMIC = dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0)
FACTORS = dict(short_factor=[1.0] * 8, long_factor=[4.0] * 8, factor=4.0, rope_theta=10000.0)
LONG = dict(rope_type="longrope", original_max_position_embeddings=64) | FACTORS


@pytest.mark.parametrize("changes, response, part", [
    (dict(max_position_embeddings=64), 56, "beyond 64 tokens its context.* have 65;"),
    (dict(index_topk=64), 56, "beyond 64 tokens .* another attention"),
    (dict(rope_parameters=LONG), 56, "beyond 64 tokens .*longrope"),
    (dict(vocab_size=60), 8, "60 rows, .* token 63"),
    (dict(quantization_config=dict(quant_method="gptq")), 8, "quantized .gptq")])
def test_a_model_that_cannot_read_the_run_is_refused_by_its_configuration(changes, response, part, tmp_path):
    def check(changes, response):
        config = AutoConfig.for_model("llama", **shape()).to_dict() | changes
        (tmp_path / "config.json").write_text(json.dumps(config))
        return check_config(str(tmp_path), "--model", PROMPTS, response, ids=[63])

    assert check({}, response) == check(changes | dict(vocab_size=64, quantization_config=None), 55) == 64
    with pytest.raises(UserError, match=part):
        check(changes, response)


def test_positions_that_depend_on_the_batch_are_refused(tmp_path, world):
    config = AutoConfig.for_model("llama", **shape(max_position_embeddings=12, rope_parameters=DYNAMIC))
    folder = save_model(AutoModelForCausalLM.from_config(config), tmp_path / "dynamic")
    for load in (load_actor, load_critic):
        model = load(folder, world, torch.float32)
        with pytest.raises(UserError, match="scored alone and beside another, differ"):
            check_states(model, folder, world, torch.float32)


def test_states_that_differ_from_call_to_call_are_refused(actor, world):
    check_states(actor, "MODEL", world, torch.float32)
    noise = torch.nn.Dropout(0.5)
    actor.lm.model.layers[0].register_forward_hook(lambda layer, inputs, output: noise(output))
    with pytest.raises(UserError, match="MODEL: .* scored twice, differ"):
        check_states(actor, "MODEL", world, torch.float32)


def test_responses_that_differ_from_generate_or_are_scored_differently_are_refused(
        qwen, tokenizer, world, monkeypatch):
    def check():
        check_generation(actor, tokenizer, [PROMPTS[1]], 6, "MODEL", world, torch.float32)

    actor = load_actor(qwen, world, torch.float32)
    check()
    right, score = actor.transform, actor.score

    def score_wrongly(inputs):
        actor.transform = dataclasses.replace(right, scale=1.3)
        scores_3N = score(inputs)
        actor.transform = right
        return scores_3N

    with monkeypatch.context() as fault:
        fault.setattr(actor, "score", score_wrongly)
        with pytest.raises(UserError, match="scored differently than it is sampled"):
            check()
    # faults of the cache: its rows change places, or stay when a response has ended
    real = generation.RoomyLayer.reorder_cache

    def mix_up(layer, rows):
        real(layer, rows)
        layer.keys, layer.values = layer.keys.flip(0), layer.values.flip(0)

    for wrong, part in ((mix_up, "plain `generate`"), (lambda layer, rows: None, "fails while a few tokens")):
        monkeypatch.setattr(generation.RoomyLayer, "reorder_cache", wrong)
        with pytest.raises(UserError, match=f"MODEL: .*{part}"):
            check()


def test_the_check_stays_within_a_context_that_just_holds_one_prompt_and_its_response(
        tokenizer, tmp_path, world):
    few = shape(max_position_embeddings=24) | dict(n_embd=32, n_layer=2, n_head=2, n_positions=24)
    folder = save_model(AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **few)), tmp_path)
    prompt = list(range(9, 29))
    check_config(folder, "--model", [prompt], 4)
    actor = load_actor(folder, world, torch.float32)
    check_generation(actor, tokenizer, [prompt], 4, folder, world, torch.float32)
    with pytest.raises(UserError, match="beyond 24 tokens"):
        check_config(folder, "--model", [prompt], 5)


# -- the head equals full logits in values and gradients -----------------------------------------------------------
class Curves(NamedTuple):
    slope: torch.Tensor
    curve: torch.Tensor


def random_states(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-> hidden states, output embedding, targets"""
    torch.manual_seed(0)
    return torch.randn(n, 16), torch.randn(50, 16), torch.randint(50, (n,))


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
@pytest.mark.parametrize("n, chunk, factor, shape", [
    (1, 256, 1.0, LogitsTransform()), (100, 7, 2.0, LogitsTransform(0.7)), (100, 100, 0.0, LogitsTransform(1.3)),
    (100, 256, 0.5, LogitsTransform(0.7)), (100, 256, 2.0, LogitsTransform(0.7, scale=0.3)),
    (100, 7, 2.0, LogitsTransform(0.7, cap=5.0)),
    (100, 256, 1.0, LogitsTransform(1.0, scale=3.0, cap=30.0))], ids=str)
def test_the_head_equals_full_logits_in_values_and_gradients(
        monkeypatch, n, chunk, factor, shape, entropy_coef):
    monkeypatch.setattr(head, "HEAD_CHUNK", chunk)
    hidden, weight, targets = random_states(n)
    data, weights = Curves(torch.randn(n), torch.rand(n)), torch.rand(n)

    def token_loss(logp, entropy, data):
        seen.append((logp.detach(), entropy.detach()))
        loss = data.slope * logp + data.curve * logp.exp().square()
        if entropy_coef:
            loss = loss - entropy_coef * data.curve * entropy
        return loss, {"slope": data.slope}

    def chunked(h, w):
        return head.loss(h, w, targets, shape, token_loss, entropy_coef > 0, weights, data)

    def full(h, w):
        logits = h @ w.T * shape.scale
        logits = logits if shape.cap is None else shape.cap * torch.tanh(logits / shape.cap)
        distribution = torch.distributions.Categorical(logits=logits / shape.temperature)
        loss, logged = token_loss(distribution.log_prob(targets), distribution.entropy(), data)
        return (weights * loss).sum(), {"slope": (weights.double() * logged["slope"]).sum()}

    def results(dtype, loss_of):
        h, w = (x.to(dtype, copy=True).requires_grad_() for x in (hidden, weight))
        loss, logged = loss_of(h, w)
        (loss * factor).backward()
        logp, entropy = map(torch.cat, zip(*seen))
        seen.clear()
        return dict(loss=loss.detach(), logged=logged["slope"], logp=logp, entropy=entropy, hidden=h.grad,
                    weight=w.grad)

    seen = []
    ours, exact = results(torch.float32, chunked), results(torch.float64, full)
    if not entropy_coef:
        assert ours.pop("entropy").isnan().all()
    for what, mine in ours.items():
        assert mine.dtype == (torch.float64 if what == "logged" else torch.float32)
        assert (mine - exact[what]).norm() <= 1e-6 * exact[what].norm() + 1e-7, what


def test_scoring_and_training_see_the_same_log_probabilities_to_the_last_bit():
    hidden, weight, targets = random_states(600)
    seen = []

    def token_loss(logp, entropy, data):
        seen.append((logp.detach(), entropy.detach()))
        return logp + entropy, {}

    data = Curves(torch.zeros(600), torch.zeros(600))
    shape = LogitsTransform(0.7)
    head.loss(hidden.requires_grad_(), weight, targets, shape, token_loss, True, torch.ones(600), data)
    scored = head.score(hidden, weight, targets, shape)
    for in_training, in_scoring in zip(map(torch.cat, zip(*seen)), scored):
        assert torch.equal(in_training, in_scoring)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, 8.0], ids=["uncertain", "confident"])
def test_the_slope_is_the_norm_of_the_log_probabilitys_gradient(monkeypatch, scale, temperature):
    """Also where p is 1 within 1e-6, and a difference of squares would be rounding noise."""
    monkeypatch.setattr(head, "HEAD_CHUNK", 7)
    torch.manual_seed(0)
    hidden_NH, weight_VH = scale * torch.randn(60, 4), torch.randn(50, 4)
    logits_NV = (hidden_NH @ weight_VH.T).double() / temperature
    targets_N = torch.where(torch.arange(60) % 3 == 0, torch.randint(50, (60,)), logits_NV.argmax(1))
    logits_NV.requires_grad_()
    logp_N = torch.log_softmax(logits_NV, -1).gather(1, targets_N[:, None])
    (grad_NV,) = torch.autograd.grad(logp_N.sum(), logits_NV)
    slope_N = head.score(hidden_NH, weight_VH, targets_N, LogitsTransform(temperature), with_slope=True)[2]
    assert torch.allclose(slope_N.double(), grad_NV.norm(dim=1), rtol=1e-3, atol=1e-12)


def test_gradients_of_many_chunks_in_bf16_are_as_good_as_one_chunks(monkeypatch):
    """Small addends to a large bf16 sum would vanish, so chunks are added in fp32 and rounded once."""
    hidden, weight, targets = random_states(2000)

    def token_loss(logp, entropy, data):
        return logp.exp(), {}

    def gradient(dtype, chunk):
        monkeypatch.setattr(head, "HEAD_CHUNK", chunk)
        h, w = (x.bfloat16().to(dtype).requires_grad_() for x in (hidden, weight))
        data = Curves(torch.zeros(2000), torch.zeros(2000))
        loss, _ = head.loss(h, w, targets, LogitsTransform(), token_loss, False, torch.ones(2000), data)
        loss.backward()
        return w.grad.float()

    exact = gradient(torch.float32, 2000)
    one, many = (
        ((gradient(torch.bfloat16, chunk) - exact).norm() / exact.norm()).item() for chunk in (2000, 4))
    assert one < 0.02 and many < 1.5 * one
