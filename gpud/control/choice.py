"""Which jobs a request means: its selectors, resolved against the store.

Called by the verbs, `wait` and `follow`. A job that is named by itself (42, @, @~2) is meant
whatever its state; one that only falls under a range, a name, a state, a source or `all` is meant
as far as the verb can apply to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.model import JobId
from gpud.errors import GpudError
from gpud.ports import Store
from gpud.protocol import selectors
from gpud.protocol.requests import Selector
from gpud.protocol.selectors import Selection

SHOWN = 60  # characters of the selectors in a message


def choose(store: Store, verb: str, chosen: Sequence[Selector]) -> list[JobId]:
    """All jobs that are meant, ascending; possibly none, as with state:failed on a good day."""
    return _select(store, verb, _parse(verb, chosen))


def choose_apart(
    store: Store, verb: str, chosen: Sequence[Selector]
) -> tuple[list[JobId], list[JobId]]:
    """The jobs named by themselves, and those that fall under something. Raises GpudError
    (not-found) when there is none at all."""
    wanted = _parse(verb, chosen)
    single: list[JobId] = []
    under: list[JobId] = []
    for one in [Selection(ids=(job,)) for job in wanted.ids] + [
        Selection(last=(back,)) for back in wanted.last
    ]:
        found = _select(store, verb, one)
        (single if len(found) == 1 else under).extend(found)  # an array is many
    broad = Selection(
        elements=wanted.elements,
        ranges=wanted.ranges,
        names=wanted.names,
        states=wanted.states,
        sources=wanted.sources,
        everything=wanted.everything,
    )
    if broad != Selection():
        under += _select(store, verb, broad)
    if not single and not under:
        text = " ".join(map(str, chosen))
        text = text if len(text) <= SHOWN else text[:SHOWN] + "…"
        raise GpudError(f"cannot {verb}: nothing matches {text}", kind="not-found")
    return single, under


def _parse(verb: str, chosen: Sequence[Selector]) -> Selection:
    if not chosen:
        raise GpudError(f"cannot {verb}: no job is given", kind="usage", hint=selectors.HINT)
    return selectors.parse(chosen)


def _select(store: Store, verb: str, wanted: Selection) -> list[JobId]:
    try:
        return store.select(wanted)
    except GpudError as error:
        # "cannot cancel job 43: no such job": the store does not know what it is for.
        message = error.message.replace("cannot select ", f"cannot {verb} ", 1)
        raise GpudError(message, kind=error.kind, hint=error.hint) from error
