"""What llama.cpp's own programs print is read as they printed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.llama_cpp import Line, decoded, prompts_of

CAPTURED = Path(__file__).parent / "captured"


def captured(name: str) -> list[Line]:
    """Its lines as if they had come 10 s apart, on one core and a half."""
    texts = (CAPTURED / name).read_text().splitlines()
    return [Line(text, 10.0 * n, 15.0 * n) for n, text in enumerate(texts)]


def test_prompts_have_the_tokens_and_seconds_of_the_program() -> None:
    (first, warm), (second, measured) = prompts_of(captured("llama_bench.txt"))
    assert (warm.tokens, measured.tokens) == (512, 64)
    assert warm.wall_s == first["samples_ns"][0] / 1e9
    assert measured.tokens / measured.wall_s == pytest.approx(second["avg_ts"], rel=1e-4)
    assert first["model_type"] == "llama 256M Q8_0"


def test_a_decode_has_the_tokens_and_seconds_of_all_its_streams() -> None:
    sample = decoded(captured("llama_batched_bench.txt"))
    assert sample.tokens == 8 * 16
    (line,) = (x for x in captured("llama_batched_bench.txt") if x.text.startswith("{"))
    assert f'"t_tg": {sample.wall_s:f}' in line.text


def test_cpu_seconds_are_the_share_of_the_stretch_before_the_result() -> None:
    sample = decoded(captured("llama_batched_bench.txt"))
    assert sample.cpu_s == pytest.approx(1.5 * sample.wall_s)
    for _, prompt in prompts_of(captured("llama_bench.txt")):
        assert prompt.cpu_s == pytest.approx(1.5 * prompt.wall_s)


def test_a_case_that_the_program_left_out_is_no_measurement() -> None:
    lines = [x for x in captured("llama_batched_bench.txt") if not x.text.startswith("{")]
    with pytest.raises(ValueError, match="gave no result"):
        decoded(lines)
