"""Imports pydicom first, and keeps it from quoting the contents of a file.

python-gdcm, which pydicom imports, imports a module `dl` that Python 2 had. Anything of that name
on the path, such as a folder of deep-learning code, would be imported instead. While pydicom is
being imported there is no such module; afterwards it can be imported as usual.

pydicom warns and logs about odd values with the value in the message, and the value may be a name.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_modules: dict[str, Any] = sys.modules
_hidden = _modules.get("dl")
_modules["dl"] = None  # makes `import dl` raise ImportError
try:
    import pydicom.misc
    import pydicom.pixels
finally:
    if _hidden is None:
        del _modules["dl"]
    else:
        _modules["dl"] = _hidden

_reading = threading.local()


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Keeps pydicom silent in this thread; in other threads it warns as usual.

    Filters of the module `warnings` hold for the whole process, and any code may change them.
    """
    before = _is_muted()
    _reading.is_muted = True
    try:
        yield
    finally:
        _reading.is_muted = before


def _is_muted() -> bool:
    return getattr(_reading, "is_muted", False)


class _Warnings:
    """The module `warnings` as pydicom's one place to warn sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)

    def warn(
        self, message: str, category: type[Warning] | None = None, stacklevel: int = 1
    ) -> None:
        if not _is_muted():
            warnings.warn(message, category, stacklevel + 1)


pydicom.misc.warnings = _Warnings()
logging.getLogger("pydicom").addFilter(lambda _record: not _is_muted())
