"""Any planner behind a simulator: one core, and a thin transport per simulator."""

from beyonddrive.deploy.drivers.core import DriverSettings, PlannerDriver
from beyonddrive.deploy.drivers.engines import DriverError, GraphEngine, ModuleEngine
from beyonddrive.deploy.drivers.frame_inputs import FrameInputs

__all__ = ["DriverError", "DriverSettings", "FrameInputs", "GraphEngine", "ModuleEngine", "PlannerDriver"]
