"""Secured listeners beside the plain one: TLS, mTLS, SCRAM over TLS, as a fleet outside a laptop needs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PRINCIPAL_FROM_CN = "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT"
"""The user of a client certificate is its common name."""

_SCRAM_JAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuredListener:
    """One more way into every node, encrypted; `name` is how `LocalCluster.address` finds it.

    keystore: PEM file with the server's private key (PKCS#8, RSA or EC) followed by its certificate chain.
    client_ca: PEM file; set, a client must show a certificate of this authority (mTLS).
    scram: a client must log in with SCRAM-SHA-512 (users are the cluster's `scram_users`).
    """

    name: str
    keystore: Path
    client_ca: Path | None = None
    scram: bool = False

    @property
    def protocol(self) -> str:
        """Kafka's word for it."""
        return "SASL_SSL" if self.scram else "SSL"

    def properties(self) -> Mapping[str, str]:
        """Its lines of server.properties."""
        lines = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(self.keystore)}
        if self.client_ca is not None:
            lines |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.client_ca),
                "ssl.client.auth": "required",
                "ssl.principal.mapping.rules": PRINCIPAL_FROM_CN,
            }
        if self.scram:
            lines |= {
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "scram-sha-512.sasl.jaas.config": _SCRAM_JAAS,
            }
        return {f"listener.name.{self.name.lower()}.{key}": value for key, value in lines.items()}
