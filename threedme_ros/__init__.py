"""3DME for ROS 2: a 3-D medical foundation encoder from a volume topic to anatomy a planner can use."""

import os

# Surfaces are made on threads of our own, whose small matrix products OpenBLAS would split again: twice the processor
# time for the same meshes. It reads this once, when numpy is first imported; what the user has set stays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
