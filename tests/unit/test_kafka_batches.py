"""A batch that says it lies elsewhere is known by its neighbours; what Kafka itself leaves in a log is no damage."""

import struct

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from broker_topics.kafka_batches import Batch, batches_in, misplaced_until, read


def at(*firsts, length=1):
    return [Batch(first, first + length) for first in firsts]


@pytest.mark.parametrize(
    ("batches", "position", "end", "until"),
    [
        (at(7, 6, 7, 8), 5, 9, 6),
        (at(2**40 + 5, 6), 5, 7, 6),
        (at(2**40 + 5), 5, 6, 6),
        (at(6, 7), 5, 8, 6),  # a broker skips a batch that says it comes before what was asked for
        (at(9, 8, 10, length=2), 6, 12, 8),
        (at(-(2**62), 6), 5, 7, 6),
    ],
    ids=["a little later", "beyond the end", "the last one", "before", "of two records", "negative"],
)
def test_a_flipped_base_offset_is_told_from_its_neighbours(batches, position, end, until):
    assert misplaced_until(batches, position, end) == until


def test_a_batch_that_begins_before_the_position_is_in_its_place():
    assert misplaced_until(at(4, 8, length=4), 5, 12) == 5


def sound(first, value):
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 16)
    builder.append(0, timestamp=1, key=b"a", value=value, headers=[])
    (batch,) = batches_in(struct.pack(">q", first) + bytes(builder.build())[8:])
    return batch


def values(found):
    return [(offset, got and bytes(got.value)) for offset, got in found]


def test_what_lies_behind_a_moved_batch_is_read_although_a_broker_gives_that_one_first():
    moved = sound(2**33, b"six")
    others = [sound(7, b"seven"), sound(8, b"eight")]
    found, end = read([moved, *others], 6, 9)
    assert (values(found), end) == ([(6, None), (7, b"seven"), (8, b"eight")], 9)
    found, end = read([moved, *others], 8, 9)
    assert (values(found), end) == ([(8, b"eight")], 9)


def test_a_transactions_marker_is_passed_and_nothing_of_it_is_damage():
    found, end = read([Batch(5, 6, control=True), sound(6, b"six")], 5, 7)
    assert (values(found), end) == ([(6, b"six")], 7)


def test_a_batch_that_is_cut_off_or_that_no_decoder_takes_stops_nobody():
    whole = sound(6, b"six").data
    spoilt = whole[:-1] + bytes([whole[-1] ^ 1])
    (batch,) = batches_in(spoilt + whole[:40])
    assert read([batch], 6, 8) == ([(6, None)], 7)
