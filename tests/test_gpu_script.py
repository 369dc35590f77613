"""What benchmarks/gpu.py finds on a GPU: right where the code is right, and wrong where it is not."""

import pytest

import models
from benchmarks import gpu
from distributed import stop


def found(part, *flags) -> list[dict]:
    results = []
    try:
        part(gpu.parse_args(["--device", "cpu", *flags]), results.append)
    finally:
        stop()
    return results


def test_the_code_is_found_right_on_the_cpu_in_fp32_and_bf16():
    results = found(gpu.correct)
    assert len(results) == 12 and all(x["right"] for x in results), results


def test_states_that_are_one_token_late_are_found_wrong(monkeypatch):
    states = models.response_states
    monkeypatch.setattr(models, "response_states", lambda *a: (states(*a)[0].roll(1, 0), states(*a)[1]))
    wrong = {x["check"] for x in found(gpu.correct) if not x["right"]}
    assert wrong == {"log-probabilities", "entropies", "gradient", "values", "σ"}


def test_decoding_is_timed_for_every_number_of_rows_and_every_context():
    results = found(gpu.decode, "--contexts", "5", "9", "--decode-rows", "2", "3")
    assert [(x["context"], x["rows"]) for x in results] == [(5, 2), (5, 3), (9, 2), (9, 3)]
    assert all(x["tokens_per_s"] == pytest.approx(x["rows"] / x["ms_a_token"] * 1e3) for x in results)
