# SPDX-License-Identifier: Apache-2.0
"""Pictures: what is known without decoding one (its kind, its size in bytes and pixels), and one in blocks of colour."""

from __future__ import annotations

import importlib.util
import io
import itertools
import struct

from agentgym.report.text import one_line
from agentgym.tui.document import LABEL, WIDE, WIDE_LABEL, Block
from agentgym.tui.widgets.paint import Line, Piece

MOST_PIXELS = 16_000_000
"""Of a picture that is decoded: half a second of it."""
MOST_LINES = 30
"""Lines that one takes, two rows of dots each."""
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_GROUND = (128, 128, 128, 255)
"""What shows through: one can see both black and white drawings on it."""


class PictureBlock(Block):
    """A line about a picture; Enter shows the picture below it, which nothing decodes before.

    Args:
        label: see `Block`.
        mime: the media type that it was given with.
        data: the encoded file.
        turn: see `Block`.
        kind: see `Block`.
    """

    __slots__ = ("data",)

    def __init__(self, label: Piece, mime: str, data: bytes, *, turn: int, kind: str) -> None:
        super().__init__(label, f"[{picture(mime, data)}]", "muted", turn=turn, fold=0, kind=kind)
        self.data = data

    def layout(self, width: int) -> int:
        """The line, and the picture where it is opened."""
        if width != self.width:
            room = max(width - (WIDE_LABEL if width >= WIDE else LABEL) - 3, 8)
            head: Line = [(one_line(self.text, room), "muted")]
            if not self.opened:
                if len(self.text) + 16 <= room:
                    head.append(("  ▸ Enter shows it", "link"))
                self.lines = [head]
            else:
                try:
                    self.lines = [head, *blocks(self.data, room)]
                except ValueError as e:
                    self.lines = [head, [(one_line(f"({e})", room), "warn")]]
            self.width = width
        return len(self.lines)

    def toggle(self) -> bool:
        """Shows it, or no more."""
        self.opened = not self.opened
        self.width = 0
        return True


def blocks(data: bytes, width: int) -> list[Line]:
    """A picture of at most ``width`` cells in upper half blocks, two dots a cell: one in its colour, the other behind it.

    Raises:
        ValueError: it cannot be shown; the text says why.
    """
    if importlib.util.find_spec("PIL") is None:
        raise ValueError("pip install pillow, and it is shown")
    from PIL import Image

    size = pixels(data)
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"of more than {MOST_PIXELS:,} pixels: not shown")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:  # where the head was not read above
                raise ValueError(f"of more than {MOST_PIXELS:,} pixels: not shown")
            scale = min(1.0, width / image.width, 2 * MOST_LINES / image.height)
            shape = max(1, int(image.width * scale)), max(1, int(image.height * scale))
            image.draft("RGB", shape)
            small = image.convert("RGBA").resize(shape, Image.Resampling.BOX)
    except ValueError:
        raise
    except Exception as e:  # a decoder of a file that may hold anything raises many things
        raise ValueError(f"cannot be decoded: {type(e).__name__}") from e
    dots = Image.alpha_composite(Image.new("RGBA", shape, _GROUND), small).convert("RGB").tobytes()
    wide, high = shape
    rows = [dots[at : at + 3 * wide] for at in range(0, len(dots), 3 * wide)]
    if high % 2:
        rows.append(bytes(_GROUND[:3]) * wide)
    lines: list[Line] = []
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        cells = (f"#{above[i : i + 3].hex()} on #{below[i : i + 3].hex()}" for i in range(0, 3 * wide, 3))
        lines.append([("▀" * len(list(run)), style) for style, run in itertools.groupby(cells)])
    return lines


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
