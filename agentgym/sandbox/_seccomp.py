# SPDX-License-Identifier: Apache-2.0
"""Which system calls sandboxed code may make: one list of names, as a BPF program or as a profile for a container engine.

An allow-list: what a newer kernel adds is refused until somebody has thought about it. Standard library only and no
import of agentgym: this file is also loaded, by itself, in the launcher's interpreter.

The numbers are those of the kernel's headers (asm/unistd_64.h, asm-generic/unistd.h of Linux 6.1, and the common table
for what came later). The program for aarch64 is checked by interpreting it; it has not run on such a processor.
"""

from __future__ import annotations

import struct
from typing import Any

_TABLE = """
accept 43 202; accept4 288 242; access 21 -; alarm 37 -; arch_prctl 158 -; bind 49 200; brk 12 214; cachestat 451 451;
capget 125 90; capset 126 91; chdir 80 49; chmod 90 -; chown 92 -; clock_getres 229 114; clock_gettime 228 113;
clock_nanosleep 230 115; clone 56 220; clone3 435 435; close 3 57; close_range 436 436; connect 42 203; copy_file_range 326
285; creat 85 -; dup 32 23; dup2 33 -; dup3 292 24; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21;
epoll_ctl_old 214 -; epoll_pwait 281 22; epoll_pwait2 441 441; epoll_wait 232 -; eventfd 284 -; eventfd2 290 19; execve 59
221; execveat 322 281; exit 60 93; exit_group 231 94; faccessat 269 48; faccessat2 439 439; fadvise64 221 223; fallocate 285
47; fchdir 81 50; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; fchown 93 55; fchownat 260 54; fcntl 72 25; fdatasync 75
83; fgetxattr 193 10; flistxattr 196 13; flock 73 32; fork 57 -; fremovexattr 199 16; fsetxattr 190 7; fstat 5 80; fstatfs
138 44; fsync 74 82; ftruncate 77 46; futex 202 98; futex_requeue 456 456; futex_wait 455 455; futex_waitv 449 449;
futex_wake 454 454; futimesat 261 -; get_robust_list 274 100; get_thread_area 211 -; getcpu 309 168; getcwd 79 17; getdents
78 -; getdents64 217 61; getegid 108 177; geteuid 107 175; getgid 104 176; getgroups 115 158; getitimer 36 102; getpeername
52 205; getpgid 121 155; getpgrp 111 -; getpid 39 172; getppid 110 173; getpriority 140 141; getrandom 318 278; getresgid
120 150; getresuid 118 148; getrlimit 97 163; getrusage 98 165; getsid 124 156; getsockname 51 204; getsockopt 55 209;
gettid 186 178; gettimeofday 96 169; getuid 102 174; getxattr 191 8; inotify_add_watch 254 27; inotify_init 253 -;
inotify_init1 294 26; inotify_rm_watch 255 28; io_cancel 210 3; io_destroy 207 1; io_getevents 208 4; io_pgetevents 333 292;
io_setup 206 0; io_submit 209 2; ioctl 16 29; ioprio_get 252 31; ioprio_set 251 30; kill 62 129; landlock_add_rule 445 445;
landlock_create_ruleset 444 444; landlock_restrict_self 446 446; lchown 94 -; lgetxattr 192 9; link 86 -; linkat 265 37;
listen 50 201; listxattr 194 11; llistxattr 195 12; lremovexattr 198 15; lseek 8 62; lsetxattr 189 6; lstat 6 -; madvise 28
233; map_shadow_stack 453 453; membarrier 324 283; memfd_create 319 279; mincore 27 232; mkdir 83 -; mkdirat 258 34; mknod
133 -; mknodat 259 33; mlock 149 228; mlock2 325 284; mlockall 151 230; mmap 9 222; mprotect 10 226; mq_getsetattr 245 185;
mq_notify 244 184; mq_open 240 180; mq_timedreceive 243 183; mq_timedsend 242 182; mq_unlink 241 181; mremap 25 216; mseal
462 462; msgctl 71 187; msgget 68 186; msgrcv 70 188; msgsnd 69 189; msync 26 227; munlock 150 229; munlockall 152 231;
munmap 11 215; nanosleep 35 101; newfstatat 262 79; open 2 -; openat 257 56; openat2 437 437; pause 34 -; personality 135
92; pidfd_open 434 434; pidfd_send_signal 424 424; pipe 22 -; pipe2 293 59; pkey_alloc 330 289; pkey_free 331 290;
pkey_mprotect 329 288; poll 7 -; ppoll 271 73; prctl 157 167; pread64 17 67; preadv 295 69; preadv2 327 286; prlimit64 302
261; process_mrelease 448 448; pselect6 270 72; pwrite64 18 68; pwritev 296 70; pwritev2 328 287; read 0 63; readahead 187
213; readlink 89 -; readlinkat 267 78; readv 19 65; recvfrom 45 207; recvmmsg 299 243; recvmsg 47 212; remap_file_pages 216
234; removexattr 197 14; rename 82 -; renameat 264 38; renameat2 316 276; restart_syscall 219 128; rmdir 84 -; rseq 334 293;
rt_sigaction 13 134; rt_sigpending 127 136; rt_sigprocmask 14 135; rt_sigqueueinfo 129 138; rt_sigreturn 15 139;
rt_sigsuspend 130 133; rt_sigtimedwait 128 137; rt_tgsigqueueinfo 297 240; sched_get_priority_max 146 125;
sched_get_priority_min 147 126; sched_getaffinity 204 123; sched_getattr 315 275; sched_getparam 143 121; sched_getscheduler
145 120; sched_rr_get_interval 148 127; sched_setaffinity 203 122; sched_setattr 314 274; sched_setparam 142 118;
sched_setscheduler 144 119; sched_yield 24 124; seccomp 317 277; select 23 -; semctl 66 191; semget 64 190; semop 65 193;
semtimedop 220 192; sendfile 40 71; sendmmsg 307 269; sendmsg 46 211; sendto 44 206; set_robust_list 273 99; set_thread_area
205 -; set_tid_address 218 96; setfsgid 123 152; setfsuid 122 151; setgid 106 144; setgroups 116 159; setitimer 38 103;
setpgid 109 154; setpriority 141 140; setregid 114 143; setresgid 119 149; setresuid 117 147; setreuid 113 145; setrlimit
160 164; setsid 112 157; setsockopt 54 208; setuid 105 146; setxattr 188 5; shmat 30 196; shmctl 31 195; shmdt 67 197;
shmget 29 194; shutdown 48 210; sigaltstack 131 132; signalfd 282 -; signalfd4 289 74; socket 41 198; socketpair 53 199;
splice 275 76; stat 4 -; statfs 137 43; statx 332 291; symlink 88 -; symlinkat 266 36; sync 162 81; sync_file_range 277 84;
syncfs 306 267; sysinfo 99 179; tee 276 77; tgkill 234 131; time 201 -; timer_create 222 107; timer_delete 226 111;
timer_getoverrun 225 109; timer_gettime 224 108; timer_settime 223 110; timerfd_create 283 85; timerfd_gettime 287 87;
timerfd_settime 286 86; times 100 153; tkill 200 130; truncate 76 45; umask 95 166; uname 63 160; unlink 87 -; unlinkat 263
35; utime 132 -; utimensat 280 88; utimes 235 -; vfork 58 -; wait4 61 260; waitid 247 95; write 1 64; writev 20 66
"""
"""NAME x86_64 aarch64; a dash where the machine has no such call."""

NUMBERS: dict[str, dict[str, int]] = {"x86_64": {}, "aarch64": {}}
"""Machine -> name -> number of everything that is allowed, some of it under conditions."""
for _row in _TABLE.replace("\n", " ").split(";"):
    _name, _x86, _arm = _row.split()
    for _machine, _number in (("x86_64", _x86), ("aarch64", _arm)):
        if _number != "-":
            NUMBERS[_machine][_name] = int(_number)

_REFUSED = """
_sysctl 156 -; acct 163 89; add_key 248 217; adjtimex 159 171; afs_syscall 183 -; bpf 321 280; chroot 161 51; clock_adjtime
305 266; clock_settime 227 112; create_module 174 -; delete_module 176 106; epoll_wait_old 215 -; fanotify_init 300 262;
fanotify_mark 301 263; finit_module 313 273; fsconfig 431 431; fsmount 432 432; fsopen 430 430; fspick 433 433;
get_kernel_syms 177 -; get_mempolicy 239 236; getpmsg 181 -; init_module 175 105; io_uring_enter 426 426; io_uring_register
427 427; io_uring_setup 425 425; ioperm 173 -; iopl 172 -; kcmp 312 272; kexec_file_load 320 294; kexec_load 246 104; keyctl
250 219; lookup_dcookie 212 18; mbind 237 235; memfd_secret 447 447; migrate_pages 256 238; modify_ldt 154 -; mount 165 40;
mount_setattr 442 442; move_mount 429 429; move_pages 279 239; name_to_handle_at 303 264; nfsservctl 180 42;
open_by_handle_at 304 265; open_tree 428 428; perf_event_open 298 241; pidfd_getfd 438 438; pivot_root 155 41;
process_madvise 440 440; process_vm_readv 310 270; process_vm_writev 311 271; ptrace 101 117; putpmsg 182 -; query_module 178
-; quotactl 179 60; quotactl_fd 443 443; reboot 169 142; request_key 249 218; security 185 -; set_mempolicy 238 237;
set_mempolicy_home_node 450 450; setdomainname 171 162; sethostname 170 161; setns 308 268; settimeofday 164 170; swapoff 168
225; swapon 167 224; sysfs 139 -; syslog 103 116; tuxcall 184 -; umount2 166 39; unshare 272 97; uselib
134 -; userfaultfd 323 282; ustat 136 -; vhangup 153 58; vmsplice 278 75; vserver 236 -
"""
"""NAME x86_64 aarch64 of what is refused, only to be named in events: whatever is on neither list is refused too."""

REFUSED: dict[str, dict[int, str]] = {"x86_64": {}, "aarch64": {}}
"""Machine -> number -> name of everything that is refused and has a name."""
for _row in _REFUSED.replace("\n", " ").split(";"):
    _name, _x86, _arm = _row.split()
    for _machine, _number in (("x86_64", _x86), ("aarch64", _arm)):
        if _number != "-":
            REFUSED[_machine][int(_number)] = _name

CONTINUED = (
    *("bind", "connect", "execve", "execveat", "kill", "pidfd_open", "pidfd_send_signal", "prctl", "rt_sigqueueinfo"),
    *("rt_tgsigqueueinfo", "sendmmsg", "sendmsg", "sendto", "tgkill", "tkill"),
)
"""What an observer lets go on after it has looked. All of them are allowed without one too, whatever their arguments: what
it sees in memory may be changed behind its back, so nothing may hang on it. It refuses everything else that it is told of."""

CONDITIONAL = ("clone", "clone3", "ioctl", "mknod", "mknodat", "personality", "socket")

UNACCOUNTED = ("memfd_create", "shmget")
"""Memory that belongs to no process: refused where no control group counts it."""

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEWEST = 462
"""Numbers above are of calls that did not exist when the list was written: ENOSYS, so that programs take another way."""

_NAMESPACES = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6: no netlink, packet, vsock, bluetooth, alg
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)  # what Linux programs ask for; no ADDR_NO_RANDOMIZE games
_TTY_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the terminal of whoever started us

_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_ALLOW, _KILL, _ERRNO, _NOTIFY = 0x7FFF0000, 0x80000000, 0x50000, 0x7FC00000
X32 = 1 << 30
_SET_DUMPABLE, _NEW_LISTENER = 4, 8

_LOAD, _JEQ, _JGE, _JSET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_Instruction = tuple[int, int, int, int]


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, last), ascending."""
    out: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if out and out[-1][1] == n - 1:
            out[-1] = (out[-1][0], n)
        else:
            out.append((n, n))
    return out


def _search(ranges: list[tuple[int, int]], refusal: int) -> list[_Instruction]:
    """A binary search over ranges: the accumulator holds the number, allowed where it lies in one, else refused."""
    if not ranges:
        return [(_RETURN, 0, 0, refusal)]
    if len(ranges) == 1:
        first, last = ranges[0]
        return [
            (_JGE, 0, 2, first),
            (_JGE, 1, 0, last + 1),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, refusal),
        ]
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle], refusal), _search(ranges[middle:], refusal)
    if len(left) < 256:
        return [(_JGE, len(left), 0, ranges[middle][0]), *left, *right]
    # conditional jumps reach 255 instructions, an unconditional one any number
    return [(_JGE, 0, 1, ranges[middle][0]), (0x05, 0, 0, len(left)), *left, *right]


def program(machine: str, *, accounted: bool, observed: bool = False) -> bytes:
    """The filter for one kind of processor, as ``struct sock_filter[]``.

    Args:
        machine: ``x86_64`` or ``aarch64``.
        accounted: a control group counts all memory; otherwise `UNACCOUNTED` is refused.
        observed: what is refused, and what says what a program is up to, is told to an observer (seccomp's user
            notification) which answers it. Where there is none any more the kernel answers ENOSYS: nothing more is allowed.
    """
    refusal = _NOTIFY if observed else _ERRNO | _EPERM
    numbers = NUMBERS[machine]
    code: list[_Instruction] = []

    def back(result: int) -> None:
        code.append((_RETURN, 0, 0, result))

    def argument(index: int) -> None:
        code.append((_LOAD, 0, 0, 16 + 8 * index))  # the low half; both machines are little-endian

    def when(name: str, body: list[_Instruction]) -> None:
        if name in numbers:
            code.append((_JEQ, 0, len(body), numbers[name]))
            code.extend(body)

    def one_of(values: tuple[int, ...], otherwise: int) -> list[_Instruction]:
        tests = [(_JEQ, len(values) - i, 0, v) for i, v in enumerate(values)]
        return [*tests, (_RETURN, 0, 0, otherwise), (_RETURN, 0, 0, _ALLOW)]

    code.append((_LOAD, 0, 0, 4))
    code.append((_JEQ, 1, 0, _AUDIT[machine]))
    back(_KILL)  # a 32-bit call from a 64-bit process: its numbers mean other things
    code.append((_LOAD, 0, 0, 0))
    if observed:  # nothing innocent enters the kernel this way
        code.append((_JSET, 0, 1, X32))
        back(_NOTIFY)
    code.append((_JGE, 0, 1, _NEWEST + 1))  # x32 calls too: their numbers start at 2**30
    back(_ERRNO | _ENOSYS)
    when("clone3", [(_RETURN, 0, 0, _ERRNO | _ENOSYS)])  # its flags lie in memory; C libraries fall back to clone
    when(
        "clone",
        [(_LOAD, 0, 0, 16), (_JSET, 0, 1, _NAMESPACES), (_RETURN, 0, 0, refusal), (_RETURN, 0, 0, _ALLOW)],
    )
    when("socket", [(_LOAD, 0, 0, 16), *one_of(_FAMILIES, _NOTIFY if observed else _ERRNO | _EAFNOSUPPORT)])
    when("personality", [(_LOAD, 0, 0, 16), *one_of(_PERSONALITIES, refusal)])
    when(
        "ioctl",
        [
            (_LOAD, 0, 0, 24),
            (_JEQ, 1, 0, _TTY_INJECTION[0]),
            (_JEQ, 0, 1, _TTY_INJECTION[1]),
            (_RETURN, 0, 0, refusal),
            (_RETURN, 0, 0, _ALLOW),
        ],
    )
    for name, index in (("mknod", 1), ("mknodat", 2)):  # pipes, sockets and files, never devices
        kinds = (0, 0x1000, 0x8000, 0xC000)
        when(name, [(_LOAD, 0, 0, 16 + 8 * index), (_AND, 0, 0, 0xF000), *one_of(kinds, refusal)])
    watched: tuple[str, ...] = ()
    if observed:
        look, go = (_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW)
        watched = ("seccomp", *CONTINUED)
        for name in ("execve", "execveat", "connect", "bind", "sendmsg", "sendmmsg", "pidfd_send_signal"):
            when(name, [look])
        # with an address: the pointer has two halves
        when("sendto", [(_LOAD, 0, 0, 48), (_JEQ, 0, 2, 0), (_LOAD, 0, 0, 52), (_JEQ, 1, 0, 0), look, go])
        for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open"):
            when(name, [(_LOAD, 0, 0, 16), (_JEQ, 0, 1, 1), look, go])
        when("prctl", [(_LOAD, 0, 0, 16), (_JEQ, 0, 3, _SET_DUMPABLE), (_LOAD, 0, 0, 24), (_JEQ, 0, 1, 0), look, go])
        # Whoever has a listener of his own may answer what this filter asks. The kernel allows one per process as long as it
        # lives; that there is none after the observer's death either is the work of this rule.
        when("seccomp", [(_LOAD, 0, 0, 24), (_JSET, 0, 1, _NEW_LISTENER), look, go])
    special = (*CONDITIONAL, *watched)
    plain = {n for name, n in numbers.items() if name not in special and (accounted or name not in UNACCOUNTED)}
    code.extend(_search(_ranges(plain), refusal))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def profile() -> dict[str, Any]:
    """The same list in the format of container engines (``--security-opt seccomp=FILE``).

    One condition cannot be written in it: `ioctl` is allowed whole, which matters only to programs that have a terminal.
    """
    names = sorted({*NUMBERS["x86_64"], *NUMBERS["aarch64"]} - set(CONDITIONAL))
    allow: dict[str, Any] = {"action": "SCMP_ACT_ALLOW"}

    def equal(index: int, value: int, mask: int | None = None) -> dict[str, Any]:
        if mask is None:
            return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
        return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}

    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [
            {"names": [*names, "ioctl"], **allow},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            {"names": ["clone"], **allow, "args": [equal(0, 0, _NAMESPACES)]},
            *({"names": ["socket"], **allow, "args": [equal(0, family)]} for family in _FAMILIES),
            *({"names": ["personality"], **allow, "args": [equal(0, p)]} for p in _PERSONALITIES),
            *(
                {"names": [name], **allow, "args": [equal(index, kind, 0xF000)]}
                for name, index in (("mknod", 1), ("mknodat", 2))
                for kind in (0, 0x1000, 0x8000, 0xC000)
            ),
        ],
    }
