"""Mails to people: through an SMTP server, or as files in the data folder's `outbox` where none is set.

The outbox is for one machine without a mail server: its operator reads the file and hands the link on. Only the owner of
the data folder can read it.
"""

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from annotomy.db.identifiers import new_id
from annotomy.settings import Settings

SMTP_TIMEOUT_S = 20.0


class Mailer(Protocol):
    async def send(self, message: EmailMessage) -> None:
        """Returns once somebody else is responsible for the mail. Raises OSError (smtplib's errors are) otherwise."""
        ...


class FileOutbox:
    """One `.eml` file for each mail, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        await asyncio.to_thread(self._write, bytes(message))

    def _write(self, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{new_id()}.eml"
        half = path.with_suffix(".part")
        half.touch(mode=0o600)
        half.write_bytes(content)
        half.rename(path)


class SmtpServer:
    """smtps:// speaks TLS at once; smtp:// turns to TLS where the server offers it, and always before it sends a password."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        if self._parts.scheme not in ("smtp", "smtps") or not self._parts.hostname:
            raise ValueError("ANNOTOMY_SMTP_URL takes smtp://host:587 or smtps://user:password@host:465")

    async def send(self, message: EmailMessage) -> None:
        await asyncio.to_thread(self._send, message)

    def _send(self, message: EmailMessage) -> None:
        host, user = self._parts.hostname or "", self._parts.username
        context = ssl.create_default_context()
        if self._parts.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, self._parts.port or 465, timeout=SMTP_TIMEOUT_S, context=context
            )
        else:
            server = smtplib.SMTP(host, self._parts.port or 587, timeout=SMTP_TIMEOUT_S)
        with server:
            server.ehlo()
            if self._parts.scheme == "smtp" and (server.has_extn("starttls") or user):
                server.starttls(context=context)
            if user:
                server.login(unquote(user), unquote(self._parts.password or ""))
            server.send_message(message)


def mailer_for(settings: Settings) -> Mailer:
    url = settings.identity.smtp_url
    return SmtpServer(url) if url else FileOutbox(settings.data_dir / "outbox")


def compose(settings: Settings, *, to: str, subject: str, text: str) -> EmailMessage:
    """Raises ValueError for an address that would break out of its header."""
    message = EmailMessage()
    message["From"] = settings.identity.mail_from
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = make_msgid(domain="annotomy.invalid")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message
