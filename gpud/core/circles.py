"""Jobs that would wait for one another for ever.

A submit names jobs that are there already, so it makes no circle; an edit may name later ones, and
a retry brings back what others have come to wait for. Called by core/edits.py, core/requests.py
and core/invariants.py. Chains may be of any length: nothing here calls itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpud.core.links import edges
from gpud.core.model import After, Job, JobId
from gpud.core.state import State


def circular(state: State, job: JobId, after: After) -> str:
    """Why `job` cannot come after these, as a sentence; "" when none of them comes after it.

    Looks from both sides at once, a job at a time: whichever has fewer decides.
    """
    wanted = {JobId(n) for span in after.spans for n in range(span.first, span.last + 1)}
    if job in wanted:
        return "it cannot come after itself"
    whose = {before: before for before in wanted}  # job -> which of those wanted comes after it
    earlier, later, seen = [*wanted], [job], {job}
    while earlier and later:
        found = earlier.pop()
        record = state.find(found)
        for before, _ in edges(record) if record is not None else ():
            if before == job:
                return _comes_after(whose[found])
            if before not in whose:
                whose[before] = whose[found]
                earlier.append(before)
        for dependent, _ in state.links.after(later.pop()):
            if dependent in wanted:
                return _comes_after(dependent)
            if dependent not in seen:
                seen.add(dependent)
                later.append(dependent)
    return ""


def _comes_after(before: JobId) -> str:
    return f"it cannot come after job {before}, which comes after it"


def in_circles(jobs: Mapping[JobId, Job]) -> set[JobId]:
    """Those that come after themselves, or after such a one."""
    left = {job.id: [b for b, _ in edges(job) if b in jobs] for job in jobs.values()}
    if all(before < job for job, befores in left.items() for before in befores):
        return set()
    dependents: dict[JobId, list[JobId]] = {}
    missing = {}
    for job, befores in left.items():
        missing[job] = len(befores)
        for before in befores:
            dependents.setdefault(before, []).append(job)
    free = [job for job, count in missing.items() if not count]
    while free:
        job = free.pop()
        del missing[job]
        for dependent in dependents.get(job, ()):
            missing[dependent] -= 1
            if not missing[dependent]:
                free.append(dependent)
    return set(missing)
