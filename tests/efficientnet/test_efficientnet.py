"""EfficientNet: its tables against the papers. Its numbers: see test_against_others.py."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from other_networks import arbitrary_weights

from cxr_embed.efficientnet.architecture import (
    ARCHITECTURES,
    EMBEDDING_KERNEL,
    Architecture,
    convolutions,
    expand_blocks,
    folded_parameter_count,
    weight_layout,
)

B0 = ARCHITECTURES["efficientnet-b0"]
L2 = ARCHITECTURES["efficientnet-l2"]
LITE0 = ARCHITECTURES["efficientnet-lite0"]


def stages(name: str) -> list[tuple[int, int, int, int, int, int]]:
    """One row a stage: kernel, stride, expansion, in, out, repeats."""
    blocks = expand_blocks(ARCHITECTURES[name])
    rows = []
    for stage in range(blocks[-1].stage + 1):
        own = [block for block in blocks if block.stage == stage]
        first = own[0]
        rows.append(
            (
                first.kernel,
                first.stride,
                first.expansion,
                first.in_channels,
                first.out_channels,
                len(own),
            )
        )
    return rows


def learnt(architecture: Architecture, *, with_head: bool = True) -> int:
    """Trainable parameters up to the pooled features, or below the head."""
    layout = weight_layout(architecture)
    names = (name for name in layout if with_head or not name.startswith("head/"))
    return sum(
        math.prod(layout[name]) for name in names if not name.endswith(("/mean", "/variance"))
    )


def test_the_tables_do_not_load_tensorflow() -> None:
    code = (
        "import sys, cxr_embed.efficientnet.architecture, cxr_embed.efficientnet.weights, "
        "cxr_embed.efficientnet.export, cxr_embed.efficientnet.checkpoints; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_l2_has_the_blocks_of_the_paper() -> None:
    assert stages("efficientnet-l2") == [
        (3, 1, 1, 136, 72, 6),
        (3, 2, 6, 72, 104, 11),
        (5, 2, 6, 104, 176, 11),
        (3, 2, 6, 176, 344, 16),
        (5, 1, 6, 344, 480, 16),
        (5, 2, 6, 480, 824, 22),
        (3, 1, 6, 824, 1376, 6),
    ]
    assert (L2.stem_channels, L2.features) == (136, 5504)


def test_a_stage_strides_once_and_skips_after_it() -> None:
    for block in expand_blocks(L2):
        assert block.stride == 1 or block.index == 0
        assert block.has_skip == (block.index > 0)


def test_squeeze_channels_are_a_quarter_of_the_blocks_input() -> None:
    assert {block.squeeze_channels * 4 == block.in_channels for block in expand_blocks(L2)} == {
        True
    }
    assert {block.squeeze_channels for block in expand_blocks(LITE0)} == {0}


def test_lite_variants_keep_stem_head_and_the_end_stages() -> None:
    larger = dataclasses.replace(LITE0, width=1.4, depth=1.8)
    assert (larger.stem_channels, larger.features) == (32, 1280)
    repeats = [sum(block.stage == stage for block in expand_blocks(larger)) for stage in range(7)]
    assert repeats == [1, 4, 4, 6, 6, 8, 1]


def test_parameter_counts_are_the_published_ones() -> None:
    assert learnt(B0) == 4_007_548
    assert learnt(L2, with_head=False) == pytest.approx(467.2e6, abs=0.05e6)
    # With the classifier's 5,505,000, timm's 480.3 M for L2.
    assert learnt(L2) + 5504 * 1000 + 1000 == pytest.approx(480.3e6, abs=0.05e6)
    # With a classifier of 1,000 classes, the lite announcement's 4.7 M.
    assert learnt(LITE0) + 1281 * 1000 == pytest.approx(4.65e6, abs=0.05e6)


def test_the_layout_lists_every_weight_in_network_order() -> None:
    layout = weight_layout(B0, embedding_size=4096)
    names = list(layout)
    assert names[:5] == [
        "stem/kernel",
        "stem/norm/gamma",
        "stem/norm/beta",
        "stem/norm/mean",
        "stem/norm/variance",
    ]
    assert layout["stem/kernel"] == (3, 3, 3, 32)
    assert layout["blocks/01/depthwise/kernel"] == (3, 3, 96, 1)
    assert layout["blocks/01/squeeze/bias"] == (4,)
    assert names[-1] == EMBEDDING_KERNEL
    assert layout[EMBEDDING_KERNEL] == (1280, 4096)
    assert EMBEDDING_KERNEL not in weight_layout(B0)


def test_folding_leaves_a_kernel_and_a_bias_for_each_convolution() -> None:
    norms = [item.out_channels for item in convolutions(L2) if item.normalised]
    assert folded_parameter_count(L2) == learnt(L2) - sum(norms)
    assert folded_parameter_count(L2, 4096) == folded_parameter_count(L2) + 5504 * 4096


def test_the_mean_is_subtracted_before_the_stem_pads() -> None:
    """An image of the mean colour is all zeros to the stem, up to its very border."""
    from cxr_embed.efficientnet import graph as efficientnet_graph
    from cxr_embed.efficientnet.graph import raw_convolution

    seen = {}

    def convolve(inputs: Any, name: str, stride: int = 1) -> Any:
        seen.setdefault(name, np.asarray(inputs))
        item = next(item for item in convolutions(B0) if item.name == name)
        kernel = np.ones(item.kernel, np.float32)
        return raw_convolution(inputs, kernel, stride=stride, depthwise=item.depthwise)

    mean = np.float32(B0.normalisation.mean)
    image = np.broadcast_to(mean, (1, 32, 32, 3)).copy()
    image[0, 0, 0] = mean + np.float32(B0.normalisation.std)
    efficientnet_graph.pooled_features(B0, image, convolve)
    assert seen["stem"][0, 0, 0] == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)
    assert np.abs(seen["stem"][0, 1:]).max() < 1e-6


def test_folding_uses_the_weights_up() -> None:
    """A network of 2 GB must not be in memory twice."""
    from cxr_embed.efficientnet.graph import FoldedEfficientNet

    weights = arbitrary_weights(B0)
    network = FoldedEfficientNet(B0, weights)
    assert weights == {}
    assert sum(int(np.prod(item.shape)) for item in network.variables) == folded_parameter_count(B0)
