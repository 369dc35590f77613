"""What the README tells a reader to do is what works."""

import re
import shutil
import subprocess

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_worked_ablation_applies_to_the_code_as_it_is(tmp_path):
    shutil.copy(ROOT / "train.py", tmp_path)
    (diff,) = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(["git", "apply", "--verbose", "-"], cwd=tmp_path, input=diff, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    changed = (tmp_path / "train.py").read_text()
    assert changed != (ROOT / "train.py").read_text()
    compile(changed, "train.py", "exec")


def test_every_function_that_the_readme_names_exists():
    named = re.findall(r"`(actor|asyppo|critics|distributed|evaluate|folder|rollout|train|verifier)\.(\w+)`", README)
    assert len(named) >= 15
    for module, function in named:
        if function != "py":
            assert re.search(rf"^def {function}\(", (ROOT / f"{module}.py").read_text(), re.MULTILINE), (module, function)


def test_ci_runs_the_test_command_that_the_readme_gives():
    (command,) = re.findall(r"`(python -m pytest[^`]*)`", README)
    assert command in (ROOT / ".ci/run").read_text()
