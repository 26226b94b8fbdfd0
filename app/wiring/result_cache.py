"""Whether answers are kept in front of a loaded version, and with whom they are shared."""

from collections.abc import Callable

import structlog

from app.answering.scoring import MOST_ROWS
from app.clock import Clock
from app.errors import BadSettings
from app.models.cache import CachedModel, CachePolicy, Sharing
from app.models.runtime import OnnxModel
from app.models.shared_answers import SharedStore
from app.observe.worker_metrics import Metrics
from app.ports import Model
from app.settings.models import ModelCache
from app.settings.root import Settings

MOST_ROWS_SHARED = 2048  # as many as a Redis looks up within a budget of 3 ms (docs/CACHE.md)


def most_rows(cache: ModelCache) -> int:
    """How many rows of a backlog may be one question, which is one look-up, in a Redis if there is one."""
    return MOST_ROWS_SHARED if cache.enabled and cache.redis_url else MOST_ROWS


def caching(settings: Settings, metrics: Metrics, clock: Clock) -> Callable[[OnnxModel], Model]:
    """Puts a result cache in front of a loaded version, if settings ask for one; one Redis for all of a process."""
    cache = settings.models.cache
    if not cache.enabled:
        return lambda model: model
    policy = CachePolicy(cache.max_bytes, cache.ttl_s)
    store = _shared_store(cache, clock) if cache.redis_url else None

    def cached(model: OnnxModel) -> Model:
        sharing = Sharing(store, model.file_digests) if store else None
        return CachedModel(model, policy, clock, metrics.cache_looked_up, sharing)

    return cached


def _shared_store(cache: ModelCache, clock: Clock) -> SharedStore:
    from app.models.redis_cache import RedisPolicy, RedisStore  # noqa: PLC0415 - only those who share pay the import

    log = structlog.get_logger()

    def notice(problem: str | None) -> None:
        if problem is None:
            log.info("the shared result cache answers")
        else:
            log.warning("the shared result cache is not asked until it answers again", problem=problem)

    where = RedisPolicy(
        url=cache.redis_url or "",
        username=cache.redis_username,
        password=cache.password(),
        ca_file=cache.redis_ca_file,
        ttl_s=cache.ttl_s,
        budget_s=cache.budget_s,
    )
    try:
        return RedisStore(where, clock, notice)
    except ValueError as exc:  # the client's own reading of the URL
        raise BadSettings(f"models.cache.redis_url: {exc}") from exc
