"""`.ci/release-check` refuses a release whose version, changelog and tag disagree.

`./dev test-all` runs it as a whole, with builds and installations.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tools.documents import ROOT


@pytest.mark.parametrize(
    ("version", "top", "tag", "message"),
    [
        ("1.2.0", "1.1.0", "", "CHANGELOG.md begins with 1.1.0; expected 1.2.0"),
        ("1.2.0", "1.2.0.1", "", "CHANGELOG.md begins with 1.2.0.1; expected 1.2.0"),
        ("1.2.0", "Unreleased", "v1.2.0", "CHANGELOG.md begins with Unreleased; expected 1.2.0"),
        ("1.2.0", "1.2.0 (2030-01-01)", "v1.3.0", "HEAD has the tag v1.3.0; expected v1.2.0"),
        ("", "1.2.0", "", "__init__.py has no line __version__"),
    ],
)
def test_release_with_versions_that_disagree_is_refused(
    version: str, top: str, tag: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "release-check", tmp_path / ".ci")
    (tmp_path / "__init__.py").write_text(f'__version__ = "{version}"\n' if version else "")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {top}\n\n## 1.0.0\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "t"], cwd=tmp_path, check=True)
    if tag:
        subprocess.run(["git", "tag", tag], cwd=tmp_path, check=True)
    done = subprocess.run(
        [".ci/release-check", "out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert f"release-check: {message}" in done.stderr
    assert not (tmp_path / "out").exists()
