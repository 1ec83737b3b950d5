"""Maps the weight names of `architecture.weight_layout` to those of published checkpoints.

Sources: timm/models/_efficientnet_blocks.py and _efficientnet_builder.py; the variables that
tensorflow/tpu, models/official/efficientnet creates, which Noisy Student's checkpoints share; and
efficientnet_pytorch/model.py of PyPI's efficientnet-pytorch, whose names efficientnet-lite-pytorch
shares.
"""

from __future__ import annotations

from cxr_embed.efficientnet.architecture import Architecture, Block, expand_blocks

_TIMM_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
_TF_NORM = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def timm_names(architecture: Architecture) -> dict[str, str]:
    """Maps our names to those of timm's `tf_efficientnet_*`, without the classifier."""
    names: dict[str, str] = {}

    def add(ours: str, convolution: str, norm: str) -> None:
        names[f"{ours}/kernel"] = f"{convolution}.weight"
        names.update({f"{ours}/norm/{part}": f"{norm}.{_TIMM_NORM[part]}" for part in _TIMM_NORM})

    add("stem", "conv_stem", "bn1")
    for block in expand_blocks(architecture):
        theirs = f"blocks.{block.stage}.{block.index}"
        # In timm, a block without expansion is another class, whose conv_pw is the projection.
        layers = (
            ("conv_dw", "conv_pw") if block.expansion == 1 else ("conv_pw", "conv_dw", "conv_pwl")
        )
        for number, (step, layer) in enumerate(zip(_steps(block), layers, strict=True), start=1):
            add(f"{block.name}/{step}", f"{theirs}.{layer}", f"{theirs}.bn{number}")
        if block.squeeze_channels:
            for ours, layer in (("squeeze", "se.conv_reduce"), ("excite", "se.conv_expand")):
                names[f"{block.name}/{ours}/kernel"] = f"{theirs}.{layer}.weight"
                names[f"{block.name}/{ours}/bias"] = f"{theirs}.{layer}.bias"
    add("head", "conv_head", "bn2")
    return names


def efficientnet_pytorch_names(architecture: Architecture) -> dict[str, str]:
    """Maps our names to those of PyPI's efficientnet-pytorch, without the classifier."""
    names: dict[str, str] = {}

    def add(ours: str, convolution: str, norm: str) -> None:
        names[f"{ours}/kernel"] = f"{convolution}.weight"
        names.update({f"{ours}/norm/{part}": f"{norm}.{_TIMM_NORM[part]}" for part in _TIMM_NORM})

    add("stem", "_conv_stem", "_bn0")
    for place, block in enumerate(expand_blocks(architecture)):
        theirs = f"_blocks.{place}"
        for step in _steps(block):
            number = ("expand", "depthwise", "project").index(step)
            add(f"{block.name}/{step}", f"{theirs}._{step}_conv", f"{theirs}._bn{number}")
        if block.squeeze_channels:
            for ours, layer in (("squeeze", "_se_reduce"), ("excite", "_se_expand")):
                names[f"{block.name}/{ours}/kernel"] = f"{theirs}.{layer}.weight"
                names[f"{block.name}/{ours}/bias"] = f"{theirs}.{layer}.bias"
    add("head", "_conv_head", "_bn1")
    return names


def tensorflow_names(architecture: Architecture) -> dict[str, str]:
    """Maps our names to those of the TensorFlow checkpoints, without scope and classifier."""
    names: dict[str, str] = {}

    def add(ours: str, kernel: str, norm: str) -> None:
        names[f"{ours}/kernel"] = kernel
        names.update({f"{ours}/norm/{part}": f"{norm}/{_TF_NORM[part]}" for part in _TF_NORM})

    add("stem", "stem/conv2d/kernel", "stem/tpu_batch_normalization")
    for place, block in enumerate(expand_blocks(architecture)):
        theirs = f"blocks_{place}"
        # TensorFlow numbers the layers of one type in the order of their creation.
        pointwise = iter(("conv2d/kernel", "conv2d_1/kernel"))
        for number, step in enumerate(_steps(block)):
            depthwise = step == "depthwise"
            kernel = "depthwise_conv2d/depthwise_kernel" if depthwise else next(pointwise)
            norm = "tpu_batch_normalization" + (f"_{number}" if number else "")
            add(f"{block.name}/{step}", f"{theirs}/{kernel}", f"{theirs}/{norm}")
        if block.squeeze_channels:
            for ours, layer in (("squeeze", "se/conv2d"), ("excite", "se/conv2d_1")):
                names[f"{block.name}/{ours}/kernel"] = f"{theirs}/{layer}/kernel"
                names[f"{block.name}/{ours}/bias"] = f"{theirs}/{layer}/bias"
    add("head", "head/conv2d/kernel", "head/tpu_batch_normalization")
    return names


def _steps(block: Block) -> tuple[str, ...]:
    """Returns the names of a block's convolutions with batch norm, in order."""
    return ("depthwise", "project") if block.expansion == 1 else ("expand", "depthwise", "project")
