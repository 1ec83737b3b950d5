"""Computes the content of a report; `layout` draws it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from cxr_embed import __version__
from cxr_embed.embeddings.collection import Embeddings
from cxr_embed.errors import UsageError
from cxr_embed.report import label_figures, maps, oddities
from cxr_embed.report.colouring import Colouring, colour
from cxr_embed.report.header_statistics import VIEW, count
from cxr_embed.report.label_columns import LabelColumns, read_label_columns
from cxr_embed.report.source import Source, read_source
from cxr_embed.report.space import Space, measure
from cxr_embed.report.thumbnails import Look, look_at_all
from cxr_embed.runs import history as run_history

# Maximum numbers of pictures in each list on the page.
SHOWN_ODDITIES = 24
SHOWN_GROUPS = 24
SHOWN_OF_GROUP = 6
SHOWN_FARTHEST = 6

_COLUMNS_AT_MOST = 40

Item = TypeVar("Item")
Watch = Callable[[str, int, Iterator[Any]], Iterator[Any]]


@dataclass(frozen=True)
class ReportSettings:
    """The user's settings of a report; the fields are the flags of `cxr-embed report`."""

    input_path: str
    labels_csv: str | None = None
    colour_by: str | None = None
    images: int = 200
    points: int = 3000
    maps: str = "auto"
    duplicate_similarity: float = 0.98
    seed: int = 0
    threads: int = 2


@dataclass
class Map:
    """A map of some embeddings: its name, and float32 of shape (points, 2)."""

    name: str
    coordinates: np.ndarray


@dataclass
class Report:
    """The content of a report.

    Attributes:
        settings: the user's settings.
        made: time of the report.
        version: version of this program.
        source: what was read of the output.
        paces: speed of runs over time.
        space: measurements of the embeddings; None if there are none.
        oddities: codes by row.
        looks: pictures and headers of images, by row.
        headers: counts of header values.
        plotted: rows on the maps.
        maps: one or two maps.
        colourings: colourings of the maps' points; the first one is the default.
        labels: columns of the table of labels, if there is one.
        label_figures: what the embeddings hold of each label; None without a table.
    """

    settings: ReportSettings
    made: datetime.datetime
    version: str
    source: Source
    paces: list[run_history.Pace]
    space: Space | None = None
    oddities: dict[int, list[str]] = field(default_factory=dict)
    looks: dict[int, Look] = field(default_factory=dict)
    headers: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    plotted: list[int] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    colourings: list[Colouring] = field(default_factory=list)
    labels: LabelColumns | None = None
    label_figures: label_figures.LabelFigures | None = None

    @property
    def embeddings(self) -> Embeddings:
        """The usable embeddings."""
        return self.source.embeddings

    @property
    def rendering(self) -> str:
        """The rendering of the run."""
        config = self.source.config
        return str(config.fingerprint.get("rendering", "")) if config else ""

    @property
    def main_run(self) -> run_history.Run | None:
        """The run that embedded the most images, the latest of equals; None if none did."""
        counted = [(run.count("embedded") or 0, run.run_id, run) for run in self.source.runs]
        return max((run for run in counted if run[0]), default=(0, "", None))[2]


def make_report(settings: ReportSettings, log: Callable[[str], None], watch: Watch) -> Report:
    """Reads an output and computes the content of a report.

    Args:
        settings: the user's settings.
        log: logs one line for the user.
        watch: gets (description, number of items, items), displays progress, yields the items.

    Raises:
        UsageError: there is no output, or the labels or flags do not match it.
    """
    path = settings.input_path
    if settings.maps == "umap" and not maps.has_umap():
        raise UsageError("--map=umap: UMAP is not installed: pip install 'cxr-embed[explore]'")
    source = read_source(path)
    embeddings = source.embeddings
    log(f"{len(embeddings)} embeddings of {embeddings.values.shape[1]} floats in {path}")
    for notice in source.notices:
        log(notice)
    labels = None
    if settings.labels_csv and len(embeddings):
        labels = read_label_columns(settings.labels_csv, embeddings.ids, embeddings.image_ids)
    _check_colour(settings.colour_by, labels)
    report = Report(
        settings=settings,
        made=datetime.datetime.now(datetime.UTC),
        version=__version__,
        source=source,
        paces=run_history.paces(source.runs, run_history.record_times(path)),
        labels=labels,
    )
    if len(embeddings):
        space = measure(embeddings.values, settings.duplicate_similarity, settings.seed)
        report.space = space
        _look(report, space, watch)
        _find_oddities(report, space)
        _compute_maps(report, space, log)
        if labels:
            report.label_figures = label_figures.measure(embeddings, labels, settings.seed, watch)
    return report


def _check_colour(wanted: str | None, labels: LabelColumns | None) -> None:
    known = [*(labels.columns if labels else ()), VIEW]
    if wanted and wanted not in known:
        raise UsageError(f"--colour_by {wanted}: pass one of {', '.join(known)}")


def _look(report: Report, space: Space, watch: Watch) -> None:
    """Reads the images that the page shows: a random sample, far images and near-duplicates."""
    if not report.settings.images:
        return
    total = len(report.embeddings)
    random = np.random.default_rng(report.settings.seed)
    sample = random.choice(total, min(report.settings.images, total), replace=False)
    in_groups = [row for g in space.groups[:SHOWN_GROUPS] for row in g.rows[:SHOWN_OF_GROUP]]
    far = space.closeness.rows[oddities.far_from_others(space.closeness.mean_similarities)]
    wanted = [
        *sample.tolist(),
        *space.farthest(SHOWN_FARTHEST),
        *far[:SHOWN_ODDITIES].tolist(),
        *in_groups,
    ]
    rows = list(dict.fromkeys(int(row) for row in wanted))
    looks = look_at_all(
        [report.embeddings.image_ids[row] for row in rows],
        report.rendering or "cxr_foundation",
        report.settings.threads,
        lambda found: watch("reading images", len(rows), found),
    )
    report.looks = dict(zip(rows, looks, strict=True))
    report.headers = count(look.header for look in looks[: len(sample)])


def _find_oddities(report: Report, space: Space) -> None:
    pictures = {row: look.picture for row, look in report.looks.items() if look.picture is not None}
    report.oddities = oddities.pixel_oddities(pictures)
    is_far = oddities.far_from_others(space.closeness.mean_similarities)
    for row in space.closeness.rows[is_far]:
        report.oddities.setdefault(int(row), []).append("far")


def _compute_maps(report: Report, space: Space, log: Callable[[str], None]) -> None:
    settings, total = report.settings, len(report.embeddings)
    # Images with pictures come first, so that they are always on the map.
    random = np.random.default_rng(settings.seed)
    others = random.permutation(total).tolist() if total > settings.points else range(total)
    report.plotted = list(dict.fromkeys([*report.looks, *others]))[: settings.points]
    coordinates = space.components.project(report.embeddings.values[report.plotted])
    flat = np.zeros((len(coordinates), 2), np.float32)
    flat[:, : min(2, coordinates.shape[1])] = coordinates[:, :2]
    report.maps = [Map("Principal components", flat)]
    if settings.maps != "pca" and maps.has_umap():
        if len(coordinates) >= maps.LEAST_FOR_UMAP:
            log(f"computing a UMAP of {len(coordinates)} embeddings")
            report.maps.append(Map("UMAP", maps.umap(coordinates, settings.seed)))
        elif settings.maps == "umap":
            log(f"warning: UMAP needs at least {maps.LEAST_FOR_UMAP} embeddings and is left out")
    report.colourings = _colourings(report)


def _colourings(report: Report) -> list[Colouring]:
    """Returns the colourings of the maps, starting with the wanted one."""
    columns: dict[str, list[str]] = {}
    if report.labels:
        columns = {
            name: [values[row] for row in report.plotted]
            for name, values in report.labels.columns.items()
        }
    views = [
        report.looks[row].header.get(VIEW, "") if row in report.looks else ""
        for row in report.plotted
    ]
    columns.setdefault(VIEW, views)
    wanted = report.settings.colour_by
    names = [name for name, values in columns.items() if any(values) or name == wanted]
    names.sort(key=lambda name: name != wanted)
    return [colour(name, columns[name]) for name in names[:_COLUMNS_AT_MOST]]
