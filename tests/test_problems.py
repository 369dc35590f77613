"""Problems, prompts and their order."""

import json

import pytest

from distributed import UserError
from rollout import INSTRUCTION, load_problems, problems_of_step, prompt_tokens, read_template

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "P"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    "row, problem, answer",
    [
        ({"problem": "P", "answer": "42"}, "P", "42"),
        ({"question": "P", "answer": "thinking 3*4\n#### 1,234"}, "P", "1,234"),
        ({"question": "P", "final_answer": ["1", "2"]}, "P", "1, 2"),
        ({"problem": "P", "solution": "so \\boxed{\\frac{1}{2}}, no, \\boxed{3}"}, "P", "3"),
        ({"prompt": CHAT, "reward_model": {"ground_truth": "7"}}, "P", "7"),
        ({"problem": "P", "answer": 27.0}, "P", "27"),
        ({"problem": "P", "answer": 0}, "P", "0"),
        ({"problem": "P", "answer": "$x+1$"}, "P", "x+1")
    ]
)
def test_columns_of_the_usual_data_sets_are_understood(tmp_path, row, problem, answer):
    (loaded,) = load_problems(write(tmp_path / "d.jsonl", [row]), None, 0)
    assert (loaded.problem, loaded.answer) == (problem, answer)


def test_parquet_holds_the_same_as_jsonl(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"problem": f"P{i}", "answer": str(i)} for i in range(5)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "d.parquet")
    lines = write(tmp_path / "d.jsonl", rows)
    assert load_problems(str(tmp_path / "d.parquet"), None, 0) == load_problems(lines, None, 0)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"problem": "P", "answer": "1"}\n{"problem": "P", ', "line 2: not a JSON object"),
        ('["P", "1"]\n', "line 1: not a JSON object"),
        ('{"problem": "", "answer": "1"}\n', "line 1: no text in problem"),
        ('{"problem": "P", "level": "1"}\n', "line 1: no answer"),
        ("\n\n", "holds no problem"),
    ],
)
def test_bad_data_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "d.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_problems(str(path), None, 0)


def test_missing_files_short_sets_and_unreachable_hubs_are_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_problems(str(tmp_path / "none.jsonl"), None, 0)
    with pytest.raises(UserError, match="fewer than the 2"):
        load_problems(write(tmp_path / "d.jsonl", [{"problem": "P", "answer": "1"}]), 2, 0)
    with pytest.raises(UserError, match="could not be loaded from the hub"):
        load_problems("no-such/data-set", None, 0)


def test_a_subset_is_drawn_by_seed(tmp_path):
    path = write(tmp_path / "d.jsonl", [{"problem": f"P{i}", "answer": str(i)} for i in range(100)])
    assert load_problems(path, 10, 0) == load_problems(path, 10, 0) != load_problems(path, 10, 1)
    assert len(set(load_problems(path, 10, 0))) == 10


def test_every_epoch_sees_every_problem_once_in_another_order():
    problems = list(range(10))
    seen = [p for step in range(1, 6) for p in problems_of_step(problems, step, 4, seed=0)]
    first, second = seen[:10], seen[10:]
    assert sorted(first) == sorted(second) == problems and first != second
    # a step's problems do not depend on the steps before it, which is what makes resuming exact
    assert problems_of_step(problems, 3, 4, seed=0) == seen[8:12] != problems_of_step(problems, 3, 4, seed=1)


def test_templates_are_text_or_file_and_keep_other_braces(qwen, tokenizer, tmp_path):
    text = "1+1=2\n\\boxed{2}\n{problem}="
    path = tmp_path / "template.txt"
    path.write_text(text)
    for template in (text, str(path)):
        tokens = prompt_tokens("3+4", read_template(template, tokenizer, qwen), tokenizer)
        assert tokenizer.decode(tokens) == "1+1=2\n\\boxed{2}\n3+4="
    for bad in ("no placeholder", str(tmp_path / "none.txt")):
        with pytest.raises(UserError, match="neither a text with {problem}"):
            read_template(bad, tokenizer, qwen)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template; give --template"):
        read_template(None, tokenizer, qwen)


def test_the_chat_template_asks_for_a_box(tokenizer):
    seen = []
    tokenizer.chat_template = "{{ messages[0].content }}"
    encode = tokenizer.encode
    tokenizer.encode = lambda text, **kwargs: seen.append((text, kwargs)) or encode(text, **kwargs)
    prompt_tokens("3+4", None, tokenizer)
    assert seen == [("3+4" + INSTRUCTION, {"add_special_tokens": False})] and "\\boxed{}" in INSTRUCTION
