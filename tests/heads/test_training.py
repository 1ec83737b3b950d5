"""Networks and linear probes learn what there is to learn, and the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import linear_model
from synthetic import bayes_auroc, clouds, in_memory

from cxr_embed.heads import combining, fitting, linear, linear_paths, metrics, network, steps
from cxr_embed.heads.mapped import MappedEmbeddings
from cxr_embed.heads.network import NetworkSettings

SIZE, DISTANCE = 16, 2.0


@pytest.fixture(scope="module")
def data() -> tuple[MappedEmbeddings, np.ndarray]:
    values, labels = clouds(6000, SIZE, DISTANCE)
    return in_memory(values, labels, ["train"] * 6000)[0], labels[:, None]


TRAIN, TUNE, TEST = np.arange(3000), np.arange(3000, 4000), np.arange(4000, 6000)


def _fit(
    data: tuple[MappedEmbeddings, np.ndarray], settings: NetworkSettings
) -> tuple[np.ndarray, fitting.History]:
    embeddings, labels = data
    model, history = fitting.fit(embeddings, (TRAIN, labels[TRAIN]), (TUNE, labels[TUNE]), settings)
    return network.predictor(model, embeddings)(TEST), history


def test_a_network_reaches_the_best_possible_auroc(
    data: tuple[MappedEmbeddings, np.ndarray],
) -> None:
    found, history = _fit(data, NetworkSettings((32, 16), num_epochs=30, patience=4))
    assert metrics.auroc(data[1][TEST, 0], found[:, 0]) == pytest.approx(
        bayes_auroc(DISTANCE), abs=0.025
    )
    # Early stopping: the best epoch is kept, and four worse ones follow it.
    assert history.best.tune_loss == min(epoch.tune_loss for epoch in history.epochs)
    assert len(history.epochs) in (history.best.number + 4, 30)


def test_the_kept_weights_are_those_of_the_best_epoch(
    data: tuple[MappedEmbeddings, np.ndarray],
) -> None:
    embeddings, labels = data
    model, history = fitting.fit(
        embeddings, (TRAIN[:200], labels[:200]), (TUNE, labels[TUNE]),
        NetworkSettings(
            (32,), num_epochs=12, patience=12, learning_rate=0.03, batch_size=50, dropout=0.0
        ),
    )  # fmt: skip
    assert history.best.number < 12
    tuned = network.predictor(model, embeddings)(TUNE)
    assert metrics.auroc(labels[TUNE, 0], tuned[:, 0]) == pytest.approx(
        history.best.tune_auroc, abs=1e-6
    )


def test_the_same_seed_gives_the_same_bytes(data: tuple[MappedEmbeddings, np.ndarray]) -> None:
    settings = NetworkSettings((16, 8), num_epochs=3, seed=5)
    first, again = (_fit(data, settings)[0].tobytes() for _ in range(2))
    assert first == again
    assert _fit(data, NetworkSettings((16, 8), num_epochs=3, seed=6))[0].tobytes() != first


def test_missing_labels_are_masked(data: tuple[MappedEmbeddings, np.ndarray]) -> None:
    """What hides under a blank label changes nothing; the other head learns all the same."""
    embeddings, labels = data
    both = np.concatenate([labels, labels], axis=1)
    both[::2, 1] = np.nan
    model, _ = fitting.fit(
        embeddings,
        (TRAIN, both[TRAIN]),
        (TUNE, both[TUNE]),
        NetworkSettings((16,), num_epochs=10, learning_rate=0.01),
    )
    found = network.predictor(model, embeddings)(TEST)
    assert np.isfinite(found).all()
    for head in (0, 1):
        assert metrics.auroc(labels[TEST, 0], found[:, head]) > bayes_auroc(DISTANCE) - 0.05


def test_the_loss_is_binary_cross_entropy_over_known_labels() -> None:
    network.import_keras()
    labels = np.array([[1, np.nan], [0, 1], [1, 0]], np.float32)
    logits = np.array([[0.3, 9.0], [-2.0, 0.1], [1.0, -1.0]], np.float32)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    known = ~np.isnan(labels)
    each = -np.log(np.where(labels == 1, probabilities, 1 - probabilities))
    wanted = each[known].mean()
    assert float(network.masked_loss(labels, "none")(labels, logits)) == pytest.approx(wanted)
    assert network.mean_loss(labels, logits, "none") == pytest.approx(wanted)
    # Two positives and a negative in the first head, one of each in the second.
    weights = np.array([[3 / 4, 0], [3 / 2, 1], [3 / 4, 1]])
    wanted = (np.where(known, each, 0) * weights).sum() / known.sum()
    assert float(network.masked_loss(labels, "balanced")(labels, logits)) == pytest.approx(wanted)
    assert network.mean_loss(labels, logits, "balanced") == pytest.approx(wanted)


def test_balanced_weights_move_probabilities_to_the_middle() -> None:
    values, labels = clouds(3000, 8, 1.5, positives=0.1)
    embeddings, _ = in_memory(values, labels, ["train"] * 3000)
    means = []
    for weights in ("none", "balanced"):
        model, _ = fitting.fit(
            embeddings, (np.arange(2000), labels[:2000, None]),
            (np.arange(2000, 3000), labels[2000:, None]),
            NetworkSettings((16,), num_epochs=8, class_weights=weights, learning_rate=0.02),
        )  # fmt: skip
        means.append(network.predictor(model, embeddings)(np.arange(2000, 3000)).mean())
    assert means[0] == pytest.approx(0.1, abs=0.05)
    assert means[1] > 0.2


def test_the_fused_adam_is_keras_s_adam() -> None:
    keras = network.import_keras()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((96, 6), np.float32)
    y = x[:, :1] - 2 * x[:, 1:2]
    found = []
    for optimizer in (keras.optimizers.Adam(0.05), steps.fused_adam(keras, 0.05)):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "tanh", True, "ones")])
        model.compile(optimizer, loss="mse", jit_compile=False)
        model.fit(x, y, batch_size=32, epochs=8, shuffle=False, verbose=0)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(found[0][0] - 1).max() > 0.5  # it has gone somewhere


def test_standardisation_is_exact_and_leaves_constants_alone() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((9000, 5)) * [1, 1e-3, 50, 0, 1] + [0, 1000, -3, 7, 1e-6]).astype(
        np.float32
    )
    embeddings, _ = in_memory(values, np.zeros(9000), ["train"] * 9000)
    rows = np.arange(0, 9000, 2)
    found = network.standardisation_of(embeddings, rows)
    exact = values[rows].astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.deviation[[0, 2, 4]], exact.std(axis=0)[[0, 2, 4]], rtol=1e-5)
    assert found.deviation[3] == 1
    assert found.factor.tolist() == [1, 1, 1, 0, 1]
    own = found.in_own_proportions()
    ratio = own.factor[[0, 2]] / exact.std(axis=0)[[0, 2]]
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-5)
    assert np.mean(own.factor**2) == pytest.approx(1)


def test_scaled_rows_are_the_same_one_by_one_and_in_blocks() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_t(2, (100, 7)) * [1, 9, 1e-3, 1, 1, 1, 0] + 3).astype(np.float32)
    embeddings, _ = in_memory(values, np.zeros(100), ["train"] * 100)
    own = network.standardisation_of(embeddings, np.arange(100))
    rows = rng.permutation(100)[:77]
    largest = []
    for scaling in (own, own.in_own_proportions(), own.unlimited()):
        found = np.empty((77, 7), np.float32)
        scaling.take(values, rows, found)
        np.testing.assert_allclose(found, scaling.apply(values[rows]), rtol=1e-4, atol=1e-5)
        head, alone = network.build(7, 1, (4,), scaling)  # its linear part is zero
        logits = network.predictor(alone, embeddings, scaling)(rows)
        by_head = network.predictor(head, embeddings)(rows)
        np.testing.assert_allclose(by_head, 1 / (1 + np.exp(-logits)), atol=1e-4)
        largest.append(np.abs(found).max())
    assert largest[0] == network.LIMIT
    assert largest[2] > network.LIMIT


def test_floats_that_vary_in_their_last_digits_count() -> None:
    """A large mean leaves a float32 few digits; what they say is used all the same."""
    values = np.repeat([[8192.0, 8192.0]], 50, axis=0).astype(np.float32)
    values[::2, 0] = np.nextafter(np.float32(8192), np.float32(9000))
    embeddings, _ = in_memory(values, np.zeros(50), ["train"] * 50)
    assert network.standardisation_of(embeddings, np.arange(50)).factor.tolist() == [1, 0]


def _probe(values: np.ndarray, labels: np.ndarray, train: int) -> tuple[Any, float]:
    """Returns the chosen scaling and the AUROC of a linear part on what it has not seen."""
    count = len(values)
    embeddings, _ = in_memory(values.astype(np.float32), labels, ["train"] * count)
    rows, tune, test = np.split(np.arange(count), [train, train + 200])
    own = network.standardisation_of(embeddings, rows)
    chosen, (probe,) = linear_paths.fit_heads(
        embeddings, (rows, labels[rows, None]), (tune, labels[tune, None]),
        [own, own.unlimited()], "none",
    )  # fmt: skip
    parts = [linear.scaled(embeddings.take(test), one) for one in (own, own.unlimited())]
    wide = np.concatenate(parts, axis=1)[:, : len(probe.line.weights)]
    logits = wide @ probe.line.weights
    return chosen, metrics.auroc(labels[test], logits)


def test_extreme_values_count_where_they_say_something() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_t(2, (3000, 20))
    says = (values.sum(axis=1) + rng.standard_normal(3000) > 0).astype(np.float32)
    assert _probe(values, says, 1000)[1] > 0.97
    signs = (np.sign(values).sum(axis=1) + rng.standard_normal(3000) > 0).astype(np.float32)
    chosen, auroc = _probe(values, signs, 1000)
    assert chosen.limit == network.LIMIT
    assert auroc > 0.75
    # Next to nothing is beyond the limit: the other scaling is not even tried.
    assert _probe(rng.standard_normal((1500, 20)), says[:1500], 1000)[0].limit == network.LIMIT


@pytest.mark.parametrize("kind", ["noise", "few factors"])
def test_fewer_images_than_floats_give_the_same_solution(kind: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, 90))
    if kind == "few factors":  # their products have no inverse
        values = values[:, :3] @ rng.standard_normal((3, 90))
    labels = (values[:, 0] + rng.standard_normal(40) > 0).astype(np.float32)
    line, _ = linear.solve(values, labels, 0.1, "none")
    fewer, basis = linear.rotated(values)
    assert fewer.shape == (40, 40)
    assert basis is not None
    again, _ = linear.solve(fewer, labels, 0.1, "none")
    np.testing.assert_allclose(basis @ again.weights, line.weights, atol=1e-4)


def test_a_linear_probe_solves_the_problem() -> None:
    """The gradient of the penalised loss vanishes: nothing is left to iterate over."""
    values, labels = clouds(800, 12, 1.5)
    embeddings, _ = in_memory(values, labels, ["train"] * 800)
    scale = network.standardisation_of(embeddings, np.arange(800))
    x = linear.scaled(values, scale)
    line, _ = linear.solve(x, labels, 2.0, "none")
    residual = 1 / (1 + np.exp(-(x @ line.weights + line.bias))) - labels
    np.testing.assert_allclose(2.0 * (residual @ x) + line.weights, 0, atol=2e-3)
    assert residual.sum() == pytest.approx(0, abs=2e-3)
    plain = linear_model.LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(x, labels)
    np.testing.assert_allclose(line.weights, plain.coef_[0], rtol=1e-3, atol=1e-4)


def test_the_probe_as_keras_model_gives_the_same_probabilities(
    data: tuple[MappedEmbeddings, np.ndarray],
) -> None:
    embeddings, labels = data
    scale = network.standardisation_of(embeddings, TRAIN)
    chosen, probes = linear_paths.fit_heads(
        embeddings, (TRAIN, labels[TRAIN]), (TUNE, labels[TUNE]),
        [scale, scale.in_own_proportions()], "none",
    )  # fmt: skip
    line, best, tried = probes[0]
    assert best.tune_loss == min(one.tune_loss for one in tried)
    model, _ = network.build(SIZE, 1, (), chosen)
    tune = (TUNE, labels[TUNE])
    found = combining.combine(model, embeddings, tune, [line], "none", calibrated=True)
    by_keras = network.predictor(model, embeddings)(TEST)[:, 0]
    logits = linear.scaled(embeddings.take(TEST), scale) @ line.weights + line.bias
    calibrated = found.calibrations[0].apply(logits)
    np.testing.assert_allclose(by_keras, 1 / (1 + np.exp(-calibrated)), atol=1e-4)
    assert metrics.auroc(labels[TEST, 0], by_keras) == pytest.approx(
        bayes_auroc(DISTANCE), abs=0.02
    )
    intercept, slope = metrics.calibration_line(labels[TEST, 0], by_keras.astype(float))
    assert (intercept, slope) == (pytest.approx(0, abs=0.2), pytest.approx(1, abs=0.2))


def test_large_embeddings_are_scaled_in_place_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = clouds(100, 8, 1.0)
    embeddings, _ = in_memory(values, labels, ["train"] * 100)
    scale = network.standardisation_of(embeddings, np.arange(100))
    exact = linear.scaled(values, scale)
    monkeypatch.setattr(linear, "_FLOAT64_BYTES", 1)
    copy = values.copy()
    in_place = linear.scaled(copy, scale)
    assert in_place is copy
    np.testing.assert_allclose(in_place, exact, atol=1e-5)


def test_batches_are_small_for_small_sets() -> None:
    settings = NetworkSettings()
    sizes = [settings.images_per_step(n) for n in (5, 64, 800, 6000, 20_000, 70_000, 200_000)]
    assert sizes == [5, 16, 64, 512, 512, 1024, 2048]
    assert NetworkSettings(batch_size=100).images_per_step(800) == 100
