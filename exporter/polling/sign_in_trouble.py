"""Why the token of an account that is still up cannot be renewed."""

from __future__ import annotations

import msgspec


class SignInTrouble(msgspec.Struct, frozen=True):
    """Signing in to an account fails, and polls go on with the present token.

    `error`, `cause`, `cure`: as of a PollError. `since`: when signing in first failed;
    `good_until`: when the present token expires, where that is known; both in Unix seconds.
    """

    error: str
    cause: str
    cure: str
    since: float
    good_until: float | None = None
