"""What is compared: the variants of a run, the regimes in which they run, and the paper's claims."""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

# flags of every run: evaluate more often than the default does, keep no checkpoint but the last
BASE = "--eval-every 3 --save-every 5"

NO_MASKS = "--mask-by none --filter-by none"
EXPLORE = "--entropy-coef 0.1"  # so large that the entropy bonus can take over
NOTHING = "a critic that learns nothing"

# "mask" is the advantage mask (default: the 20 % of the tokens with the lowest σ), "filter" the one of the
# entropy bonus. Runs with one critic, and those called "two critics, …", have neither.
VARIANTS = {
    "AsyPPO": "",
    "PPO": "--algo ppo",
    "GRPO": "--algo grpo",
    "GRPO, no deviation": "--algo grpo --no-group-std",
    "one mini-critic": f"--n-critics 1 {NO_MASKS}",
    "one mini-critic, half the steps": f"--n-critics 1 --critic-minibatch-size 32 {NO_MASKS}",  # as a shard's
    NOTHING: f"--n-critics 1 --critic-lr 1e-12 {NO_MASKS}",
    "two critics, same data": f"--shard-by none {NO_MASKS}",
    "two critics, shards of prompts": f"--shard-by prompt {NO_MASKS}",
    "two critics, shards of groups": NO_MASKS,
    "three critics": "--n-critics 3",
    "four critics": "--n-critics 4",
    "larger critics": "--critics tiny/actor",
    "a small and a larger critic": "--critics tiny/critic tiny/actor",
    "minimum of the values": "--aggregate min",
    "crossfit": "--aggregate crossfit",
    "AsyPPO, no mask": "--mask-by none",
    "mask σ 5 %": "--mask-fraction 0.05",
    "mask σ 40 %": "--mask-fraction 0.4",
    "mask entropy 5 %": "--mask-by entropy --mask-fraction 0.05",
    "mask entropy 20 %": "--mask-by entropy",
    "mask random 20 %": "--mask-by random",
    "β 0.1, filter σ 20 %": EXPLORE,
    "β 0.1, filter σ 40 %": f"{EXPLORE} --filter-fraction 0.4",
    "β 0.1, filter entropy 20 %": f"{EXPLORE} --filter-by entropy",
    "β 0.1, filter random 20 %": f"{EXPLORE} --filter-by random",
    "β 0.1, no filter": f"{EXPLORE} --filter-by none",
    "groups of 4": "--prompts-per-step 64 --group-size 4",
    "groups of 8": "--prompts-per-step 32 --group-size 8",
    "groups of 32": "--prompts-per-step 8 --group-size 32",
    "1 pass": "--epochs 1",
    "8 passes": "--epochs 8",
    "1 pass, no mask": "--epochs 1 --mask-by none",
    "8 passes, no mask": "--epochs 8 --mask-by none",
    "1 pass of the critics": "--critic-epochs 1",
    "critics asked before the fit": "--critic-order last",
    "λ 0.95": "--lam 0.95",
    "PPO, λ 0.95, warm-up": "--algo ppo --lam 0.95 --critic-warmup 2",
    "warm-up of the critics": "--critic-warmup 2",
    "critic loss at three states": "--critic-states 0.3 0.6 0.9",
    "normalised critic loss": "--critic-norm std",
    "gate": "--gate",
    "adaptive mask fraction": "--mask-fraction adaptive",
}


@dataclass(frozen=True)
class Claim:
    """`a` is better (or no worse) than `b` in `score` by at least `delta`, in the score's units."""

    name: str  # C1 … C15 as in the paper's list, "ours" for variants of AsyPPO, "post hoc"
    sentence: str
    a: str
    b: str | None  # None: the score itself is compared with 0
    score: str = "area"
    delta: float = 0.01
    no_worse: bool = False


CLAIMS = [
    Claim("C1", "one mini-critic guides a larger actor as well as a critic of its size", "one mini-critic",
          "PPO", no_worse=True),
    Claim("C1", "a critic is better than one that learns nothing", "one mini-critic", NOTHING),
    Claim("C2", "shards of groups raise the score of an ensemble", "two critics, shards of groups",
          "two critics, same data"),
    Claim("C2", "shards of groups raise σ", "two critics, shards of groups", "two critics, same data",
          "sigma", 0.001),
    Claim("C2", "an ensemble on the same data is hardly better than one critic", "one mini-critic",
          "two critics, same data", no_worse=True),
    Claim("C2", "shards of groups are better than shards of prompts", "two critics, shards of groups",
          "two critics, shards of prompts"),
    Claim("C3", "AsyPPO is better than GRPO", "AsyPPO", "GRPO"),
    Claim("C3", "AsyPPO is better than PPO", "AsyPPO", "PPO"),
    Claim("C4", "masking the lowest 20 % σ helps", "AsyPPO", "AsyPPO, no mask"),
    Claim("C4", "the σ mask helps with eight passes", "8 passes", "8 passes, no mask"),
    Claim("C4", "the σ mask helps with a single pass", "1 pass", "1 pass, no mask"),
    Claim("C4", "masking as many at random costs nothing", "mask random 20 %", "AsyPPO, no mask",
          no_worse=True),
    Claim("C5", "5 % by σ are better masked than 5 % by entropy", "mask σ 5 %", "mask entropy 5 %"),
    Claim("C5", "20 % by σ are better masked than 20 % by entropy", "AsyPPO", "mask entropy 20 %"),
    Claim("C5", "20 % by σ are better masked than 20 % at random", "AsyPPO", "mask random 20 %"),
    Claim("C6", "the fifth of the tokens with the lowest σ has less entropy than the average", "AsyPPO", None,
          "low_sigma", 0.1),
    Claim("C6", "the fifth with the lowest entropy has no lower σ", "AsyPPO", None, "low_entropy", 0.1,
          no_worse=True),
    Claim("C7", "a σ filter of 20 % helps where the entropy bonus is large", "β 0.1, filter σ 20 %",
          "β 0.1, no filter"),
    Claim("C7", "a σ filter is better than one by entropy", "β 0.1, filter σ 20 %",
          "β 0.1, filter entropy 20 %"),
    Claim("C7", "a σ filter is better than one at random", "β 0.1, filter σ 20 %",
          "β 0.1, filter random 20 %"),
    Claim("C7", "a σ filter of 40 % helps too", "β 0.1, filter σ 40 %", "β 0.1, no filter"),
    Claim("C8", "two critics with masks are better than one without", "AsyPPO", "one mini-critic"),
    Claim("C8", "two critics without masks are better than one", "two critics, shards of groups",
          "one mini-critic"),
    Claim("C8", "two critics without masks are better than one with as many optimizer steps as each",
          "two critics, shards of groups", "one mini-critic, half the steps"),
    Claim("C8", "three add little", "AsyPPO", "three critics", no_worse=True),
    Claim("C8", "four add little", "AsyPPO", "four critics", no_worse=True),
    Claim("C9", "the mean is better than the minimum", "AsyPPO", "minimum of the values"),
    Claim("C10", "groups of 32 are no worse than groups of 16", "groups of 32", "AsyPPO", no_worse=True),
    Claim("C10", "groups of 32 are better than groups of 8", "groups of 32", "groups of 8"),
    Claim("C10", "groups of 32 are better than groups of 4", "groups of 32", "groups of 4"),
    Claim("C11", "larger critics (with another pretraining, too) reach more", "larger critics", "AsyPPO",
          "end"),
    Claim("C12", "σ and the size of a token's gradient correlate", "AsyPPO", None, "sigma_gradient", 0.1),
    Claim("C14", "sharded critics together are nearer to Monte-Carlo values than one",
          "two critics, shards of groups", "one mini-critic", "truth", 0.02),
    Claim("C14", "sharded critics are nearer to Monte-Carlo values than two on the same data",
          "two critics, shards of groups", "two critics, same data", "truth", 0.02),
    Claim("C15", "AsyPPO is better than PPO with λ 0.95 and a warm-up", "AsyPPO", "PPO, λ 0.95, warm-up"),
] + [
    Claim("ours", f"{a}: better than plain AsyPPO", a, "AsyPPO") for a in (
        "crossfit", "critics asked before the fit", "warm-up of the critics", "critic loss at three states",
        "normalised critic loss", "gate", "adaptive mask fraction", "λ 0.95", "mask σ 40 %", "1 pass",
        "8 passes", "1 pass of the critics", "a small and a larger critic",
    )
] + [Claim("ours", "GRPO's division by the deviation helps", "GRPO", "GRPO, no deviation")]

# named after the runs had been looked at: hints for the next experiment, no tests
POST_HOC = [
    Claim("post hoc", "a critic that learns nothing is better than GRPO", NOTHING, "GRPO"),
    Claim("post hoc", "AsyPPO is better than one critic that learns nothing", "AsyPPO", NOTHING),
    Claim("post hoc", "AsyPPO without its mask is better than GRPO", "AsyPPO, no mask", "GRPO"),
    Claim("post hoc", "two critics without masks are better than GRPO", "two critics, shards of groups",
          "GRPO"),
    Claim("post hoc", "one mini-critic is better than GRPO", "one mini-critic", "GRPO"),
    Claim("post hoc", "AsyPPO without its mask is better than one mini-critic", "AsyPPO, no mask",
          "one mini-critic"),
    Claim("post hoc", "a critic is better than nothing, by the rollouts' reward", "one mini-critic", NOTHING,
          "reward"),
    Claim("post hoc", "masking the lowest 20 % σ helps, by the rollouts' reward", "AsyPPO", "AsyPPO, no mask",
          "reward"),
    Claim("post hoc", "AsyPPO is better than one mini-critic, by the rollouts' reward", "AsyPPO",
          "one mini-critic", "reward"),
    Claim("post hoc", "AsyPPO is better than GRPO, by the rollouts' reward", "AsyPPO", "GRPO", "reward"),
    Claim("post hoc", "C14 by the share of the variance that is explained", "two critics, shards of groups",
          "two critics, same data", "truth_share", 0.1),
    Claim("post hoc", "C14 by the correlation", "two critics, shards of groups", "two critics, same data",
          "truth_corr", 0.1),
]


@dataclass(frozen=True)
class Regime:
    """A setting in which variants are compared: flags of all runs, critics, the claims that it is for."""

    flags: str = ""
    critics: str | None = None  # of the runs with mini-critics
    claims: tuple[str, ...] = ()  # names; empty: all of which there are runs

    def results(self, name: str) -> Path:
        return HERE / f"{name}.jsonl"


SMALL = ("--prompts-per-step 4 --group-size 8 --minibatch-size 32 --lr 1e-4 --steps 30 --eval-every 5 "
         "--save-every 0")
REGIMES = {
    "default": Regime(),
    "small": Regime(SMALL, claims=("C4", "C7", "ours")),
    "small_warm": Regime(f"{SMALL} --critic-warmup 10", claims=("C1",)),
    "knowing": Regime(SMALL, "runs/knowing/critic0"),
    "long": Regime("--data runs/long/train.jsonl --eval-data runs/long/test.jsonl --max-new-tokens 120 "
                   "--prompts-per-step 8 --minibatch-size 64 --steps 20 --eval-every 4 --save-every 5",
                   claims=("C1", "C3", "C8")),
    "smollm2": Regime("--model runs/smollm2 --data runs/add_train.jsonl --n-problems 0 "
                      "--eval-data runs/add_test.jsonl --template runs/three_shot.txt --stop '\\n' "
                      "--extract last_number --max-new-tokens 6 --prompts-per-step 4 --group-size 8 "
                      "--epochs 1 --critic-epochs 1 --token-budget 2048 --generate-batch 150 --dtype bf16 "
                      "--no-gradient-checkpointing --lr 5e-6 --critic-lr 2e-5 --steps 30 --eval-every 5 "
                      "--save-every 0", "runs/smollm2", ("C3",)),
}

# the table at the top of experiments/README.md: regime, claim's name, a, b
HEADLINES = [
    ("default", "C1", "one mini-critic", NOTHING),
    ("knowing", "C1", "one mini-critic", NOTHING),
    ("default", "C3", "AsyPPO", "GRPO"),
    ("knowing", "C3", "AsyPPO", "GRPO"),
    ("knowing", "post hoc", NOTHING, "GRPO"),
    ("knowing", "post hoc", "AsyPPO", NOTHING),
    ("default", "C8", "AsyPPO", "one mini-critic"),
    ("knowing", "C8", "AsyPPO", "one mini-critic"),
    ("knowing", "C8", "two critics, shards of groups", "one mini-critic"),
    ("default", "C4", "AsyPPO", "AsyPPO, no mask"),
    ("knowing", "C4", "AsyPPO", "AsyPPO, no mask"),
    ("knowing", "C5", "AsyPPO", "mask random 20 %"),
    ("small", "C7", "β 0.1, filter σ 20 %", "β 0.1, filter random 20 %"),
    ("small", "C7", "β 0.1, filter σ 20 %", "β 0.1, filter entropy 20 %"),
    ("default", "C10", "groups of 32", "groups of 4"),
    ("small", "ours", "8 passes", "AsyPPO"),
]
