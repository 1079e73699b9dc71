"""The order in which a GEOS STR-tree lists its items (PDMS_V1, section 12.10)."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints

CAPACITY = 10


@kernel
def stable_order(keys: Floats, order: Ints, low: int, high: int, scratch: Ints) -> None:
    """Sort ``order[low:high]`` by its keys, merging runs of growing length; equal keys stay as they are."""
    width = 1
    while width < high - low:
        for start in range(low, high, 2 * width):
            middle, end = min(start + width, high), min(start + 2 * width, high)
            left, right = start, middle
            for k in range(start, end):
                if left < middle and (right >= end or keys[order[left]] <= keys[order[right]]):
                    scratch[k] = order[left]
                    left += 1
                else:
                    scratch[k] = order[right]
                    right += 1
        for k in range(low, high):
            order[k] = scratch[k]
        width *= 2


@kernel
def listing_order(bounds: Floats) -> Ints:
    """Items of a tree over boxes (N, 4) min x, min y, max x, max y, in the order of its traversal: (N,).

    Needed where one of several equally good objects is taken: the one that the tree lists first.

    >>> listing_order(np.array([[5.0, 0, 6, 1], [0, 3, 1, 4], [0, 0, 1, 1]])).tolist()
    [2, 0, 1]
    """
    count = len(bounds)
    items, new_items = np.arange(count), np.empty(count, np.int64)
    first = np.arange(count + 1)  # items of node i: items[first[i] : first[i + 1]]
    boxes, new_boxes = bounds.copy(), np.empty((count, 4))
    new_first, order, scratch = (
        np.empty(count + 1, np.int64),
        np.empty(count, np.int64),
        np.empty(count, np.int64),
    )
    x_keys, y_keys = np.empty(count), np.empty(count)
    n = count
    while n > 1:
        slices = math.ceil(math.sqrt(math.ceil(n / CAPACITY)))
        per = math.ceil(n / slices)
        for i in range(n):
            order[i] = i
            x_keys[i], y_keys[i] = boxes[i, 0] + boxes[i, 2], boxes[i, 1] + boxes[i, 3]
        stable_order(x_keys, order, 0, n, scratch)
        nodes, filled = 0, 0
        new_first[0] = 0
        for low in range(0, n, per):
            high = min(low + per, n)
            stable_order(y_keys, order, low, high, scratch)
            for start in range(low, high, CAPACITY):
                x0, y0, x1, y1 = np.inf, np.inf, -np.inf, -np.inf
                for k in range(start, min(start + CAPACITY, high)):
                    node = order[k]
                    for i in range(first[node], first[node + 1]):
                        new_items[filled] = items[i]
                        filled += 1
                    x0, y0 = min(x0, boxes[node, 0]), min(y0, boxes[node, 1])
                    x1, y1 = max(x1, boxes[node, 2]), max(y1, boxes[node, 3])
                new_boxes[nodes, 0], new_boxes[nodes, 1] = x0, y0
                new_boxes[nodes, 2], new_boxes[nodes, 3] = x1, y1
                nodes += 1
                new_first[nodes] = filled
        items, new_items = new_items, items
        first, new_first = new_first, first
        boxes, new_boxes = new_boxes, boxes
        n = nodes
    return items
