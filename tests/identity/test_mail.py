"""Mails leave through the server that is set, over SMTP as it is spoken."""

import asyncio
from pathlib import Path

import pytest

from annotomy.identity.mail import SmtpServer, compose, mailer_for
from annotomy.settings import Settings


async def test_a_mail_reaches_the_smtp_server(tmp_path: Path) -> None:
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test ESMTP\r\n")
        in_data = False
        while line := (await reader.readline()).decode():
            heard.append(line.rstrip("\r\n"))
            if in_data:
                if line == ".\r\n":
                    in_data = False
                    writer.write(b"250 taken\r\n")
            elif line.upper().startswith("EHLO"):
                writer.write(b"250-test\r\n250 8BITMIME\r\n")
            elif line.upper().startswith("DATA"):
                in_data = True
                writer.write(b"354 go on\r\n")
            elif line.upper().startswith("QUIT"):
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings.from_environment(
        {"ANNOTOMY_DATA": str(tmp_path), "ANNOTOMY_SMTP_URL": f"smtp://127.0.0.1:{port}"}
    )
    message = compose(settings, to="reader@example.org", subject="제목 / subject", text="본문\n")
    await mailer_for(settings).send(message)
    server.close()
    assert "rcpt to:<reader@example.org>" in [line.lower() for line in heard]
    assert "To: reader@example.org" in heard


def test_an_address_cannot_add_headers(tmp_path: Path) -> None:
    settings = Settings.from_environment({"ANNOTOMY_DATA": str(tmp_path)})
    with pytest.raises(ValueError, match="Header"):
        compose(settings, to="a@b\r\nBcc: c@d", subject="s", text="t")


@pytest.mark.parametrize("url", ["http://host", "smtp://", "host:25"])
def test_only_smtp_addresses_are_taken(url: str) -> None:
    with pytest.raises(ValueError, match="ANNOTOMY_SMTP_URL"):
        SmtpServer(url)
