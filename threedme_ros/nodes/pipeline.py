"""From a volume message to every result message: decode, segment, surface, encode. No topic, no thread, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from threedme_ros.anatomy import Anatomy, AnatomyError
from threedme_ros.geometry.margins import obstacle_points
from threedme_ros.geometry.surface import surface_meshes, surface_points
from threedme_ros.inference.incremental import IncrementalSegmenter
from threedme_ros.inference.segmenter import Segmentation, Segmenter
from threedme_ros.nodes.messages import image_message, volume_from_message, volume_message
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.shapes import anatomy_cloud, anatomy_markers, obstacle_cloud
from threedme_ros.pictures.overlay import overlay_rgb

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

    labels: CompressedImage
    confidence: CompressedImage
    overlay: Image
    markers: MarkerArray
    clouds: Clouds
    segmentation: Segmentation
    header: Header


def process(message: CompressedImage, segmenter: Segmenter | IncrementalSegmenter, settings: Settings) -> Results:
    """Raises VolumeError for a volume that is refused."""
    volume = volume_from_message(message, max_voxels=settings.parameters.max_voxels)
    segmentation = segmenter.segment(volume)
    header, anatomy = message.header, settings.anatomy
    meshes = surface_meshes(segmentation.labels, anatomy, max_faces=settings.parameters.max_faces)
    return Results(
        labels=volume_message(segmentation.labels, header.stamp),
        confidence=volume_message(segmentation.confidence, header.stamp),
        overlay=image_message(overlay_rgb(volume, segmentation.labels, anatomy), header),
        markers=anatomy_markers(meshes, anatomy, header),
        clouds=clouds(segmentation, settings, header),
        segmentation=segmentation,
        header=header,
    )


def clouds(segmentation: Segmentation, settings: Settings, header: Header) -> Clouds:
    parameters, anatomy = settings.parameters, settings.anatomy
    points = surface_points(
        segmentation.labels,
        segmentation.confidence,
        anatomy,
        min_confidence=round(parameters.min_confidence * 255),
        voxel_size_m=parameters.point_spacing_mm / MM_PER_M,
    )
    obstacles = obstacle_points(segmentation.labels, segmentation.confidence, anatomy)
    return Clouds(anatomy_cloud(points, anatomy, header), obstacle_cloud(obstacles, header))


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
