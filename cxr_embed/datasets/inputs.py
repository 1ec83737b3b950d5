"""Compares an output with its inputs: finds inputs without a record."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from cxr_embed import file_types
from cxr_embed.datasets.findings import Finding
from cxr_embed.elements import ImageRef
from cxr_embed.outcomes import FAILURE_REASONS
from cxr_embed.runs.history import Ends
from cxr_embed.storage.find_images import find_images

LIST_SUFFIX = ".txt"


def find_inputs(
    inputs: str,
    records: Collection[str],
    output_path: str,
    dicomweb_query: str | None = None,
    *,
    search_archives: bool = False,
) -> list[ImageRef]:
    """Returns the images that the run should have embedded.

    Args:
        inputs: the run's `--input_path`, or a `.txt` list of paths.
        records: paths of the records below the output, which show the layout.
        output_path: excluded from the search if it is below the inputs.
        dicomweb_query: that of the run, if the inputs are in a DICOMweb store.
        search_archives: whether the run opened archives among the inputs.

    Raises:
        UsageError: no image is found.
    """
    is_list = inputs.endswith(LIST_SUFFIX)
    refs = find_images(
        None if is_list else inputs,
        inputs if is_list else None,
        layout="mirror" if any("/" in record for record in records) else "flat",
        output_path=output_path,
        dicomweb_query=dicomweb_query,
        search_archives=search_archives,
    )
    return [ref for ref in refs if ref.is_listed or not file_types.OTHER_NAME.search(ref.path)]


def compare_inputs(
    refs: Collection[ImageRef],
    image_of: Mapping[str, str],
    ends: Ends,
) -> Iterator[Finding]:
    """Finds inputs without a record, and records without an input.

    Args:
        refs: the inputs.
        image_of: image ids by the records' paths below the output; empty for bad records. A record
            is matched to an input by its path or by its image id, so that a list, or a parent of
            the embedded folder, also matches.
        ends: the latest outcomes, from the run tables.
    """
    image_ids = set(image_of.values())
    for ref in refs:
        kind = ends.kind_of(ref.path)
        if ref.record in image_of or ref.path in image_ids or kind == "skipped":
            continue
        why = f"failed, {_why(ends.by_path[ref.path].reason)}" if kind == "failed" else ""
        yield Finding("missing", ref.path, why)
    paths = {ref.path for ref in refs}
    for record in sorted(image_of.keys() - {ref.record for ref in refs}):
        if image_of[record] not in paths:
            yield Finding("unexpected", record)


def _why(reason: str) -> str:
    known = FAILURE_REASONS.get(reason)
    return f"{known.stage}: {reason}" if known else reason
