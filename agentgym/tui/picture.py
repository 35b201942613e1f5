# SPDX-License-Identifier: Apache-2.0
"""What is known of a picture without decoding it: its kind, its size, how many pixels it says it has."""

from __future__ import annotations

import struct


def picture(mime: str, data: bytes) -> str:
    """A line about a picture.

    >>> picture("image/gif", b"GIF89a" + bytes([16, 0, 9, 0]) + bytes(10))
    'image image/gif, 16x9, 20 bytes'
    """
    size = pixels(data)
    return f"image {mime}, {f'{size[0]}x{size[1]}, ' if size else ''}{len(data):,} bytes"


def pixels(data: bytes) -> tuple[int, int] | None:
    """Width and height, from the head of a PNG, GIF, JPEG or lossy WebP file; None where it is none of these or broken."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return struct.unpack(">II", data[16:24])
        if data[:6] in (b"GIF87a", b"GIF89a"):
            return struct.unpack("<HH", data[6:10])
        if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8 ":
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
    except struct.error:
        pass
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """From the frame header (ITU-T T.81, B.2.2), whose marker is one of C0 to CF without C4, C8 and CC."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return None
