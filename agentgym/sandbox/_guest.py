# SPDX-License-Identifier: Apache-2.0
"""The first process inside a sandbox: runs code and sessions for the host, collects their output, hands files in and out.

The same file serves every backend. The host speaks to it over one byte stream in frames (`HEADER`); several requests may be
under way at once. Standard library only and no import of agentgym: the namespace backend forks it from its launcher, the
container backend sends its text into the container, which is why it is one file.

What it does for the files' safety: it walks and opens them inside the sandbox, where no link can lead to the host.

Nothing that a program in here says is believed beyond the program's own result: the fds of this process are closed in
every child, it cannot be traced, and signals from inside do not reach process 1 of its own namespace.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import json
import linecache
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

HEADER = struct.Struct("<II")
"""Of a frame: bytes of JSON, bytes of data after it."""
PIECE = 4 << 20
"""Most bytes of data in one frame of files."""

_READ = 1 << 16
_TURN = struct.Struct("<Ii")
"""Turn number, and the exit code (from a Python session) or the bytes of code that follow (to it; -1: they are in a file)."""
_INLINE = 1 << 16
_GRACE_S = 1.0
"""How long an interrupted turn has to end before its session is killed."""
_WATCH_BUSY_S, _WATCH_IDLE_S = 0.01, 0.25
"""How often memory is added up where no control group does it: while something is asked for, and while only jobs run."""
_SPAWNS = (os.posix_spawn,) if hasattr(os, "posix_spawn") and sys.platform == "linux" else ()
_ROOM_S = 1.0
"""How long it is waited for room for one more process."""
_SCRIPT_BYTES = 100_000
"""Longer shell scripts travel in a file: one argument of a program may have 128 KiB."""


def _nothing(number: int, frame: types.FrameType | None) -> None:
    """A signal wakes the loop up through its pipe; there is nothing more to do."""


class Stream:
    """One output of a run: keeps the first bytes, counts the rest."""

    __slots__ = ("ended", "fd", "keep", "kept", "retired", "run", "total")

    def __init__(self, fd: int, keep: int) -> None:
        self.fd = fd
        self.keep = keep
        self.kept = bytearray()
        self.total = 0
        self.ended = False
        self.run: Run | None = None
        """What writes here now."""
        self.retired = False
        """Its run is over; what is left of it is read and dropped."""

    def drain(self, most: int = 1 << 20) -> bool:
        """Reads what is there; whether more may be waiting (a flood is read in portions, other work goes on between)."""
        self.ended = False
        while most > 0:
            try:
                data = os.read(self.fd, _READ)
            except BlockingIOError:
                return False
            if not data:
                self.ended = True
                return False
            self.total += len(data)
            most -= len(data)
            room = self.keep - len(self.kept)
            if room > 0:
                self.kept += data[:room]
        return True

    def reset(self, run: Run) -> None:
        """For the next turn on the same pipe."""
        self.keep, self.kept, self.total, self.ended, self.run = run.keep, bytearray(), 0, False, run


class Run:
    """What is under way for one request: a program, or a turn of a session."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.id: int = request["id"]
        self.start = time.monotonic()
        self.deadline = self.start + request["timeout"]
        self.keep: int = request["keep"]
        self.most: int = request["most"]
        self.status = "ok"
        """Why it ended, once that is settled: by itself unless something else happened first."""
        self.script = ""
        """A file that holds a long shell script while it runs."""
        self.out: Stream
        self.err: Stream


class Session:
    """A shell or an interpreter that lives on between turns."""

    def __init__(self, kind: str, place: str, pid: int, control: int) -> None:
        self.kind = kind
        self.place = place
        self.pid = pid
        self.control = control
        """Python: the guest's end of a socket. bash: where its lines are written."""
        self.report = -1
        """bash: the pipe on which it says that a turn is over."""
        self.out: Stream | None = None
        """A pipe by name that serves turn after turn; None where the next turn needs a new one."""
        self.err: Stream | None = None
        self.turn = 0
        self.run: Run | None = None


class Guest:
    """Serves the host until it hangs up.

    Args:
        incoming: fd of the host's requests.
        outgoing: fd of the answers; may be the same.
        config: ``workspace``, ``run`` (a folder for pipes), ``cpu_s``, ``nofile``, ``memory`` (bytes to watch over, 0
            where a control group does), ``first_victim`` (whether programs offer themselves to the kernel's killer).
        fork: how a child is made.
    """

    def __init__(self, incoming: int, outgoing: int, config: dict[str, Any], fork: Callable[[], int] = os.fork) -> None:
        self.incoming, self.outgoing = incoming, outgoing
        self.config = config
        self.fork = fork
        self.buffer = bytearray()
        self.programs: dict[int, Run] = {}
        self.sessions: dict[int, Session] = {}
        self.opened = 0
        self.again: list[Stream] = []
        self.handlers: dict[int, Callable[[], None]] = {}
        self.poll = select.epoll()
        self.watch_at = 0.0
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.me = os.getpid()
        self.memory_kills = 0

    # the loop

    def serve(self) -> None:
        """Until the host hangs up."""
        os.chdir(self.config["workspace"])  # where what it spawns starts
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write):
            os.set_blocking(fd, False)
        _signal.signal(2, _signal.SIG_IGN)  # SIGINT, for which Python has a handler: what runs in here could raise it
        _signal.signal(17, _nothing)  # SIGCHLD, by the module in C: see `_prepare_child`
        _signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.wake = wake_read
        self.poll.register(wake_read, select.EPOLLIN)
        self.poll.register(self.incoming, select.EPOLLIN)
        self.handlers[wake_read] = self._reap
        self.handlers[self.incoming] = self._receive
        handlers, poll = self.handlers, self.poll.poll
        while True:
            due = self._due()
            for fd, _ in poll(0 if self.again else -1 if due is None else max(0.0, due - time.monotonic()) + 0.0005):
                handler = handlers.get(fd)
                if handler is not None:
                    handler()
            if self.again:
                again, self.again = self.again, []
                for stream in again:
                    self._readable(stream)
            if due is not None and time.monotonic() >= due:
                self._overdue()
                if self.watch_at and time.monotonic() >= self.watch_at:
                    self._watch()

    def _due(self) -> float | None:
        """When something has to be looked at even if nothing happens."""
        due = self.watch_at or None
        for run in self.programs.values():
            if due is None or run.deadline < due:
                due = run.deadline
        for session in self.sessions.values():
            if session.run is not None and (due is None or session.run.deadline < due):
                due = session.run.deadline
        return due

    def _runs(self) -> Iterator[Run]:
        yield from self.programs.values()
        for session in self.sessions.values():
            if session.run is not None:
                yield session.run

    def _receive(self) -> None:
        data = os.read(self.incoming, 1 << 18)
        if not data:
            self._leave()
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            head, body = HEADER.unpack_from(self.buffer)
            end = HEADER.size + head + body
            if len(self.buffer) < end:
                return
            request = json.loads(self.buffer[HEADER.size : HEADER.size + head])
            blob = bytes(self.buffer[HEADER.size + head : end])
            del self.buffer[:end]
            try:
                getattr(self, "do_" + request["do"])(request, blob)
            except OSError as e:
                self.answer(request["id"], error=f"{e.strerror or e}", errno=e.errno or 0)

    def answer(self, to: int, blob: bytes = b"", **fields: Any) -> None:
        """Sends one frame back."""
        head = json.dumps({"id": to, **fields}, separators=(",", ":")).encode()
        data = HEADER.pack(len(head), len(blob)) + head + blob
        try:
            done = os.write(self.outgoing, data)
            if done < len(data):
                view = memoryview(data)
                while done < len(data):
                    done += os.write(self.outgoing, view[done:])
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> NoReturn:
        """The host is gone. Where this is process 1, the kernel ends everything else."""
        if self.me != 1:
            self._kill_all_but(set())
        os._exit(0)

    # programs

    def do_exec(self, request: dict[str, Any], blob: bytes) -> None:
        """Starts a program; the answer follows when it ends."""
        script, given = blob[: request["script"]], blob[request["script"] :]
        run = Run(request)
        opened: list[int] = []
        try:
            source = self.null
            if given:
                source = self._file(given)
                opened.append(source)
            if len(script) > _SCRIPT_BYTES and request["lang"] == "bash":
                run.script = f"{self.config['run']}/script-{os.urandom(8).hex()}"
                with open(run.script, "xb") as f:
                    f.write(script)
            out_read, out_write = os.pipe()
            opened += [out_read, out_write]
            err_read, err_write = os.pipe()
            opened += [err_read, err_write]
            pid = self._in_time(lambda: self._start(request, script, run.script, source, out_write, err_write))
        except OSError as e:
            for fd in opened:
                os.close(fd)
            self._forget_script(run)
            self._cannot_start(run, e)
            return
        for fd in opened:
            if fd not in (out_read, err_read):
                os.close(fd)
        run.out, run.err = self._stream(out_read, run), self._stream(err_read, run)
        self.programs[pid] = run
        self._watch_soon()

    def _cannot_start(self, run: Run, error: OSError, **more: Any) -> None:
        """For want of processes, memory or space, which what runs in here has used up: its own doing, so it is a result."""
        text = f"nothing could be started: {error.strerror or error}\n".encode()
        self.answer(
            run.id, text, status="error", code=None, out=0, total_out=0, total_err=len(text), wall=0.0, cpu=None, **more
        )

    @staticmethod
    def _forget_script(run: Run) -> None:
        if run.script:
            with contextlib.suppress(OSError):
                os.unlink(run.script)

    def _in_time(self, start: Callable[[], int]) -> int:
        """Starts a process; where all that there may be have just been killed, as soon as the kernel has let go of them."""
        end = time.monotonic() + _ROOM_S
        while True:
            try:
                return start()
            except BlockingIOError:  # too many processes; killed ones count until they are gone and reaped
                if time.monotonic() > end:
                    raise
            self._reap()
            time.sleep(0.002)

    def _start(self, request: dict[str, Any], script: bytes, path: str, source: int, out: int, err: int) -> int:
        """The pid of a new process that becomes the program."""
        if request["lang"] == "bash" and not request["argv"] and os.posix_spawn in _SPAWNS:
            # This process is large, and a fork copies its page tables only for an exec to drop them. The shell sets its own
            # limits: they are lowered, so nothing can be undone.
            cpu = f"ulimit -t {int(request['cpu_s'])}; " if request["cpu_s"] else ""
            cwd = 'cd -- "$1" || exit 126; shift; ' if request["cwd"] else ""
            first = "echo 1000 >/proc/self/oom_score_adj; " if self.config["first_victim"] else ""
            what = 'exec bash --noprofile --norc "$1"' if path else 'eval "shift; $1"'
            setting = f"ulimit -n {self.config['nofile']}; {cpu}{first}{cwd}{what}"
            words = ["bash", "--noprofile", "--norc", "-c", setting, "bash"]
            if request["cwd"]:
                words.append(request["cwd"])
            words.append(path or script.decode(errors="surrogateescape"))
            return os.posix_spawn(
                "/bin/bash",
                words,
                {**os.environ, **request["env"]},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate((source, out, err))],
                setsid=True,
                setsigdef=[2, 13, 17, 25],
            )
        pid = self.fork()
        if pid == 0:
            self._become(request, script, path, source, out, err)
        return pid

    def _file(self, data: bytes) -> int:
        """An unnamed file that holds ``data``, open for reading from its start."""
        fd = os.open(self.config["run"], os.O_TMPFILE | os.O_RDWR, 0o600)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _stream(self, fd: int, run: Run) -> Stream:
        os.set_blocking(fd, False)
        stream = Stream(fd, run.keep)
        stream.run = run
        self.handlers[fd] = lambda: self._readable(stream)
        self.poll.register(fd, select.EPOLLIN | select.EPOLLET)
        return stream

    def _readable(self, stream: Stream) -> None:
        run = stream.run
        if stream.fd < 0 or (run is None and not stream.retired):
            return
        if stream.drain():
            self.again.append(stream)
        if stream.retired:
            if stream.ended:
                self._shut(stream)
        elif run is not None and run.status == "ok" and run.out.total + run.err.total > run.most:
            run.status = "output"
            self._end_processes_of(run)

    def _shut(self, stream: Stream) -> None:
        self.handlers.pop(stream.fd, None)
        self.poll.unregister(stream.fd)
        os.close(stream.fd)
        stream.fd = -1

    def _retire(self, stream: Stream) -> None:
        """Its turn is over. What a background job still writes is read and dropped, so that the job does not hang."""
        if stream.ended:
            self._shut(stream)
        else:
            stream.keep, stream.retired = 0, True
            self._readable(stream)

    def _become(self, request: dict[str, Any], script: bytes, path: str, source: int, out: int, err: int) -> NoReturn:
        """The child: turns into the program. Never returns."""
        try:
            self._prepare_child([source, out, err], request["cpu_s"])
            os.chdir(request["cwd"] or self.config["workspace"])
            if request["argv"] or request["lang"] == "bash":
                _as_executed()
            if request["argv"]:
                os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request["env"]})
            if request["lang"] == "bash":
                tail = [path] if path else ["-c", script.decode(errors="surrogateescape")]
                os.execve("/bin/bash", ["bash", "--noprofile", "--norc", *tail], {**os.environ, **request["env"]})
            if request["env"]:
                os.environ.update(request["env"])
            run_python_script(script)
        except BaseException as e:
            os.write(2, f"{request['argv'][0] if request['argv'] else request['lang']}: {e}\n".encode())
        os._exit(127)

    def _prepare_child(self, fds: list[int], cpu_s: int | None = None) -> None:
        """Its fds and nothing else open, signals as a program expects them, limits of its own."""
        for target, fd in enumerate(fds):  # no source is 0, 1 or 2, and a fourth comes last: none is overwritten too early
            os.dup2(fd, target, inheritable=target < 3)
        os.closerange(len(fds), 1 << 20)
        os.setsid()
        # the module in C: the one in Python wraps numbers in enums, which costs a child dozens of page faults
        _signal.set_wakeup_fd(-1)
        _signal.signal(17, _signal.SIG_DFL)  # SIGCHLD
        _signal.signal(2, _signal.default_int_handler)
        nofile = self.config["nofile"]
        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
        if cpu_s:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        hook = self.config.get("child")
        if hook is not None:
            hook()
        if self.config["first_victim"]:
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, b"1000")
            os.close(fd)

    def _finish(self, run: Run, code: int | None, cpu: float | None, **more: Any) -> None:
        run.out.drain()
        run.err.drain()
        status = run.status
        if status == "ok" and code == -signal.SIGKILL:
            status = "oom" if self._out_of_memory() else "killed"
        out, err = bytes(run.out.kept), bytes(run.err.kept)
        self.answer(
            run.id,
            out + err,
            status=status,
            code=code,
            out=len(out),
            total_out=run.out.total,
            total_err=run.err.total,
            wall=time.monotonic() - run.start,
            cpu=cpu,
            **more,
        )

    def _out_of_memory(self) -> bool:
        """Whether the kernel has killed something in here for want of memory since the last question, if that can be read."""
        count = 0
        for path in self.config.get("memory_events", ()):
            with contextlib.suppress(OSError, ValueError, IndexError), open(path, "rb") as f:
                words = f.read().split()
                count = int(words[words.index(b"oom_kill") + 1])
        more, self.memory_kills = count > self.memory_kills, count
        return more

    def _reap(self) -> None:
        try:
            while os.read(self.wake, 4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            run = self.programs.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            if run is not None:
                self._finish(run, code, usage.ru_utime + usage.ru_stime)
                self._retire(run.out)
                self._retire(run.err)
                self._forget_script(run)
                continue
            for number, session in list(self.sessions.items()):
                if session.pid == pid:
                    self._session_over(number, session, code)

    # time and memory

    def _overdue(self) -> None:
        now = time.monotonic()
        for run in list(self._runs()):
            if now < run.deadline:
                continue
            session = self._session_of(run)
            if session is not None and run.status in ("ok", "interrupted"):
                run.status = "timeout"
                run.deadline = now + _GRACE_S
                self._signal(session, signal.SIGINT)
                continue
            if run.status == "ok":
                run.status = "timeout"
            run.deadline = now + 3600
            self._end_processes_of(run)

    def _session_of(self, run: Run) -> Session | None:
        return next((s for s in self.sessions.values() if s.run is run), None)

    def _end_processes_of(self, run: Run) -> None:
        """Kills everything that does not belong to a live session or another program.

        Descent is what decides: a process that left its parent to hide belongs to nobody and goes too.
        """
        spare = {pid for pid, other in self.programs.items() if other is not run}
        spare |= {session.pid for session in self.sessions.values() if session.run is not run}
        self._kill_all_but(spare)

    def _processes(self) -> dict[int, int]:
        """pid -> parent of every living process but this one."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == self.me:
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as f:
                    fields = f.read().rsplit(b")", 1)[1].split()
            except OSError:
                continue
            if fields[0] not in (b"Z", b"X"):
                found[int(name)] = int(fields[1])
        return found

    def _kill_all_but(self, spare: set[int]) -> None:
        """Kills the descendants of this process, which adopts orphans, save those of the processes named."""
        for round_ in range(40):
            parents = self._processes()
            fate: dict[int, bool] = {self.me: True, 0: False, **dict.fromkeys(spare, False)}
            for start in parents:
                trail, pid = [], start
                while pid not in fate and pid in parents:
                    trail.append(pid)
                    pid = parents[pid]
                fate.update(dict.fromkeys(trail, fate.get(pid, False)))
            victims = [pid for pid in parents if fate[pid]]
            if not victims:
                return
            if round_ > 30 and self.me == 1:  # it forks faster than we find it
                victims = [-1]
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue
            time.sleep(0.0005)

    def _watch_soon(self) -> None:
        if self.config["memory"] or self.config.get("inodes"):
            self.watch_at = time.monotonic() + _WATCH_BUSY_S

    def _watch(self) -> None:
        """Adds up the memory of all processes and files; past the limit everything but this process is killed."""
        limit = self.config["memory"]
        busy = any(True for _ in self._runs())
        page = os.sysconf("SC_PAGE_SIZE")
        places = [os.statvfs(place) for place in self.config["counted"]]
        if 0 < self.config.get("inodes", 0) < sum(s.f_files - s.f_ffree for s in places):
            self._kill_all_but(set())
        files = sum((s.f_blocks - s.f_bfree) * s.f_frsize for s in places)
        rough, pids = files, []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != self.me:
                try:
                    with open(f"/proc/{name}/statm", "rb") as f:
                        resident = int(f.read().split()[1]) * page
                except OSError:
                    continue
                if resident:
                    rough += resident
                    pids.append((name, resident))
        pause = _WATCH_BUSY_S if busy else _WATCH_IDLE_S
        if rough > limit > 0:
            exact = files + sum(self._proportional(name, resident) for name, resident in pids)
            if exact > limit:
                for run in self._runs():
                    if run.status == "ok":
                        run.status = "oom"
                self._kill_all_but(set())
            elif exact < limit * 0.7:
                pause = max(pause, 0.05)
        self.watch_at = time.monotonic() + pause if pids or busy else 0.0

    @staticmethod
    def _proportional(name: str, otherwise: int) -> int:
        """Bytes of a process that are not file pages, shared ones split among those who share them."""
        total = 0
        try:
            with open(f"/proc/{name}/smaps_rollup", "rb") as f:
                for line in f:
                    if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
                        total += int(line.split()[1]) << 10
        except OSError:
            return otherwise
        return total

    # sessions

    def do_open(self, request: dict[str, Any], blob: bytes) -> None:
        """Starts a session and says its number."""
        self.opened += 1
        number, kind = self.opened, request["lang"]
        place = f"{self.config['run']}/{number}-{os.urandom(4).hex()}"  # not to be made by somebody else beforehand
        os.mkdir(place, 0o700)
        env = {**os.environ, **request["env"]}
        if kind == "bash":
            line_read, line_write = os.pipe()
            theirs, ours = line_read, line_write
            os.set_blocking(ours, False)
            os.mkfifo(place + "/r", 0o600)
            # two lines for each turn, since an interrupt drops the rest of the first. The outputs are closed before the report.
            # The shell reads its lines byte by byte, so they are short and name these files.
            with open(place + "/a", "w") as f:
                f.write(f"exec >{place}/o 2>{place}/e\n. {place}/code </dev/null\n")
            with open(place + "/b", "w") as f:
                f.write(f"_agentgym=$?\nexec >/dev/null 2>&1\nprintf '%d %d\\n' $1 $_agentgym >{place}/r\n")
        else:
            a, b = socket.socketpair()
            theirs, ours = a.detach(), b.detach()
        try:
            pid = self._in_time(self.fork)
        except OSError as e:
            os.close(theirs)
            os.close(ours)
            self._forget_place(place)
            self.answer(request["id"], error=f"no process could be started: {e.strerror}", errno=e.errno or 0, busy=True)
            return
        if pid == 0:
            try:
                if kind == "bash":
                    self._prepare_child([theirs, self.null, self.null])
                    os.chdir(self.config["workspace"])
                    env.update(PS1="", PS2="", HISTFILE="")
                    _as_executed()
                    # interactive, without a terminal: an interrupt then drops the running commands, not the shell
                    os.execve("/bin/bash", ["bash", "--noprofile", "--norc", "--noediting", "-i"], env)
                self._prepare_child([self.null, self.null, self.null, theirs])
                os.chdir(self.config["workspace"])
                os.environ.update(request["env"])
                serve_python_session(3, place)
            except BaseException:
                pass
            os._exit(127)
        os.close(theirs)
        session = Session(kind, place, pid, ours)
        self.sessions[number] = session
        if kind == "bash":
            # open for writing too, so that it never reads as ended
            session.report = os.open(place + "/r", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            watched = session.report
        else:
            os.set_blocking(ours, False)
            watched = ours
        self.handlers[watched] = lambda: self._reported(number, session)
        self.poll.register(watched, select.EPOLLIN)
        self._watch_soon()
        self.answer(request["id"], session=number)

    def do_turn(self, request: dict[str, Any], blob: bytes) -> None:
        """Gives a session its next code; the answer follows when that is done."""
        session = self.sessions.get(request["session"])
        if session is None:
            self.answer(request["id"], error="this session has ended", over=True)
            return
        if session.run is not None:
            self.answer(request["id"], error="this session is busy with another turn")
            return
        run = Run(request)
        session.turn += 1
        try:
            message = self._prepare_turn(session, run, blob)
        except OSError as e:  # what runs in here has filled or replaced what a session needs: its own doing, and its end
            self._cannot_start(run, e, over=True)
            with contextlib.suppress(OSError):
                os.kill(session.pid, signal.SIGKILL)
            return
        session.run = run
        with contextlib.suppress(OSError):  # it has just died: its end is about to be reaped, and ends the turn
            os.write(session.control, message)
        self._watch_soon()

    def _prepare_turn(self, session: Session, run: Run, blob: bytes) -> bytes:
        """Pipes and code for a turn; what the session is to be told."""
        session.out = run.out = session.out or self._named_pipe(session, "o")
        session.err = run.err = session.err or self._named_pipe(session, "e")
        run.out.reset(run)
        run.err.reset(run)
        place, turn = session.place, session.turn
        if session.kind == "python" and len(blob) <= _INLINE:
            return _TURN.pack(turn, len(blob)) + blob
        # not to wait for ever, should what runs in here have put a pipe there
        fd = os.open(place + "/code", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            view = memoryview(blob)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        return _TURN.pack(turn, -1) if session.kind == "python" else f". {place}/a\n. {place}/b {turn}\n".encode()

    def _named_pipe(self, session: Session, name: str) -> Stream:
        """A pipe by name, new where a job of an earlier turn still holds the old one: that one's output stays apart."""
        path = f"{session.place}/{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        stream = Stream(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), 0)
        self.handlers[stream.fd] = lambda: self._readable(stream)
        self.poll.register(stream.fd, select.EPOLLIN | select.EPOLLET)
        return stream

    def _reported(self, number: int, session: Session) -> None:
        """A session says something: that its turn is over, if it speaks the truth. It can only harm itself."""
        fd = session.control if session.kind == "python" else session.report
        try:
            data = os.read(fd, 4096)
        except (BlockingIOError, ConnectionResetError):
            return
        if not data:
            self.handlers.pop(fd, None)
            self.poll.unregister(fd)
            return
        if session.run is None:
            return
        if session.kind == "python":
            for at in range(0, len(data) - _TURN.size + 1, _TURN.size):
                turn, code = _TURN.unpack_from(data, at)
                if turn == session.turn:
                    self._turn_over(session, code)
                    return
            return
        for line in data.split(b"\n"):
            word, _, rest = line.partition(b" ")
            if word == b"%d" % session.turn:
                self._turn_over(session, int(rest) if rest.isdigit() and len(rest) < 4 else 1)
                return

    def _turn_over(self, session: Session, code: int | None, **more: Any) -> None:
        run = session.run
        if run is None:
            return
        self._finish(run, code, None, **more)
        session.run = run.out.run = run.err.run = None
        if not run.out.ended:  # a background job goes on writing there
            session.out = None
            self._retire(run.out)
        if not run.err.ended:
            session.err = None
            self._retire(run.err)

    def _session_over(self, number: int, session: Session, code: int) -> None:
        del self.sessions[number]
        if session.run is not None:
            self._turn_over(session, code, over=True)
        for fd in (session.control, session.report):
            if fd >= 0:
                if self.handlers.pop(fd, None):
                    self.poll.unregister(fd)
                os.close(fd)
        for stream in (session.out, session.err):
            if stream is not None:
                self._retire(stream)
        self._forget_place(session.place)

    @staticmethod
    def _forget_place(place: str) -> None:
        for name in ("o", "e", "r", "a", "b", "code"):
            try:
                os.unlink(f"{place}/{name}")
            except OSError:
                continue
        with contextlib.suppress(OSError):
            os.rmdir(place)

    def _signal(self, session: Session, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(session.pid, number)

    def do_interrupt(self, request: dict[str, Any], blob: bytes) -> None:
        """As Ctrl-C in a terminal would: what runs in the foreground of a session ends, the session stays."""
        session = self.sessions.get(request["session"])
        busy = session is not None and session.run is not None
        if session is not None and session.run is not None:
            if session.run.status == "ok":
                session.run.status = "interrupted"
            self._signal(session, signal.SIGINT)
        self.answer(request["id"], busy=busy)

    def do_end(self, request: dict[str, Any], blob: bytes) -> None:
        """Ends a session and what descends from it."""
        session = self.sessions.get(request["session"])
        if session is not None:
            spare = set(self.programs) | {s.pid for s in self.sessions.values() if s is not session}
            with contextlib.suppress(OSError):
                os.kill(session.pid, signal.SIGSTOP)
            members = self._descendants(session.pid)
            for pid in [session.pid, *members]:
                if pid not in spare:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        continue
        self.answer(request["id"])

    def _descendants(self, of: int) -> list[int]:
        parents = self._processes()
        found, changed = {of}, True
        while changed:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            changed = bool(more)
        return sorted(found - {of})

    def do_kill(self, request: dict[str, Any], blob: bytes) -> None:
        """Ends every process in here but this one."""
        self._kill_all_but(set())
        self.answer(request["id"])

    def do_ping(self, request: dict[str, Any], blob: bytes) -> None:
        """Says that it lives, and how many processes there are."""
        self.answer(request["id"], processes=len(self._processes()), sessions=len(self.sessions))

    # files

    def _path(self, request: dict[str, Any]) -> str:
        workspace: str = self.config["workspace"]
        return os.path.join(workspace, request["path"].encode("latin-1").decode(errors="surrogateescape"))

    def do_put(self, request: dict[str, Any], blob: bytes) -> None:
        """Writes one file, or a piece of it at the end."""
        path = self._path(request)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        flags = os.O_APPEND if request["more"] else os.O_TRUNC
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | flags, request["mode"])
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(0, "it is not a plain file")
            view = memoryview(blob)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, request["mode"])
        finally:
            os.close(fd)
        self.answer(request["id"])

    def do_get(self, request: dict[str, Any], blob: bytes) -> None:
        """A piece of one plain file."""
        fd = os.open(self._path(request), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is not a plain file")
            data = os.pread(fd, min(PIECE, request["most"]), request["offset"])
        finally:
            os.close(fd)
        self.answer(request["id"], data, size=status.st_size)

    def do_tree(self, request: dict[str, Any], blob: bytes) -> None:
        """The workspace, in pieces: entries ``[path, kind, mode, size]`` in an order in which they can be made."""
        frozen = request["freeze"] and self.me == 1
        if frozen:
            self._signal_all(signal.SIGSTOP)
        try:
            self._send_tree(request)
        finally:
            if frozen:
                self._signal_all(signal.SIGCONT)

    @staticmethod
    def _signal_all(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)

    def _send_tree(self, request: dict[str, Any]) -> None:
        entries: list[list[Any]] = []
        data = bytearray()
        for entry, content in walk(self.config["workspace"], request["files"], request["bytes"], request["depth"]):
            entries.append(entry)
            data += content
            if len(data) >= PIECE or len(entries) >= 2000:
                self.answer(request["id"], bytes(data), entries=entries, more=True)
                entries, data = [], bytearray()
        self.answer(request["id"], bytes(data), entries=entries, more=False)

    def do_fill(self, request: dict[str, Any], blob: bytes) -> None:
        """Makes entries, as `do_tree` gave them, in the workspace."""
        unpack(self.config["workspace"], request["entries"], memoryview(blob))
        self.answer(request["id"])


def walk(root: str, most_files: int, most_bytes: int, most_depth: int) -> Iterator[tuple[list[Any], bytes]]:
    """Every entry below ``root`` as ``[path, kind, mode, size]`` with its content, folders before what they hold.

    ``path`` is relative, its bytes as latin-1 text. Kinds: ``d``, ``f``, ``l`` (the content is where it points) and
    ``-`` for what is refused (the content is the reason): what is no plain file, too deep, too large, or one too many. A
    file longer than `PIECE` goes on in entries of kind ``+``, which follow it: a frame holds no more than the host takes.
    """
    count, total = 0, 0
    todo: list[tuple[bytes, int]] = [(b"", 0)]
    base = os.fsencode(root)
    while todo:
        folder, depth = todo.pop()
        try:
            names = sorted(os.listdir(base + b"/" + folder))
        except OSError as e:
            yield _refused(folder, e.strerror or "it cannot be read")
            continue
        below: list[tuple[bytes, int]] = []
        for name in names:
            path = folder + b"/" + name if folder else name
            count += 1
            if count > most_files:
                yield _refused(path, f"more than {most_files} entries; the rest is left out")
                return
            full = base + b"/" + path
            try:
                status = os.lstat(full)
                mode = stat.S_IMODE(status.st_mode)
                if stat.S_ISDIR(status.st_mode):
                    if depth + 1 >= most_depth:
                        yield _refused(path, f"deeper than {most_depth} folders")
                        continue
                    below.append((path, depth + 1))
                    yield [path.decode("latin-1"), "d", mode, 0], b""
                elif stat.S_ISLNK(status.st_mode):
                    target = os.readlink(full)
                    yield [path.decode("latin-1"), "l", mode, len(target)], target
                elif not stat.S_ISREG(status.st_mode):
                    yield _refused(path, "it is no plain file")
                elif status.st_size > most_bytes - total:
                    yield _refused(path, f"more than {most_bytes} bytes in all")
                else:
                    fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                    try:
                        for kind, content in _pieces(fd, most_bytes - total):
                            total += len(content)
                            yield [path.decode("latin-1"), kind, mode, len(content)], content
                    finally:
                        os.close(fd)
            except OSError as e:
                yield _refused(path, e.strerror or "it cannot be read")
        todo.extend(reversed(below))


def _refused(path: bytes, why: str) -> tuple[list[Any], bytes]:
    reason = why.encode()
    return [path.decode("latin-1"), "-", 0, len(reason)], reason


def _pieces(fd: int, most: int) -> Iterator[tuple[str, bytes]]:
    """A plain file, as long as it was when it was opened: it may grow while it is read."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no plain file")
    left, kind = min(most, status.st_size), "f"
    while True:
        content = os.read(fd, min(left, PIECE))
        left -= len(content)
        if content or kind == "f":
            yield kind, content
        if not content or left <= 0:
            return
        kind = "+"


def unpack(root: str, entries: list[list[Any]], data: memoryview) -> None:
    """Makes what `walk` told of, below ``root``. The caller stands where no path can lead anywhere it should not."""
    at = 0
    base = os.fsencode(root)
    for path, kind, mode, size in entries:
        full = base + b"/" + path.encode("latin-1")
        content = data[at : at + size]
        at += size
        if kind == "d":
            os.mkdir(full, mode | 0o700)
        elif kind == "l":
            os.symlink(bytes(content), full)
        elif kind in ("f", "+"):
            if kind == "+":
                os.chmod(full, 0o600)  # the mode it has already may not let it be written
            flags = os.O_CREAT | os.O_EXCL if kind == "f" else os.O_APPEND
            fd = os.open(full, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o600)
            try:
                while content:
                    content = content[os.write(fd, content) :]
                os.fchmod(fd, mode)
            finally:
                os.close(fd)


def _as_executed() -> None:
    """What Python ignores, and other programs do not expect to find ignored."""
    _signal.signal(13, _signal.SIG_DFL)  # SIGPIPE
    _signal.signal(25, _signal.SIG_DFL)  # SIGXFSZ


# running Python


def open_standard_streams() -> None:
    """Opens `sys.stdin`, `stdout` and `stderr` as programs want them, over pipes, as which all of them will be used.

    Done once, before any child is made: what a child does itself it pays for page by page.
    """
    kept = [os.dup(fd) for fd in range(3)]
    read, write = os.pipe()
    os.dup2(read, 0), os.dup2(write, 1), os.dup2(write, 2)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    for fd in range(3):
        os.dup2(kept[fd], fd)
        os.close(kept[fd])
    os.close(read)
    os.close(write)


_OURS = open_standard_streams.__code__.co_filename
"""This file, as tracebacks name it; in a container there is no such file."""


def _as_main(name: str) -> types.ModuleType:
    """A fresh ``__main__``, and nothing of the sandbox's own modules left to import by accident."""
    modules = sys.modules
    for module in ("_guest", "_groups", "_linux", "_notify", "_observer", "_seccomp", "_watch"):
        modules.pop(module, None)
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    modules["__main__"] = main
    sys.argv[:] = [name]
    sys.path.insert(0, os.getcwd())
    if "random" in modules:  # a fork has its parent's: no two runs draw the same
        modules["random"].seed()
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    return main


def _execute(code: bytes, name: str, scope: dict[str, Any]) -> int:
    """Runs code; the exit code that an interpreter would have. Tracebacks show the code's own frames and lines."""
    try:
        exec(compile(code, name, "exec", dont_inherit=True), scope)
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return (e.code or 0) & 255
        sys.stderr.write(f"{e.code}\n")
        return 1
    except BaseException as e:
        try:
            shown = e.__traceback__
            while shown is not None and shown.tb_frame.f_code.co_filename == _OURS:
                shown = shown.tb_next
            text = code.decode("utf-8-sig", errors="replace")
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            traceback.print_exception(type(e), e, shown)
        except BaseException:  # an exception that cannot be shown
            sys.stderr.write(type(e).__name__ + "\n")
        return 130 if isinstance(e, KeyboardInterrupt) else 1
    return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]
        except BaseException:
            continue


def run_python_script(code: bytes) -> NoReturn:
    """Runs ``code`` as a script in this process and ends it."""
    main = _as_main("main.py")
    result = _execute(code, "main.py", main.__dict__)
    try:
        modules = sys.modules
        threading = modules.get("threading")
        if threading is not None and (len(threading._active) > 1 or threading._threading_atexits):
            threading._shutdown()
        if "atexit" in modules:
            modules["atexit"]._run_exitfuncs()
    except BaseException:
        result = result or 1
    _flush()
    os._exit(result)


def serve_python_session(control: int, place: str) -> NoReturn:
    """Runs the code of each turn in one namespace; says its exit code on ``control`` when it is done."""
    main = _as_main("")
    me, length = os.getpid(), len  # the code may replace builtins
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)

    def idle(number: int, frame: types.FrameType | None) -> None:
        """Between turns an interrupt has nothing to end. (A function: children do not inherit it, unlike SIG_IGN.)"""

    ours: Any = signal.default_int_handler
    signal.signal(signal.SIGINT, idle)
    while True:
        try:
            message = os.read(control, _TURN.size + _INLINE)
        except BaseException:
            continue
        if not message:
            os._exit(0)
        turn, size = _TURN.unpack_from(message)
        for name, target in (("/o", 1), ("/e", 2)):
            fd = os.open(place + name, os.O_WRONLY)
            os.dup2(fd, target)
            os.close(fd)
        if size < 0:
            with open(place + "/code", "rb") as f:
                code = f.read()
        else:
            code = message[_TURN.size :]
            while length(code) < size:
                code += os.read(control, size - length(code))
        result = 130
        try:
            signal.signal(signal.SIGINT, ours)
            result = _execute(code, f"<turn {turn}>", main.__dict__)
            ours = signal.signal(signal.SIGINT, idle)  # the code may have set one of its own
        except BaseException:  # an interrupt at the very end
            signal.signal(signal.SIGINT, idle)
        _flush()
        if os.getpid() != me:  # the code forked and the child came back here
            os._exit(result)
        os.dup2(null, 1), os.dup2(null, 2)
        os.write(control, _TURN.pack(turn, result))


# inside a container


BOOT = """
import sys
source = b""
while len(source) < int(sys.argv[1]):
    piece = sys.stdin.buffer.raw.read(int(sys.argv[1]) - len(source))
    if not piece:  # the host is gone already
        sys.exit(1)
    source += piece
import json, marshal
guest = type(sys)("_guest")
sys.modules["_guest"] = guest
exec(compile(source, "_guest.py", "exec") if source[:1] == b"#" else marshal.loads(source), guest.__dict__)
guest.serve_container(json.loads(sys.argv[2]))
"""
"""The program that takes this file from standard input and serves: its text, or its code where the interpreters are the same.
Arguments: the length of that, and the configuration."""


def serve_container(config: dict[str, Any]) -> NoReturn:
    """As process 1 of a container, whose standard streams are the way to the host. Its text was sent as the program."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.prctl(4, ctypes.c_ulong(0), 0, 0, 0)  # not to be looked into by what runs under the same user
    incoming, outgoing = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.umask(0o022)
    for name, value in config.get("rlimits", {}).items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    for module in config["preimport"]:
        with contextlib.suppress(ImportError):
            __import__(module)
    if "atexit" in sys.modules:
        sys.modules["atexit"]._clear()
    open_standard_streams()
    config["child"] = lambda: libc.prctl(4, ctypes.c_ulong(1), 0, 0, 0)
    guest = Guest(incoming, outgoing, config)
    guest.answer(0, ready=True)
    guest.serve()
    os._exit(0)


# outside of any sandbox


def serve_unsafely(channel: int, config: dict[str, Any]) -> NoReturn:
    """As an ordinary process that adopts what its descendants leave behind, so that it can end them."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, ctypes.c_ulong(1), 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    os.set_inheritable(channel, False)
    open_standard_streams()
    guest = Guest(channel, channel, config)
    guest.answer(0, ready=True)
    guest.serve()
    os._exit(0)
