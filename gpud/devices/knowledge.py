"""What is known of the GPUs between two looks, and between two helpers.

Owned by devices/driver.py, which asks the driver; here is what its answers mean. Pure.

Rule 1: an index means the same GPU for as long as there are as many of them.
Rule 2: what was once found at an index is known there until another answer comes from it.
Rule 3: a GPU that is skipped is not to be touched. One of them that is to be touched again is seen
    as one that has not answered yet, until it has been.
Rule 4: a GPU that is known and no longer listed is seen as broken, until somebody asks afresh. Not
    broken is one in whose place there is something else, of as many GPUs: MIG was switched.
Rule 5: a GPU that fails by the driver's own word may do so only for a helper that has seen it fail.
    Asked afresh it is skipped, and touched again by another helper.
"""

from __future__ import annotations

from msgspec import Struct, structs

from gpud.core.sight import NOT_LISTED, GpuInfo, GpuSight
from gpud.devices.wire import Found, Seen
from gpud.ports import GpusFound

NOT_YET = "the driver has not answered for it yet"


class Sights(Struct):
    """A look as far as it has come."""

    by_uuid: dict[str, GpuSight] = {}
    done: set[int] = set()  # indices


class Knowledge:
    """`count` is of GPUs in whatever state, as last heard."""

    def __init__(self, blind: str) -> None:
        self.count = 0
        self.skipped: dict[int, str] = {}  # index -> why it is not touched
        self.again: set[int] = set()  # of those: what is to be touched again
        self._blind = blind
        self._found: Found | None = None
        self._at: dict[int, tuple[GpuInfo, ...]] = {}  # what was last known at each index
        self._failing: dict[int, str] = {}  # index -> what the driver says instead of what it is
        self._broken: dict[int, str] = {}  # index -> why, as the driver said in the last look
        self._gone = False  # in the last look a GPU that was known was no longer listed
        self._uuids: dict[str, None] = {}  # of all GPUs since somebody asked afresh, in order
        self._replaced: set[str] = set()  # of those that are not listed: rule 4
        self._crashes: dict[int, int] = {}  # at each index, since the last whole look

    @property
    def found(self) -> GpusFound:
        if self._found is None:
            return GpusFound("", (), blind=self._blind)
        reasons = {**self._found.unusable, **self._failing, **self.skipped}
        return GpusFound(
            self._found.driver,
            tuple(gpu for index in sorted(self._at) for gpu in self._at[index]),
            {index: reasons[index] for index in sorted(reasons) if not self._at.get(index)},
            self._blind,
        )

    def all_of(self, sights: Sights) -> tuple[GpuSight, ...]:
        """All known GPUs in a steady order, also those that the look has not come to."""
        return tuple(sights.by_uuid.get(uuid) or GpuSight(uuid, NOT_YET) for uuid in self._uuids)

    # -- what is heard -------------------------------------------------------------------------

    def heard_count(self, count: int) -> None:
        if count != self.count:
            self.count = count
            self._at.clear()
            self._forget_indices()

    def learn(self, found: Found) -> None:
        self.heard_count(found.count)
        self._found = found
        self._failing = dict(found.unread)
        self.skipped = {i: why for i, why in self.skipped.items() if i in found.skipped}
        out_of_reach = {*found.unread, *found.skipped}
        kept = {gpu.uuid for index in out_of_reach for gpu in self._at.get(index, ())}
        before = {gpu.uuid: gpu for gpus in self._at.values() for gpu in gpus}
        for index in range(found.count):
            if index not in out_of_reach:
                self._at[index] = tuple(
                    _with_distances(gpu, before.get(gpu.uuid), kept)
                    for gpu in found.gpus
                    if gpu.index == index
                )
        listed = self._listed()
        self._uuids.update(dict.fromkeys(listed))
        self._replaced = (self._replaced | before.keys()).difference(listed)

    def saw(self, seen: Seen, sights: Sights) -> None:
        sights.done.add(seen.index)
        sights.by_uuid.update((sight.uuid, sight) for sight in seen.sights)
        self._failing.pop(seen.index, None)
        if seen.problem:
            self._failing[seen.index] = seen.problem
            self._tell_all(seen.index, sights, seen.problem, broken=seen.broken)

    def touched(self, seen: Seen) -> None:
        """One that was skipped has answered: it need not be."""
        self.skipped.pop(seen.index, None)
        self.saw(seen, Sights())

    def lost_at(self, index: int, why: str, *, crashed: bool) -> None:
        """A helper, at this GPU. `why` is a clause about the helper where it crashed, else about
        the driver."""
        if not crashed:
            self.skipped[index] = why
            return
        crashes = self._crashes[index] = self._crashes.get(index, 0) + 1
        if crashes > 1 or index in self.skipped:
            times = ", twice" if crashes > 1 else ""
            self.skipped[index] = f"the GPU helper {why} at it{times}"

    def looked(self, sights: Sights) -> None:
        """A look at all that may be touched has come to its end: what it shows of the others."""
        self._crashes.clear()
        gone = self._uuids.keys() - set(self._listed())
        for uuid in gone:
            broken = uuid not in self._replaced
            sights.by_uuid[uuid] = GpuSight(uuid, NOT_LISTED, broken)
        self._gone = bool(gone)
        self._broken = {
            gpu.index: sight.problem
            for here in self._at.values()
            for gpu in here
            if (sight := sights.by_uuid.get(gpu.uuid)) and sight.broken
        }
        for index, why in self.skipped.items():
            hopeless = index not in self.again
            self._tell_all(index, sights, why if hopeless else NOT_YET, broken=hopeless)

    def _tell_all(self, index: int, sights: Sights, problem: str, *, broken: bool) -> None:
        """The same of all that is known at this index."""
        for gpu in self._at.get(index, ()):
            sights.by_uuid[gpu.uuid] = GpuSight(gpu.uuid, problem, broken)

    # -- afresh --------------------------------------------------------------------------------

    def forget(self) -> None:
        """Who is skipped, and who was known once and may not be listed now."""
        self._uuids.clear()
        self._replaced.clear()
        self._forget_indices()

    @property
    def asks_for_another(self) -> bool:
        """Helper: rule 5, and there may be GPUs that this one cannot see."""
        return self._gone or bool(self._failing or self._broken)

    def begin_afresh(self) -> None:
        """Who is not listed is forgotten; who is skipped is to be touched again."""
        self._uuids = dict.fromkeys(self._listed())
        self._crashes.clear()
        self.skipped = {**self._failing, **self._broken, **self.skipped}
        self.again = set(self.skipped)

    def _forget_indices(self) -> None:
        for known in (self.skipped, self.again, self._failing, self._broken, self._crashes):
            known.clear()

    def _listed(self) -> list[str]:
        return [gpu.uuid for here in self._at.values() for gpu in here]


def _with_distances(gpu: GpuInfo, before: GpuInfo | None, kept: set[str]) -> GpuInfo:
    """How far the GPUs are that could not be asked this time is as it was."""
    old = {uuid: far for uuid, far in before.distance.items() if uuid in kept} if before else {}
    return structs.replace(gpu, distance=old | gpu.distance) if old else gpu
