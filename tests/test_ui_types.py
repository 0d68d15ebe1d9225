"""The web UI's modules are type-checked by TypeScript, which reads their JSDoc comments."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tools.node import package_folder

UI = Path(__file__).parents[1] / "adapters" / "proxy" / "ui"
OPTIONS = {
    "allowJs": True, "checkJs": True, "noEmit": True, "strict": True, "target": "es2023",
    "lib": ["es2023", "dom", "dom.iterable"], "module": "es2022", "moduleResolution": "bundler",
    "types": [], "skipLibCheck": True, "noUnusedLocals": True, "noFallthroughCasesInSwitch": True,
}  # fmt: skip
#: Types of the bundle that tests/tools/vendor_ui.py makes.
PREACT = """\
export * from "preact";
export * from "preact/hooks";
export * from "@preact/signals";
export function html(strings: TemplateStringsArray, ...values: unknown[]): any;
"""
UPLOT = 'export { default } from "uplot";\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the UI whose libraries have their published types."""
    modules = package_folder("typescript") / "node_modules"
    folder = tmp_path_factory.mktemp("ui") / "ui"
    shutil.copytree(UI, folder, ignore=shutil.ignore_patterns("vendor"))
    vendor = folder / "vendor"
    vendor.mkdir()
    (vendor / "preact.d.ts").write_text(PREACT)
    (vendor / "uplot.d.ts").write_text(UPLOT)
    (folder / "node_modules").symlink_to(modules)
    config = {"compilerOptions": OPTIONS, "include": ["**/*.js"], "exclude": ["node_modules"]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    return folder


def check(project: Path) -> str:
    """Return the errors that TypeScript finds."""
    command = ["node_modules/.bin/tsc", "--project", "."]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_ui_modules_have_no_type_errors(project: Path) -> None:
    assert check(project) == ""


def test_ui_type_errors_are_found(project: Path) -> None:
    wrong = project / "wrong.js"
    wrong.write_text('import { seconds } from "./format.js";\nseconds("1");\n')
    try:
        assert "wrong.js(2,9): error TS2345" in check(project)
    finally:
        wrong.unlink()
