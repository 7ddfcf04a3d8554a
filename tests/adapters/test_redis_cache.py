"""What is special to caches in Redis; all the rest is in tests/contract."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import SecretStr

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.memory.shared_state import MemorySharedState
from orchestrator.adapters.redis_cache import RedisCache, check, open_redis, open_redis_cache
from orchestrator.bootstrap import open_app
from orchestrator.catalogue import Catalogue
from orchestrator.diagnosis import diagnose
from orchestrator.domain.events import Json
from orchestrator.domain.policies import CacheRule, Circuit
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import Held, Hit, Verdict
from orchestrator.settings import Settings
from tests.contract.given import eventually

MINUTE = timedelta(minutes=1)
RATES = CacheRule("rates", ttl=MINUTE)
NOWHERE = "redis://ann:s3cret@127.0.0.1:1/0"


@pytest.fixture
def namespace() -> str:
    """A part of the server that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture
async def cache(redis_url: str, namespace: str) -> AsyncIterator[RedisCache]:
    """Caches in a real Redis."""
    clock = SystemClock()
    async with open_redis_cache(redis_url, MemorySharedState(clock), clock, namespace) as found:
        yield found


async def compute(cache: RedisCache, rule: CacheRule, key: str) -> None:
    assert await cache.look_up(rule, key, "h", MINUTE) is None
    await cache.keep(rule, key, "h", Json("1"))


async def test_an_output_is_gone_once_the_servers_clock_says_so(cache: RedisCache) -> None:
    await compute(cache, CacheRule("rates", ttl=timedelta(milliseconds=50)), "eur")

    async def is_stale() -> bool:
        answer = await cache.look_up(RATES, "eur", "other", MINUTE)
        return not isinstance(answer, Hit)

    await eventually(is_stale, every=0.01)


async def test_nothing_stays_in_redis_for_ever_and_one_cache_has_one_hash_tag(
    cache: RedisCache, redis_url: str, namespace: str
) -> None:
    for key in "abc":
        await compute(cache, RATES, key)
    assert await cache.look_up(RATES, "d", "h", MINUTE) is None

    async with open_redis(redis_url) as redis:
        keys = [key async for key in redis.scan_iter(match=f"*{namespace}*")]
        lives = [await redis.pttl(key) for key in keys]

    assert len(keys) == 5
    assert all(0 < life <= 60_000 for life in lives)
    assert all(key.startswith(f"saga:{{{namespace}:rates}}:") for key in keys)


async def test_what_is_dropped_for_its_age_leaves_nothing_behind(
    cache: RedisCache, redis_url: str, namespace: str
) -> None:
    for number in range(10):
        await compute(cache, CacheRule("rates", MINUTE, max_size=3), str(number))

    async with open_redis(redis_url) as redis:
        keys = [key async for key in redis.scan_iter(match=f"*{namespace}*:output:*")]
        by_age = await redis.zcard(f"saga:{{{namespace}:rates}}:outputs")

    assert (len(keys), by_age) == (3, 3)


async def test_namespaces_share_nothing(cache: RedisCache, redis_url: str) -> None:
    await compute(cache, RATES, "eur")
    clock = SystemClock()

    async with open_redis_cache(redis_url, MemorySharedState(clock), clock, "blue") as blue:
        assert await blue.look_up(RATES, "eur", "h", MINUTE) is None
        await blue.let_go(RATES, "eur", "h")


async def test_a_redis_that_is_away_is_unavailable_and_the_rest_goes_on() -> None:
    clock = SystemClock()
    circuit = Circuit("bank", failures=1)
    async with open_redis_cache(NOWHERE, MemorySharedState(clock), clock) as cache:
        with pytest.raises(UnavailableError, match="SAGA_REDIS_URL") as caught:
            await cache.look_up(RATES, "eur", "h", MINUTE)
        assert "s3cret" not in str(caught.value)
        await cache.report(circuit, succeeded=False)
        assert isinstance(await cache.admit(circuit), Held)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await check(NOWHERE)


async def test_what_is_no_address_of_a_redis_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidInputError, match="SAGA_REDIS_URL must look like") as caught:
        async with open_redis("http://ann:s3cret@shop"):
            pass
    assert "s3cret" not in str(caught.value)


# ---------------------------------------------------------------------------- switching it on


async def test_a_redis_that_is_configured_holds_the_caches_of_an_app(
    dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_DATABASE_URL", dsn)
    async with open_app() as app:
        assert not isinstance(app.store.shared, RedisCache)
    monkeypatch.setenv("SAGA_REDIS_URL", redis_url)
    async with open_app() as app:
        assert isinstance(app.store.shared, RedisCache)
        assert await app.store.shared.look_up(RATES, "eur", "h", MINUTE) is None
        await app.store.shared.let_go(RATES, "eur", "h")
        assert await app.store.shared.admit(Circuit("bank")) is None


async def test_the_doctor_looks_at_a_redis_that_is_configured(dsn: str, redis_url: str) -> None:
    for url, verdict in ((redis_url, Verdict.FINE), (NOWHERE, Verdict.FAILED)):
        settings = Settings(database_url=SecretStr(dsn), redis_url=SecretStr(url))
        findings = await diagnose(settings, Catalogue(()))
        assert [f.verdict for f in findings if f.subject == "caches"] == [verdict]
    findings = await diagnose(Settings(database_url=SecretStr(dsn)), Catalogue(()))
    assert [f for f in findings if f.subject == "caches"] == []


def test_a_missing_client_is_named_with_what_installs_it() -> None:
    script = (
        "import sys; sys.modules['redis'] = None\n"
        "from orchestrator import bootstrap\n"
        "try: bootstrap.redis_caches()\n"
        "except bootstrap.InvalidInputError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install 'saga-orchestrator[redis]'" in said.stdout


def test_redis_is_not_imported_unless_it_is_configured() -> None:
    script = "import sys, orchestrator.bootstrap; print('redis' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "False"
