"""Scenarios of signing in, for accounts whose tokens come from the served identity endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from exporter.simulator.identity import Identity

SHORT = timedelta(minutes=5)
"""How long tokens last from the first such scenario on, so that one need not wait for an hour."""


@dataclass(frozen=True)
class SignInScenario:
    """A failure of the endpoints that begins once `after` tokens were issued."""

    name: str
    summary: str
    failure: str
    after: int = 0


SIGN_IN_SCENARIOS: Mapping[str, SignInScenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            SignInScenario(
                "sign-in-secret-expired",
                "Microsoft Entra ID refuses the client secret: it has expired.",
                "secret-expired",
            ),
            SignInScenario(
                "sign-in-certificate-expired",
                "Microsoft Entra ID refuses the client certificate: it has expired.",
                "certificate-expired",
            ),
            SignInScenario(
                "sign-in-throttled",
                "One token of 5 minutes, then 429 to each request for another.",
                "throttled",
                after=1,
            ),
            SignInScenario(
                "sign-in-hangs",
                "One token of 5 minutes, then no answer to requests for another.",
                "hang",
                after=1,
            ),
        )
    }
)


def begin_sign_in(identity: Identity, name: str) -> None:
    """Play the sign-in of a scenario: of those that are not about it, a healthy one."""
    scenario = SIGN_IN_SCENARIOS.get(name)
    if scenario is None:
        identity.failures.clear()
    else:
        identity.lifetime = SHORT
        identity.failures.set(scenario.failure, after=scenario.after)
