"""A planner in the loop: a rigid tool through the published anatomy, by OMPL and Coal. Metres, RAS+, patient frame."""
