"""The README's picture is of the run that it shows, and a user's runs are drawn by the same command."""

import json
import re

import pytest

from tests.runs import ROOT, rows


def test_the_committed_numbers_are_those_of_the_run_in_the_readme():
    committed = {row["step"]: row for row in rows(ROOT / "experiments/inside/tiny")}
    assert list(committed) == list(range(21))
    shown = re.findall(r"^step +(\d+)/15  (.*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) >= 5
    for step, line in shown:
        row = committed[int(step)]
        for pattern, key, scale in ((r"reward (\S+)", "reward_mean", 1), (r"σ (\S+)", "value_std_p50", 1),
                                    (r"accuracy (\S+)%", "eval/test", 100)):
            for written in re.findall(pattern, line):
                assert float(written) == pytest.approx(scale * row[key], abs=0.00051 * scale), (step, key)


def test_several_runs_are_drawn_whatever_they_lack(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from experiments.inside import plot

    for name in ("critics", "none"):
        (tmp_path / name).mkdir()
        kept = [{k: x for k, x in row.items() if name == "critics" or not k.startswith(("critic", "value"))}
                for row in rows(ROOT / "experiments/inside/tiny")]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    for runs in (["critics"], ["none"], ["none", "critics"]):
        folders = [str(tmp_path / name) for name in runs]
        plot.main([*folders, "--out", str(tmp_path / f"{'-'.join(runs)}.png")])
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in ("critics", "none", "none-critics")}) == 3
    for wrong in ([str(tmp_path / "nowhere"), "--out", "x.png"], [str(tmp_path)]):
        with pytest.raises(SystemExit):
            plot.main(wrong)
    assert "nowhere holds no readable metrics.jsonl" in capsys.readouterr().err
