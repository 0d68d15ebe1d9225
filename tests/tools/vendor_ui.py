"""Libraries of the web UI from npm: ``./dev python tests/tools/vendor_ui.py``.

The page has no build step: what it loads is in ``adapters/proxy/ui/vendor/``. This script installs
the pinned packages into a temporary folder, bundles Preact, its hooks, its signals and htm into
one module, minifies uPlot, and writes the licenses and ``versions.json`` beside them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "adapters" / "proxy" / "ui" / "vendor"
ESBUILD = "esbuild@0.28.2"
#: File -> the packages that it is made of, with their versions.
FILES = {
    "preact.js": {
        "preact": "11.2.0", "@preact/signals": "2.11.4", "@preact/signals-core": "1.14.5",
        "htm": "3.1.1",
    },
    "uplot.js": {"uplot": "1.6.32"},
    "uplot.css": {"uplot": "1.6.32"},
}  # fmt: skip
ENTRY = """\
import { h } from "preact";
import htm from "htm";
export { h, render, Fragment, createContext, createRef } from "preact";
export {
  useCallback, useContext, useEffect, useErrorBoundary, useId, useLayoutEffect, useMemo, useRef,
  useState,
} from "preact/hooks";
export {
  batch, computed, effect, signal, useComputed, useSignal, useSignalEffect,
} from "@preact/signals";
export const html = htm.bind(h);
"""


def main() -> None:
    """Write the files of the folder ``vendor``."""
    packages = {name: version for made in FILES.values() for name, version in made.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = [f"{package}@{version}" for package, version in packages.items()]
        _run(folder, "npm", "install", "--no-audit", "--no-fund", ESBUILD, *wanted)
        modules = folder / "node_modules"
        (folder / "entry.js").write_text(ENTRY)
        uplot = modules / "uplot" / "dist"
        made = {
            "preact.js": _minified(folder, "entry.js", "--bundle"),
            "uplot.js": _minified(folder, str(uplot / "uPlot.esm.js")),
            "uplot.css": (uplot / "uPlot.min.css").read_text(),
        }
        shutil.rmtree(VENDOR, ignore_errors=True)
        VENDOR.mkdir()
        for file, text in made.items():
            names = ", ".join(f"{package} {version}" for package, version in FILES[file].items())
            head = f"/*! {names}: see LICENSES.txt. Made by tests/tools/vendor_ui.py. */\n"
            (VENDOR / file).write_text(head + text.strip() + "\n")
        (VENDOR / "LICENSES.txt").write_text(_licenses(modules, packages))
    facts = {
        file: {
            "packages": names,
            "sha256": hashlib.sha256((VENDOR / file).read_bytes()).hexdigest(),
        }
        for file, names in {**FILES, "LICENSES.txt": packages}.items()
    }
    (VENDOR / "versions.json").write_text(json.dumps(facts, indent=2) + "\n")


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def _minified(folder: Path, source: str, *options: str) -> str:
    return _run(
        folder, "node_modules/.bin/esbuild", source, "--minify", "--format=esm",
        "--legal-comments=none", *options,
    )  # fmt: skip


def _licenses(modules: Path, packages: dict[str, str]) -> str:
    parts = []
    for package, version in packages.items():
        kind = json.loads((modules / package / "package.json").read_text())["license"]
        text = (modules / package / "LICENSE").read_text().strip()
        parts.append(f"{package} {version} ({kind})\n\n{text}\n")
    return f"\n{'-' * 80}\n\n".join(parts)


if __name__ == "__main__":
    main()
