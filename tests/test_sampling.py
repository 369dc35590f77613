"""What is sampled, where responses end, and what is said about it."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from generation import stop_token_ids
from rollout import Response, make_rollout, prompt_tokens


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_frequencies_are_the_softmax_although_the_generation_config_says_top_k_20(
    qwen, actor, draw, temperature
):
    assert actor.saved_generation_config.top_k == 20
    prompts = [[3, 4, 5], [9, 8, 7, 6, 5]]
    plain = AutoModelForCausalLM.from_pretrained(qwen)
    n = 20000
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


def test_a_prompt_is_answered_alike_in_any_batch_and_padding(qwen, draw):
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


def test_stop_tokens_come_from_every_file_and_from_the_chat_template(actor, tokenizer):
    # config.json says 1, generation_config.json says 1 and 2, the tokenizer says 1
    assert stop_token_ids(actor, tokenizer, "{problem}") == {1, 2}
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|end|>\n{% endfor %}"
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert stop_token_ids(actor, tokenizer, None) == {1, 2, end}
    assert prompt_tokens("1+1", None, tokenizer)[-2] == end


def test_the_ending_token_is_in_the_mask_and_padding_is_not():
    responses = [Response([5, 6], [7, 1], truncated=False), Response([8], [9, 9, 9, 9], truncated=True)]
    rollout = make_rollout(
        responses, golds=["a", "b"], answers=["1", "2"], rewards=[1.0, 0.0], group_size=1
    )
    assert rollout.mask_BT.tolist() == [[True, True, False, False], [True] * 4]
    assert rollout.tokens_BS.tolist() == [[5, 6, 7, 1, 0], [8, 9, 9, 9, 9]]
    assert rollout.truncated_B.tolist() == [False, True] and rollout.group_B.tolist() == [0, 1]
    # the ending token of response 0, token id 1, is scored: position 1 of its mask row picks it
    x_BT = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    assert rollout.pick(x_BT, [0], torch.device("cpu")).tolist() == [1.0, 2.0]


def test_a_reward_function_may_count_in_any_type_of_number():
    responses = [Response([5], [6, 1], truncated=False)] * 2
    for rewards in ([True, False], [1, 0], [1.0, 0.0]):
        rollout = make_rollout(responses, golds=["1", "1"], answers=["1", "2"], rewards=rewards, group_size=2)
        assert rollout.rewards_B.dtype == torch.float32 and rollout.rewards_B.tolist() == [1.0, 0.0]


def test_sampling_is_repeated_by_its_seed_and_changed_by_another(draw):
    def tokens(seed):
        return [r.tokens for r in draw([[5, 6]] * 8, seed=seed, max_new_tokens=8)]

    assert tokens(1) == tokens(1) != tokens(2)
