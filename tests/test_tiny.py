"""The embedded task: what it is made of, and what can be known of its returns."""

import json
import random
import re

import pytest

from tests.conftest import ROOT
from tiny import make_tiny
from tiny.make_tiny import batches_of_homework, explained_share, known_at, make_tokenizer, marks
from tiny.make_tiny import right_solution, solution

TINY = ROOT / "tiny"


def test_solutions_and_marks_worked_by_hand():
    assert right_solution([7, 5, -3]) == "7+5=12\n12-3=9\n\\boxed{9}"
    wrong = solution([7, 5, -3], [12, 8])
    assert wrong == "7+5=12\n12-3=8\n\\boxed{8}"
    assert list(marks([7, 5, -3], wrong).items()) == [(6, "."), (13, "x")]
    # stopped within a line, only what stands there counts: all is right before the 8, and nothing after it
    assert "".join(marks([7, 5, -3], wrong, anywhere=True).values()) == "." * 13 + "xxxx"
    # 1 for 12 is right so far, but not as a whole line
    cut = marks([7, 5, -3], "7+5=1\n", anywhere=True)
    assert "".join(cut.values()) == ".....x"
    # a second error that undoes the first makes the total right again, and not the line
    again = solution([7, 5, -3], [11, 9])
    assert again == "7+5=11\n11-3=9\n\\boxed{9}" and list(marks([7, 5, -3], again).values()) == ["x", "x"]


def test_the_share_that_a_key_explains_worked_by_hand():
    # a is worth 1/2, b 1: squares left 2 · 1/4, of 4 · 3/16 about the mean 3/4
    known = [("a", 0.0), ("a", 1.0), ("b", 1.0), ("b", 1.0)]
    new = [("a", 1.0), ("a", 0.0), ("b", 1.0), ("b", 1.0)]
    assert explained_share(known, new) == pytest.approx(1 - 0.5 / 0.75)
    # a key that nobody has met is worth the mean of all, 3/4: one more square of 1/16, and the mean is 4/5
    assert explained_share(known, [*new, ("c", 1.0)]) == pytest.approx(1 - (0.5 + 1 / 16) / (5 * 4 / 25))
    assert explained_share(known, [("a", 0.0), ("b", 1.0)]) == pytest.approx(1 - 0.25 / 0.5)


def test_what_is_known_behind_a_line():
    right = right_solution([2, 9, -4])
    one_each = (1, 1)  # +9 is hard, −4 easy
    for written, left, ok in (
        ("", (1, 1), True), ("2+9=", (1, 1), True), ("2+9=12", (0, 1), False), ("2+9=11\n", (0, 1), True),
        ("2+9=11\n11-4=7\n", (0, 0), True), ("2+9=12\n12-4=8\n\\boxed{8", (0, 0), False),
    ):
        known = known_at([2, 9, -4], written, right)
        assert known == {"prompt": one_each, "signs": (one_each, left), "everything": (one_each, left, ok)}


def test_what_can_be_known_of_a_task_small_enough_to_enumerate(monkeypatch):
    """Two steps, each wrong with probability 1/2, in 16 tokens: `1+1=2 ⏎ 2+1=3 ⏎ \\boxed{ 3 } EOS`. Nothing
    is known before the first result is written (5 tokens), then (6 tokens) whether the return is 0 or worth
    1/2, then (5) all of it."""
    monkeypatch.setattr(make_tiny, "make_problem", lambda rng: [1, 1, 1])

    def write_steps(terms, rng, errs):
        first = 2 + rng.randint(0, 1)
        return [first, first + 1 + rng.randint(0, 1)]

    monkeypatch.setattr(make_tiny, "write_steps", write_steps)
    shares = make_tiny.returns_known(8000, 1.0, seed=0)
    assert shares["mean return"] == pytest.approx(1 / 4, abs=0.02)
    assert shares["prompt"] == pytest.approx(0, abs=0.01) and shares["signs"] == pytest.approx(0, abs=0.01)
    variance = 1 / 4 * 3 / 4
    assert shares["everything"] == pytest.approx((6 * 1 / 16 + 5 * variance) / (16 * variance), abs=0.03)


def test_steps_err_as_often_as_said_and_stay_in_range():
    rng = random.Random(0)
    wrong: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(2000):
        terms = make_tiny.make_problem(rng)
        assert len(terms) in make_tiny.TERMS and make_tiny.stays_in_range(0, terms)
        totals = make_tiny.write_steps(terms, rng)
        assert all(0 <= total <= make_tiny.LARGEST_TOTAL for total in totals)
        for before, term, total in zip([terms[0], *totals], terms[1:], totals):
            wrong[abs(term) in make_tiny.HARD].append(total != before + term)
    hard, easy = (sum(wrong[is_hard]) / len(wrong[is_hard]) for is_hard in (True, False))
    assert hard == pytest.approx(make_tiny.WRONG_HARD, abs=0.03)
    assert easy == pytest.approx(make_tiny.WRONG_EASY, abs=0.01)
    terms = [1, 9, -8, 7]
    assert make_tiny.write_steps(terms, rng, errs=0.0) == [10, 2, 9]


@pytest.mark.parametrize("where", list(make_tiny.MARKED))
def test_homework_is_the_text_with_marks_for_targets_only(where):
    tokenizer = make_tokenizer()
    tokens_BS, targets_BS = next(batches_of_homework(tokenizer, set(), where, random.Random(0)))
    places = n_marks = 0
    for tokens, targets in zip(tokens_BS.tolist(), targets_BS.tolist()):
        text = tokenizer.decode([t for t in tokens if t != make_tiny.PAD])
        prompt, solved = text.split("\n", 1)
        assert "." not in solved and "x" not in solved.replace("\\boxed", "")
        terms = [int(t) for t in re.findall(r"[+-]?\d+", prompt)]
        expected = marks(terms, solved, where == "anywhere")
        wanted = [*tokenizer.encode(solved), make_tiny.EOS]
        end = len(prompt) + len(wanted)
        assert set(targets[: len(prompt)] + targets[end:]) <= {-100}, "neither prompt nor padding is a target"
        for t, (token, target) in enumerate(zip(wanted, targets[len(prompt) : end])):
            places += t in expected
            n_marks += target != token
            assert target == token or target == tokenizer.convert_tokens_to_ids(expected[t])
    assert n_marks / places == pytest.approx(make_tiny.MARKED[where], abs=0.07)


def test_held_out_problems_are_no_homework(monkeypatch):
    monkeypatch.setattr(make_tiny, "make_problem", lambda rng: [1, rng.randint(1, 3)])
    assert {make_tiny.homework({"1+2"}, random.Random(seed))[1] for seed in range(40)} == {"1+1\n", "1+3\n"}


def test_tokens_are_characters_and_keep_their_places():
    tokenizer = make_tokenizer()
    text = "12-3=9.\n7+5~13x\n\\boxed{9}"
    assert tokenizer.decode(tokenizer.encode(text)) == text and len(tokenizer.encode("\\boxed{9}")) == 3
    known = ["<|pad|>", "<|eos|>", "0", "9", "+", "=", "\n", "\\boxed{", "}"]
    assert tokenizer.convert_tokens_to_ids(known) == [0, 1, 3, 12, 13, 15, 17, 18, 19]


def test_the_problems_in_this_folder_are_right_distinct_and_held_out():
    texts = [(TINY / f"{name}.jsonl").read_text() for name in ("train", "test")]
    train, test = ([json.loads(line) for line in text.splitlines()] for text in texts)
    assert (len(train), len(test)) == (make_tiny.N_TRAIN, make_tiny.N_TEST)
    assert len({p["problem"] for p in train + test}) == len(train) + len(test)
    for p in train + test:
        assert set(p) == {"problem", "answer"} and eval(p["problem"]) == int(p["answer"])
        terms = [int(t) for t in re.findall(r"[+-]?\d+", p["problem"])]
        assert len(terms) in make_tiny.TERMS and make_tiny.stays_in_range(0, terms)


def test_the_folder_stays_small():
    files = [path for path in TINY.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 6e6
