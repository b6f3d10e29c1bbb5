"""Parameters of the nodes: one frozen dataclass a node, whose fields are the table that is declared to ROS."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from threedme_ros.inference.engines import DEFAULT_MIN_AGREEMENT, ENGINES, PRECISIONS
from threedme_ros.nodes.watchdog import Limits
from threedme_ros.volume_io import DEFAULT_MAX_VOXELS, FORMATS

MODALITIES = ("auto", "ct", "other")
MARGIN_PREFIX = "margin_mm."
MAX_MARGIN_MM = 100.0

Table = TypeVar("Table", bound="Parameters")


class ParameterError(ValueError):
    """A parameter holds what the node cannot use; the text names it, its value and what was expected."""


def parameter(
    default: Any,
    description: str,
    *,
    between: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    runtime: bool = False,
) -> Any:
    """One row. between: closed range. runtime: may change while the node runs; otherwise read-only."""
    return field(
        default=default,
        metadata={"description": description, "between": between, "choices": choices, "runtime": runtime},
    )


@dataclass(frozen=True)
class Parameters:
    """A table of parameters; checked at construction, so an instance is always usable."""

    def __post_init__(self) -> None:
        for row in fields(self):
            value, between, choices = getattr(self, row.name), row.metadata["between"], row.metadata["choices"]
            if between and not between[0] <= value <= between[1]:  # also refuses NaN
                raise ParameterError(f"{row.name} {value!r}: expected {between[0]} to {between[1]}")
            if choices and value not in choices:
                raise ParameterError(f"{row.name} {value!r}: expected one of {list(choices)}")


@dataclass(frozen=True)
class PerceptionParameters(Parameters):
    """Of the `perception` node."""

    checkpoint: str = parameter("", "model weights, a .safetensors file; empty: the shipped demo checkpoint")
    prompt_decoder: str = parameter(
        "", "what turns clicks into masks, a .safetensors file made for the checkpoint; empty: the shipped one"
    )
    anatomy: str = parameter("", "label table (YAML: colours, margins, roles); empty: the checkpoint's own")
    engine: str = parameter(
        "auto", "what runs the network; one that fails makes way for the next", choices=("auto", *ENGINES)
    )
    device: str = parameter("auto", "where it runs: auto (a GPU if torch sees one), cpu, cuda, cuda:0 ...")
    precision: str = parameter("auto", "what it computes in; auto: the engine decides", choices=PRECISIONS)
    min_agreement: float = parameter(
        DEFAULT_MIN_AGREEMENT,
        "an engine whose labels agree less with torch in fp32 on the probe volume is refused [share of the voxels]",
        between=(0.0, 1.0),
    )
    threads: int = parameter(0, "CPU threads of the network; 0: the engine decides", between=(0, 1024))
    incremental: bool = parameter(
        False,
        "the network sees only what changed since the last volume; about 1 voxel in 1,000 differs from a full pass",
    )
    full_every: int = parameter(
        20, "with incremental: one in so many volumes is seen whole; 0: only when it must", between=(0, 10**6)
    )
    modality: str = parameter("auto", "how intensities are read: CT in HU, or anything else", choices=MODALITIES)
    max_voxels: int = parameter(DEFAULT_MAX_VOXELS, "larger volumes are refused [voxels]", between=(1, 2**40))
    max_faces: int = parameter(5000, "triangles a structure in anatomy/markers at most", between=(100, 1_000_000))
    point_spacing_mm: float = parameter(
        2.0, "anatomy/points is thinned to one point in a cube of this edge [mm]; 0: every voxel", between=(0.0, 100.0)
    )
    obstacle_period_s: float = parameter(
        1.0, "anatomy/obstacles is published again this often for late subscribers [s]", between=(0.1, 3600.0)
    )
    stale_after_s: float = parameter(
        0.0,
        "the anatomy at this age, and a source that sends nothing for so long, are called stale [s]; 0: never",
        between=(0.0, 1e6),
    )
    hang_after_s: float = parameter(
        30.0,
        "a volume is given up, and its engine replaced, when it takes longer than this and than 10 times the slowest of"
        " the last 200 [s]; 0: never",
        between=(0.0, 86400.0),
    )
    build_timeout_s: float = parameter(
        600.0, "an engine that takes longer to be built, checked or warmed up is replaced [s]", between=(1.0, 86400.0)
    )
    max_hangs: int = parameter(
        3, "so many engines that hang are replaced; with the next one the node deactivates itself", between=(0, 20)
    )
    record: str = parameter(
        "", "folder for a bag of every volume and every result, `threedme replay` makes them again; empty: none"
    )
    record_limit_gb: float = parameter(
        20.0,
        "the recording ends when it, and what lay in its folder before, hold so much [GB]",
        between=(0.001, 1e6),
    )
    autostart: bool = parameter(True, "configure and activate without a lifecycle manager")
    min_confidence: float = parameter(
        0.0,
        "anatomy/points leaves out less certain points [0..1]; obstacles keep them all",
        between=(0.0, 1.0),
        runtime=True,
    )
    enabled: bool = parameter(True, "segment volumes that arrive; false: count and drop them", runtime=True)

    @property
    def limits(self) -> Limits:
        """What the watchdog allows."""
        return Limits(self.hang_after_s, self.build_timeout_s)


@dataclass(frozen=True)
class PlayerParameters(Parameters):
    """Of the `volume_player` node."""

    source: str = parameter(
        "phantom", "volume file, DICOM folder, sample:A to sample:D, or phantom; several separated by commas"
    )
    rate: float = parameter(1.0, "volumes a second [Hz]", between=(0.001, 1000.0))
    loop: bool = parameter(True, "start again after the last source")
    count: int = parameter(0, "stop after this many volumes; 0: no limit", between=(0, 2**31))
    frame_id: str = parameter("patient", "frame of the volumes")
    format: str = parameter("nifti", "encoding of the volumes", choices=FORMATS)
    orientation: str = parameter("", "storage order of the axes, e.g. LPS; empty: as in the source")
    change_mm: float = parameter(
        0.0, "simulated resection: its radius grows by this much a volume [mm]; 0: none", between=(0.0, 50.0)
    )
    seed: int = parameter(0, "where the simulated resection starts", between=(0, 2**31))
    wait_for_subscriber: bool = parameter(True, "publish nothing until a subscriber is there")


def declare_parameters(node, table: type[Table]) -> None:
    """Declare every row to ``node``; rclpy raises if an override has another type or lies outside the range."""
    for row in fields(table):
        node.declare_parameter(row.name, row.default, _descriptor(row))


def read_parameters(node, table: type[Table]) -> Table:
    """What ``node`` holds now; ParameterError if it is unusable."""
    return table(**{row.name: node.get_parameter(row.name).value for row in fields(table)})


def declare_margin(node, name: str, default_mm: float, set_mm: float | None = None) -> float:
    """Declare the run-time safety margin of structure ``name``; returns its value in mm.

    An override wins over the default, and ``set_mm``, which somebody set before the node was cleaned up, over both.
    """
    descriptor = ParameterDescriptor(
        description=f"safety margin around {name} in anatomy/obstacles [mm]",
        floating_point_range=[FloatingPointRange(from_value=0.0, to_value=MAX_MARGIN_MM)],
    )
    value_mm, known = (default_mm, False) if set_mm is None else (set_mm, True)
    return node.declare_parameter(MARGIN_PREFIX + name, value_mm, descriptor, ignore_override=known).value


def checked_margin(name: str, value_mm: float) -> float:
    if not 0 <= value_mm <= MAX_MARGIN_MM:
        raise ParameterError(f"{name} {value_mm!r}: expected 0 to {MAX_MARGIN_MM} mm")
    return float(value_mm)


def _descriptor(row) -> ParameterDescriptor:
    between, choices = row.metadata["between"], row.metadata["choices"]
    descriptor = ParameterDescriptor(description=row.metadata["description"], read_only=not row.metadata["runtime"])
    if choices:
        descriptor.additional_constraints = "one of " + ", ".join(repr(c) for c in choices)
    if between and isinstance(row.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=between[0], to_value=between[1])]
    elif between:
        descriptor.integer_range = [IntegerRange(from_value=between[0], to_value=between[1], step=1)]
    return descriptor
