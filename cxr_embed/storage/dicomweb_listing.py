"""Lists the instances of a DICOMweb store, page by page (QIDO-RS, PS3.18 section 10.6)."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from cxr_embed.storage import dicomweb_client
from cxr_embed.storage.dicomweb_address import UID, Address
from cxr_embed.storage.dicomweb_client import Answered
from cxr_embed.storage.retries import Corrupt

# What is asked for in one request. Stores may answer with less, or with everything they have.
_PAGE = 1000

# The description of one instance is some kilobytes.
_MOST_OF_ONE = 4 << 20

_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"

_HEADERS = {"Accept": "application/dicom+json"}

# PS3.18 tables 10.6.1-5 and C.4-1: where these filters apply. All others are of instances.
_OF_STUDIES = {
    "StudyDate", "00080020", "StudyTime", "00080030", "AccessionNumber", "00080050",
    "ModalitiesInStudy", "00080061", "ReferringPhysicianName", "00080090",
    "StudyDescription", "00081030", "PatientName", "00100010", "PatientID", "00100020",
    "PatientBirthDate", "00100030", "PatientSex", "00100040", "IssuerOfPatientID", "00100021",
    "StudyInstanceUID", _STUDY, "StudyID", "00200010", "fuzzymatching",
}  # fmt: skip
_OF_SERIES = {
    "Modality", "00080060", "SeriesDescription", "0008103E", "BodyPartExamined", "00180015",
    "Laterality", "00200060", "SeriesInstanceUID", _SERIES, "SeriesNumber", "00200011",
    "SeriesDate", "00080021", "PerformedProcedureStepStartDate", "00400244",
    "PerformedProcedureStepStartTime", "00400245", "InstitutionName", "00080080",
    "StationName", "00081010", "Manufacturer", "00080070", "ManufacturerModelName", "00081090",
}  # fmt: skip

_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[\s,\ufeff]*")

# Statuses of stores that do not have a search.
_NO_SUCH_SEARCH = {400, 404, 405, 406, 501}

Filters = tuple[tuple[str, str], ...]


class _Search(NamedTuple):
    """One search, which is read page by page.

    Attributes:
        address: of the store.
        path: below the root, such as `/studies/1.2/instances`.
        wanted: tags of the UIDs that each match has.
        filters: keys and values.
        shown: the address in messages.
    """

    address: Address
    path: str
    wanted: tuple[str, ...]
    filters: Filters
    shown: str


class _NoSuchSearch(Exception):
    """The store has no such search; its argument is the error to raise if it has no other."""


def instances(address: Address, shown: str) -> Iterator[tuple[str, str, str]]:
    """Yields the UIDs of study, series and instance; not sorted, possibly more than once.

    A store without a search for all instances is searched for studies, then for their series.

    Args:
        address: of a store, a study or a series, with the filters.
        shown: the address in messages.

    Raises:
        OSError: a page cannot be listed; the message names it.
    """
    filters = address.filters
    if address.study is None:
        yield from _of_store(address, filters, shown)
    elif address.series is None:
        yield from _of_study(address, address.study, filters, shown)
    else:
        yield from _of_series(address, address.study, address.series, filters, shown)


def _of_store(address: Address, filters: Filters, shown: str) -> Iterator[tuple[str, str, str]]:
    wanted = (_STUDY, _SERIES, _INSTANCE)
    search = _Search(address, "/instances", wanted, filters, shown)
    try:
        for study, series, instance in _matches(search):
            yield study, series, instance
    except _NoSuchSearch:
        of_studies, rest = _split(filters, _OF_STUDIES)
        studies = _Search(address, "/studies", (_STUDY,), of_studies, shown)
        for (study,) in _or_oserror(_matches(studies)):
            yield from _of_study(address, study, rest, shown)


def _of_study(
    address: Address, study: str, filters: Filters, shown: str
) -> Iterator[tuple[str, str, str]]:
    search = _Search(
        address, f"/studies/{study}/instances", (_SERIES, _INSTANCE), filters, shown
    )  # fmt: skip
    try:
        for series, instance in _matches(search):
            yield study, series, instance
    except _NoSuchSearch:
        rest, of_instances = _split(filters, _OF_STUDIES | _OF_SERIES)
        every = _Search(address, f"/studies/{study}/series", (_SERIES,), rest, shown)
        for (series,) in _or_oserror(_matches(every)):
            yield from _of_series(address, study, series, of_instances, shown)


def _of_series(
    address: Address, study: str, series: str, filters: Filters, shown: str
) -> Iterator[tuple[str, str, str]]:
    path = f"/studies/{study}/series/{series}/instances"
    for (instance,) in _or_oserror(_matches(_Search(address, path, (_INSTANCE,), filters, shown))):
        yield study, series, instance


def _split(filters: Filters, of_level: set[str]) -> tuple[Filters, Filters]:
    """Returns the filters of a level, and the others."""
    return (
        tuple(pair for pair in filters if pair[0] in of_level),
        tuple(pair for pair in filters if pair[0] not in of_level),
    )


def _or_oserror(matches: Iterator[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    try:
        yield from matches
    except _NoSuchSearch as error:
        raise error.args[0] from None


def _matches(search: _Search) -> Iterator[tuple[str, ...]]:
    """Yields the UIDs of all matches, each once.

    The end is an empty page, or a page of known matches: the store ignores the offset. If such a
    page has just as many matches as asked for, there may be more: more are asked for.
    """
    seen: set[tuple[str, ...]] = set()
    offset, limit, number = 0, _PAGE, 0
    while True:
        number += 1
        page, is_cut = _page(search, limit, offset, number)
        before = len(seen)
        for match in page:
            if match not in seen:
                seen.add(match)
                yield match
        if len(seen) > before:
            offset += len(page)
        elif len(page) == limit:
            limit, offset = 2 * limit, 0
        elif page and is_cut:
            raise OSError(
                f"{search.shown}: the store ignores the offset of a page and says that there are "
                f"more matches than the {len(page)} that it lists: list its studies one by one, "
                "or narrow --dicomweb_query"
            )
        else:
            return


def _page(
    search: _Search, limit: int, offset: int, number: int
) -> tuple[list[tuple[str, ...]], bool]:
    """Returns the matches of one page, and whether the store says that it left some out.

    Raises:
        _NoSuchSearch: the store does not have this search.
        OSError: the page cannot be listed.
    """
    asked = [
        *search.filters,
        # UIDs of the levels above are in every answer by the standard, but not in every store.
        *(("includefield", tag) for tag in search.wanted[:-1]),
        ("limit", str(limit)),
        ("offset", str(offset)),
    ]
    shown = f"{search.shown}: page {number} of {search.path} (offset {offset})"

    def attempt() -> tuple[list[tuple[str, ...]], bool]:
        url = search.address.service + search.path
        with dicomweb_client.answer(search.address, url, _HEADERS, asked, words=True) as response:
            if response.status_code == 204:
                return [], False
            is_cut = "299" in response.headers.get("Warning", "")
            return [_uids(match, search) for match in _objects(response)], is_cut

    try:
        return dicomweb_client.call(shown, attempt)
    except OSError as error:
        status = getattr(error.__cause__, "status", None)
        if number == 1 and status in _NO_SUCH_SEARCH and not _is_filter(search, status):
            raise _NoSuchSearch(error) from error
        raise


def _is_filter(search: _Search, status: int) -> bool:
    """Whether the filters, not the search, are what the store rejects with 400."""
    if status != 400 or not search.filters:
        return False

    def attempt() -> None:
        url = search.address.service + search.path
        with dicomweb_client.answer(search.address, url, _HEADERS, [("limit", "1")], words=False):
            pass

    try:
        dicomweb_client.call(search.shown, attempt)
    except OSError as error:
        return not isinstance(error.__cause__, Answered)
    return True


def _uids(match: Any, search: _Search) -> tuple[str, ...]:
    found = []
    for tag in search.wanted:
        element = match.get(tag) if isinstance(match, dict) else None
        values = element.get("Value") if isinstance(element, dict) else None
        uid = values[0] if isinstance(values, list) and values else None
        if not isinstance(uid, str) or not UID.fullmatch(uid.strip("\0 ")):
            raise OSError(f"{search.shown}: a match of {search.path} has no valid UID ({tag})")
        found.append(uid.strip("\0 "))
    return tuple(found)


def _objects(response: Any) -> Iterator[Any]:
    """Yields the objects of a JSON array while it arrives: some stores send all they have.

    Raises:
        Corrupt: the array has no end.
        OSError: the answer is not DICOM JSON.
    """
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and "json" not in kind:
        raise OSError(f"{_host(response)} answers with {kind[:60]}, not with DICOM JSON")
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    pieces = dicomweb_client.pieces(response)
    text, is_started = "", False
    for piece in pieces:
        text, at = text + decode(piece), 0
        while (at := _BETWEEN.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            if not is_started:
                if text[at] != "[":
                    raise OSError(f"{_host(response)}: the answer is not a list of matches")
                is_started, at = True, at + 1
                continue
            if text[at] == "]":
                for _ in pieces:  # a connection is used again only if the answer was read
                    pass
                return
            try:
                match, at = _DECODER.raw_decode(text, at)
            except ValueError:
                if len(text) - at > _MOST_OF_ONE:
                    raise OSError(f"{_host(response)}: the answer is not valid JSON") from None
                break
            yield match
        text = text[at:]
    if is_started or text:
        raise Corrupt("the list of matches has no end")


def _host(response: Any) -> str:
    from urllib.parse import urlsplit

    return urlsplit(response.url).hostname or "the store"
