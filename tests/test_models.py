"""Actor and critic: which positions they score, in which precision, what they refuse, saving and loading."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

import asyppo
from critics import ValueData, ensemble_values
from distributed import UserError
from models import load_actor, load_critic, save_critic
from tests.conftest import shape
from tests.synthetic import fit, make_synthetic_rollout
from updates import score_responses


@pytest.fixture
def model_with_dropout(tmp_path) -> str:
    LlamaForCausalLM(LlamaConfig(**shape(attention_dropout=0.5))).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_scores_are_those_of_the_next_token_in_plain_transformers(model, request, world):
    name = request.getfixturevalue(model)
    plain = AutoModelForCausalLM.from_pretrained(name)
    actor = load_actor(name, world, torch.float32, temperature=0.8)
    torch.manual_seed(0)
    prompt_len, response_len = [3, 5, 1], [4, 1, 6]
    tokens = torch.randint(3, 60, (3, 9))
    with torch.no_grad():
        logp_N, entropy_N, _ = actor.score((tokens, torch.tensor(prompt_len), torch.tensor(response_len)))
        expected_logp, expected_entropy = [], []
        for b in range(3):
            # one response at a time, without padding
            sequence = tokens[b : b + 1, : prompt_len[b] + response_len[b]]
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
    inputs = torch.randint(3, 60, (2, 12)), torch.tensor([4, 4]), torch.tensor([8, 8])
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
def test_what_a_loss_is_made_of_is_not_rounded_under_bf16_compute(load, qwen, world):
    """FSDP casts what a model's methods are given to the compute type unless told otherwise."""
    model = load(qwen, world, torch.bfloat16)
    rollout = make_synthetic_rollout()
    every, n = list(range(len(rollout))), int(rollout.mask_BT.sum())
    fine_N, on_N = torch.full((n,), FINE), torch.ones(n, dtype=torch.bool)
    seen = []

    def token_loss(scores_N, *rest):
        seen.append(rest[-1])
        # 1 for every token, as a function of what the model says so that it can be differentiated
        return scores_N - scores_N.detach() + 1, {}

    if load is load_actor:
        data, how = asyppo.PolicyData(-fine_N, fine_N, on_N, on_N), dict(with_entropy=False)
    else:
        data, how = ValueData(fine_N), {}
    # the sum of weight · 1 is then this one weight
    weights_N = torch.zeros(n)
    weights_N[0] = FINE
    loss, _ = model.loss(
        rollout.inputs(every, world.device), weights_N=weights_N, data=data, token_loss=token_loss, **how
    )
    assert loss.dtype == torch.float32 and loss.item() == FINE
    for given, received in zip(data, map(torch.cat, zip(*seen))):
        assert received.dtype == given.dtype and torch.equal(received, given)


def test_a_saved_critic_comes_back_with_its_head_and_a_wrong_head_is_refused(
    new_critics, tokenizer, world, tmp_path
):
    (critic,) = new_critics(1)
    rollout = make_synthetic_rollout()
    fit([critic], rollout, torch.ones(1, 24, dtype=torch.bool), world, critic_epochs=3)
    save_critic(critic, tokenizer, tmp_path, world)
    again = load_critic(str(tmp_path), world, torch.float32)
    values, values_again = (ensemble_values([x], rollout, 4096, world) for x in (critic, again))
    assert torch.equal(values, values_again) and (values != 0).any()
    head = load_file(tmp_path / "value_head.safetensors")
    head["weight"] = head["weight"][:, :8].contiguous()
    save_file(head, tmp_path / "value_head.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        load_critic(str(tmp_path), world, torch.float32)


def test_a_model_whose_weights_are_incomplete_is_refused(qwen, tmp_path, world):
    shutil.copytree(qwen, tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing, layers.1.mlp.up_proj.weight"):
        load_critic(str(tmp_path / "model"), world, torch.float32)
    (tmp_path / "model/model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="could not be loaded"):
        load_actor(str(tmp_path / "model"), world, torch.float32)
