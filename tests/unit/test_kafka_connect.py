"""Meeting a cluster that is just coming back."""

from broker_topics.kafka_connect import first_node


class Cluster:
    """A client whose cluster lists its broker only at the third look."""

    looks = 0

    def get_random_node(self) -> int | None:
        return 1 if self.looks == 3 else None

    async def force_metadata_update(self) -> bool:
        self.looks += 1
        return self.looks == 3


async def test_a_cluster_that_lists_no_broker_yet_is_asked_again_until_it_does():
    cluster = Cluster()
    assert await first_node(cluster) == 1
    assert cluster.looks == 3
