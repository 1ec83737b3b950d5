from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cxr_embed.storage.arriving import Arriving, Refused
from cxr_embed.storage.files import FileTooLarge
from cxr_embed.storage.multipart import NotOnePart, read_part
from cxr_embed.storage.retries import Corrupt

CONTENT = b"\r\n--other\r\n" + bytes(range(256)) * 20 + b"\r\n--b\r\n-\r\n--boundar"


def answer(content: bytes, length: int | None = None, preamble: bytes = b"") -> bytes:
    header = b"" if length is None else b"content-length: %d\r\n" % length
    return (
        preamble + b"--boundary\r\nContent-Type: application/dicom\r\n" + header + b"\r\n"
        + content + b"\r\n--boundary--\r\n"
    )  # fmt: skip


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 1000) -> bytes:
    arriving = Arriving("x")
    read_part(cut(data, size), "boundary", arriving)
    return arriving.finish().data


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 64, 10**6])
@pytest.mark.parametrize("length", [None, len(CONTENT)])
def test_the_content_is_the_same_wherever_the_answer_is_cut(size: int, length: int | None) -> None:
    assert read(answer(CONTENT, length), size) == CONTENT
    assert read(answer(CONTENT, length, b"a preamble\r\n"), size) == CONTENT


@pytest.mark.parametrize("length", [None, len(CONTENT)])
def test_an_answer_that_ends_anywhere_too_early_is_noticed(length: int | None) -> None:
    whole = answer(CONTENT, length)
    for end in [*range(0, 120), *range(len(whole) - 60, len(whole) - 2)]:
        with pytest.raises(Corrupt):
            read(whole[:end])


def test_a_wrong_length_is_noticed() -> None:
    for wrong in (len(CONTENT) - 1, len(CONTENT) + 1, len(CONTENT) + 10**6):
        with pytest.raises(Corrupt):
            read(answer(CONTENT, wrong))


def test_an_empty_part_is_empty() -> None:
    assert read(answer(b"")) == read(answer(b"", 0)) == b""


def test_no_part_and_several_parts_are_not_an_instance() -> None:
    with pytest.raises(NotOnePart, match="no part"):
        read(b"--boundary--\r\n")
    with pytest.raises(NotOnePart, match="several"):
        read(b"--boundary\r\n\r\n1\r\n--boundary\r\n\r\n2\r\n--boundary--")
    with pytest.raises(NotOnePart, match="does not start"):
        read(os.urandom(200_000))


@pytest.mark.parametrize("length", [None, 10**9])
def test_a_part_larger_than_allowed_is_not_read_to_its_end(length: int | None) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield answer(b"", length).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        while True:
            taken += 1000
            yield b"x" * 1000

    with pytest.raises(Refused) as refused:
        read_part(endless(), "boundary", Arriving("x", lambda start: 100_000))
    assert isinstance(refused.value.why, FileTooLarge)
    assert refused.value.why.size == length
    assert taken < 200_000
