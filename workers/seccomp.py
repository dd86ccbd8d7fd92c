"""System calls that code under test may not make, as a filter for the kernel (seccomp, x86-64).

What a server needs is left alone. Refused are calls that change namespaces and mounts, look into other processes,
load code into the kernel, or open a way to the machine that network namespaces do not close (vsock).
"""

import errno
import struct

_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_X86_64 = 0xC000003E
_X32_BIT = 0x40000000  # the other ABI of this architecture, with numbers of its own

_CLONE, _CLONE3, _SOCKET = 56, 435, 41
# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x80 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_FAMILIES = {"unix": 1, "inet": 2, "inet6": 10, "netlink": 16}

REFUSED = {
    "ptrace": 101, "syslog": 103, "vhangup": 153, "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163,
    "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
    "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176,
    "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272, "perf_event_open": 298,
    "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320,
    "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip


def program() -> bytes:
    """The filter as `bwrap --seccomp` reads it: an array of struct sock_filter."""
    refuse = _statement(_RETURN, _ERROR | errno.EPERM)
    lines = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_JUMP_EQUAL, _X86_64, 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER),
        _jump(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
        refuse,
    ]
    for number in REFUSED.values():
        lines += [_jump(_JUMP_EQUAL, number, 0, 1), refuse]
    # its flags lie in memory, where no filter can read them; the C library then falls back to clone
    lines += [_jump(_JUMP_EQUAL, _CLONE3, 0, 1), _statement(_RETURN, _ERROR | errno.ENOSYS)]
    lines += [
        _jump(_JUMP_EQUAL, _CLONE, 0, 3),
        _statement(_LOAD, _FIRST_ARGUMENT),
        _jump(_JUMP_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        refuse,
        _statement(_LOAD, _NUMBER),
        _jump(_JUMP_EQUAL, _SOCKET, 0, len(_FAMILIES) + 2),
        _statement(_LOAD, _FIRST_ARGUMENT),
    ]
    for left, family in zip(range(len(_FAMILIES), 0, -1), _FAMILIES.values(), strict=True):
        lines.append(_jump(_JUMP_EQUAL, family, left, 0))
    lines += [refuse, _statement(_RETURN, _ALLOW)]
    return b"".join(lines)


def _statement(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
