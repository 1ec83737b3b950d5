"""`cxr-embed pack`: many small records into a few large files."""

from __future__ import annotations

import time

from cxr_embed.cli import flags as cli_flags
from cxr_embed.datasets import pack as packing

USAGE = """\
Packs embeddings into Parquet shards, one .npz file or TFRecord shards, with SHA256SUMS.txt and a
dataset card. If it was stopped, the same command continues.

  cxr-embed pack --input_path OUT --output_path PACKED [flags]

Exit status: 0 done; 2 wrong flags or input; 3 stopped by an error."""


def make_flags() -> cli_flags.FlagSet:
    """Returns the verb's flags, unparsed."""
    values = cli_flags.FlagSet()
    values.text(
        "input_path", "an output of the main job, or a packed data set; local or in a bucket"
    )
    values.text(
        "output_path", "a folder for nothing else, created if missing, or a prefix in a bucket"
    )
    values.choice(
        "format",
        "parquet",
        packing.FORMATS,
        "parquet, tfrecord: shards of about 64 MB; npz: one file",
    )
    values.choice("dtype", "float32", packing.DTYPES, "float16 halves the size; not in TFRecords")
    values.switch("normalise", "scale each embedding to length 1 (L2)")
    values.switch("overwrite", "replace a data set that is already there")
    values.number("verbosity", 0, "-1 shows warnings and errors only, 0 also progress", least=-3)
    return values


def main(arguments: list[str]) -> int:
    """Packs; returns the exit status."""
    values = make_flags()
    if cli_flags.begin(values, arguments, USAGE) is None:
        return 0
    values.require("input_path", "output_path")
    from cxr_embed.cli import terminal
    from cxr_embed.cli.progress import counting

    quiet = values.verbosity < 0
    wanted = packing.Pack(
        input_path=values.input_path,
        output_path=values.output_path,
        format=values.format,
        dtype=values.dtype,
        normalise=values.normalise,
        overwrite=values.overwrite,
    )
    clock = time.perf_counter()
    with counting("packing", "embeddings", quiet=quiet) as start:
        result = packing.pack(wanted, terminal.Log(quiet), start)
    print_summary(result, values.output_path, time.perf_counter() - clock)
    return 0


def print_summary(result: packing.Result, folder: str, seconds: float) -> None:
    """Prints what came of packing."""
    plan = result.plan
    scaled = ", scaled to length 1" if plan.normalised else ""
    print(f"embeddings  {plan.rows}, {plan.embedding_size} floats each ({plan.dtype}{scaled})")
    print(f"files       {result.written} written, {result.kept} already there")
    print(f"size        {result.bytes_on_disk / 1e6:.1f} MB")
    print(f"speed       {plan.rows / seconds:.0f} embeddings/s over {seconds:.1f} s")
    print(f"packed      {folder}")
