"""Kinds of vehicles that a generated town has, and how SUMO drives them."""

from __future__ import annotations

from dataclasses import dataclass

from beyonddrive.structures.boxes import EGO_LENGTH, EGO_WIDTH

EGO_TYPE = "ego"
"""Vehicles whose type begins so have the ego's dimensions and may become one."""
LAUNCH_TYPE = "ego_launch"
"""Egos that accelerate as hard as a car can."""
CLOSED_TYPE = "closed"
"""Standing vehicles whose type begins so are closed stretches of lane."""


@dataclass(frozen=True)
class VehicleType:
    """A kind of vehicle; dimensions in metres, speeds in m/s, ``share`` among all vehicles."""

    name: str
    vehicle_class: str
    length: float
    width: float
    height: float
    share: float
    max_speed: float = 40.0
    acceleration: float = 2.0
    deceleration: float = 3.0

    def to_xml(self) -> str:
        """SUMO's ``vType``: moderate drivers, who change lanes readily and slide sideways slowly."""
        bicycle = self.vehicle_class == "bicycle"
        speed_factor = "1.0,0.1,0.8,1.2" if bicycle else "1.03,0.08,0.85,1.2"
        return (
            f'<vType id="{self.name}" vClass="{self.vehicle_class}" length="{self.length}" '
            f'width="{self.width}" maxSpeed="{self.max_speed}" accel="{self.acceleration}" '
            f'decel="{self.deceleration}" emergencyDecel="6.0" sigma="0.15" tau="1.1" '
            f'minGap="{1.2 if bicycle else 2.3}" minGapLat="{0.3 if bicycle else 0.5}" '
            f'speedFactor="normc({speed_factor})" latAlignment="{"right" if bicycle else "center"}" '
            'lcSpeedGain="2.0" lcStrategic="2.0" lcAssertive="1.3" lcAccelLat="0.7" maxSpeedLat="1.1" '
            'lcMaxSpeedLatStanding="0" lcMaxSpeedLatFactor="0.22" jmTimegapMinor="1.2" impatience="0.15"/>'
        )


VEHICLE_TYPES: tuple[VehicleType, ...] = (
    VehicleType(EGO_TYPE, "passenger", EGO_LENGTH, EGO_WIDTH, 1.777, 0.40),
    VehicleType(LAUNCH_TYPE, "passenger", EGO_LENGTH, EGO_WIDTH, 1.777, 0.08, acceleration=8.5),
    VehicleType("hatchback", "passenger", 4.1, 1.76, 1.5, 0.10),
    VehicleType("sedan", "passenger", 4.7, 1.85, 1.47, 0.10),
    VehicleType("suv", "passenger", 4.8, 1.95, 1.75, 0.08),
    VehicleType("van", "delivery", 5.9, 2.05, 2.5, 0.06),
    VehicleType("truck", "truck", 8.6, 2.5, 3.2, 0.04, 20.0, 1.2),
    VehicleType("bus", "bus", 11.5, 2.55, 3.1, 0.03, 18.0, 1.2),
    VehicleType("bicycle", "bicycle", 1.75, 0.65, 1.75, 0.11, 5.0, 1.2, 2.5),
)
"""All kinds of moving vehicles."""


def types_xml() -> list[str]:
    """Types of all vehicles and of pedestrians."""
    pedestrian = (
        '<vType id="pedestrian" vClass="pedestrian" length="0.5" width="0.6" maxSpeed="1.7" '
        'speedFactor="normc(0.9,0.15,0.6,1.3)"/>'
    )
    return [*(kind.to_xml() for kind in VEHICLE_TYPES), pedestrian]
