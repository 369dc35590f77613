"""The page that shows a run from the inside says what the run did."""

import base64
import gzip
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from engine.log import Log
from experiments.inside import inside
from tests.runs import FEW, ROOT, rows, run

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module", params=["asyppo", "grpo"])
def out(request, tmp_path_factory):
    """One step, all of whose responses are saved, and its page."""
    out = tmp_path_factory.mktemp(request.param)
    flags = ["--algo", request.param, "--lr", 3e-4, "--steps", 1, "--eval-every", 1]
    run("train.py", "--out", out, *FEW, *flags)
    run("experiments/inside/inside.py", out, "--out", out / "page.html")
    return out


def responses(page: str) -> list[dict]:
    packed = re.search(r"gzip\+base64\">(.*?)</script>", page).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))["steps"]["1"]


def test_the_pages_numbers_are_those_of_the_metrics(out):
    (metrics,) = rows(out)
    all_ = responses((out / "page.html").read_text())
    tokens = {key: [x for r in all_ for x in r[key]] for key in ("entropy", "masked", "filtered", "tokens")}
    assert np.mean([r["reward"] for r in all_]) == metrics["reward_mean"]
    assert len(tokens["tokens"]) / len(all_) == metrics["response_len_mean"]
    assert np.mean(tokens["entropy"]) == pytest.approx(metrics["entropy"], rel=1e-3)
    assert np.mean(tokens["masked"]) == pytest.approx(metrics["adv_masked_frac"])
    assert np.mean(tokens["filtered"]) == pytest.approx(metrics["entropy_filtered_frac"])
    critics = sum(key.endswith("/loss") for key in metrics)
    assert all(len(r.get("value", [])) == critics for r in all_)
    if critics:
        values = [x for r in all_ for values_T in r["value"] for x in values_T]
        assert np.mean(values) == pytest.approx(metrics["value_mean"], rel=1e-3)
    if critics > 1:
        sigma = [x for r in all_ for x in r["sigma"]]
        assert np.quantile(sigma, 0.9) == pytest.approx(metrics["value_std_p90"], rel=1e-3)
        assert all(len(r["fitted"]) == 1 for r in all_) and {r["fitted"][0] for r in all_} == {0, 1}
    for sample, r in zip(rows(out, "rollouts.jsonl"), all_[::2], strict=True):
        assert "".join(r["tokens"]) == sample["response"] and r["prompt"] == sample["prompt"]
        assert (r["answer"] or None, r["gold"]) == (sample["answer"], sample["gold"])
        assert r["reward"] == sample["reward"]


@torch.no_grad()
def test_the_ratio_is_that_of_the_saved_model_and_the_one_before(out):
    """Both loaded by plain transformers."""
    tokens_BS = torch.tensor(np.load(out / "inside/step-1.npz")["tokens_BS"])
    before, after = (
        AutoModelForCausalLM.from_pretrained(model)(tokens_BS).logits.log_softmax(-1)
        for model in (ROOT / "tiny/actor", out / "model")
    )
    ratio_BS = (after - before)[:, :-1].gather(2, tokens_BS[:, 1:, None])[..., 0].exp()
    prompts = np.load(out / "inside/step-1.npz")["prompt_len_B"]
    shown = responses((out / "page.html").read_text())
    for ratio_S, first, r in zip(ratio_BS, prompts, shown):
        expected = ratio_S[first - 1 : first - 1 + len(r["tokens"])].tolist()
        assert r["ratio"] == pytest.approx(expected, rel=1e-3)
    assert max(abs(x - 1) for r in shown for x in r["ratio"]) > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_a_browser_shows_the_responses_and_the_numbers_of_the_token_in_the_address(out, tmp_path):
    """The address asks for the ratio; then the key 1, for the first quantity, and an arrow are pressed."""
    all_ = responses(page := (out / "page.html").read_text())
    r, t = all_[3], 4
    keys = "for (const key of ['1', 'ArrowRight']) dispatchEvent(new KeyboardEvent('keydown', { key }))"
    (tmp_path / "page.html").write_text(f"{page}<script>setTimeout(() => {{ {keys} }}, 500)</script>")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run",
          f"--user-data-dir={tmp_path}/profile",
         "--virtual-time-budget=3000", "--dump-dom",
          f"{(tmp_path / 'page.html').as_uri()}#show=ratio&at=3.{t - 1}"],
        capture_output=True, text=True, timeout=60,
    )
    dom = done.stdout
    numbers = {name: float(x) for name, x in re.findall(r'data-name="([^"]+)">([-\d.e]+)<', dom)}
    expected = {name: r[name][t] for name in ("advantage", "entropy", "ratio")} | {"length": len(r["tokens"])}
    expected |= {f"V{m}": values[t] for m, values in enumerate(r.get("value", []))}
    expected |= {"σ": r["sigma"][t]} if "sigma" in r else {}
    assert {name: numbers[name] for name in expected} == expected and numbers["return"] == r["reward"]
    (pressed,) = re.findall(r'id="shows">.*?aria-pressed="true">(\S+)<kbd>1<', dom)
    assert pressed == ("σ" if "sigma" in r else "advantage")
    assert dom.count("<article") == len(all_)
    shown = re.findall(r'<div class="text">(.*?)</div>', dom, re.DOTALL)
    assert [html.unescape(re.sub("<.*?>", "", x)) for x in shown] == ["".join(r["tokens"]) for r in all_]
    for mark in ("masked", "filtered"):  # and one in the legend
        spans = re.findall(rf'class="t[^"]*\b{mark}\b', dom)
        assert len(spans) == 1 + sum(sum(r[mark]) for r in all_)


def test_a_page_asks_the_network_for_nothing_and_is_cut_to_its_size_by_name(out, monkeypatch):
    page = (out / "page.html").read_text()
    assert re.findall(r"https?://[\w./]+", page) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"\b(src|href)=|@import|url\(", page)
    step = responses(page)
    settings = json.loads((out / "config.json").read_text())["settings"]
    whole = {n: [r | {"prompt": str(n)} for r in step] for n in range(1, 10)}
    for share, words in ((0.99, r"\b5 of 9 saved steps"), (0.0, r"responses of step 9")):
        small = len(inside.page(out, settings, {9: step[:2]}, "some words of a note that takes place"))
        large = len(inside.page(out, settings, whole, ""))
        monkeypatch.setattr(inside, "LIMIT", int(small + share * (large - small)))
        html_, note = inside.fitting_page(out, settings, whole, len(whole))
        assert len(html_) <= inside.LIMIT and re.search(words, note)


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def metaspace() -> Tokenizer:
    """As SentencePiece's: spaces are ▁, unknown characters become bytes, decoding drops the first space."""
    pieces = ["<unk>", "▁", "▁x", "x", "=", "1", "\\", "^", "\n", *(f"<0x{b:02X}>" for b in range(256))]
    vocabulary = {c: i for i, c in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "x")], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_joined_the_tokens_of_a_response_are_its_text_whatever_they_cut(make):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())
    prompt, text = "x=1", " x\n\n  \\frac{1}{2}\t= 中文 ½ 👩‍🔬\r\nΣ_{i} ^x "
    tokens = tokenizer.encode(prompt + text)
    first = len(tokenizer.encode(prompt))
    texts = inside.token_texts(tokens, first, tokenizer)
    assert "".join(texts) == text and len(texts) == len(tokens) - first
    whole = [x for x in texts if x]
    assert texts[texts.index("中") - 2 : texts.index("中") + 1] == ["", "", "中"]
    assert all("\N{REPLACEMENT CHARACTER}" not in x for x in whole)
    # a response that is cut within a character
    cut = inside.token_texts(tokens[: first + texts.index("中")], first, tokenizer)
    assert "".join(cut).rstrip("\N{REPLACEMENT CHARACTER}") == text[: text.index("中")]


@pytest.mark.parametrize("flags, sentence", [
    (["nowhere"], "no run is there"), ([".", "--step", "3"], "--step 3 was not saved; these were: 1"),
    ([".", "--out", "no/such/folder.html"], "could not be written"),
])
def test_a_mistake_is_answered_with_a_sentence(out, monkeypatch, flags, sentence):
    monkeypatch.chdir(out)
    error = run("experiments/inside/inside.py", "--out", "page2.html", *flags, code=2).stderr
    assert sentence in error and error.count("\n") == 1


def test_a_resumed_run_drops_what_was_saved_after_its_checkpoint(tmp_path, world):
    (tmp_path / "inside").mkdir()
    for step in (5, 10, 15):
        (tmp_path / f"inside/step-{step}.npz").write_bytes(b"")
    Log(tmp_path, done=10, last_step=20, eval_key=None, wandb=None, world=world)
    assert {path.name for path in (tmp_path / "inside").iterdir()} == {"step-5.npz", "step-10.npz"}
