"""Keys fall into the partitions that Kafka's Java client gives them."""

import pytest
from aiokafka.partitioner import murmur2 as peer
from hypothesis import given
from hypothesis import strategies as st

from broker_topics.partitions import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_client(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed & 0xFFFFFFFF


@given(st.binary(max_size=64))
def test_the_hash_agrees_with_aiokafka_on_any_key(data: bytes) -> None:
    assert murmur2(data) == peer(data) & 0xFFFFFFFF


def test_the_sign_bit_is_dropped_before_the_remainder_is_taken() -> None:
    assert partition_of(b"foobar", 12) == 6
    assert partition_of(b"21", 7) == 3
