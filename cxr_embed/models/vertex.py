"""A model behind a Vertex AI endpoint, called with Predict requests.

An instance is `{"b64": <base64 of a serialized tf.Example>}` and its prediction a list of floats,
as CXR Foundation's service was published. A request that fails for a reason that may pass is sent
again; sending an image twice changes nothing, since each answer is matched to its own request.
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
from cxr_embed.models.config import EndpointConfig, ModelConfig
from cxr_embed.models.protocol import SomeFailed
from cxr_embed.models.tf_example import ExampleInput
from cxr_embed.radiograph import Radiograph

if TYPE_CHECKING:
    from cxr_embed.models.settings import Endpoint, ModelSettings

_PNG_COMPRESSION = 6

# Endpoint name and frame of a request, and what surrounds each instance in it.
_REQUEST_OVERHEAD, _INSTANCE_OVERHEAD = 1024, 64

# The first call shows whether the endpoint is there at all; nobody wants to wait long for a no.
_FIRST_CALL_SECONDS = 60.0

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 32.0

# Errors inside the endpoint may lie in the image as well as in the moment: they get a few tries.
_TRIES_AFTER_INTERNAL_ERRORS = 4

_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\]):\d+")


class VertexModel:
    """A hosted model; see `EmbeddingModel`.

    Args:
        settings: with `endpoint` set.

    Raises:
        UsageError: the endpoint cannot be called, or its answer is no embedding.
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
        # One pool for all of this process's threads bounds the requests in flight.
        self._pool = ThreadPoolExecutor(config.endpoint.parallel_requests, "predict")
        self.best_batch_size = config.endpoint.parallel_requests
        self.input = ExampleInput(_PNG_COMPRESSION, config.size, config.bits)
        self._retry_seconds = min(config.endpoint.retry_seconds, _FIRST_CALL_SECONDS)
        self.embedding_size = config.embedding_size or 0
        self.embedding_size = self._call_once()
        self._retry_seconds = config.endpoint.retry_seconds

    def fit(self, radiograph: Radiograph) -> bytes:
        """Returns a radiograph as a serialized example around a compressed PNG."""
        example = inputs.fit(radiograph, self.input)
        assert isinstance(example, bytes)
        return example

    def embed(self, images: Sequence[bytes]) -> np.ndarray:
        """Returns float32 of shape (n, embedding_size) for fitted radiographs.

        Raises:
            SomeFailed: at least one image got no embedding; it holds those of the others.
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
        """Sends one request; returns for each image its embedding or why it has none."""
        if len(images) == 1 and (problem := self._why_too_large(images[0])):
            return [problem]
        from google.api_core import exceptions

        try:
            return list(self._predict(images))
        except exceptions.RetryError as error:
            last = one_line(error.cause)
            gave_up = TimeoutError(f"no answer within {self._retry_seconds:g} s; at last: {last}")
            return [gave_up] * len(images)
        except Exception as error:
            if len(images) > 1:  # one of them may be to blame
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
                # A dedicated endpoint wants its own id once more; others do not mind.
                metadata=[("x-vertex-ai-endpoint-id", self._endpoint.id)],
                timeout=self._limits.timeout_seconds,
                retry=None,
            )

        response = retry(call)()
        # The plain protocol buffer: the client's wrappers take a call of Python for every float.
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
    for name in ("signature", "input_name", "range", "preprocessing", "pooling", "stages", "xla"):
        if getattr(config, name):
            raise UsageError(
                f"the model config sets {name}, which means nothing at an endpoint; known there: "
                "input.size, input.bits, output.name, output.embedding_size and [endpoint]"
            )


def _connect(endpoint: Endpoint, config: EndpointConfig) -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it tells of every connection that ends
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.aiplatform_v1.services import prediction_service

    address = config.address or f"{endpoint.location}-aiplatform.googleapis.com"
    if _LOOPBACK.fullmatch(address):
        # A tunnel or a stand-in on this machine: the only place that images go to in the clear.
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
    """Returns a judge, for one request, of which errors are worth another try."""
    from google.api_core import exceptions

    passing = (
        exceptions.TooManyRequests, exceptions.ServiceUnavailable, exceptions.BadGateway,
        exceptions.GatewayTimeout, exceptions.Aborted,
    )  # fmt: skip
    # A connection that breaks in mid-answer may show as either.
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
    """Yields the images in order, as many at a time as one request may hold; at least one."""
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
    """Yields the numbers of a prediction, row by row, whether bare or the field of a record."""
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
        raise ValueError("the endpoint's prediction is no list of floats")
