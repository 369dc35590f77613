"""Two responses to a prompt: a second regime of the headline, by its rules. DESIGN.md has the design.

    python experiments/headline/pairs.py tune       # after make_long.py and fits.py, as for headline.py
    python experiments/headline/pairs.py choose     # the best setting of each side -> pairs_chosen.json; commit it
    python experiments/headline/pairs.py confirm    # seeds 264 to 287
    python experiments/headline/pairs.py table      # tuning; the verdicts only when all runs are there

Finished runs are lines of pairs.jsonl.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.headline import headline
from experiments.headline.headline import HERE, Design, Planned, carry_out, each_setting, missing_of, ranked

TUNING, CONFIRMATION = range(116, 120), range(264, 288)
PAIRS = "--prompts-per-step 16 --group-size 2"
NAMES = {
    "GRPO": ("as is, lr 1e-4", "as is, lr 5e-5", f"{headline.WHITENED}, lr 1e-4", f"{headline.WHITENED}, lr 5e-5"),
    "ensemble": ("λ 1, critics that keep, lr 5e-5", "λ 0.95, critics that keep, lr 5e-5",
                 "λ 0.8, critics that keep, lr 5e-5", "λ 0.95, critics that keep, lr 1e-4"),
    "nothing": ("lr 1e-4", "lr 5e-5"),
}
SETTINGS = {side: {name: f"{headline.SETTINGS[side][name]} {PAIRS}" for name in names} for side, names in NAMES.items()}
COMPARED = [("ensemble", "GRPO"), ("ensemble", "nothing"), ("nothing", "GRPO")]


def tuning(done: dict[str, dict]) -> list[Planned]:
    return each_setting(SETTINGS, TUNING)


def choose(done: dict[str, dict]) -> dict[str, str]:
    """Return the setting of each side with the best mean; raise unless every run of the tuning is done."""
    if missing := missing_of(tuning(done), done):
        raise SystemExit(f"{len(missing)} runs of the tuning are missing; choose when all are done.")
    return {side: ranked(side, tuning(done), done)[0] for side in SETTINGS}


def confirmation(chosen: dict[str, str]) -> list[Planned]:
    return [(side, side, SETTINGS[side][setting], CONFIRMATION) for side, setting in chosen.items()]


def main(argv: list[str] | None = None) -> int:
    design = Design(HERE / "pairs.jsonl", HERE / "pairs_chosen.json", tuning, choose, confirmation,
                    lambda chosen: COMPARED)
    return carry_out(design, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
