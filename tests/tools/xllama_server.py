"""A llama-server made of the xllamacpp package: its real HTTP server, for CPUs without AVX-512.

Understands the options of ``tools.llama.LlamaServer.argv`` and some more. Signals end it less
politely than llama-server's own program does, so tests of that skip it.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--ctx-size", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alias", default="")
    parser.add_argument("--slot-save-path", default="")
    parser.add_argument("--cache-ram", type=int)
    parser.add_argument("--chat-template-file", type=Path)
    options = parser.parse_args()
    xllamacpp = importlib.import_module("xllamacpp")  # has no types
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = options.ctx_size
    params.cpuparams.n_threads = options.threads
    if options.cache_ram is not None:
        params.cache_ram_mib = options.cache_ram
    if options.chat_template_file:
        params.chat_template = options.chat_template_file.read_text()
    if options.alias:
        params.model_alias = {options.alias}
    if options.slot_save_path:
        params.slot_save_path = options.slot_save_path.rstrip("/") + "/"
    numbers = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", file=sys.stderr, flush=True)
    signal.sigwait(numbers)
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main())
