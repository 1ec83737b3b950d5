"""The steps of the main job as SVG: light, or dark where the reader's system is dark."""

from __future__ import annotations

import base64

_STYLE = """
  .panel { fill: #f6f8fa; stroke: #d0d7de }
  .step { fill: #ffffff; stroke: #1f6f8b; stroke-width: 1.5 }
  .side { fill: none; stroke: #8c959f; stroke-dasharray: 4 3 }
  .line { stroke: #57606a; stroke-width: 1.5; fill: none }
  .head { fill: #57606a }
  .name { fill: #0b4f66; font: 600 14px ui-monospace, Menlo, Consolas, monospace }
  .text { fill: #24292f; font: 13px system-ui, sans-serif }
  .note { fill: #57606a; font: 12px system-ui, sans-serif }
  .floats { fill: #1f6f8b }
  @media (prefers-color-scheme: dark) {
    .panel { fill: #161b22; stroke: #30363d }
    .step { fill: #0d1117; stroke: #58a6c7 }
    .side { stroke: #6e7681 }
    .line { stroke: #8b949e }
    .head { fill: #8b949e }
    .name { fill: #79c9e8 }
    .text { fill: #e6edf3 }
    .note { fill: #8b949e }
    .floats { fill: #58a6c7 }
  }
"""
_WIDTH, _HEIGHT = 960, 300
_TOP, _STEP_WIDTH, _STEP_HEIGHT = 48, 178, 104
_STEPS = (
    ("ReadRadiographs", ("read, decode, render", "to grey values"), 176),
    ("EmbedRadiographs", ("resize,", "run the model"), 394),
    ("WriteRecords", ("one .tfrecord", "per image"), 612),
)
# Heights of the bars that stand for an embedding: any numbers look the part.
_BARS = (22, 9, 31, 14, 40, 6, 27, 18, 36, 11, 24, 33, 8, 29)


def drawing(thumbnail: bytes) -> str:
    """Draws the pipeline.

    Args:
        thumbnail: a square radiograph as JPEG.

    Returns:
        An SVG document.
    """
    picture = base64.b64encode(thumbnail).decode()
    middle = _TOP + _STEP_HEIGHT // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="Radiographs are read, embedded and written as records; each image has one '
        'row in the run tables">',
        f"<style>{_STYLE}</style>",
        f'<rect class="panel" x="1" y="1" width="{_WIDTH - 2}" height="{_HEIGHT - 2}" rx="10"/>',
        f'<image x="24" y="{_TOP}" width="104" height="104" '
        f'href="data:image/jpeg;base64,{picture}"/>',
        _text("text", 76, _TOP + 124, "DICOM, PNG, JPEG"),
        _arrow(134, middle, 170),
    ]
    for name, lines, left in _STEPS:
        centre = left + _STEP_WIDTH // 2
        bottom = _TOP + _STEP_HEIGHT
        parts += [
            f'<rect class="step" x="{left}" y="{_TOP}" width="{_STEP_WIDTH}" '
            f'height="{_STEP_HEIGHT}" rx="8"/>',
            _text("name", centre, _TOP + 34, name),
            *(_text("text", centre, _TOP + 62 + 20 * row, line) for row, line in enumerate(lines)),
            _arrow(left + _STEP_WIDTH + 6, middle, left + _STEP_WIDTH + 34),
            f'<path class="line" d="M{centre} {bottom + 6}V220"/>',
            f'<path class="head" d="M{centre - 5} 219h10l-5 9z"/>',
        ]
    for index, height in enumerate(_BARS):
        parts.append(
            f'<rect class="floats" x="{834 + 7 * index}" y="{middle - height}" width="4" '
            f'height="{2 * height}"/>'
        )
    parts += [
        _text("text", 881, _TOP + 124, "embedding"),
        '<rect class="side" x="176" y="232" width="614" height="42" rx="8"/>',
        _text("text", 483, 258, "run tables: each image is embedded, skipped or failed, and why"),
        _text("note", 592, _TOP - 14, "pixels stay in one process"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text(kind: str, x: int, y: int, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{text}</text>'


def _arrow(start: int, y: int, end: int) -> str:
    return (
        f'<path class="line" d="M{start} {y}H{end - 8}"/>'
        f'<path class="head" d="M{end - 9} {y - 5}v10l9-5z"/>'
    )
