"""Opens a session of ONNX Runtime on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import re
from typing import Any

from cxr_embed.errors import UsageError, one_line
from cxr_embed.models.onnx.graph_file import needs_extra

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# Without TensorFloat-32, float32 on a GPU matches a CPU, as with TensorFlow.
_CUDA_OPTIONS = {"use_tf32": "0"}
# Errors are raised as well as logged, on several lines.
_NOT_LOGGED = 4

_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed:|/onnxruntime_src/\S+ .*\) "
)


def import_runtime() -> Any:
    """Imports ONNX Runtime.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise needs_extra() from error
    onnxruntime.set_default_logger_severity(_NOT_LOGGED)
    return onnxruntime


def open_session(path: str, device: str, *, is_open: bool) -> tuple[Any, str]:
    """Loads a graph.

    The number of threads is left to ONNX Runtime. The GPU's part is experimental: it was not run
    on one yet.

    Args:
        path: the .onnx file.
        device: `auto`, `cpu` or `gpu`.
        is_open: whether every call may have another image size.

    Returns:
        The session, and `cpu` or `gpu`.

    Raises:
        UsageError: the device is absent, or ONNX Runtime cannot load the graph.
    """
    runtime = import_runtime()
    has_cuda = CUDA in runtime.get_available_providers()
    if device == "gpu" and not has_cuda:
        raise UsageError(
            "--device=gpu: this ONNX Runtime has no CUDA: pip uninstall onnxruntime, then pip "
            "install onnxruntime-gpu"
        )
    if device != "cpu" and has_cuda:
        session = _on_gpu(runtime, path, device, is_open=is_open)
        if session is not None:
            return session, "gpu"
    try:
        return runtime.InferenceSession(path, _options(runtime, is_open), providers=[CPU]), "cpu"
    except Exception as error:
        raise UsageError(
            f"ONNX Runtime cannot load --model_path {path}: {_plain(error)}"
        ) from error


def _on_gpu(runtime: Any, path: str, device: str, *, is_open: bool) -> Any:
    """Returns a session on the GPU; None if `auto` finds that it cannot be used."""
    try:
        session = runtime.InferenceSession(
            path, _options(runtime, is_open), providers=[(CUDA, _CUDA_OPTIONS), CPU]
        )
    except Exception as error:
        if device == "gpu":
            raise UsageError(f"--device=gpu cannot be used: {one_line(error)}") from error
        return None
    # Without a GPU or its libraries, ONNX Runtime takes the CPU and only logs it.
    if CUDA in session.get_providers():
        session.disable_fallback()
        return session
    if device == "gpu":
        raise UsageError(
            "--device=gpu: ONNX Runtime finds no GPU that it can use: check the driver and the "
            "CUDA libraries (nvidia-smi)"
        )
    return None


def _options(runtime: Any, is_open: bool) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _NOT_LOGGED
    if is_open:
        # Memory that is planned or kept for one image size does not serve the next.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
    return options


def _plain(error: Exception) -> str:
    """Returns an error's text without codes, source files and signatures."""
    return one_line(_NOISE.sub("", str(error)))
