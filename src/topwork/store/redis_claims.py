"""Who computes what: claims in a Redis server, so that several machines compute every entry once.

    claim(namespace, keys) -> for each: OURS, THEIRS (somebody computes it now) or THERE (the value is in the store)
    release(namespace, keys)                    when the value is put, or could not be computed

A claim is SET name TOKEN NX PX seconds, granted only where there is no value yet, all in one script. A thread renews
the claims that we hold three times within their life, so they outlast any computation and expire SECONDS after the
death of their process; then whoever waits takes over. Renewing and releasing compare the token first, so a process
that was suspended for long never takes away what another one holds by now.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from topwork.store.redis_entries import ROOT, batches, member

OURS, THEIRS, THERE = "ours", "theirs", "there"
SECONDS = 30.0

_CLAIM = """
local r, said = KEYS[1], {}
for i = 3, #ARGV do
  local name = r..'c:'..ARGV[i]
  if redis.call('EXISTS', r..'v:'..ARGV[i]) == 1 then said[#said + 1] = 2
  elseif redis.call('GET', name) == ARGV[1] or redis.call('SET', name, ARGV[1], 'NX', 'PX', ARGV[2]) then
    said[#said + 1] = 1
  else said[#said + 1] = 0 end
end
return said
"""
_RENEW = """
for i = 3, #ARGV do
  local name = KEYS[1]..'c:'..ARGV[i]
  if redis.call('GET', name) == ARGV[1] then redis.call('PEXPIRE', name, ARGV[2]) end
end
"""
_RELEASE = """
for i = 2, #ARGV do
  local name = KEYS[1]..'c:'..ARGV[i]
  if redis.call('GET', name) == ARGV[1] then redis.call('DEL', name) end
end
"""


class RedisClaims:
    """The claims of this process. `safely(work, otherwise)` runs work on the server, or notes that it went away."""

    def __init__(self, safely: Callable[[Callable[[Any], Any], Any], Any], seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._safely = safely
        self._begin()

    def claim(self, namespace: str, keys: Sequence[bytes]) -> list[str]:
        """What is ours to compute; everything is, where the server cannot be asked."""
        names = [member(namespace, key) for key in keys]
        said: list[int] = []
        for some in batches(names):
            said += self._safely(lambda server, some=some: self._claim(server, some), [1] * len(some))
        return [(THEIRS, OURS, THERE)[code] for code in said]

    def release(self, namespace: str, keys: Sequence[bytes]) -> None:
        """Others may have them."""
        names = [member(namespace, key) for key in keys]
        with self._lock:
            names = [name for name in names if name in self._held]
            self._held.difference_update(names)
        for some in batches(names):
            self._safely(lambda server, some=some: server.eval(_RELEASE, 1, ROOT, self._token, *some), None)

    def close(self) -> None:
        """Give back what is held and stop renewing."""
        if self._pid != os.getpid():
            return
        with self._lock:
            names = list(self._held)
            self._held.clear()
        for some in batches(names):
            self._safely(lambda server, some=some: server.eval(_RELEASE, 1, ROOT, self._token, *some), None)

    def _claim(self, server: Any, names: Sequence[bytes]) -> list[int]:
        if self._pid != os.getpid():
            self._begin()  # a forked child claims for itself
        said = server.eval(_CLAIM, 1, ROOT, self._token, self._milliseconds, *names)
        with self._lock:
            self._held.update(name for name, code in zip(names, said, strict=True) if code == 1)
            if self._held and self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="claims", daemon=True)
                self._thread.start()
        return said

    def _renew(self) -> None:
        """Until nothing is held any more."""
        while True:
            self._wake.wait(self.seconds / 3)
            with self._lock:
                names = list(self._held)
                if not names:
                    self._thread = None
                    return
            for some in batches(names):
                self._safely(
                    lambda server, some=some: server.eval(_RENEW, 1, ROOT, self._token, self._milliseconds, *some), None
                )

    def _begin(self) -> None:
        self._pid, self._token = os.getpid(), uuid.uuid4().hex
        self._held: set[bytes] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()  # nobody sets it: a sleep that a forked child does not inherit
        self._thread: threading.Thread | None = None

    @property
    def _milliseconds(self) -> int:
        return max(1, int(self.seconds * 1000))
