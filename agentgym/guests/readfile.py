# SPDX-License-Identifier: Apache-2.0
"""Files as other programs leave them: JSON, lines of JSON, archives; whole, cut off, or still being written."""

from __future__ import annotations

import gzip
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import zstandard

from agentgym.errors import DataError
from agentgym.guests.model import Remark

MOST = 1 << 30
"""Bytes, unpacked, beyond which one JSON value is not read: as objects it would be many times as large."""

_ZSTD = 93
"""Compression method of zip (APPNOTE 4.4.5), which Python's zipfile reads from 3.14 on."""


def opened(path: Path) -> IO[bytes]:
    """The file, unpacked where it is gzip."""
    file = path.open("rb")
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return cast("IO[bytes]", gzip.open(path))
    file.seek(0)
    return file


def parse(data: bytes) -> Any:
    """JSON; also with NaN, Infinity and lone surrogates, which Python's own writer puts into logs.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data.decode("utf-8", "replace"))


def document(path: Path) -> Any:
    """The one JSON value in a file.

    Raises:
        DataError: there is none, or it was cut off.
    """
    try:
        with opened(path) as file:
            data = file.read(MOST + 1)
        if len(data) > MOST:
            raise DataError(f"{path} is larger than {MOST >> 20} MB, too large for one JSON value")
        return parse(data)
    except (ValueError, RecursionError, OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path} is not one whole JSON value: {e}") from e


def lines(path: Path, remark: Remark) -> Iterator[tuple[int, Any]]:
    """Line number (from 1) and value of every line of JSON; what cannot be read is remarked and left out."""
    at = 0
    bad = 0
    try:
        with opened(path) as file:
            while line := file.readline(MOST + 1):
                at += 1
                if len(line) > MOST:
                    remark(f"line {at} is longer than {MOST >> 20} MB; nothing from there on was read")
                    break
                if not line.strip():
                    continue
                try:
                    yield at, parse(line)
                except (ValueError, RecursionError):
                    bad += 1
                    if not line.endswith(b"\n"):
                        remark(f"line {at} was cut off: the file was not written to its end, or still is being written")
                    elif bad <= 5:
                        remark(f"line {at} is not JSON")
    except (OSError, EOFError, zlib.error) as e:
        remark(f"the file ends early, after line {at}: {e}")
    if bad > 5:
        remark(f"{bad} lines are not JSON")


class Archive:
    """The members of a zip file; of one without a directory at its end, which a killed program leaves, those that are whole."""

    def __init__(self, path: Path, remark: Remark) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int, int]] = {}  # name -> method, where its data begin, their length
        try:
            with zipfile.ZipFile(path) as archive, path.open("rb") as file:
                for info in archive.infolist():
                    file.seek(info.header_offset)
                    head = file.read(30)
                    if len(head) < 30:
                        continue
                    start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
                    self._places[info.filename] = (info.compress_type, start, info.compress_size)
        except (zipfile.BadZipFile, OSError, ValueError) as e:
            self._scan()
            if not self._places:
                raise DataError(f"{path} cannot be read as a zip file: {e}") from e
            remark("the file has no directory at its end: it was cut off, or is still being written")

    def _scan(self) -> None:
        if self.path.stat().st_size > MOST:
            return
        data = self.path.read_bytes()
        at = data.find(b"PK\x03\x04")
        while at >= 0 and at + 30 <= len(data):
            flags, method = struct.unpack("<HH", data[at + 6 : at + 10])
            size, full = struct.unpack("<II", data[at + 18 : at + 26])
            n, extra = struct.unpack("<HH", data[at + 26 : at + 30])
            name = data[at + 30 : at + 30 + n].decode("utf-8", "replace")
            start = at + 30 + n + extra
            if size == 0xFFFFFFFF:  # zip64: both lengths stand in the extra field
                size = _long_size(data[at + 30 + n : start], full)
            following = data.find(b"PK\x03\x04", start)
            if flags & 8 or not size:  # the length stands behind the data: then up to what follows
                end = data.rfind(b"PK\x07\x08", start, following if following >= 0 else len(data))
                size = (end if end >= 0 else following if following >= 0 else len(data)) - start
            if start + size <= len(data):
                self._places[name] = (method, start, size)
            at = data.find(b"PK\x03\x04", max(start + size, at + 4))

    def names(self) -> list[str]:
        """Of the members, in the order in which they lie in the file."""
        return sorted(self._places, key=lambda n: self._places[n][1])

    def json(self, name: str) -> Any:
        """A member's value.

        Raises:
            DataError: it is damaged.
        """
        method, start, size = self._places[name]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                packed = file.read(size)
            if method == _ZSTD:
                # what it says of its length may be a lie
                with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as stream:
                    data = stream.read(MOST + 1)
                if len(data) > MOST:
                    raise ValueError("it is too large")
            elif method == zipfile.ZIP_DEFLATED:
                unpack = zlib.decompressobj(-15)
                data = unpack.decompress(packed, MOST)
                if not unpack.eof:
                    raise ValueError("it was cut off, or is too large")
            elif method == zipfile.ZIP_STORED:
                data = packed
            else:
                raise ValueError(f"compression method {method} is not known")
            return parse(data)
        except (ValueError, RecursionError, OSError, zlib.error, zstandard.ZstdError) as e:
            raise DataError(f"{self.path}: {name} is damaged: {e}") from e


def _long_size(extra: bytes, full: int) -> int:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1:
            place = at + 4 + (8 if full == 0xFFFFFFFF else 0)
            if place + 8 <= len(extra):
                return int(struct.unpack("<Q", extra[place : place + 8])[0])
        at += 4 + length
    return 0
