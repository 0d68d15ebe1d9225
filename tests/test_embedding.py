"""What docs/embedding.md shows runs with the bare package: no proxy, no extras."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tools.net import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "embedding.md").read_text()
EXAMPLES = [  # of the package alone; what joins it with a web framework or trio needs that, too
    text
    for text in re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    if "fastapi" not in text and "from trio" not in text
]
FILES = re.findall(r"^```yaml\n# ([\w.]+)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
LONGEST_S = 300.0  # building and installing may have to fetch what they need


def run(argv: Sequence[str | Path], cwd: Path) -> str:
    """Run *argv*, which must succeed; returns what it printed."""
    done = subprocess.run(
        argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=LONGEST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the built wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("bare")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], folder)
    (wheel,) = folder.glob("swapchart-*.whl")
    run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    run([*pip, "--python", python, "install", "--quiet", wheel], folder)
    return python


def test_first_example_is_short() -> None:
    """One supervised process in under 15 lines of a program of one's own."""
    lines = [line for line in EXAMPLES[0].splitlines() if line.strip()]

    assert len(lines) < 15
    assert "Supervisor" in EXAMPLES[0]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run_without_extras(bare_python: Path, tmp_path: Path, number: int) -> None:
    """As it is printed, but for the ports, which may be taken here."""
    ports = set(re.findall(r"\b59\d\d\b", EXAMPLES[number]))
    text: str = EXAMPLES[number]
    for port in ports:
        text = text.replace(port, str(free_port()))
    (tmp_path / "example.py").write_text(text)
    for name, content in FILES:
        (tmp_path / name).write_text(content)

    assert run([bare_python, "-I", "example.py"], tmp_path)


def test_process_is_supervised_without_extras(bare_python: Path, tmp_path: Path) -> None:
    """It becomes ready, is held, and is gone at the end."""
    check = ROOT / "tests" / "embedding_check.py"

    assert "-> ready" in run([bare_python, "-I", check], tmp_path)
