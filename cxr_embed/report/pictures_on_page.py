"""Adds pictures of radiographs to a page, or the reason why a picture is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_embed.report.page import Html, data_uri, escaped, tag
from cxr_embed.report.thumbnails import Look

NOT_LOOKED_AT = "not looked at"


class Pictures:
    """The pictures of one page.

    Args:
        looks: looks by row.
        ids: dicom ids by row.
        paths: paths of the images by row.
    """

    def __init__(self, looks: Mapping[int, Look], ids: Sequence[str], paths: Sequence[str]) -> None:
        self._looks, self._ids, self._paths = looks, ids, paths
        self._encoded: dict[int, str] = {}
        self._placed: dict[int, str] = {}

    def has(self, row: int) -> bool:
        """Whether a row has a picture."""
        return row in self._looks and self._looks[row].picture is not None

    def image(self, row: int) -> Html:
        """Returns a picture in a square; its tooltip is the path."""
        name, path = self._ids[row], self._paths[row]
        look = self._looks.get(row, Look(problem=NOT_LOOKED_AT))
        if look.picture is None:
            words = look.problem.replace("_", " ")
            return tag(
                "span", tag("span", words), class_="cell none", title=path, role="img",
                aria_label=f"{name}: no picture, {words}",
            )  # fmt: skip
        if row not in self._encoded:
            self._encoded[row] = data_uri(look.jpeg)
        identifier = None
        if row not in self._placed:  # the map's script uses the first copy
            identifier = self._placed[row] = f"picture-{row}"
        height, width = look.picture.shape
        picture = tag(
            "img", src=self._encoded[row], width=width, height=height, id=identifier,
            alt=f"Radiograph {name}", title=path, decoding="async",
        )  # fmt: skip
        return tag("span", picture, class_="cell")

    def figure(self, row: int, *notes: object) -> Html:
        """Returns a picture with its id and further lines as caption."""
        lines = [tag("span", note, class_="note") for note in notes]
        name = tag("span", self._ids[row], class_="name", title=self._paths[row])
        return tag("figure", self.image(row), tag("figcaption", name, *lines))

    def identifier(self, row: int) -> str:
        """Returns the id of the element with a picture; empty if the page has none."""
        return self._placed.get(row, "")


def wall(cells: Sequence[Html]) -> Html:
    """Returns pictures in a dense grid."""
    return tag("div", *cells, class_="wall")


def gallery(figures: Sequence[object]) -> Html:
    """Returns pictures with captions in a grid."""
    return tag("div", *(escaped(figure) for figure in figures), class_="gallery")
