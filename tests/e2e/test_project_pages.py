"""A project is made, a member added, a rule tried and saved, access asked for: clicked in a real browser, each person
signed in with their own session, and what they see checked in their own study list."""

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from annotomy.http.static_files import STATIC
from tests.support.browser import TIMEOUT_MS
from tests.support.dicom_files import ct_series
from tests.support.serve import ADMIN, Serve

pytestmark = pytest.mark.browser

PASSWORD = "seven green rivers of glass"
VIEWPORT: Any = {"width": 1100, "height": 760}
FIRST, SECOND = "1.2.826.0.1.3680043.8.498.71", "1.2.826.0.1.3680043.8.498.72"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    """Two studies of two patients in the administrator's inbox, and somebody who sees neither."""
    if not (STATIC / "app" / "index.html").is_file():
        pytest.skip("the web app is not built (./run build)")
    serve = Serve(tmp_path_factory.mktemp("project-pages") / "data", ANNOTOMY_HTTP_PROCESSES="1").start()
    try:
        store(serve, ct_series(3, study_instance_uid=FIRST, patient_name="Hong^Gildong", patient_id="T-1"))
        store(serve, ct_series(2, study_instance_uid=SECOND, patient_name="Kim^Younghee", patient_id="T-2"))
        add_user(serve, "reader", "이판독")
        yield serve
    finally:
        serve.stop()


@pytest.fixture
def admin(server: Serve, browser: Browser) -> Generator[Page]:
    with signed_in_as(browser, server, *ADMIN) as page:
        yield page


@pytest.fixture
def reader(server: Serve, browser: Browser) -> Generator[Page]:
    with signed_in_as(browser, server, "reader", PASSWORD) as page:
        yield page


def test_one_click_shows_what_a_study_holds_and_keys_do_the_same(admin: Page) -> None:
    rows = admin.get_by_test_id("study-row")
    rows.first.get_by_text("Test CT").or_(rows.first.locator("td").nth(3)).first.click()
    panel = admin.get_by_test_id("study-preview")
    panel.get_by_test_id("preview-series").first.wait_for()
    picture = panel.get_by_test_id("preview-series").first.locator("img")
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth > 0)"), "the thumbnail is drawn"
    admin.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    admin.keyboard.press(" ")
    expect(panel).to_be_visible()
    first = panel.inner_text()
    admin.keyboard.press("ArrowDown")
    expect(panel).not_to_have_text(first)
    admin.keyboard.press("Escape")
    rows.first.dblclick(position={"x": 900, "y": 20})
    admin.wait_for_url("**/viewer/**")


def test_a_member_sees_what_a_rule_leaves_and_the_preview_said_so_before(admin: Page, reader: Page) -> None:
    expect(reader.get_by_test_id("studies-empty")).to_be_visible()
    make_project(admin, "Lung trial")
    admin.get_by_test_id("tab-data").click()
    for name in ("Hong", "Kim"):
        admin.get_by_test_id("find-study").fill(name)
        admin.get_by_test_id("assign-study").first.click()
        expect(admin.get_by_test_id("held-study").filter(has_text=name)).to_have_count(1)
        admin.get_by_test_id("find-study").fill("")

    admin.get_by_test_id("tab-members").click()
    admin.get_by_test_id("find-user").fill("이판")
    admin.get_by_role("option", name="이판독").click()
    admin.get_by_test_id("add-member").click()
    row = admin.get_by_test_id("member").filter(has_text="reader")
    expect(row).to_contain_text("Annotations: sees all")
    reader.reload()
    expect(reader.get_by_test_id("study-row")).to_have_count(2)

    admin.get_by_test_id("tab-rules").click()
    admin.get_by_test_id("rules-empty").wait_for()
    choose(admin, "preview-person", "이판독")
    add_rule(admin, "Patient ID", "T-1")
    expect(admin.get_by_test_id("preview-studies")).to_contain_text("hidden")
    admin.locator("[data-testid=preview-counts][data-settled]").get_by_text("1", exact=True).first.wait_for()
    reader.reload()
    expect(reader.get_by_test_id("study-row")).to_have_count(2)  # a preview changes nothing
    admin.get_by_test_id("save-rules").click()
    expect(admin.locator("[data-testid=rule][data-state=saved]")).to_have_count(1)
    reader.reload()
    expect(reader.get_by_test_id("study-row")).to_have_count(1)
    expect(reader.get_by_test_id("study-row")).to_contain_text("Hong")

    admin.get_by_test_id("delete-rule").click()
    admin.get_by_test_id("save-rules").click()
    admin.get_by_test_id("rules-empty").wait_for()
    reader.reload()
    expect(reader.get_by_test_id("study-row")).to_have_count(2)

    admin.get_by_test_id("tab-members").click()
    row.get_by_test_id("remove-member").click()
    admin.get_by_test_id("remove-member-confirm").click()
    expect(row).to_have_count(0)
    reader.reload()
    expect(reader.get_by_test_id("studies-empty")).to_be_visible()


def test_a_rule_that_makes_no_sense_does_not_reach_the_draft(admin: Page) -> None:
    make_project(admin, "Dates")
    admin.get_by_test_id("tab-rules").click()
    admin.get_by_test_id("new-rule").click()
    choose(admin, "rule-attribute", "Study date")
    admin.get_by_test_id("rule-value").fill("January")
    expect(admin.get_by_test_id("rule-problem")).to_contain_text("2024-01-31")
    expect(admin.get_by_test_id("rule-done")).to_be_disabled()
    admin.get_by_test_id("rule-value").fill("2024-01-31")
    admin.get_by_test_id("rule-done").click()
    expect(admin.locator("[data-testid=rule][data-state=new]")).to_contain_text("Study date is 2024-01-31")


def test_who_is_no_member_asks_is_denied_with_a_note_asks_again_and_is_let_in(admin: Page, reader: Page) -> None:
    make_project(admin, "Closed")
    address = admin.url
    for reason, decision in (("Please", "deny"), ("For the second reading", "approve")):
        reader.goto(address)
        reader.get_by_test_id("ask-reason").fill(reason)
        reader.get_by_test_id("ask-access").click()
        reader.get_by_test_id("asked").wait_for()
        admin.goto(f"{address}?tab=requests")
        request = admin.get_by_test_id("request").filter(has_text=reason)
        expect(request.get_by_test_id("deny-request")).to_be_disabled()
        request.get_by_test_id("request-note").fill("not yet" if decision == "deny" else "welcome")
        request.get_by_test_id(f"{decision}-request").click()
        expect(request).to_have_count(0)
        reader.goto("/projects")
        expect(reader.get_by_test_id("own-request").filter(has_text=reason)).to_contain_text(
            "not yet" if decision == "deny" else "welcome"
        )
    reader.goto(address)
    expect(reader.get_by_role("heading", name="Closed")).to_be_visible()
    expect(reader.get_by_test_id("tab-rules")).to_have_count(0)


def test_a_role_of_the_projects_own_is_made_and_changed_in_the_matrix(admin: Page) -> None:
    make_project(admin, "Roles")
    admin.get_by_test_id("tab-roles").click()
    admin.get_by_test_id("new-role").click()
    admin.get_by_test_id("role-label").fill("Student")
    admin.get_by_test_id("role-name").fill("student")
    admin.get_by_test_id("make-role").click()
    box = admin.get_by_role("checkbox", name="Student: Run AI models")
    expect(box).not_to_be_checked()
    box.check()
    admin.get_by_test_id("save-roles").click()
    expect(admin.get_by_test_id("save-roles")).to_have_count(0)
    admin.reload()
    expect(box).to_be_checked()


def test_a_group_is_made_and_brings_its_people(admin: Page, reader: Page) -> None:
    admin.goto("/groups")
    admin.get_by_test_id("group-name").fill("Thorax readers")
    admin.get_by_test_id("create-group").click()
    admin.get_by_placeholder("Add somebody").click()
    admin.get_by_role("option", name="이판독").click()
    make_project(admin, "By group")
    admin.get_by_test_id("tab-groups").click()
    admin.get_by_test_id("find-group").fill("thorax")
    admin.get_by_role("option", name="Thorax readers").click()
    admin.get_by_test_id("add-group").click()
    admin.get_by_test_id("project-group").wait_for()
    admin.get_by_test_id("tab-members").click()
    expect(admin.get_by_test_id("member").filter(has_text="reader")).to_contain_text("through a group")
    reader.goto("/projects")
    expect(reader.get_by_test_id("project").filter(has_text="By group")).to_be_visible()


def test_cells_of_the_matrices_are_changed_with_keys_and_saved_together_with_a_reason(
    server: Serve, admin: Page, reader: Page
) -> None:
    project = make_project(admin, "By matrix")
    with server.client() as client:
        for study in (FIRST, SECOND):
            body = {"study_instance_uid": study}
            client.post(f"/api/v1/projects/{project}/studies", json=body).raise_for_status()
    admin.goto("/matrix")
    cell = admin.get_by_label("이판독 (reader), By matrix")
    cell.select_option(label="Viewer")
    expect(admin.get_by_test_id("save-matrix")).to_be_disabled()
    admin.get_by_test_id("matrix-reason").fill("Joins the second reading")
    admin.get_by_test_id("save-matrix").click()
    expect(admin.get_by_test_id("matrix-saved")).to_contain_text("1 cell")
    reader.reload()
    expect(reader.get_by_test_id("study-row")).to_have_count(2)

    admin.goto(f"/projects/{project}?tab=access")
    mine, theirs = admin.get_by_label(re.compile("Administrator$")), admin.get_by_label(re.compile("이판독$"))
    mine.first.focus()
    admin.keyboard.press("ArrowRight")
    expect(theirs.first).to_be_focused()
    theirs.first.select_option("DENY")
    admin.get_by_test_id("matrix-reason").fill("Not part of the reading")
    admin.get_by_test_id("save-matrix").click()
    admin.get_by_test_id("matrix-saved").wait_for()
    expect(theirs.first).to_have_value("DENY")
    reader.reload()
    expect(reader.get_by_test_id("study-row")).to_have_count(1)


def test_a_share_link_opens_without_an_account_until_it_is_revoked(
    server: Serve, browser: Browser, admin: Page
) -> None:
    project = make_project(admin, "Shared")
    with server.client() as client:
        body = {"study_instance_uid": FIRST}
        client.post(f"/api/v1/projects/{project}/studies", json=body).raise_for_status()
    admin.get_by_test_id("tab-shares").click()
    admin.get_by_test_id("share-name").fill("Second opinion")
    admin.get_by_test_id("share-studies").click()
    admin.get_by_role("option", name="Hong Gildong").click()
    admin.keyboard.press("Escape")
    admin.get_by_test_id("create-share").click()
    address = admin.get_by_test_id("share-address").inner_text()
    assert address.startswith(f"{server.address}/share#")
    with stranger(browser, server) as page:
        page.goto(address)
        page.wait_for_url("**/ohif/viewer**", wait_until="commit")  # one study: it opens at once
        seen = page.request.get(f"/dicom-web/studies/{FIRST}/thumbnail")
        assert seen.ok, "the cookie of the link shows the study"
        admin.reload()
        expect(admin.get_by_test_id("share-address")).to_have_count(0)  # shown once
        link = admin.get_by_test_id("share-link")
        expect(link).to_contain_text("opened 1 time")
        link.get_by_test_id("revoke-share").click()
        admin.get_by_test_id("revoke-share-confirm").click()
        expect(link.get_by_test_id("share-state")).to_have_text("revoked")
        page.goto(address)
        page.get_by_test_id("share-error").wait_for()
        assert not page.request.get(f"/dicom-web/studies/{FIRST}/thumbnail").ok


def test_the_audit_is_searched_exported_with_a_reason_and_verified(admin: Page, reader: Page) -> None:
    make_project(admin, "Watched")
    admin.get_by_role("link", name="Audit").click()
    admin.get_by_test_id("audit-action").fill("project.created")
    records = admin.get_by_test_id("audit-record")
    expect(records.first).to_contain_text("Watched")
    expect(records.filter(has_not_text="project.created")).to_have_count(0)
    records.first.focus()
    admin.keyboard.press("Enter")
    expect(admin.get_by_text('"seq"')).to_be_visible()
    expect(admin.get_by_test_id("export-audit")).to_be_disabled()
    admin.get_by_test_id("export-reason").fill("Inspection of the trial")
    with admin.expect_download() as download:
        admin.get_by_test_id("export-audit").click()
    lines = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert lines
    assert {line["action"] for line in lines} == {"project.created"}
    admin.get_by_test_id("audit-action").fill("audit.exported")
    expect(records.first).to_contain_text("Inspection of the trial")
    admin.get_by_test_id("verify-audit").click()
    expect(admin.get_by_test_id("audit-verdict")).to_contain_text("whole")
    admin.get_by_test_id("tab-reviews").click()
    admin.get_by_test_id("no-reviews").or_(admin.get_by_test_id("review")).first.wait_for()

    expect(reader.get_by_role("link", name="Audit")).to_have_count(0)
    reader.goto("/audit")
    expect(reader.get_by_test_id("audit-error")).to_be_visible()


# -- what the tests click ---------------------------------------------------------------------------------------------


def store(serve: Serve, files: list[bytes]) -> None:
    parts = b"".join(b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files)
    with serve.client() as client:
        client.post(
            "/dicom-web/studies",
            content=parts + b"--part--\r\n",
            headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=part'},
        ).raise_for_status()


def add_user(serve: Serve, username: str, display_name: str) -> None:
    body = {
        "username": username,
        "password": PASSWORD,
        "email": f"{username}@example.org",
        "display_name": display_name,
    }
    with serve.client() as client:
        client.post("/api/v1/users", json=body).raise_for_status()


@contextmanager
def signed_in_as(browser: Browser, serve: Serve, username: str, password: str) -> Generator[Page]:
    """A page error in it fails the test, and so does a line of the browser about the content security policy."""
    context = browser.new_context(viewport=VIEWPORT, locale="en-US", base_url=serve.address)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)
    page.goto("/")
    page.get_by_test_id("username").fill(username)
    page.get_by_test_id("password").fill(password)
    page.get_by_test_id("sign-in").click()
    page.get_by_test_id("studies").or_(page.get_by_test_id("studies-empty")).first.wait_for()
    yield page
    context.close()
    assert errors == []


@contextmanager
def stranger(browser: Browser, serve: Serve) -> Generator[Page]:
    """A browser that nobody has signed in with."""
    context = browser.new_context(viewport=VIEWPORT, locale="en-US", base_url=serve.address)
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()


def make_project(page: Page, name: str) -> str:
    """Its id; the page shows it."""
    page.goto("/projects")
    page.get_by_test_id("project-name").fill(name)
    page.get_by_test_id("create-project").click()
    page.get_by_test_id("tab-members").wait_for()
    return page.url.rsplit("/", 1)[1]


def choose(page: Page, field: str, option: str) -> None:
    page.get_by_test_id(field).click()
    page.get_by_role("option", name=option, exact=True).click()


def add_rule(page: Page, attribute: str, value: str) -> None:
    page.get_by_test_id("new-rule").click()
    choose(page, "rule-attribute", attribute)
    page.get_by_test_id("rule-value").fill(value)
    page.get_by_test_id("rule-done").click()
