from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class TrajectorySampling:
    num_poses: Optional[int] = None
    time_horizon: Optional[float] = None
    interval_length: Optional[float] = None

    def __post_init__(self):
        if self.num_poses is None:
            object.__setattr__(self, "num_poses", int(self.time_horizon / self.interval_length))
        if self.time_horizon is None:
            object.__setattr__(self, "time_horizon", self.num_poses * self.interval_length)
        if self.interval_length is None:
            object.__setattr__(self, "interval_length", self.time_horizon / self.num_poses)
