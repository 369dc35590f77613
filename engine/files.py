"""Files that survive a kill: either the old or the new one is whole, or the last line of a log is cut."""

import json
from pathlib import Path
from typing import Iterable

from engine.errors import run_error


def replace_text(path: Path, text: str) -> None:
    """Write a new file beside the old one, then rename it into place."""
    new = path.with_name(path.name + ".new")
    with run_error(path):
        new.write_text(text)
        new.replace(path)


def jsonl(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def append_rows(path: Path, rows: Iterable[dict]) -> None:
    with run_error(path), path.open("a") as file:
        file.write(jsonl(rows))


def whole_rows(path: Path) -> list[dict]:
    """Return the rows of a .jsonl file up to a line that a kill has cut; [] if there is no file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def jsonable(settings: dict) -> dict:
    """Return settings as JSON can hold them: paths become text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
