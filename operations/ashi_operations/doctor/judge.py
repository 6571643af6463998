"""What is to be said of the facts: pure. Each check is a function that says at least one thing, good or bad."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.timeframe import DAY_US, format_time
from ashi.runtime.words import counted
from ashi_operations.doctor.report import Check
from ashi_operations.doctor.store_checks import store_checks
from ashi_operations.words import named, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ashi_operations.doctor.facts import Fact, Facts, Right
    from ashi_operations.doctor.report import State

CERTIFICATE_WARNING_US: Final = 30 * DAY_US
CERTIFICATE_ERROR_US: Final = 3 * DAY_US
RETENTION_WARNING: Final = 0.25
"""Of the time for which a topic keeps records: what waits for longer is at risk before a weekend is over."""
RETENTION_ERROR: Final = 0.75
CLOCK_S: Final = 2.0
CLOCK_ERROR_S: Final = 30.0

METADATA: Final = 3
METADATA_WITH_IDS: Final = 12
"""The version that tells ids of topics and rights: KIP-516, Kafka 3.0."""
PRODUCER_IDS: Final = 22
"""InitProducerId: idempotent producers, Kafka 0.11."""
_RELEASES: Final = (
    ("4.1", 1, 18),
    ("4.0", METADATA, 13),
    ("3.9", 1, 17),
    ("3.7", 1, 16),
    ("3.5", 1, 15),
    ("3.1", 1, 13),
    ("3.0", METADATA, 12),
    ("2.8", METADATA, 11),
    ("2.4", METADATA, 9),
    ("0.11", PRODUCER_IDS, 0),
)
"""The first release whose brokers know a version of a request (1 is Fetch), the newest first: of each the file in
`clients/src/main/resources/common/message` of Apache Kafka."""


def checks_of(facts: Facts) -> list[Check]:
    """All checks."""
    found: list[Check] = []
    checks: Sequence[tuple[str, Fact[Any], Callable[[Facts], Iterator[Check]]]] = (
        ("kafka.reach", facts.addresses, _addresses),
        ("kafka.certificates", facts.certificates, _certificates),
        ("kafka.login", facts.login, _login),
        ("kafka.version", facts.versions, _versions),
        ("kafka.partitions", facts.partitions, _partitions),
        ("access", facts.rights, _rights),
        ("topics", facts.topics, _topics),
        ("topics.retention", facts.retention, _retention),
        ("state.epoch", facts.epoch, _epoch),
        ("groups", facts.groups, _groups),
        ("clocks", facts.clocks, _clocks),
        ("feeds", facts.feeds, _feeds),
        ("store", facts.store, store_checks),
    )
    for code, fact, judge in checks:
        found += _judged(code, fact, judge, facts)
    return found


def _judged(code: str, fact: Fact[Any], judge: Callable[[Facts], Iterator[Check]], facts: Facts) -> list[Check]:
    if fact.skipped is not None:
        return [Check(code, "skipped", fact.skipped)]
    if fact.why is not None and code not in {"kafka.login", "store"}:
        return [Check(code, "unknown", f"could not be found out: {fact.why}", _AGAIN)]
    return list(judge(facts))


_AGAIN: Final = "ashi doctor"


def _tool(facts: Facts, name: str) -> str:
    return f"{name} --bootstrap-server {facts.bootstrap}"


def _addresses(facts: Facts) -> Iterator[Check]:
    addresses = facts.addresses.value or ()
    answering = [each.address for each in addresses if each.trouble is None]
    for each in addresses:
        if each.trouble is None:
            continue
        host, _, port = each.address.rpartition(":")
        if each.given:
            others = any(other.given and other.trouble is None for other in addresses)
            text = f"{each.address} of ASHI_KAFKA_BOOTSTRAP cannot be reached: {each.trouble}"
            yield Check("kafka.reach", "warning" if others else "error", text, f"nc -vz {host.strip('[]')} {port}")
        else:
            text = (
                f"Kafka sends its clients on to {each.address}, which cannot be reached from here: {each.trouble}; "
                "start that broker, or correct its advertised.listeners"
            )
            yield Check("kafka.reach", "error", text, f"nc -vz {host.strip('[]')} {port}")
    if len(answering) == len(addresses):
        yield Check("kafka.reach", "ok", f"{counted(len(answering), 'broker')} can be reached")


def _certificates(facts: Facts) -> Iterator[Check]:
    found = facts.certificates.value
    assert found is not None  # noqa: S101
    for of, refused in found.refused.items():
        yield Check("kafka.certificates", "error", f"{of} {refused}", _show_certificate(of))
    soonest = min(found.good, key=lambda each: each.not_after, default=None)
    for each in found.good:
        left_us = each.not_after - facts.now
        if left_us > CERTIFICATE_WARNING_US:
            continue
        day = format_time(each.not_after)
        when = f"has expired on {day}" if left_us <= 0 else f"expires in {left_us / DAY_US:.0f} days, on {day}"
        text = f"the certificate {each.subject} of {each.of} {when}"
        state: State = "error" if left_us <= CERTIFICATE_ERROR_US else "warning"
        yield Check("kafka.certificates", state, text, _show_certificate(each.of))
    if soonest is not None and not found.refused and soonest.not_after - facts.now > CERTIFICATE_WARNING_US:
        days = (soonest.not_after - facts.now) / DAY_US
        count = counted(len(found.good), "certificate")
        text = f"{count} good for {days:.0f} days or more, the first to expire is {soonest.subject}"
        yield Check("kafka.certificates", "ok", text)


def _show_certificate(of: str) -> str:
    if of.startswith("ASHI_"):
        return f'openssl x509 -noout -subject -enddate -in "${of.split(maxsplit=1)[0]}"'
    return f"openssl s_client -connect {of} -showcerts </dev/null"


def _login(facts: Facts) -> Iterator[Check]:
    if facts.login.why is not None:
        yield Check("kafka.login", "error", facts.login.why, "env | grep '^ASHI_KAFKA_' | grep -v PASSWORD")
    else:
        yield Check("kafka.login", "ok", f"Kafka lets in {facts.user}")


def _versions(facts: Facts) -> Iterator[Check]:
    known = facts.versions.value or {}
    release = next((name for name, api, least in _RELEASES if api in known and known[api][1] >= least), None)
    if METADATA in known and known[METADATA][1] >= METADATA_WITH_IDS:
        yield Check("kafka.version", "ok", f"the brokers are of Kafka {release} or later")
    elif release is not None and PRODUCER_IDS in known:
        text = (
            f"the brokers are of Kafka {release} or a little later: they tell neither ids of topics nor rights, as 3.0 "
            "does, so a topic that was made anew is noticed later, and a right that is missing when it is needed"
        )
        yield Check("kafka.version", "warning", text, f"{_tool(facts, 'kafka-broker-api-versions')} --version")
    else:
        text = "the brokers are of a Kafka before 0.11, which has no idempotent producers: Ashi does not work there"
        yield Check("kafka.version", "error", text, f"{_tool(facts, 'kafka-broker-api-versions')} --version")


def _partitions(facts: Facts) -> Iterator[Check]:
    found = facts.partitions.value
    assert found is not None  # noqa: S101
    describe = f"{_tool(facts, 'kafka-topics')} --describe"
    if found.leaderless:
        text = f"nobody leads {named(list(found.leaderless))}: they can be neither read nor written"
        yield Check("kafka.partitions", "error", text, f"{describe} --unavailable-partitions")
    if found.under_replicated:
        text = f"copies are behind or away of {named(list(found.under_replicated))}"
        yield Check("kafka.partitions", "warning", text, f"{describe} --under-replicated-partitions")
    if not found.leaderless and not found.under_replicated:
        yield Check("kafka.partitions", "ok", f"{counted(found.total, 'partition')} led, and all copies there")


def _rights(facts: Facts) -> Iterator[Check]:
    for command, lacking in (facts.rights.value or {}).items():
        words = command.removeprefix("ashi ").removeprefix("ashi.")
        code = "access." + words.replace(" --topic ", "-").replace(" ", "-")
        if not lacking:
            yield Check(code, "ok", f"{facts.user} may do what `{command}` does")
            continue
        meant = command in facts.chosen
        text = f"{facts.user} may not do what `{command}` does, but lacks " + ", ".join(
            f"{right.operation} on {right.kind} {right.name}" for right in lacking
        )
        if not meant:
            text += " (no harm if another user runs it: `ashi doctor --stage` says which are this one's)"
        yield Check(code, "error" if meant else "warning", text, _grant(facts, lacking))


def _grant(facts: Facts, lacking: Sequence[Right]) -> str:
    by_operations: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    wanted: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for right in lacking:
        wanted[right.kind, right.name].append(right.operation)
    for (kind, name), operations in wanted.items():
        flag = kind.replace(" ", "-")
        by_operations[(flag, *operations)].append(f"--{flag} {name}")
    add = f"{_tool(facts, 'kafka-acls')} --add --allow-principal {facts.principal}"
    return " && ".join(
        " ".join([add, *(f"--operation {operation}" for operation in operations), *resources])
        for (_, *operations), resources in by_operations.items()
    )


def _topics(facts: Facts) -> Iterator[Check]:
    found = facts.topics.value
    assert found is not None  # noqa: S101
    missing = [each for each in found.differences if each.missing]
    if missing:
        names = named([each.topic for each in missing])
        yield Check("topics.there", "error", f"topics are missing: {names}", missing[0].command)
    else:
        yield Check("topics.there", "ok", f"{counted(found.total, 'topic')} there")
    partitions = [each for each in found.differences if each.partitions]
    if not partitions:
        yield Check("topics.partitions", "ok", "each topic that is there has as many partitions as it must have")
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for each in partitions:
        alike[each.text.removeprefix(f"topic {each.topic} "), each.command].append(each.topic)
    for (what, command), topics in alike.items():
        several = f"topics {named(topics)} {what.replace('has', 'have', 1)}"
        text = f"topic {topics[0]} {what}" if len(topics) == 1 else several
        yield Check("topics.partitions", "error", text, command)
    others = [each for each in found.differences if not each.missing and not each.partitions]
    for each in others:
        yield Check("topics.settings", "warning", each.text, each.command)
    if found.hidden:
        text = f"the settings of {named(list(found.hidden))} are not shown to {facts.user}, who needs DescribeConfigs"
        grant = f"{_tool(facts, 'kafka-acls')} --add --allow-principal {facts.principal} --operation DescribeConfigs"
        command = " ".join([grant, *(f"--topic {name}" for name in found.hidden)])
        yield Check("topics.settings", "unknown", text, command)
    elif not others:
        yield Check("topics.settings", "ok", "the settings of the topics are as they must be")


def _retention(facts: Facts) -> Iterator[Check]:
    waiting = facts.retention.value or ()
    risky = [each for each in waiting if each.waiting_s > RETENTION_WARNING * each.retention_s]
    for each in risky:
        state: State = "error" if each.waiting_s > RETENTION_ERROR * each.retention_s else "warning"
        left = max(each.retention_s - each.waiting_s, 0.0)
        text = (
            f"group {each.group} has still to read what was appended to topic {each.topic} {span(each.waiting_s)} ago, "
            f"and that expires in {span(left)}: Kafka keeps it for {span(each.retention_s)}"
        )
        longer_ms = int(max(each.retention_s * 2, each.specified_s) * 1_000)
        keep = f"{_tool(facts, 'kafka-configs')} --alter --entity-type topics --entity-name {facts.prefix}{each.topic}"
        yield Check("topics.retention", state, text, f"{keep} --add-config retention.ms={longer_ms}")
    if not risky:
        yield Check("topics.retention", "ok", "no group is so far behind that records expire before it reads them")


def _epoch(facts: Facts) -> Iterator[Check]:
    found = facts.epoch.value
    if found is None:
        text = "no aggregate worker has ever run on this Kafka, so there is no state yet"
        yield Check("state.epoch", "warning", text, "ashi aggregate")
    elif found.differs is not None:
        yield Check("state.epoch", "error", found.differs, "ashi aggregate reconfigure --help")
    else:
        yield Check("state.epoch", "ok", f"epoch {found.number}, made with these settings: {found.settings}")


def _groups(facts: Facts) -> Iterator[Check]:
    yield from _problems("groups", facts.groups, "each group has workers, and all partitions are with one of them")


def _feeds(facts: Facts) -> Iterator[Check]:
    yield from _problems("feeds", facts.feeds, "no feed is down, silent or without a worker")


def _problems(code: str, found: Fact[Sequence[tuple[str, str, str, str, str]]], none: str) -> Iterator[Check]:
    """What the status calls a problem, of one kind; `none`: what is said where there is none."""
    for level, _, _, text, command in found.value or ():
        yield Check(code, "error" if level == "error" else "warning", text, command)
    if not found.value:
        yield Check(code, "ok", none)


def _clocks(facts: Facts) -> Iterator[Check]:
    found = facts.clocks.value
    assert found is not None  # noqa: S101
    clocks: dict[str, float] = {} if found.here is None else {"of this machine": found.here}
    clocks |= {f"of an ingest worker of {venue}": ahead for venue, ahead in found.ingest.items()}
    off = {whose: ahead for whose, ahead in clocks.items() if not -CLOCK_S < ahead < CLOCK_S}
    for whose, ahead in off.items():
        state: State = "error" if abs(ahead) >= CLOCK_ERROR_S else "warning"
        text = f"the clock {whose} is {span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the brokers'"
        yield Check("clocks", state, text, "timedatectl timesync-status")
    if found.here is None:
        yield Check("clocks", "unknown", "nothing was appended meanwhile to compare this machine's clock with", _AGAIN)
    elif not off:
        most = max(abs(ahead) for ahead in clocks.values())
        yield Check("clocks", "ok", f"{counted(len(clocks), 'clock')} within {span(most)} of the brokers'")


def principal(username: str | None, *, token: bool, certificate: Mapping[str, str] | str | None) -> str:
    """The user as `kafka-acls` wants it, as far as it can be known here."""
    if username is not None:
        return f"User:{username}"
    if token:
        return "'User:<subject of the token>'"
    return "User:ANONYMOUS" if certificate is None else f"'User:{certificate}'"
