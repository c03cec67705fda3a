"""Certificates that tests make, and clients that show them."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """A certificate authority of its own, with its certificates as files in a folder."""

    def __init__(self, folder: Path, ca: trustme.CA | None = None) -> None:
        self._folder = folder
        self._ca = ca or trustme.CA()
        self.file = folder / "ca.crt"
        self._ca.cert_pem.write_to_path(self.file)

    def intermediate(self, folder: Path) -> Authority:
        """An authority whose own certificate is signed by this one."""
        return Authority(folder, self._ca.create_child_ca())

    def server(self, name: str = "server") -> tuple[Path, Path]:
        """Files of a certificate for this machine, and of its key."""
        return self._write(name, self._ca.issue_cert("localhost", "127.0.0.1"))

    def serve(self) -> ssl.SSLContext:
        """What a server of this machine uses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server())
        return context

    def client(self, *identities: str, name: str = "client") -> tuple[Path, Path]:
        """Files of a client's certificate with these alternative names, and of its key."""
        return self._write(name, self._ca.issue_cert(*identities))

    def trust(
        self,
        client: tuple[Path, Path] | None = None,
        version: ssl.TLSVersion | None = None,
    ) -> ssl.SSLContext:
        """What a client uses that trusts this authority, shows `client`, speaks only `version`."""
        context = ssl.create_default_context(cafile=self.file)
        if client is not None:
            context.load_cert_chain(*client)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def _write(self, name: str, issued: trustme.LeafCert) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key
