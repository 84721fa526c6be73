"""Throw-away certificates for a secured listener: one authority, one server, and devices by name."""

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """PEM files of one device: certificate chain and private key (PKCS#8)."""

    certificate: Path
    key: Path


class Authority:
    """Signs for 127.0.0.1; all its files lie in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA(organization_name="Headwater tests")
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def server(self) -> Path:
        """One PEM file as Kafka wants a key store: private key, then the chain."""
        leaf = self._ca.issue_cert("127.0.0.1", "localhost")
        path = self._folder / "server.pem"
        path.write_bytes(_pkcs8(leaf) + _chain(leaf))
        return path

    def device(self, name: str) -> Identity:
        """A client certificate whose common name is `name`."""
        leaf = self._ca.issue_cert(f"{name}.devices.test", common_name=name)
        identity = Identity(certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}.key")
        identity.certificate.write_bytes(_chain(leaf))
        identity.key.write_bytes(_pkcs8(leaf))
        return identity


def _chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems)


def _pkcs8(leaf: trustme.LeafCert) -> bytes:
    """Kafka reads PKCS#8 keys only, trustme writes PKCS#1."""
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
