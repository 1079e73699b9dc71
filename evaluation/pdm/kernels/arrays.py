"""Short names for the arrays that kernels take and give."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = NDArray[np.int32]
Bools: TypeAlias = NDArray[np.bool_]
Flags: TypeAlias = NDArray[np.uint8]
