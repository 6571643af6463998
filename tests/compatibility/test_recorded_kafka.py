"""What the version before left on a Kafka and in a file is continued by this one: processes, topics, groups, rows."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from deployment import Deployment, events, lake_groups, live_run, rows_of, wait
from recorded import (
    DATA,
    PARTITIONS,
    REBUILT,
    RECONFIGURED,
    STOPPED_AFTER,
    VENUES,
    WAVES,
    Recorded,
    comparable,
    is_list,
    read_json,
    read_lines,
    read_state,
    recorded_log,
)

from ashi.contracts import decode_candle
from ashi.contracts.feed import FeedGap, FeedStatus, decode_feed_gap, decode_feed_status, encode_feed
from ashi.contracts.late_gaps import LATE_REASON, TAKEN_IN
from ashi_aggregate.core.window_state import StateRow
from ashi_aggregate.epoch import ACCEPTANCE
from servers import forked_stages

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def by_these_rules(record: Recorded) -> Recorded:
    """An epoch as this version writes it: version 0.1.0 wrote no rules of acceptance, which counts as other ones.

    Its state is not gone on from, as a record that it counted may be none: test_other_rules_kafka.py. But everything
    else of it is, and nothing in this log is counted by one of the two only.
    """
    if record.topic != "ashi.meta" or not (record.key or b"").startswith(b"epoch") or record.value is None:
        return record
    value = json.loads(record.value) | {"acceptance": ACCEPTANCE}
    return record._replace(value=json.dumps(value, separators=(",", ":")).encode())


LOG = [by_these_rules(record) for record in recorded_log()]
STAGES = read_json("stages.json")
INGEST = recorded_log("ingest.jsonl.gz")
INGESTED = read_json("ingest.json")
CHANGELOG = "-changelog"


def emptied(bootstrap: str) -> None:
    """Delete all topics, and the groups' offsets with them."""

    async def delete() -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await client.start()
        try:
            deadline = time.monotonic() + 30
            while names := [name for name in await client.list_topics() if not name.startswith("__")]:
                assert time.monotonic() < deadline, "topics do not go away"
                await client.delete_topics(names)
                await asyncio.sleep(0.1)
        finally:
            await client.close()

    asyncio.run(delete())


def forked(argv: Sequence[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """`ashi …` as a fork of a process that has the libraries loaded, which has its locale from its own start."""
    own = {name: value for name, value in env.items() if name != "LC_ALL"}
    if "LC_ALL" in os.environ:
        own["LC_ALL"] = os.environ["LC_ALL"]
    return forked_stages.start([sys.executable, "-m", "ashi_cli.main", *argv], env=own, **options)


def as_messages(records: Iterable[Recorded]) -> list[Any]:
    return [(record.topic, record.partition, record.key, record.value, record.headers) for record in records]


def of_topic(records: Iterable[Recorded], topic: str) -> list[Recorded]:
    return [record for record in records if record.topic == topic]


class Continued(NamedTuple):
    """What came of it."""

    created: dict[str, Any]
    log: list[Recorded]
    offsets: dict[str, dict[str, int]]
    stages: Deployment
    rows: list[list[Any]]
    commands: list[dict[str, Any]]
    later: list[dict[str, Any]]
    rebuilt: list[Recorded]
    groups: dict[str, str]


@pytest.fixture(scope="module")
def continued(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Continued]:
    """The version before ends after the second of four waves; this one takes over its topics, groups and file."""
    folder = tmp_path_factory.mktemp("continued").resolve()
    emptied(kafka.bootstrap)
    deployment = Deployment(kafka.bootstrap, folder, start=forked)
    created = deployment.run("topics", "create")
    before = [record for record in LOG if record.wave <= STOPPED_AFTER]
    asyncio.run(deployment.publish(as_messages(before)))
    asyncio.run(deployment.dump(STOPPED_AFTER))
    places = {(record.topic, record.partition, record.offset): record.value for record in deployment.records}
    assert places == {(record.topic, record.partition, record.offset): record.value for record in before}
    asyncio.run(deployment.commit(read_json("offsets.json")[str(STOPPED_AFTER)]))
    (folder / "candles.db").write_bytes(gzip.decompress((DATA / "candles.db.gz").read_bytes()))

    with deployment.stage("aggregate", "aggregate") as worker:
        for wave in range(STOPPED_AFTER + 1, WAVES + 1):
            brought = [record for record in LOG if record.wave == wave and record.topic in {"trades", "feed.gaps"}]
            asyncio.run(deployment.publish(as_messages(brought)))
            wait(lambda: asyncio.run(deployment.caught_up("ashi-aggregate", "trades")), worker)
    with deployment.stage("sink", "sink", "sqlite", "--storage", "sqlite:///candles.db") as worker:
        wait(lambda: asyncio.run(deployment.caught_up("ashi-sink-sqlite", "candles", "feed.gaps")), worker)
    asyncio.run(deployment.dump(WAVES))
    log, offsets = list(deployment.records), deployment.offsets[str(WAVES)]

    commands = [deployment.run(*line["argv"], **line["env"]) for line in read_lines("broker_commands.jsonl.gz")[1:]]
    later = [deployment.run(*line["argv"], **line["env"]) for line in read_lines("later_commands.jsonl.gz")]
    asyncio.run(deployment.dump(REBUILT))
    rebuilt = [record for record in deployment.records if record.wave == REBUILT]
    groups = lake_groups(deployment)
    yield Continued(created, log, offsets, deployment, rows_of(folder / "candles.db"), commands, later, rebuilt, groups)
    emptied(kafka.bootstrap)


def newest(records: Iterable[Recorded]) -> dict[Any, bytes]:
    """What a reader keeps of each candle: the greatest version, the first of equals."""
    kept: dict[Any, tuple[int, bytes]] = {}
    for record in records:
        candle = decode_candle(record.value or b"")
        key = (record.key, candle.symbol, candle.timeframe, candle.open_time)
        if key not in kept or candle.version > kept[key][0]:
            kept[key] = (candle.version, record.value or b"")
    return {key: value for key, (_, value) in kept.items()}


def last_rows(records: Iterable[Recorded]) -> dict[Any, Any]:
    """The last row of each key, without the time at which its trades were appended: a broker sets that."""
    rows = {
        (record.topic, record.partition, record.key): read_state(record.topic, record.value or b"")
        for record in records
        if not is_list(record.key)
    }
    for row in rows.values():
        if isinstance(row, StateRow):
            row.appended_at = 0
    return rows


def letters(records: Iterable[Recorded], topic: str) -> Counter[Any]:
    """Every letter and how often it came. `ashi.source` tells those of one key apart.

    Version 0.1.0 quoted a record without a value as one with an empty one.
    """
    return Counter(
        (
            record.partition if record.key else None,
            record.key,
            record.value or b"",
            tuple(comparable(topic, record.headers)),
        )
        for record in of_topic(records, topic)
    )


WANTED = [record for record in LOG if record.wave <= WAVES]


def test_the_topics_that_are_made_are_said_in_the_same_words(continued: Continued) -> None:
    assert without_added_topics(continued.created) == read_lines("broker_commands.jsonl.gz")[0]


def test_every_candle_is_the_one_of_the_version_before_byte_for_byte(continued: Continued) -> None:
    assert newest(of_topic(continued.log, "candles")) == newest(of_topic(WANTED, "candles"))


def test_candles_have_the_partitions_and_headers_they_had(continued: Continued) -> None:
    """And no version of a candle has two contents, whichever of the two wrote it."""
    contents: dict[Any, set[bytes | None]] = defaultdict(set)
    for record in of_topic([*continued.log, *WANTED], "candles"):
        candle = decode_candle(record.value or b"")
        contents[candle.symbol, candle.timeframe, candle.open_time, candle.version].add(record.value)
    assert {len(found) for found in contents.values()} == {1}
    places = [
        {(record.key, record.partition, tuple(record.headers)) for record in of_topic(records, "candles")}
        for records in (continued.log, WANTED)
    ]
    assert places[0] == places[1]


@pytest.mark.parametrize("topic", ["trades.late", "trades.dead"])
def test_letters_are_those_of_the_version_before(continued: Continued, topic: str) -> None:
    assert letters(continued.log, topic) == letters(WANTED, topic)


def test_rows_and_markers_end_as_those_of_the_version_before(continued: Continued) -> None:
    found, wanted = (
        last_rows(record for record in records if record.topic.endswith(CHANGELOG))
        for records in (continued.log, WANTED)
    )
    assert found == wanted
    assert {record.partition for record in continued.log if record.topic.endswith(CHANGELOG)} == set(range(PARTITIONS))


def test_no_other_topic_is_written_to(continued: Continued) -> None:
    """But for that of candles in progress, which was there, and empty."""
    assert {record.topic for record in continued.log} - {"candles.live"} == {record.topic for record in WANTED}
    assert of_topic(continued.log, "ashi.meta")[0].value == of_topic(WANTED, "ashi.meta")[0].value
    assert len(of_topic(continued.log, "ashi.meta")) == 1, "the epoch of the version before is taken as it is"


def test_groups_have_the_names_and_end_at_the_offsets_they_did(continued: Continued) -> None:
    """Of candles the number may differ: how often one is corrected depends on when checkpoints come."""
    wanted = read_json("offsets.json")[str(WAVES)]
    assert {group: set(found) for group, found in continued.offsets.items()} == {
        group: set(found) for group, found in wanted.items()
    }
    assert continued.offsets["ashi-aggregate"] == wanted["ashi-aggregate"]
    assert continued.groups == STAGES["groups"]


def test_the_rows_of_the_store_are_those_of_the_version_before(continued: Continued) -> None:
    """But for what it did not store: whether a gap is final, table `feed_status`, gaps of what was refused or late."""
    data = {"candles", "feed_gaps"}
    wanted = [row for wave, *row in read_lines("rows.jsonl.gz") if wave == WAVES and row[0] in data]
    found = [list(row) for row in continued.rows if row[0] in data and not any(each in str(row) for each in TOLD_SINCE)]
    assert [row[:-1] if row[0] == "feed_gaps" else row for row in found] == wanted
    assert {row[-1] for row in found if row[0] == "feed_gaps"} == {0}


REWORDED = (
    (
        "For more of them `ashi topics grow` (docs/maintenance.md). Where they were added by other means, symbols have "
        "moved away from their state: stop",
        "Partitions that are added move symbols away from their state: then stop",
    ),
)
"""What is said otherwise since: as it is now, and as it was."""


@pytest.mark.parametrize("number", range(1, len(read_lines("broker_commands.jsonl.gz"))))
def test_a_command_prints_what_it_printed(continued: Continued, number: int) -> None:
    found = without_late_gaps(without_added_topics(continued.commands[number - 1]))
    for reworded, before in REWORDED:
        found["stdout"] = found["stdout"].replace(reworded, before)
    assert without_marks(found) == without_marks(read_lines("broker_commands.jsonl.gz")[number])


def without_marks(command: dict[str, Any]) -> dict[str, Any]:
    """But for the marks of candles: those in the gap of a refused record or of a late trade have one now."""
    if command["argv"][0] != "candles":
        return command
    lines = [line for line in command["stdout"].splitlines() if not line.startswith("gap lost: ")]
    return command | {"stdout": [re.sub(r"(,| +)(lost|gap)$", "", line.rstrip(",").rstrip()) for line in lines]}


def without_late_gaps(command: dict[str, Any]) -> dict[str, Any]:
    """What a command prints, but for what a rebuild says since of the gaps of late trades."""
    said = re.compile(r"[\d,]+ gaps? of trades that came too late .*\n")
    return command | {name: said.sub("", command[name]) for name in ("stdout", "stderr")}


def without_added_topics(command: dict[str, Any]) -> dict[str, Any]:
    """What a command prints, but for topics that version 0.1.0 did not have; they are counted as well."""
    lines = [line for line in command["stdout"].splitlines(keepends=True) if not re.search("instruments|signals", line)]
    return command | {"stdout": re.sub(r"\b15 (topics|were there)", r"13 \1", "".join(lines))}


def test_rebuild_and_reconfigure_print_what_they_printed(continued: Continued) -> None:
    """But for what a rebuild says since of the gaps of late trades."""
    found = [without_late_gaps(command) for command in continued.later]
    assert found == read_lines("later_commands.jsonl.gz")


def test_rebuild_publishes_what_it_published(continued: Continued) -> None:
    wanted = [record for record in LOG if record.wave == REBUILT]
    assert newest(of_topic(continued.rebuilt, "candles")) == newest(of_topic(wanted, "candles"))
    assert {tuple(record.headers) for record in of_topic(continued.rebuilt, "candles")} == {
        tuple(record.headers) for record in of_topic(wanted, "candles")
    }


def test_the_epochs_topic_gets_the_records_it_got(continued: Continued) -> None:
    """Of a rebuild, and of the epoch that a reconfiguration began; only their time and random ids differ."""
    both = [continued.rebuilt, [record for record in LOG if record.wave in {REBUILT, RECONFIGURED}]]
    found, wanted = (
        [
            (
                re.sub(rb"[0-9a-f]{8}-[0-9a-f-]{27}$", b"UUID", record.key or b""),
                # `whole_from` came since; null is what it means where it is not there.
                re.sub(rb'"at":\d+', b'"at":0', (record.value or b"").replace(b',"whole_from":null', b"")),
                record.headers,
            )
            for record in of_topic(records, "ashi.meta")
        ]
        for records in both
    )
    assert found == wanted
    assert len(found) == 2


@pytest.mark.parametrize("stage", ["aggregate", "sink"])
def test_a_process_serves_the_metrics_of_its_stage(continued: Continued, stage: str) -> None:
    assert served(STAGES["metrics"][stage], stage) <= set(continued.stages.metrics[stage])


def served(lines: list[str], stage: str) -> set[str]:
    """The lines that describe metrics of a stage. The version before served those of all stages everywhere."""
    names = {name for name, of, *_ in read_json("catalogues.json")["metrics"] if of in {stage, "all"}}
    chosen = {line for line in lines if line.split()[2] in names}
    assert {line.split()[2] for line in chosen} == names
    return chosen


@pytest.mark.parametrize("stage", ["aggregate", "sink"])
def test_a_worker_says_what_it_said(continued: Continued, stage: str) -> None:
    """One that goes on where another has ended: neither reads from the beginning nor finds its store empty."""
    said = said_by(events(continued.stages.logs[stage]))
    assert said == {line for name in (f"{stage}-3", f"{stage}-4") for line in said_by(STAGES["logs"].get(name, []))}


START_IN_PARTS = ("joining the group", "restored", "taken up")


def said_by(lines: list[list[str]]) -> set[tuple[str, ...]]:
    """What Ashi said; libraries, whose lines have a logger, say what they like.

    A group may be balanced once more than it was, where a member is slow to join: partitions are released then. What a
    start takes, by its parts, was not said.
    """
    found = {(*line[:3], line[3].replace("process_s ", "")) for line in lines if "logger" not in line[3].split()}
    return {line for line in found if line[2] not in ("released all partitions", *START_IN_PARTS)}


@pytest.fixture(scope="module")
def ingested(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, list[dict[str, Any]]]]:
    """A live worker beside a simulated venue, then replays of what the version before recorded, with garbage."""
    folder = tmp_path_factory.mktemp("ingested").resolve()
    emptied(kafka.bootstrap)
    deployment = Deployment(kafka.bootstrap, folder, start=forked)
    deployment.run("topics", "create")
    live_run(deployment, "bitflyer", VENUES["bitflyer"])
    asyncio.run(deployment.dump(1))
    replays = []
    for line in INGESTED["replays"]:
        shutil.copy(DATA / line["argv"][4], folder)
        replays.append(deployment.run(*line["argv"], **line["env"]))
        summary = json.loads((folder / "summary.json").read_text())
        del summary["seconds"]
        replays[-1]["summary"] = summary
    asyncio.run(deployment.dump(2))
    yield deployment, replays
    emptied(kafka.bootstrap)


def test_recordings_are_replayed_into_the_same_records(ingested: tuple[Deployment, Any]) -> None:
    """Of each symbol in the same order, on the same partition, with the same headers."""
    found, wanted = (
        by_key([record for record in records if record.wave == 2]) for records in (ingested[0].records, INGEST)
    )
    assert found == wanted


def by_key(records: list[Recorded]) -> dict[Any, list[Any]]:
    sequences = defaultdict(list)
    for record in records:
        headers = comparable(record.topic, record.headers)
        sequences[record.topic, record.partition, record.key].append((record.value, headers))
    return sequences


def test_a_replay_says_and_sums_up_what_it_did(ingested: tuple[Deployment, Any]) -> None:
    assert ingested[1] == INGESTED["replays"]


def test_a_live_feed_tells_of_itself_in_the_same_messages(ingested: tuple[Deployment, Any]) -> None:
    """Its states and gaps from start to end; times, and how far the market was, are of the day."""
    found, before = told(ingested[0].records), told(INGEST)
    assert found == before, "\n".join(f"{key}: {[line[:2] for line in found[key]]}" for key in found)


TOLD_SINCE = ("a record of topic trades was refused", LATE_REASON, TAKEN_IN)
"""How the reasons of gaps begin that the aggregate stage, and a rebuild, tell of since version 0.1.0."""
ADDED = {"complete_until", "workers", "final"}
"""Fields of `feed.status` and `feed.gaps` that version 0.1.0 did not know."""
BEGINNING = {"the worker has been started", "nothing had been published before, so there is nothing to go on from"}
"""Version 0.1.0 gave up the moments from its first start to the first trade (`begins`). They are fetched since, so the
gaps of a beginning and the state `repairing` are not compared, nor the line that says how it ended. Neither is the
state before: a feed that has begun before that could be told tells only what it is by then."""


def told(records: list[Recorded]) -> dict[Any, list[Any]]:
    """What was told of each symbol, in order. How often a state is repeated depends on when its last trade changes."""
    sequences: dict[Any, list[Any]] = defaultdict(list)
    for record in records:
        if (
            record.wave != 1
            or record.topic not in {"feed.status", "feed.gaps"}
            or not (record.key or b"").startswith(b"bitflyer:")
        ):
            continue
        assert record.value is not None
        message = json.loads(record.value)
        if message["state"] == "repairing" or message["reason"] in BEGINNING:
            continue
        fields = [name for name in message if name not in ADDED]
        told = (message["state"], message["reason"], fields, record.headers, record.partition)
        sequence = sequences[record.topic, record.key]
        if record.topic == "feed.status" and sequence and sequence[-1][0] == message["state"]:
            sequence.pop()  # its reason may change before the first one has gone out
        if told not in sequence[-1:]:
            sequence.append(told)
    return sequences


def test_a_live_worker_says_what_it_said(ingested: tuple[Deployment, Any]) -> None:
    found, before = (
        {line for line in said_by(lines) if line[2] not in {"begins", "repaired"}}
        for lines in (events(ingested[0].logs["ingest-bitflyer"]), INGESTED["logs"]["ingest-bitflyer"])
    )
    assert found == before
    assert served(INGESTED["metrics"]["ingest"], "ingest") <= set(ingested[0].metrics["ingest"])


def test_recorded_messages_of_feeds_are_read_and_written_byte_for_byte() -> None:
    read: dict[str, Callable[[bytes], FeedStatus | FeedGap]] = {
        "feed.status": decode_feed_status,
        "feed.gaps": decode_feed_gap,
    }
    messages = [record for record in INGEST if record.topic in read]
    for record in messages:
        assert record.value is not None
        written = json.loads(encode_feed(read[record.topic](record.value)))
        kept = {name: value for name, value in written.items() if name not in ADDED}
        assert json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode() == record.value
    assert {record.topic for record in messages} == set(read)
