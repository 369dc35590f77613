"""The documents say what is so, and the layout is the one they show."""

import ast
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import asyppo
import critics
import evaluate
import train
from engine.streams import generator
from engine.updates import token_weights
from tests.runs import FEW, ROOT, rows, run

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md",
         *sorted((ROOT / "experiments").rglob("README.md"))]
LOG = ROOT / "experiments/LOG.md"  # names files of its time
BASH = re.compile(r"```bash\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def text_of(path: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, LOG], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = ["".join(parts) for parts in LINK.findall(text_of(page))]
    for link in links:
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_and_function_in_backticks_exists(page):
    names = set(re.findall(r"`([^`\n]+)`", text_of(page)))
    names |= {word for block in re.findall(BASH, page.read_text()) for word in block.split()}
    for name in names:
        script = re.match(r"(?:python |torchrun )?([\w/]+\.(?:py|md|txt))\b", name)
        if script and ("/" in script[1] or (ROOT / script[1]).suffix == ".py"):
            studies = [path for path in (ROOT / "experiments").iterdir() if path.is_dir()]
            places = [ROOT, ROOT / "engine", page.parent, *studies]
            assert any((place / script[1]).exists() for place in places), name
        function = re.fullmatch(r"((?:engine\.)?[a-z_]+)\.([a-z]\w+)(?:\(.*\))?", name)
        module = function and ROOT / (function[1].replace(".", "/") + ".py")
        if module and module.exists() and function[2] != "py":
            assert re.search(rf"^(def|class) {function[2]}\b", module.read_text(), re.MULTILINE), name


def test_readme_is_short():
    lines = README.read_text().splitlines()
    words = [word for word in text_of(README).split() if re.search(r"\w", word)]
    assert len(lines) <= 150 and len(words) <= 1400 and max(map(len, lines)) <= 400


def flags_of(script: str) -> list[tuple[str, str]]:
    """(group, flag) of every flag that a script's --help names."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        {"train.py": train, "evaluate.py": evaluate}[script].main(["--help"])
    found, group = [], ""
    for line in out.getvalue().splitlines():
        group = line[:-1] if re.fullmatch(r"\w[\w ]*:", line) else group
        found += [(group, flag) for flag in re.findall(r"--[\w-]+", line)] if re.match(r"  -", line) else []
    return found


def test_every_flag_that_a_page_names_exists():
    known = {flag for script in ("train.py", "evaluate.py") for _, flag in flags_of(script)}
    torchrun = {"--nproc_per_node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--max-restarts",
                "--shutdown-timeout"}
    # of benchmarks/time_table.py, tiny/make_tiny.py, git and SLURM
    others = {"--help", "--fit", "--cards", "--actors", "--copy", "--prompts", "--group", "--mean", "--shares", "--pairs",
              "--methods"}
    others |= {"--detach", "--requeue"}
    for page in [README, *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"^#SBATCH.*", "", page.read_text(), flags=re.MULTILINE)
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", re.sub(r"```diff.*?```", "", text, flags=re.DOTALL)):
            assert flag in known | torchrun | others, (page.name, flag)


def test_every_flag_that_varies_the_method_is_in_the_ablations():
    page = (ROOT / "docs/ablations.md").read_text()
    groups = ("method", "critics", "advantage", "policy objective")
    named = [flag for group, flag in flags_of("train.py") if group in groups and not flag.startswith("--no-")]
    assert len(named) > 20
    for flag in named:
        assert re.search(rf"^\|[^|]*`{flag}\b[^|]*\|", page, re.MULTILINE), f"no row for {flag}"


# -- the worked example --------------------------------------------------------------------------------------
def table(page: str, header: str) -> list[list[str]]:
    """The cells of the table whose first line begins so."""
    lines = page[page.index(header):].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def number(text: str) -> float:
    numerator, _, denominator = text.replace("−", "-").partition("/")
    return float(numerator) / float(denominator or 1)


def test_the_worked_example_is_what_the_functions_compute():
    """docs/method.md, steps 1 to 6: inputs are read from the page, and every other number is held against it."""
    page = (ROOT / "docs/method.md").read_text()
    responses = table(page, "| response | tokens | reward")
    lengths = [len(re.findall(r"`? ", cells[1])) + 1 for cells in responses]
    rewards_B = torch.tensor([number(cells[2]) for cells in responses])
    mask_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    group_B = torch.zeros(4, dtype=torch.long)

    def spread(column: list[float]) -> torch.Tensor:
        return torch.zeros(mask_BT.shape).masked_scatter(mask_BT, torch.tensor(column))

    def same(computed, column: list[float], digits: int) -> None:
        assert torch.as_tensor(computed).double().tolist() == pytest.approx(column, abs=0.51 * 10**-digits)

    seed, step = map(int, re.search(r"random split of seed (\d+), step (\d+)", page).groups())
    shards_MB = critics.shard(group_B, 2, "group", generator(seed, "shards", step))
    assert [int(cells[3]) for cells in responses] == shards_MB.int().argmax(0).tolist()

    values = [list(map(number, cells[2:])) for cells in table(page, "| response | token | V_0")]
    v0, v1, mean, advantage, white, sigma, keeps_policy, keeps_entropy = zip(*values)
    values_MBT = torch.stack([spread(v0), spread(v1)])
    rewards_BT = asyppo.terminal_rewards(rewards_B, mask_BT)
    returns_BT = asyppo.discounted_returns(rewards_BT, mask_BT, 1.0)
    errors = [[], []]
    for m, values_BT in enumerate(values_MBT):
        weights_BT = token_weights((mask_BT & shards_MB[m][:, None]).float(), "token")
        for before_or_after_BT in (torch.zeros_like(values_BT), values_BT):
            loss_N, _ = critics.value_loss(before_or_after_BT, critics.ValueData(returns_BT))
            errors[m].append((weights_BT * loss_N).sum().item())
    said = re.findall(r"from ([\d.]+) to ([\d.]+) for critic (\d)", page)
    assert len(said) == 2
    for before, after, m in said:
        same(errors[int(m)], [number(before), number(after)], 3)

    values_BT = asyppo.aggregate(values_MBT, "mean")
    same(values_BT[mask_BT], mean, 3)
    raw_BT = asyppo.gae(rewards_BT, values_BT, mask_BT, 1.0, 1.0)
    same(raw_BT[mask_BT], advantage, 3)
    moments = re.search(r"Its mean is (\S+) and its standard deviation ([\d.]+)\.\n", page).groups()
    same([raw_BT[mask_BT].mean(), raw_BT[mask_BT].std(correction=0)], list(map(number, moments)), 3)
    fall = number(re.search(r"With λ = 0 the advantage would be δ = (\S+)\.\n", page)[1])
    same([asyppo.gae(rewards_BT, values_BT, mask_BT, 1.0, 0.0)[3, 1]], [fall], 3)
    white_BT = asyppo.whiten(raw_BT, mask_BT, rewards_B)
    same(white_BT[mask_BT], white, 3)
    grpo_B = asyppo.group_advantages(rewards_B, group_B, scale_by_std=True)
    assert grpo_B.tolist() == [1, -1, 1, -1] and "responses 1 and 3 the advantage +1" in page

    std_BT = asyppo.disagreement(values_MBT)
    same(std_BT[mask_BT], sigma, 3)
    k, epsilon, beta = map(float, re.search(r"k = h = (\S+), ε = (\S+) and β = (\S+) \(", page).groups())
    advantage_mask_BT = asyppo.advantage_mask(std_BT, mask_BT, k)
    entropy_filter_BT = asyppo.entropy_filter(std_BT, mask_BT, k)
    same(advantage_mask_BT[mask_BT].float(), keeps_policy, 3)
    same(entropy_filter_BT[mask_BT].float(), keeps_entropy, 3)

    terms = table(page, "| response | token | π_old")
    old, new, entropy, ratio, term, weight = zip(*[list(map(number, cells[2:8])) for cells in terms])
    old_N, new_N = torch.tensor(old).log(), torch.tensor(new).log()
    same((new_N - old_N).exp(), ratio, 3)
    data = asyppo.PolicyData(old_N, white_BT[mask_BT], advantage_mask_BT[mask_BT], entropy_filter_BT[mask_BT])
    loss_N, logged = asyppo.policy_loss(new_N, torch.tensor(entropy), data, epsilon, epsilon, beta)
    same(-loss_N, term, 4)
    assert [cells[8] == "yes" for cells in terms] == logged["clip_frac"].tolist()
    weights_N = token_weights(mask_BT.float(), "sequence")[mask_BT]
    same(weights_N, weight, 6)
    objective = re.search(r"The objective is the weighted sum, ([\d.]+)\.", page)[1]
    same([-(weights_N * loss_N).sum()], [number(objective)], 3)


# -- what a run logs -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> set[str]:
    """The keys of one step of a run with everything that adds keys."""
    out = tmp_path_factory.mktemp("run") / "run"
    run("train.py", "--out", out, "--steps", 1, *FEW[:-2], "--eval-data", ROOT / "tiny/test.jsonl", "--gate",
        "--eval-every", 1, "--max-new-tokens", 24)
    return {key for row in rows(out) for key in row}


def test_every_key_that_a_run_logs_is_explained(logged):
    page = (ROOT / "docs/metrics.md").read_text()
    assert {"step", "reward_mean", "gated", "eval/test"} <= logged
    explained = set(re.findall(r"`([\w/{}]+)`", page))
    for key in logged:
        name = re.sub(r"^eval/.*", "eval/NAME", re.sub(r"^critic\d+/", "critic{m}/", key))
        assert name in explained, f"docs/metrics.md lacks {key}"


def test_the_healthy_run_is_the_committed_one():
    """The box of docs/metrics.md and README's lines are of the run whose numbers are committed."""
    folder = next((ROOT / "experiments").rglob("tiny/metrics.jsonl")).parent
    committed = {row["step"]: row for row in rows(folder)}
    page = re.sub(r"^> ?", "", (ROOT / "docs/metrics.md").read_text(), flags=re.MULTILINE)
    box = table(page, "| | step 1 | step 5 | step 10 |")
    for cells in box:
        for i, step in enumerate((1, 5, 10), start=1):
            numbers = [number(x) for x in cells[i].split(", ") if x]
            keys = re.findall(r"[\w/]+", cells[0])
            for key, x in zip(keys, numbers):
                digits = len(cells[i].split(", ")[0].partition(".")[2])
                assert x == pytest.approx(committed[step][key], abs=0.51 * 10**-digits), (key, step)
    shown = re.findall(r"^step +(\d+)/15  (.*)", README.read_text(), re.MULTILINE)
    assert len(shown) == 5
    for step, line in shown:
        for pattern, key, scale in ((r"reward (\S+)", "reward_mean", 1), (r"entropy (\S+)", "entropy", 1),
                                    (r"σ (\S+)", "value_std_p50", 1), (r"accuracy (\S+)%", "eval/test", 100)):
            for written in re.findall(pattern, line):
                assert float(written) == pytest.approx(scale * committed[int(step)][key], abs=0.00051 * scale), step


# -- commands and diffs --------------------------------------------------------------------------------------
DIFF = re.compile(r"```diff\n(.*?)```", re.DOTALL)
DIFFS = sorted({diff for page in PAGES for diff in re.findall(DIFF, page.read_text())})


# one interpreter imports the libraries, and a fork of it runs each changed tree
RUN_EACH = """
import json, os, runpy, sys
import torch, transformers.models.qwen3.modeling_qwen3
for tree, flags in json.loads(sys.argv[1]):
    if not (child := os.fork()):
        os.chdir(tree)
        sys.path.insert(0, tree)
        sys.argv = ["train.py", *flags]
        runpy.run_path("train.py", run_name="__main__")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, tree
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory) -> dict[str, Path]:
    """diff -> a tree of its own to which git applied it."""
    trees = {}
    for i, diff in enumerate(DIFFS):
        tree = trees[diff] = tmp_path_factory.mktemp(f"fork{i}")
        for name in ("train.py", "asyppo.py", "critics.py", "rollout.py", "evaluate.py"):
            shutil.copy(ROOT / name, tree)
        for name in ("engine", "verifier", "tiny"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(["git", "apply", "-"], cwd=tree, input=diff, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return trees


def test_every_fork_applies(forks):
    assert len(forks) == 3
    for diff, tree in forks.items():
        for file in re.findall(r"^--- a/(\S+)", diff, re.MULTILINE):
            text = (tree / file).read_text()
            assert text != (ROOT / file).read_text()
            compile(text, file, "exec")


@pytest.mark.slow
def test_every_fork_runs_one_step(forks):
    steps = "--steps 1 --eval-every 0 --out out --max-new-tokens 40 --algo".split()
    runs = [(str(tree), [*FEW, *steps, "grpo" if "leave_one_out" in diff else "asyppo"])
            for diff, tree in forks.items()]
    command = [sys.executable, "-c", RUN_EACH, json.dumps(runs)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    for diff, tree in forks.items():
        (row,) = [row for row in rows(tree / "out") if row["step"] == 1]
        if "1 - step" in diff:
            assert row["adv_masked_frac"] == 0, "at the last step nothing is masked"
        if "ends_with_gold" in diff:
            for sample in rows(tree / "out", "rollouts.jsonl"):
                assert sample["reward"] <= float(sample["gold"] in sample["response"])


TABLES = [(page, command, printed) for page in PAGES for command, printed in re.findall(
    r"`python (benchmarks/time_table\.py[^`]*)`[^\n]*:\n\n((?:\|[^\n]*\n)+)", page.read_text())]


@pytest.mark.slow
def test_the_tables_of_time_and_memory_are_what_the_script_prints():
    assert len(TABLES) == 4
    for page, command, printed in TABLES:
        done = subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == printed, (page.name, command, done.stderr)


def shell_scripts() -> list[str]:
    return [block for page in PAGES for block in re.findall(BASH, page.read_text())]


def test_every_shell_block_parses():
    blocks = shell_scripts()
    assert len(blocks) > 8
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, (block, done.stderr)


@pytest.mark.slow
def test_the_slurm_script_runs_on_two_nodes_of_two_processes(tmp_path):
    """srun and scontrol are stand-ins: srun starts its command twice, as on two nodes."""
    (script,) = [block for block in shell_scripts() if "#SBATCH" in block]
    stand_ins = {
        "scontrol": "#!/bin/bash\necho localhost\n",
        "srun": '#!/bin/bash\n"$@" & first=$!\n"$@"; second=$?\nwait $first && exit $second\n',
        "torchrun": f'#!/bin/bash\nexec "{sys.executable}" -m torch.distributed.run "$@"\n',
    }
    for name, content in stand_ins.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    flags = " ".join(["--steps", "1", *FEW[:-1], "''", "--eval-every", "0", "--max-new-tokens", "24"])
    script = script.replace("--model Qwen/Qwen3-14B-Base", flags).replace("/shared/run", str(tmp_path / "run"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = dict(SLURM_JOB_NODELIST="a,b", SLURM_NNODES="2", SLURM_JOB_ID="1", GPUS="2", PORT=str(port))
    environment = os.environ | slurm | dict(PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=500)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/model").exists()
    assert json.loads((tmp_path / "run/config.json").read_text())["world_size"] == 4


def test_ci_runs_the_two_test_commands_that_the_page_gives():
    tiers = re.findall(r"^python -m pytest.*?(?=  |$)", (ROOT / "docs/development.md").read_text(), re.MULTILINE)
    ci = (ROOT / ".ci/run").read_text().splitlines()
    assert len(tiers) == 3 and set(tiers[:2]) <= set(ci)


def test_the_sizes_that_readme_gives_of_this_code_are_right():
    said = re.search(r"^\| this \| ([\d,]+) on top, ([\d,]+) in engine", README.read_text(), re.MULTILINE).groups()
    five = [ROOT / f"{name}.py" for name in ("train", "asyppo", "critics", "rollout", "evaluate")]
    for files, size in zip((five, ROOT.glob("engine/*.py")), said):
        lines = sum(len(path.read_text().splitlines()) for path in files)
        assert lines == pytest.approx(number(size.replace(",", "")), rel=0.06)


def test_an_installed_copy_has_every_file_that_the_scripts_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert sorted(project["py-modules"]) == sorted(path.stem for path in ROOT.glob("*.py"))
    assert {"engine", "verifier"} <= set(project["packages"])


# -- who imports whom ----------------------------------------------------------------------------------------------
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
