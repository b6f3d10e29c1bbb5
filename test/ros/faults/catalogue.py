"""Every fault that is injected."""

import clock_faults
import ending_faults
import engine_faults
import margin_faults
import resource_faults
import source_faults
import subscriber_faults
import transition_faults

ROOMS = (
    source_faults,
    clock_faults,
    engine_faults,
    resource_faults,
    subscriber_faults,
    transition_faults,
    ending_faults,
    margin_faults,
)
SCENARIOS = tuple(scenario for room in ROOMS for scenario in room.SCENARIOS)
