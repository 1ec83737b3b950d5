"""Few-shot evaluation: AUROC against the number of labelled images per class.

For each number n and each seed, n positives and n negatives are drawn from the training split, a
classifier is trained on these alone, and measured on the test split; as in Figure 3 of Sellergren
et al., "Simplified Transfer Learning for Chest Radiography Models Using Less Data", Radiology 2022.

No other label is used: the linear probe has a fixed penalty, the network a fixed
number of steps. The embeddings are standardised over the whole training split, which needs no
labels. A larger draw of the same seed holds the smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_embed.errors import UsageError
from cxr_embed.heads import intervals, linear, metrics, network, plots, saved
from cxr_embed.heads.dataset import Labelled
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import NetworkSettings, Standardisation
from cxr_embed.heads.steps import StepTrainer

CLASSIFIERS = ("linear", "network")
RESULTS_NAME = "few_shot.csv"
SUMMARY_NAME = "few_shot_summary.csv"
PLOT_NAME = "few_shot.png"
RESULT_COLUMNS = ("head", "classifier", "n_per_class", "seed", "auroc")
SUMMARY_COLUMNS = ("head", "classifier", "n_per_class", "seeds", "auroc", "low", "high")

# Without a tune split there is no early stopping, and longer training would fit the noise.
_PASSES = 2


@dataclass(frozen=True)
class Options:
    """Options of a few-shot evaluation.

    Attributes:
        train_split: drawn from.
        test_split: measured on.
        max_per_class: the largest n; 0 is as many as both classes have.
        num_seeds: draws of each n.
        classifiers: of CLASSIFIERS.
        seed: the first seed.
        hidden_layer_sizes: of the network.
        num_steps: of the network's training, or as many as 2 passes take, if those are more.
        batch_size: likewise, at most.
        learning_rate: likewise.
        resamples: of the bootstrap.
    """

    train_split: str
    test_split: str
    max_per_class: int = 0
    num_seeds: int = 5
    classifiers: tuple[str, ...] = CLASSIFIERS
    seed: int = 0
    hidden_layer_sizes: tuple[int, ...] = (512, 256)
    num_steps: int = 30
    batch_size: int = 512
    learning_rate: float = 1e-3
    resamples: int = 1000


@dataclass(frozen=True)
class Result:
    """One classifier, trained on one draw.

    Attributes:
        head: the label.
        classifier: of CLASSIFIERS.
        n_per_class: labelled images of each class.
        seed: of the draw and of the weights.
        auroc: on the test split.
        scores: float32 (n,), of the test images.
    """

    head: str
    classifier: str
    n_per_class: int
    seed: int
    auroc: float
    scores: np.ndarray


def run(
    embeddings: MappedEmbeddings,
    labelled: Labelled,
    options: Options,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, bytes]:
    """Runs the few-shot evaluation.

    Returns:
        The content of few_shot.csv, few_shot_summary.csv and few_shot.png, by name.

    Raises:
        UsageError: a split has images of one class only.
    """
    results: list[Result] = []
    summary: list[tuple[Any, ...]] = []
    pictures: dict[str, list[plots.FewShotLine]] = {}
    standardisation = network.standardisation_of(
        embeddings, labelled.rows[labelled.splits == options.train_split]
    )
    for head in labelled.heads:
        task = _Task(embeddings, labelled, head, options, standardisation)
        pictures[head] = []
        for classifier in options.classifiers:
            found = []
            for result in task.results(classifier):
                found.append(result)
                if result.seed == options.seed + options.num_seeds - 1:
                    rows = [r for r in found if r.n_per_class == result.n_per_class]
                    mean = float(np.mean([r.auroc for r in rows]))
                    log(f"{head}, {classifier}, {result.n_per_class} per class: AUROC {mean:.4f}")
            results += found
            line = task.summarise(classifier, found)
            pictures[head].append(line)
            summary += [
                (head, classifier, n, options.num_seeds, repr(auroc), repr(low), repr(high))
                for n, auroc, low, high in zip(
                    line.n_per_class, line.auroc, line.low, line.high, strict=True
                )
            ]
    return {
        RESULTS_NAME: saved.csv_bytes(
            RESULT_COLUMNS,
            ((r.head, r.classifier, r.n_per_class, r.seed, repr(r.auroc)) for r in results),
        ),
        SUMMARY_NAME: saved.csv_bytes(SUMMARY_COLUMNS, summary),
        PLOT_NAME: plots.few_shot(pictures),
    }


def sizes(largest: int) -> list[int]:
    """Returns 1, 2, 4 ... and `largest` itself."""
    powers = [1 << power for power in range(largest.bit_length())]
    return powers if powers[-1] == largest else [*powers, largest]


class _Task:
    """One head: its labelled images of the training and test split."""

    def __init__(
        self,
        embeddings: MappedEmbeddings,
        labelled: Labelled,
        head: str,
        options: Options,
        standardisation: Standardisation,
    ) -> None:
        self._embeddings, self._options, self._head = embeddings, options, head
        self._standardisation = standardisation
        column = labelled.heads.index(head)
        labels = labelled.labels[:, column]

        def places(split: str, label: int) -> np.ndarray:
            return np.flatnonzero((labelled.splits == split) & (labels == label))

        self._by_class = [labelled.rows[places(options.train_split, label)] for label in (0, 1)]
        test = np.concatenate([places(options.test_split, label) for label in (0, 1)])
        self._test_rows, self._test_groups = labelled.rows[test], labelled.groups[test]
        self._test_labels = labels[test].astype(np.float64)
        least = min(len(rows) for rows in self._by_class)
        self._refuse_one_class(least)
        largest = options.max_per_class or least
        if largest > least:
            raise UsageError(
                f"--max_per_class {largest}: {options.train_split!r} has {least} images of the "
                f"rarer class of {head}"
            )
        self.sizes = sizes(largest)

    def _refuse_one_class(self, least: int) -> None:
        one_class = [self._options.train_split] if not least else []
        if not 0 < self._test_labels.sum() < len(self._test_labels):
            one_class.append(self._options.test_split)
        if one_class:
            raise UsageError(
                f"the split {one_class[0]!r} lacks positive or negative images of {self._head}: "
                "both classes are needed"
            )

    def results(self, classifier: str) -> Iterator[Result]:
        """Yields all results of one classifier, from few labels to many."""
        score = self._linear if classifier == "linear" else self._network()
        for n in self.sizes:
            for seed in range(self._options.seed, self._options.seed + self._options.num_seeds):
                rows = np.concatenate([
                    np.random.default_rng([seed, label]).permutation(of_class)[:n]
                    for label, of_class in enumerate(self._by_class)
                ])  # fmt: skip
                labels = np.repeat([0.0, 1.0], n).astype(np.float32)
                scores = score(rows, labels, seed)
                auroc = metrics.auroc(self._test_labels, scores)
                yield Result(self._head, classifier, n, seed, auroc, scores)

    def _linear(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
        values = linear.scaled(self._embeddings.take(rows), self._standardisation)
        line, _ = linear.solve(values, labels, linear.DEFAULT_C, "none")
        blocks = self._embeddings.blocks(self._test_rows)
        parts = [linear.scaled(block, self._standardisation) @ line.weights for block in blocks]
        return np.concatenate(parts)

    def _network(self) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
        """Returns a function that trains one network again and again, from fresh weights."""
        options = self._options
        settings = NetworkSettings(
            options.hidden_layer_sizes, batch_size=options.batch_size,
            learning_rate=options.learning_rate, dropout=0.0,
        )  # fmt: skip
        trainer = StepTrainer(self._embeddings, self._standardisation, settings)

        def score(rows: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
            steps = max(options.num_steps, _PASSES * len(rows) // options.batch_size)
            trainer.train(rows, labels, steps, seed)
            found: np.ndarray = trainer.logits(self._test_rows)[:, 0]
            return found

        return score

    def summarise(self, classifier: str, results: Sequence[Result]) -> plots.FewShotLine:
        """Returns the mean over seeds for each n, with 95 % intervals.

        The bootstrap draws seeds and test patients: the interval is of the mean AUROC that other
        draws of labels and other patients would give.
        """
        means, lows, highs = [], [], []
        patients = intervals.deciding_patients(self._test_labels, self._test_groups)
        for n in self.sizes:
            of_n = [result for result in results if result.n_per_class == n]
            rankings = [metrics.Ranking(self._test_labels, result.scores) for result in of_n]
            rng = np.random.default_rng([self._options.seed, n])

            draws = []
            for weights in intervals.resamples(
                self._test_groups, self._options.resamples, self._options.seed
            ):
                drawn = rng.integers(len(of_n), size=len(of_n))
                aurocs = {at: rankings[at].auroc(weights) for at in set(drawn.tolist())}
                draws.append(np.mean([aurocs[at] for at in drawn.tolist()]))
            means.append(float(np.mean([result.auroc for result in of_n])))
            low, high = intervals.share_interval(means[-1], np.array(draws), patients)
            lows.append(low)
            highs.append(high)
        return plots.FewShotLine(classifier, self.sizes, means, lows, highs)
