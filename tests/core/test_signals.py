from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from vitcompress.core import signals
from vitcompress.core.signals import on_request


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield
    signal.signal(signal.SIGINT, before)


def ask(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_a_second_request_does_what_it_did_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ECHO_SECONDS", 0.0)
    asked: list[int] = []

    def asked_twice() -> None:
        with on_request(lambda: asked.append(1)):
            ask()
            assert asked == [1]
            ask()
            asked.append(2)  # it was swallowed

    with pytest.raises(KeyboardInterrupt):
        asked_twice()
    assert asked == [1]


def test_a_second_request_reaches_the_block_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ECHO_SECONDS", 0.0)
    asked: list[str] = []
    with on_request(lambda: asked.append("outer")), on_request(lambda: asked.append("inner")):
        ask(signal.SIGTERM)
        ask(signal.SIGTERM)
    assert asked == ["inner", "outer"]


def test_an_echo_is_one_after_the_block_too() -> None:
    """The training has saved and ended within the second."""
    asked: list[str] = []
    before = [signal.getsignal(number) for number in signals.STOPPING]
    with on_request(lambda: asked.append("outer")):
        with on_request(lambda: asked.append("inner")):
            ask(signal.SIGTERM)
            ask(signal.SIGTERM)  # as `timeout` does: to the process, and to its group
            ask(signal.SIGINT)
        ask(signal.SIGTERM)
    assert asked == ["inner"]
    assert [signal.getsignal(number) for number in signals.STOPPING] == before


def test_a_thread_changes_nothing() -> None:
    seen = []

    def inside() -> None:
        with on_request(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
