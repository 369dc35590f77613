"""The actor's log-probabilities and entropies: values, gradients, positions."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import actor as actor_module
from actor import LinearHead, load_actor


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
@pytest.mark.parametrize(
    "n, chunk, temperature, scale", [(1, 256, 1.0, 1.0), (100, 7, 0.7, 2.0), (100, 100, 1.3, 0.0), (100, 256, 0.7, 0.5)]
)
def test_the_head_equals_full_logits_in_values_and_gradients(monkeypatch, n, chunk, temperature, scale, entropy_coef):
    monkeypatch.setattr(actor_module, "HEAD_CHUNK", chunk)
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(n, 16), torch.randn(50, 16), torch.randint(50, (n,))
    slope, curve = torch.randn(n), torch.rand(n)

    def token_loss(logp, entropy, part):
        terms = slope[part] * logp + curve[part] * logp.exp().square()
        return terms - entropy_coef * curve[part] * entropy if entropy_coef else terms

    def run(dtype, scores):
        h, w = (x.to(dtype, copy=True).requires_grad_() for x in (hidden, weight))
        loss, logp, entropy = scores(h, w)
        (loss * scale).backward()
        return loss.detach(), logp, entropy, h.grad, w.grad

    def full(h, w):
        distribution = torch.distributions.Categorical(logits=h @ w.T / temperature)
        logp, entropy = distribution.log_prob(targets), distribution.entropy()
        return token_loss(logp, entropy, slice(None)).sum(), logp.detach(), entropy.detach()

    ours = run(torch.float32, lambda h, w: LinearHead.apply(h, w, targets, temperature, token_loss, entropy_coef > 0))
    for what, mine, exact in zip(("loss", "logp", "entropy", "hidden", "weight"), ours, run(torch.float64, full)):
        if what == "entropy" and not entropy_coef:
            assert mine.isnan().all()  # not asked for
            continue
        assert mine.dtype == torch.float32
        assert (mine - exact).norm() <= 1e-6 * exact.norm() + 1e-7


def test_scoring_and_training_see_the_same_log_probabilities_to_the_last_bit():
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(600, 16, requires_grad=True), torch.randn(50, 16), torch.randint(50, (600,))
    trained = LinearHead.apply(hidden, weight, targets, 0.7, lambda logp, entropy, part: logp + entropy, True)
    with torch.no_grad():
        scored = LinearHead.apply(hidden, weight, targets, 0.7, None, True)
    assert torch.equal(trained[1], scored[1]) and torch.equal(trained[2], scored[2])


def test_gradients_of_many_chunks_in_bf16_are_as_good_as_one_chunks(monkeypatch):
    """Small addends to a large bf16 sum would vanish: chunks are added in fp32, and rounded once."""
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(2000, 16), torch.randn(50, 16), torch.randint(50, (2000,))

    def gradient(dtype, chunk):
        monkeypatch.setattr(actor_module, "HEAD_CHUNK", chunk)
        h, w = (x.bfloat16().to(dtype).requires_grad_() for x in (hidden, weight))
        LinearHead.apply(h, w, targets, 1.0, lambda logp, entropy, part: logp.exp(), False)[0].backward()
        return w.grad.float()

    exact = gradient(torch.float32, 2000)
    one, many = (((gradient(torch.bfloat16, chunk) - exact).norm() / exact.norm()).item() for chunk in (2000, 4))
    assert one < 0.02 and many < 1.5 * one


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
