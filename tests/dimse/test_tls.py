"""The listener with a certificate speaks TLS only; with an authority, peers must show a certificate of it."""

import asyncio
import contextlib
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from annotomy.dimse.pdu import AssociateAccept, PduError
from annotomy.services import Services
from tests.dimse.test_associations import RawPeer, request
from tests.support.dicom_listener import listening


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Self-signed, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path / "listener.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def associate(port: int, context: ssl.SSLContext | None) -> object:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None
    )
    peer = RawPeer(reader, writer)
    await peer.send(request())
    try:
        return await peer.receive()
    finally:
        await peer.close()


async def test_peers_speak_tls_and_nothing_else(services: Services, certificate: Path) -> None:
    async with listening(services, tls_cert=certificate) as listener:
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert isinstance(await associate(listener.port, trusting), AssociateAccept)
        with contextlib.suppress(PduError, ConnectionError):  # the answer, if any, is a TLS alert
            assert await associate(listener.port, None) is None


async def test_a_peer_without_a_certificate_is_refused_where_one_is_wanted(
    services: Services, certificate: Path
) -> None:
    async with listening(services, tls_cert=certificate, tls_ca=certificate) as listener:
        bare = ssl.create_default_context(cafile=str(certificate))
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            assert await associate(listener.port, bare) is not None
        shown = ssl.create_default_context(cafile=str(certificate))
        shown.load_cert_chain(certificate)
        assert isinstance(await associate(listener.port, shown), AssociateAccept)
