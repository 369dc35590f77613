"""Shared by all tests: small random models on disk and loaded, the world of one process, what train calls."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Callable

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import distributed
import train
from models import load_actor, load_critic, load_tokenizer
from tests.runs import FEW, ROOT, launch
from tests.synthetic import draw_responses
from tiny.make_tiny import make_tokenizer

os.environ["PYTHONPATH"] = str(ROOT)
torch.set_num_threads(1)


def shape(**changes) -> dict:
    base = dict(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16384, initializer_range=0.2,
        pad_token_id=0, eos_token_id=1, bos_token_id=None
    )
    return base | changes


def save_model(model, folder: Path) -> str:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def lose(how: str, folder: Path):
    """A run of which rank 1 hangs, so that gloo waits 12 seconds for it, or dies."""
    flags = [*FEW, "--save-every", 1, "--timeout", 0.2, "--steps", 3, "--out", folder / "run"]
    return launch("tests/lost_rank.py", 1, how, *flags, processes=2, code=None, timeout=120)


# what takes long or waits long: test -> what it runs in a folder of its own; in the order of the tests
LONG = {
    "test_mistakes_under_torchrun_are_said_once": lambda folder: [
        launch("train.py", *flags, processes=2, code=None)
        for flags in (["--data", "none.jsonl", "--out", folder / "run"], ["--group-size", 1])],
    "test_sigkill_at_random_moments_of_every_phase_changes_nothing": lambda folder:
        launch("tests/kills.py", folder, 12, 0),
    "test_a_hanging_or_dead_rank_ends_the_job_and_leaves_the_last_checkpoint[hangs]": partial(lose, "hangs"),
    "test_a_hanging_or_dead_rank_ends_the_job_and_leaves_the_last_checkpoint[dies]": partial(lose, "dies"),
    "test_the_embedded_default_improves_its_reward_within_a_few_steps": lambda folder:
        launch("train.py", "--out", folder / "run", "--steps", 6, "--eval-every", 6),
    "test_a_run_of_two_processes_saves_models_that_plain_transformers_loads": lambda folder:
        launch("train.py", "--out", folder / "run", "--steps", 2, *FEW, "--save-every", 1, processes=2),
}


@pytest.fixture(scope="session", autouse=True)
def begun(request, tmp_path_factory) -> dict:
    """LONG of the selected tests, begun with the session, one after another: test -> folder, future"""
    selected = {item.name for item in request.session.items}
    pool, folders = ThreadPoolExecutor(1), {name: tmp_path_factory.mktemp("begun") for name in LONG}
    yield {
        name: (folders[name], pool.submit(long, folders[name]))
        for name, long in LONG.items() if name in selected
    }
    pool.shutdown(cancel_futures=True)


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
    """The process group of `python train.py`, of one process; gone after each file, for some start runs."""
    world = distributed.start("cpu")
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
    """draw(prompts, seed=0, **settings of Sampling) -> responses of the tiny actor"""
    return partial(draw_responses, actor, tokenizer, world)


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
