"""Parameters that may change while the perception node runs: checked before they change, acted on after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from threedme_ros.anatomy import Anatomy
from threedme_ros.nodes.parameters import (
    MARGIN_PREFIX,
    ParameterError,
    PerceptionParameters,
    checked_margin,
    declare_margin,
)
from threedme_ros.nodes.pipeline import Settings, with_margins

Change = Callable[[Settings], Settings]


class LiveParameters:
    """Those of `PerceptionParameters`, and ``margin_mm.<structure>`` between `declare_margins` and `release`.

    changed(change, margins): hears of each accepted change; ``change`` makes the new settings of the old ones, and
    ``margins`` tells whether it concerns margins.
    """

    def __init__(self, node, changed: Callable[[Change, bool], None]) -> None:
        self._node, self._changed = node, changed
        self._margins: list[str] = []
        self._set_mm: dict[str, float] = {}
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def declare_margins(self, anatomy: Anatomy) -> Anatomy:
        """``anatomy`` with the margins that were set while the node ran, or that overrides give its structures."""
        margins = {}
        for structure in anatomy:
            set_mm = self._set_mm.get(structure.name)
            margins[structure.name] = declare_margin(self._node, structure.name, structure.margin_mm, set_mm)
            self._margins.append(MARGIN_PREFIX + structure.name)
        return with_margins(anatomy, margins)

    def release(self) -> None:
        for name in self._margins:
            self._node.undeclare_parameter(name)
        self._margins = []

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            PerceptionParameters(**_rows(parameters))
            _margins_mm(parameters)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, parameters: list[Parameter]) -> None:
        rows, margins = _rows(parameters), _margins_mm(parameters)
        self._set_mm |= margins
        if rows or margins:
            self._changed(
                lambda old: Settings(replace(old.parameters, **rows), with_margins(old.anatomy, margins)), bool(margins)
            )


def _rows(parameters: list[Parameter]) -> dict:
    names = {row.name for row in fields(PerceptionParameters)}
    return {p.name: p.value for p in parameters if p.name in names}


def _margins_mm(parameters: list[Parameter]) -> dict[str, float]:
    prefix = MARGIN_PREFIX
    return {p.name[len(prefix) :]: checked_margin(p.name, p.value) for p in parameters if p.name.startswith(prefix)}
