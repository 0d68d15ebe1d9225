"""The command line takes what llama-swap's takes."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from tools.net import wait_until
from tools.swapchart_process import Proxies, demo_model
from tools.tls import PEM

from swapchart import __version__
from swapchart.adapters.cli import main
from swapchart.adapters.cli.parsers import build_parser
from swapchart.adapters.config import load
from swapchart.adapters.config.document.merge import read_files


@pytest.mark.parametrize("dash", ["-", "--"])
def test_serve_accepts_the_flags_of_llama_swap(dash: str) -> None:
    """After ``serve`` its flags are understood, with one dash or two."""
    flags = f"{dash}config a.yaml {dash}config-dir d {dash}listen :9000 {dash}watch-config"

    options = build_parser().parse_args(["serve", *flags.split()])

    assert (options.config, options.config_dir) == ([Path("a.yaml")], Path("d"))
    assert (options.listen, options.watch_config) == (":9000", True)


@pytest.mark.parametrize(
    ("flag", "is_watching"),
    [("", True), ("=true", True), ("=1", True), ("=T", True), ("=false", False), ("=0", False)],
)
@pytest.mark.parametrize("dash", ["-", "--"])
def test_watch_config_flag_takes_a_value_as_in_llama_swap(
    dash: str, flag: str, is_watching: bool
) -> None:
    """The forms of a boolean flag of Go are accepted, and others are refused."""
    options = build_parser().parse_args(["serve", f"{dash}watch-config{flag}", "-config", "a"])

    assert (options.watch_config, options.config) == (is_watching, [Path("a")])
    with pytest.raises(SystemExit):
        build_parser().parse_args(["serve", f"{dash}watch-config=maybe"])


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("-version", f"version: {__version__} (unknown), built at unknown\n"),
        ("--version", f"swapchart {__version__}\n"),
    ],
)
def test_version_flag_prints_the_version(
    flag: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The version is printed, and that is all; under llama-swap's flag in its form."""
    with pytest.raises(SystemExit) as ended:
        main([flag])

    assert ended.value.code == 0
    assert capsys.readouterr().out == line


def test_flags_without_a_command_name_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """llama-swap's command line, which has no command, is answered with the one to use."""
    with pytest.raises(SystemExit) as ended:
        main(["-config", "my file.yaml", "-listen", ":8080"])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "swapchart serve -config 'my file.yaml' -listen :8080" in said


BAD_CHART = "models: {a: {cmd: '/bin/true ${PORT}'}}\nlifecycle: {states: {nowhere: {x: 1}}}\n"


def test_serve_check_and_plan_report_a_bad_lifecycle_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The changes to the chart are checked before anything starts; the error is one line."""
    path = tmp_path / "config.yaml"
    path.write_text(BAD_CHART)

    assert main(["config", "check", str(path)]) == 1
    checked = capsys.readouterr().out
    assert main(["serve", "--config", str(path), "--listen", "127.0.0.1:0"]) == 78
    assert capsys.readouterr().err == checked
    (tmp_path / "old.yaml").write_text("models: {a: {cmd: '/bin/true ${PORT}'}}\n")
    assert main(["config", "plan", str(tmp_path / "old.yaml"), str(path)]) == 1
    assert capsys.readouterr().err == checked
    assert checked.startswith("error: lifecycle.states.nowhere.x: unknown key")
    assert checked.count("\n") == 1


def test_config_check_accepts_the_flags_of_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words `config check` before the flags of `serve` check what `serve` would refuse."""
    path = tmp_path / "config.yaml"
    path.write_text("models: {a: {cmd: '/bin/true ${PORT}'}}\n")
    flags = ["-config", str(path), "-watch-config=false", "-listen"]

    assert main(["config", "check", *flags, "127.0.0.1:8080"]) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"
    assert main(["config", "check", *flags, "0.0.0.0:8080"]) == 1
    assert "no apiKeys are configured" in capsys.readouterr().out
    assert main(["config", "check", *flags, "8080"]) == 1
    assert "expected HOST:PORT" in capsys.readouterr().out
    assert main(["config", "check", "-config-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: ok\n"
    path.write_text("models: {a: {cmd: '/bin/true ${PORT}', ttll: 3}}\n")
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"{path}: ok, with 1 warning\n")


@pytest.mark.parametrize(
    ("options", "key", "code", "reads"),
    [([], "ttl: 3", 0, 1), (["--lenient"], "ttl: 3", 0, 1), (["--lenient"], "ttl: x", 0, 3)],
)
def test_config_check_of_a_file_without_errors_reads_it_once(
    options: list[str], key: str, code: int, reads: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Only models to leave out take more: one to find them, and one each time without them."""
    seen: list[object] = []

    def note(*arguments: Any) -> Any:
        seen.append(arguments[0])
        return read_files(*arguments)

    monkeypatch.setattr(load, "read_files", note)
    path = tmp_path / "config.yaml"
    path.write_text(
        f"models: {{a: {{cmd: '/bin/true ${{PORT}}', {key}}}, b: {{cmd: '/bin/true ${{PORT}}'}}}}"
    )

    assert main(["config", "check", *options, str(path)]) == code
    assert len(seen) == reads


def test_config_check_server_is_not_installed_names_the_extra(tmp_path: Path) -> None:
    """`config check` refuses the server that `serve` would not find."""
    path = tmp_path / "config.yaml"
    path.write_text("models: {a: {cmd: '/bin/true ${PORT}'}}\n")
    command = ["config", "check", str(path)]
    for server, code in (("uvicorn", 1), ("hypercorn", 0)):
        argv = [sys.executable, "-c", _WITHOUT, "uvicorn", *command, "--server", server]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (code, "")
        lines = ended.stdout.splitlines()
        if code:
            assert lines[0].startswith("--server uvicorn needs the Python package uvicorn")
            assert lines[0].endswith("pip install '.[uvicorn]'")
        assert lines[code:] == ([] if code else [f"{path}: ok"])


#: Runs the command as if the packages of the first argument were not installed.
_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

missing = sys.argv[1].split(",")
sys.meta_path.insert(0, Absent())
from swapchart.adapters.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("msgspec", "serve --config {config}", "proxy"),
        ("msgspec", "demo", "proxy"),
        ("hypercorn", "demo --listen 127.0.0.1:0", "proxy"),
        ("hypercorn", "serve --config {config} --listen 127.0.0.1:0", "proxy"),
        ("uvicorn", "serve --config {config} --listen 127.0.0.1:0 --server uvicorn", "uvicorn"),
    ],
)
def test_command_without_its_packages_names_the_extra(
    tmp_path: Path, missing: str, command: str, extra: str
) -> None:
    """A command whose packages are not installed ends in one line and starts nothing."""
    path = tmp_path / "config.yaml"
    path.write_text("models: {a: {cmd: '/bin/true ${PORT}'}}\n")
    argv = [sys.executable, "-c", _WITHOUT, missing, *command.format(config=path).split()]
    ended = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env={**os.environ, "SWAPCHART_STATE_DIR": str(tmp_path / "state")},
    )  # fmt: skip

    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert f"needs the Python package {missing}, which is not installed" in line
    assert line.endswith(f"pip install '.[{extra}]'")


@pytest.mark.parametrize("port", ["99999", "-1", "65536"])
def test_demo_server_refuses_ports_out_of_range(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that does not exist is a usage error."""
    with pytest.raises(SystemExit) as ended:
        main(["demo-server", "-m", "x", f"--port={port}"])

    assert ended.value.code == 2
    assert f"expected a port from 0 to 65535, got {port}" in capsys.readouterr().err


# ---- TLS
def flags(*paths: Path) -> list[str]:
    names = ("-tls-cert-file", "-tls-key-file")
    return [text for name, path in zip(names, paths, strict=False) for text in (name, str(path))]


@pytest.mark.slow
@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_serve_with_tls_speaks_https_only(tmp_path: Path, server: str) -> None:
    """With a certificate and its key it speaks HTTPS, streams included, and nothing else."""
    pem = tmp_path / "both.pem"
    pem.write_text(PEM)
    proxies = Proxies(tmp_path)
    try:
        proxy = proxies.serve(
            {"a": demo_model("a")}, wait=False, server=server, options=flags(pem, pem)
        )
        wait_until(lambda: "listens on https://127.0.0.1:" in proxy.output(), 30)
        found = re.search(r"https://127\.0\.0\.1:(\d+)", proxy.output())
        assert found is not None
        context = ssl.create_default_context(cadata=PEM.partition("-----BEGIN PRIV")[0])
        connection = HTTPSConnection("localhost", int(found[1]), timeout=30, context=context)
        body = b'{"model":"a","messages":[{"role":"user","content":"x"}],"max_tokens":3'
        for text in (body + b"}", body + b',"stream":true}'):
            connection.request("POST", "/v1/chat/completions", text)
            answer = connection.getresponse()
            assert answer.status == 200
            assert b"usage" in answer.read() or b"stream" in text
        connection.close()
        proxies.end()
    finally:
        proxies.close()


@pytest.mark.parametrize(
    ("given", "said", "code"),
    [
        (("both",), "expected --tls-cert-file and --tls-key-file, got --tls-cert-file only", 2),
        (("both", "missing"), "No such file or directory", 1),
        (("both", "noise"), "are not a certificate and its key", 1),
        (("noise", "both"), "are not a certificate and its key", 1),
    ],
)
def test_serve_with_bad_tls_files_reports_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], said: str, code: int
) -> None:
    """Before anything starts it is said which file is missing, or wrong; half a pair is usage."""
    (tmp_path / "both").write_text(PEM)
    (tmp_path / "noise").write_text("-----BEGIN NOISE-----")
    config = tmp_path / "config.yaml"
    config.write_text("models: {}")

    found = main(["serve", "--config", str(config), *flags(*(tmp_path / name for name in given))])

    assert (found, said in capsys.readouterr().err) == (code, True)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--listen", "8080", "expected HOST:PORT"), ("--root-path", "/v1", "--root-path")],
)
def test_serve_with_a_bad_option_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("models: {}")

    assert main(["serve", "--config", str(config), option, value]) == 2
    assert said in capsys.readouterr().err


def test_demo_with_a_bad_address_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--listen", "8080"]) == 2
    assert "expected HOST:PORT" in capsys.readouterr().err


def test_config_check_asks_the_proxy_that_the_environment_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option overrides the variable; without both no proxy is asked."""
    path = tmp_path / "config.yaml"
    path.write_text("models: {a: {cmd: '/bin/true ${PORT}'}}\n")
    monkeypatch.setenv("SWAPCHART_URL", "http://127.0.0.1:1")

    assert main(["config", "check", str(path)]) == 0
    assert "no response from http://127.0.0.1:1: " in capsys.readouterr().out
    assert main(["config", "check", str(path), "--url", "http://127.0.0.1:2"]) == 0
    assert "no response from http://127.0.0.1:2: " in capsys.readouterr().out
    monkeypatch.delenv("SWAPCHART_URL")
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"


@pytest.mark.parametrize("url", ["http://", "http:///", "https://"])
def test_url_without_a_host_is_named_as_it_was_given(
    capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert main(["status", "--url", url]) == 1
    assert f"no response from {url}: expected an address" in capsys.readouterr().err


def test_no_arguments_print_the_help_as_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"^ +init +", said.err, re.MULTILINE)
