"""How the editor of the pages gets into the package, and what happens where it cannot be built."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
assert _SPEC is not None
assert _SPEC.loader is not None
HOOK: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(HOOK)

BUILDS = """#!/bin/sh
echo "$*" >> {calls}
if [ "$1" = run ]; then
    for out; do :; done
    mkdir "$out" && cp src/editor.js "$out"
fi
"""
FAILS = "#!/bin/sh\necho '{calls}' > /dev/null\necho 'no registry answers' >&2\nexit 1\n"
HANGS = "#!/bin/sh\nexec sleep 1000\n"


class Project:
    """A copy of what the hook works on, with an npm of the test's own as all there is on PATH."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._patch = root, monkeypatch
        self.source, self.assets = root / "frontend", root / "grader/web/assets"
        self._calls, self._programs = root / "calls", root / "programs"
        self.warnings: list[str] = []
        (self.source / "src").mkdir(parents=True)
        self.assets.parent.mkdir(parents=True)
        self._programs.mkdir()
        for name in ("sh", "cp", "mkdir", "sleep"):
            (self._programs / name).symlink_to(str(shutil.which(name)))
        (self.source / "package.json").write_text("{}")
        (self.source / "src/editor.js").write_text("one")
        monkeypatch.setenv("PATH", str(self._programs))
        monkeypatch.delenv("KATA_WEB", raising=False)

    def npm(self, script: str) -> None:
        path = self._programs / "npm"
        path.write_text(script.format(calls=self._calls))
        path.chmod(0o755)

    def build(self, wish: str | None = None) -> None:
        if wish is not None:
            self._patch.setenv("KATA_WEB", wish)
        hook = HOOK.Frontend(str(self.root), {}, None, None, "", "wheel", self)
        hook.initialize("standard", {})

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    @property
    def editor(self) -> str | None:
        path = self.assets / "editor.js"
        return path.read_text() if path.exists() else None


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_npm_builds_what_the_pages_have(project: Project) -> None:
    """In a folder of its own, without scripts of packages, and without waiting for a registry."""
    project.npm(BUILDS)
    project.build()
    install, build = project.calls
    assert install.startswith("ci ")
    assert {"--ignore-scripts", "--fetch-retries=0", "--omit=dev"} <= set(install.split())
    assert build.startswith("run build ")
    assert (project.editor, project.warnings) == ("one", [])
    assert sorted(path.name for path in project.source.iterdir()) == ["package.json", "src"]
    assert [path.name for path in project.assets.parent.iterdir()] == ["assets"]


def test_unchanged_sources_are_built_once(project: Project) -> None:
    """By their content: neither time nor what npm has put beside them counts."""
    project.npm(BUILDS)
    project.build()
    project.npm(FAILS)
    os.utime(project.source / "src/editor.js", (1, 1))
    (project.source / "node_modules").mkdir()
    (project.source / "node_modules/x.js").write_text("x")
    for wish in (None, "require", "skip"):
        project.build(wish)
    assert (project.editor, project.warnings) == ("one", [])


@pytest.mark.parametrize("change", ["content", "new file", "other name"])
def test_changed_sources_are_built_anew(project: Project, change: str) -> None:
    project.npm(BUILDS)
    project.build()
    editor = project.source / "src/editor.js"
    if change == "content":
        editor.write_text("two")
    elif change == "new file":
        editor.with_name("more.js").write_text("")
    else:
        (project.source / "package.json").rename(project.source / "other.json")
    project.build()
    assert len(project.calls) == 4
    assert project.editor == ("two" if change == "content" else "one")


def test_a_package_of_the_program_alone_needs_no_sources(project: Project) -> None:
    """As the Dockerfile's, which copies what `kata grade` needs."""
    project.npm(BUILDS)
    shutil.rmtree(project.source)
    project.build()
    assert (project.calls, project.editor, len(project.warnings)) == ([], None, 1)


@pytest.mark.parametrize("script", [None, FAILS], ids=["no npm", "npm fails"])
def test_without_npm_the_package_is_built_all_the_same(
    project: Project, script: str | None
) -> None:
    """With a word of why; and a bundle of other sources does not stay beside the new pages."""
    project.npm(BUILDS)
    project.build()
    (project.source / "src/editor.js").write_text("two")
    if script is None:
        (project.root / "programs/npm").unlink()
    else:
        project.npm(script)
    project.build()
    assert project.editor is None
    (warning,) = project.warnings
    why = "npm is not installed." if script is None else "no registry answers"
    assert warning == f"kata web will have a plain editor: {why}"


def test_an_npm_that_hangs_is_given_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOOK, "_LIMIT_S", 0.2)
    project.npm(HANGS)
    project.build()
    assert project.editor is None
    assert "timed out" in project.warnings[0]


def test_a_build_can_require_it(project: Project) -> None:
    with pytest.raises(RuntimeError, match=r"could not be built: npm is not installed\."):
        project.build("require")
    project.npm(FAILS)
    with pytest.raises(RuntimeError, match="could not be built: no registry answers"):
        project.build("require")


def test_a_build_can_do_without(project: Project) -> None:
    project.npm(BUILDS)
    project.build("skip")
    assert (project.calls, project.editor, project.warnings) == ([], None, [])


def test_another_wish_is_none(project: Project) -> None:
    with pytest.raises(ValueError, match=r"KATA_WEB is 'no'; it can be 'skip' or 'require'\."):
        project.build("no")


def test_no_address_is_in_the_lock_file() -> None:
    """Whoever installs asks the registry of their own; what comes is held to its digest."""
    text = (ROOT / "frontend/package-lock.json").read_text()
    assert "resolved" not in text
    assert text.count('"integrity"') == text.count('"node_modules/')


# For real


LICENSED = {
    *("@codemirror/autocomplete", "@codemirror/commands", "@codemirror/lang-python"),
    *("@codemirror/language", "@codemirror/search", "@codemirror/state"),
    *("@codemirror/streamparser", "@codemirror/view", "@fontsource/stix-two-math"),
    *("@lezer/common", "@lezer/highlight", "@lezer/lr", "@lezer/python"),
    *("@marijn/find-cluster-break", "crelt", "style-mod", "w3c-keyname"),
}


@pytest.mark.long
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_wheels_and_sdists_carry_the_editor(tmp_path: Path) -> None:
    """Built from a clone; and a wheel of that sdist, without npm, is the same."""
    clone = tmp_path / "clone"
    left_out = shutil.ignore_patterns(
        ".git", ".*cache", ".venv*", ".ci-venv", "node_modules", "assets"
    )
    shutil.copytree(ROOT, clone, ignore=left_out)
    try:
        _build(clone, tmp_path, "sdist", KATA_WEB="require")
    except subprocess.CalledProcessError as error:
        if "registry" in error.stderr or "network" in error.stderr:
            pytest.skip("npm reaches no registry")
        raise
    _build(clone, tmp_path, "wheel", KATA_WEB="require")
    (archive,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert (source / "frontend/package-lock.json").is_file()
    again = tmp_path / "again"
    _build(source, again, "wheel", PATH=str(tmp_path / "nothing"), KATA_WEB="require")
    found = [_assets(path) for path in (wheel, next(again.iterdir()))]
    assert found[0] == found[1]
    assert set(found[0]) == {"LICENSES.txt", "built_from.txt", "editor.js", "stix-two-math.woff2"}
    assert found[0]["stix-two-math.woff2"].startswith(b"wOF2")
    assert b"mount" in found[0]["editor.js"]
    heads = [line.split(" ") for line in found[0]["LICENSES.txt"].decode().splitlines()]
    named = {head[0] for head in heads if head[-1] in ("(MIT)", "(OFL-1.1)") and len(head) == 3}
    assert named == LICENSED


def _build(folder: Path, out: Path, target: str, **environment: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=folder,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )


def _assets(wheel: Path) -> dict[str, bytes]:
    folder = "grader/web/assets/"
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.startswith(folder)]
        return {name.removeprefix(folder): packed.read(name) for name in names}
