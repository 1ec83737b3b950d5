"""Whether several sets of embeddings were made with the same settings, as their outputs record."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from cxr_embed.errors import UsageError
from cxr_embed.runs.fingerprint import Fingerprint, differences, read_output_config
from cxr_embed.runs.fingerprint import merged as merged_fingerprint


def common_fingerprint(
    names: Sequence[str], mixed_settings: bool, log: Callable[[str], None] = lambda _: None
) -> Fingerprint | None:
    """Returns how all sets of embeddings were made.

    Args:
        names: their paths.
        mixed_settings: accept sets that were made with different settings.
        log: receives warnings.

    Returns:
        What they record; None where one does not record it, or they differ.

    Raises:
        UsageError: they differ.
    """
    configs = [read_output_config(name) for name in names]
    fingerprints = [None if config is None else config.fingerprint for config in configs]
    known = [(n, f) for n, f in zip(names, fingerprints, strict=True) if f is not None]
    for name, other in known[1:]:
        changed = differences(known[0][1], other)
        if changed:
            line = (
                f"{known[0][0]} and {name} were made with different settings ({', '.join(changed)})"
            )
            if not mixed_settings:
                raise UsageError(
                    f"{line}: pass --mixed_settings, in Python mixed_settings=True, if you know "
                    "that they fit"
                )
            log(f"warning: {line}")
            return None
    if len(known) == len(names):
        return functools.reduce(merged_fingerprint, [f for _, f in known])
    if len(names) > 1:
        unknown = next(n for n, f in zip(names, fingerprints, strict=True) if f is None)
        log(
            f"warning: {unknown} does not record how its embeddings were made: the sets may not fit"
        )
    return None
