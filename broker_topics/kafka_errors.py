"""The one place where aiokafka's errors become ours."""

import asyncio
import socket
import ssl
from collections.abc import Iterator

from aiokafka import errors as theirs

from broker_topics.errors import BusError, ConfigError, HeadwaterError

LIBRARY_ERRORS = (
    theirs.KafkaError,
    theirs.IllegalOperation,
    theirs.ConsumerStoppedError,
    OSError,
    # Raised inside aiokafka when a connection or leader vanishes between two of its own steps.
    AssertionError,
    KeyError,
)
"""Everything that a call into aiokafka may raise when the broker is at fault; `OSError` includes TimeoutError."""

DENIED = (
    theirs.TopicAuthorizationFailedError,
    theirs.ClusterAuthorizationFailedError,
    theirs.GroupAuthorizationFailedError,
)

NEVER_WRITTEN = (
    *DENIED,
    theirs.MessageSizeTooLargeError,
    theirs.RecordListTooLargeError,
    theirs.InvalidTopicError,
    theirs.InvalidTimestampError,
    theirs.PolicyViolationError,
)
"""Answers to a produce request after which the record is certainly not in the log, and never will be."""

_UNREADABLE = (theirs.CorruptRecordException, theirs.RecordTooLargeError, theirs.UnsupportedCodecError)

_WRONG_SETTING = (
    *NEVER_WRITTEN,
    theirs.UnknownTopicOrPartitionError,
    theirs.InvalidConfigurationError,
    theirs.InvalidPartitionsError,
    theirs.InvalidReplicationFactorError,
    theirs.InvalidReplicationAssignmentError,
    theirs.UnsupportedVersionError,
    theirs.IncompatibleBrokerVersion,
    theirs.SaslAuthenticationFailed,
    theirs.AuthenticationFailedError,
)

_CLIENT_CERTIFICATE_ALERTS = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "EXPIRED")


def translate(error: BaseException, doing: str) -> HeadwaterError:
    """Our error for what aiokafka raised while `doing` something; one of ours is returned as it is."""
    if isinstance(error, HeadwaterError):
        return error
    if isinstance(error, DENIED):
        return ConfigError(f"{doing}: the broker's access rules forbid it; grant this user the topic ({error})")
    if isinstance(error, theirs.MessageSizeTooLargeError | theirs.RecordListTooLargeError):
        return ConfigError(f"{doing}: larger than the topic's max.message.bytes; run `headwater topics diff`")
    if isinstance(error, _WRONG_SETTING):
        return ConfigError(f"{doing}: the broker refuses: {_said(error)}")
    return BusError(f"{doing}: {_said(error)}")


def is_unreadable(error: BaseException) -> bool:
    """Whether `getmany` raised this because records that it had fetched cannot be decoded.

    Decoders raise what they like, an `OSError` for gzip. Of the network only the caller's own time-out comes this way:
    aiokafka fetches in the background.
    """
    if isinstance(error, _UNREADABLE):
        return True
    return not isinstance(error, LIBRARY_ERRORS) or (isinstance(error, OSError) and not isinstance(error, TimeoutError))


def code_error(code: int) -> type[theirs.KafkaError] | None:
    """The class of a Kafka error code in a response, None for success."""
    if code == 0:
        return None
    kind: type[theirs.KafkaError] = theirs.for_code(code)
    return kind


def connection_error(error: BaseException, address: str, *, encrypted: bool, user: str) -> HeadwaterError:
    """Why connecting to `address` failed, in words that name the mend."""
    if encrypted and isinstance(error, ConnectionResetError):
        return HungUpError(f"{address}: the broker closed the connection at the TLS handshake; is it the TLS port?")
    for cause in _chain(error):
        if found := _known_cause(cause, address, encrypted=encrypted, user=user):
            return found
    return BusError(f"{address}: {_said(error)}")


def _known_cause(cause: BaseException, address: str, *, encrypted: bool, user: str) -> HeadwaterError | None:
    match cause:
        case ssl.SSLCertVerificationError():
            return ConfigError(
                f"{address}: the broker's certificate is not trusted: {cause.verify_message}; "
                "set tls_ca to the authority that signed it, and use a host name that it is for"
            )
        case ssl.SSLError() if any(alert in str(cause).upper() for alert in _CLIENT_CERTIFICATE_ALERTS):
            return ConfigError(
                f"{address}: the broker does not accept this client's certificate ({cause}); "
                "set tls_certificate and tls_key to a pair that its authority signed"
            )
        case ssl.SSLError():
            return ConfigError(f"{address}: no TLS with this listener ({cause}); is it the TLS port?")
        case theirs.SaslAuthenticationFailed() | theirs.AuthenticationFailedError():
            return ConfigError(f"{address}: wrong user or password for user {user!r}")
        case theirs.UnsupportedSaslMechanismError() | theirs.IllegalSaslStateError():
            return ConfigError(f"{address}: this listener takes no SCRAM-SHA-512 password; is it the right port?")
        case socket.gaierror() if cause.errno != socket.EAI_AGAIN:
            return ConfigError(f"{address}: the host name is unknown; correct the bootstrap address")
        case socket.gaierror():
            return BusError(f"{address}: host names cannot be looked up at the moment")
        case ConnectionRefusedError():
            return BusError(f"{address}: nothing listens there; is the broker running? (`headwater broker status`)")
        case ConnectionResetError() | asyncio.IncompleteReadError():
            return hung_up(address, encrypted=encrypted, user=user)
        case TimeoutError() | theirs.RequestTimedOutError():
            return BusError(f"{address}: no answer in time; is the address right and the broker running?")
        case _:
            return None


class HungUpError(BusError):
    """The broker closed the connection unasked: going down, or not spoken to as its listener wants."""


def hung_up(address: str, *, encrypted: bool, user: str) -> HungUpError:
    """The error for a connection that the broker closed, with what its listener may have wanted."""
    wants = [
        "a client certificate (tls_certificate, tls_key)" if encrypted else "TLS (tls, tls_ca)",
        *([] if user else ["a password (user, password)"]),
    ]
    return HungUpError(f"{address}: the broker closed the connection; its listener may want {' or '.join(wants)}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
