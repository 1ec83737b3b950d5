"""Heads: an epoch against its matrix products, a whole head, and heads against linear probes.

    make bench
    python benchmarks/heads.py [--rows 243000] [--part all] [--folder DIR] [--write]

The embeddings are synthetic, two clouds of Gaussian noise, of the published set's size: 243,000 of
4,096 floats, 4 GB as a memory-mapped file. Eight tenths are trained on, one tenth is tuned on.
Part `epoch` alternates epochs (reading, shuffling, standardising, batch norm, Adam, the exact AUROC
on the tune split) with TensorFlow's matrix products of the same shapes and number, and nothing
else. Part `head` trains one head until it stops early. Part `quality` trains default heads on small
synthetic sets of different structure (`head_sets.py`), beside scikit-learn's logistic regression.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import results
from head_sets import RECIPES, HeadSet
from head_sets import make as make_set

from cxr_embed.heads import both_parts, fitting, metrics, network
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.models.tensorflow.runtime import import_tensorflow

SIZE = 4096
_TITLES = {
    "epoch": "Heads: an epoch",
    "head": "Heads: one head",
    "quality": "Heads: quality",
    "all": "Heads",
}
EPOCHS = 5
_CHUNK = 8192
_TUNE_CHUNK = 4096
_DISTANCE = 1.8  # the best possible AUROC is 0.898


def make(folder: Path, rows: int) -> tuple[MappedEmbeddings, np.ndarray]:
    """Writes the matrix and maps it; returns it with its labels, float32 (rows, 1)."""
    rng = np.random.default_rng(0)
    labels = (rng.random(rows) < 0.2).astype(np.float32)
    direction = rng.standard_normal(SIZE, np.float32)
    direction *= _DISTANCE / np.linalg.norm(direction)
    path = folder / "embeddings.f32"
    with path.open("wb") as file:
        for start in range(0, rows, _CHUNK):
            of_chunk = labels[start : start + _CHUNK, None]
            noise = rng.standard_normal((len(of_chunk), SIZE), np.float32)
            (noise + of_chunk * direction).tofile(file)
    values = np.memmap(path, np.float32, "r", shape=(rows, SIZE))
    names = [f"im{row}" for row in range(rows)]
    return MappedEmbeddings("synthetic", names, names, values, None), labels[:, None]


def products(
    steps: int, size: int, tune_rows: int, settings: network.NetworkSettings
) -> Callable[[], float]:
    """Returns a function that does an epoch's matrix products alone and gives the seconds."""
    tf = import_tensorflow()
    rng = np.random.default_rng(1)
    first, second = settings.hidden_layer_sizes

    def noise(*shape: int) -> Any:
        return tf.constant(rng.standard_normal(shape, np.float32))

    x, w1, w2 = noise(size, SIZE), noise(SIZE, first), noise(first, second)
    w3, tune = noise(second, 1), noise(_TUNE_CHUNK, SIZE)
    g1, g2, g3 = (noise(size, units) for units in (first, second, 1))

    @tf.function(autograph=False)
    def step(x: Any, g1: Any, g2: Any, g3: Any) -> Any:
        hidden = tf.matmul(x, w1)
        deeper = tf.matmul(hidden, w2)
        results = [
            tf.matmul(deeper, w3),
            tf.matmul(deeper, g3, transpose_a=True), tf.matmul(g3, w3, transpose_b=True),
            tf.matmul(hidden, g2, transpose_a=True), tf.matmul(g2, w2, transpose_b=True),
            tf.matmul(x, g1, transpose_a=True),
        ]  # fmt: skip
        return [result[0, 0] for result in results]

    @tf.function(autograph=False)
    def forward(x: Any) -> Any:
        return tf.matmul(tf.matmul(tf.matmul(x, w1), w2), w3)[0, 0]

    def run(steps: int = steps) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            found = step(x, g1, g2, g3)
        for _ in range(-(-tune_rows // _TUNE_CHUNK)):
            found = forward(tune)
        _ = [value.numpy() for value in found] if isinstance(found, list) else found.numpy()
        return time.perf_counter() - started

    run(1)  # builds the graphs
    return run


def measure(folder: Path, rows: int, part: str) -> list[str]:
    """Returns the tables' lines."""
    started = time.perf_counter()
    embeddings, labels = make(folder, rows)
    print(f"made {embeddings.values.nbytes / 1e9:.1f} GB in {time.perf_counter() - started:.0f} s")
    train, tune, test = np.split(np.arange(rows), [rows * 8 // 10, rows * 9 // 10])
    lines = [f"{rows:,} embeddings of {SIZE:,} floats, {len(train):,} of them to train on.\n"]
    if part in ("epoch", "all"):
        lines += _epochs(embeddings, labels, train, tune)
    if part in ("head", "all"):
        lines += _head(embeddings, labels, (train, tune, test))
    return lines


def _epochs(
    embeddings: MappedEmbeddings, labels: np.ndarray, train: np.ndarray, tune: np.ndarray
) -> list[str]:
    settings = network.NetworkSettings(num_epochs=EPOCHS, patience=EPOCHS)
    size = settings.images_per_step(len(train))
    alone = products(len(train) // size, size, len(tune), settings)
    rows: list[tuple[float, float, float, float]] = []
    before = _used()

    def on_epoch(epoch: fitting.Epoch) -> None:
        nonlocal before
        busy, read = (now - then for now, then in zip(_used(), before, strict=True))
        rows.append((epoch.seconds, alone(), busy / epoch.seconds, read))
        print("epoch {:.1f} s, products {:.1f} s, {:.1f} cores, {:.1f} GB read".format(*rows[-1]),
              flush=True)  # fmt: skip
        before = _used()

    fitting.fit(embeddings, (train, labels[train]), (tune, labels[tune]), settings, on_epoch)
    ratios = [epoch / product for epoch, product, _, _ in rows]
    epoch, product = (statistics.median(column) for column in list(zip(*rows, strict=True))[:2])
    table = [
        f"| {number} | {one:.1f} | {other:.1f} | {one / other:.2f} | {cores:.1f} | {read:.1f} |"
        for number, (one, other, cores, read) in enumerate(rows, 1)
    ]
    return [
        "| epoch | an epoch, s | its matrix products alone, s | ratio | cores busy | "
        "read from the disk, GB |",
        "| --- | --- | --- | --- | --- | --- |",
        *table,
        f"| median | {epoch:.1f} | {product:.1f} | {statistics.median(ratios):.2f} | | |",
        "",
        "Alternating, one epoch after the other. The seconds before the first epoch, in which the "
        "graph is built and the deviations are computed, are counted in its cores and GB only. An "
        "epoch reads from the disk what the operating system no longer keeps in memory; with other "
        "programs on the machine, fewer cores are busy. Goal: a median within 1.5. Besides the "
        "products, a step's 170 ms of processor time hold some 14 ms of batch norm, 10 ms of "
        "dropout's random numbers, 8 ms of Adam and 9 ms in which a thread scales the next batch. "
        "Tried: the step compiled by XLA takes five times as long.\n",
    ]


def _used() -> tuple[float, float]:
    """Returns the seconds of processor that this process has used, and the GB that it has read."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    sectors: float = usage.ru_inblock * 512
    return usage.ru_utime + usage.ru_stime, sectors / 1e9


def _head(
    embeddings: MappedEmbeddings, labels: np.ndarray, splits: tuple[np.ndarray, ...]
) -> list[str]:
    train, tune, test = splits
    started = time.perf_counter()

    def log(line: str) -> None:
        print(f"{time.perf_counter() - started:.0f} s: {line}", flush=True)

    head = both_parts.train_head(
        embeddings, ("SYNTHETIC",), (train, labels[train]), (tune, labels[tune]),
        network.NetworkSettings(), log=log,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    auroc = metrics.auroc(labels[test, 0], network.predictor(head.model, embeddings)(test)[:, 0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return [
        "| a head with early stopping, s | epochs | test AUROC | peak memory, GB |",
        "| --- | --- | --- | --- |",
        f"| {seconds:.0f} | {head.training['epochs']} | {auroc:.3f} | {peak:.1f} |",
        "",
        "Both parts. Goals: under 10 minutes, under 8 GB; the mapped file's pages in memory are "
        "counted.",
        "The best possible AUROC is 0.898.",
    ]


def quality(seeds: int) -> list[str]:
    """Returns the lines of the table of all synthetic sets."""
    rows, differences, linear_ones = [], [], []
    for name, recipe in RECIPES.items():
        for seed in range(seeds):
            data = make_set(name, seed)
            probe, found, seconds, shares = _both_ways(data, seed)
            differences.append(found - probe)
            linear_ones.append(recipe.is_linear)
            rows.append(
                f"| {name} | {recipe.structure} | {seed} | {recipe.sizes[0]:,} x "
                f"{data.values.shape[1]:,} | {probe:.3f} | {found:.3f} | {found - probe:+.3f} | "
                f"{shares} | {seconds:.0f} |"
            )
            print(rows[-1], flush=True)
    linear = np.array(linear_ones)
    each = np.array(differences)
    return [
        "| set | structure | seed | training images x floats | logistic regression | head | "
        "difference | network's share | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Test AUROC, mean of the heads of a set. Mean difference {each.mean():+.4f}, worst "
        f"{each.min():+.4f}; where the truth is linear {each[linear].mean():+.4f}, where it is not "
        f"{each[~linear].mean():+.4f}. Logistic regression: standardised, the best of nine C on "
        "the tune split. Goals: a mean of -0.005 or better, none worse than -0.02, better where "
        "the truth is not linear. Seconds are of the whole training, on a busy machine.",
    ]


def _both_ways(data: HeadSet, seed: int) -> tuple[float, float, float, str]:
    """Returns both test AUROCs, the head's seconds, and the network's shares, as text."""
    train, tune, test = data.splits
    probe = np.mean([_probe_auroc(data, head) for head in range(data.labels.shape[1])])
    names = [f"im{row}" for row in range(len(data.values))]
    embeddings = MappedEmbeddings("synthetic", names, names, data.values, None)
    heads = tuple(f"H{number}" for number in range(data.labels.shape[1]))
    started = time.perf_counter()
    head = both_parts.train_head(
        embeddings, heads, (train, data.labels[train]), (tune, data.labels[tune]),
        network.NetworkSettings(seed=seed),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    scores = network.predictor(head.model, embeddings)(test)
    found = fitting.mean_auroc(data.labels[test], scores)
    shares = ", ".join(f"{share:g}" for share in head.training["network_share"].values())
    return float(probe), found, seconds, shares


def _probe_auroc(data: HeadSet, head: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, tune, test = data.splits
    labels = data.labels[:, head]
    train, tune = (rows[~np.isnan(labels[rows])] for rows in (train, tune))
    values = StandardScaler().fit(data.values[train]).transform(data.values).astype(np.float64)
    classifier = LogisticRegression(tol=1e-5, max_iter=200, warm_start=True)
    tried = []
    for power in range(-6, 3):
        classifier.C = 10.0**power
        scores = classifier.fit(values[train], labels[train]).decision_function(values)
        tried.append([metrics.auroc(labels[rows], scores[rows]) for rows in (tune, test)])
    return max(tried, key=lambda aurocs: aurocs[0])[1]


def main() -> None:
    """Prints the tables."""
    parser = results.parser(__doc__)
    parser.add_argument("--rows", type=int, default=243_000)
    parser.add_argument("--part", choices=["epoch", "head", "quality", "all"], default="all")
    parser.add_argument("--seeds", type=int, default=1, help="of each set, part quality")
    parser.add_argument("--folder", type=Path, help="for the matrix (default: a temporary one)")
    given = parser.parse_args()
    lines = []
    if given.part in ("quality", "all"):
        lines += quality(given.seeds)
    if given.part != "quality":
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            lines += measure(Path(folder), given.rows, given.part)
    results.show(_TITLES[given.part], lines, is_written=given.write)


if __name__ == "__main__":
    main()
