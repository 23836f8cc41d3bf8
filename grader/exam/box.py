"""The box: a nursery for files that nobody has read, inside bubblewrap (Linux).

Bubblewrap shows Python, its packages and the few files of ours that a stage needs, all of it
read-only, and nothing else: no network, no other process, no suite, solution, question or home.
There torch is imported once; each stage is forked from that and locks itself (`exam/locks.py`)
before the submission is loaded. Its memory and its number of processes are held by a control group
where one can be made (`exam/cgroup.py`).
"""

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from grader import content
from grader.errors import GraderError, KataError
from grader.exam import locks
from grader.exam.cgroup import Group
from grader.exam.nursery import Nursery, all_children

_OURS = (
    "__init__.py",
    *(
        f"exam/{name}.py"
        for name in (
            "asking",
            "boxed",
            "kit",
            "locks",
            "nursery",
            "quiet",
            "source_text",
            "stage",
            "surroundings",
            "wire",
        )
    ),
)
_BEGIN = "import sys; sys.path.insert(0, '/box'); from grader.exam import boxed; boxed.main({})"
_READY_S, _END_S = 120, 5
_GROUP_BYTES = (4 << 30) + locks.TMP_BYTES
_GROUP_TASKS = 64
_SAID_BYTES = 1 << 16
_LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/nix/store", "/gnu/store")
_LINKS = ("/lib", "/lib32", "/lib64", "/libx32")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LINKER = ("/etc/ld.so.cache", "/etc/alternatives")
_INSTALL = (
    "install bubblewrap: `apt install bubblewrap` (Debian, Ubuntu), `dnf install bubblewrap` "
    "(Fedora), `pacman -S bubblewrap` (Arch)"
)
_NOT_NEEDED = "Landlock"  # the mounts keep what it keeps


class Unavailable(KataError):
    """This machine cannot make the box; the text says what is missing and what to do."""


@dataclass(frozen=True)
class Layer:
    """One layer of the box; `words`: how it holds, or why it does not. Without a `needed` one
    there is no box."""

    name: str
    holds: bool
    words: str
    needed: bool = True


_WORDS = {
    "user namespace": "no capability is left, and none can be had",
    "PID namespace": "a stage sees no other process; what it leaves dies with it",
    "mounts": f"read-only but for {locks.TMP_BYTES >> 20} MiB of /tmp; no suite, solution or home",
    "IPC namespace": "no shared memory and no queues",
    "network": "no device but loopback, and no socket",
    "limits": "processor time, open files, size of files, processes",
    "no new privileges": "kept through every program that is started",
    "Landlock": "nothing but /tmp can be written",
    "seccomp": f"{len(locks.DENIED)} system calls are refused",
}


class Box(Nursery):
    """The examiner's end of a nursery in the box. `layers`: what was found to hold when it was
    made. Pids are those that this process sees; inside there are others."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        sock: socket.socket,
        said: IO[bytes],
        group: Group | None,
    ) -> None:
        super().__init__(process.pid, sock, "")
        self.process, self.said, self.group = process, said, group
        self.layers: list[Layer] = []

    @classmethod
    def spawn(cls, torch: bool = True) -> "Box":
        """A new one; without `torch` no stage can be started, to try the layers alone. Raises
        Unavailable."""
        bubblewrap = _bubblewrap()
        ours, theirs = socket.socketpair()
        said = tempfile.TemporaryFile()  # noqa: SIM115 – closed with the box
        sites, shown = _sites(), _shown()
        command = [bubblewrap, *_walls(shown), _inside(_python()), "-I", "-S", "-B", "-c"]
        command.append(_BEGIN.format(theirs.fileno()))
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        theirs.close()
        box = cls(process, ours, said, Group.make(_GROUP_BYTES, _GROUP_TASKS))
        try:
            hidden = [*_hidden(), *map(_inside, _hidden())]
            asked = {"sites": [*map(_inside, sites)], "hidden": hidden, "torch": torch}
            box._begin(asked, bubblewrap)
        except BaseException:
            box.close()
            raise
        return box

    def _begin(self, asked: dict[str, Any], bubblewrap: str) -> None:
        """Await what holds of the locks. Raises Unavailable."""
        answer = b""
        with contextlib.suppress(OSError):
            self.sock.settimeout(_READY_S)
            self.sock.sendall(json.dumps(asked).encode() + b"\n")
            while not answer.endswith(b"\n") and len(answer) < _SAID_BYTES:
                piece = self.sock.recv(_SAID_BYTES)
                if not piece:
                    break
                answer += piece
        self.sock.settimeout(None)
        inside = all_children(self.process.pid)
        if not answer.endswith(b"\n") or not inside:
            raise Unavailable(_refused(self._told()))
        self.pid = inside[0]
        found = json.loads(answer)
        if isinstance(found, str):
            raise Unavailable(_refused(found))
        self.layers = [
            Layer("bubblewrap", True, bubblewrap),
            *(
                Layer(name, not wrong, wrong or _WORDS[name], needed=name != _NOT_NEEDED)
                for name, wrong in found.items()
            ),
            self._memory(),
            self._processes(),
        ]
        for layer in self.layers:
            if asked["torch"] and layer.needed and not layer.holds:
                raise Unavailable(f"The box does not hold here ({layer.name}): {layer.words}.")

    def _memory(self) -> Layer:
        if self.group is not None:
            words = f"4 GiB for all processes together (cgroup v{self.group.version})"
        else:
            words = (
                "4 GiB of address space a process, and what all hold is watched (no control group "
                "can be made here); memory outside of any process is refused"
            )
        return Layer("memory", True, words)

    def _processes(self) -> Layer:
        if self.group is not None and self.group.pids is not None:
            words = f"at most {_GROUP_TASKS} at a time (cgroup), and more than 16 are ended"
        elif os.getuid():
            words = f"at most {locks.TASKS} at a time (rlimit), and more than 16 are ended"
        else:
            words = "more than 16 are ended when that is seen (root has no limit of its own)"
        return Layer("processes", True, words)

    def _told(self) -> str:
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            self.process.wait(_END_S)
            self.said.seek(0)
            lines = self.said.read(_SAID_BYTES).decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"it ended with status {self.process.returncode}"
        return "it does not answer"

    def start(self, sock: socket.socket, output: int, memory_bytes: int | None) -> int:
        """Start a stage; returns its pid as this process sees it. Raises NurseryGone, and
        GraderError if the stage could not be locked."""
        inside = super().start(sock, output, memory_bytes)
        seen = all_children(self.pid)
        if inside < 0 or not seen:
            raise GraderError("A stage could not be locked into the box: no file was judged.")
        if self.group is not None:
            try:
                self.group.add(seen[0])
            except ProcessLookupError:  # it has ended, which the next answer shows
                pass
            except OSError as error:
                raise GraderError(f"A stage could not be put into its group: {error}") from error
        return seen[0]

    def out_of_memory(self) -> bool:
        return self.group is not None and self.group.killed()

    def accelerator(self) -> str:
        """None: the box shows no device."""
        return ""

    def close(self) -> None:
        self.sock.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            for pid in (self.pid, self.process.pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self.said.close()
        if self.group is not None:
            self.group.close()


def layers() -> list[Layer]:
    """Try each layer, without torch. Where there is no box, one layer says why."""
    try:
        box = Box.spawn(torch=False)
    except Unavailable as error:
        return [Layer("bubblewrap", False, str(error))]
    try:
        return box.layers
    finally:
        box.close()


def _bubblewrap() -> str:
    if sys.platform != "linux":
        raise Unavailable(
            "The box needs Linux: elsewhere, grade in a Linux container or virtual machine."
        )
    if platform.machine() not in locks.MACHINES:
        raise Unavailable(
            f"The box knows the system calls of {' and '.join(locks.MACHINES)}, not of "
            f"{platform.machine()}."
        )
    path = shutil.which("bwrap")
    if path is None:
        raise Unavailable(f"The box needs bubblewrap, which is not installed here: {_INSTALL}.")
    return path


def _refused(said: str) -> str:
    """What a refusal of bubblewrap or of the kernel says, and what would allow it."""
    remedies = [
        f"`sysctl -w {name}={value}` (as root) allows it"
        for name, wrong, value in (
            ("kernel.unprivileged_userns_clone", "0", "1"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
            ("user.max_user_namespaces", "0", "15000"),
        )
        if _setting(name) == wrong
    ]
    what = f"; {', '.join(remedies)}" if remedies else ""
    inside = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
    if inside and not remedies:
        what = "; a container needs `--security-opt seccomp=unconfined` or a profile that allows it"
    return f"The box cannot be made: {said}{what}."


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""


def _python() -> str:
    return os.path.realpath(sys.executable)


def _sites() -> list[str]:
    """The folders of installed packages."""
    found = [p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages")]
    torch = importlib.util.find_spec("torch")
    if torch is not None and torch.origin is not None:
        found.append(os.path.dirname(os.path.dirname(torch.origin)))
    return list(dict.fromkeys(os.path.abspath(p) for p in found if os.path.isdir(p)))


def _shown() -> list[str]:
    """What is shown, read-only: shared libraries, Python and its packages."""
    base = os.path.realpath(sys.base_prefix)
    own = [f"{base}/lib", f"{base}/lib64"] if base != "/usr" else []
    own += [os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    places = [*(p for p in _LIBRARIES if os.path.isdir(p)), *own, *_sites(), _python()]
    kept: list[str] = []
    for place in places:
        if os.path.exists(place) and not any(_within(place, other) for other in kept):
            kept.append(place)
    return kept


def _inside(place: str) -> str:
    """Where it is shown: what lies below /tmp, which a stage has for itself, elsewhere."""
    return f"/box/from{place}" if _within(place, "/tmp") else place


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _hidden() -> list[str]:
    """What is ours and not for a submission. An installed package holds it, too, and so may what an
    editable one has left among the others."""
    package = content.SUITES.parent
    places = [package, content.solutions(), content.questions()]
    places += [Path(site) / "grader" for site in _sites()]
    clone = content.clone()
    if clone is not None:
        places += [clone / name for name in ("katas", "tests", ".git")]
    return list(dict.fromkeys(os.path.realpath(place) for place in places))


def _walls(shown: list[str]) -> list[str]:
    """Bubblewrap's arguments."""
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--uid", "1000", "--gid", "1000", "--hostname", "box"]
    words += ["--new-session", "--as-pid-1", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    if threading.current_thread() is threading.main_thread():  # the thread is what it is tied to
        words.append("--die-with-parent")
    words += ["--clearenv", "--setenv", "LANG", "C.UTF-8", "--setenv", "HOME", "/tmp"]
    for place in shown:
        words += ["--ro-bind", place, _inside(place)]
    for link in _LINKS:
        if os.path.islink(link):
            words += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            words += ["--ro-bind", link, link]
    for place in _LINKER:
        words += ["--ro-bind-try", place, place]
    for place in _hidden():
        if os.path.isdir(place) and any(_within(place, other) for other in shown):
            words += ["--tmpfs", _inside(place), "--remount-ro", _inside(place)]
    package = content.SUITES.parent
    for name in _OURS:
        words += ["--ro-bind", str(package / name), f"/box/grader/{name}"]
    words += ["--proc", "/proc", "--tmpfs", "/dev"]
    for device in _DEVICES:
        words += ["--dev-bind", device, device]
    words += ["--remount-ro", "/dev", "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    return [*words, "--"]
