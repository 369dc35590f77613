"""What the README tells a reader to do is what works."""

import re
import shutil
import subprocess
import tomllib

from tests.runs import ROOT

README = (ROOT / "README.md").read_text()
MODULES = sorted(path.stem for path in ROOT.glob("*.py"))


def test_every_worked_change_applies_to_the_code_as_it_is(tmp_path):
    """Each on its own, to copies of the files that it names."""
    diffs = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    assert diffs
    for i, diff in enumerate(diffs):
        tree = tmp_path / str(i)
        files = re.findall(r"^--- a/(\S+)", diff, re.MULTILINE)
        assert files, diff
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tree / file)
        done = subprocess.run(
            ["git", "apply", "--verbose", "-"], cwd=tree, input=diff, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "offset" not in done.stderr, "the hunk headers are right"
        for file in files:
            changed = (tree / file).read_text()
            assert changed != (ROOT / file).read_text()
            compile(changed, file, "exec")


def test_every_function_that_the_readme_names_exists():
    named = re.findall(rf"`({'|'.join(MODULES)})\.(\w+)`", README)
    assert len(named) >= 15
    for module, name in named:
        if name != "py":
            text = (ROOT / f"{module}.py").read_text()
            assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), (module, name)


def test_ci_runs_the_test_command_that_the_readme_gives():
    (command,) = re.findall(r"`(python -m pytest[^`]*)`", README)
    assert command in (ROOT / ".ci/run").read_text()


def test_an_installed_copy_has_every_file_that_the_scripts_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(project["tool"]["setuptools"]["py-modules"]) == MODULES
