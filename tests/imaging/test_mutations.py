"""Thousands of damaged files, each of which ends in pixels or in a stated rejection."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from builders import as_bytes, make_dataset, make_dicom
from good_files import seeds
from pydicom.dataset import Dataset

from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.image_files import read_image

PIXELS = (np.indices((40, 36)).sum(axis=0) * 23 % 4096).astype(np.uint16)

Mutator = Callable[[bytearray, np.random.Generator], bytes]


def flip_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def flip_bits_of_the_header(data: bytearray, rng: np.random.Generator) -> bytes:
    for place in rng.integers(0, min(len(data), 900), rng.integers(1, 5)):
        data[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: int(rng.integers(0, len(data)))])


def cut_out(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(0, len(data)))
    del data[start : start + int(rng.integers(1, 64))]
    return bytes(data)


def repeat(data: bytearray, rng: np.random.Generator) -> bytes:
    start, size = int(rng.integers(0, len(data))), int(rng.integers(1, 200))
    return bytes(data[: start + size] + data[start:])


def overwrite_a_length(data: bytearray, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(132, max(len(data) - 4, 133)))
    extreme = rng.choice([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, len(data)])
    data[place : place + 4] = struct.pack("<I", int(extreme))
    return bytes(data)


def overwrite_with_a_tag(data: bytearray, rng: np.random.Generator) -> bytes:
    tags = (0xE000FFFE, 0xE00DFFFE, 0xE0DDFFFE, 0x00107FE0, 0x00100028, 0x00080060, 0x30100028)
    place = int(rng.integers(132, max(len(data) - 4, 133)))
    data[place : place + 4] = struct.pack("<I", int(rng.choice(tags)))
    return bytes(data)


def odd_representation(data: bytearray, rng: np.random.Generator) -> bytes:
    found = [
        data.find(kind, 132) for kind in (b"US\2\0", b"CS", b"DS", b"SQ\0\0", b"OW\0\0", b"UI")
    ]
    places = [place for place in found if place > 0] or [140 % len(data)]
    place = int(rng.choice(places))
    kind = rng.choice([b"SQ", b"UN", b"OB", b"ZZ", b"\0\0", b"FD", b"PN", b"AT", b"DS", b"IS"])
    data[place : place + 2] = bytes(kind).ljust(2, b"\0")
    return bytes(data)


def overwrite_a_text(data: bytearray, rng: np.random.Generator) -> bytes:
    for text in (b"MONOCHROME2", b"2000.5", b"3000", b"-1.5", b"4095", b"1.2.840.10008"):
        place = data.find(text)
        if place > 0 and rng.random() < 0.4:
            rubbish = rng.choice(
                [b"\\" * 11, b"nan        ", b"1e999      ", b"\xff" * 11, b" " * 11]
            )
            data[place : place + len(text)] = bytes(rubbish)[: len(text)].ljust(len(text))
    return bytes(data)


MUTATORS: tuple[Mutator, ...] = (
    flip_bits, flip_bits_of_the_header, cut, cut_out, repeat, overwrite_a_length,
    overwrite_with_a_tag, odd_representation, overwrite_a_text,
)  # fmt: skip


def survive(count: int, seed: int) -> Counter[str]:
    """Reads so many damaged files and counts how they end; anything else than an end raises."""
    good = list(seeds().items())
    rng = np.random.default_rng(seed)
    ends: Counter[str] = Counter()
    for number in range(count):
        name, data = good[number % len(good)]
        mutator = MUTATORS[int(rng.integers(len(MUTATORS)))]
        damaged = mutator(bytearray(data), rng)
        rendering = ("cxr_foundation", "dicom")[number // len(good) % 2]
        started = time.process_time()
        try:
            pixels = read_image(damaged, rendering=rendering, max_pixels=4_000_000).pixels
            assert pixels.ndim == 2
            assert pixels.dtype in (np.uint8, np.uint16)
            ends["pixels"] += 1
        except ImageRejected as rejected:
            ends[rejected.reason] += 1
        except BaseException as error:
            error.add_note(f"{mutator.__name__} of {name}, seed {seed}, file {number}")
            raise
        assert time.process_time() - started < 10, f"{mutator.__name__} of {name}, file {number}"
    return ends


def test_damaged_files_end_in_pixels_or_a_reason() -> None:
    ends = survive(2_000, seed=1)
    assert ends["pixels"] > 200
    assert {"truncated", "decode_error", "not_an_image", "no_pixel_data"} <= set(ends)


@pytest.mark.slow
def test_twenty_thousand_damaged_files_end_in_pixels_or_a_reason() -> None:
    ends = survive(20_000, seed=2)
    assert sum(ends.values()) == 20_000


def test_the_seeds_are_good_files() -> None:
    for name, data in seeds().items():
        assert read_image(data).pixels.shape == PIXELS.shape, name


class TestDeepNesting:
    def nested(self, depth: int) -> bytes:
        """A private sequence in a sequence in a sequence, all of undefined length."""
        start = struct.pack("<HH2sHI", 0x0009, 0x1010, b"SQ", 0, 0xFFFFFFFF)
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return (start + item) * depth + ends * depth

    @pytest.mark.parametrize("depth", [3, 500, 20_000])
    def test_it_ends(self, depth: int) -> None:
        data = make_dicom(PIXELS)
        place = data.index(struct.pack("<HH", 0x0028, 0x0002))
        hostile = data[:place] + self.nested(depth) + data[place:]
        try:
            assert read_image(hostile).pixels.shape == PIXELS.shape
        except ImageRejected as rejected:
            assert rejected.reason in ("decode_error", "truncated", "no_pixel_data")
            assert depth > 3

    def test_thousands_of_private_elements(self) -> None:
        dataset = make_dataset(PIXELS)
        for number in range(4_000):
            block = dataset.private_block(0x0011 + 2 * (number // 200), "X", create=True)
            block.add_new(number % 200, "LO", "x")
        assert read_image(as_bytes(dataset)).pixels.shape == PIXELS.shape

    def test_an_item_that_is_no_item(self) -> None:
        dataset = make_dataset(PIXELS, VOILUTSequence=[Dataset()])
        assert read_image(as_bytes(dataset)).pixels.shape == PIXELS.shape
        with pytest.raises(ImageRejected) as caught:
            read_image(as_bytes(dataset), rendering="dicom")
        assert caught.value.reason == "bad_window"
