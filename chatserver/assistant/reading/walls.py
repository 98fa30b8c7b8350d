"""Walls of the kernel about the reading process, which hold against native code, too (Linux).

Two, each as far as the kernel has it: a filter of system calls (seccomp) without which there is no
way to a network, another program, another process or a change of the disk; and a view of the file
system (Landlock) in which nothing can be read but programs and libraries.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
# Numbers of a machine: of its audit architecture, of the calls here, of each call that is refused.
_X86, _ARM = 0, 1
_MACHINES: Final = {"x86_64": _X86, "aarch64": _ARM}
_ARCH: Final = (0xC000003E, 0xC00000B7)
_SECCOMP: Final = (317, 277)
_REFUSED: Final = {
    # Out of the machine, or to others on it.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279),
    # Other programs and processes.
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kill": (62, 129), "tkill": (200, 130), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "process_madvise": (440, 440), "setpriority": (141, 140),
    # Ways around this filter, and more rights.
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "open_by_handle_at": (304, 265), "init_module": (175, 105),
    "finit_module": (313, 273), "kexec_load": (246, 104),
    # Changes of the disk; opening for writing is below.
    "creat": (85, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None),
    "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "truncate": (76, 45),
    "ftruncate": (77, 46), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
}  # fmt: skip
# Their flags lie where no filter can look: as if the kernel were too old for them.
_UNKNOWN: Final = {"clone3": (435, 435), "openat2": (437, 437)}
_OPEN: Final = ((2, None), 1), ((257, 56), 2)  # the call, and which of its arguments are the flags
_CLONE: Final = (56, 220)
_PRLIMIT: Final = (302, 261)
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD: Final = 0x10000
_TSYNC: Final = 1
# Instructions of the filter's little machine, and what it answers.
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16
_X32: Final = 0x40000000

# Landlock's calls have the same numbers everywhere.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_READ: Final = 0b1100  # of files and directories
_FILE_RIGHTS: Final = ((5, 16), (3, 15), (2, 14), (1, 13))  # from this version on so many


def filter_calls() -> bool:
    """Refuse this process whatever reaches out of it; False: the kernel has no such filter."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    steps = _program(machine)
    program = b"".join(struct.pack("HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(kept)))
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # For all threads that libraries may have started by now.
    return bool(libc.syscall(_SECCOMP[machine], 1, _TSYNC, head) == 0)


def show_only(places: Iterable[str]) -> bool:
    """Let nothing be read but what lies in these directories; False: the kernel can't."""
    libc = ctypes.CDLL(None)
    version = int(libc.syscall(_CREATE, None, 0, 1))
    if version < 1:
        return False
    rights = next(bits for least, bits in _FILE_RIGHTS if version >= least)
    # Then TCP, then signals and abstract sockets, as far as it knows of them.
    parts = [(1 << rights) - 1, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]  # noqa: PLR2004 - versions
    asked = struct.pack(f"{len(parts)}Q", *parts)
    ruleset = int(libc.syscall(_CREATE, asked, len(asked), 0))
    if ruleset < 0:
        return False
    try:
        for place in places:
            _allow(libc, ruleset, place)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(libc.syscall(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, place: str) -> None:
    try:
        opened = os.open(place, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]  # Linux
    except OSError:
        return
    rights = _READ if os.path.isdir(place) else _READ & ~8  # noqa: PTH112 - a path that is open
    libc.syscall(_ADD, ruleset, 1, struct.pack("=Qi", rights, opened), 0)
    os.close(opened)


def _program(machine: int) -> Sequence[tuple[int, int, int, int]]:
    steps = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _ARCH[machine]),
        _answer(_KILL),  # calls of another machine have other numbers
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == _X86:
        steps += [(_ABOVE, 0, 1, _X32), _answer(_KILL)]
    for several, error in ((_REFUSED, errno.EPERM), (_UNKNOWN, errno.ENOSYS)):
        for numbers in several.values():
            if (number := numbers[machine]) is not None:
                steps += [(_EQUAL, 0, 1, number), _answer(_ERROR | error)]
    for numbers, argument in _OPEN:
        if (number := numbers[machine]) is not None:
            steps += _looking(number, argument, (_ANY_BIT, 0, 1, _WRITING))
    steps += _looking(_CLONE[machine], 0, (_ANY_BIT, 1, 0, _CLONE_THREAD))
    steps += _looking(_PRLIMIT[machine], 0, (_EQUAL, 1, 0, 0))
    return [*steps, _answer(_ALLOW)]


def _looking(
    number: int, argument: int, test: tuple[int, int, int, int]
) -> list[tuple[int, int, int, int]]:
    """Refuse a call by one of its arguments: the test jumps over the refusal where it may pass."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        test,
        _answer(_ERROR | errno.EPERM),
        _answer(_ALLOW),
    ]


def _answer(what: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, what)
