"""Which of an image's locations its bytes are read from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from glimpse.cache.reading import Source
from glimpse.domain.record import Image, Location
from glimpse.errors import GlimpseError, NotFound, Unavailable
from glimpse.stores.registry import Stores

LOG = logging.getLogger(__name__)


def in_order(stores: Stores, image: Image, prefer: Sequence[str]) -> list[Location]:
    """The image's locations as they are to be tried: by weight, those in preferred stores before the others."""

    def is_other(location: Location) -> bool:
        store = stores.holding(location)
        return store is None or store.id not in prefer

    return sorted(stores.by_weight(image.locations), key=is_other)


async def open_any(stores: Stores, image: Image, locations: Sequence[Location]) -> Source:
    """The bytes from the first of the locations that can be read.

    Raises what the last one did, `NotFound` too where there is none.
    """
    failure: GlimpseError = NotFound("The image has no data.")
    for location in locations:
        store = stores.holding(location)
        if store is None:
            failure = Unavailable("No configured store understands the image's location.")
            continue
        try:
            reader = await store.store.open(location.url)
            if image.size is None or reader.size in (None, image.size):
                return Source(reader, store.store.facts.ranges)
            await reader.close()
            raise Unavailable("The store does not hold the whole image.")
        except GlimpseError as error:
            LOG.warning("image %s cannot be read from store %s: %s", image.id, store.id, error.message)
            failure = error
    raise failure
