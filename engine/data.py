"""The rows of a data set: a local .jsonl or .parquet file, or the hub."""

import json
from pathlib import Path
from typing import Iterator

import numpy as np

from engine.errors import require, user_error


def read_rows(source: str, split: str, flag: str) -> Iterator[tuple[str, dict]]:
    """Yield each row with its place, "line N" or "row N". source: a file, or ID, ID:CONFIG or ID:CONFIG:SPLIT."""
    require(not source.endswith((".jsonl", ".parquet")) or Path(source).is_file(),
            f"{flag} {source}: there is no such file; give a .jsonl or .parquet file, or a hub data set id.")
    if source.endswith(".jsonl"):
        yield from read_jsonl(source, flag)
    else:
        table = read_parquet(source, flag) if source.endswith(".parquet") else read_hub(source, split, flag)
        yield from ((f"row {i}", row) for i, row in enumerate(table, start=1))


def read_jsonl(path: str, flag: str) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
        if line.strip():
            with user_error(f"{flag} {path}, line {number}: not a JSON object on one line", RecursionError):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"but a {type(row).__name__}")
            yield f"line {number}", row


def read_parquet(path: str, flag: str) -> Iterator[dict]:
    import pyarrow.parquet  # comes with datasets

    with user_error(f"{flag} {path}: not a readable parquet file"):
        for part in pyarrow.parquet.ParquetFile(path).iter_batches(1000):
            yield from part_rows(part)


def read_hub(source: str, split: str, flag: str) -> Iterator[dict]:
    import datasets

    name, config, named_split = (source.split(":") + ["", ""])[:3]
    # the library raises dozens of types for a wrong name and for an unreachable hub
    with user_error(f"{flag} {source}: the data set could not be loaded from the hub; give a local .jsonl or "
                    ".parquet file if the hub cannot be reached", Exception):
        found = datasets.load_dataset(name, config or None, split=named_split or split)
        for part in found.with_format("arrow").iter(1000):  # not as one list: solutions are long
            yield from part_rows(part)


def part_rows(part) -> list[dict]:
    """Return an arrow batch's rows. A float32 stays one, so that 0.1 is not written 0.10000000149011612."""

    def narrow(x, kind):
        if isinstance(x, dict):
            return {field.name: narrow(x[field.name], field.type) for field in kind}
        if isinstance(x, list):
            return [narrow(y, kind.field(0).type) for y in x]
        types = {"float": np.float32, "halffloat": np.float16}
        return types.get(str(kind), float)(x) if isinstance(x, float) else x

    return [narrow(row, part.schema) for row in part.to_pylist()]
