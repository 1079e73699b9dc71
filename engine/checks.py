"""Checks of a machine and its data: one line each, what to do about it, and an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from beyonddrive.structures.errors import describe_error

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing.

    Attributes:
        name: What was looked at.
        status: ``warn`` is what may cost time or scenes, ``fail`` what makes work stop or numbers wrong.
        message: What was found, in one line.
        remedy: What to do about it; empty if nothing has to be done.
        facts: The same as JSON values, for programs.

    >>> print(Check("disk", "warn", "2 GB free", "free 3 GB"))
    warn  disk         2 GB free: free 3 GB
    """

    name: str
    status: Status
    message: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        line = f"{self.status:<5} {self.name:<12} {self.message}"
        return f"{line}: {self.remedy}" if self.remedy else line


def attempt(name: str, check: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks that a function makes; a check that breaks is one that fails, and the others go on.

    >>> print(attempt("division", lambda: [Check("a", "ok", str(1 / 0))])[0])
    fail  division     ZeroDivisionError: division by zero
    """
    try:
        return list(check())
    except Exception as error:
        return [Check(name, "fail", describe_error(error))]


def exit_code(checks: Sequence[Check]) -> int:
    """1 if one of the checks has failed.

    >>> exit_code([Check("a", "ok", ""), Check("b", "warn", "")])
    0
    """
    return int(any(check.status == "fail" for check in checks))


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as JSON values, with the exit code that they give."""
    return {"exit_code": exit_code(checks), "checks": [asdict(check) for check in checks]}
