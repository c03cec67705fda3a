"""Tokens that are good are used; others come from one task, which waits longer and longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from azure.core.credentials import AccessTokenInfo

from exporter.batch.errors import CredentialError
from exporter.batch.token_renewal import Tokens
from tests import virtual_time

WRONG = CredentialError("AADSTS7000215: wrong secret", "AADSTS7000215")
EPOCH = 1_000_000.0


class Issuer:
    """Issues tokens, as long as `fails` is None. Time is that of the loop, from EPOCH on."""

    def __init__(self, lifetime: float = 3600, refresh_in: float | None = None) -> None:
        self.lifetime = lifetime
        self.refresh_in = refresh_in
        self.fails: CredentialError | None = None
        self.hangs = False
        self.asked: list[float] = []
        self.clock_is_ahead = 0.0
        self.tokens = Tokens(self.issue, 10, "authority_timeout", now=self.now, jitter=lambda: 0.5)

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self.clock_is_ahead

    async def issue(self) -> AccessTokenInfo:
        self.asked.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise CredentialError(
                str(self.fails), self.fails.code, retry_after=self.fails.retry_after
            )
        issued = self.now() - self.clock_is_ahead
        return AccessTokenInfo(
            f"token-{len(self.asked)}",
            int(issued + self.lifetime),
            refresh_on=None if self.refresh_in is None else int(issued + self.refresh_in),
        )


def play(scene: Callable[[Issuer], object], issuer: Issuer) -> None:
    async def run() -> None:
        await scene(issuer)  # type: ignore[misc]
        await issuer.tokens.close()
        assert len(asyncio.all_tasks()) == 1

    virtual_time.run(run())


async def poll(issuer: Issuer, seconds: int, every: float = 1.0) -> list[str]:
    """What a poll got, `every` so many seconds: a token, or the code of the failure."""
    got = []
    for _ in range(round(seconds / every)):
        try:
            got.append(await issuer.tokens.get())
        except CredentialError as error:
            got.append(error.code)
        await asyncio.sleep(every)
    return got


def test_one_request_serves_all_who_wait() -> None:
    async def scene(issuer: Issuer) -> None:
        got = await asyncio.gather(*(issuer.tokens.get() for _ in range(50)))
        assert set(got) == {"token-1"}
        assert issuer.asked == [0]

    play(scene, Issuer())


@pytest.mark.parametrize(
    ("lifetime", "refresh_in", "due"),
    [
        (3600, None, 3300),  # 5 minutes before the end
        (86400, 43200, 43200),  # as its issuer says
        (290, None, 145),  # at half its life
        (3600, 7200, 3300),  # it says nonsense
    ],
)
def test_a_token_is_renewed_once_when_it_is_due(
    lifetime: float, refresh_in: float | None, due: float
) -> None:
    async def scene(issuer: Issuer) -> None:
        await poll(issuer, int(due + 5))
        assert len(issuer.asked) == 2
        assert issuer.asked[1] == pytest.approx(due, abs=1.1)
        assert await issuer.tokens.get() == "token-2"

    play(scene, Issuer(lifetime, refresh_in))


def test_while_a_token_is_good_nobody_waits_for_a_renewal_that_hangs() -> None:
    async def scene(issuer: Issuer) -> None:
        await poll(issuer, 3299)
        issuer.hangs = True
        before = asyncio.get_running_loop().time()
        got = await poll(issuer, 300)
        assert set(got) == {"token-1"}
        assert asyncio.get_running_loop().time() - before == pytest.approx(300)

    play(scene, Issuer())


def test_a_renewal_that_fails_is_repeated_ever_less_often_and_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(issuer: Issuer) -> None:
        await issuer.tokens.get()
        await asyncio.sleep(43200)
        issuer.fails = WRONG
        assert set(await poll(issuer, 3600)) == {"token-1"}
        gaps = [b - a for a, b in zip(issuer.asked[1:], issuer.asked[2:], strict=False)]
        assert [round(gap) for gap in gaps[:7]] == [5, 10, 20, 40, 80, 160, 300]
        assert {round(gap) for gap in gaps[7:]} == {300}
        trouble = issuer.tokens.trouble
        assert trouble is not None
        assert trouble.error.code == "AADSTS7000215"
        assert trouble.since == pytest.approx(EPOCH + 43200, abs=2)
        assert trouble.good_for == pytest.approx(43200 - 3600, abs=2)
        issuer.fails = None
        await poll(issuer, 300)
        assert issuer.tokens.trouble is None
        assert await issuer.tokens.get() != "token-1"

    with caplog.at_level(logging.INFO):
        play(scene, Issuer(86400, 43200))
    assert [record.getMessage() for record in caplog.records] == [
        "the token cannot be renewed, the present one is good for 43200 s:"
        " AADSTS7000215: wrong secret",
        "the token is renewed again",
    ]


def test_a_failure_is_remembered_and_given_to_all_until_the_next_attempt() -> None:
    async def scene(issuer: Issuer) -> None:
        issuer.fails = WRONG
        assert set(await poll(issuer, 600, every=0.1)) == {"AADSTS7000215"}
        for minute in range(10):
            times = [at for at in issuer.asked if 60 * minute <= at < 60 * minute + 60]
            assert 10 <= len(times) <= 12
        issuer.fails = None
        assert (await poll(issuer, 10))[-1].startswith("token")

    play(scene, Issuer())


def test_when_a_token_has_expired_each_second_counts_again() -> None:
    async def scene(issuer: Issuer) -> None:
        await issuer.tokens.get()
        await asyncio.sleep(1800)
        issuer.fails = WRONG
        got = await poll(issuer, 2400)
        assert set(got[:1799]) == {"token-1"}
        assert set(got[1801:]) == {"AADSTS7000215"}
        assert any(3600 <= at < 3606 for at in issuer.asked)
        assert max(b - a for a, b in zip(issuer.asked[-50:], issuer.asked[-49:], strict=False)) < 6

    play(scene, Issuer(3600, 1800))


def test_an_issuer_that_hangs_is_asked_again_at_once_and_a_cure_is_seen() -> None:
    async def scene(issuer: Issuer) -> None:
        issuer.hangs = True
        assert set(await poll(issuer, 5)) == {"authority_timeout"}
        issuer.hangs = False
        cured = asyncio.get_running_loop().time()
        while await poll(issuer, 1) == ["authority_timeout"]:
            pass
        assert asyncio.get_running_loop().time() - cured <= 11

    play(scene, Issuer())


def test_an_issuer_is_left_alone_for_as_long_as_it_asks() -> None:
    async def scene(issuer: Issuer) -> None:
        issuer.fails = CredentialError("HTTP 429", "authority_throttled", retry_after=60)
        await poll(issuer, 200)
        assert issuer.asked == [0, 60, 120, 180]

    play(scene, Issuer())


def test_a_day_that_an_issuer_asks_for_is_not_waited_for() -> None:
    async def scene(issuer: Issuer) -> None:
        issuer.fails = CredentialError("HTTP 429", "authority_throttled", retry_after=86400)
        await poll(issuer, 700)
        assert issuer.asked == [0, 300, 600]

    play(scene, Issuer())


def test_a_refused_token_is_replaced() -> None:
    async def scene(issuer: Issuer) -> None:
        assert await issuer.tokens.get() == "token-1"
        assert issuer.tokens.refuse("token-1")
        assert issuer.tokens.refuse("token-1")  # the same answer came to another request
        assert await issuer.tokens.get() == "token-2"
        assert issuer.tokens.refuse("token-1")  # an answer that came late
        assert issuer.tokens.refuse("token-2") is False  # within a minute
        await asyncio.sleep(61)
        assert issuer.tokens.refuse("token-2")
        assert await issuer.tokens.get() == "token-3"

    play(scene, Issuer())


def test_a_token_that_was_refused_by_chance_is_used_on_when_there_is_no_other() -> None:
    async def scene(issuer: Issuer) -> None:
        await issuer.tokens.get()
        issuer.fails = WRONG
        assert issuer.tokens.refuse("token-1")
        assert set(await poll(issuer, 100)) == {"token-1"}
        failure = issuer.tokens.failure
        assert failure is not None
        assert failure.code == "AADSTS7000215"
        # A second refusal is tried at once, whatever the wait after the last failure.
        issuer.fails = None
        asked = len(issuer.asked)
        assert issuer.tokens.refuse("token-1")
        assert await issuer.tokens.get() == f"token-{asked + 1}"

    play(scene, Issuer())


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
def test_a_clock_that_is_wrong_does_not_take_a_good_token_away(ahead: float) -> None:
    async def scene(issuer: Issuer) -> None:
        issuer.clock_is_ahead = ahead
        assert all(got.startswith("token") for got in await poll(issuer, 600))
        assert len(issuer.asked) <= 21
        # It is set while a token is in use.
        issuer.clock_is_ahead = 0.0
        before = len(issuer.asked)
        assert all(got.startswith("token") for got in await poll(issuer, 600))
        assert len(issuer.asked) - before <= 2

    play(scene, Issuer())


def test_recovery_is_told_once_and_not_after_the_first_token() -> None:
    async def scene(issuer: Issuer) -> None:
        told: list[float] = []
        issuer.tokens.on_recovery.append(lambda: told.append(asyncio.get_running_loop().time()))
        await issuer.tokens.get()
        assert told == []
        issuer.fails = WRONG
        await asyncio.sleep(3601)
        await poll(issuer, 60)
        issuer.fails = None
        await asyncio.sleep(10)  # nobody asks: the task goes on by itself
        assert len(told) == 1

    play(scene, Issuer())


@pytest.mark.parametrize("lifetime", [10**12, 10**400, -5, 0])
def test_a_token_is_used_for_a_minute_and_for_about_a_day_whatever_it_says(lifetime: int) -> None:
    async def fetch() -> AccessTokenInfo:
        asked.append(asyncio.get_running_loop().time())
        return AccessTokenInfo("token", int(EPOCH) + lifetime, refresh_on=int(EPOCH) + lifetime)

    async def scene(_: Issuer) -> None:
        tokens = Tokens(fetch, 10, "authority_timeout", now=lambda: EPOCH)
        assert await tokens.get() == "token"
        await asyncio.sleep(29 if lifetime <= 0 else 86_400)
        assert await tokens.get() == "token"
        await asyncio.sleep(0)
        assert len(asked) == 1
        await asyncio.sleep(2 if lifetime <= 0 else 14_000)
        assert await tokens.get() == "token"
        await asyncio.sleep(1)
        assert len(asked) == 2
        await tokens.close()

    asked: list[float] = []
    play(scene, Issuer())


def test_a_good_token_is_inherited_and_renewed_at_once() -> None:
    async def scene(issuer: Issuer) -> None:
        assert await issuer.tokens.get() == "token-1"
        later = Issuer()
        later.fails = WRONG
        later.tokens.inherit(issuer.tokens)
        assert await poll(later, 3) == ["token-1"] * 3
        assert later.tokens.trouble is not None
        later.fails = None
        await asyncio.sleep(10)
        assert await later.tokens.get() != "token-1"
        assert later.tokens.trouble is None
        await later.tokens.close()

    play(scene, Issuer())


def test_an_expired_token_is_not_inherited() -> None:
    async def scene(issuer: Issuer) -> None:
        await issuer.tokens.get()
        await asyncio.sleep(3601)
        later = Issuer()
        later.fails = WRONG
        later.tokens.inherit(issuer.tokens)
        with pytest.raises(CredentialError, match="AADSTS7000215"):
            await later.tokens.get()
        await later.tokens.close()

    play(scene, Issuer())


def test_who_hears_of_recovery_and_fails_does_not_end_the_renewal() -> None:
    async def scene(issuer: Issuer) -> None:
        issuer.tokens.on_recovery.append(lambda: 1 // 0)  # type: ignore[arg-type]
        issuer.fails = WRONG
        await poll(issuer, 1)
        issuer.fails = None
        await asyncio.sleep(20)
        assert (await issuer.tokens.get()).startswith("token-")

    play(scene, Issuer())


def test_an_unexpected_error_is_a_failure_like_others() -> None:
    async def scene(issuer: Issuer) -> None:
        async def fetch() -> AccessTokenInfo:
            raise RuntimeError("boom")

        tokens = Tokens(fetch, 10, "authority_timeout")
        with pytest.raises(CredentialError, match="RuntimeError: boom"):
            await tokens.get()
        await tokens.close()

    play(scene, Issuer())


def test_who_waits_while_it_is_closed_is_not_left_waiting() -> None:
    async def scene(issuer: Issuer) -> None:
        issuer.hangs = True
        waiting = asyncio.create_task(issuer.tokens.get())
        await asyncio.sleep(1)
        await issuer.tokens.close()
        with pytest.raises(CredentialError, match="stopped"):
            await waiting

    play(scene, Issuer())
