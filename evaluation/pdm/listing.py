"""The order in which a GEOS STR-tree lists its items (PDMS_V1, section 12.10)."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.evaluation.pdm.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.jit import kernel

CAPACITY = 10


@kernel
def listing_order(bounds: Floats) -> Ints:
    """Items of a tree over boxes (N, 4) min x, min y, max x, max y, in the order of its traversal: (N,).

    Needed where one of several equally good objects is taken: the one that the tree lists first.

    >>> listing_order(np.array([[5.0, 0, 6, 1], [0, 3, 1, 4], [0, 0, 1, 1]])).tolist()
    [2, 0, 1]
    """
    count = len(bounds)
    items = np.arange(count)
    first = np.arange(count + 1)  # items of node i: items[first[i] : first[i + 1]]
    boxes = bounds.copy()
    while len(first) > 2:
        n = len(first) - 1
        slices = math.ceil(math.sqrt(math.ceil(n / CAPACITY)))
        per = math.ceil(n / slices)
        order = np.argsort(boxes[:, 0] + boxes[:, 2], kind="mergesort")
        for low in range(0, n, per):
            run = order[low : low + per]
            keys = boxes[run, 1] + boxes[run, 3]
            order[low : low + per] = run[np.argsort(keys, kind="mergesort")]
        new_items = np.empty(count, np.int64)
        new_first = [0]
        new_boxes = np.empty((n, 4))
        filled = 0
        for low in range(0, n, per):
            high = min(low + per, n)
            for start in range(low, high, CAPACITY):
                box = new_boxes[len(new_first) - 1]
                box[0], box[1], box[2], box[3] = np.inf, np.inf, -np.inf, -np.inf
                for node in order[start : min(start + CAPACITY, high)]:
                    for i in range(first[node], first[node + 1]):
                        new_items[filled] = items[i]
                        filled += 1
                    box[0], box[1] = min(box[0], boxes[node, 0]), min(box[1], boxes[node, 1])
                    box[2], box[3] = max(box[2], boxes[node, 2]), max(box[3], boxes[node, 3])
                new_first.append(filled)
        items = new_items
        first = np.array(new_first)
        boxes = new_boxes[: len(new_first) - 1].copy()
    return items
