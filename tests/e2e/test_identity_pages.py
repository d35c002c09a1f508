"""Somebody asks for an account, is approved, enrols second factors and signs in with them: in a real browser, with the
browser's own virtual authenticator for passkeys, and mails read from the outbox."""

import base64
import email
import email.policy
import re
import time
from collections.abc import Generator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from annotomy.http.static_files import STATIC
from annotomy.identity.totp import STEP_S, code_at
from tests.support.browser import TIMEOUT_MS
from tests.support.serve import ADMIN, Serve, wait_until

pytestmark = pytest.mark.browser

PASSWORD, NEW_PASSWORD = "seven green rivers of glass", "eight blue hills of paper"
SIZE: Any = {"width": 900, "height": 700}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    if not (STATIC / "app" / "index.html").is_file():
        pytest.skip("the web app is not built (./run build)")
    data = tmp_path_factory.mktemp("identity-pages") / "data"
    serve = Serve(data, ANNOTOMY_HTTP_PROCESSES="2", ANNOTOMY_WORKERS_INLINE="1").start()
    try:
        yield serve
    finally:
        serve.stop()


@pytest.fixture
def page(server: Serve, browser: Browser) -> Generator[Page]:
    """On localhost, the one plain-HTTP name with which browsers let passkeys work; a page error fails the test."""
    context = browser.new_context(viewport=SIZE, locale="en-US", base_url=_on_localhost(server))
    context.set_default_timeout(TIMEOUT_MS)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


def test_an_account_is_asked_for_approved_and_used(server: Serve, page: Page) -> None:
    page.goto("/sign-in")
    page.get_by_test_id("sign-up").click()
    page.get_by_test_id("sign-up-username").fill("younghee")
    page.get_by_test_id("sign-up-display_name").fill("김영희")
    page.get_by_test_id("sign-up-email").fill("younghee@example.org")
    page.get_by_test_id("sign-up-password").fill("tooshort")
    page.get_by_test_id("sign-up-submit").click()
    expect(page.get_by_test_id("sign-up-error")).to_contain_text("too short")
    page.get_by_test_id("sign-up-password").fill(PASSWORD)
    page.get_by_test_id("sign-up-submit").click()
    page.get_by_test_id("sign-up-done").wait_for()
    _sign_in(page, "younghee", PASSWORD)
    page.get_by_test_id("sign-in-error").wait_for()
    _sign_in(page, *ADMIN)
    _open(page, "users")
    row = page.get_by_test_id("user-row").filter(has_text="younghee")
    expect(row.get_by_test_id("user-state")).to_have_text("waiting")
    row.get_by_test_id("user-approve").click()
    expect(row.get_by_test_id("user-state")).to_have_text("active")
    _sign_out(page)
    _sign_in(page, "younghee", PASSWORD)
    page.get_by_test_id("user-menu").click()
    expect(page.get_by_text("김영희")).to_be_visible()
    expect(page.get_by_test_id("users")).to_have_count(0)


def test_no_script_can_read_the_refresh_token_and_a_reload_stays_signed_in(server: Serve, page: Page) -> None:
    _user(server, "reloader")
    page.goto("/sign-in")
    _sign_in(page, "reloader", PASSWORD)
    page.get_by_test_id("user-menu").wait_for()
    seen = page.evaluate("() => document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    cookie = next(one for one in page.context.cookies() if one.get("name") == "annotomy_refresh")
    assert cookie.get("httpOnly")
    assert str(cookie.get("value")) not in seen
    assert "eyJ" not in seen, "no access token either"
    page.reload()
    page.get_by_test_id("user-menu").wait_for()
    second = page.context.new_page()
    second.goto("/")
    second.get_by_test_id("user-menu").wait_for()


def test_an_authenticator_app_is_set_up_and_asked_for(server: Serve, page: Page) -> None:
    _user(server, "coder")
    page.goto("/sign-in")
    _sign_in(page, "coder", PASSWORD)
    _open(page, "profile")
    page.get_by_test_id("add-totp").click()
    assert page.get_by_test_id("totp-qr").evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    secret = base64.b32decode(page.get_by_test_id("totp-secret").inner_text())
    page.get_by_test_id("totp-code").fill(_code(secret))
    page.get_by_test_id("totp-confirm").click()
    page.get_by_test_id("recovery-codes").wait_for()
    recovery = page.get_by_test_id("recovery-codes").locator("span").all_inner_texts()
    assert len(recovery) == 10
    page.get_by_test_id("totp-on").wait_for()
    _sign_out(page)
    _sign_in(page, "coder", PASSWORD)
    page.get_by_test_id("second-factor-code").fill("000000")
    page.get_by_test_id("second-factor-submit").click()
    page.get_by_test_id("sign-in-error").wait_for()
    page.get_by_test_id("second-factor-code").fill(_code(secret, steps=1))
    page.get_by_test_id("second-factor-submit").click()
    page.get_by_test_id("user-menu").wait_for()
    _sign_out(page)
    _sign_in(page, "coder", PASSWORD)
    page.get_by_test_id("use-recovery-code").click()
    page.get_by_test_id("second-factor-code").fill(recovery[0])
    page.get_by_test_id("second-factor-submit").click()
    page.get_by_test_id("user-menu").wait_for()


def test_a_passkey_is_added_and_signs_in_alone(server: Serve, page: Page) -> None:
    _user(server, "keyholder")
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    devtools.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
            }
        },
    )
    page.goto("/sign-in")
    _sign_in(page, "keyholder", PASSWORD)
    _open(page, "profile")
    page.get_by_test_id("add-passkey").click()
    page.get_by_test_id("passkey").wait_for()
    _sign_out(page)
    page.get_by_test_id("sign-in-passkey").click()
    page.get_by_test_id("user-menu").wait_for()
    _sign_out(page)
    _sign_in(page, "keyholder", PASSWORD)
    page.get_by_test_id("second-factor-passkey").click()
    page.get_by_test_id("user-menu").wait_for()


def test_a_forgotten_password_is_reset_by_the_link_of_the_mail(server: Serve, page: Page) -> None:
    _user(server, "forgetful")
    page.goto("/sign-in")
    page.get_by_test_id("forgot-password").click()
    page.get_by_test_id("reset-name").fill("forgetful")
    page.get_by_test_id("reset-submit").click()
    page.get_by_test_id("reset-done").wait_for()
    links: list[str] = []

    def arrived() -> bool:
        for path in (server.data / "outbox").glob("*.eml"):
            mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            if mail["To"] == "forgetful@example.org":
                links.extend(re.findall(r"/reset-password#\S+", str(mail.get_content())))  # pyright: ignore[reportAttributeAccessIssue]
        return bool(links)

    wait_until(arrived, "the mail lies in the outbox")
    page.goto(links[0])
    page.get_by_test_id("reset-password").wait_for()
    expect(page).to_have_url(f"{_on_localhost(server)}/reset-password")  # the token left the address bar
    page.get_by_test_id("reset-password").fill(NEW_PASSWORD)
    page.get_by_test_id("reset-submit").click()
    page.get_by_test_id("reset-done").wait_for()
    page.goto("/sign-in")
    _sign_in(page, "forgetful", NEW_PASSWORD)
    page.get_by_test_id("user-menu").wait_for()


def test_a_key_is_issued_shown_once_and_revoked_and_devices_are_ended(server: Serve, page: Page) -> None:
    _user(server, "engineer")
    page.goto("/sign-in")
    _sign_in(page, "engineer", PASSWORD)
    _open(page, "profile")
    page.get_by_test_id("api-key-name").fill("pipeline")
    page.get_by_test_id("issue-api-key").click()
    assert re.fullmatch(r"annotomy_\w{12}_\w{49}", page.get_by_test_id("api-key").inner_text())
    page.get_by_test_id("revoke-api-key").click()
    expect(page.get_by_test_id("api-key-row")).to_have_count(0)
    _sign_out(page)
    _sign_in(page, "engineer", PASSWORD)
    _open(page, "profile")
    expect(page.get_by_test_id("session")).to_have_count(1)


def _user(server: Serve, username: str) -> None:
    with server.client() as admin:
        body = {"username": username, "password": PASSWORD, "email": f"{username}@example.org"}
        admin.post("/api/v1/users", json=body).raise_for_status()


def _sign_in(page: Page, username: str, password: str) -> None:
    page.get_by_test_id("username").or_(page.get_by_role("link", name="Back to sign-in")).first.wait_for()
    if page.get_by_test_id("username").count() == 0:
        page.get_by_role("link", name="Back to sign-in").click()
    page.get_by_test_id("username").fill(username)
    page.get_by_test_id("password").fill(password)
    page.get_by_test_id("sign-in").click()


def _sign_out(page: Page) -> None:
    page.get_by_test_id("user-menu").click()
    page.get_by_test_id("sign-out").click()
    page.get_by_test_id("username").wait_for()


def _open(page: Page, entry: str) -> None:
    page.get_by_test_id("user-menu").click()
    page.get_by_test_id(entry).click()


def _code(secret: bytes, *, steps: int = 0) -> str:
    return code_at(secret, int(time.time()) // STEP_S + steps)


def _on_localhost(server: Serve) -> str:
    return server.address.replace("127.0.0.1", "localhost")
