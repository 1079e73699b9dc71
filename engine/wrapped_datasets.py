"""Data sets under mmengine's wrappers: what loops, hooks and checks need to know of them.

Wrappers such as ``ConcatDataset`` and ``RepeatDataset`` hold other data sets and pass on ``get_data_info``,
whose ``token`` says which scene a sample is of.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.logging import print_log

from beyonddrive.structures.errors import BeyondDriveError

_SHOWN = 5


class LostScenesError(BeyondDriveError, ValueError):
    """Scenes of a training split are missing; the message says which, why, and how to go on without them."""


class BadScene(NamedTuple):
    """A scene without a plan, and the reason.

    ``token`` is empty for a whole log that cannot be read: nobody knows which scenes it would have had.
    """

    token: str
    reason: str
    log_name: str = ""


def unwrapped(dataset: Any) -> list[Any]:
    """The data sets that wrappers draw their samples from, each once; the data set itself without wrapper."""
    inner = _inner(getattr(dataset, "datasets", None), getattr(dataset, "dataset", None))
    found = [leaf for part in inner for leaf in unwrapped(part)] if inner else [dataset]
    return list({id(leaf): leaf for leaf in found}.values())


def unwrapped_settings(settings: Mapping[str, Any]) -> list[Any]:
    """As :func:`unwrapped`, of the config of a data set.

    >>> unwrapped_settings(dict(type='RepeatDataset', times=2, dataset=dict(split='train')))
    [{'split': 'train'}]
    """
    inner = _inner(settings.get("datasets"), settings.get("dataset"))
    return [leaf for part in inner for leaf in unwrapped_settings(part)] if inner else [settings]


def _inner(several: Sequence[Any] | None, single: Any) -> list[Any]:
    return list(several) if several else [] if single is None else [single]


def token_of(dataset: Any, index: int) -> str:
    """Token of the scene that a sample is of."""
    return str(dataset.get_data_info(index)["token"])


def tokens_of(dataset: Any) -> list[str]:
    """Tokens of all samples, in their order."""
    return [token_of(dataset, index) for index in range(len(dataset))]


def fingerprints(dataset: Any) -> list[dict[str, Any]]:
    """What each data set says of itself, so that other data are noticed, as JSON values.

    Returns:
        ``fingerprint()`` of those that have one; of others class and length.
    """
    described: list[dict[str, Any]] = []
    for leaf in unwrapped(dataset):
        own = getattr(leaf, "fingerprint", None)
        plain = own() if callable(own) else {"type": type(leaf).__name__, "scenes": len(leaf)}
        described.append(dict(plain))
    return described


def tell_epoch(dataset: Any, epoch: int) -> None:
    """Tell transforms that draw anew in every epoch (those with ``set_epoch``) which one begins."""
    for transform in drawing_transforms(dataset):
        transform.set_epoch(epoch)


def drawing_transforms(dataset: Any) -> list[Any]:
    """Transforms of a data set whose draws depend on the epoch: those with ``set_epoch``."""
    steps = [step for leaf in unwrapped(dataset) for step in getattr(leaf, "transforms", ())]
    return [step for step in steps if hasattr(step, "set_epoch")]


def lost_scenes(dataset: Any) -> list[BadScene]:
    """What a data set should have and cannot give: scenes, and logs whose scenes nobody knows."""
    lost = []
    for leaf in unwrapped(dataset):
        if (account := getattr(leaf, "account", None)) is not None:
            lost += [BadScene(token, reason) for token, reason in account.lost_scenes.items()]
            lost += [BadScene("", reason, name) for name, reason in account.lost_logs.items()]
    return lost


def not_planned(expected: Iterable[str], known: Collection[str]) -> list[BadScene]:
    """Scenes of a data set of which an evaluation has neither a plan nor a reason why not.

    >>> [scene.token for scene in not_planned(["a", "b", "a"], {"b"})]
    ['a']
    """
    reason = "was not planned: the loader left it out (drop_last, num_batch_per_epoch or the sampler)"
    return [BadScene(token, reason) for token in dict.fromkeys(expected) if token not in known]


def check_nothing_lost(dataset: Any) -> None:
    """Refuse to train on a part of a split that passes for the whole, unless it has ``allow_lost=True``.

    Raises:
        LostScenesError: With the head of the list of what is missing.
    """
    for leaf in unwrapped(dataset):
        account = getattr(leaf, "account", None)
        if account is None or account.is_complete:
            continue
        lost = list(account.lost.items())
        listing = "".join(f"\n  {name}: {reason}" for name, reason in lost[:_SHOWN])
        more = f"\n  and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        text = (
            f"split '{leaf.split}' of {leaf.data_root}: {account} can be trained on; missing:{listing}{more}"
        )
        if not leaf.allow_lost:
            raise LostScenesError(
                f"{text}\nMend the data, or train without what is missing: allow_lost=True in the data set "
                "(--cfg-options train_dataloader.dataset.allow_lost=True)"
            )
        print_log(text, "current", level=logging.WARNING)
