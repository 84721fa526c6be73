"""What the doctor says of a cluster, from a sight of it; faults on a real broker are in tests/kafka/test_doctor.py."""

from typing import Any

from broker_topics.access import ACCESS, Role
from broker_topics.kafka_probe import Replicas, Sight, TopicSight
from broker_topics.topics import Topic, TopicDifference, topic_name
from headwater.checkup import doctor
from headwater.checkup.finding import Level

COMMITS = topic_name("watch", Topic.COMMITS)


def partition(number: int, leader: int, replicas: tuple[int, ...], in_sync: tuple[int, ...]) -> Replicas:
    return Replicas(partition=number, leader=leader, replicas=replicas, in_sync=in_sync)


def sight(*partitions: Replicas, **changed: Any) -> Sight:
    topic = TopicSight(hidden=False, rights=frozenset(), partitions=partitions)
    given: dict[str, Any] = {"brokers": (1, 3), "release": "4.4", "upgrade_open": False, "topics": {COMMITS: topic}}
    return Sight(**{**given, **changed})


def test_a_broker_that_is_away_still_counts_among_those_that_hold_copies() -> None:
    assert doctor.copies(sight(partition(0, 1, (1, 2, 3), (1, 3)))) == 3
    assert doctor.copies(sight(partition(0, 1, (1, 3), (1, 3)))) == 2
    assert doctor.copies(sight(brokers=(1, 2, 3, 4, 5))) == 3


def test_a_replica_that_lags_is_named_by_its_broker() -> None:
    (found,) = doctor.replicas(sight(partition(0, 1, (1, 2, 3), (1, 3)), partition(1, 3, (1, 3), (1, 3))))
    assert (found.level, found.words) == (Level.BAD, f"{COMMITS}: 1 partition not on all replicas")
    assert found.mend.startswith("start broker 2 again")


def test_a_partition_that_nobody_leads_is_worse_than_one_that_lags() -> None:
    (found,) = doctor.replicas(sight(partition(0, -1, (2,), (2,)), partition(1, 1, (1, 2), (1,))))
    assert found.words == f"{COMMITS}: nobody leads partitions 0"


def test_partitions_on_all_their_replicas_are_well() -> None:
    assert [each.level for each in doctor.replicas(sight(partition(0, 1, (1, 3), (3, 1))))] == [Level.GOOD]


def test_another_release_is_a_note_and_never_a_fault() -> None:
    assert doctor.kafka(sight()).level is Level.GOOD
    for changed in ({"release": "4.1"}, {"release": ""}, {"upgrade_open": True}):
        assert doctor.kafka(sight(**changed)).level is Level.NOTE


def test_each_difference_from_the_table_has_the_mend_that_fits() -> None:
    differing = {"partitions": ("12", "5"), "replication": ("3", "1"), "min.insync.replicas": ("2", "1")}
    mends = [each.mend for each in doctor.topics("watch", [TopicDifference(name=COMMITS, differing=differing)])]
    assert mends[0].startswith("12 are needed and fixed for life")
    assert mends[1] == "kafka-reassign-partitions.sh to 3 replicas"
    assert mends[2].endswith(f"--entity-name {COMMITS} --add-config min.insync.replicas=2")


def test_rights_that_the_broker_does_not_tell_are_said_to_be_unknown() -> None:
    silent = sight(topics={COMMITS: TopicSight(hidden=False, rights=None, partitions=())})
    (found,) = doctor.rights("watch", Role.AGGREGATOR, "ann", silent)
    assert (found.level, "does not say" in found.words) == (Level.NOTE, True)


def test_a_user_with_just_the_rights_of_its_role_is_well() -> None:
    seen = {
        topic_name("watch", topic): TopicSight(hidden=False, rights=operations, partitions=())
        for topic, operations in ACCESS[Role.EVALUATOR].items()
    }
    (found,) = doctor.rights("watch", Role.EVALUATOR, "ann", sight(topics=seen))
    assert (found.level, found.words[:38]) == (Level.GOOD, "ann has the rights of the role evaluat")
