"""From a volume message to every result message: decode, segment, surface, encode. No topic, no thread, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header, String
from visualization_msgs.msg import MarkerArray

from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.geometry.anatomy_geometry import anatomy_geometry
from threedme_ros.geometry.margins import obstacle_points
from threedme_ros.geometry.surface import PointCloud, surface_points
from threedme_ros.inference.incremental import IncrementalSegmenter
from threedme_ros.inference.preprocess import model_voxels
from threedme_ros.inference.segmenter import Segmentation, Segmenter
from threedme_ros.nodes.messages import image_message, trace_message, volume_from_message, volume_message
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.shapes import anatomy_cloud, anatomy_markers, obstacle_cloud
from threedme_ros.pictures.overlay import overlay_rgb
from threedme_ros.volume import Volume

MM_PER_M = 1000.0


@dataclass(frozen=True)
class Settings:
    """What shapes the results besides the network; replaced whole, so a running volume sees one state."""

    parameters: PerceptionParameters
    anatomy: Anatomy


@dataclass(frozen=True)
class Clouds:
    """The messages that also follow a changed margin or threshold."""

    points: PointCloud2
    obstacles: PointCloud2


@dataclass(frozen=True)
class Results:
    """All messages of one volume, each with its stamp and frame."""

    trace: String
    labels: CompressedImage
    confidence: CompressedImage
    overlay: Image
    markers: MarkerArray
    clouds: Clouds
    volume: Volume
    segmentation: Segmentation
    header: Header


DECODING, NETWORK, SURFACES = "decoding", "network", "surfaces"


def process(
    message: CompressedImage,
    segmenter: Segmenter | IncrementalSegmenter,
    settings: Settings,
    enter: Callable[..., None] = lambda stage, size=0: None,
) -> Results:
    """Raises VolumeError for a volume that is refused.

    enter(stage, size): hears of each stage before it begins, and of the voxels of the work as soon as they are known:
    those of the volume, or of what the network sees of it if they are more.
    """
    enter(DECODING)
    volume = volume_from_message(message, max_voxels=settings.parameters.max_voxels)
    enter(NETWORK, max(volume.voxels.size, model_voxels(volume, segmenter.checkpoint.preprocessing)))
    segmentation = segmenter.segment(volume)
    enter(SURFACES)
    header, anatomy = message.header, settings.anatomy
    made_by = segmentation.made_by
    markers, both_clouds = shapes(segmentation, settings, header)
    return Results(
        trace=trace_message(made_by, message),
        labels=volume_message(segmentation.labels, header.stamp, description=made_by.description),
        confidence=volume_message(segmentation.confidence, header.stamp, description=made_by.description),
        overlay=image_message(overlay_rgb(volume, segmentation.labels, anatomy), header),
        markers=markers,
        clouds=both_clouds,
        volume=volume,
        segmentation=segmentation,
        header=header,
    )


def shapes(segmentation: Segmentation, settings: Settings, header: Header) -> tuple[MarkerArray, Clouds]:
    """Surfaces, clouds, margins and markers: everything after the labels, the images aside."""
    geometry = anatomy_geometry(
        segmentation.labels,
        segmentation.confidence,
        settings.anatomy,
        max_faces=settings.parameters.max_faces,
        **_cloud_options(settings.parameters),
    )
    markers = anatomy_markers(geometry.meshes, settings.anatomy, header)
    return markers, _clouds(geometry.cloud, geometry.obstacles, settings.anatomy, header)


def clouds(segmentation: Segmentation, settings: Settings, header: Header) -> Clouds:
    """Without the surfaces, which follow neither a margin nor a threshold."""
    labels, confidence, anatomy = segmentation.labels, segmentation.confidence, settings.anatomy
    cloud = surface_points(labels, confidence, anatomy, **_cloud_options(settings.parameters))
    return _clouds(cloud, obstacle_points(labels, confidence, anatomy), anatomy, header)


def _cloud_options(parameters: PerceptionParameters) -> dict[str, float]:
    return {
        "min_confidence": round(parameters.min_confidence * 255),
        "voxel_size_m": parameters.point_spacing_mm / MM_PER_M,
    }


def _clouds(cloud: PointCloud, obstacles: np.ndarray, anatomy: Anatomy, header: Header) -> Clouds:
    return Clouds(anatomy_cloud(cloud, anatomy, header), obstacle_cloud(obstacles, header))


def with_margins(anatomy: Anatomy, margins_mm: dict[str, float]) -> Anatomy:
    """``anatomy`` with other margins in mm for the structures named."""
    return Anatomy([replace(s, margin_mm=margins_mm.get(s.name, s.margin_mm)) for s in anatomy])


def matched_anatomy(checkpoint_table: Anatomy, path: str) -> Anatomy:
    """The checkpoint's label table, or the one at ``path``; AnatomyError unless that has the same ids and names."""
    if not path:
        return checkpoint_table
    table = Anatomy.from_yaml(path)
    ours, theirs = ({(s.id, s.name) for s in t} for t in (table, checkpoint_table))
    if ours != theirs:
        raise AnatomyError(
            f"{path}: ids and names differ from the checkpoint's: only here {sorted(ours - theirs)}, "
            f"only in the checkpoint {sorted(theirs - ours)}"
        )
    return table
