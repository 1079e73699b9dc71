"""The leaderboards, and which scenes each of them wants a plan for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from beyonddrive.datasets.navsim.synthetic import TOKEN_LENGTH
from beyonddrive.structures.errors import BeyondDriveError

Form = Literal["v1", "v2"]
"""The form of a file: plans of one stage under PDMS, or of two stages under EPDMS."""
_SHOWN = 5


class SubmissionError(BeyondDriveError, ValueError):
    """A submission is damaged, incomplete, or of another board; the message says which and what to do."""


@dataclass(frozen=True)
class Board:
    """A leaderboard of NAVSIM.

    Attributes:
        name: Name on command lines.
        split: Name of NAVSIM's split files.
        form: Form of its file.
        counts: Scenes of each stage: of one as NAVSIM's scene filter lists them, of two by EPDMS_TWO_STAGE,
            section 0.
        has_pairs: Whether its table of pairs is public, without which it cannot be scored here; one of two
            stages that has none has files of another layout, too (SUBMISSION, section 2).
    """

    name: str
    split: str
    form: Form
    counts: tuple[int, ...] = ()
    has_pairs: bool = True


BOARDS = {
    board.name: board
    for board in (
        Board("navtest", "navtest", "v1", (12146,)),
        Board("warmup", "warmup_two_stage", "v2", (16, 204)),
        Board("navhard", "navhard_two_stage", "v2", (450, 5462)),
        Board("private", "private_test_hard_two_stage", "v2", (140, 1732), has_pairs=False),
    )
}
"""Leaderboards by the name on command lines."""


@dataclass(frozen=True)
class Wanted:
    """Scenes that a file must have plans of.

    Attributes:
        source: Where the lists are from, to name it in errors.
        first: Tokens of original scenes.
        second: Tokens of follow-up scenes; none for a board of one stage.
    """

    source: str
    first: Collection[str]
    second: Collection[str] = ()

    def check(self, found: Iterable[Iterable[str]], what: str) -> None:
        """Compare the scenes of a file with those of the board.

        Args:
            found: Tokens of each stage.
            what: What they are the scenes of.

        Raises:
            SubmissionError: If scenes are missing; with how many, and the first ones.
        """
        for stage, wanted, have in zip(("first", "second"), (self.first, self.second), found, strict=False):
            present = set(have)
            missing = [token for token in wanted if token not in present]
            if not missing:
                continue
            if len(missing) == len(wanted) and present:
                raise SubmissionError(
                    f"{what}: none of its {len(present)} scenes of the {stage} stage is among the "
                    f"{len(wanted)} of {self.source}: it is of another board or split"
                )
            raise SubmissionError(
                f"{what}: {len(missing)} of {len(wanted)} scenes of the {stage} stage have no plan "
                f"({shown(missing)}; {self.source}): with a single one missing there is no score; plan for "
                f"them, or mend the data that they need"
            )

    def with_partners(self, planned: Iterable[str]) -> Wanted:
        """The same, and follow-up scenes that were planned for besides: partners that no list names."""
        followers = [token for token in planned if len(token) == TOKEN_LENGTH]
        return replace(self, second=list(dict.fromkeys([*self.second, *followers])))

    def counts_differ(self, board: Board) -> str:
        """What a board would say of these numbers of scenes; empty if they fit, or are not known."""
        counts = tuple(len(part) for part in (self.first, self.second))[: len(board.counts)]
        if counts == board.counts:
            return ""
        have, want = (" + ".join(map(str, numbers)) for numbers in (counts, board.counts))
        return f"{self.source} has {have} scenes, {board.name} has {want}: this is not the split of the board"


def shown(tokens: Iterable[str]) -> str:
    """The first tokens, and how many more there are.

    >>> shown("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    listed = list(tokens)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
