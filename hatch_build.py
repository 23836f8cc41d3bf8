"""Builds what `kata web` has from npm, the editor and the font of formulas, into the package.

It is built whenever the package is (`pip install .`, `-e .`, a wheel, an sdist), where npm is there
and reaches its registry; without, the pages work with a plain editor. A build cannot know which
extras were asked for, so an install without `[web]` builds too: 3 seconds, once, since the bundle
notes the sources that it was made of. An sdist carries the bundle, and needs no Node.

KATA_WEB=skip never asks npm; KATA_WEB=require fails where the bundle cannot be made.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_INSTALL = (
    *("ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
    # a registry that does not answer must not keep anyone waiting
    *("--fetch-retries=0", "--fetch-timeout=8000"),
)
_LIMIT_S = 120
_NOTE = "built_from.txt"
_SAID = 300  # characters of what npm says last


class Frontend(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source, assets = Path(self.root, "frontend"), Path(self.root, "grader", "web", "assets")
        wish = os.environ.get("KATA_WEB", "")
        if wish not in ("", "skip", "require"):
            raise ValueError(f"KATA_WEB is '{wish}'; it can be 'skip' or 'require'.")
        wanted, note = _digest(source), assets / _NOTE
        if note.is_file() and note.read_text() == wanted:
            return
        try:
            shutil.rmtree(assets, ignore_errors=True)  # the pages would not go with it
            if wish != "skip":
                _build(source, assets, wanted)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()[-_SAID:]
            if wish == "require":
                raise RuntimeError(f"The editor of kata web could not be built: {said}") from error
            self.app.display_warning(f"kata web will have a plain editor: {said}")


def _build(source: Path, assets: Path, digest: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        work, made = Path(folder, "frontend"), Path(folder, "assets")
        shutil.copytree(source, work, ignore=shutil.ignore_patterns("node_modules"))
        for words in (_INSTALL, ("run", "build", "--", str(made))):
            subprocess.run(
                [npm, *words],
                cwd=work,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LIMIT_S,
            )
        (made / _NOTE).write_text(digest)
        fresh = assets.with_name(f"{assets.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(made, fresh)
        fresh.rename(assets)


def _digest(folder: Path) -> str:
    """Names the sources, whenever they were written."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and "node_modules" not in name.parts:
            content = path.read_bytes()
            found.update(f"{name.as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()
