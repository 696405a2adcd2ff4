"""Forks: of all threads a child has only the one that forked, so what another was in the midst of stays so for ever.

Python gives a child no way to go on with a module that another thread was importing. So a fork waits for our imports:
`with unforked:` is around what loads plugins, and around the imports of what runs models. onnxruntime has locks of its
own while it makes a session; `with making_session():` is around that, in as many threads at once as there are.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# A fork that waits longer than this goes on: whoever imports may be waiting for the very thread that forks.
_MOST_S = 10.0

unforked = threading.RLock()

_forking: set[int] = set()  # the threads that hold it while they fork

_LOOK_S = 0.002  # how often a fork looks whether sessions are still being made
_gate = threading.Lock()  # held by a fork, and for a moment by a thread that begins or ends to make a session
_being_made = 0


@contextmanager
def making_session() -> Iterator[None]:
    """Let forks wait for what is done in this block, a few seconds at most; for threads that no signal reaches."""
    global _being_made
    with _gate:
        _being_made += 1
    try:
        yield
    finally:
        with _gate:
            _being_made -= 1


def _before() -> None:
    until = time.monotonic() + _MOST_S
    if unforked.acquire(timeout=_MOST_S):
        _forking.add(threading.get_ident())
    _gate.acquire()
    while _being_made and time.monotonic() < until:
        _gate.release()
        time.sleep(_LOOK_S)
        _gate.acquire()


def _in_parent() -> None:
    _gate.release()
    me = threading.get_ident()
    if me in _forking:
        _forking.discard(me)
        unforked.release()


def _in_child() -> None:
    global _being_made
    _being_made = 0
    _gate.release()
    if threading.get_ident() in _forking:
        unforked.release()
    else:
        unforked._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library does with its own
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
