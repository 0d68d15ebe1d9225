"""Pictures with a palette: those of pages have few colors, and are a third of the size then."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Returns width, height, palette and the index of each pixel: rare colors get the nearest one.
_REDUCE = """async (source) => {
  const bitmap = await createImageBitmap(await (await fetch(source)).blob());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const image = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const pixels = new Uint32Array(image.data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const byCount = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  const distance = (one, two) => one.reduce((sum, part, at) => sum + (part - two[at]) ** 2, 0);
  const palette = [];
  for (const apart of [400, 0]) {  // first those that differ, so that no small mark loses its color
    for (const color of byCount.map(parts)) {
      if (palette.length === 256) break;
      if (palette.every((known) => distance(known, color) > apart)) palette.push(color);
    }
  }
  const places = new Map(byCount.map((pixel) => {
    const own = parts(pixel);
    const far = palette.map((color) => distance(color, own));
    return [pixel, far.indexOf(Math.min(...far))];
  }));
  const indices = Uint8Array.from(pixels, (pixel) => places.get(pixel));
  let text = "";
  for (let at = 0; at < indices.length; at += 8192) {
    text += String.fromCharCode(...indices.subarray(at, at + 8192));
  }
  return [bitmap.width, bitmap.height, palette, btoa(text)];
}"""


def small_png(page: Page, data: bytes) -> bytes:
    """Return the PNG picture *data* with at most 256 colors; *page* is a page that reduces them."""
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    width, height, palette, text = page.evaluate(_REDUCE, source)
    indices = base64.b64decode(text)
    rows = b"".join(b"\0" + indices[at * width : (at + 1) * width] for at in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colors = bytes(part for color in palette for part in color)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in (
            (b"IHDR", header), (b"PLTE", colors), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""),
        )
    )  # fmt: skip


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum
