"""Fills the generated parts of docs/ from the code, which is the one place for each fact."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from absl.flags import FlagValues

from cxr_embed.cli import (
    evaluate,
    few_shot,
    inspect,
    pack,
    predict,
    report,
    run,
    search,
    train,
    verify,
)
from cxr_embed.cli.flags import shown_default, without_choices
from cxr_embed.datasets.findings import NOTES, PROBLEMS, REPAIRABLE
from cxr_embed.outcomes import FAILURE_REASONS, SKIP_REASONS, WARNINGS

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def _flags(values: FlagValues) -> str:
    rows = ["| flag | meaning | default |", "| --- | --- | --- |"]
    for name in values:
        flag = values[name]
        choices = getattr(flag.parser, "enum_values", None)
        meaning = without_choices(flag.help)
        if choices:
            meaning = f"`{'`, `'.join(choices)}`: {meaning}"
        default = "-" if flag.default is None else f"`{flag.default}`"
        if isinstance(flag.default, bool):
            default = shown_default(flag)
        rows.append(f"| `--{name}` | {meaning} | {default} |".replace("<", "&lt;"))
    return "\n".join(rows)


def _reasons() -> str:
    rows = ["| outcome | stage | reason | meaning |", "| --- | --- | --- | --- |"]
    rows += [
        f"| failed | {r.stage} | `{code}` | {r.meaning} |" for code, r in FAILURE_REASONS.items()
    ]
    rows += [f"| skipped | - | `{code}` | {meaning} |" for code, meaning in SKIP_REASONS.items()]
    return "\n".join(rows)


def _warnings() -> str:
    rows = ["| warning | meaning |", "| --- | --- |"]
    rows += [f"| `{code}` | {meaning} |" for code, meaning in WARNINGS.items()]
    return "\n".join(rows)


def _findings() -> str:
    rows = ["| kind | code | meaning | `--repair` |", "| --- | --- | --- | --- |"]
    rows += [
        f"| problem | `{code}` | {meaning} | {'removes it' if code in REPAIRABLE else '-'} |"
        for code, meaning in PROBLEMS.items()
    ]
    rows += [
        f"| note | `{code}` | {meaning} | {'removes it' if code == 'leftover' else '-'} |"
        for code, meaning in NOTES.items()
    ]
    return "\n".join(rows)


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "flags": ("flags.md", lambda: _flags(run.make_flags())),
    "train": ("heads.md", lambda: _flags(train.make_flags())),
    "predict": ("heads.md", lambda: _flags(predict.make_flags())),
    "evaluate": ("heads.md", lambda: _flags(evaluate.make_flags())),
    "few-shot": ("heads.md", lambda: _flags(few_shot.make_flags())),
    "findings": ("datasets.md", _findings),
    "pack": ("datasets.md", lambda: _flags(pack.make_flags())),
    "verify": ("datasets.md", lambda: _flags(verify.make_flags())),
    "inspect": ("inspect.md", lambda: _flags(inspect.make_flags())),
    "reasons": ("outputs.md", _reasons),
    "report": ("report.md", lambda: _flags(report.make_flags())),
    "search": ("search.md", lambda: _flags(search.make_flags())),
    "warnings": ("pixels.md", _warnings),
}


def updated(part: str) -> tuple[Path, str]:
    """Returns a page and its expected content."""
    name, make = PARTS[part]
    path = _DOCS / name
    pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", re.DOTALL)
    return path, pattern.sub(lambda match: f"{match[1]}{make()}\n{match[2]}", path.read_text())


if __name__ == "__main__":
    for part in PARTS:
        page, text = updated(part)
        page.write_text(text)
