"""Several embeddings from one pass of a model: the `[[output]]` tables of a model config."""

from __future__ import annotations

from dataclasses import replace

from cxr_embed.models.config import ModelConfig, NamedOutput, StageConfig


def chain(config: ModelConfig) -> tuple[StageConfig, ...]:
    """Returns the stages that have to run, in order; a single model is a chain of one."""
    single = StageConfig(
        signature=config.signature, input=config.input_name, output=config.output_name
    )
    if not config.outputs:
        return config.stages or (single,)
    places = [place_of(config, output) for output in config.outputs]
    stages = list(config.stages[: max(places) + 1] or (single,))
    last = stages[-1]
    if last.output is None and last.fetch is None:
        # No other stage reads it: any of the wanted tensors is its output.
        names = (o.tensor for o, p in zip(config.outputs, places, strict=True) if p == max(places))
        stages[-1] = replace(last, output=next(filter(None, names), None))
    return tuple(stages)


def further_tensors(config: ModelConfig, place: int) -> tuple[str, ...]:
    """Returns the tensors that a stage gives besides its own output, for a config's outputs."""
    if not config.outputs:
        return ()
    stage = chain(config)[place]
    names = (o.tensor for o in config.outputs if place_of(config, o) == place and o.tensor)
    return tuple(dict.fromkeys(n for n in names if n not in (stage.output, stage.fetch)))


def only(config: ModelConfig, output: NamedOutput) -> ModelConfig:
    """Returns the config that gives one of the outputs by itself.

    It is that of a user who never asked for the others, so that the output's folder has the same
    fingerprint, and an image can be added or searched for with this output alone.
    """
    one = replace(
        config, outputs=(), pooling=output.pooling, embedding_size=output.embedding_size
    )  # fmt: skip
    if not config.stages:
        return replace(one, output_name=output.tensor)
    stages = list(config.stages[: place_of(config, output) + 1])
    last = stages[-1]
    if output.tensor and output.tensor not in (last.output, last.fetch):
        name = {"fetch": output.tensor} if last.fetch else {"output": output.tensor}
        stages[-1] = replace(last, pool=None, **name)  # type: ignore[arg-type]
    return replace(one, stages=tuple(stages))


def parts(config: ModelConfig) -> dict[str, ModelConfig]:
    """Returns the config of each output by itself, by name; empty if there is a single one."""
    return {output.name: only(config, output) for output in config.outputs}


def place_of(config: ModelConfig, output: NamedOutput) -> int:
    """Returns which stage gives an output."""
    if output.stage is None:
        return max(len(config.stages) - 1, 0)
    return [stage.folder for stage in config.stages].index(output.stage)
