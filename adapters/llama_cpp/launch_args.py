"""Command line of a llama-server: options that the contents of its caches depend on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

#: Alternative spelling -> the spelling used here.
_SPELLINGS = {
    "-m": "--model", "-c": "--ctx-size", "-np": "--parallel", "--n-parallel": "--parallel",
    "-ctk": "--cache-type-k", "-ctv": "--cache-type-v", "-fa": "--flash-attn",
    "-kvu": "--kv-unified", "-no-kvu": "--no-kv-unified", "-mm": "--mmproj", "-a": "--alias",
    "-sps": "--slot-prompt-similarity", "-hf": "--hf-repo", "-hfr": "--hf-repo",
    "-hff": "--hf-file", "-mu": "--model-url", "-dr": "--docker-repo", "-ngl": "--gpu-layers",
    "--n-gpu-layers": "--gpu-layers", "-sm": "--split-mode", "-ts": "--tensor-split",
    "-mg": "--main-gpu", "-ot": "--override-tensor", "-md": "--spec-draft-model",
    "--model-draft": "--spec-draft-model", "-nkvo": "--no-kv-offload", "-kvo": "--kv-offload",
    "-b": "--batch-size", "-ub": "--ubatch-size", "-cram": "--cache-ram",
    "-ctxcp": "--ctx-checkpoints", "-dio": "--direct-io", "-lm": "--load-mode",
}  # fmt: skip

#: Options without effect on caches: addresses, logging, speed, sampling. An option that is missing
#: here counts as relevant: an unknown option costs a cold start, never a wrong cache.
_HARMLESS = """
--port --host --reuse-port --path --api-prefix --alias --tags --slot-save-path --slots --props
--metrics --api-key --api-key-file --ssl-key-file --ssl-cert-file --timeout -to --threads-http
--sse-ping-interval --ui --no-ui --webui --no-webui --ui-config --webui-config
--ui-config-file --webui-config-file --cors-origins --cors-methods --cors-headers
--cors-credentials --no-cors-credentials --jinja --no-jinja --chat-template
--chat-template-file --chat-template-kwargs --reasoning-format --reasoning -rea
--reasoning-effort --reasoning-budget --skip-chat-parsing --no-skip-chat-parsing
--prefill-assistant --no-prefill-assistant --slot-prompt-similarity --cache-ram -cram
--cache-idle-slots --no-cache-idle-slots --cache-reuse --ctx-checkpoints -ctxcp
--swa-checkpoints --checkpoint-min-step -cms --context-shift --no-context-shift --warmup
--no-warmup --perf --no-perf --log-disable --log-file --log-colors --log-prefix
--no-log-prefix --log-timestamps --no-log-timestamps -v --verbose --log-verbose -lv
--verbosity --log-verbosity --offline -t --threads -tb --threads-batch -C --cpu-mask -Cr
--cpu-range --cpu-strict --prio --poll -Cb --cpu-mask-batch -Crb --cpu-range-batch
--cpu-strict-batch --prio-batch --poll-batch --mlock --mmap --no-mmap -dio --direct-io -ndio
--no-direct-io -lm --load-mode --numa --check-tensors -b --batch-size -ub --ubatch-size -n
--predict --n-predict --keep -cb --cont-batching -nocb --no-cont-batching -s --seed
--samplers --sampler-seq --sampling-seq --ignore-eos --temp --temperature --top-k --top-p
--min-p --top-nsigma --top-n-sigma --xtc-probability --xtc-threshold --typical --typical-p
--repeat-last-n --repeat-penalty --presence-penalty --frequency-penalty --dry-multiplier
--dry-base --dry-allowed-length --dry-penalty-last-n --dry-sequence-breaker
--adaptive-target --adaptive-decay --dynatemp-range --dynatemp-exp --mirostat --mirostat-lr
--mirostat-ent -l --logit-bias --grammar --grammar-file -j --json-schema -jf
--json-schema-file -bs --backend-sampling -r --reverse-prompt -sp --special
--hf-token -hft --media-path
"""
_IRRELEVANT = frozenset(_HARMLESS.split())

#: Options without effect on the contents of caches that change how much memory the server takes.
_MEMORY = """
--batch-size --ubatch-size --cache-ram --mmap --no-mmap --mlock --direct-io --load-mode
--ctx-checkpoints --swa-checkpoints --no-warmup
"""
_MEMORY_VARIABLES = "BATCH UBATCH CACHE_RAM MLOCK MMAP NO_MMAP"
_OF_MEMORY = frozenset(_MEMORY.split())
#: Options that name files; their contents count, not their paths.
FILE_OPTIONS = (
    "--model", "--mmproj", "--lora", "--lora-scaled", "--control-vector",
    "--control-vector-scaled", "--spec-draft-model",
)  # fmt: skip

_NUMBER = re.compile(r"-?(?:\d++(?:\.\d++)?|\.\d++)$")
_ENVIRONMENT = "LLAMA_ARG_"
_HARMLESS_VARIABLES = """
PORT HOST ALIAS THREADS THREADS_BATCH ENDPOINT_METRICS ENDPOINT_PROPS ENDPOINT_SLOTS
NO_ENDPOINT_SLOTS TIMEOUT THREADS_HTTP STATIC_PATH API_PREFIX LOG_FILE LOG_VERBOSITY
LOG_COLORS LOG_PREFIX LOG_TIMESTAMPS N_PREDICT BATCH UBATCH JINJA CHAT_TEMPLATE
CHAT_TEMPLATE_FILE SSL_KEY_FILE SSL_CERT_FILE NO_WEBUI WEBUI MLOCK NO_MMAP MMAP CACHE_RAM
"""
_IRRELEVANT_VARIABLES = frozenset(f"{_ENVIRONMENT}{name}" for name in _HARMLESS_VARIABLES.split())
_VARIABLES_OF_MEMORY = frozenset(f"{_ENVIRONMENT}{name}" for name in _MEMORY_VARIABLES.split())


@dataclass(frozen=True, slots=True)
class LaunchLine:
    """Options of one command line, in order.

    Attributes:
        program: As written.
        options: (name as in `_SPELLINGS`, values); words before the first option have the name "".
    """

    program: str
    options: tuple[tuple[str, tuple[str, ...]], ...]

    @staticmethod
    def parse(argv: Sequence[str]) -> LaunchLine:
        """Split *argv* into options: words that begin with a dash and are not numbers."""
        options: list[tuple[str, list[str]]] = [("", [])]
        for word in argv[1:]:
            if word.startswith("-") and len(word) > 1 and not _NUMBER.match(word):
                name, equals, value = word.partition("=")
                name = name.replace("_", "-") if name.startswith("--") else name
                options.append((_SPELLINGS.get(name, name), [value] if equals else []))
            else:
                options[-1][1].append(word)
        kept = [(name, tuple(values)) for name, values in options if name or values]
        return LaunchLine(argv[0] if argv else "", tuple(kept))

    @property
    def is_llama_server(self) -> bool:
        """Return True if the program is named like llama.cpp's server."""
        return "llama-server" in PurePath(self.program).name

    def has(self, *names: str) -> bool:
        """Return True if one of the options *names* is given."""
        return any(name in names for name, _ in self.options)

    def value(self, name: str) -> str | None:
        """Return the first value of the last option *name*, or None."""
        found = [values[0] for option, values in self.options if option == name and values]
        return found[-1] if found else None

    def files(self) -> list[tuple[str, str]]:
        """Return (option, path) of every file that the command line names."""
        found = []
        for name, values in self.options:
            for path in ",".join(values).split(",") if name in FILE_OPTIONS else ():
                bare, colon, scale = path.rpartition(":")
                found.append((name, bare if colon and _NUMBER.match(scale) else path))
        return [(name, path) for name, path in found if path]

    def relevant(self) -> list[str]:
        """Return the options that caches depend on, without files, one text each, sorted."""
        return self._texts(_IRRELEVANT)

    def memory_relevant(self) -> list[str]:
        """Return the options that memory depends on, as `relevant` does."""
        return self._texts(_IRRELEVANT - _OF_MEMORY)

    def _texts(self, irrelevant: frozenset[str]) -> list[str]:
        texts = []
        for name, values in self.options:
            if name in irrelevant or not name:
                continue
            if name in FILE_OPTIONS:
                scales = [value.rpartition(":")[2] for value in ",".join(values).split(",")]
                values = tuple(scale for scale in scales if _NUMBER.match(scale))
            texts.append(" ".join((name, *values)))
        return sorted(texts)


def relevant_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that llama-server reads as options, as NAME=value, sorted."""
    return _variables(environment, _IRRELEVANT_VARIABLES)


def memory_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that the memory of a llama-server depends on, as NAME=value, sorted."""
    return _variables(environment, _IRRELEVANT_VARIABLES - _VARIABLES_OF_MEMORY)


def _variables(environment: Mapping[str, str], irrelevant: frozenset[str]) -> list[str]:
    return sorted(
        f"{name}={value}"
        for name, value in environment.items()
        if name.startswith(_ENVIRONMENT) and name not in irrelevant
    )
