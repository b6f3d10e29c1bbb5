"""What an engine builds for each window shape: made when first asked for, the ones used last kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from threedme_ros.inference.engines import EngineError

Built = TypeVar("Built")
Shape = tuple[int, ...]


class PerShape(Generic[Built]):
    """The ``most`` networks that the engine ``name`` used last."""

    building = False
    """As `Engine.building`."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most, self._closed = name, most, False
        self._kept: OrderedDict[Shape, Built] = OrderedDict()

    def get(self, shape: Shape, build: Callable[[Shape], Built]) -> Built:
        """The one for ``shape``, from ``build(shape)`` if it is not kept.

        The one used longest ago goes before another is built, which needs its memory. Raises EngineError after
        `close`, and what ``build`` raises.
        """
        if self._closed:
            raise EngineError(f"{self._name}: the engine is closed")
        if shape not in self._kept:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            self.building = True
            try:
                self._kept[shape] = build(shape)
            finally:
                self.building = False
        self._kept.move_to_end(shape)
        return self._kept[shape]

    def shapes(self) -> list[Shape]:
        """Of those kept, the one used last at the end."""
        return list(self._kept)

    def close(self) -> None:
        """Drop them all and build no more."""
        self._closed = True
        self._kept.clear()
