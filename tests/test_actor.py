"""The actor's log-probabilities and entropies: values, gradients, positions."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import actor as actor_module
from actor import ChunkedHead, load_actor


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("n, chunk", [(1, 256), (100, 7), (100, 100), (100, 256)])
def test_chunked_head_equals_full_logits_in_values_and_gradients(monkeypatch, n, chunk, temperature):
    monkeypatch.setattr(actor_module, "HEAD_CHUNK", chunk)
    torch.manual_seed(0)
    hidden, weight = torch.randn(n, 16), torch.randn(50, 16)
    targets = torch.randint(50, (n,))
    grad_logp, grad_entropy = torch.randn(n), torch.randn(n)

    def run(dtype, function):
        h, w = (x.to(dtype, copy=True).requires_grad_() for x in (hidden, weight))
        logp, entropy = function(h, w)
        ((logp * grad_logp).sum() + (entropy * grad_entropy).sum()).backward()
        return logp, entropy, h.grad, w.grad

    def full(h, w):
        distribution = torch.distributions.Categorical(logits=h @ w.T / temperature)
        return distribution.log_prob(targets), distribution.entropy()

    ours = run(torch.float32, lambda h, w: ChunkedHead.apply(h, w, targets, temperature))
    for mine, exact in zip(ours, run(torch.float64, full)):
        assert mine.dtype == torch.float32
        assert (mine - exact).norm() <= 1e-6 * exact.norm() + 1e-7


def test_chunked_head_has_the_gradient_of_log_probability_alone():
    torch.manual_seed(0)
    hidden = torch.randn(9, 8, requires_grad=True)
    weight, targets = torch.randn(20, 8), torch.randint(20, (9,))
    logp, entropy = ChunkedHead.apply(hidden, weight.requires_grad_(), targets, 1.0)
    logp.sum().backward()
    expected = torch.autograd.grad(-torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="sum"), hidden)[0]
    assert torch.allclose(hidden.grad, expected, atol=1e-5)


@pytest.mark.parametrize("model", ["qwen", "llama"])
def test_scores_are_those_of_the_next_token_in_plain_transformers(model, request, world):
    name = request.getfixturevalue(model)
    plain = AutoModelForCausalLM.from_pretrained(name)
    actor = load_actor(name, world, torch.float32)
    torch.manual_seed(0)
    prompt_len, response_len = [3, 5, 1], [4, 1, 6]
    tokens = torch.randint(3, 60, (3, 9))
    with torch.no_grad():
        logp_N, entropy_N = actor(tokens, torch.tensor(prompt_len), torch.tensor(response_len), 0.8)
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
    from transformers import GraniteConfig, GraniteForCausalLM

    from distributed import UserError
    from tests.conftest import shape

    GraniteForCausalLM(GraniteConfig(**shape(logits_scaling=8.0))).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="plain linear map"):
        load_actor(str(tmp_path), world, torch.float32)


def test_dropout_is_off_even_in_training_mode(tmp_path, world):
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.conftest import shape

    LlamaForCausalLM(LlamaConfig(**shape(attention_dropout=0.5))).save_pretrained(tmp_path)
    actor = load_actor(str(tmp_path), world, torch.float32)
    assert actor.training
    inputs = torch.randint(3, 60, (2, 12)), torch.tensor([4, 4]), torch.tensor([8, 8])
    with torch.no_grad():
        assert torch.equal(actor(*inputs, 1.0)[0], actor(*inputs, 1.0)[0])
