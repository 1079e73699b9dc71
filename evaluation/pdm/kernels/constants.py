"""Numbers of the PDM score (PDMS_V1, section 0), with their units."""

from __future__ import annotations

import math

from beyonddrive.structures.boxes import EGO_LENGTH, EGO_REAR_AXLE_TO_CENTER, EGO_WHEELBASE, EGO_WIDTH

# Time
NUM_STATES = 41
"""Simulated states: 0.0, 0.1 .. 4.0 s."""
NUM_STEPS = 40
STEP = 0.1
"""Nominal step of controller, profiles and projections [s]."""
MOTION_STEP = 100000 * 1e-6
"""Step of the motion model [s]: one time stamp of 100000 us in seconds, which is not 0.1 in float64."""
NUM_MAPS = 51
"""Traffic is known at 0.0, 0.1 .. 5.0 s."""
NUM_FRAMES = 11
"""Logged frames behind it: now and ten after."""
FRAME_STRIDE = 5
"""Maps per logged frame."""
PLAN_INTERVAL_US = 500000
MAP_INTERVAL_US = 100000

# Ego box [m], from the rear axle
HALF_LENGTH = EGO_LENGTH / 2
HALF_WIDTH = EGO_WIDTH / 2
REAR_AXLE_TO_CENTER = EGO_REAR_AXLE_TO_CENTER
WHEELBASE = EGO_WHEELBASE

# Tracker (section 3) and motion model
SPEED_GAIN = 10.0 / 11.0
"""q / (q + r) of the longitudinal regulator: q = 10, r = 1, over one second."""
STOP_GAIN = 0.5
STOP_SPEED = 0.2
"""Below this speed [m/s], of plan and ego, the ego is brought to a stop."""
LATERAL_ERROR_WEIGHT = 1.0
HEADING_ERROR_WEIGHT = 10.0
STEERING_RATE_WEIGHT = 1.0
HORIZON = 10
"""Steps the regulator looks ahead."""
JERK_PENALTY = 1e-4
CURVATURE_RATE_PENALTY = 1e-2
INITIAL_CURVATURE_PENALTY = 1e-10
ACCELERATION_LAG = 0.2
STEERING_LAG = 0.05
MAX_STEERING = math.pi / 3

# Collisions (sections 6 and 9)
STOPPED_EGO_SPEED = 5e-2
STOPPED_TRACK_SPEED = 5e-2
BEHIND_ANGLE = math.radians(150.0)
AHEAD_ANGLE = math.radians(30.0)
TTC_STOPPED_SPEED = 5e-3
TTC_STRIDE = 3
"""Samples between two projections."""
TTC_PROJECTIONS = 4
"""Projections of 0.0, 0.3, 0.6, 0.9 s."""

# Driving direction (section 8)
DDC_WINDOW = 11
DDC_COMPLIANT = 2.0
DDC_VIOLATION = 6.0

# Progress and aggregation (section 11)
PROGRESS_THRESHOLD = 5.0
PROGRESS_WEIGHT = 5.0
TTC_WEIGHT = 5.0
COMFORT_WEIGHT = 2.0
WEIGHT_SUM = PROGRESS_WEIGHT + TTC_WEIGHT + COMFORT_WEIGHT

# EPDMS (EPDMS_V2, section 0)
"""Traffic is known at 0.0, 0.1 .. 4.0 s."""
NUM_FRAMES_V2 = 9
"""Logged frames behind it: now and eight after."""
TTC_SAMPLES_V2 = 32
LANE_KEEPING_LIMIT = 0.5
"""Distance of the box centre to the centre line [m]; more is off."""
LANE_KEEPING_SAMPLES = 20
"""Samples off the centre line in a row that fail lane keeping: 2 s."""
HISTORY_FRAMES = 4
"""Logged frames that history comfort looks at: three before now, and now."""
LANE_KEEPING_WEIGHT = 2.0
HISTORY_COMFORT_WEIGHT = 2.0
EXTENDED_COMFORT_WEIGHT = 2.0
EPDMS_WEIGHT_SUM = PROGRESS_WEIGHT + TTC_WEIGHT + LANE_KEEPING_WEIGHT + HISTORY_COMFORT_WEIGHT
"""Without extended comfort."""

# Comfort (section 10), all strict
MIN_LON_ACCELERATION = -4.05
MAX_LON_ACCELERATION = 2.40
MAX_LAT_ACCELERATION = 4.89
MAX_JERK = 8.37
MAX_LON_JERK = 4.13
MAX_YAW_ACCELERATION = 1.93
MAX_YAW_RATE = 0.95

# Map (section 12.3)
MAP_RADIUS = 100.0
"""Half side of the square around the ego box centre within which polygons are taken [m]."""

# Route (section 12.4)
ROUTE_SQUARE = 1.0
ROUTE_DISTANCE = 3.0
ROUTE_HEADING = math.pi / 4
BACKWARD_DEPTH = 15
FORWARD_DEPTH = 30
FORWARD_TARGETS = 3
LOOP_AREA = 1.0
CENTERLINE_BLOCKS = 30

# PDM-Closed (sections 12.7 and 12.8)
LATERAL_OFFSETS = (0.0, -1.0, 1.0)
SPEED_FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)
DEFAULT_SPEED_LIMIT = 15.0
MIN_GAP = 1.0
HEADWAY = 1.5
MAX_ACCELERATION = 1.5
MAX_DECELERATION = 3.0
IDM_EXPONENT = 10
LEAD_STRIDE = 2
CORRIDOR_SECONDS = 5.0
CORRIDOR_SEGMENTS = 16
"""Segments per quarter circle where the corridor turns a corner."""
FORECAST_RADIUS = 100.0
NUM_FORECASTS = 26
"""Forecast maps: 0.0, 0.2 .. 5.0 s."""
FORECAST_INTERVAL = 0.2
MAX_STATIC, MAX_VEHICLES, MAX_PEDESTRIANS, MAX_BICYCLES = 50, 50, 25, 10

# Object classes, as indices into structures.boxes.OBJECT_TYPES
VEHICLE, PEDESTRIAN, BICYCLE, EGO = 0, 1, 2, 7

# Polygon classes of the drivable map
ROADBLOCK, LANE, LANE_CONNECTOR, INTERSECTION, CARPARK_AREA = range(5)
POLYGON_TYPES = ("roadblock", "lane", "lane_connector", "intersection", "carpark_area")

# What holds for the ego at one sample (section 5), bits of PdmScores.areas
MULTIPLE_LANES = 1
NON_DRIVABLE = 2
ONCOMING = 4
REAR_IN_INTERSECTION = 8
CENTER_IN_INTERSECTION = 16
