"""What aiokafka and the network say becomes an error that names the mend, sorted by who must act."""

import socket
import ssl

import pytest
from aiokafka import errors as theirs

from broker_topics.errors import BusError, ConfigError, HeadwaterError
from broker_topics.kafka_errors import connection_error, translate


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), ConfigError, "the host name is unknown"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), BusError, "cannot be looked up at the moment"),
        (ConnectionRefusedError(), BusError, "nothing listens there"),
        (TimeoutError(), BusError, "no answer in time"),
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]"), ConfigError, "set tls_certificate and tls_key"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), ConfigError, "is it the TLS port?"),
        (theirs.SaslAuthenticationFailed(), ConfigError, "wrong user or password for user 'ann'"),
        (theirs.UnsupportedSaslMechanismError(), ConfigError, "takes no SCRAM-SHA-512 password"),
        (ConnectionResetError(), BusError, "closed the connection"),
    ],
)
def test_a_failed_connection_says_its_true_cause(cause: BaseException, kind: type[HeadwaterError], words: str) -> None:
    hidden = theirs.KafkaConnectionError("closed")
    hidden.__cause__ = cause
    for error in (cause, hidden):
        ours = connection_error(error, "broker:9092", encrypted=False, user="ann")
        assert isinstance(ours, kind)
        assert str(ours).startswith("broker:9092: ")
        assert words in str(ours)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (theirs.TopicAuthorizationFailedError("fl.t.updates"), ConfigError),
        (theirs.MessageSizeTooLargeError(), ConfigError),
        (theirs.InvalidReplicationFactorError(), ConfigError),
        (theirs.NotLeaderForPartitionError(), BusError),
        (theirs.KafkaConnectionError("gone"), BusError),
        (OSError("cable cut"), BusError),
        (ConfigError("ours already"), ConfigError),
    ],
)
def test_an_error_goes_to_the_one_who_can_act(error: BaseException, kind: type[HeadwaterError]) -> None:
    assert type(translate(error, "sending")) is kind
