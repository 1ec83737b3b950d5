"""Names an installed engine that is known to give the same embeddings in less time."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

from cxr_embed.models.kinds import DESCRIPTION_FILE
from cxr_embed.models.settings import ModelSettings

_PROCESSORS = Path("/proc/cpuinfo")
# There OpenVINO took 1 / 1.33 of the time of TensorFlow for EfficientNet-L2 in float32, with
# a cosine of 1.000000 (benchmarks/engines.py). On an AMD EPYC it was 1 / 1.18: no hint.
_FASTER_ON = ("GenuineIntel", "avx512f")
_GPU = Path("/dev/nvidia0")


def other_engines(settings: ModelSettings) -> list[ModelSettings]:
    """Returns the settings of the same model on each other engine that is installed and runs it."""
    if settings.engine != "tensorflow" or settings.config.outputs or settings.config.stages:
        return []
    if (
        settings.device not in ("auto", "cpu")
        or _GPU.exists()
        or not importlib.util.find_spec("openvino")
    ):
        return []
    return [replace(settings, engine="openvino", device="cpu")]


def hint(settings: ModelSettings, processors: Path = _PROCESSORS) -> str:
    """Returns one line if another installed engine is at least 1.2 times as fast, else nothing.

    Nothing is measured here, so it only speaks of what was measured: an exported EfficientNet-L2
    in float32 on a processor like the measured ones.

    Args:
        settings: a local model that runs on the CPU.
        processors: the kernel's description of the processors.
    """
    if settings.precision != "float32" or not _is_measured(settings):
        return ""
    try:
        known = processors.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    if not other_engines(settings) or not all(word in known for word in _FASTER_ON):
        return ""
    return (
        "hint: --engine=openvino is installed, and takes about three quarters of the time for this "
        "network on such a processor; cxr-embed benchmark measures both"
    )


def _is_measured(settings: ModelSettings) -> bool:
    """Whether this program exported the model, and it is the network that was measured."""
    if settings.revision or settings.endpoint is not None:
        return False
    try:
        text = (Path(settings.path) / DESCRIPTION_FILE).read_text(encoding="utf-8")
        return str(json.loads(text)["architecture"]) == "efficientnet-l2"
    except (OSError, ValueError, KeyError, TypeError):
        return False
