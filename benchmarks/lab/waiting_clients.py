"""Clients that send one request each and wait for its response; a process of its own.

Prints one line when all requests are sent, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import sys
from itertools import count as counter

_SPARE_FILES = 64


def request(model: str, number: int, size: int) -> bytes:
    """Return the bytes of a chat request with a body of about *size* bytes."""
    text = f"question {number} ".ljust(size, "x")
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: waiting\r\n"
        "Accept: */*\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--size", type=int, default=200, help="bytes of a body")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < options.count + _SPARE_FILES:
        sys.exit(f"{hard} open files are too few for {options.count} connections")
    clients = []
    for number in range(options.count):
        client = socket.create_connection(("127.0.0.1", options.port), timeout=60)
        client.sendall(request(options.model, number, options.size))
        clients.append(client)
    print("sent", flush=True)
    sys.stdin.read()
    for number, client in zip(counter(), clients, strict=False):
        client.setblocking(False)
        try:
            answer = client.recv(100)
        except BlockingIOError:
            continue
        print(f"request {number} was answered: {answer!r}", flush=True)


if __name__ == "__main__":
    main()
