"""Random streams: an independent seed for each purpose and step of a run.

No stream keeps state from one step to the next, so a resumed run continues each of them exactly.
"""

import hashlib

import torch


def stream_seed(seed: int, stream: str, *counters: int) -> int:
    """Return the seed of a named stream (data, sampling, shards, …) at the given step, epoch, rank, …"""
    return int.from_bytes(hashlib.sha256(repr((seed, stream, counters)).encode()).digest()[:7], "little")


def generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, stream, *counters))
