"""Shared by all tests: small random models, the process group of one process, one step of train.py."""

import os
from functools import partial
from pathlib import Path
from typing import Callable

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import train
from engine import distributed
from engine.models import load_actor, load_critic, load_tokenizer
from engine.updates import score_responses
from tests.runs import ROOT
from tests.synthetic import draw_responses
from tiny.make_tiny import make_tokenizer

os.environ["PYTHONPATH"] = str(ROOT)
torch.set_num_threads(1)


def shape(**changes) -> dict:
    base = dict(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16384, initializer_range=0.2,
        pad_token_id=0, eos_token_id=1, bos_token_id=None)
    return base | changes


def save_model(model, folder: Path) -> str:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory) -> str:
    """A random Qwen3-shaped model with tied embeddings; its generation config asks for top-k 20."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**shape(head_dim=16, tie_word_embeddings=True)))
    saved = dict(do_sample=True, top_k=20, top_p=0.95, temperature=0.6, eos_token_id=[1, 2])
    model.generation_config.update(**saved)
    return save_model(model, tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> str:
    """A random Llama-shaped model with an output embedding of its own."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**shape(tie_word_embeddings=False)))
    return save_model(model, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def world():
    """The process group of one process, as of `python train.py`. It ends with the file: others start runs."""
    world = distributed.start()
    torch.set_num_threads(1)
    yield world
    distributed.stop()


@pytest.fixture
def actor(qwen, world):
    return load_actor(qwen, world, torch.float32)


@pytest.fixture
def tokenizer(qwen):
    return load_tokenizer(qwen, "--model")


@pytest.fixture
def new_critics(qwen, world) -> Callable:
    """new_critics(n) -> n critics that know nothing yet"""
    return lambda n=2: [load_critic(qwen, world, torch.float32) for _ in range(n)]


@pytest.fixture
def draw(actor, tokenizer, world) -> Callable:
    """draw(prompts, seed=0, **settings of SamplingConfig) -> responses of the tiny actor"""
    return partial(draw_responses, actor, tokenizer, world)


@pytest.fixture
def open_run(qwen, world, tmp_path) -> Callable:
    """open_run(*flags, world=world) -> the Run of train.py with the tiny random models, opened as `train` opens it"""
    common = (f"--model {qwen} --critics {qwen} --data {ROOT}/tiny/train.jsonl --n-problems 2 "
              "--prompts-per-step 2 --group-size 4 --no-gradient-checkpointing").split()

    def make(*flags, world=world) -> train.Run:
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        args = train.parse_args([*common, "--out", str(out), *map(str, flags)])
        inputs = train.check_inputs(args, world)
        args, same_world = train.settle(args, inputs, world)
        return train.open_run(args, inputs, train.load_models(args, inputs, same_world), same_world)

    return make


@pytest.fixture
def step_on(open_run, monkeypatch) -> Callable:
    """step_on(rollout, *flags, values=None) -> metrics, PolicyData and Run of one train_step on this rollout

    values: (shards_MB) -> [M, B], every critic's value of every response, in place of the models' values.
    """

    def step(rollout, *flags, values: Callable | None = None):
        run = open_run(*flags)
        scores = score_responses(run.actor, rollout, run.args.token_budget, run.world, with_slope=True)
        rollout.old_logp_BT, rollout.old_entropy_BT, rollout.old_slope_BT = scores
        monkeypatch.setattr(train, "sample_rollout", lambda *_: rollout)
        if values is not None:
            monkeypatch.setattr(train, "ensemble_values", lambda critics, rollout, *_: (
                values(rollout.shards_MB)[:, :, None] * rollout.mask_BT))
        metrics, _, data = train.train_step(run, step=1)
        return metrics, data, run

    return step


@pytest.fixture
def around(monkeypatch) -> Callable:
    """around(NAME, before=…, after=…): train's NAME is preceded by before() and gives after(its result)."""

    def wrap(name: str, before: Callable = lambda: None, after: Callable = lambda result: result) -> None:
        real = getattr(train, name)

        def wrapped(*args, **kwargs):
            before()
            return after(real(*args, **kwargs))

        monkeypatch.setattr(train, name, wrapped)

    return wrap
