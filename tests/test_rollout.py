"""Problems, prompts, their order, stop tokens, and the rollout made of responses."""

import json

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from engine.batch import Response, make_rollout
from engine.errors import UserError
from rollout import INSTRUCTION, load_problems, problems_of_step, prompt_tokens, read_template, stop_token_ids

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "P"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("row, problem, answer", [
    ({"problem": "P", "answer": "42"}, "P", "42"),
    ({"question": "P", "answer": "thinking 3*4\n#### 1,234"}, "P", "1,234"),
    ({"question": "P", "final_answer": ["1", "2"]}, "P", "1, 2"),
    ({"problem": "P", "solution": "so \\boxed{\\frac{1}{2}}, no, \\boxed{3}"}, "P", "3"),
    ({"prompt": CHAT, "reward_model": {"ground_truth": "7"}}, "P", "7"),
    ({"problem": "P", "answer": 27.0}, "P", "27"),
    ({"problem": "P", "answer": 0}, "P", "0"),
    ({"problem": "P", "answer": "$x+1$"}, "P", "x+1"),
    ({"problem": "P", "answer": [0.1, 2]}, "P", "0.1, 2"),
    ({"problem": "P", "answer": 10**400}, "P", "1" + "0" * 400),
    ({"problem": "P", "answer": "", "final_answer": [], "solution": "so \\boxed{3}"}, "P", "3"),
    ({"problem": "P", "answer": None, "solution": "so \\boxed{3}"}, "P", "3"),
    # byte order marks, pasted from a file that begins with one
    ({"problem": "\ufeffP", "answer": "\ufeff3"}, "P", "3")])
def test_columns_of_the_usual_data_sets_are_understood(tmp_path, row, problem, answer):
    (loaded,) = load_problems(write(tmp_path / "d.jsonl", [row]), None, 0)
    assert (loaded.problem, loaded.answer) == (problem, answer)


def test_parquet_holds_the_same_as_jsonl(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"problem": f"P{i}", "answer": str(i)} for i in range(5)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "d.parquet")
    lines = write(tmp_path / "d.jsonl", rows)
    assert load_problems(str(tmp_path / "d.parquet"), None, 0) == load_problems(lines, None, 0)


@pytest.mark.parametrize("text, message", [
    ('{"problem": "P", "answer": "1"}\n{"problem": "P", ', "line 2: not a JSON object"),
    ('["P", "1"]\n', "line 1: not a JSON object"),
    ('{"problem": "", "answer": "1"}\n', "line 1: no text in problem"),
    ('{"problem": "P", "level": "1"}\n', "line 1: no answer"),
    ("\n\n", "holds no problem"),
    ('{"problem": "P\\ud800", "answer": "1"}\n', "line 1: it holds a lone surrogate"),
    ('{"problem": "P", "answer": "\\udc00"}\n', "line 1: it holds a lone surrogate"),
    ('{"problem": "P", "answer": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 1: not a JSON object"),
    ("\n" + '{"problem": "P", "answer": ' + "[" * 900 + "]" * 900 + "}\n", "line 2: .* not list")])
def test_bad_data_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "d.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_problems(str(path), None, 0)


@pytest.mark.parametrize("answer, named", [
    ("NaN", "nan"), ("-Infinity", "-inf"), ("1e999", "inf"), ("true", "bool"), ('{"value": "3"}', "dict"),
    ('[["3"]]', "list"), ("[null]", "NoneType"), ('["3", {}]', "dict"), ("[1, NaN]", "nan")])
def test_a_gold_that_is_no_text_number_or_list_of_these_is_refused_with_its_line(tmp_path, answer, named):
    path = tmp_path / "d.jsonl"
    path.write_text('{"problem": "P", "answer": "1"}\n{"problem": "P", "answer": %s}\n' % answer)
    with pytest.raises(UserError, match=f"line 2: an answer is text, an integer, .*, not {named}"):
        load_problems(str(path), None, 0)


def test_golds_of_columnar_files_are_written_in_the_digits_of_their_type(tmp_path, monkeypatch):
    """A float32 written as 0.1 reads as 0.1, not as the nearest double; also in data sets of the hub."""
    datasets = pytest.importorskip("datasets")
    kinds = {"float32": (0.1, "0.1"), "float16": (0.1, "0.1"), "float64": (0.1, "0.1"), "int8": (3, "3"),
             "large_string": ("x", "x")}
    for kind, (value, gold) in kinds.items():
        for answer in ({"answer": value}, {"answer": [value]}, {"reward_model": {"ground_truth": value}}):
            ((key, inner),) = answer.items()
            type_of = datasets.Value(kind)
            if key == "reward_model":
                type_of = {"ground_truth": type_of}
            elif isinstance(inner, list):
                type_of = datasets.List(type_of)
            features = datasets.Features({"problem": datasets.Value("string"), key: type_of})
            table = datasets.Dataset.from_list([{"problem": "P"} | answer], features=features)
            table.to_parquet(tmp_path / "d.parquet")
            monkeypatch.setattr("datasets.load_dataset", lambda *args, table=table, **kwargs: table)
            for source in (str(tmp_path / "d.parquet"), "hub/set"):
                assert load_problems(source, None, 0)[0].answer == gold
    datasets.Dataset.from_list([{"problem": "P", "answer": b"3"}]).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(UserError, match="row 1: an answer is text, .*, not bytes"):
        load_problems(str(tmp_path / "d.parquet"), None, 0)


def test_a_missing_file_a_short_set_and_an_unreachable_hub_are_errors(tmp_path):
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
    # a step's problems do not depend on earlier steps, so a resumed run continues exactly
    assert problems_of_step(problems, 3, 4, seed=0) == seen[8:12] != problems_of_step(problems, 3, 4, seed=1)


def test_templates_are_text_or_file_and_keep_other_braces(qwen, tokenizer, tmp_path):
    text = "1+1=2\n\\boxed{2}\n{problem}="
    path = tmp_path / "template.txt"
    path.write_text(text)
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + text.encode())
    for template in (text, str(path), "\ufeff" + text, str(marked)):
        tokens = prompt_tokens("3+4", read_template(template, tokenizer, qwen), tokenizer)
        assert tokenizer.decode(tokens) == "1+1=2\n\\boxed{2}\n3+4="
    (tmp_path / "binary").write_bytes(bytes(range(256)) + b"{problem}")
    files = [str(tmp_path / name) for name in ("none.txt", "binary", "")]
    for bad in ("no placeholder", "é" * 200, "", *files):
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


@pytest.mark.parametrize("added, template, prompt", [
    ("$A <|eos|>", "{problem}=", "3+4="),
    ("<|unk|> $A", "{problem}=", "<|unk|>3+4="),
    ("<|unk|> $A <|eos|>", "<|unk|>{problem}=", "<|unk|>3+4="),
    ("$A", "{problem}=<|eos|>", "3+4=<|eos|>")])
def test_a_prompt_begins_once_as_its_tokenizer_begins_and_ends_as_its_template_ends(
        tokenizer, added, template, prompt):
    """Some tokenizers append EOS (trlx#253), and one BOS is enough (vllm#7491)."""
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|unk|>", "<|eos|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=added, special_tokens=special)
    assert tokenizer.decode(prompt_tokens("3+4", template, tokenizer)) == prompt


@pytest.mark.parametrize("broken", [
    "{{ raise_exception('no') }}", "{{ messages[0] ", "{{ messages[9].content }}", "{{ 1 / 0 }}"])
def test_a_chat_template_that_fails_is_named(tokenizer, broken):
    tokenizer.chat_template = broken
    with pytest.raises(UserError, match=f"^{tokenizer.name_or_path}: its chat template fails"):
        prompt_tokens("3+4", None, tokenizer)


# -- stop tokens, the rollout --------------------------------------------------------------------------------
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
    rollout = make_rollout(responses, golds=["a", "b"], answers=["1", "2"], rewards=[1.0, 0.0], group_size=1)
    assert rollout.mask_BT.tolist() == [[True, True, False, False], [True] * 4]
    assert rollout.tokens_BS.tolist() == [[5, 6, 7, 1, 0], [8, 9, 9, 9, 9]]
    assert rollout.truncated_B.tolist() == [False, True] and rollout.group_B.tolist() == [0, 1]
    # column 1 of response 0 is its ending token, id 1
    x_BT = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    assert rollout.pick(x_BT, [0], torch.device("cpu")).tolist() == [1.0, 2.0]


def test_a_reward_function_may_count_in_any_type_of_number():
    responses = [Response([5], [6, 1], truncated=False)] * 2
    for rewards in ([True, False], [1, 0], [1.0, 0.0]):
        rollout = make_rollout(responses, golds=["1", "1"], answers=["1", "2"], rewards=rewards, group_size=2)
        assert rollout.rewards_B.dtype == torch.float32 and rollout.rewards_B.tolist() == [1.0, 0.0]
