"""Forks: of all threads a child has only the one that forked, so what another was in the midst of stays so for ever.

Python gives a child no way to go on with a module that another thread was importing. So a fork waits for our imports:
`with unforked:` is around what loads plugins, and around the imports of what runs models.
"""

import os
import threading

# A fork that waits longer than this goes on: whoever imports may be waiting for the very thread that forks.
_MOST_S = 10.0

unforked = threading.RLock()

_forking: set[int] = set()  # the threads that hold it while they fork


def _before() -> None:
    if unforked.acquire(timeout=_MOST_S):
        _forking.add(threading.get_ident())


def _in_parent() -> None:
    me = threading.get_ident()
    if me in _forking:
        _forking.discard(me)
        unforked.release()


def _in_child() -> None:
    if threading.get_ident() in _forking:
        unforked.release()
    else:
        unforked._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library does with its own
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
