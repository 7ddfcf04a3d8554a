"""What `saga doctor` looks at: the database, the brokers, the topics and the caches."""

from __future__ import annotations

from orchestrator.adapters.kafka import TopicReport, check, count_partitions
from orchestrator.adapters.postgres import checkup
from orchestrator.bootstrap import kafka_settings, migrate_if_needed, open_database, redis_caches
from orchestrator.catalogue import Catalogue
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import Finding, Verdict
from orchestrator.settings import Settings


async def diagnose(settings: Settings, catalogue: Catalogue) -> list[Finding]:
    """Look at everything that a worker and a relay need, without changing it.

    An embedded database is brought up to date first, as every command does.
    """
    findings: list[Finding] = []
    try:
        async with open_database(settings) as database:
            if database.embedded:
                await migrate_if_needed(database.dsn)
            definitions = [(saga.name, saga.version) for saga in catalogue.sagas]
            examined = await checkup.examine(database.dsn, definitions, settings.postgres())
            note = "; for trying, developing and single machines" if database.embedded else ""
            findings = [Finding("database", Verdict.FINE, f"{database.shown}{note}"), *examined]
    except UnavailableError as error:
        findings.append(Finding("database", Verdict.FAILED, str(error)))
    findings += await _diagnose_broker(settings)
    findings += await _diagnose_inbound(settings, catalogue)
    if settings.redis_url is not None:
        findings.append(await _diagnose_redis(settings.redis_url.get_secret_value()))
    return findings


async def _diagnose_redis(url: str) -> Finding:
    try:
        return Finding("caches", Verdict.FINE, f"in {await redis_caches().check(url)}")
    except (InvalidInputError, UnavailableError) as error:
        return Finding("caches", Verdict.FAILED, str(error))


async def _diagnose_inbound(settings: Settings, catalogue: Catalogue) -> list[Finding]:
    """A line for each topic that `saga consume` would read, and one for its dead letters."""
    topics = tuple(dict.fromkeys(one.topic for one in catalogue.inbound))
    if not topics:
        return []
    dead = settings.kafka_dead_letters
    try:
        kafka = kafka_settings(settings)
        if kafka is None:
            text = "topics are declared, but no broker; set SAGA_KAFKA_BOOTSTRAP_SERVERS"
            return [Finding("inbound", Verdict.FAILED, text)]
        found = await count_partitions(kafka, [*topics, dead])
    except (InvalidInputError, UnavailableError) as error:
        return [Finding("inbound", Verdict.FAILED, str(error))]
    findings = [
        Finding("inbound", Verdict.FINE, f"topic {topic}, {found[topic]} partitions")
        if topic in found
        else Finding("inbound", Verdict.WARNING, f"there is no topic {topic} yet; it is waited for")
        for topic in topics
    ]
    kept = "is there" if dead in found else "will be made when a record needs it"
    return [*findings, Finding("inbound", Verdict.FINE, f"topic {dead} for dead letters {kept}")]


async def _diagnose_broker(settings: Settings) -> list[Finding]:
    try:
        kafka = kafka_settings(settings)
        shards = settings.relay_shards if settings.kafka_transactions else 0
        report = None if kafka is None else await check(kafka, shards)
    except (InvalidInputError, UnavailableError) as error:
        return [Finding("broker", Verdict.FAILED, str(error))]
    if kafka is None or report is None:
        text = "none configured, nothing is published; set SAGA_KAFKA_BOOTSTRAP_SERVERS"
        return [Finding("broker", Verdict.FINE, text)]
    protocol = kafka.security.get("security_protocol", "PLAINTEXT")
    told = f"{kafka.bootstrap_servers} over {protocol}, brokers: {report.brokers}"
    findings = [Finding("broker", Verdict.FINE, told)]
    if kafka.routed:
        text = f"each saga has its own, {kafka.topic}; there are {len(report.topics)} topics in all"
        findings.append(Finding("topics", Verdict.FINE, text))
    for topic in report.topics:
        findings += _about(topic, may_be_made=kafka.create_topic)
    return findings


def _about(topic: TopicReport, *, may_be_made: bool) -> list[Finding]:
    if not topic.partitions and may_be_made:
        return [Finding("topic", Verdict.FINE, f"topic {topic.name} will be made by the relay")]
    found = [Finding("topic", Verdict.FAILED, problem) for problem in topic.problems]
    found += [Finding("topic", Verdict.WARNING, risk) for risk in topic.warnings]
    fine = Finding("topic", Verdict.FINE, f"topic {topic.name}, {topic.partitions} partitions")
    return found or [fine]
