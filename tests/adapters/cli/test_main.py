"""The command line takes what llama-swap's takes."""

from __future__ import annotations

import re
import ssl
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from tools.net import wait_until
from tools.swapchart_process import Proxies, demo_model
from tools.tls import PEM

from swapchart import __version__
from swapchart.adapters.cli import main
from swapchart.adapters.cli.main import build_parser


@pytest.mark.parametrize("dash", ["-", "--"])
def test_serve_accepts_the_flags_of_llama_swap(dash: str) -> None:
    """After ``serve`` its flags are understood, with one dash or two."""
    flags = f"{dash}config a.yaml {dash}config-dir d {dash}listen :9000 {dash}watch-config"

    options = build_parser().parse_args(["serve", *flags.split()])

    assert (options.config, options.config_dir) == ([Path("a.yaml")], Path("d"))
    assert (options.listen, options.watch_config) == (":9000", True)


@pytest.mark.parametrize("flag", ["-version", "--version"])
def test_version_flag_prints_the_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The version is printed, and that is all."""
    with pytest.raises(SystemExit) as ended:
        main([flag])

    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


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
    ("given", "said"),
    [
        (("both",), "expected --tls-cert-file and --tls-key-file, got --tls-cert-file only"),
        (("both", "missing"), "No such file or directory"),
        (("both", "noise"), "are not a certificate and its key"),
        (("noise", "both"), "are not a certificate and its key"),
    ],
)
def test_serve_with_bad_tls_files_reports_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], said: str
) -> None:
    """Before anything starts it is said which file is missing, or wrong."""
    (tmp_path / "both").write_text(PEM)
    (tmp_path / "noise").write_text("-----BEGIN NOISE-----")
    config = tmp_path / "config.yaml"
    config.write_text("models: {}")

    code = main(["serve", "--config", str(config), *flags(*(tmp_path / name for name in given))])

    assert (code, said in capsys.readouterr().err) == (1, True)
