"""The gradient-signal study: passengers, estimators, products between batches, and intervals."""

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import asyppo
from engine.batch import Response, make_rollout
from engine.files import whole_rows
from engine.models import load_tokenizer
from engine.updates import score_responses
from experiments.claims.student import critical
from experiments.snr import lasting, snr
from experiments.snr.snr import (
    Estimator, Products, compared, gain_of_adam, gradients, jackknife, off_diagonal, on_diagonal, statistics)
from experiments.snr.trajectory import (
    area_under_curve, fitted, known_values, line_changes, line_rates, part, passenger, right_so_far, terms_of)
from tests.runs import ROOT
from train import train_step

TINY = str(ROOT / "tiny/actor")


# -- passengers ----------------------------------------------------------------------------------------------
def weights_of(critics) -> torch.Tensor:
    return torch.cat([x.detach().flatten() for critic in critics for x in critic.parameters()])


def test_a_passenger_with_a_head_to_fit_keeps_its_backbone(open_run, world, qwen):
    run = open_run("--max-new-tokens", 4, "--critic-minibatch-size", 2)
    run.rollout_config = replace(run.rollout_config, reward=lambda texts, golds: [len(text) % 2.0 for text in texts])
    rider = passenger([qwen], world, 1e-2, head_only=True)
    before = [x.clone() for x in (weights_of([rider.critics[0].backbone]), rider.critics[0].value_head.weight)]
    with run.verifier:
        rider.fit(train_step(run, 1)[1], 1, run)
    assert torch.equal(weights_of([rider.critics[0].backbone]), before[0])
    assert not torch.equal(rider.critics[0].value_head.weight, before[1])


@pytest.mark.parametrize("flags, settings", [
    ("--n-critics 2 --shard-by group --critic-epochs 2", dict(shard_by="group", epochs=2)),
    ("--n-critics 1 --shard-by none --critic-replay 2", dict(n_replay=2)),
])
def test_a_passenger_becomes_the_critic_that_the_run_would_train(open_run, world, qwen, flags, settings):
    common = "--critic-minibatch-size 2 --critic-lr 1e-3 --lr 1e-3 --max-new-tokens 4"
    run = open_run(*common.split(), *flags.split())
    run.rollout_config = replace(run.rollout_config, reward=lambda texts, golds: [len(text) % 2.0 for text in texts])
    rider = passenger([qwen] * len(run.critics), world, 1e-3, **settings)
    before = weights_of(rider.critics)
    with run.verifier:
        for step in range(1, 4):
            rollout = train_step(run, step)[1]
            rider.twin().fit(rollout, step, run)  # a twin's fit must leave no trace
            rider.fit(rollout, step, run)
            assert torch.equal(weights_of(rider.critics), weights_of(run.critics))
    assert not torch.equal(weights_of(rider.critics), before)


# -- what can be known of a state ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def written():
    """Three responses to 7+5-3: right; wrong in the second line; wrong in the first."""
    tokenizer = load_tokenizer(TINY, "--model")
    texts = ["7+5=12\n12-3=9\n\\boxed{9}", "7+5=12\n12-3=8\n\\boxed{8}", "7+5=13\n13-3=10\n\\boxed{10}"]
    encode = tokenizer.encode
    responses = [Response(encode("7+5-3\n"), [*encode(text), tokenizer.eos_token_id], False) for text in texts]
    return make_rollout(responses, ["9"] * 3, ["9", "8", "10"], [1.0, 0.0, 0.0], 3), tokenizer, texts


def test_terms_are_read_with_their_signs():
    assert terms_of("7+5-3") == [7, 5, -3]


def test_right_so_far_ends_behind_the_first_wrong_character(written):
    rollout, tokenizer, texts = written
    right_BT = right_so_far(rollout, tokenizer)
    # one token a character, but \\boxed{ is one: states are those before a token, and the last is before eos
    assert right_BT[0].sum() == rollout.response_len_B[0]
    for row, character in ((1, texts[1].index("8")), (2, texts[2].index("3"))):
        assert right_BT[row, : character + 1].all() and not right_BT[row, character + 1 :].any()


def test_a_critic_that_can_add_multiplies_the_lines_to_come(written):
    rollout, tokenizer, texts = written
    values_BT = known_values(rollout, {5: 0.5, -3: 0.8}, tokenizer)
    first, second = texts[0].index("12"), texts[0].index("=9") + 1
    expected = [0.4] * (first + 1) + [0.8] * (second - first) + [1.0] * (int(rollout.response_len_B[0]) - second - 1)
    assert values_BT[0][rollout.mask_BT[0]].tolist() == pytest.approx(expected)
    wrong = texts[1].index("8")
    assert values_BT[1, wrong] == pytest.approx(0.8) and values_BT[1, wrong + 1 :].eq(0).all()


def test_line_rates_count_lines_whose_predecessors_are_right(written):
    rollout, tokenizer, _ = written
    rates = line_rates(rollout, tokenizer)
    # +5: right, right, wrong; -3: right, wrong, and not counted behind a wrong line; one right of two beforehand
    assert rates[5] == 3 / 5 and rates[-3] == 2 / 4 and rates[1] == 1 / 2


def test_changes_of_values_are_those_over_lines_behind_a_right_text(written):
    rollout, tokenizer, texts = written
    values_BT = torch.zeros(rollout.mask_BT.shape)
    values_BT[:, 0] = 0.5
    second = texts[0].index("\n") + 1  # where the second line begins in all three responses
    values_BT[0, second], values_BT[1, second], values_BT[2, second] = 0.7, 0.6, 0.1
    third = [text.index("\n", second) + 1 for text in texts]
    values_BT[0, third[0]], values_BT[1, third[1]] = 0.9, 0.2
    change_L, wrong_L = line_changes(rollout, values_BT, tokenizer)
    # the right response's two lines; a right and a wrong one; a wrong one, behind which nothing counts
    assert change_L.tolist() == pytest.approx([0.2, 0.2, 0.1, -0.4, -0.4])
    assert wrong_L.tolist() == [False, False, False, True, True]


def test_area_under_curve_counts_pairs():
    order = np.random.default_rng(0)
    scores, labels = order.integers(0, 5, 40), order.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(scores[labels], scores[~labels])]
    assert area_under_curve(scores, labels) == pytest.approx(np.mean(pairs))
    assert math.isnan(area_under_curve(scores, np.ones(40, bool)))


# -- gradients -----------------------------------------------------------------------------------------------
@pytest.fixture
def responses(draw, actor, world):
    """512 responses of four tokens each; right if the first is even."""
    prompts = [[5, 6, 7], [9, 8]] * 256
    drawn = draw(prompts, max_new_tokens=4)
    rewards = [float(r.tokens[0] % 2 == 0) for r in drawn]
    rollout = make_rollout(drawn, [""] * 512, [None] * 512, rewards, 2)
    rollout.old_logp_BT, rollout.old_entropy_BT = score_responses(actor, rollout, 4096, world)
    return rollout


def test_the_gradient_is_that_of_the_weighted_log_probabilities(actor, responses):
    batch = part(responses, list(range(6)))
    torch.manual_seed(0)
    advantage_BT = torch.randn(batch.mask_BT.shape)
    keep_BT = torch.rand(batch.mask_BT.shape) < 0.7
    found_D = gradients(actor, batch, [Estimator(advantage_BT * 2, keep_BT), Estimator(advantage_BT, keep_BT)])[1]
    objective = 0.0
    for b in range(len(batch)):
        n_prompt, n = int(batch.prompt_len_B[b]), int(batch.response_len_B[b])
        tokens = batch.tokens_BS[b, : n_prompt + n]
        logp = actor.lm(tokens[None]).logits[0].log_softmax(-1)
        for t in range(n):
            if keep_BT[b, t]:
                weight = advantage_BT[b, t] / n / len(batch)
                objective = objective + weight * logp[n_prompt + t - 1, tokens[n_prompt + t]]
    expected = torch.autograd.grad(objective, list(actor.parameters()))
    assert torch.allclose(found_D, torch.cat([x.flatten() for x in expected]), atol=1e-6)


def difference_of_means(actor, responses, one_BT, other_BT) -> float:
    """Return the squared length of the difference of two mean gradients over its standard error."""
    rewards_BT = asyppo.terminal_rewards(responses.rewards_B, responses.mask_BT)
    n, size, each = 64, 8, []
    for b in range(n):
        rows = list(range(b * size, (b + 1) * size))
        batch = part(responses, rows)
        raw = [asyppo.gae(rewards_BT[rows], x_BT[rows], batch.mask_BT, 1.0, 1.0) for x_BT in (one_BT, other_BT)]
        one_D, other_D = gradients(actor, batch, [Estimator(raw_BT, batch.mask_BT) for raw_BT in raw])
        each.append(one_D - other_D)
    products_nn = (torch.stack(each) @ torch.stack(each).T).double().numpy()
    middle, error = jackknife(off_diagonal(products_nn))
    return middle / error


def test_at_lambda_1_values_of_states_leave_the_mean_gradient_alone_and_values_of_returns_do_not(actor, responses):
    """Any function of the state is a baseline. One that has seen the return is none: it must be found out."""
    assert (responses.response_len_B == 4).float().mean() > 0.9
    constant_BT = torch.full(responses.mask_BT.shape, 0.5)
    past_BT = torch.zeros(responses.mask_BT.shape)  # the share of even tokens so far
    for b in range(len(responses)):
        n_prompt, n = int(responses.prompt_len_B[b]), int(responses.response_len_B[b])
        even = (responses.tokens_BS[b, n_prompt - 1 : n_prompt + n - 1] % 2 == 0).float()
        past_BT[b, :n] = even.cumsum(0) / torch.arange(1, n + 1)
    seen_BT = constant_BT + 0.5 * (responses.rewards_B[:, None] - 0.5)
    assert abs(difference_of_means(actor, responses, past_BT, constant_BT)) < 4
    assert difference_of_means(actor, responses, seen_BT, constant_BT) > 4


# -- products between batches, and intervals -----------------------------------------------------------------
def test_leaving_out_a_batch_is_computing_without_it():
    x_nn = np.random.default_rng(0).standard_normal((7, 7))
    pairs, squares = off_diagonal(x_nn), on_diagonal(x_nn)
    for i in range(8):
        kept = x_nn if i == 0 else np.delete(np.delete(x_nn, i - 1, 0), i - 1, 1)
        n = len(kept)
        assert pairs[i] == pytest.approx(np.mean([kept[a, b] for a, b in itertools.permutations(range(n), 2)]))
        assert squares[i] == pytest.approx(np.mean([kept[a, a] for a in range(n)]))


def test_a_gain_of_adam_without_a_batch_is_that_of_the_others():
    torch.manual_seed(3)
    own_nD, reference_nD = torch.randn(2, 6, 9).double() + 0.5
    gains = gain_of_adam(own_nD, reference_nD)
    for i in range(7):
        kept = [b for b in range(6) if b != i - 1]
        root_D = own_nD[kept].square().mean(0).sqrt()
        pairs = [(own_nD[a] / root_D) @ reference_nD[b] for a, b in itertools.permutations(kept, 2)]
        assert gains[i] == pytest.approx(torch.stack(pairs).mean().item(), rel=1e-6)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(1).standard_normal(20)
    without = [np.delete(x, i).mean() for i in range(20)]
    middle, error = jackknife(np.array([x.mean(), *without]))
    assert middle == x.mean() and error == pytest.approx(x.std(ddof=1) / math.sqrt(20))


def test_intervals_cover_cosines_and_batch_sizes_that_are_known():
    """Gradients are normal with known means and deviations; two estimators share most of their noise."""
    order, n, dimensions, runs = np.random.default_rng(2), 32, 40, 300
    mean_D = order.standard_normal(dimensions) / dimensions**0.5  # length about 1
    length = np.linalg.norm(mean_D)
    deviations = {"can add": 0.25, snr.BASE: 0.4, snr.GRPO: 0.3}
    power = {name: length**2 + dimensions * deviation**2 for name, deviation in deviations.items()}
    true_cos = length / power[snr.BASE] ** 0.5
    true_times = math.log((power["can add"] / length**2 - 1) / (power[snr.BASE] / length**2 - 1)) * -1
    gain = {name: (mean_D**2 / np.sqrt(mean_D**2 + deviation**2)).sum() for name, deviation in deviations.items()}
    true_adam = 2 * math.log(gain["can add"] / gain[snr.BASE])
    covered = dict(cos=0, times=0, adam=0, snr=0)
    for _ in range(runs):
        shared_nD = order.standard_normal((n, dimensions))
        drawn = {}
        for name, deviation in deviations.items():
            own_nD = 0.8 * shared_nD + 0.6 * order.standard_normal((n, dimensions))
            drawn[name] = mean_D + deviation * own_nD
        reference_nD = drawn["can add"]
        products = {name: Products(x_nD @ reference_nD.T, x_nD @ x_nD.T, gain_of_adam(
            torch.tensor(x_nD), torch.tensor(reference_nD))) for name, x_nD in drawn.items()}
        found = {name: statistics(each, products["can add"]) for name, each in products.items()}
        rows, t = compared(found, dict.fromkeys(found)), critical(n - 1)
        cos, cos_error = rows[snr.BASE][:2]
        own, own_error = rows[snr.BASE][2:4]
        times, times_error = rows["can add"][6:8]
        adam, adam_error = rows["can add"][12:14]
        covered["cos"] += abs(cos - true_cos) < t * cos_error
        covered["times"] += abs(times - true_times) < t * times_error
        covered["adam"] += abs(adam - true_adam) < t * adam_error
        covered["snr"] += abs(own - length**2 / (dimensions * deviations[snr.BASE] ** 2)) < t * own_error
    # 95 % of 300 is 285 ± 4; the jackknife errs on the wide side
    assert all(runs * 0.92 <= count for count in covered.values()), covered


# -- the scripts ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Pretrained critics in the place of fitted ones."""
    folder = tmp_path_factory.mktemp("fits")
    for name in {name for n in (1, 2, 4) for name in fitted(folder, n, 1000)}:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / "tiny/critic")
    return folder


FEW = "--prompts-per-step 2 --group-size 4 --minibatch-size 8 --max-new-tokens 24".split()


def test_policies_are_probed_and_tabulated(fits, world, tmp_path):
    results = tmp_path / "snr.jsonl"
    riders = {name: snr.RIDERS[name] for name in ("one", "two")}
    snr.make_policies(0, fits, 1000, [0], 3, results, world, riders, FEW)
    rows = whole_rows(results)
    (row,) = rows
    found = row["estimators"]
    assert found[snr.BASE][6] == found[snr.BASE][12] == 0  # λ 1 against itself
    # a zero head has values of 0 before the fit: such a critic is none, but for its partner's columns
    nothing, one = found["nothing, λ 0.8"], found["one, before, λ 0.8"]
    assert [*nothing[:10], *nothing[12:16]] == [*one[:10], *one[12:16]] and nothing[0] and nothing[12]
    assert "| two, after, λ 1, mask σ | two, after, λ 1 |" in snr.table(rows)
    assert all(f"| {name} |" in snr.full_tables(rows) for name in rows[0]["partners"])
    known = {*snr.SHOWN, *snr.PAIRED} - {*rows[0]["partners"]}
    assert all(re.match("one, frozen|one, lasting|two, lasting|two, same data|(one of )?four", name) for name in known)


def test_critics_that_ride_along_are_measured(fits, world, tmp_path):
    few_problems = tmp_path / "few.jsonl"
    few_problems.write_text("".join((ROOT / "tiny/test.jsonl").read_text().splitlines(keepends=True)[:30]))
    settings = {name: lasting.SETTINGS[name] for name in ("frozen", "lr 1e-4, replay 4, 4 passes", "not fitted before")}
    rows = lasting.ride(0, fits, 1000, world, 2, 1, settings, (*FEW, "--eval-data", str(few_problems)))
    found = {row["setting"]: row for row in rows}
    assert {*found} == {*settings, "right so far", "accuracy"} and len(found["frozen"]["auc"]) == 3
    assert found["frozen"]["explained"] == [0.0] * 3  # the pretrained critic's head is zero, and it stays so
    assert found["frozen"]["auc"] == [0.5] * 3
    assert found["lr 1e-4, replay 4, 4 passes"]["auc"][0] == 0.5 != found["lr 1e-4, replay 4, 4 passes"]["auc"][2]
    assert found["lr 1e-4, replay 4, 4 passes"]["auc"][2] != found["not fitted before"]["auc"][2]
    assert found["right so far"]["auc"] == [1.0] * 3
    assert "| frozen |" in lasting.table([*rows, *(row | {"seed": 1} for row in rows)])
