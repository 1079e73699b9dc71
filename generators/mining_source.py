"""Scenes as mining reads them, and the shards they are cut into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch.utils.data import DataLoader, Dataset

from beyonddrive.datasets.stores.fingerprints import Sources
from beyonddrive.datasets.transforms.augmentation import Augmentation
from beyonddrive.datasets.transforms.negative_controls import PerturbedNegatives
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.engine.wrapped_datasets import lost_scenes, tokens_of, unwrapped
from beyonddrive.structures.errors import BeyondDriveError, describe_error

OF_TRAINING = (LoadNegatives, PerturbedNegatives, Augmentation)
"""Transforms that scenes to mine do not go through: what reads or replaces negatives, and augmentations."""


class MiningError(BeyondDriveError, ValueError):
    """A mining job cannot start; the message says what to change."""


class LoadedScene(NamedTuple):
    """A scene: a packed sample, or the reason why there is none.

    The sample is ``dict(inputs=..., data_samples=...)``; ``data_samples.gt.trajectory`` (8, 3) is the expert.
    """

    token: str
    log_name: str
    sample: dict[str, Any] | None
    reason: str = ""


class MiningSource(Protocol):
    """Scenes to mine: ``source[i]`` reads ``source.tokens[i]`` and does not raise if it cannot."""

    @property
    def tokens(self) -> Sequence[str]:
        """Scene tokens, each once."""
        ...

    @property
    def lost(self) -> Mapping[str, str]:
        """Tokens of scenes, or names of logs, that should be there and are not, with the reason."""
        ...

    def __getitem__(self, index: int) -> LoadedScene:
        """Read a scene."""
        ...


class DatasetSource:
    """A data set whose bad scenes give a reason instead of an exception.

    Args:
        dataset: A data set, maybe in mmengine's wrappers, whose samples are packed by ``PackPlanInputs``;
            such as :class:`beyonddrive.datasets.navsim_dataset.NavsimDataset`.

    Attributes:
        tokens: Scene tokens, in the order of the data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.tokens = tokens_of(dataset)

    @property
    def lost(self) -> dict[str, str]:
        """Tokens of scenes, or names of logs, that should be there and are not, with the reason."""
        return {scene.token or scene.log_name: scene.reason for scene in lost_scenes(self.dataset)}

    @property
    def sources(self) -> Sources:
        """Logs and maps that the data sets were made from; nothing of those that do not say."""
        return {
            name: source
            for part in unwrapped(self.dataset)
            for name, source in getattr(part, "sources", {}).items()
        }

    def __getitem__(self, index: int) -> LoadedScene:
        """Read a scene."""
        token = self.tokens[index]
        try:
            sample = self.dataset[index]
            return LoadedScene(token, sample["data_samples"].metainfo["log_name"], sample)
        except Exception as error:
            # Whatever is wrong with one scene of a hundred thousand, it is named and the rest goes on.
            return LoadedScene(token, "", None, describe_error(error, token))


@dataclass(frozen=True)
class Shard:
    """Scenes that are written together: their positions in the source."""

    name: str
    indices: tuple[int, ...]


def plan_shards(tokens: Sequence[str], size: int) -> list[Shard]:
    """Cut scenes into shards of ``size``, in their order.

    Raises:
        MiningError: If there are no scenes, a token occurs twice or the size is not positive.

    >>> [shard.indices for shard in plan_shards(['a', 'b', 'c'], 2)]
    [(0, 1), (2,)]
    """
    if size < 1:
        raise MiningError(f"shard_size: must be at least 1, got {size}")
    if not tokens:
        raise MiningError("there are no scenes to mine; check split and scene_filter of the data set")
    token, count = Counter(tokens).most_common(1)[0]
    if count > 1:
        raise MiningError(f"scene {token} occurs {count} times in the data set; leave out all but one")
    starts = range(0, len(tokens), size)
    return [
        Shard(f"shard-{number:05d}", tuple(range(start, min(start + size, len(tokens)))))
        for number, start in enumerate(starts)
    ]


class _Readable(Dataset[LoadedScene]):
    """A source as torch's data loader wants it."""

    def __init__(self, source: MiningSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source.tokens)

    def __getitem__(self, index: int) -> LoadedScene:
        return self.source[index]


def read_batches(
    source: MiningSource, batches: Sequence[Sequence[int]], num_workers: int
) -> Iterator[list[LoadedScene]]:
    """Read batches of scenes in their order, ahead of time in ``num_workers`` processes if there are any."""
    # (the loader's type for batches is narrower than what it takes)
    loader: DataLoader[list[LoadedScene]] = DataLoader(
        _Readable(source),  # type: ignore[arg-type]
        batch_sampler=[list(batch) for batch in batches],
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context="spawn" if num_workers else None,
    )
    yield from loader
