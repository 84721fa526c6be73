"""Server-sent events to a bounded number of listeners, each at its own pace: none can hold up another."""

import threading
from collections.abc import Callable, Iterator
from typing import Self

BEAT = b": still here\n\n"


class Feed:
    """The newest tick for everybody who listens.

    Nothing is queued: a listener that missed a tick is given the whole picture again. One that takes nothing for longer
    than its connection's time-out is dropped by the server.

    Args:  whole: the event that brings a newcomer up to date. listeners: at most so many at once.
           beat_s: a comment is sent after so long without a tick, which is also how a dead connection is noticed.
    """

    def __init__(self, whole: Callable[[], bytes], *, listeners: int, beat_s: float = 5.0) -> None:
        self._whole, self._beat_s = whole, beat_s
        self._places = threading.BoundedSemaphore(listeners)
        self._changed = threading.Condition()
        self._tick, self._number, self._closed = b"", 0, False
        self.listening = 0

    def publish(self, tick: bytes) -> None:
        """Give the next tick to all who listen."""
        with self._changed:
            self._tick, self._number = tick, self._number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """End every listener."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def listen(self) -> "Listener | None":
        """A new listener; None where all places are taken. Whoever gets one closes it."""
        if self._closed or not self._places.acquire(blocking=False):
            return None
        with self._changed:
            self.listening += 1
        return Listener(self)

    def left(self) -> None:
        """A listener gave up its place."""
        with self._changed:
            self.listening -= 1
        self._places.release()

    def after(self, number: int) -> tuple[int, bytes | None]:
        """Wait for what comes after tick `number` (-1: nothing yet); (its number, the event), None at the end."""
        with self._changed:
            if number >= 0:
                self._changed.wait_for(lambda: self._closed or self._number > number, self._beat_s)
            if self._closed:
                return number, None
            newest, tick = self._number, self._tick
        if newest == number:
            return number, BEAT
        return newest, tick if newest == number + 1 and number >= 0 else self._whole()


class Listener(Iterator[bytes]):
    """The events of one connection, as the body of an HTTP answer."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self._number, self._open = feed, -1, True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """Wait for the next event; ends with the feed."""
        self._number, event = self._feed.after(self._number)
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Give up the place; a second call does nothing."""
        if self._open:
            self._open = False
            self._feed.left()
