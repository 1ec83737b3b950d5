"""Where a run's time goes: samples of all threads, as a flame graph that any browser shows.

Python itself is asked, a hundred times a second, what each of its threads is doing. That needs no
permission and no second process, and costs the run about one part in a hundred. What happens inside
native code is seen as the Python line that called it.
"""

from __future__ import annotations

import html
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import NamedTuple

_INTERVAL_SECONDS = 0.01

# Where threads wait for work, by module and function: they cost nothing and would fill the picture.
_IDLE = {
    ("threading", "wait"),
    ("threading", "_wait_for_tstate_lock"),
    ("queue", "get"),
    ("concurrent.futures.thread", "_worker"),
}
_OWN = "cxr_embed."
# All work that Beam does for its steps is below this function of its own.
_BEAM_WORKS = "apache_beam.runners.worker.bundle_processor.BundleProcessor.process_bundle"

_WIDTH, _ROW, _MARGIN, _CHARACTER = 1400, 17, 10, 6.6
_NARROWEST = 0.5
_COLOURS = {"cxr_embed": "#f4a261", "apache_beam": "#b8c0cc", "tensorflow": "#e76f51"}
_OTHER_COLOUR = "#8ecae6"

Stack = tuple[str, ...]


class Sampler:
    """Samples all threads of this process while its `with` block runs.

    Attributes:
        stacks: how often each stack was seen, outermost frame first.
    """

    def __init__(self) -> None:
        self.stacks: Counter[Stack] = Counter()
        self._names: dict[CodeType, tuple[str, str, str]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def seconds(self) -> dict[Stack, float]:
        """Seconds in each stack, summed over threads."""
        return {stack: count * _INTERVAL_SECONDS for stack, count in self.stacks.items()}

    def _run(self) -> None:
        own = threading.get_ident()
        while not self._done.wait(_INTERVAL_SECONDS):
            for thread, frame in sys._current_frames().items():
                if thread != own and (stack := self._stack(frame)):
                    self.stacks[stack] += 1

    def _stack(self, leaf: FrameType) -> Stack:
        """Returns the frames of one thread, none where it waits or does no work of the run.

        Outermost is the first function of this package; how Beam came to it is left out.
        """
        if self._name(leaf)[:2] in _IDLE:
            return ()
        frames: list[str] = []
        frame: FrameType | None = leaf
        while frame is not None:
            frames.append(self._name(frame)[2])
            frame = frame.f_back
        frames.reverse()
        for position, name in enumerate(frames):
            if name.startswith(_OWN):
                return tuple(frames[position:])
        if _BEAM_WORKS in frames:
            return tuple(frames[frames.index(_BEAM_WORKS) :])
        return ()

    def _name(self, frame: FrameType) -> tuple[str, str, str]:
        """Returns module, function, and both as they are shown."""
        code = frame.f_code
        if code not in self._names:
            module = str(frame.f_globals.get("__name__", "?"))
            self._names[code] = module, code.co_name, f"{module}.{code.co_qualname}"
        return self._names[code]


def collapsed(seconds: Mapping[Stack, float]) -> str:
    """Returns stacks as lines of `outer;inner milliseconds`, as flame graph tools read them."""
    lines = (f"{';'.join(stack)} {1e3 * each:.0f}\n" for stack, each in seconds.items())
    return "".join(sorted(lines))


class _Box(NamedTuple):
    depth: int
    start: float
    seconds: float
    name: str


def flame_graph(seconds: Mapping[Stack, float], title: str) -> str:
    """Draws stacks as one SVG without anything outside of it.

    Args:
        seconds: time in each stack.
        title: a line above the picture.

    Returns:
        The SVG. Widths are seconds summed over threads, in the order of names, not of time; a
        pointer over a box shows its name and seconds.
    """
    total = sum(seconds.values())
    boxes = [_Box(0, 0.0, total, "all threads"), *_boxes(sorted(seconds.items()), 0, 0.0)]
    scale = (_WIDTH - 2 * _MARGIN) / max(total, 1e-9)
    shown = [box for box in boxes if box.seconds * scale >= _NARROWEST]
    height = (max((box.depth for box in shown), default=0) + 4) * _ROW
    drawn = "\n".join(_draw(box, scale, total) for box in shown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="monospace" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="{_MARGIN}" y="{1.2 * _ROW:.0f}" font-size="13">{html.escape(title)}</text>\n'
        f"{drawn}\n</svg>\n"
    )


def _boxes(stacks: Sequence[tuple[Stack, float]], depth: int, start: float) -> Iterator[_Box]:
    """Yields a box for each frame at `depth` and, recursively, for what it called."""
    groups: dict[str, list[tuple[Stack, float]]] = {}
    for stack, seconds in stacks:
        if len(stack) > depth:
            groups.setdefault(stack[depth], []).append((stack, seconds))
    for name, group in groups.items():
        seconds = sum(each for _, each in group)
        yield _Box(depth + 1, start, seconds, name)
        yield from _boxes(group, depth + 1, start)
        start += seconds


def _draw(box: _Box, scale: float, total: float) -> str:
    x, y, width = _MARGIN + box.start * scale, (box.depth + 2) * _ROW, box.seconds * scale
    colour = _COLOURS.get(box.name.partition(".")[0], _OTHER_COLOUR)
    share = 100 * box.seconds / max(total, 1e-9)
    label = box.name[: max(0, int((width - 6) / _CHARACTER))]
    text = f'<text x="{x + 3:.1f}" y="{y + 12}">{html.escape(label)}</text>' if label else ""
    return (
        f"<g><title>{html.escape(box.name)}: {box.seconds:.2f} s, {share:.1f} %</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" fill="{colour}"/>'
        f"{text}</g>"
    )
