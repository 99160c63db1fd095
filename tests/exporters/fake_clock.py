"""A clock for tests of timing: nothing in them takes real time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class FakeClock:
    """Seconds that pass only when a contestant says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.opened: list[str] = []
        self.open: set[str] = set()

    def __call__(self) -> float:
        return self.now

    def contestant(self, name: str, seconds: Callable[[int], float]) -> Callable[[], object]:
        """Takes ``seconds(number of its earlier calls)``."""

        def call() -> None:
            self.now += seconds(self.calls.count(name))
            self.calls.append(name)

        return call

    def opener(self, name: str, seconds: Callable[[int], float], opening: float = 0.0) -> Callable[[], object]:
        """Opens in ``opening`` seconds; a call then takes ``seconds(number of earlier openings)``."""

        @contextmanager
        def opened() -> Iterator[Callable[[], object]]:
            self.now += opening
            session = self.opened.count(name)
            self.opened.append(name)
            self.open.add(name)
            yield self.contestant(name, lambda _: seconds(session))
            self.open.discard(name)

        return opened
