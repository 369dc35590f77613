"""The layout: five files of the method on top; engine/ and verifier/ import none of them."""

import ast

import pytest

from tests.runs import ROOT

METHOD = {"train", "asyppo", "critics", "rollout", "evaluate"}


def imported(path) -> set[str]:
    """Return the top-level names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add("." if node.level else node.module.split(".")[0])
    return names


def test_the_five_files_of_the_method_are_alone_on_top():
    assert {path.stem for path in ROOT.glob("*.py")} == METHOD


def test_the_equations_need_torch_only():
    assert imported(ROOT / "asyppo.py") == {"torch", "typing"}


def test_the_engine_does_not_know_the_method():
    files = list(ROOT.glob("engine/*.py"))
    assert len(files) > 10
    for path in files:
        assert not imported(path) & (METHOD | {"verifier", "tests", "experiments"}), path


def test_the_verifier_imports_nothing_of_the_project():
    files, folders = list(ROOT.glob("verifier/*.py")), {path.parent.name for path in ROOT.glob("*/*.py")}
    assert files, "verifier/ is a package"
    for path in files:
        assert not imported(path) & (METHOD | folders - {"verifier"}), path


@pytest.mark.parametrize("folder", [".", "engine", "verifier"])
def test_only_train_and_evaluate_have_functions_that_take_all_flags(folder):
    for path in (ROOT / folder).glob("*.py"):
        if path in (ROOT / "train.py", ROOT / "evaluate.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert "args" not in [parameter.arg for parameter in parameters], f"{path}:{node.lineno}"
