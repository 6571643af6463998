"""Each check of the doctor, by facts in which it fails."""

from __future__ import annotations

from typing import Any

import pytest
from operations_samples import DAY, NOW, facts

from ashi_operations.doctor.facts import (
    Address,
    Certificates,
    Clocks,
    EpochFacts,
    Fact,
    Partitions,
    Right,
    ShownCertificate,
    StoreFacts,
    TopicDifference,
    Topics,
    Waiting,
)
from ashi_operations.doctor.judge import checks_of, principal
from ashi_operations.doctor.report import Check, report_of

GB = 10**9
STORE: dict[str, Any] = {
    "where": "/data/candles.db",
    "version": 3,
    "latest": 3,
    "lacking": [],
    "free": 80 * GB,
    "total": 100 * GB,
}


def test_where_all_is_well_every_check_says_so_and_none_has_a_command() -> None:
    checks = checks_of(facts())
    assert {check.state for check in checks} == {"ok"}
    assert {check.command for check in checks} == {None}
    assert {check.code.partition(".")[0] for check in checks} == {
        *("kafka", "access", "topics", "state", "groups", "clocks", "feeds", "store"),
    }
    assert report_of(NOW, "kafka:9092", checks).exit == 0


def failing(**more: Any) -> Check:
    """The one check that is not good."""
    [check] = [check for check in checks_of(facts(**more)) if check.state not in {"ok", "skipped"}]
    return check


def certificate(days: float) -> Fact[Certificates]:
    soon = ShownCertificate("kafka:9093", "CN=kafka", NOW + int(days * DAY))
    return Fact(Certificates([ShownCertificate("kafka:9093", "CN=root", NOW + 900 * DAY), soon], {}))


def store(**more: Any) -> Fact[StoreFacts]:
    return Fact(StoreFacts(**STORE | more))


PROBLEM = ("error", "feeds.down", "binance", "1 feed of binance is not connected", "ashi status --once")
IDLE = ("warning", "group.idle", "ashi-aggregate", "1 worker has no partition", "ashi topics check")
BAD = [
    (
        {"addresses": Fact([Address("a:9092", True, "refused"), Address("b:9092", True, None)])},
        ("kafka.reach", "warning", "a:9092 of ASHI_KAFKA_BOOTSTRAP cannot be reached: refused", "nc -vz a 9092"),
    ),
    (
        {"addresses": Fact([Address("[::1]:9092", True, "refused")])},
        ("kafka.reach", "error", "cannot be reached", "nc -vz ::1 9092"),
    ),
    (
        {"addresses": Fact([Address("a:9092", True, None), Address("lost:9092", False, "no answer within 3 s")])},
        ("kafka.reach", "error", "sends its clients on to lost:9092", "nc -vz lost 9092"),
    ),
    (
        {"certificates": certificate(20)},
        (
            "kafka.certificates",
            "warning",
            "CN=kafka of kafka:9093 expires in 20 days",
            "openssl s_client -connect kafka:9093",
        ),
    ),
    ({"certificates": certificate(2)}, ("kafka.certificates", "error", "expires in 2 days", "openssl s_client")),
    ({"certificates": certificate(-1)}, ("kafka.certificates", "error", "has expired on", "openssl s_client")),
    (
        {"certificates": Fact(Certificates([], {"kafka:9093": "shows a certificate that is not trusted"}))},
        ("kafka.certificates", "error", "kafka:9093 shows a certificate that is not trusted", "openssl s_client"),
    ),
    (
        {"certificates": Fact(Certificates([ShownCertificate("ASHI_KAFKA_CERT_FILE", "CN=sink", NOW)], {}))},
        ("kafka.certificates", "error", "CN=sink of ASHI_KAFKA_CERT_FILE has expired", '-in "$ASHI_KAFKA_CERT_FILE"'),
    ),
    (
        {"login": Fact(why="refuses the login of 'sink'")},
        ("kafka.login", "error", "refuses the login", "env | grep '^ASHI_KAFKA_'"),
    ),
    (
        {"versions": Fact({3: (0, 9), 1: (0, 11), 22: (0, 2)})},
        ("kafka.version", "warning", "Kafka 2.4", "kafka-broker-api-versions --bootstrap-server kafka:9092"),
    ),
    (
        {"versions": Fact({3: (0, 2), 1: (0, 3)})},
        ("kafka.version", "error", "before 0.11", "kafka-broker-api-versions"),
    ),
    (
        {"partitions": Fact(Partitions(["trades/1"], [], 40))},
        ("kafka.partitions", "error", "nobody leads trades/1", "--unavailable-partitions"),
    ),
    (
        {"partitions": Fact(Partitions([], ["trades/1"], 40))},
        ("kafka.partitions", "warning", "copies are behind or away of trades/1", "--under-replicated-partitions"),
    ),
    (
        {
            "topics": Fact(
                Topics(
                    14, [TopicDifference("signals", True, False, "topic signals is missing", "ashi topics create")], []
                )
            )
        },
        ("topics.there", "error", "topics are missing: signals", "ashi topics create"),
    ),
    (
        {
            "topics": Fact(
                Topics(
                    14,
                    [TopicDifference("candles", False, True, "topic candles has 3 partitions, not 8", "kafka-topics")],
                    [],
                )
            )
        },
        ("topics.partitions", "error", "candles has 3 partitions, not 8", "kafka-topics"),
    ),
    (
        {
            "topics": Fact(
                Topics(
                    14,
                    [TopicDifference("candles", False, False, "topic candles has retention.ms=1", "kafka-configs")],
                    [],
                )
            )
        },
        ("topics.settings", "warning", "candles has retention.ms=1", "kafka-configs"),
    ),
    (
        {"topics": Fact(Topics(14, [], ["trades"]))},
        (
            "topics.settings",
            "unknown",
            "the settings of trades are not shown to user 'sink'",
            "--operation DescribeConfigs --topic trades",
        ),
    ),
    (
        {"retention": Fact([Waiting("ashi-sink-lake", "candles", 0.5 * 86_400, 86_400.0)])},
        (
            "topics.retention",
            "warning",
            "appended to topic candles 12 h ago, and that expires in 12 h",
            "--add-config retention.ms=172800000",
        ),
    ),
    (
        {"retention": Fact([Waiting("ashi-sink-lake", "candles", 0.9 * 86_400, 86_400.0)])},
        ("topics.retention", "error", "expires in 2.4 h", "--entity-name candles"),
    ),
    (
        {"retention": Fact([Waiting("ashi-sink-lake", "candles", 30.0, 60.0, 7_776_000.0)])},
        ("topics.retention", "warning", "Kafka keeps it for 60 s", "--add-config retention.ms=7776000000"),
    ),
    (
        {
            "topics": Fact(
                Topics(
                    14,
                    [
                        TopicDifference(name, False, True, f"topic {name} has 4 partitions, not 8", "kafka-topics")
                        for name in ("trades", "candles", "candles.live", "signals")
                    ],
                    [],
                )
            )
        },
        (
            "topics.partitions",
            "error",
            "topics trades, candles, candles.live and 1 more have 4 partitions, not 8",
            "kafka-topics",
        ),
    ),
    ({"epoch": Fact(None)}, ("state.epoch", "warning", "no aggregate worker has ever run", "ashi aggregate")),
    (
        {"epoch": Fact(EpochFacts(3, "ASHI_TIMEFRAMES=1m", "the state was built with 1m, this has 5m"))},
        ("state.epoch", "error", "the state was built with 1m, this has 5m", "ashi aggregate reconfigure"),
    ),
    ({"groups": Fact([IDLE])}, ("groups", "warning", "1 worker has no partition", "ashi topics check")),
    ({"feeds": Fact([PROBLEM])}, ("feeds", "error", "1 feed of binance is not connected", "ashi status --once")),
    (
        {"clocks": Fact(Clocks(3.0, {}))},
        ("clocks", "warning", "of this machine is 3.0 s ahead of the brokers'", "timedatectl"),
    ),
    (
        {"clocks": Fact(Clocks(-90.0, {}))},
        ("clocks", "error", "of this machine is 90 s behind the brokers'", "timedatectl"),
    ),
    (
        {"clocks": Fact(Clocks(0.0, {"gmo": 4.0}))},
        ("clocks", "warning", "of an ingest worker of gmo is 4.0 s ahead", "timedatectl"),
    ),
    ({"clocks": Fact(Clocks(None, {}))}, ("clocks", "unknown", "nothing was appended", "ashi doctor")),
    (
        {"store": Fact(why="/data/candles.db does not exist")},
        (
            "store.open",
            "error",
            "/data/candles.db does not exist",
            "ashi sink sqlite --storage sqlite:////data/candles.db",
        ),
    ),
    (
        {
            "store": Fact(why="database x has schema 2: run `ashi sink postgres --migrate`"),
            "store_kind": "postgres",
            "store_url": "postgresql://u:***@db/x",
        },
        ("store.open", "error", "has schema 2", "ashi sink postgres --migrate --storage postgresql://u:***@db/x"),
    ),
    (
        {"store": store(version=2)},
        ("store.open", "warning", "tables of version 2, and this version of Ashi makes 3", "ashi sink sqlite"),
    ),
    (
        {"store": store(lacking=["write to /data/candles.db"])},
        ("store.rights", "error", "write to /data/candles.db", "id && ls -ld /data /data/candles.db"),
    ),
    (
        {
            "store": store(lacking=["INSERT on candles", "UPDATE on candles", "TEMPORARY on the database"]),
            "store_kind": "postgres",
            "store_url": "postgresql://sink:***@db:5432/market?sslmode=require",
        },
        (
            "store.rights",
            "error",
            "INSERT on candles, UPDATE on candles",
            "psql 'postgresql://<owner>@db:5432/market' --command "
            '\'GRANT INSERT, UPDATE ON candles TO "sink"; GRANT TEMPORARY ON DATABASE market TO "sink"\'',
        ),
    ),
    (
        {"store": Fact(why="/data/candles.db has layout 9 and this one knows 4: use the version that made it")},
        ("store.open", "error", "has layout 9", "ashi --version"),
    ),
    (
        {"store": Fact(why="/data/candles.db is not an SQLite database: name another file")},
        ("store.open", "error", "is not an SQLite database", "id && ls -ld /data /data/candles.db"),
    ),
    (
        {
            "store": Fact(why="database x at db cannot be reached: look whether the server runs there"),
            "store_kind": "postgres",
            "store_url": "postgresql://u:***@db/x",
        },
        ("store.open", "error", "cannot be reached", "pg_isready --dbname 'postgresql://u:***@db/x' && psql "),
    ),
    (
        {
            "store": Fact(why="s3://bucket/x/candles cannot be opened: no keys for S3 are found"),
            "store_kind": "lake",
            "store_url": "lake+s3://bucket/x",
        },
        ("store.open", "error", "no keys for S3", "env | grep '^AWS_' | cut -d= -f1"),
    ),
    ({"store": store(free=5 * GB)}, ("store.space", "warning", "5.0 GB of 100.0 GB are free", "df -h /data")),
    ({"store": store(free=GB // 10)}, ("store.space", "error", "0.1 GB of 100.0 GB are free", "df -h /data")),
]


@pytest.mark.parametrize(
    ("given", "expected"), BAD, ids=[f"{expected[0]}-{place}" for place, (_, expected) in enumerate(BAD)]
)
def test_each_check_fails_where_its_fact_is_bad_and_ends_with_a_command(
    given: dict[str, Any], expected: tuple[str, str, str, str]
) -> None:
    check = failing(**given)
    code, state, text, command = expected
    assert (check.code, check.state) == (code, state)
    assert text in check.text
    assert check.command is not None
    assert command in check.command
    status = report_of(NOW, "kafka:9092", [check]).exit
    assert status == (2 if state == "error" else 1)


LACKING = [
    Right("topic", "candles", "Read"),
    Right("topic", "feed.gaps", "Read"),
    Right("topic", "candles.dead", "Write"),
    Right("group", "ashi-sink-sqlite", "Read"),
]


def test_rights_that_are_missing_are_an_error_for_who_is_meant_to_have_them_with_the_command_that_grants_them() -> None:
    check = failing(rights=Fact({"ashi sink": LACKING}))
    assert (check.code, check.state) == ("access.sink", "error")
    assert "user 'sink' may not do what `ashi sink` does, but lacks Read on topic candles" in check.text
    add = "kafka-acls --bootstrap-server kafka:9092 --add --allow-principal User:sink"
    assert check.command == (
        f"{add} --operation Read --topic candles --topic feed.gaps && {add} --operation Write --topic candles.dead && "
        f"{add} --operation Read --group ashi-sink-sqlite"
    )


def test_rights_of_stages_that_another_user_may_run_are_a_warning() -> None:
    check = failing(rights=Fact({"ashi sink --topic trades": LACKING[:1]}), chosen=[])
    assert (check.code, check.state) == ("access.sink-trades", "warning")
    assert "`ashi doctor --stage`" in check.text


def test_several_operations_on_one_topic_are_granted_at_once() -> None:
    check = failing(
        rights=Fact({"ashi sink": [Right("topic", "ashi.meta", operation) for operation in ("Read", "Write")]})
    )
    assert check.command is not None
    assert check.command.endswith("--operation Read --operation Write --topic ashi.meta")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"username": "sink", "token": False, "certificate": None}, "User:sink"),
        ({"username": None, "token": True, "certificate": None}, "'User:<subject of the token>'"),
        ({"username": None, "token": False, "certificate": "CN=sink"}, "'User:CN=sink'"),
        ({"username": None, "token": False, "certificate": None}, "User:ANONYMOUS"),
    ],
)
def test_the_user_is_named_as_kafkas_lists_do(given: dict[str, Any], expected: str) -> None:
    assert principal(given.pop("username"), **given) == expected


def test_what_could_not_be_found_out_is_said_and_is_not_well() -> None:
    check = failing(topics=Fact(why="no answer within 15 s"))
    assert (check.code, check.state, check.command) == ("topics", "unknown", "ashi doctor")
    assert report_of(NOW, "", [check]).exit == 1


def test_what_was_not_to_be_asked_is_skipped_and_does_no_harm() -> None:
    checks = checks_of(facts(certificates=Fact(skipped="no TLS is used"), store=Fact(skipped="no store is named")))
    assert {check.text for check in checks if check.state == "skipped"} == {"no TLS is used", "no store is named"}
    assert report_of(NOW, "", checks).exit == 0


def test_how_much_room_there_is_cannot_be_asked_of_every_store() -> None:
    [check] = [check for check in checks_of(facts(store=store(free=None, total=None))) if check.code == "store.space"]
    assert check.state == "skipped"
