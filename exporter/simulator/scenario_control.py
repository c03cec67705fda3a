"""The scenario changed over HTTP while the account is served, on the simulator's own port."""

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from aiohttp import web

from exporter.simulator.faults import FAULT_SCENARIOS, Faults, Rule
from exporter.simulator.scenarios import SCENARIOS
from exporter.simulator.sign_in_scenarios import SIGN_IN_SCENARIOS
from exporter.simulator.world import World

SCENARIO_PATH = "/simulator/scenario"

SUMMARIES: Mapping[str, str] = {
    **{name: scenario.summary for name, scenario in SCENARIOS.items()},
    **{name: fault.summary for name, fault in FAULT_SCENARIOS.items()},
    **{name: scenario.summary for name, scenario in SIGN_IN_SCENARIOS.items()},
}
"""Every scenario there is: of the account's life, of the service and the way to it, of sign-in."""

HEALTHY = "steady"
"""How the account lives while only the service is out of order."""

_NO_SIGN_IN = (
    "{0} cannot begin here: clients sign in with the account key. Start `demo --scenario={0}`, or "
    "`simulate --identity`"
)
_EXAMPLE = '{"scenario": "prep-storm"}'


def world_of(name: str) -> str:
    """The scenario of the account's life that goes with a scenario."""
    return name if name in SCENARIOS else HEALTHY


def begin_faults(faults: Faults, name: str) -> None:
    """Play the faults of a scenario, and no others."""
    faults.set(*((Rule(name),) if name in FAULT_SCENARIOS else ()))


def scenario_routes(
    world: World, faults: Faults, current: str, sign_in: Callable[[str], None] | None = None
) -> Sequence[web.RouteDef]:
    """`GET` and `PUT` of the scenario; pass it to `serve`, before the routes of the faults.

    `sign_in` begins the sign-in of a scenario. Without it there are none of SIGN_IN_SCENARIOS.
    """

    async def show(_: web.Request) -> web.Response:
        return _json({"scenario": current, "scenarios": SUMMARIES})

    async def change(request: web.Request) -> web.Response:
        nonlocal current
        try:
            wanted = _parse(await request.read())
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        if sign_in is not None:
            sign_in(wanted)
        elif wanted in SIGN_IN_SCENARIOS:
            return _json({"error": _NO_SIGN_IN.format(wanted)}, 409)
        world.change(SCENARIOS[world_of(wanted)])
        begin_faults(faults, wanted)
        current = wanted
        return _json({"scenario": current})

    return [web.get(SCENARIO_PATH, show), web.put(SCENARIO_PATH, change)]


def _parse(body: bytes) -> str:
    """The name in a body; ValueError says what is wrong, and the cure."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON ({error}): write {_EXAMPLE}") from error
    name = content.get("scenario") if isinstance(content, dict) else None
    if not isinstance(name, str) or len(content) > 1:
        raise ValueError(f"the body is not a scenario: write {_EXAMPLE}")
    if name not in SUMMARIES:
        near = get_close_matches(name, SUMMARIES, 1)
        cure = f"did you mean {near[0]}?" if near else f"there are {', '.join(SUMMARIES)}"
        raise ValueError(f"there is no scenario {name}: {cure}")
    return name


def _json(content: object, status: int = 200) -> web.Response:
    text = json.dumps(content, indent=1) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")
