"""What goes from step to step: a reference to an image, and the embedding of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from cxr_embed import file_types, members
from cxr_embed.radiograph import InputFacts

LAYOUTS = ("flat", "mirror")

# What lies in an output: records, how they were made, and a folder for each run.
RECORD_SUFFIX = ".tfrecord"
CONFIG_NAME = "_embedding_config.json"
RUNS_FOLDER = "_runs"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image, by its path; all that crosses a shuffle before the model has run.

    Attributes:
        path: as given or listed; becomes the feature `image/id`.
        dicom_id: the file name without a known image extension.
        folder: where the layout `mirror` puts the record, below the output; may be empty.
        is_listed: the user named this very file. A file that a search came across may turn out
            not to be an image without that being a failure.
        location: of a member of an archive: where it lies there, as the listing said, so that a
            worker need not list the archive; empty if that is unknown.
        outputs: of a model with several outputs, the names of those to write; empty for all.
    """

    path: str
    dicom_id: str
    folder: str = ""
    is_listed: bool = False
    location: str = ""
    outputs: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str) -> ImageRef:
        """Returns the reference to a path or URI that the user named.

        `folder` is then the path's own folder, without a scheme, a root or `..`.
        """
        below = members.as_folder(path.partition("://")[2] or path)
        parts = [part for part in PurePosixPath(below).parent.parts if part not in ("/", "..")]
        return cls(path, dicom_id_of(path), "/".join(parts), is_listed=True)

    @property
    def record(self) -> str:
        """The record's path below the output."""
        return record_path(self.dicom_id, self.folder)

    @property
    def is_refused(self) -> bool:
        """Whether it is a member of an archive that is never read, and so has no record."""
        return self.location.startswith(members.REFUSED)


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The embedding of one image, and what the run tables need to know of its input.

    Attributes:
        dicom_id: the input's file name without its image extension.
        image_id: the input's path or URI, as it was given or listed.
        values: float32 of shape (n,).
        folder: where the layout `mirror` puts the record, below the output.
        rows: height of the radiograph in pixels, before it was fitted to the model; 0 if unknown.
        columns: width likewise.
        warnings: stable codes, keys of `outcomes.WARNINGS`.
        source: size and checksum of the input file, if known.
        output: name of the output, of a model with several.
    """

    dicom_id: str
    image_id: str
    values: np.ndarray
    folder: str = ""
    rows: int = 0
    columns: int = 0
    warnings: tuple[str, ...] = field(default=())
    source: InputFacts | None = None
    output: str = ""


def dicom_id_of(path: str) -> str:
    """Returns the file name without a known image extension: `1.2.840.113619.4` is whole."""
    name = path.rpartition("/")[2] or PurePosixPath(path).name
    return file_types.IMAGE_NAME.sub("", name) or name


def record_path(dicom_id: str, folder: str = "") -> str:
    """Returns a record's path below the output."""
    name = dicom_id + RECORD_SUFFIX
    return f"{folder}/{name}" if folder else name
