"""The folder of a run or an evaluation: claimed once, and found again with the same settings by --resume."""

import datetime
import errno
import fcntl
import importlib.metadata
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine.checkpoint import saved_steps
from engine.distributed import World, gather_list, raise_on_all_ranks
from engine.errors import require, user_error

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "transformers", "math-verify", "numpy")


@dataclass
class Folder:
    """A run's folder. begin() makes it this run's own."""

    path: Path
    old_digests: dict[str, str] | None = None  # of the run that is resumed: flag -> digest
    old_generate_batch: int | None = None  # of the run that is resumed: another one draws other responses
    config: IO | None = None  # rank 0's config.json, held open for its lock

    def begin(self, settings: dict, digests: dict[str, str], world: World) -> None:
        """Claim the folder and write config.json: settings, git commit, package versions, digests. Collective.

        digests: flag -> digest of the data, model or template that it names; a resumed run must have the same.
        """
        for flag in digests:
            require(len(set(gather_list([digests[flag]], world))) == 1,
                    f"{flag} has different content on the machines of the run; copy the same files to all of them.")
        if self.old_digests is not None:
            for flag in [*digests, *self.old_digests]:
                require(digests.get(flag) == self.old_digests.get(flag),
                        f"--resume: {flag} differs from the one that the run in {self.path} began with; "
                        "restore it, or start a new run in another --out.")
            require([*digests] == [*self.old_digests],
                    f"--resume: the run began with {', '.join(self.old_digests)} in this order, not "
                    f"{', '.join(digests)}; give them in the old order.")
        with raise_on_all_ranks(world):
            claimed = not world.is_main or self.claim()
            require(claimed, TAKEN.format(self.path))
        if world.is_main and self.old_digests is None:
            config = {
                "settings": settings | {"out": str(self.path)},
                "world_size": world.size, "git_commit": git_commit(),
                "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
                "digests": digests,
            }
            with user_error(f"--out {self.path} cannot be written; name another folder"):
                print(json.dumps(config, indent=2), file=self.config, flush=True)

    def claim(self) -> bool:
        """Lock the folder until this process ends. -> is it free, and empty unless a run is resumed"""
        with user_error(f"--out {self.path} cannot be written; name another folder"):
            self.path.mkdir(parents=True, exist_ok=True)
            self.config = (self.path / "config.json").open("a+")
            try:
                fcntl.lockf(self.config, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):  # not every file system has locks
                    return False
            return self.old_digests is not None or not os.fstat(self.config.fileno()).st_size


TAKEN = "--out {} holds another run; give a new folder, or use --resume when no other process works there."


def open_folder(out: Path | None, resume: bool, settings: dict, may_change: set[str], prefix: str,
                world: World) -> Folder:
    """Find or name the folder; runs/PREFIX-TIME-XXXX without --out. Nothing is written yet. Collective.

    Raises if the folder is taken or cannot be written. With resume, it raises if there is no run, if its checkpoint
    is lost, or if a setting differs that is neither in may_change nor identified by a digest.
    """
    default = Path(f"runs/{prefix}-{datetime.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
    out, named = gather_list([out or default], world)[0], out is not None
    config = out / "config.json"
    with user_error(f"--out {out} cannot be written; name another folder"):
        require(not out.is_file(), f"--out {out} is a file; name a folder.")
        require(out != Path() or resume, "--out is the working directory; name a folder of its own.")
        require(not (named and not resume and config.exists() and config.stat().st_size), TAKEN.format(out))
        existing = next(path for path in (out, *out.parents) if path.exists() or path.is_symlink())
        with tempfile.TemporaryDirectory(dir=existing) as trial:
            (Path(trial) / out.relative_to(existing)).mkdir(parents=True, exist_ok=True)
            trials = gather_list([existing / Path(trial).name], world)
            shared = min(gather_list([trials[0].exists()], world))
    require(shared, f"--out {out} is not the same folder on every machine; name one on a shared disk.")
    return find_run(out, settings, may_change) if resume else Folder(out)


def find_run(out: Path, settings: dict, may_change: set[str]) -> Folder:
    """Read the config.json of the run to resume, and compare its settings."""
    with user_error(f"--resume: {out} holds no run; start one without --resume", KeyError, TypeError):
        config = json.loads((out / "config.json").read_text())
        old, digests = config["settings"], config["digests"]
    identified = {flag.split()[0] for flag in digests}  # a moved file is known by its digest
    for key, value in settings.items():
        flag = "--" + key.replace("_", "-")
        require(key in may_change or flag in identified or value == old.get(key),
                f"--resume: the run in {out} has {flag} {old.get(key)}, not {value}; give the same "
                "settings, or start a new run in another --out.")
    require(saved_steps(out / "checkpoint") or not (out / "saved").exists(),
            f"--resume: the run in {out} was saved, but its checkpoint is gone; put it back, or start a "
            "new run in another --out.")
    return Folder(out, digests, old.get("generate_batch"))


def git_commit() -> str | None:
    """Return the commit of the code, if git knows it."""
    git = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(git, cwd=HERE, capture_output=True, text=True) if shutil.which("git") else None
    return done.stdout.strip() or None if done else None
