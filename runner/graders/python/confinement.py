"""What takes a process its rights for good: no network, no other process, no writing, few files to read.

Linux only, by system calls through ctypes, so that nothing need be installed. It runs in the child, where only the
standard library can be imported; the parent asks `missing`, for a warning in the plan.

seccomp: https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
Landlock: https://www.kernel.org/doc/html/latest/userspace-api/landlock.html
"""

import ctypes
import os
import platform
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterator

_NO_NEW_PRIVS, _GET_SECCOMP, _SET_SECCOMP, _FILTER = 38, 21, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights on files each version of Landlock knows; later ones 16. All that it knows are refused but reading."""

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""By machine: its column in the table of calls, and its number in the filter."""

# The calls of a process that computes, reads modules and answers on its pipe; all others fail with EPERM. Numbers as in
# the kernel's asm/unistd_64.h and asm-generic/unistd.h, which never change; -1 where the machine has no such call.
_CALLS = {
    **{"read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, -1), "fstat": (5, 80), "lstat": (6, -1)},
    **{"poll": (7, -1), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215)},
    **{"brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139)},
    **{"pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "access": (21, -1), "select": (23, -1)},
    **{"sched_yield": (24, 124), "mremap": (25, 216), "mincore": (27, 232), "madvise": (28, 233), "dup": (32, 23)},
    **{"dup2": (33, -1), "dup3": (292, 24), "nanosleep": (35, 101), "setitimer": (38, 103), "getpid": (39, 172)},
    **{"exit": (60, 93), "uname": (63, 160), "getdents": (78, -1), "getcwd": (79, 17), "readlink": (89, -1)},
    **{"gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179)},
    **{"times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177)},
    **{
        "getppid": (110, 173),
        "sigaltstack": (131, 132),
        "statfs": (137, 43),
        "fstatfs": (138, 44),
        "gettid": (186, 178),
    },
    **{"arch_prctl": (158, -1), "time": (201, -1), "futex": (202, 98), "sched_getaffinity": (204, 123)},
    **{"getdents64": (217, 61), "set_tid_address": (218, 96), "clock_gettime": (228, 113), "clock_getres": (229, 114)},
    **{"clock_nanosleep": (230, 115), "exit_group": (231, 94), "newfstatat": (262, 79), "readlinkat": (267, 78)},
    **{"faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99)},
    **{"getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293)},
    **{"faccessat2": (439, 439), "mbind": (237, 235), "get_mempolicy": (239, 236)},
}
_OPENS = {"open": ((2, -1), 1), "openat": ((257, 56), 2)}
"""Calls that open a file, and the argument with the flags, in which none that writes may be set."""
_ONLY = {
    "ioctl": ((16, 29), (0x5401, 0x541B, 0x5450, 0x5451)),  # is it a terminal, what waits, close on exec
    "fcntl": ((72, 25), (0, 1, 2, 3, 4, 1030)),  # not F_SETOWN, by which a pipe sends signals to another process
}
"""Calls that are allowed for some values of their second argument."""
_PRLIMIT = (302, 261)


def missing() -> list[str]:
    """Return which of `seccomp` and `landlock` this system lacks."""
    if not sys.platform.startswith("linux") or platform.machine() not in _MACHINES:
        return ["seccomp", "landlock"]
    lacks = {"seccomp": _prctl(_GET_SECCOMP) < 0, "landlock": _landlock_version() < 1}
    return [name for name, absent in lacks.items() if absent]


def confine(memory: int) -> None:
    """Limit this process to so many bytes of memory and take its rights; raises `OSError` where that fails."""
    limits = {"RLIMIT_AS": memory, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0, "RLIMIT_NOFILE": 64}
    for name, most in limits.items():
        _limit(getattr(resource, name), most)
    lacks = missing()
    if len(lacks) < 2:
        _check(_prctl(_NO_NEW_PRIVS, 1), "no_new_privs")
    if "landlock" not in lacks:
        _restrict_files()
    if "seccomp" not in lacks:
        _restrict_calls()


def _limit(limit: int, most: int) -> None:
    hard = resource.getrlimit(limit)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(limit, (most, most))
    except (ValueError, OSError):
        if sys.platform.startswith("linux"):
            raise  # macOS does not limit memory


def _readable() -> Iterator[str]:
    """Yield Python's own folders and the system's libraries; not sys.path, which may hold whole projects and `.env`."""
    yield from {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    yield from {f"{prefix}/lib" for prefix in (sys.prefix, sys.base_prefix)}
    yield from ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
    yield from ("/usr/share/zoneinfo", "/dev/urandom")


def _restrict_files() -> None:
    """Landlock: let files be read beneath some folders, and nothing be written anywhere."""
    handled = (1 << _RIGHTS.get(_landlock_version(), 16)) - 1
    ruleset = _check(_syscall(_LANDLOCK_CREATE, struct.pack("Q", handled), 8, 0), "landlock")
    for path in _readable():
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rights = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE  # noqa: PTH112
        _check(_syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, opened), 0), "landlock")
        os.close(opened)
    _check(_syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


def _restrict_calls() -> None:
    """Seccomp: let this process make the calls of the table only; the others fail with EPERM."""
    program = b"".join(struct.pack("HBBI", *each) for each in _program(*_MACHINES[platform.machine()]))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    _check(_prctl(_SET_SECCOMP, _FILTER, header), "seccomp")


def _program(column: int, machine: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the filter's instructions: code, jump if true, jump if not, operand."""
    load, equal, any_bit, end = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JSET|K, RET|K
    allow, deny = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
    yield from [(load, 0, 0, 4), (equal, 1, 0, machine), (end, 0, 0, deny), (load, 0, 0, 0)]
    for numbers in _CALLS.values():
        if numbers[column] >= 0:
            yield from [(equal, 0, 1, numbers[column]), (end, 0, 0, allow)]
    for numbers, argument in _OPENS.values():
        if numbers[column] >= 0:
            yield from [(equal, 0, 4, numbers[column]), (load, 0, 0, 16 + 8 * argument), (any_bit, 0, 1, writing)]
            yield from [(end, 0, 0, deny), (end, 0, 0, allow)]
    for numbers, values in _ONLY.values():
        yield from [(equal, 0, 2 * len(values) + 2, numbers[column]), (load, 0, 0, 24)]
        yield from [each for value in values for each in ((equal, 0, 1, value), (end, 0, 0, allow))]
        yield (end, 0, 0, deny)
    # prlimit64 may read limits; the new one is a pointer of two halves, both zero where none is set.
    yield from [(equal, 0, 5, _PRLIMIT[column]), (load, 0, 0, 32), (equal, 0, 3, 0), (load, 0, 0, 36), (equal, 0, 1, 0)]
    yield from [(end, 0, 0, allow), (end, 0, 0, deny)]


def _landlock_version() -> int:
    return _syscall(_LANDLOCK_CREATE, None, 0, 1)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return int(call(ctypes.c_long(number), *_wide(arguments)))


def _prctl(option: int, *arguments: int | bytes | None) -> int:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, *_wide(padded)))


def _wide(arguments: tuple[int | bytes | None, ...]) -> list[ctypes.c_ulong | bytes | None]:
    """Return integers as the 64 bits that the kernel reads; ctypes alone would pass 32."""
    return [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
