"""What identity writes to people, and the jobs that send it. Each mail says the same in Korean and in English.

A job carries no secret: the link of a password reset is made when the mail is sent. It is queued for names that exist
and names that do not, so that asking takes the same time for both.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import WriteTx
from annotomy.events import Event, emit
from annotomy.http.peer import public_origin
from annotomy.identity.mail import compose, mailer_for
from annotomy.identity.throttle import MAIL, take
from annotomy.identity.tokens import new_secret, secret_hash
from annotomy.jobs.handlers import HandlerSpec, JobContext
from annotomy.jobs.queue import Job, enqueue
from annotomy.services import Services

RESET_LIFETIME = timedelta(hours=1)
MOST_ACCOUNTS = 5
"""Accounts that share one mail address and get a link each."""


@dataclass(frozen=True, slots=True)
class Notice:
    subject: str
    text: str


REFRESH_REUSED, PASSWORD_CHANGED = "refresh-reused", "password-changed"
SECOND_FACTOR_ADDED, SECOND_FACTOR_REMOVED = "second-factor-added", "second-factor-removed"
ACCOUNT_APPROVED, NAME_TAKEN = "account-approved", "name-taken"
_ADVICE_KO = "본인이 한 일이 아니라면 비밀번호를 바꾸고 관리자에게 알려 주세요."
_ADVICE_EN = "If this was not you, change your password and tell your administrator."
NOTICES = {
    REFRESH_REUSED: Notice(
        "Annotomy: 세션 종료 / A session was ended",
        f"로그인 정보가 두 곳에서 사용되어 세션을 종료했습니다. {_ADVICE_KO}\n\n"
        f"A session of yours was ended because its credential was used in two places. {_ADVICE_EN}\n",
    ),
    PASSWORD_CHANGED: Notice(
        "Annotomy: 비밀번호 변경 / Your password was changed",
        f"비밀번호가 변경되었고 다른 기기는 로그아웃되었습니다. {_ADVICE_KO}\n\n"
        f"Your password was changed and other devices were signed out. {_ADVICE_EN}\n",
    ),
    SECOND_FACTOR_ADDED: Notice(
        "Annotomy: 2단계 인증 추가 / A second factor was added",
        f"계정에 2단계 인증 수단이 추가되었습니다. {_ADVICE_KO}\n\n"
        f"A second factor was added to your account. {_ADVICE_EN}\n",
    ),
    SECOND_FACTOR_REMOVED: Notice(
        "Annotomy: 2단계 인증 삭제 / A second factor was removed",
        f"계정에서 2단계 인증 수단이 삭제되었습니다. {_ADVICE_KO}\n\n"
        f"A second factor was removed from your account. {_ADVICE_EN}\n",
    ),
    ACCOUNT_APPROVED: Notice(
        "Annotomy: 계정 승인 / Your account is active",
        "계정이 승인되었습니다. 이제 로그인할 수 있습니다.\n\nYour account was approved. You can sign in now.\n",
    ),
    NAME_TAKEN: Notice(
        "Annotomy: 가입 신청 / Your request for an account",
        "신청하신 사용자 이름은 이미 사용 중입니다. 다른 이름으로 다시 신청하거나, 본인 계정이라면 비밀번호를 재설정하세요.\n\n"
        "The username that you asked for is taken. Ask again with another one or, if the account is yours, reset its password.\n",
    ),
}
_RESET_SUBJECT = "Annotomy: 비밀번호 재설정 / Reset your password"
_RESET_TEXT = (
    "사용자 {username}의 비밀번호를 재설정하려면 1시간 안에 아래 링크를 여세요. 링크는 한 번만 쓸 수 있습니다.\n"
    "요청한 적이 없다면 이 메일을 무시하세요.\n\n"
    "Open this link within an hour to reset the password of {username}. It works once.\n"
    "If you did not ask for it, ignore this mail.\n\n{link}\n"
)


class SendNotice(Job, frozen=True):
    """To a user, or to an address that is no user's."""

    kind: ClassVar[str] = "send-notice"
    notice: str
    user_id: UUID | None = None
    address: str | None = None


class SendPasswordReset(Job, frozen=True):
    """`name` is what somebody typed: a username or a mail address, of an account or of none."""

    kind: ClassVar[str] = "send-password-reset"
    name: str


async def enqueue_notice(tx: WriteTx, user_id: UUID, notice: str) -> None:
    asker, tx.actor = tx.actor, SYSTEM  # the mail is the system's, also when its reader was just suspended
    try:
        await enqueue(tx, SendNotice(notice=notice, user_id=user_id))
    finally:
        tx.actor = asker


async def send_notice(services: Services, job: SendNotice, context: JobContext) -> None:
    address = job.address
    if job.user_id is not None:
        async with services.db.read(SYSTEM) as tx:
            address = await tx.fetchval("select email from users where id = $1 and state <> 'deleted'", job.user_id)
    if address:
        notice = NOTICES[job.notice]
        message = compose(services.settings, to=address, subject=notice.subject, text=notice.text)
        await mailer_for(services.settings).send(message)
    async with services.db.write(SYSTEM) as tx:
        await context.finish(tx)


async def send_password_reset(services: Services, job: SendPasswordReset, context: JobContext) -> None:
    async with services.db.read(SYSTEM) as tx:
        users = await tx.fetch(
            "select id, username, email from users where (lower(username) = lower($1) or lower(email) = lower($1))"
            " and state = 'active' and not is_service and email is not null order by created_at limit $2",
            job.name, MOST_ACCOUNTS,
        )  # fmt: skip
    for user in users:
        actor = Actor(user_id=user["id"], name=user["username"])
        async with services.db.write(actor) as tx:
            blocked = await take(tx, MAIL, str(user["id"]))
            token = "" if blocked else await new_reset_token(tx, user["id"])
        if token:
            link = (
                f"{public_origin(services.settings.http)}/reset-password#{token}"  # a fragment reaches no server's log
            )
            text = _RESET_TEXT.format(username=user["username"], link=link)
            message = compose(services.settings, to=user["email"], subject=_RESET_SUBJECT, text=text)
            await mailer_for(services.settings).send(message)
    async with services.db.write(SYSTEM) as tx:
        await context.finish(tx)


async def new_reset_token(tx: WriteTx, user_id: UUID) -> str:
    """Only the newest link of a user is valid."""
    token = new_secret()
    await tx.execute("delete from password_resets where user_id = $1", user_id)
    await tx.execute(
        "insert into password_resets (hash, user_id, expires_at) values ($1, $2, now() + $3)",
        secret_hash(token), user_id, RESET_LIFETIME,
    )  # fmt: skip
    await emit(tx, Event(type="password.reset_asked", object_kind="user", object_id=str(user_id)))
    return token


HANDLERS = [
    HandlerSpec(SendNotice, send_notice),
    HandlerSpec(SendPasswordReset, send_password_reset),
]
