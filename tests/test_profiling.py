"""Sampled stacks, and the picture of them."""

from __future__ import annotations

import threading
import time
from xml.etree import ElementTree

from cxr_embed.monitor import RunMonitor

from cxr_embed import profiling

SECONDS = {
    ("cxr_embed.walk.Walk.walk", "cxr_embed.dicom._open"): 3.0,
    ("cxr_embed.walk.Walk.walk", "cxr_embed.dicom._open", "pydicom.read<set>"): 1.0,
    ("cxr_embed.walk.Walk._write",): 0.5,
    ("cxr_embed.walk.Walk._finish",): 0.0001,
}


def test_the_program_is_seen_at_work_and_not_while_it_waits() -> None:
    monitor = RunMonitor()
    done = threading.Event()
    holds = threading.Thread(target=lambda: (monitor._lock.acquire(), done.wait()))
    works = threading.Thread(target=monitor.counts)  # stands at the lock, inside the package
    holds.start()
    works.start()
    with profiling.Sampler() as sampler:
        while sum(sampler.stacks.values()) < 3:
            time.sleep(0.01)
    monitor._lock.release()
    done.set()
    assert set(sampler.stacks) == {("cxr_embed.monitor.RunMonitor.counts",)}
    assert sum(sampler.seconds.values()) == 0.01 * sum(sampler.stacks.values())


def test_collapsed_stacks_are_what_flame_graph_tools_read() -> None:
    lines = profiling.collapsed(SECONDS).splitlines()
    assert "cxr_embed.walk.Walk.walk;cxr_embed.dicom._open 3000" in lines
    assert len(lines) == 4


def test_the_picture_is_one_file_whose_widths_are_seconds() -> None:
    svg = profiling.flame_graph(SECONDS, "a < b")
    root = ElementTree.fromstring(svg)
    assert "href" not in svg
    boxes = {
        group.findtext("{*}title", ""): group.find("{*}rect")
        for group in root.iter("{http://www.w3.org/2000/svg}g")
    }
    widths = {title: float(box.get("width", 0)) for title, box in boxes.items() if box is not None}
    whole = widths["all threads: 4.50 s, 100.0 %"]
    assert round(widths["cxr_embed.dicom._open: 4.00 s, 88.9 %"] / whole, 3) == 0.889
    assert round(widths["pydicom.read<set>: 1.00 s, 22.2 %"] / whole, 3) == 0.222
    assert not any("_finish" in title for title in widths)  # too narrow to be seen


def test_nothing_sampled_is_still_a_picture() -> None:
    ElementTree.fromstring(profiling.flame_graph({}, "nothing"))
    assert profiling.collapsed({}) == ""
