"""Regular expressions that are compiled when they are first used."""

from __future__ import annotations

import re
from typing import Any, cast


def later(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """*pattern*, compiled when one of its methods is first looked up. All of the package's together
    take 4 ms, for which start-up need not wait: most are for the worker's thread or for errors."""
    return cast("re.Pattern[str]", _Later(pattern, flags))


class _Later:
    def __init__(self, *given: Any) -> None:
        self._given = given

    def __getattr__(self, name: str) -> Any:
        """Only for what is not known yet: what is found is kept."""
        found = getattr(re.compile(*self._given), name)
        setattr(self, name, found)
        return found
