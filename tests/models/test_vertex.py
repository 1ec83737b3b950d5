"""The hosted endpoint, against a local server that speaks its protocol and misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import prediction_server
import pytest
from builders import GRADIENT, make_dicom
from prediction_server import SIZE, Server, embedding_of
from running import Ran, manifest, records, run_here, table

import cxr_embed
from cxr_embed import models
from cxr_embed.errors import UsageError
from cxr_embed.models import Endpoint, ModelSettings, SomeFailed, vertex
from cxr_embed.models.config import EndpointConfig, ModelConfig
from cxr_embed.radiograph import Radiograph

ENDPOINT = Endpoint("my-project", "us-central1", "123")
RNG = np.random.default_rng(0)
PICTURES = [Radiograph(RNG.integers(0, 65536, (40 + n, 50), np.uint16)) for n in range(12)]
BUSY, AWAY = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
INTERNAL, INVALID = grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(vertex, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(vertex, "_LONGEST_PAUSE_SECONDS", 0.1)
    with prediction_server.serve() as running:
        yield running


def load(address: str, limits: dict[str, Any] | None = None, **config: Any) -> Any:
    limits = {"timeout_seconds": 5.0, "retry_seconds": 5.0} | (limits or {})
    whole = ModelConfig(endpoint=EndpointConfig(address, **limits), **config)
    return models.load(ModelSettings.of_endpoint(ENDPOINT, whole))


def embed(model: Any, pictures: list[Radiograph]) -> np.ndarray:
    result: np.ndarray = model.embed([model.fit(picture) for picture in pictures])
    return result


def expected(pictures: list[Radiograph]) -> np.ndarray:
    return np.stack([embedding_of(picture.pixels) for picture in pictures])


def test_the_pixels_arrive_whole_and_the_answers_match(server: Server) -> None:
    model = load(server.address)
    assert (model.embedding_size, model.best_batch_size) == (SIZE, 8)
    mixed = [*PICTURES, Radiograph((PICTURES[0].pixels >> 8).astype(np.uint8))]
    np.testing.assert_array_equal(embed(model, mixed), expected(mixed))
    assert server.endpoints == {"projects/my-project/locations/us-central1/endpoints/123"}


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        (lambda v: [v], {}),
        (lambda v: [v[:8], v[8:16], v[16:]], {}),
        (lambda v: {"embedding": v}, {}),
        (lambda v: {"embedding": v, "score": 0.5}, {"output_name": "embedding"}),
    ],
)
def test_shapes_of_answers(server: Server, shape: Any, config: dict[str, Any]) -> None:
    server.shape = shape
    vectors = embed(load(server.address, **config), PICTURES[:2])
    np.testing.assert_array_equal(vectors, expected(PICTURES[:2]))


@pytest.mark.parametrize(
    ("shape", "config", "complaint"),
    [
        (lambda v: "hello", {}, "not a list of floats"),
        (lambda v: [], {}, "0 floats"),
        (lambda v: {"a": v, "b": v}, {}, "the fields a, b: name one in a model config"),
        (lambda v: v, {"embedding_size": 4096}, "24 floats, not 4096"),
    ],
)
def test_an_answer_that_is_no_embedding_is_a_users_mistake(
    server: Server, shape: Any, config: dict[str, Any], complaint: str
) -> None:
    server.shape = shape
    with pytest.raises(UsageError, match=complaint):
        load(server.address, **config)


def test_an_endpoint_that_refuses_or_is_not_there(server: Server) -> None:
    server.fault = lambda number, context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
    with pytest.raises(UsageError, match=r"endpoints/123: 403 no"):
        load(server.address)
    assert len(server.requests) == 1
    with pytest.raises(UsageError, match="no answer within 1 s"):
        load("127.0.0.1:1", {"retry_seconds": 1.0})


def test_a_config_for_something_else_is_refused() -> None:
    for config in ({"signature": "a"}, {"pooling": "mean"}, {"range": (0.0, 1.0)}):
        with pytest.raises(UsageError, match="does not apply to an endpoint"):
            load("127.0.0.1:1", **config)


@pytest.mark.parametrize("code", [BUSY, AWAY, INTERNAL, grpc.StatusCode.ABORTED])
def test_what_may_pass_is_tried_again(server: Server, code: grpc.StatusCode) -> None:
    model = load(server.address, {"max_request_bytes": 20_000})
    server.fault = lambda number, context: (number % 3 and context.abort(code, "later")) or None
    np.testing.assert_array_equal(embed(model, PICTURES), expected(PICTURES))


def test_a_slow_answer_is_asked_for_again(server: Server) -> None:
    model = load(server.address, {"timeout_seconds": 1.0})
    seen = len(server.requests)
    server.fault = lambda number, _: prediction_server.slow(2.0) if number == seen + 1 else None
    np.testing.assert_array_equal(embed(model, PICTURES[:2]), expected(PICTURES[:2]))
    assert len(server.requests) == seen + 2


def test_reset_connections(server: Server) -> None:
    with prediction_server.resetting_proxy(server.address, after_bytes=40_000, times=4) as address:
        model = load(address, {"max_request_bytes": 20_000, "retry_seconds": 60.0})
        np.testing.assert_array_equal(embed(model, PICTURES), expected(PICTURES))


def test_one_bad_image_costs_itself_only(server: Server) -> None:
    model = load(server.address)
    bad = embedding_of(PICTURES[3].pixels)

    def refuse(vector: list[float]) -> Any:
        if np.array_equal(vector, bad):
            raise ValueError("this image")
        return vector

    server.shape = refuse  # an exception in the server: UNKNOWN, for the whole request
    with pytest.raises(SomeFailed) as failed:
        embed(model, PICTURES)
    results = failed.value.results
    assert [n for n, r in enumerate(results) if isinstance(r, Exception)] == [3]
    np.testing.assert_array_equal(np.delete(np.array(results, object), 3)[0], results[0])
    for number in (2, 4, 11):
        np.testing.assert_array_equal(results[number], embedding_of(PICTURES[number].pixels))


def test_it_gives_up_in_the_end(server: Server) -> None:
    model = load(server.address, {"retry_seconds": 1.0})
    server.fault = lambda number, context: context.abort(AWAY, "gone for good")
    with pytest.raises(SomeFailed) as failed:
        embed(model, PICTURES[:3])
    assert [str(result) for result in failed.value.results] == [
        "no answer within 1 s; last error: 503 gone for good"
    ] * 3


def test_a_wrong_number_of_answers_is_no_embedding(server: Server) -> None:
    model = load(server.address)
    server.fault = lambda number, _: prediction_server.response([[1.0] * SIZE] * 5)
    with pytest.raises(SomeFailed) as failed:
        embed(model, PICTURES[:3])
    assert {str(result) for result in failed.value.results} == {"5 predictions for 1 images"}


def test_requests_stay_below_the_limit_and_are_few(server: Server) -> None:
    model = load(server.address, {"max_request_bytes": 20_000})
    server.requests.clear()
    np.testing.assert_array_equal(embed(model, PICTURES), expected(PICTURES))
    assert max(server.requests) <= 20_000
    assert len(server.requests) == 5  # two or three images of 5 to 7 KB of base64 in each
    large = Radiograph(RNG.integers(0, 65536, (90, 90), np.uint16))
    with pytest.raises(SomeFailed) as failed:
        embed(model, [PICTURES[0], large, PICTURES[1]])
    first, none, last = failed.value.results
    assert "bytes, 20000 are allowed: set input.size or input.bits" in str(none)
    np.testing.assert_array_equal(np.stack([first, last]), expected(PICTURES[:2]))


def test_a_config_makes_large_ones_fit(server: Server) -> None:
    large = Radiograph(RNG.integers(0, 65536, (90, 90), np.uint16))
    model = load(server.address, {"max_request_bytes": 20_000}, size=(64, 64), bits=8)
    assert embed(model, [large]).shape == (1, SIZE)


def test_requests_in_flight_are_bounded(server: Server) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = load(server.address, {"parallel_requests": 3, "max_request_bytes": 9_000})
    server.fault = lambda number, _: prediction_server.slow(0.05)
    with ThreadPoolExecutor(4) as threads:  # as Beam's
        results = list(threads.map(lambda _: embed(model, PICTURES), range(4)))
    for result in results:
        np.testing.assert_array_equal(result, expected(PICTURES))
    assert server.at_a_time == 3


@pytest.fixture
def job(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / f"in/{number:02d}.dcm").write_bytes(make_dicom(np.roll(GRADIENT, 51 * number)))
    config = tmp_path / "endpoint.toml"

    def start(address: str = server.address, **flags: Any) -> Ran:
        config.write_text(
            f'[endpoint]\naddress = "{address}"\nretry_seconds = 60\ntimeout_seconds = 1\n'
            "max_request_bytes = 30000\n"
        )
        defaults = {
            "input_path": tmp_path / "in", "output_path": tmp_path / "out",
            "model_config": config, "embeddings_project": "my-project",
            "endpoint_id": 123,
        }  # fmt: skip
        return run_here(capsys, **(defaults | flags))

    return start


@pytest.mark.parametrize(
    ("flags", "location"),
    [({}, "us-central1"), ({"endpoint_location": "europe-west4"}, "europe-west4")],
    ids=["as in the published command", "another"],
)
def test_the_location_need_not_be_named(
    job: Any, server: Server, flags: dict[str, str], location: str
) -> None:
    ran = job(limit=1, **flags)
    assert ran.status == 0, ran.err
    assert server.endpoints == {f"projects/my-project/locations/{location}/endpoints/123"}


def test_nothing_is_lost_and_nothing_doubled(job: Any, server: Server, tmp_path: Path) -> None:
    def trouble(number: int, context: Any) -> None:
        if number % 7 == 2:
            context.abort(BUSY, "quota")
        if number % 7 == 4:
            context.abort(AWAY, "restarting")
        if number % 11 == 5:
            prediction_server.slow(1.5)

    server.fault = trouble
    with prediction_server.resetting_proxy(server.address, after_bytes=60_000, times=3) as address:
        ran = job(address)
    assert ran.status == 0, ran.err
    warning = "warning: the images leave this machine"
    assert ran.err.count(warning) == 1
    assert "PNGs in serialized examples in, 24 floats out, on a hosted endpoint," in ran.err
    assert len(records(tmp_path / "out")) == 30
    rows = [row["dicom_id"] for row in table(tmp_path / "out", "embedded")]
    assert sorted(rows) == [f"{number:02d}" for number in range(30)]
    found = cxr_embed.load_embeddings(str(tmp_path / "out"))
    for dicom_id, vector in zip(found.ids, found.values, strict=True):
        picture = cxr_embed.read_radiograph(str(tmp_path / f"in/{dicom_id}.dcm"))
        np.testing.assert_array_equal(vector, embedding_of(picture.pixels))
    fingerprint = manifest(tmp_path / "out")["fingerprint"]
    assert fingerprint["model_sha256"] == ENDPOINT.name
    assert (fingerprint["engine"], fingerprint["precision"]) == ("vertex", "hosted")
    assert "already there  30" in job().out
    assert job(endpoint_id=124).status == 2


def test_images_that_fail_are_rows(job: Any, server: Server, tmp_path: Path) -> None:
    refused = [
        embedding_of(cxr_embed.read_radiograph(str(tmp_path / f"in/{n}.dcm")).pixels)
        for n in ("03", "17")
    ]

    def refuse(vector: list[float]) -> Any:
        if any(np.array_equal(vector, other) for other in refused):
            raise ValueError("cannot")
        return vector

    server.shape = refuse
    big = np.random.default_rng(1).integers(0, 65536, (200, 200), np.uint16)
    (tmp_path / "in/big.dcm").write_bytes(make_dicom(big))
    ran = job()
    assert ran.status == 1
    failures = table(tmp_path / "out", "failures")
    assert [(r["dicom_id"], r["reason"]) for r in failures] == [
        ("03", "model_error"), ("17", "model_error"), ("big", "model_error"),
    ]  # fmt: skip
    assert "30000 are allowed" in failures[2]["detail"]
    assert len(records(tmp_path / "out")) == 28


def test_an_endpoint_that_cannot_be_called_writes_nothing(
    job: Any, server: Server, tmp_path: Path
) -> None:
    server.fault = lambda number, context: context.abort(grpc.StatusCode.NOT_FOUND, "no such")
    ran = job()
    assert ran.status == 2
    assert "404 no such" in ran.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
