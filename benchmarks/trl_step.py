"""Run training steps of TRL's GRPOTrainer, or of its last PPOTrainer, for peers.py.

    python benchmarks/trl_step.py grpo | ppo FOLDER '{"steps": 4, ...}'   # -> FOLDER/trl.jsonl, a line a step

It needs an environment with TRL. GRPO is set like --algo grpo: no KL term and so no reference model, one
generation a step, the whole batch in each optimizer step. TRL then needs no scoring pass and saves that time:
it takes the first pass's log-probabilities as the old ones. PPO has a critic as large as the actor. It also
needs a reference model (a copy of the actor) and a reward model (here of the mini-critic's size). It draws
one response to each of prompts × group prompts.
"""

import json
import resource
import sys
import time
from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
)


class Phases(TrainerCallback):
    """Records the seconds of each phase; a step is `epochs` optimizer steps."""

    def __init__(self, out: Path, epochs: int, clock: str):
        self.out, self.epochs, self.n_updates = out, epochs, 0
        self.now = {"wall": time.time, "cpu": time.process_time}[clock]
        self.row = {"generate": 0.0, "score": 0.0, "step": 0.0}

    def on_step_begin(self, *_, **__):
        self.began = self.now()

    def on_step_end(self, *_, **__):
        self.n_updates += 1
        self.row["step"] += self.now() - self.began
        if self.n_updates % self.epochs == 0:
            self.row["update"] = self.row["step"] - self.row["generate"] - self.row["score"]
            self.row["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            with self.out.open("a") as file:
                file.write(json.dumps(self.row) + "\n")
            self.row = {"generate": 0.0, "score": 0.0, "step": 0.0}

    def count(self, completions: list[list[int]]) -> None:
        self.row["lengths"] = [len(c) for c in completions]


def last_number_is_1(completions, **_) -> list[float]:
    return [float(next((c for c in reversed(text) if c.isdigit()), "0") == "1") for text in completions]


def common_settings(work: dict, run: dict) -> dict:
    return dict(
        per_device_train_batch_size=work["micro_batch"],
        gradient_accumulation_steps=work["prompts"] * work["group"] // work["micro_batch"],
        learning_rate=run["learning_rate"], lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0,
        gradient_checkpointing=run["gradient_checkpointing"], bf16=False, use_cpu=True,
        temperature=1.0, seed=run["seed"],
        save_strategy="no", report_to="none", logging_steps=10**9, disable_tqdm=True
    )


def load(auto_class, folder: Path, **settings):
    import torch

    return auto_class.from_pretrained(folder, dtype=torch.float32, **settings)


def grpo(folder: Path, work: dict, run: dict, problems: list[str], tokenizer, phases: Phases):
    from trl import GRPOConfig, GRPOTrainer

    settings = GRPOConfig(
        output_dir=str(folder / "trl"), max_steps=run["steps"] * run["epochs"], num_iterations=run["epochs"],
        steps_per_generation=work["prompts"] * work["group"] // work["micro_batch"],
        num_generations=work["group"], max_completion_length=work["max_new"],
        beta=0.0, top_k=0, top_p=1.0, **common_settings(work, run)
    )
    trainer = GRPOTrainer(
        model=load(AutoModelForCausalLM, folder / "actor"), reward_funcs=last_number_is_1, args=settings,
        train_dataset=Dataset.from_dict({"prompt": problems}), processing_class=tokenizer, callbacks=[phases]
    )
    generate, score = trainer._generate, trainer._generate_and_score_completions

    def timed_generate(prompts):
        began = phases.now()
        out = generate(prompts)
        phases.row["generate"] += phases.now() - began
        phases.count(out[1])
        return out

    def timed_score(inputs):
        began, before = phases.now(), phases.row["generate"]
        out = score(inputs)
        phases.row["score"] += phases.now() - began - (phases.row["generate"] - before)
        if not out["advantages"].any():
            print("All advantages of this step are 0.", file=sys.stderr)
        return out

    trainer._generate, trainer._generate_and_score_completions = timed_generate, timed_score
    return trainer


def ppo(folder: Path, work: dict, run: dict, problems: list[str], tokenizer, phases: Phases):
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    tokenizer.padding_side = "left"
    n = work["prompts"] * work["group"]
    settings = PPOConfig(
        output_dir=str(folder / "trl"),
        total_episodes=run["steps"] * n, num_ppo_epochs=run["epochs"], num_mini_batches=1,
        response_length=work["max_new"], stop_token="eos", num_sample_generations=0,
        local_rollout_forward_batch_size=work["micro_batch"], **common_settings(work, run)
    )
    actor = load(AutoModelForCausalLM, folder / "actor")
    value, reward = (
        load(AutoModelForSequenceClassification, folder / name, num_labels=1) for name in ("actor", "critic")
    )
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, callbacks=[phases],
        train_dataset=Dataset.from_dict({"input_ids": [tokenizer.encode(p) for p in problems]}),
        model=actor, ref_model=None, reward_model=reward, value_model=value
    )
    generate = ppo_trainer.batch_generation
    generated_at: list[float] = []

    def timed_generate(model, queries, *rest):
        phases.on_step_begin()
        out = generate(model, queries, *rest)
        generated_at.append(phases.now())
        phases.row["generate"] = phases.now() - phases.began
        rows = out[0][:, queries.shape[1] :].tolist()
        eos = tokenizer.eos_token_id
        phases.count([r[: r.index(eos) + 1] if eos in r else r for r in rows])
        return out

    def before_update(*_):
        if generated_at:
            phases.row["score"] = phases.now() - generated_at.pop()

    ppo_trainer.batch_generation = timed_generate
    trainer.accelerator.unwrap_model(trainer.model).register_forward_pre_hook(before_update)
    return trainer


def main() -> None:
    algo, folder, run = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    work = json.loads((folder / "workload.json").read_text())
    problems = [json.loads(line)["problem"] for line in (folder / "problems.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(folder / "actor")
    phases = Phases(folder / "trl.jsonl", run["epochs"], run["clock"])
    {"grpo": grpo, "ppo": ppo}[algo](folder, work, run, problems, tokenizer, phases).train()


if __name__ == "__main__":
    main()
