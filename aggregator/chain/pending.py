"""What waits to become a record of the chain."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from aggregator.chain.writer import Parts
from aggregator.fold.core import Admission, Draft
from broker_topics.layout import Vector
from broker_topics.record import Body, PartRef


@dataclass(slots=True)
class Pending:
    """A server step on its way into the chain, with what the metrics want to know of its inputs."""

    draft: Draft
    admitted: list[tuple[Admission, int]]
    keyframe: Parts | None = None
    vectors: Mapping[str, Vector] | None = None
    before: tuple[int, float, bool] = (0, math.inf, False)
    """What was known when the keyframe was begun: steps and oldest input since the last one, whether parts are lost."""
    note: str = ""

    def body(self, parts: tuple[PartRef, ...]) -> Body:
        """What the record says, once its parts lie in the log."""
        return replace(self.draft.body, parts=parts, keyframe=self.keyframe is not None, note=self.note)
