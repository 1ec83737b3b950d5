"""Runs a hosted model: sends Predict requests to a Vertex AI endpoint.

An instance is `{"b64": <base64 of a serialized tf.Example>}` and its prediction is a list of
floats, as in CXR Foundation's published service. A request that fails with a temporary error is
retried. Sending an image twice is safe, since each response belongs to its own request.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models import inputs
from cxr_embed.models.config import IMAGE_KEYS, EndpointConfig, ModelConfig
from cxr_embed.models.protocol import SomeFailed
from cxr_embed.models.tf_example import ExampleInput
from cxr_embed.radiograph import Radiograph

if TYPE_CHECKING:
    from cxr_embed.models.settings import Endpoint, ModelSettings

_PNG_COMPRESSION = 6

# Upper estimates in bytes: a request without instances, and the framing of one instance.
_REQUEST_OVERHEAD, _INSTANCE_OVERHEAD = 1024, 64

# The first call checks that the endpoint exists, so that its retries are shorter.
_FIRST_CALL_SECONDS = 60.0

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 32.0

# An internal error may be temporary or caused by the image, so it is retried a few times.
_TRIES_AFTER_INTERNAL_ERRORS = 4

_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\]):\d+")


class VertexModel:
    """A hosted model; see `EmbeddingModel`.

    Args:
        settings: settings with an `endpoint`.

    Raises:
        UsageError: the endpoint cannot be called, or its response is not an embedding.
    """

    device = "a hosted endpoint"
    input: inputs.ImageInput
    max_batch_size: int | None = None

    def __init__(self, settings: ModelSettings) -> None:
        if settings.endpoint is None:
            raise ValueError("no endpoint")
        config = settings.config
        _require_config(config)
        self._endpoint = settings.endpoint
        self._output_name = config.output_name
        self._limits = config.endpoint
        self._client = _connect(settings.endpoint, config.endpoint)
        # All threads of this process share one pool, which limits the concurrent requests.
        self._pool = ThreadPoolExecutor(config.endpoint.parallel_requests, "predict")
        self.best_batch_size = config.endpoint.parallel_requests
        self.input = ExampleInput(_PNG_COMPRESSION, config.size, config.bits)
        self._retry_seconds = min(config.endpoint.retry_seconds, _FIRST_CALL_SECONDS)
        self.embedding_size = config.embedding_size or 0
        self.embedding_size = self._call_once()
        self._retry_seconds = config.endpoint.retry_seconds

    def fit(self, radiograph: Radiograph) -> bytes:
        """Returns a radiograph as a serialized example with a compressed PNG."""
        example = inputs.fit(radiograph, self.input)
        assert isinstance(example, bytes)
        return example

    def embed(self, images: Sequence[bytes]) -> np.ndarray:
        """Returns float32 of shape (n, embedding_size) for n results of `fit`.

        Raises:
            SomeFailed: at least one image failed; it contains the embeddings of the others.
        """
        groups = list(_split(images, self._limits.max_request_bytes))
        answers = self._pool.map(self._embed_group, groups)
        results = [result for answer in answers for result in answer]
        vectors = [result for result in results if isinstance(result, np.ndarray)]
        if len(vectors) < len(results):
            raise SomeFailed(results)
        return np.stack(vectors)

    def _call_once(self) -> int:
        try:
            return len(self.embed([self.fit(inputs.example_radiograph())])[0])
        except SomeFailed as failed:
            raise UsageError(f"{self._endpoint.name}: {failed.results[0]}") from failed

    def _embed_group(self, images: list[bytes]) -> list[np.ndarray | Exception]:
        """Sends one request; returns the embedding or the exception of each image."""
        if len(images) == 1 and (problem := self._why_too_large(images[0])):
            return [problem]
        from google.api_core import exceptions

        try:
            return list(self._predict(images))
        except exceptions.RetryError as error:
            last = one_line(error.cause)
            gave_up = TimeoutError(
                f"no answer within {self._retry_seconds:g} s; last error: {last}"
            )
            return [gave_up] * len(images)
        except Exception as error:
            if len(images) > 1:  # a single image may have caused the error
                return [result for image in images for result in self._embed_group([image])]
            return [error]

    def _predict(self, images: list[bytes]) -> list[np.ndarray]:
        from google.api_core.retry import Retry

        request = _request(self._endpoint.name, images)
        retry = Retry(
            predicate=_may_pass(),
            initial=_FIRST_PAUSE_SECONDS,
            maximum=_LONGEST_PAUSE_SECONDS,
            timeout=self._retry_seconds,
        )

        def call() -> Any:
            return self._client.predict(
                request=request,
                # A dedicated endpoint requires its id here; other endpoints ignore it.
                metadata=[("x-vertex-ai-endpoint-id", self._endpoint.id)],
                timeout=self._limits.timeout_seconds,
                retry=None,
            )

        response = retry(call)()
        # The raw protocol buffer, since the client's wrappers make a Python call for every float.
        predictions = type(response).pb(response).predictions
        if len(predictions) != len(images):
            raise ValueError(f"{len(predictions)} predictions for {len(images)} images")
        return [self._as_vector(prediction) for prediction in predictions]

    def _as_vector(self, prediction: Any) -> np.ndarray:
        vector = np.fromiter(_floats(prediction, self._output_name), np.float32)
        if not vector.size or self.embedding_size not in (0, vector.size):
            raise ValueError(
                f"the endpoint gave {vector.size} floats, not {self.embedding_size or 'any'}"
            )
        return vector

    def _why_too_large(self, image: bytes) -> ValueError | None:
        size, limit = _request_size([image]), self._limits.max_request_bytes
        if size <= limit:
            return None
        return ValueError(
            f"its request has {size} bytes, {limit} are allowed: set input.size or input.bits = 8 "
            "in a model config, or endpoint.max_request_bytes for a dedicated endpoint"
        )


def _require_config(config: ModelConfig) -> None:
    for name in ("signature", "input_name", *IMAGE_KEYS, "pooling", "stages"):
        if getattr(config, name):
            raise UsageError(
                f"the model config sets {name}, which does not apply to an endpoint; valid keys: "
                "input.size, input.bits, output.name, output.embedding_size and [endpoint]"
            )


def _connect(endpoint: Endpoint, config: EndpointConfig) -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else gRPC logs every closed connection
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.aiplatform_v1.services import prediction_service

    address = config.address or f"{endpoint.location}-aiplatform.googleapis.com"
    if _LOOPBACK.fullmatch(address):
        # A tunnel or a test server on this machine. Only a loopback address is called without TLS.
        import grpc  # type: ignore[import-untyped]

        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        transport = prediction_service.transports.PredictionServiceGrpcTransport(
            channel=grpc.insecure_channel(address, unlimited)
        )
        return prediction_service.PredictionServiceClient(transport=transport)
    try:
        return prediction_service.PredictionServiceClient(client_options={"api_endpoint": address})
    except GoogleAuthError as error:
        raise UsageError(
            f"no usable Google Cloud credentials for {endpoint.name}: run "
            f"gcloud auth application-default login ({one_line(error)})"
        ) from error


def _may_pass() -> Callable[[Exception], bool]:
    """Returns a retry predicate for one request; it counts the request's internal errors."""
    from google.api_core import exceptions

    passing = (
        exceptions.TooManyRequests, exceptions.ServiceUnavailable, exceptions.BadGateway,
        exceptions.GatewayTimeout, exceptions.Aborted,
    )  # fmt: skip
    # A connection that breaks during a response may raise any of these.
    internal = (exceptions.InternalServerError, exceptions.Unknown, exceptions.Cancelled)
    tries = 0

    def judge(error: Exception) -> bool:
        nonlocal tries
        if isinstance(error, internal):
            tries += 1
            return tries <= _TRIES_AFTER_INTERNAL_ERRORS
        return isinstance(error, passing)

    return judge


def _request(endpoint: str, images: list[bytes]) -> Any:
    from google.cloud.aiplatform_v1.types import PredictRequest

    request = PredictRequest(endpoint=endpoint)
    instances = PredictRequest.pb(request).instances
    for image in images:
        encoded = instances.add().struct_value.fields["b64"]
        encoded.string_value = base64.b64encode(image).decode()
    return request


def _split(images: Sequence[bytes], limit: int) -> Iterator[list[bytes]]:
    """Yields groups of images in order; each fits in one request or is a single image."""
    group: list[bytes] = []
    for image in images:
        if group and _request_size([*group, image]) > limit:
            yield group
            group = []
        group.append(image)
    yield group


def _request_size(images: list[bytes]) -> int:
    base64_sizes = (-(-len(image) // 3) * 4 + _INSTANCE_OVERHEAD for image in images)
    return _REQUEST_OVERHEAD + sum(base64_sizes)


def _floats(value: Any, name: str | None) -> Iterator[float]:
    """Yields the numbers of a prediction, row by row; it may be a list or a field of a struct."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        yield value.number_value
    elif kind == "list_value":
        for item in value.list_value.values:
            yield from _floats(item, None)
    elif kind == "struct_value":
        fields = value.struct_value.fields
        if name is None and len(fields) == 1:
            name = next(iter(fields))
        if name is None or name not in fields:
            raise ValueError(
                f"the endpoint's predictions have the fields {', '.join(sorted(fields))}: name one "
                "in a model config, output.name"
            )
        yield from _floats(fields[name], None)
    else:
        raise ValueError("the endpoint's prediction is not a list of floats")
