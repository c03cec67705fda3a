"""Pages of a list, and the opaque token in `odata.nextLink` that leads from one to the next."""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import quote

from exporter.simulator.errors import invalid_parameter
from exporter.simulator.odata import Predicate


class Numbered(Protocol):
    """An entity that knows its place: numbers rise in the order of the list."""

    number: int


Entity = TypeVar("Entity", bound=Numbered)


@dataclass(frozen=True, slots=True)
class TokenMint:
    """Makes and reads skip tokens; each is good for one list only and cannot be made up."""

    secret: bytes

    def token(self, scope: str, number: int) -> str:
        """A token to go on behind the entity of this number in the list named by `scope`."""
        for salt in range(64):
            payload = number.to_bytes(6, "big") + bytes((salt,))
            sealed = base64.b64encode(payload + self._seal(scope, payload)).decode()
            # As the service's own have both, every client is made to carry them unharmed.
            if "+" in sealed and "/" in sealed:
                break
        return f"WATV2:{sealed.replace('+', '^')}:1$1"

    def number(self, scope: str, token: str) -> int:
        """The number in a token; 400 for one that was not made here for this list."""
        sealed = token.removeprefix("WATV2:").removesuffix(":1$1").replace("^", "+")
        try:
            content = base64.b64decode(sealed, validate=True)
        except ValueError:
            content = b""
        payload, seal = content[:7], content[7:]
        if not hmac.compare_digest(seal, self._seal(scope, payload)):
            raise invalid_parameter("$skiptoken", token, "The skip token is not valid")
        return int.from_bytes(payload[:6], "big")

    def _seal(self, scope: str, payload: bytes) -> bytes:
        return hmac.digest(self.secret, scope.encode() + b"\0" + payload, hashlib.sha256)[:24]


def page_of(
    entities: Iterable[Entity], behind: int, size: int, predicate: Predicate | None
) -> tuple[list[Entity], bool]:
    """Up to `size` entities numbered above `behind` that the predicate takes; and if more follow.

    Entities made between two pages are found at the end; none that stays is left out or repeated.
    """
    page: list[Entity] = []
    for entity in entities:
        if entity.number <= behind or (predicate is not None and not predicate(entity)):
            continue
        if len(page) == size:
            return page, True
        page.append(entity)
    return page, False


def next_link(url: str, kept: str, token: str) -> str:
    """The absolute URL of the next page, the token encoded as the service encodes it."""
    return f"{url}?{kept}&$skiptoken={quote(token, safe='/:=$')}"
