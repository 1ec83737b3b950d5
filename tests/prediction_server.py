"""A local server of Vertex AI's Predict method that can be busy, slow, broken or cut off."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import cv2
import grpc
import numpy as np
import tensorflow as tf
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse
from google.protobuf import json_format

SIZE = 24
PREDICT = "/google.cloud.aiplatform.v1.PredictionService/Predict"

# Called with the request's number, from 1; may abort, sleep or return another response.
Fault = Callable[[int, Any], PredictResponse | None]


def embedding_of(pixels: np.ndarray) -> np.ndarray:
    """Returns what the server answers for an image: numbers that no other image gets."""
    header = f"{pixels.dtype}{pixels.shape}".encode()
    digest = hashlib.sha3_512(header + np.ascontiguousarray(pixels).tobytes()).digest()
    return np.frombuffer(digest[:SIZE], np.uint8).astype(np.float32)


def pixels_of(instance: Any) -> np.ndarray:
    """Returns the image of one instance, read without the code under test that wrote it."""
    example = base64.b64decode(instance.struct_value.fields["b64"].string_value, validate=True)
    found = tf.train.Example.FromString(example).features.feature
    assert list(found["image/format"].bytes_list.value) == [b"png"]
    (png,) = found["image/encoded"].bytes_list.value
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


class Server:
    """What the server has seen.

    Attributes:
        address: where it listens.
        fault: what goes wrong; called with each request.
        shape: turns an embedding into a prediction.
        requests: sizes in bytes of all requests.
        answered: how often each image was answered, by its embedding.
        at_a_time: the most requests that were in flight together.
    """

    def __init__(self) -> None:
        self.address = ""
        self.fault: Fault = lambda number, context: None
        self.shape: Callable[[list[float]], Any] = lambda vector: vector
        self.requests: list[int] = []
        self.answered: Counter[bytes] = Counter()
        self.endpoints: set[str] = set()
        self.at_a_time = self._in_flight = 0
        self._lock = threading.Lock()

    def predict(self, data: bytes, context: Any) -> PredictResponse:
        with self._lock:
            self.requests.append(len(data))
            number = len(self.requests)
            self._in_flight += 1
            self.at_a_time = max(self.at_a_time, self._in_flight)
        try:
            request = PredictRequest.pb(PredictRequest()).FromString(data)
            self.endpoints.add(request.endpoint)
            other = self.fault(number, context)
            if other is not None:
                return other
            vectors = [embedding_of(pixels_of(instance)) for instance in request.instances]
            with self._lock:
                self.answered.update(vector.tobytes() for vector in vectors)
            return response([self.shape(vector.tolist()) for vector in vectors])
        finally:
            with self._lock:
                self._in_flight -= 1


def response(predictions: list[Any]) -> PredictResponse:
    """Returns a response with these predictions: lists, numbers, texts or records."""
    whole = PredictResponse()
    for item in predictions:
        json_format.ParseDict(item, PredictResponse.pb(whole).predictions.add())
    return whole


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Runs a server on the loopback."""
    state = Server()
    handler = grpc.unary_unary_rpc_method_handler(
        state.predict, response_serializer=PredictResponse.serialize
    )
    service, method = PREDICT.strip("/").split("/")
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=unlimited)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {method: handler})]
    )
    state.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield state
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def resetting_proxy(target: str, after_bytes: int, times: int) -> Iterator[str]:
    """Passes connections on, and resets the first `times` of them after so many bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [times]

    def pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if limit is not None and passed > limit:
                    # No linger: closing sends a reset, not an end.
                    for end in (source, sink):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR) if limit is None else end.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                host, _, port = target.partition(":")
                upstream = socket.create_connection((host, int(port)))
                limit = after_bytes if left[0] > 0 else None
                left[0] -= 1
                for ends in ((client, upstream, limit), (upstream, client, None)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def slow(seconds: float) -> None:
    """Takes its time."""
    time.sleep(seconds)
