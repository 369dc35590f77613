"""Fit critics to the actor as it is before it learns: one, two on shards and four on shards, from the same responses.

    python experiments/snr/fits.py runs/fits --seeds 1000 1001 1002 1003

A seed draws ten rollouts of 256 responses (16 × 16), 2,560 in all. A critic is fitted with the defaults of
train.py: four passes over its shard, learning rate 1e-4, minibatches of 16. So each critic of a pair takes half
as many optimizer steps as one that sees everything. The critics are those that train.py saves with
--critic-warmup 9 --steps 1. FOLDER/one1000/critic0, FOLDER/two1000/critic0, … are names for --critics.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command_line import COUNT, Parser, exit_code
from engine.distributed import World, start
from engine.metrics import Timer
from engine.models import save_critic
from engine.streams import stream_seed
from experiments.snr.trajectory import ROOT, fitted, open_driver, passenger
from rollout import problems_of_step, sample_rollout

SIZES = (1, 2, 4)
ROLLOUTS = 10


def fit(folder: Path, fit_seed: int, rollouts: int, world: World, flags: tuple[str, ...] = ()) -> None:
    """Fit all ensembles of one seed and save them, unless they are there."""
    if Path(fitted(folder, SIZES[-1], fit_seed)[-1]).exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = open_driver(["--n-critics", "1", "--mask-by", "none", "--filter-by", "none", "--eval-data", "",
                           "--seed", str(fit_seed), "--out", f"{scratch}/run", *flags], world)
        pretrained, lr = str(ROOT / "tiny/critic"), run.args.critic_lr
        ensembles = {
            n: passenger([pretrained] * n, world, lr, shard_by="none" if n == 1 else "group") for n in SIZES}
        with run.verifier:
            for step in range(1, rollouts + 1):
                problems = problems_of_step(run.problems, step, run.args.prompts_per_step, fit_seed)
                rollout = sample_rollout(run.actor, run.tokenizer, problems, run.rollout_config,
                                         stream_seed(fit_seed, "rollout", step), Timer(world), world)
                for ensemble in ensembles.values():
                    ensemble.fit(rollout, step, run)
                print(f"seed {fit_seed}: rollout {step} of {rollouts}", flush=True)
    for n, ensemble in ensembles.items():
        for critic, name in zip(ensemble.critics, fitted(folder, n, fit_seed)):
            save_critic(critic, run.tokenizer, Path(name), world)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="where the critics go")
    add("--seeds", type=int, nargs="+", default=[1000, 1001, 1002, 1003], help="seeds of the fits")
    add("--rollouts", type=COUNT, default=ROLLOUTS, help="rollouts of 256 responses")
    args = parser.parse_args(argv)

    def fits() -> None:
        world = start("cpu")
        for fit_seed in args.seeds:
            fit(args.folder, fit_seed, args.rollouts, world)

    return exit_code("fits.py", fits)


if __name__ == "__main__":
    sys.exit(main())
