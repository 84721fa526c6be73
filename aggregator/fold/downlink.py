"""What a server step publishes: the compressed way from the model that devices know to the one that the server has."""

import numpy as np

from aggregator.fold.state import FoldState
from broker_topics.codecs import CodecId, Encoded, decode, encode
from broker_topics.errors import InvariantError, WireError
from broker_topics.layout import Vector


def move_hidden(state: FoldState, scratch: Vector, *, inputs: int) -> tuple[Encoded, float]:
    """Take x̂ and the served model one version towards x, by no more than what devices are told.

    Args:    scratch: float32[P], overwritten. inputs: updates in the step.
    Returns: the encoded x − x̂, and the norm of what was decoded from it.
    Raises:  InvariantError: the model left the range of float32.
    """
    np.subtract(state.x, state.model.hidden, out=scratch)
    try:
        encoded = encode(scratch, CodecId.SPARSE, density=state.settings.downlink_density)
    except WireError as error:
        raise InvariantError("the model left the range of float32; lower server_learning_rate") from error
    decoded = decode(encoded)
    state.model.advance(decoded, inputs=inputs, horizon=state.settings.served_horizon)
    return encoded, decoded.norm
