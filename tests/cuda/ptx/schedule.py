"""What was asked of a card and is not done yet: launches, copies and events, in any order that CUDA allows.

An operation comes behind the one before it on its stream, and behind the events that its stream was told to wait for.
The legacy stream waits for all streams that were not made to be non-blocking, and these for it. Nothing else is
promised: operations run when somebody waits for them, in a random order, and others with them now and then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

#: How often, of 4, an operation that nobody waits for runs when it may, and an event that is asked has passed.
_EAGER = 1


class Stream(NamedTuple):
    """A stream of a device by its handle; 0 is the legacy one."""

    device: int
    handle: int
    blocking: bool


class Operation:
    """Something to be done, and what must be done before."""

    def __init__(self, action: Callable[[], None], before: Iterable[Operation | None]) -> None:
        self.action = action
        self.before = [each for each in before if each is not None and not each.done]
        self.done = False


class Schedule:
    """The operations of all streams; `seed` chooses their order among those that are allowed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._last: dict[Stream, Operation] = {}
        self._recorded: dict[int, Operation] = {}
        self._pending: list[Operation] = []

    def add(self, stream: Stream, action: Callable[[], None], *others: Operation | None) -> Operation:
        """Ask for something on a stream, which also waits for others."""
        before = [self._last.get(stream), *others]
        if stream.blocking:
            legacy = stream.handle == 0
            before += [
                operation
                for other, operation in self._last.items()
                if other.device == stream.device and other.blocking and (legacy or other.handle == 0)
            ]
        made = self._last[stream] = Operation(action, before)
        self._pending.append(made)
        return made

    def record(self, event: int, stream: Stream) -> None:
        """Let an event stand behind what is on a stream."""
        self._recorded[event] = self.add(stream, _nothing)

    def wait(self, event: int, stream: Stream) -> None:
        """Let what follows on a stream wait for an event; for one that was never recorded it does not."""
        self.add(stream, _nothing, self._recorded.get(event))

    def passed(self, event: int) -> bool:
        """Whether an event has passed, which it may whenever it is asked."""
        operation = self._recorded.get(event)
        if operation is not None and not operation.done and self._random.randrange(4) < _EAGER:
            self._reach([operation])
        return operation is None or operation.done

    def reach_event(self, event: int) -> None:
        """Wait for an event."""
        self._reach([self._recorded.get(event)])

    def reach_stream(self, stream: Stream) -> None:
        """Wait for a stream."""
        self._reach([self._last.get(stream)])

    def reach_all(self) -> None:
        """Wait for all that was asked for."""
        self._reach(list(self._pending))

    def _reach(self, wanted: list[Operation | None]) -> None:
        needed, open_ones = set(), [each for each in wanted if each is not None]
        while open_ones:
            one = open_ones.pop()
            if not one.done and one not in needed:
                needed.add(one)
                open_ones += one.before
        while needed:
            ready = [one for one in self._pending if all(each.done for each in one.before)]
            one = self._random.choice(ready)
            if one in needed or self._random.randrange(4) < _EAGER:
                self._pending.remove(one)
                needed.discard(one)
                one.done, one.before = True, []
                one.action()


def _nothing() -> None:
    """What an event does."""
