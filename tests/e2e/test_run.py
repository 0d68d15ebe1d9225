"""`swapchart run` and conversations in a terminal, with demo servers as engines."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
from tools import shown
from tools.gguf_files import write_gguf
from tools.make_tiny_gguf import write_tiny_gguf
from tools.net import LONG_S, port_block, wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model
from tools.terminal import CTRL_C, CTRL_D, Terminal
from tools.user_place import FAST, Place

pytestmark = pytest.mark.slow

CHAT = (sys.executable, "-m", "swapchart", "chat")


@pytest.fixture(autouse=True)
def tiny(place: Place) -> None:
    """A model file in the working directory."""
    write_tiny_gguf(place.folder / "tiny-F32.gguf")


def test_run_serves_a_file_and_prints_the_response(place: Place) -> None:
    """The prompt is an argument, or standard input; the rest goes to standard error."""
    code, out, err = place.run("tiny-F32.gguf", "hello there", "--max-tokens", "50")
    assert (code, out) == (0, "This is tiny. You asked: hello there\n")
    assert re.match(r"tiny: served at http://127\.0\.0\.1:\d+/v1 meanwhile\n", err)
    assert re.search(r"^tiny is ready after \d+\.\d s$", err, re.MULTILINE)
    code, out, err = place.run(str(place.folder / "tiny-F32.gguf"), typed="from a pipe")
    assert (code, out) == (0, "This is tiny. You asked: from a pipe\n")
    code, out, err = place.run("./tiny-F32.gguf", "x", "--json")
    assert (code, err, json.loads(out)["text"]) == (0, "", "This is tiny. You asked: x")


def test_run_in_a_terminal_holds_a_conversation(place: Place) -> None:
    """The seconds of the load are shown; Ctrl-D ends the conversation, the proxy and the model."""
    place.llama_server(f"{FAST} --load-seconds 1.2")
    with place.terminal("tiny-F32.gguf") as terminal:
        terminal.read_until("tiny: loading, 1 s")
        terminal.read_until(r"tiny is ready after \d+\.\d s\n")
        terminal.read_until(r"Ctrl-D ends the conversation, .*\n> $")
        terminal.type("hello\r")
        terminal.read_until(r"This is tiny\. You asked: hello\n\[first token .*\]\n> $")
        terminal.type("again\x7f\x7f\x7f\x7f\x7fonce more\r")  # as edited with backspace
        terminal.read_until(r"This is tiny\. You asked: once more\n\[.*\]\n> $")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
        assert terminal.is_restored()
    place.assert_nothing_left()


def test_run_ctrl_c_ends_a_response_then_the_conversation(place: Place) -> None:
    """The conversation goes on after a response that was interrupted; a second Ctrl-C ends it."""
    place.llama_server("--prefill-tokens-per-second 0 --tokens-per-second 2")
    with place.terminal("tiny-F32.gguf") as terminal:
        terminal.read_until(r"> $")
        terminal.type("hello\r")
        terminal.read_until(r"This is")
        terminal.type(CTRL_C)
        terminal.read_until(r"\n\[interrupted\]\n> $")
        terminal.type("hi\r")
        terminal.read_until(r"This is")
        terminal.type(CTRL_C)
        terminal.read_until(r"> $")
        assert terminal.end_by_ctrl_c() == 130
        assert terminal.is_restored()
        assert "Traceback" not in terminal.raw
    place.assert_nothing_left()


def test_run_ctrl_c_while_the_model_loads_ends_everything(place: Place) -> None:
    place.llama_server("--load-seconds 60")
    with place.terminal("tiny-F32.gguf") as terminal:
        terminal.read_until("tiny: loading, 1 s")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert terminal.is_restored()
        assert "Traceback" not in terminal.raw
    place.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_run_ended_by_a_signal_leaves_no_process(place: Place, number: signal.Signals) -> None:
    """Killed too, although it can do nothing then; only its temporary folder remains."""
    place.llama_server("--load-seconds 60")
    with place.child("tiny-F32.gguf", "hello") as child:
        wait_until(
            lambda: any("--load-seconds" in process.cmdline() for process in place.processes()),
            LONG_S, what=lambda: f"a model: {child.output()}",
        )  # fmt: skip
        child.signal(number)
        code = child.wait()
        assert code == (-number if number == signal.SIGKILL else 128 + number)
        place.assert_nothing_left()
        assert "Traceback" not in child.output()
    if number == signal.SIGKILL:
        (folder,) = Path(place.env["TMPDIR"]).iterdir()
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


# ---- names
def test_run_name_of_the_configuration(place: Place) -> None:
    """By config.yaml of the working directory, with an alias and a key that it asks for."""
    document = {
        "startPort": port_block(), "models": {"hare": demo_model("hare", aliases=["fast"])},
        "apiKeys": [{"key": "sk-infer", "scopes": ["infer"]}, "sk-both"],
    }  # fmt: skip
    (place.folder / "config.yaml").write_text(json.dumps(document))
    assert place.run("fast", "hello")[:2] == (0, "This is hare. You asked: hello\n")
    other = place.folder / "other.yaml"
    (place.folder / "config.yaml").rename(other)
    assert place.run("hare", "x", "--config", "other.yaml")[1] == "This is hare. You asked: x\n"
    other.write_text(json.dumps({**document, "apiKeys": ["sha256:" + "0" * 64]}))
    code, _, err = place.run("hare", "x", "--config", "other.yaml")
    assert (code, err) == (
        1, "swapchart: other.yaml requires an API key: give it by --api-key or "
        "SWAPCHART_API_KEY\n",
    )  # fmt: skip


def test_run_name_of_a_running_proxy_starts_none(place: Place, serve: Serve) -> None:
    """Its model stays loaded; SWAPCHART_URL or --url names the proxy."""
    proxy = serve({"hare": demo_model("hare", aliases=["fast"])})
    url = f"http://127.0.0.1:{proxy.port}"
    place.env["SWAPCHART_URL"] = url
    assert place.run("fast", "hello")[:2] == (0, "This is hare. You asked: hello\n")
    place.env["SWAPCHART_URL"] = ""
    code, out, err = place.run("hare", "x", "--url", url)
    assert (code, out) == (0, "This is hare. You asked: x\n")
    assert "served at" not in err
    assert proxy.running()["hare"]["state"] == "ready"
    code, _, err = place.run("hrae", "x", "--url", url)
    assert (code, err) == (
        1, f"swapchart: model not found: 'hrae': the proxy at {url} does not have it; "
        "did you mean 'hare'?\n",
    )  # fmt: skip


def write_store(place: Place, name: str) -> Path:
    """Write a store of Ollama with a model; return the folder of its tags."""
    store = Path(place.env["HOME"], ".ollama/models")
    blobs, tags = store / "blobs", store / "manifests/registry.ollama.ai/library" / name
    blobs.mkdir(parents=True)
    tags.mkdir(parents=True)
    write_tiny_gguf(blobs / "sha256-1")
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:1"}
    (tags / "latest").write_text(json.dumps({"layers": [layer]}))
    return tags


def test_run_name_of_the_store_of_ollama(place: Place) -> None:
    """With or without the tag; a manifest that is damaged is named."""
    (write_store(place, "small") / "bad").write_text("{")
    for name in ("small", "small:latest"):
        assert place.run(name, "hello")[:2] == (0, "This is tiny. You asked: hello\n")
    code, _, err = place.run("small:bad", "hello")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("swapchart: small:bad: the manifest cannot be read")


def write_safetensors(place: Place, folder: Path) -> None:
    """Write a directory of safetensors, and a demo server that is called vllm."""
    demo = f"{sys.executable} -m swapchart.adapters.demo {FAST}"
    place.engine("vllm", f'shift; model=$1; shift; exec {demo} --model "$model" "$1" "$2"')
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"weights")


def test_run_directory_is_served_by_vllm(place: Place) -> None:
    """So is an id of Hugging Face, with --engine vllm."""
    write_safetensors(place, place.folder / "Qwen3-0.6B")
    code, out, _ = place.run("Qwen3-0.6B", "hello", "--engine", "vllm")
    assert (code, out.endswith("You asked: hello\n")) == (0, True)
    code, out, err = place.run("Qwen/Qwen3-0.6B", "hi", "--engine", "vllm")
    assert (code, out.startswith("This is Qwen/Qwen3-0.6B.")) == (0, True)
    assert "Qwen/Qwen3-0.6B is ready after" in err


@pytest.mark.parametrize(("page", "command"), shown.items(shown.RUNS_A_MODEL))
def test_docs_run_command_prints_a_response(place: Place, page: str, command: str) -> None:
    """Each command of the pages, with models of these names."""
    models = Path(place.env["HOME"], "models")
    models.mkdir()
    write_tiny_gguf(models / "qwen-Q4_K_M.gguf")
    write_store(place, "llama3.2")
    write_safetensors(place, models / "Qwen3-8B")
    if command.startswith("-"):
        command = f"swapchart run ~/models/Qwen3-8B {command}"
    words = shlex.split(command.replace("FILE", "tiny-F32.gguf"))[2:]
    code, out, err = place.run(*words, typed="" if "sky" in command else "Why is the sky blue?")

    assert code == 0, err
    assert out.endswith("You asked: Why is the sky blue?\n")


# ---- bad input
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("none.gguf", "{folder}/none.gguf: No such file or directory"),
        ("bad.gguf", "{folder}/bad.gguf: expected the magic GGUF"),
        ("~/none", "{home}/none: No such file or directory"),
        ("bert.gguf", "{folder}/bert.gguf: a model for embeddings; expected one that chats"),
        ("mmproj-x.gguf", "{folder}/mmproj-x.gguf: no model was found there"),
        ("./", "expected one model in {folder}, found 2; name one, such as: {folder}/bert.gguf, "),
        ("empty", "{folder}/empty: no model was found there"),
        ("tiny-F32.gguf --engine vllm", "vllm cannot serve it; leave --engine out for"),
        ("Qwen/x --engine vllm", "Qwen/x needs vllm, which is not in PATH; install it first"),
        (
            "nothing",
            "model not found: 'nothing': no such file, the proxy at http://127.0.0.1:1 does not "
            "respond, there is no configuration, there is no store of Ollama",
        ),
        ("x --config none.yaml", "none.yaml: error: cannot be read: No such file or directory"),
        ("x --url http://127.0.0.1:1", "no response from http://127.0.0.1:1: Connection refused"),
    ],
)
def test_run_bad_input_is_one_line(place: Place, words: str, said: str) -> None:
    (place.folder / "bad.gguf").write_bytes(b"junk")
    (place.folder / "empty").mkdir()
    write_gguf(place.folder / "bert.gguf", "bert", bert__pooling_type=1)
    write_gguf(place.folder / "mmproj-x.gguf", "clip")
    code, out, err = place.run(*shlex.split(words), "hello")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("swapchart: ")
    assert said.format(folder=place.folder, home=place.env["HOME"]) in err


def test_run_without_a_prompt_is_a_usage_error(place: Place) -> None:
    assert place.run("tiny-F32.gguf") == (
        2, "", "swapchart: run: expected a PROMPT, or text on the standard input\n",
    )  # fmt: skip


def test_run_without_the_engine_names_it(place: Place) -> None:
    (place.bin / "llama-server").unlink()
    code, _, err = place.run("tiny-F32.gguf", "hello")

    path = place.folder / "tiny-F32.gguf"
    assert (code, err) == (
        1, f"swapchart: {path} needs llama-server, which is not in PATH; install it first\n",
    )  # fmt: skip


def test_run_of_an_engine_that_fails_says_why(place: Place) -> None:
    place.engine("llama-server", "echo no room for the model; exit 3")
    code, out, err = place.run("tiny-F32.gguf", "hello")

    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith("exit code 3; its output: no room for the model")


def test_run_with_a_state_directory_in_use_says_so(place: Place, serve: Serve) -> None:
    """The proxy of the same configuration runs, and is not the one that was asked."""
    proxy = serve({"hare": demo_model("hare")})
    place.env["SWAPCHART_STATE_DIR"] = str(proxy.folder / "state")
    config = str(proxy.folder / "config.yaml")
    code, _, err = place.run("hare", "hello", "--config", config)

    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("swapchart: the proxy did not start: ")


def test_run_without_the_key_of_the_proxy_that_has_the_model_names_the_key(
    place: Place, serve: Serve
) -> None:
    """That proxy holds the state directory, so that no other one can serve the model."""
    key = {"key": "sk-test", "scopes": ["infer", "admin"]}
    proxy = serve({"hare": demo_model("hare")}, config={"apiKeys": [key]})
    place.env["SWAPCHART_STATE_DIR"] = str(proxy.folder / "state")
    place.env["SWAPCHART_CONFIG"] = str(proxy.folder / "config.yaml")
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    code, _, err = place.run("hare", "hello")

    assert (code, err.count("\n")) == (1, 1)
    assert "401: an API key is needed: give it by --api-key or SWAPCHART_API_KEY; the proxy" in err


# ---- chat in a terminal
@pytest.fixture
def proxy(serve: Serve) -> SwapchartProcess:
    rates = ("--load-seconds", "0.3")
    return serve({"hare": demo_model("hare", *rates), "slow": demo_model("slow", rate=2)})


def test_chat_in_a_terminal_holds_a_conversation(place: Place, proxy: SwapchartProcess) -> None:
    """Earlier turns are sent again, lines can be edited, and Ctrl-D ends the conversation."""
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    with place.terminal("hare", command=CHAT) as terminal:
        terminal.read_until(r"Ctrl-D ends the conversation, Ctrl-C a response\.\n> $")
        terminal.type("\r")
        terminal.read_until(r"> $")
        terminal.type("hello\r")
        terminal.read_until(r"hare: health checking \(pid \d+\)\n")
        first = terminal.read_until(r"You asked: hello\n\[.* (\d+) tokens read, .*\]\n> $")
        terminal.type("\x1b[A there\r")  # the key Up
        second = terminal.read_until(r"You asked: hello there\n\[.* (\d+) tokens read, .*\]\n> $")
        assert int(second[1]) > int(first[1]) + 5
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
        assert terminal.is_restored()
    assert proxy.running()["hare"]["state"] == "ready"


def test_chat_in_a_terminal_goes_on_after_a_failure(place: Place, proxy: SwapchartProcess) -> None:
    """An interrupted response ends at the model too; a proxy that is gone is one line."""
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    with place.terminal("slow", command=CHAT) as terminal:
        terminal.read_until(r"> $")
        terminal.type("hello\r")
        terminal.read_until(r"This is")
        terminal.type(CTRL_C)
        terminal.read_until(r"\n\[interrupted\]\n> $")
        proxy.wait_idle("slow")
        assert proxy.stop() == 0
        terminal.type("hello\r")
        terminal.read_until(r"\nswapchart: no response from http://\S+: Connection refused;.*\n> $")
        assert terminal.end_by_ctrl_c() == 130
        assert terminal.is_restored()
        assert "Traceback" not in terminal.raw


def test_chat_in_a_terminal_writes_only_responses_to_a_file(
    place: Place, proxy: SwapchartProcess
) -> None:
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    command = ("/bin/sh", "-c", f"exec {shlex.join(CHAT)} hare > responses")
    with place.terminal(command=command) as terminal:
        terminal.read_until(r"> $")
        terminal.type("hello\r")
        terminal.read_until(r"\[.* tokens read, .*\]\n> $")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert (place.folder / "responses").read_text() == "This is hare. You asked: hello\n"


def test_chat_of_an_unknown_model_in_a_terminal_is_one_line(
    place: Place, proxy: SwapchartProcess
) -> None:
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    with place.terminal("hrae", command=CHAT) as terminal:
        terminal.read_until(r"> $")
        terminal.type("hello\r")
        terminal.read_until(r"\nswapchart: .*model not found: 'hrae'; did you mean 'hare'\?\n> $")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0


def test_terminal_of_tests_passes_what_is_typed(tmp_path: Path) -> None:
    """The tool itself: text, size and the key Ctrl-C reach the command."""
    script = "stty size; read line; echo got $line; trap 'exit 9' INT; echo go; while :; do :; done"
    with Terminal(["sh", "-c", script], cwd=tmp_path, size=(20, 70)) as terminal:
        terminal.read_until(r"20 70\n")
        terminal.type("word\r")
        terminal.read_until(r"got word\ngo\n")
        terminal.type(CTRL_C)
        assert terminal.wait() == 9
