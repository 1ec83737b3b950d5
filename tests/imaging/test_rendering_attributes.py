"""Look-up tables as files have them: in words, packed, signed, too long, too short."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import lut_item, make_dataset, make_dicom
from pydicom import Dataset

from cxr_embed import read_radiograph
from cxr_embed.errors import ImageRejected
from cxr_embed.imaging.rendering_attributes import LookupTable, TooFewEntries, parse_lookup_table


def parse(item: Dataset, **options: Any) -> LookupTable:
    defaults = {"signed_input": False, "implicit": False, "little_endian": True}
    return parse_lookup_table(item, **defaults | options)


def item_of(vr: str, data: Any, *descriptor: int, descriptor_vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", descriptor_vr, list(descriptor))
    item.add_new("LUTData", vr, data)
    return item


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("vr", ["OW", "UN"])
def test_words_follow_the_byte_order(vr: str, little: bool) -> None:
    data = np.array([1, 258, 4095], "<u2" if little else ">u2").tobytes()
    table = parse(item_of(vr, data, 3, 0, 12), little_endian=little)
    assert table.entries.tolist() == [1, 258, 4095]
    assert (table.entries.dtype, table.bits) == (np.uint16, 12)


@pytest.mark.parametrize(
    ("vr", "data", "little"),
    [
        ("OW", b"\x0a\x14\x1e\x00", True),
        ("OW", b"\x14\x0a\x00\x1e", False),
        ("US", [0x140A, 0x001E], True),
    ],
)
def test_eight_bit_entries_may_share_a_word(vr: str, data: Any, little: bool) -> None:
    table = parse(item_of(vr, data, 3, 0, 8), little_endian=little)
    assert table.entries.tolist() == [10, 20, 30]
    assert table.entries.dtype == np.uint8


def test_a_count_of_zero_is_65536() -> None:
    assert len(parse(item_of("OW", bytes(131072), 0, 0, 16)).entries) == 65536


def test_a_count_read_as_negative_is_meant_unsigned() -> None:
    item = item_of("OW", bytes(80000), 40000 - 65536, -20000, 16, descriptor_vr="SS")
    table = parse(item, signed_input=True)
    assert (len(table.entries), table.first_mapped) == (40000, -20000)


@pytest.mark.parametrize(
    ("vr", "first", "options", "expected"),
    [
        ("US", 64512, {}, 64512),
        ("US", 64512, {"signed_input": True}, -1024),
        ("SS", -1024, {}, -1024),
        ("SS", -1024, {"implicit": True}, 64512),  # the VR is pydicom's guess
        ("US", 64512, {"implicit": True, "signed_input": True}, -1024),
    ],
)
def test_the_first_input_value_is_signed_as_the_input_is(
    vr: str, first: int, options: dict[str, bool], expected: int
) -> None:
    item = item_of("US", [1, 2], 2, first, 16, descriptor_vr=vr)
    assert parse(item, **options).first_mapped == expected


@pytest.mark.parametrize(("given", "bits"), [(12, 12), (16, 16), (0, 12), (17, 12), (9, 12)])
def test_impossible_bits_are_counted_from_the_entries(given: int, bits: int) -> None:
    assert parse(item_of("US", [0, 4095], 2, 0, given)).bits == bits


@pytest.mark.parametrize("data", [[1, 2], [], b""])
def test_too_few_entries(data: Any) -> None:
    with pytest.raises(TooFewEntries, match="LUT Descriptor gives 3"):
        parse(item_of("OW" if isinstance(data, bytes) else "US", data, 3, 0, 12))


@pytest.mark.parametrize(
    "broken",
    [
        item_of("US", [1, 2], 3, 0, 12),
        item_of("US", [1, 2], 2, 0),
        Dataset(),
    ],
    ids=["few entries", "short descriptor", "empty item"],
)
def test_a_broken_voi_lut_costs_only_the_rendering_that_needs_it(broken: Dataset) -> None:
    data = make_dicom(VOILUTSequence=[broken])
    assert read_radiograph(data).warnings == ["voi_lut_ignored"]
    with pytest.raises(ImageRejected) as caught:
        read_radiograph(data, "dicom")
    assert caught.value.reason == "bad_window"
    assert "VOILUTSequence (0028,3010)" in caught.value.detail


def test_a_table_that_leaves_one_of_the_values_that_occur_is_a_constant_image() -> None:
    stored = np.where(np.arange(70_000) % 2, 2, 0).astype(np.uint16).reshape(350, 200)
    data = make_dicom(stored, VOILUTSequence=[lut_item(0, [7, 4000, 7], 12)])
    with pytest.raises(ImageRejected, match="constant_image"):
        read_radiograph(data, "dicom")


class TestHighBit:
    stored = (np.arange(72 * 64) % 4096).reshape(72, 64).astype(np.uint16)

    def test_values_that_do_not_start_at_the_lowest_bit(self) -> None:
        plain = read_radiograph(make_dicom(self.stored, BitsStored=12), "dicom")
        raised = make_dicom((self.stored << 4) | 7, BitsStored=12, HighBit=15)
        radiograph = read_radiograph(raised, "dicom")
        np.testing.assert_array_equal(radiograph.pixels, plain.pixels)
        assert radiograph.steps[0] == "moved down by 4 bits (High Bit 15, Bits Stored 12)"

    def test_the_original_never_looked_at_it(self) -> None:
        raised = self.stored << 4
        np.testing.assert_array_equal(
            read_radiograph(make_dicom(raised, BitsStored=12, HighBit=15)).pixels,
            read_radiograph(make_dicom(raised & 0xFFF, BitsStored=12)).pixels,
        )

    def test_a_dataset_of_the_callers_stays_as_it_was(self) -> None:
        dataset = make_dataset(self.stored << 4, BitsStored=12, HighBit=15)
        first = read_radiograph(dataset, "dicom").pixels
        assert dataset.BitsStored == 12
        np.testing.assert_array_equal(read_radiograph(dataset, "dicom").pixels, first)

    @pytest.mark.parametrize("high_bit", [5, 16, 200, None])
    def test_an_impossible_one_is_not_used(self, high_bit: int | None) -> None:
        np.testing.assert_array_equal(
            read_radiograph(
                make_dicom(self.stored, BitsStored=12, HighBit=high_bit), "dicom"
            ).pixels,
            read_radiograph(make_dicom(self.stored, BitsStored=12), "dicom").pixels,
        )


@pytest.mark.parametrize(
    ("vr", "value", "bits"), [("SS", -2000, 12), ("US", 63536, 12), ("US", 63536, 16)]
)
def test_padding_means_the_stored_value_whatever_its_vr(vr: str, value: int, bits: int) -> None:
    stored = np.arange(-1000, 1000, dtype=np.int16).reshape(40, 50)
    stored[20] = -2000
    dataset = make_dataset(stored, BitsStored=bits)
    dataset.add_new("PixelPaddingValue", vr, value)
    steps = read_radiograph(dataset, "dicom").steps
    assert steps[1] == "no VOI: -1000..999, padding -2000 left out, spread over 0..65535"
