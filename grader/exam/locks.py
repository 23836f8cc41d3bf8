"""The locks that a stage puts on itself in the box, and what holds once they are on (Linux).

They come in an order: namespaces and mounts need the capabilities that are then dropped, and the
filter of system calls, which is last, forbids what the others were made with.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial

NEWNS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
_EVERY_NAMESPACE = 0x7E020000
_NOSUID, _NODEV, _NOEXEC, _RDONLY = 2, 4, 8, 1
TMP_BYTES, FILE_BYTES = 64 << 20, 16 << 20
_OPEN_FILES, TASKS, _CPU_S = 256, 64, 600
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_GET_SECCOMP = 23, 24, 22, 21
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
_CAPABILITIES = 64  # more than there are
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_AND_RUN, _READ, _READ_WRITE = 0b1101, 0b100, 0b110

MACHINES = {"x86_64": 0, "aarch64": 1}  # which number of a pair holds
_AUDIT = (0xC000003E, 0xC00000B7)
CLONE = (56, 220)
_X32 = 0x40000000
# System calls that the box forbids: their numbers on x86-64 and, untried there, on aarch64. Both
# are those of the kernel's headers, which a test compares them with where it finds them.
DENIED: dict[str, tuple[int, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "mq_open": (240, 180),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "clone3": (435, 435),
}
# glibc asks for these first and falls back where there are none.
_UNKNOWN = {"clone3", "io_uring_setup"}

_libc = ctypes.CDLL(None, use_errno=True)


class LockFailed(Exception):
    """A lock could not be put on; the text says which and why."""


def _must(result: int, what: str) -> int:
    if result < 0:
        raise LockFailed(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def unshare(what: int) -> None:
    """Leave these namespaces for new ones; NEWPID is for the children. Raises LockFailed."""
    _must(_libc.unshare(what), "unshare")


def enter(namespace: int, kind: int) -> None:
    """Enter the namespace behind a descriptor. Raises LockFailed."""
    _must(_libc.setns(namespace, kind), "setns")


def lock() -> None:
    """Put all locks on this process, the first of a PID namespace. Raises LockFailed."""
    try:
        _namespaces()
        _mounts()
        _limits()
        _no_capabilities()
        _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        _landlock()
        _seccomp()
    except OSError as error:
        raise LockFailed(str(error)) from error


def _namespaces() -> None:
    user, group = os.getuid(), os.getgid()
    unshare(NEWUSER | NEWNS | NEWIPC)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _mounts() -> None:
    """Its own /tmp, and no /proc: a new one may be mounted only where the old one is wholly
    seen, and bubblewrap covers parts of it."""
    options = f"size={TMP_BYTES},nr_inodes=4096,mode=700".encode()
    _must(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _NOSUID | _NODEV | _NOEXEC, options), "/tmp")
    _must(_libc.mount(b"tmpfs", b"/proc", b"tmpfs", _RDONLY, b"size=4k"), "/proc")
    os.chdir("/tmp")


def _limits() -> None:
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, TASKS),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _no_capabilities() -> None:
    for capability in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _must(_libc.capset(header, bytes(24)), "capset")


def landlock_version() -> int:
    """What the kernel knows of Landlock; 0 or less where it has none."""
    return int(_libc.syscall(_LANDLOCK_CREATE, None, 0, 1))


def _landlock() -> None:
    """Read and run what bubblewrap shows, write below /tmp alone, where the kernel can."""
    version = landlock_version()
    if version < 1:
        return
    every = (1 << (12 + min(version, 3))) - 1
    ruleset = _libc.syscall(_LANDLOCK_CREATE, struct.pack("Q", every), 8, 0)
    _must(ruleset, "Landlock")
    for path, access in (
        ("/", _READ_AND_RUN),
        ("/tmp", every),
        ("/dev/null", _READ_WRITE),
        ("/dev/zero", _READ),
        ("/dev/urandom", _READ),
        ("/dev/random", _READ),
    ):
        place = os.open(path, os.O_PATH)
        rule = struct.pack("<Qi", access, place)
        _must(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), f"Landlock, {path}")
        os.close(place)
    _must(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "Landlock")
    os.close(ruleset)


def _seccomp() -> None:
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise LockFailed(f"no table of system calls for {platform.machine()}")
    program = _filter(machine)
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    head = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    _must(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(head), 0, 0), "seccomp")


def _filter(machine: int) -> list[tuple[int, int, int, int]]:
    """The filter as steps of the kernel's packet filter: code, jump if true, if false, value."""
    load, equal, above, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow, fail = 0x80000000, 0x7FFF0000, 0x50000
    steps = [
        (load, 0, 0, 4),  # the machine that the call is made for
        (equal, 1, 0, _AUDIT[machine]),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # the number of the call
        (above, 0, 1, _X32),
        (answer, 0, 0, kill),
    ]
    for name, numbers in DENIED.items():
        number = numbers[machine]
        if number is not None:
            code = errno.ENOSYS if name in _UNKNOWN else errno.EPERM
            steps += [(equal, 0, 1, number), (answer, 0, 0, fail | code)]
    steps += [
        (equal, 0, 3, CLONE[machine]),
        (load, 0, 0, 16),  # its first argument: the flags
        (any_bit, 0, 1, _EVERY_NAMESPACE),
        (answer, 0, 0, fail | errno.EPERM),
        (answer, 0, 0, allow),
    ]
    return steps


# What holds once the locks are on


def alone_on_the_network() -> bool:
    """Whether there is no network device but loopback. To be asked before the locks are on."""
    return [name for _, name in socket.if_nameindex()] in ([], ["lo"])


def trial(hidden: Sequence[str], networkless: bool) -> dict[str, str]:
    """Try each lock from inside; what is wrong, by the lock's name, or '' where it holds.
    hidden: paths that must not be seen."""
    tries: dict[str, Callable[[], None]] = {
        "user namespace": _try_capabilities,
        "PID namespace": _try_processes,
        "mounts": lambda: _try_files(hidden),
        "IPC namespace": lambda: _refused(lambda: _libc.shmget(1, 4096, 0o1600)),
        "network": lambda: _try_network(networkless),
        "limits": _try_limits,
        "no new privileges": lambda: _is(_libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1),
        "Landlock": _try_landlock,
        "seccomp": _try_seccomp,
    }
    found = {}
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = ""
        except (OSError, LockFailed) as error:
            found[name] = str(error)
    return found


def _is(got: object, wanted: object, what: str = "it") -> None:
    if got != wanted:
        raise LockFailed(f"{what} is {got}, not {wanted}")


def _refused(call: Callable[[], int]) -> None:
    if call() != -1:
        raise LockFailed("a call that is forbidden was made")


def _refuses(call: Callable[[], object], what: str) -> None:
    """The call fails, whatever says no."""
    try:
        call()
    except OSError:
        return
    raise LockFailed(f"{what} is possible")


def _try_capabilities() -> None:
    held = ctypes.create_string_buffer(24)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _must(_libc.capget(header, held), "capget")
    _is(held.raw, bytes(24), "the set of capabilities")
    _is(_libc.prctl(_PR_CAPBSET_READ, 21, 0, 0, 0), 0, "the bounding set")
    _refuses(lambda: os.setuid(0), "to become root")


def _try_processes() -> None:
    _is((os.getpid(), os.getppid()), (1, 0), "the process's number and its parent's")
    _is(os.listdir("/proc"), [], "what /proc shows")
    _refuses(lambda: os.kill(2, signal.SIGCONT), "a signal to another process")


def _try_files(hidden: Sequence[str]) -> None:
    for path in hidden:
        if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
            raise LockFailed(f"{path} can be seen")
    for folder in ("/", "/dev", "/usr/lib", "/box", os.path.dirname(os.__file__)):
        _refuses(partial(os.mkdir, f"{folder}/kata-trial"), f"to write to {folder}")
    there = os.statvfs("/tmp")
    if there.f_blocks * there.f_frsize > TMP_BYTES:
        raise LockFailed("/tmp has no limit")
    with open("/tmp/kata-trial", "wb") as file:
        file.write(b"1")
    os.unlink("/tmp/kata-trial")


def _try_network(networkless: bool) -> None:
    _refuses(socket.socket, "a socket")
    if not networkless:
        raise LockFailed("there is a network device")


def _try_limits() -> None:
    for what, most in (
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, TASKS),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _is(resource.getrlimit(what), (most, most), "a limit")


def _try_landlock() -> None:
    version = landlock_version()
    if version < 1:
        raise LockFailed("this kernel has none; the mounts keep all but /tmp from being written")
    _refuses(lambda: os.open("/dev/full", os.O_WRONLY), "to write to a device")


def _try_seccomp() -> None:
    _is(_libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0), 2, "the filter")
    for call in (
        lambda: _libc.ptrace(0, 0, 0, 0),
        lambda: _libc.unshare(NEWUSER),
        lambda: _libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None),
        lambda: _libc.memfd_create(b"kata", 0),
    ):
        _refused(call)
