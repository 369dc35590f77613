"""Write the workloads of peers.py: random models, a tokenizer and problems for all contenders of a round.

    python benchmarks/workloads.py realistic DIR       # writes DIR/actor, DIR/critic, DIR/problems.jsonl

The models are Qwen3 with random weights. One channel of the residual stream holds the same constant for every
token, and no layer writes to it. So a token's entry of that channel in the tied embedding adds a constant to
its logit. This fixes the probability of EOS for every text. Lengths are then geometric and cut at the longest
allowed, or all are the longest if EOS never comes. Learning rates are too small to change this in a few
steps.
"""

import json
import math
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

LEARNING_RATE = 1e-6
SPECIAL = ["<|pad|>", "<|eos|>", "<|unk|>"]
PAD, EOS, UNK = range(3)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Workload:
    """Sizes of one step.

    A shape is hidden size, layers, intermediate size, query heads, key-value heads. A head has size 64.
    """

    vocabulary: int
    actor: tuple[int, int, int, int, int]
    critic: tuple[int, int, int, int, int]
    prompts: int
    group: int
    prompt_len: tuple[int, int]  # shortest and longest
    max_new: int
    mean_len: int | None  # of a response that is not cut; None: EOS never comes
    micro_batch: int  # responses of the greatest length that pass through a model together

    @property
    def responses(self) -> int:
        return self.prompts * self.group


# critics have the proportions of Qwen3-0.6B to Qwen3-4B: 0.4 of the width, 0.78 of the depth, 15 % of the
# parameters
WORKLOADS = {
    # 4.2 M parameters: only the decoding loop and the layers cost time, so TRL is near the hardware's limit
    "forced": Workload(4096, (256, 4, 768, 4, 2), (128, 3, 320, 2, 1), 8, 4, (64, 64), 128, None, 32),
    # Qwen3's vocabulary
    "realistic": Workload(151_936, (256, 8, 768, 4, 2), (104, 6, 312, 2, 1), 4, 4, (16, 64), 128, 32, 8),
    # Qwen3-4B with a fifth of its width, a quarter of its depth, and its share of embeddings (10 %)
    "proportions": Workload(7680, (512, 9, 1952, 12, 3), (208, 7, 624, 6, 3), 8, 4, (64, 64), 128, None, 8),
}


def words(n: int) -> list[str]:
    """Return n different words. Half of them end in 1: a response's last number is right by chance."""
    names = []
    for i in range(n):
        name, rest = "", i // 2
        while rest or not name:
            rest, letter = divmod(rest, 26)
            name += LETTERS[letter]
        names.append(f"{name}{i % 2}")
    return names


def make_tokenizer(vocabulary: int):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = SPECIAL + words(vocabulary - len(SPECIAL))
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL[UNK]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[PAD], eos_token=SPECIAL[EOS], unk_token=SPECIAL[UNK]
    )


def make_model(shape: tuple[int, int, int, int, int], work: Workload, seed: int):
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    hidden, layers, intermediate, heads, kv_heads = shape
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=work.vocabulary, tie_word_embeddings=True, max_position_embeddings=4096,
            hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=64,
            pad_token_id=PAD, eos_token_id=EOS, bos_token_id=None
        )
    )
    embedding_VH = model.get_input_embeddings().weight.data
    embedding_VH[:, 0] = 1.0
    for layer in model.base_model.layers:
        layer.self_attn.o_proj.weight.data[0] = 0.0
        layer.mlp.down_proj.weight.data[0] = 0.0
    # channel 0 of the hidden state is nearly the same everywhere; its entry in the embedding is set here
    probe = torch.randint(len(SPECIAL), work.vocabulary, (8, 64))
    with torch.no_grad():
        hidden_NH = model.base_model(input_ids=probe).last_hidden_state.flatten(0, 1)
        constant = hidden_NH[:, 0].mean()
        logits_NV = hidden_NH[:32] @ embedding_VH.T
        others = logits_NV[:, len(SPECIAL) :].logsumexp(-1).mean()
        eos_logit = -100.0 if work.mean_len is None else others - math.log(work.mean_len - 1)
        embedding_VH[: len(SPECIAL), 1:] = 0.0
        embedding_VH[: len(SPECIAL), 0] = -100.0 / constant
        embedding_VH[EOS, 0] = eos_logit / constant
    model.generation_config = GenerationConfig(pad_token_id=PAD, eos_token_id=EOS)
    return model


def make(work: Workload, folder: Path) -> None:
    tokenizer = make_tokenizer(work.vocabulary)
    for name, shape in (("actor", work.actor), ("critic", work.critic)):
        model = make_model(shape, work, seed=0)
        n, n_layers = (
            sum(p.numel() for p in module.parameters()) for module in (model, model.base_model.layers)
        )
        print(f"{name}: {n / 1e6:.1f} M parameters, {n_layers / 1e6:.1f} M of them in the layers", flush=True)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rng = random.Random(0)
    vocabulary = words(work.vocabulary - len(SPECIAL))
    problems = [" ".join(rng.choices(vocabulary, k=rng.randint(*work.prompt_len))) for _ in range(256)]
    rows = [{"problem": problem, "answer": "1"} for problem in problems]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "workload.json").write_text(json.dumps(asdict(work)))


if __name__ == "__main__":
    make(WORKLOADS[sys.argv[1]], Path(sys.argv[2]))
