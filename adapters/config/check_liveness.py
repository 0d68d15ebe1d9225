"""Check of ``liveness.firstByte`` against the time that a prompt may take."""

from __future__ import annotations

from ..llama_cpp.launch_args import LaunchLine
from .routing import NamesLike
from .values import ModelConfig

#: Rate of a slow prefill: a model of 20 to 30 GiB that is partly on the CPU.
SLOW_TOKENS_PER_S = 200.0


def check_liveness(names: NamesLike) -> None:
    """Warn of limits that the prefill of a full context may exceed."""
    for model in names.models.values():
        limit_s, context = model.liveness.first_byte, context_of(model)
        needed_s = context / SLOW_TOKENS_PER_S
        if limit_s and limit_s < needed_s:
            names.warning(
                ("models", model.id, "liveness", "firstByte"),
                f"{limit_s:g} s is shorter than a slow prefill: {context} tokens of context at "
                f"{SLOW_TOKENS_PER_S:g} tokens a second take {needed_s:.0f} s, and the model would "
                "be restarted meanwhile",
            )


def context_of(model: ModelConfig) -> int:
    """Return the longest prompt of *model* in tokens; 0 means unknown.

    It is that of ``capabilities``, else what the command of a llama-server gives to each slot.
    """
    if model.capabilities.context:
        return model.capabilities.context
    line = LaunchLine.parse(model.argv)
    if not line.is_llama_server:
        return 0
    size, slots = line.value("--ctx-size") or "", line.value("--parallel") or ""
    if not size.isdecimal() or len(size) > 9:
        return 0
    is_shared = line.has("--kv-unified") or not slots.isdecimal()
    return int(size) // (1 if is_shared else max(int(slots[:9]), 1))
