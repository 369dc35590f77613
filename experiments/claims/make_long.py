"""Write the problems of the regime `long`: the embedded chains of eight terms or more.

    python experiments/claims/make_long.py       # runs/long/train.jsonl and test.jsonl (200 problems)

They come from both embedded files, so that the pretrained actor may have met some of the held-out ones.
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    lines = [line for name in ("train", "test") for line in (ROOT / f"tiny/{name}.jsonl").open()]
    long = [line for line in lines if len(json.loads(line)["problem"]) >= 15]
    folder = ROOT / "runs/long"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("".join(long[:-200]))
    (folder / "test.jsonl").write_text("".join(long[-200:]))
    print(f"{folder}: {len(long) - 200} problems to train on, 200 held out")


if __name__ == "__main__":
    main()
