"""`cxr-embed export-model`: writes the reference network as a SavedModel or ONNX graph."""

from __future__ import annotations

from cxr_embed import storage
from cxr_embed.cli import flags as cli_flags
from cxr_embed.efficientnet.architecture import ARCHITECTURES
from cxr_embed.errors import UsageError

USAGE = """\
Writes an EfficientNet as a TensorFlow SavedModel (batch norm folded, each weight once, signatures
for images and for serialized tf.Examples) or as an ONNX graph for images.

  cxr-embed export-model --output DIR [flags]

Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()
    values.choice("architecture", "efficientnet-l2", ARCHITECTURES, "which network")
    values.choice(
        "format",
        "saved_model",
        ["saved_model", "onnx"],
        "onnx: model.onnx and a file of weights beside it (extra onnx)",
    )
    values.number(
        "image_size", 0, "rows and columns of the input; 0 is the architecture's own size", least=0
    )
    values.number(
        "embedding_size",
        4096,
        "floats in an embedding; 0 writes the pooled features themselves",
        least=0,
    )
    values.text(
        "weights", "random (untrained, seeded), or a file of trained weights", default="random"
    )
    values.number("seed", 0, "seed of random weights and projections")
    values.text("output", "the local folder to write")
    values.switch("overwrite", "replace an existing folder")
    return values


def main(arguments: list[str]) -> int:
    """Exports a model; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    values.require("output")
    if not storage.is_on_disk(values.output):
        raise UsageError(
            f"--output {values.output} is not a local folder: copy the model there later"
        )
    from cxr_embed.efficientnet.export import export_model

    report = export_model(
        values.output,
        architecture=values.architecture,
        image_size=values.image_size,
        embedding_size=values.embedding_size,
        weights=values.weights,
        seed=values.seed,
        overwrite=values.overwrite,
        format=values.format,
    )
    trained = "trained" if report.trained else "untrained, of no clinical meaning"
    print(
        f"{report.path}: {report.architecture}, {report.image_size} x {report.image_size} in, "
        f"{report.embedding_size} floats out, {trained}; {report.bytes_on_disk / 1e6:.0f} MB in "
        f"{report.seconds:.0f} s"
    )
    return 0
