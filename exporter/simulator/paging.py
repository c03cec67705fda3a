"""Pages of a list, and the opaque token in `odata.nextLink` that leads from one to the next."""

import base64
import hashlib
import heapq
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol, TypeVar
from urllib.parse import quote

from exporter.simulator.error_answers import invalid_parameter
from exporter.simulator.filter_language import Predicate


class Numbered(Protocol):
    """An entity that knows its place: numbers rise in the order of the list."""

    number: int


Entity = TypeVar("Entity", bound=Numbered)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a listing stands: behind this rank, in the order of this `shuffle` (0: by number)."""

    rank: int
    shuffle: int


@dataclass(frozen=True, slots=True)
class TokenMint:
    """Makes and reads skip tokens; each is good for one list only and cannot be made up."""

    secret: bytes

    def token(self, scope: str, place: Place) -> str:
        """A token to go on behind this place in the list named by `scope`."""
        fixed = place.rank.to_bytes(6, "big") + place.shuffle.to_bytes(3, "big")
        for salt in range(64):
            payload = fixed + bytes((salt,))
            sealed = base64.b64encode(payload + self._seal(scope, payload)).decode()
            # As the service's own have both, every client is made to carry them unharmed.
            if "+" in sealed and "/" in sealed:
                break
        return f"WATV2:{sealed.replace('+', '^')}:1$1"

    def place(self, scope: str, token: str) -> Place:
        """The place in a token; 400 for one that was not made here for this list."""
        sealed = token.removeprefix("WATV2:").removesuffix(":1$1").replace("^", "+")
        try:
            content = base64.b64decode(sealed, validate=True)
        except ValueError:
            content = b""
        payload, seal = content[:10], content[10:]
        if not hmac.compare_digest(seal, self._seal(scope, payload)):
            raise invalid_parameter("$skiptoken", token, "The skip token is not valid")
        return Place(int.from_bytes(payload[:6], "big"), int.from_bytes(payload[6:9], "big"))

    def _seal(self, scope: str, payload: bytes) -> bytes:
        return hmac.digest(self.secret, scope.encode() + b"\0" + payload, hashlib.sha256)[:24]


def page_of(
    entities: Iterable[Entity], behind: Place, size: int, predicate: Predicate | None
) -> tuple[list[Entity], bool]:
    """Up to `size` entities behind a place that the predicate takes; and if more follow.

    None that stays is left out or repeated. Of the entities made between two pages those are
    found that come behind; where nothing is shuffled, all do.
    """
    if behind.shuffle:
        return _shuffled_page(entities, behind, size, predicate)
    page: list[Entity] = []
    rank = behind.rank
    for entity in entities:
        if entity.number <= rank or (predicate is not None and not predicate(entity)):
            continue
        if len(page) == size:
            return page, True
        page.append(entity)
    return page, False


def _shuffled_page(
    entities: Iterable[Entity], behind: Place, size: int, predicate: Predicate | None
) -> tuple[list[Entity], bool]:
    follow = (
        entity
        for entity in entities
        if rank_of(entity, behind.shuffle) > behind.rank
        and (predicate is None or predicate(entity))
    )
    page = heapq.nsmallest(size + 1, follow, key=lambda entity: rank_of(entity, behind.shuffle))
    return page[:size], len(page) > size


def rank_of(entity: Numbered, shuffle: int) -> int:
    """Where the entity stands in an order: no other of its list has the same rank."""
    if not shuffle:
        return entity.number
    # A multiplication by an odd number permutes the numbers below a power of two.
    return ((entity.number + shuffle) * (shuffle * 2_654_435_761 | 1)) & 0xFFFF_FFFF


def place_behind(page: Sequence[Numbered], shuffle: int, repeat_share: float) -> Place:
    """Where the next page begins: behind this one, or so much before its end."""
    repeated = min(len(page) - 1, ceil(len(page) * repeat_share))
    return Place(rank_of(page[len(page) - 1 - repeated], shuffle), shuffle)


def next_link(url: str, kept: str, token: str) -> str:
    """The absolute URL of the next page, the token encoded as the service encodes it."""
    return f"{url}?{kept}&$skiptoken={quote(token, safe='/:=$')}"
