"""Where a remote is, how it is spoken to, and what proves who we are: as an administrator writes it, and as it is kept."""

from typing import Annotated, Literal

import msgspec

Text = Annotated[str, msgspec.Meta(max_length=2000)]
Pem = Annotated[str, msgspec.Meta(max_length=64_000)]
AeTitle = Annotated[str, msgspec.Meta(pattern=r"^[ -\[\]-~]{1,16}$")]


class DicomwebAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Secrets (password, token, key) are taken and never answered."""

    url: Annotated[str, msgspec.Meta(min_length=8, max_length=2000)]
    """Where `/studies` hangs: https://pacs.example.org/dicom-web"""
    auth: Literal["none", "basic", "bearer", "certificate"] = "none"
    username: Text = ""
    password: Text = ""
    token: Pem = ""
    certificate: Pem = ""
    """Our client certificate with its chain (PEM)."""
    key: Pem = ""
    """Its private key (PEM)."""
    ca: Pem = ""
    """Authorities (PEM) that the remote's certificate is checked against, besides the system's."""


class DimseAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    ae_title: AeTitle
    calling_ae_title: Annotated[str, msgspec.Meta(pattern=r"^[ -\[\]-~]{0,16}$")] = ""
    """Ours towards this remote; empty: that of the installation."""
    retrieve: Literal["get", "move"] = "get"
    """`move`: the remote sends to our listener, where it must be a DICOM peer that may store."""
    commitment: bool = False
    """Ask for storage commitment of what was sent."""
    tls: bool = False
    certificate: Pem = ""
    key: Pem = ""
    ca: Pem = ""


SECRETS = ("password", "token", "key")
