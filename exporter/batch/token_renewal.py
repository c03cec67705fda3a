"""The tokens of one identity: used while they are good, and renewed in the background."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from azure.core.credentials import AccessTokenInfo

from exporter.batch.errors import CredentialError

log = logging.getLogger(__name__)

FIRST_DELAY = 5.0
"""Seconds from a failed attempt to the next one."""

MAX_DELAY = 300.0
"""Seconds between two attempts at most, while the token is good."""

RENEW_BEFORE = 300.0
"""Seconds before its end at which a token is renewed that does not say when. A token that lives
for less than twice this is renewed at half its life."""

RENEW_AFTER = 30.0
"""Seconds for which a new token is not renewed: its issuer may give the same one again."""

REFUSE_AT_MOST_EVERY = 60.0
"""Seconds between two renewals because the service refused a token."""

LONGEST = 100_000.0
"""Seconds for which any token is used: more than a day, for which the longest ones are issued."""

SHORTEST = 60.0
"""Seconds for which any token is used. One that ends sooner by this machine's clock shows that the
clock is wrong; the service refuses a token that has expired."""


@dataclass(frozen=True)
class Trouble:
    """Why the token cannot be renewed. `since`: Unix time; `good_for`: seconds it still holds."""

    error: CredentialError
    since: float
    good_for: float


class Tokens:
    """Hands out a token while one is good; one task at a time gets another.

    A failure is remembered and given to all who ask, until the next attempt.
    `fetch`: gets a token, or raises CredentialError. `timeout`: seconds for it. `explain`: sets
    cause and cure of an error. `now`: Unix time. `jitter`: a random number from 0 to 1.
    `identity`: as log lines call it.
    Times without a name are seconds of the event loop, which a wrong clock does not move.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[AccessTokenInfo]],
        timeout: float,
        timeout_code: str,
        explain: Callable[[CredentialError], None] = lambda _: None,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        identity: str = "",
    ) -> None:
        self._fetch = fetch
        self._timeout = timeout
        self._timeout_code = timeout_code
        self._explain = explain
        self._now = now
        self._jitter = jitter
        self._identity = identity
        self._token = ""
        self._good_until = 0.0
        self._due_at = 0.0
        self._is_refused = False
        self._refused_at: float | None = None
        self._failure: CredentialError | None = None
        self._failing_since = 0.0
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._attempt: asyncio.Event | None = None
        """Set when the attempt that is under way ends; None between two attempts."""
        self._hurry = asyncio.Event()
        self.on_recovery: list[Callable[[], None]] = []
        """Called when a token came after there was none."""

    @property
    def is_good(self) -> bool:
        """Whether there is a token that has not expired."""
        return bool(self._token) and _time() < self._good_until

    @property
    def failure(self) -> CredentialError | None:
        """The failure of the last attempt, for one who asks; None where it succeeded."""
        return copy.copy(self._failure)

    @property
    def trouble(self) -> Trouble | None:
        """Why a token that is still good cannot be renewed."""
        if self._failure is None or not self.is_good:
            return None
        return Trouble(self._failure, self._failing_since, self._good_until - _time())

    async def get(self) -> str:
        """A token. CredentialError where there is none."""
        if self.is_good and not self._is_refused:
            if _time() >= self._due_at:
                self._begin()
            return self._token
        self._begin()
        if self._attempt is not None:
            await self._attempt.wait()
        if self.is_good:
            # One that the service refused is better than none: it may have been refused by chance.
            self._is_refused = False
            return self._token
        raise copy.copy(self._failure) or CredentialError("signing in was stopped", "unknown")

    def refuse(self, token: str) -> bool:
        """Note that the service refused a token. False: there is no other one to try."""
        if token != self._token or self._is_refused:
            return True  # it was renewed meanwhile, or is about to be
        now = _time()
        if self._refused_at is not None and now - self._refused_at < REFUSE_AT_MOST_EVERY:
            return False
        self._refused_at = now
        self._is_refused = True
        self._hurry.set()
        return True

    def inherit(self, other: Tokens) -> None:
        """Use the good token of others until there is a new one, which is due."""
        if other is not self and other.is_good and not self.is_good:
            self._token, self._good_until = other._token, other._good_until
            self._is_refused = other._is_refused
            self._due_at = _time()

    async def close(self) -> None:
        """Stop renewing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._attempt is not None:
            self._attempt.set()

    def _begin(self) -> None:
        """Start the task, unless it runs."""
        if self._task is None or self._task.done():
            self._attempt = asyncio.Event()
            self._task = asyncio.create_task(self._renew(), name="sign-in")
        elif self._attempt is None and self._hurry.is_set():
            self._attempt = asyncio.Event()  # the task is about to try

    async def _renew(self) -> None:
        """Try until there is a new token."""
        while True:
            self._hurry.clear()
            self._attempt = self._attempt or asyncio.Event()
            try:
                succeeded = await self._try()
            finally:
                self._attempt.set()
                self._attempt = None
            if succeeded:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._delay()):
                    await self._hurry.wait()

    async def _try(self) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._fetch()
            self._succeeded(token)
        except TimeoutError:
            self._failed(
                CredentialError(f"no token within {self._timeout:g} s", self._timeout_code)
            )
        except CredentialError as error:
            self._failed(error)
        except Exception as error:
            log.exception("unexpected error while signing in")
            self._failed(CredentialError(f"{type(error).__name__}: {error}", "unknown"))
        return self._failure is None

    def _succeeded(self, token: AccessTokenInfo) -> None:
        now, had_none = _time(), not self.is_good
        ends_at = min(token.expires_on, self._now() + LONGEST)
        lifetime = max(ends_at - self._now(), SHORTEST)
        renew_in = lifetime - min(RENEW_BEFORE, lifetime / 2)
        if token.refresh_on is not None and self._now() < token.refresh_on < ends_at:
            renew_in = token.refresh_on - self._now()
        self._token = token.token
        self._good_until = now + lifetime
        self._due_at = now + max(renew_in, min(RENEW_AFTER, lifetime / 2))
        self._is_refused = False
        failed_before, self._failure, self._failures = self._failure, None, 0
        if failed_before is not None and not had_none:
            log.info("the token is renewed again", extra={"identity": self._identity})
        if failed_before is not None and had_none:
            for tell in self.on_recovery:
                tell()

    def _failed(self, error: CredentialError) -> None:
        error.__traceback__ = error.__cause__ = error.__context__ = None
        self._explain(error)
        before, self._failure = self._failure, error
        self._failures += 1
        if before is None:
            self._failing_since = self._now()
        # Without a good token the accounts are down, which is logged for each.
        if self.is_good and (before is None or before.code != error.code):
            context = {"identity": self._identity, "cause": error.cause, "cure": error.cure}
            if error.trace:
                context["trace"] = error.trace
            log.warning(
                "the token cannot be renewed, the present one is good for %.0f s: %s",
                *(self._good_until - _time(), error),
                extra=context,
            )

    def _delay(self) -> float:
        """Seconds to the next attempt."""
        assert self._failure is not None
        asked = min(self._failure.retry_after or 0.0, MAX_DELAY)
        left = self._good_until - _time()
        if left > 0:
            delay = min(FIRST_DELAY * 2.0 ** min(self._failures - 1, 10), MAX_DELAY)
            delay *= 0.8 + 0.4 * self._jitter()
            # Not beyond the end of the token: from then on each second counts.
            return max(min(delay, MAX_DELAY, left), FIRST_DELAY, asked)
        if self._failure.code == self._timeout_code:
            return asked  # the attempt was long enough
        return max(FIRST_DELAY * (1.0 + 0.2 * self._jitter()), asked)


def _time() -> float:
    return asyncio.get_running_loop().time()
