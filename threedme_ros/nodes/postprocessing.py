"""How long all after the labels takes: surfaces, clouds, margins and markers, as the perception node makes them."""

from __future__ import annotations

from time import perf_counter, process_time

import numpy as np
from std_msgs.msg import Header

from threedme_ros.anatomy import Anatomy
from threedme_ros.inference.segmenter import Segmentation
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.pipeline import Settings, shapes
from threedme_ros.volume import Volume


def postprocess_seconds(
    labels: Volume, confidence: Volume | None, anatomy: Anatomy, *, repeats: int = 5
) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of each of ``repeats`` runs, after one that is not counted.

    labels: (I, J, K) uint8; confidence: uint8 on the same grid, None for certain everywhere. CPU counts all threads: on
    two idle cores the wall time is at least half of it.
    """
    if repeats < 1:
        raise ValueError(f"repeats {repeats}: expected at least 1")
    certain = confidence or labels.with_voxels(np.full_like(labels.voxels, 255, np.uint8))
    segmentation = Segmentation(labels=labels, confidence=certain, timings_s={}, warnings=())
    settings, header = Settings(PerceptionParameters(), anatomy), Header(frame_id=labels.frame_id)
    wall, cpu = [], []
    for _ in range(repeats + 1):
        began, busy = perf_counter(), process_time()
        shapes(segmentation, settings, header)
        wall.append(perf_counter() - began)
        cpu.append(process_time() - busy)
    return wall[1:], cpu[1:]
