"""Warning of a `liveness.firstByte` that the prefill of a full context may exceed."""

from __future__ import annotations

import pytest
from tools.configs import Check

LLAMA = "llama-server --port ${PORT}"


@pytest.mark.parametrize(
    ("cmd", "more", "tokens"),
    [
        (f"{LLAMA} -c 8192", "", 8192),
        (f"{LLAMA} --ctx-size=8192 -np 4", "", None),  # 2048 tokens a slot: 10 s
        (f"{LLAMA} -c 65536 -np 4", "", 16384),
        (f"{LLAMA} -c 16384 -np 4 -kvu", "", 16384),
        (f"{LLAMA} -c 16384 -np 0", "", 16384),
        (f"{LLAMA} -c 4000", "", None),  # 20 s, as the limit
        (f"{LLAMA} -c 4200", "", 4200),
        (f"{LLAMA} -c 0", "", None),
        (LLAMA, "", None),
        (f"{LLAMA} -c 99999999999999999999", "", None),
        ("vllm serve --port ${PORT} -c 8192", "", None),
        ("vllm serve --port ${PORT}", "capabilities: {context: 32768}", 32768),
        (f"{LLAMA} -c 65536", "capabilities: {context: 1000}", None),
    ],
)
def test_first_byte_shorter_than_a_slow_prefill_is_a_warning(
    check: Check, cmd: str, more: str, tokens: int | None
) -> None:
    """The context comes from the capabilities or the command, at 200 tokens a second."""
    text = f"models:\n  m:\n    cmd: {cmd}\n    liveness: {{firstByte: 20}}\n    {more}\n"
    found = [problem for problem in check(text) if "prefill" in problem.message]

    if tokens is None:
        assert found == []
        return
    (problem,) = found
    assert problem.severity == "warning"
    assert (problem.path, problem.line) == ("models.m.liveness.firstByte", 4)
    assert f"{tokens} tokens of context at 200 tokens a second take" in problem.message


def test_first_byte_of_all_models_is_checked_for_each(check: Check) -> None:
    """A default at the top level is compared with the context of each model."""
    text = (
        "liveness: {firstByte: 20}\nmodels:\n"
        f"  small: {{cmd: '{LLAMA} -c 2048'}}\n  large: {{cmd: '{LLAMA} -c 32768'}}\n"
    )
    (problem,) = check(text)

    assert "32768 tokens" in problem.message
    assert problem.line == 1
