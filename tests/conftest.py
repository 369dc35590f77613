"""Shared by all tests: small random models on disk, and a way to run scripts as users do."""

import os
import subprocess
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tiny.make_tiny import make_tokenizer

ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = str(ROOT)
torch.set_num_threads(1)


def shape(**changes) -> dict:
    base = dict(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        initializer_range=0.2,
    )  # fmt: skip
    return base | changes


def save_model(model, folder: Path) -> str:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory) -> str:
    """A random Qwen3-shaped model with tied embeddings, whose generation config asks for top-k 20 as Qwen3's does."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**shape(head_dim=16, tie_word_embeddings=True)))
    model.generation_config.update(do_sample=True, top_k=20, top_p=0.95, temperature=0.6, eos_token_id=[1, 2])
    return save_model(model, tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> str:
    """A random Llama-shaped model with an output embedding of its own."""
    torch.manual_seed(1)
    return save_model(LlamaForCausalLM(LlamaConfig(**shape(tie_word_embeddings=False))), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def world():
    """The process group of one process that `python train.py` makes; gone after each file, as some start runs."""
    import distributed

    world = distributed.start("cpu")
    torch.set_num_threads(1)
    yield world
    distributed.stop()


def run_script(*command: str, processes: int = 0, timeout: float = 300, **environment) -> subprocess.CompletedProcess:
    """Run a script of the repo; processes > 0: under torchrun."""
    launcher = [sys.executable]
    if processes:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [*launcher, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **environment},
    )  # fmt: skip
