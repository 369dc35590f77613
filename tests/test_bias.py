"""Critics that have seen a response's return shorten its gradient; others do not. All is enumerated."""

import itertools
import math

import pytest
import torch

from experiments.bias.bias import END, GROUP, Measured, Task, enumerate_responses, make_task, measure

ROLLOUTS = 1500


def within(measured: Measured, expected: float) -> bool:
    return abs(measured.along - expected) < 4 * measured.error


@pytest.fixture(scope="module", params=[False, True], ids=["three tokens", "ends early"])
def task(request) -> Task:
    return make_task(request.param, seed=0)


@pytest.fixture(scope="module")
def measured(task) -> dict[str, Measured]:
    return measure(task, ROLLOUTS)


def test_the_papers_order_is_biased_by_construction(measured):
    first = measured["first"]
    assert first.along < 0.9 and first.along < 1 - 10 * first.error
    assert first.apart > 2.5 * first.noise


@pytest.mark.parametrize("order", ["last", "crossfit"])
def test_values_that_do_not_know_the_return_leave_the_gradient_unbiased(measured, order):
    assert within(measured[order], 1.0)
    assert measured[order].apart < 1.5 * measured[order].noise


def test_a_group_mean_that_counts_the_response_itself_is_short_by_one_over_the_group_size(measured):
    """Known without a measurement: the baseline's own share of the return is 1/G."""
    assert within(measured["group mean"], 1 - 1 / GROUP)


def test_the_exact_gradient_is_the_policy_gradient_of_every_response_one_by_one(task):
    exact_SV, _ = enumerate_responses(task)
    expected_SV = torch.zeros_like(exact_SV)
    policy = torch.softmax(task.logits_SV, -1).tolist()
    for prompt, response in itertools.product(range(2), itertools.product(range(5), repeat=3)):
        length = response.index(END) + 1 if task.ends_early and END in response else 3
        if any(response[length:]):
            continue  # the same response with other tokens after its end
        # 31 states of each prompt: none, one and two tokens
        states = [31 * prompt, 31 * prompt + 1 + response[0], 31 * prompt + 6 + 5 * response[0] + response[1]]
        steps = list(zip(states, response))[:length]
        p = math.prod(policy[s][o] for s, o in steps)
        reward = task.rewards[prompt][response].item()
        for s, o in steps:
            for v in range(5):
                expected_SV[s, v] += p * reward * ((v == o) - policy[s][v]) / 2
    assert torch.allclose(exact_SV, expected_SV, atol=1e-12)
