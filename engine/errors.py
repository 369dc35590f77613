"""Mistakes and faults as one sentence instead of a stack trace."""

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException


class UserError(Exception):
    """A mistake that the user can mend. The exit code is 2."""

    exit_code = 2


class RunError(UserError):
    """A fault of the machine during a run, for instance a full disk. The exit code is 1."""

    exit_code = 1


def require(ok: object, sentence: str) -> None:
    """Raise UserError(sentence) unless ok is true. NaN comparisons are false, so they raise too."""
    if not ok:
        raise UserError(sentence)


@contextmanager
def user_error(sentence: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn OSError, ValueError and the given errors into a UserError: the sentence, then the reason."""
    try:
        yield
    except (OSError, ValueError, *errors) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{sentence} ({reason})") from error


@contextmanager
def run_error(path: Path) -> Iterator[Path]:
    """Turn a failed write to path into a RunError."""
    try:
        yield path
    except (OSError, SafetensorError, CheckpointException) as error:
        raise RunError(f"{path} could not be written ({first_cause(error)}; {free_space(path)}); everything saved "
                       "before is intact: continue with --resume.") from error


def free_space(path: Path) -> str:
    """Say how much room the disk under path has."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    return f"the disk of {existing} has {shutil.disk_usage(existing).free / 2**30:.2f} GiB free"


def first_cause(error: BaseException) -> BaseException:
    """Return the first rank's error from a CheckpointException, which holds rank -> (error, stack)."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
