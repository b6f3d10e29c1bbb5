"""All decisions about one planning scene in one place: what to send next, and how well the scene is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from threedme_ros.anatomy import Role
from threedme_ros.geometry.grown import Solid
from threedme_ros.scene.belief import Belief, Look, Wanted
from threedme_ros.scene.keeper import Change, Keeper
from threedme_ros.scene.look import TARGETS, Targets, targets_in
from threedme_ros.scene.watch import Watch

LATE_S = 10.0
"""A scene that is not as wanted for this long is an error, not a transition."""

OK, WARN, ERROR = range(3)


@dataclass(frozen=True)
class Condition:
    """``level`` OK, WARN or ERROR; ``lines``: what is wrong, worst first."""

    level: int
    lines: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Job:
    """One request: ``changes``, with the ``solids`` (by name) and ``targets`` they need."""

    changes: tuple[Change, ...]
    solids: dict[str, Solid]
    targets: Targets | None
    frame_id: str


@dataclass
class ScenePlan:
    """Not thread-safe. All times in s of one monotonic clock."""

    belief: Belief
    keeper: Keeper
    watch: Watch
    clears_octomap: bool = True
    server_ready: bool = False
    registrations: int = 0
    octomap_due: bool = False
    """The octomap is from before a new registration, and has to be cleared once everything has been moved."""
    _found: dict[object, dict[str, Solid]] = field(default_factory=dict)
    _last_key: object = None
    _move_at_s: float | None = None
    _late_since_s: float | None = None

    def observe(self, now_s: float, look: Look, found: dict[str, Solid]) -> None:
        self._found[look.key], self._last_key = found, look.key
        self.belief.observe(now_s, look)
        used = {want.key for want in self.belief.wanted(now_s).values()} | {look.key}
        self._found = {key: solids for key, solids in self._found.items() if key in used}

    def accept(self, now_s: float) -> bool:
        return self.belief.accept(now_s)

    def registration_changed(self, move_at_s: float) -> None:
        """Everything is moved at ``move_at_s``, when the planner has heard of the new transform, too."""
        self.registrations += 1
        self._move_at_s = move_at_s
        self.octomap_due = self.clears_octomap

    def octomap_clearable(self, now_s: float) -> bool:
        """Due, and everything stands where it should: until then the old octomap is better than none."""
        return self.octomap_due and self._move_at_s is None and not self.keeper.pending(*self.objects(now_s))

    def server(self, ready: bool) -> None:
        if self.server_ready and not ready:
            self.keeper.server_lost()
        self.server_ready = ready

    def found_in_scene(self, names: set[str]) -> None:
        self.keeper.present(names)
        self.belief.found(names - {TARGETS})

    def next(self, now_s: float) -> Job | None:
        """What to send now, if anything; see `Keeper.next`."""
        if self._move_at_s is not None and now_s >= self._move_at_s:
            self._move_at_s = None
            self.keeper.registration_changed()
        if not self.server_ready:
            return None
        objects, released = self.objects(now_s)
        changes = self.keeper.next(now_s, objects, released)
        if not changes:
            return None
        named = {change.name: change.wanted for change in changes if change.wanted and change.name != TARGETS}
        solids = {name: self._solid(name, want) for name, want in named.items()}
        return Job(changes, solids, self._targets(now_s), self.belief.frame_id or "")

    def objects(self, now_s: float) -> tuple[dict[str, Wanted], set[str]]:
        """The objects by name as they should be, and those that may be removed."""
        wanted = self.belief.wanted(now_s)
        objects = {name: want for name, want in wanted.items() if self._solid(name, want).structure.role is Role.NO_GO}
        targets = self._targets(now_s)
        if targets is not None:
            return {**objects, TARGETS: targets.wanted}, set(self.belief.released)
        # before the first volume nobody knows whether the targets are gone
        return objects, {*self.belief.released, *([TARGETS] if wanted else [])}

    def _solid(self, name: str, want: Wanted) -> Solid:
        return self._found[want.key][name]

    def _targets(self, now_s: float) -> Targets | None:
        wanted = self.belief.wanted(now_s)
        return targets_in(wanted, {name: self._solid(name, want) for name, want in wanted.items()})

    def condition(self, now_s: float) -> Condition:
        wanted, released = self.objects(now_s)
        pending = self.keeper.pending(wanted, released)
        if not pending:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = now_s
        errors, warnings = [], [*self.watch.doubts(now_s), *self.belief.doubts(now_s)]
        if not self.server_ready:
            errors.append("no planning scene to keep: /apply_planning_scene is not there")
        elif pending:
            late_s = now_s - self._late_since_s
            reason = f": {self.keeper.last_error}" if self.keeper.last_error else ""
            line = f"not yet as wanted for {late_s:.0f} s: {', '.join(change.name for change in pending)}{reason}"
            (errors if late_s > LATE_S else warnings).append(line)
        if self.belief.at_limit(now_s):
            errors.append(f"grown to the limit of {self.belief.rules.growth_limit_mm:g} mm: the anatomy is too old")
        if self.octomap_due:
            warnings.append("the octomap is from before the last registration")
        if not wanted:
            warnings.append("no anatomy yet")
        level = ERROR if errors else WARN if warnings else OK
        return Condition(level, (*errors, *warnings))
