"""/api/v1/auth: sign-in in its steps, refresh, sign-out, sign-up, reset, and the public keys."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import JSONBody

from annotomy.actor import SYSTEM, Actor
from annotomy.errors import Forbidden, Unauthenticated
from annotomy.http.cookies import NO_STORE, viewer_cookie
from annotomy.http.peer import Peer, require_own_page
from annotomy.identity import credentials, second_factor, sessions, throttle, users
from annotomy.identity.passwords import hash_password
from annotomy.identity.schemas import (
    Login,
    PasskeyChallenge,
    PasskeySignIn,
    RefreshRequest,
    Reset,
    ResetRequest,
    SecondFactor,
    SignInWays,
    SignUp,
    SignUpAnswer,
    StepUp,
    TokenAnswer,
)
from annotomy.identity.throttle import count_attempt, network_of
from annotomy.identity.tokens import TokenSigner, published_keys
from annotomy.services import Services

REFRESH_COOKIE = "__Host-annotomy_refresh"
"""RFC 6265bis 4.1.3.2: browsers take this name only with Secure, Path=/ and no Domain, so no other host can plant one."""
REFRESH_COOKIE_PLAIN = "annotomy_refresh"
"""On plain HTTP, which is for localhost: browsers refuse the `__Host-` name there."""


@post("/auth/token", status_code=200, operation_id="SignIn", opt={"permission": "anyone"})
async def sign_in(
    data: JSONBody[Login],
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Response[TokenAnswer]:
    """Sign in with username and password. With a second factor enrolled the answer is the problem `second-factor-required`."""
    if data.cookie:
        require_own_page(peer, services.settings.http)
    answer = await second_factor.sign_in(services, signer, data.username, data.password, peer)
    return token_response(answer, peer, services, in_cookie=data.cookie)


@post("/auth/token/second-factor", status_code=200, operation_id="ContinueSignIn", opt={"permission": "anyone"})
async def continue_sign_in(
    data: JSONBody[SecondFactor],
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Response[TokenAnswer]:
    """Go on with a second factor."""
    if data.cookie:
        require_own_page(peer, services.settings.http)
    answer = await second_factor.continue_sign_in(services, signer, data, peer)
    return token_response(answer, peer, services, in_cookie=data.cookie)


@post("/auth/passkey/challenge", status_code=200, operation_id="BeginPasskeySignIn", opt={"permission": "anyone"})
async def begin_passkey_sign_in(
    peer: NamedDependency[Peer], services: NamedDependency[Services], signer: NamedDependency[TokenSigner]
) -> PasskeyChallenge:
    """A challenge for any passkey of this site."""
    return await second_factor.begin_passkey_sign_in(services, signer, peer)


@post("/auth/passkey", status_code=200, operation_id="FinishPasskeySignIn", opt={"permission": "anyone"})
async def finish_passkey_sign_in(
    data: JSONBody[PasskeySignIn],
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Response[TokenAnswer]:
    """Sign in with a passkey instead of name and password."""
    if data.cookie:
        require_own_page(peer, services.settings.http)
    answer = await second_factor.finish_passkey_sign_in(services, signer, data, peer)
    return token_response(answer, peer, services, in_cookie=data.cookie)


@post("/auth/refresh", status_code=200, operation_id="RefreshToken", opt={"permission": "anyone"})
async def refresh(
    data: JSONBody[RefreshRequest],
    request: Request[Any, Any, Any],
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Response[TokenAnswer]:
    """Exchange a refresh token, which serves once, for new tokens."""
    if data.refresh_token is not None:
        answer = await sessions.refresh(services, signer, data.refresh_token, peer)
        return token_response(answer, peer, services, in_cookie=False)
    answer = await sessions.refresh(services, signer, _cookie_token(request, peer, services), peer)
    return token_response(answer, peer, services, in_cookie=True)


@post("/auth/logout", status_code=204, operation_id="SignOut", opt={"permission": "anyone"})
async def sign_out(
    data: JSONBody[RefreshRequest],
    request: Request[Any, Any, Any],
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
) -> Response[None]:
    """End the session of this refresh token."""
    if data.refresh_token is not None:
        await sessions.sign_out(services, data.refresh_token)
        return Response(None, status_code=204)
    await sessions.sign_out(services, _cookie_token(request, peer, services))
    return Response(None, status_code=204, cookies=[_refresh_cookie("", peer, 0), viewer_cookie("", peer, 0)])


@post("/auth/step-up", status_code=204, operation_id="StepUp", opt={"permission": "own"})
async def step_up(
    data: JSONBody[StepUp],
    peer: NamedDependency[Peer],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> None:
    """Prove again who one is, before exports, share links, keys, user administration and one's own security settings."""
    users.require_person(actor)
    with credentials.proof():
        await second_factor.step_up(services, signer, actor, data, peer)


@post("/auth/step-up/passkey", status_code=200, operation_id="BeginStepUp", opt={"permission": "own"})
async def begin_step_up(
    peer: NamedDependency[Peer],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> PasskeyChallenge:
    """A challenge for one's own passkeys, to answer at `POST /auth/step-up`."""
    users.require_person(actor)
    return await second_factor.begin_step_up(services, signer, actor, peer)


@post("/auth/sign-up", status_code=202, operation_id="SignUp", opt={"permission": "anyone"})
async def sign_up(
    data: JSONBody[SignUp], peer: NamedDependency[Peer], services: NamedDependency[Services]
) -> SignUpAnswer:
    """Ask for an account; an administrator approves it. The answer is the same for a name that is taken."""
    if not services.settings.identity.sign_up:
        raise Forbidden("Accounts are made by an administrator here.")
    await count_attempt(services, throttle.ANONYMOUS_FORM, network_of(peer.address))
    password_hash = await hash_password(data.password, username=data.username)
    async with services.db.write(SYSTEM) as tx:
        await users.sign_up(
            tx,
            username=data.username,
            email=data.email,
            display_name=data.display_name,
            password_hash=password_hash,
        )
    return SignUpAnswer(state="pending")


@post("/auth/password-reset", status_code=202, operation_id="AskForPasswordReset", opt={"permission": "anyone"})
async def ask_for_reset(
    data: JSONBody[ResetRequest], peer: NamedDependency[Peer], services: NamedDependency[Services]
) -> None:
    """Have a link sent to the account's mail address. The answer is the same where there is no such account."""
    await credentials.ask_for_reset(services, data.username, peer)


@post("/auth/password-reset/confirm", status_code=204, operation_id="ResetPassword", opt={"permission": "anyone"})
async def reset_password(
    data: JSONBody[Reset], peer: NamedDependency[Peer], services: NamedDependency[Services]
) -> None:
    """Set a new password with the token of the link; all sessions end."""
    await credentials.reset_password(services, data.token, data.password, peer)


@get("/auth/jwks.json", operation_id="GetSigningKeys", opt={"permission": "anyone"}, security=[{}])
async def signing_keys(services: NamedDependency[Services]) -> Response[dict[str, Any]]:
    """The public keys of access tokens as a JWK set (RFC 7517)."""
    return Response(await published_keys(services), headers={"Cache-Control": "public, max-age=300"})


@get("/auth/ways", operation_id="GetSignInWays", opt={"permission": "anyone"}, security=[{}])
async def ways(peer: NamedDependency[Peer], services: NamedDependency[Services]) -> SignInWays:
    """What the sign-in page offers."""
    settings = services.settings
    return SignInWays(
        sign_up=settings.identity.sign_up,
        passkey=second_factor.passkeys_work(second_factor.relying_party(services, peer)),
        oidc=settings.oidc.name if settings.oidc.issuer else None,
    )


def token_response(answer: TokenAnswer, peer: Peer, services: Services, *, in_cookie: bool) -> Response[TokenAnswer]:
    if not in_cookie:
        return Response(answer, headers=NO_STORE)
    for_page = TokenAnswer(answer.access_token, answer.token_type, answer.expires_in)
    return Response(for_page, headers=NO_STORE, cookies=session_cookies(answer, peer, services))


def session_cookies(answer: TokenAnswer, peer: Peer, services: Services) -> list[Cookie]:
    assert answer.refresh_token is not None
    lifetime_s = services.settings.identity.session_days * 24 * 3600
    return [
        _refresh_cookie(answer.refresh_token, peer, lifetime_s),
        viewer_cookie(answer.access_token, peer, answer.expires_in),
    ]


def _refresh_cookie(value: str, peer: Peer, lifetime_s: int) -> Cookie:
    key = REFRESH_COOKIE if peer.is_secure else REFRESH_COOKIE_PLAIN
    path = "/" if peer.is_secure else "/api/v1/auth"
    return Cookie(
        key=key, value=value, path=path, httponly=True, samesite="strict", secure=peer.is_secure, max_age=lifetime_s
    )


def _cookie_token(request: Request[Any, Any, Any], peer: Peer, services: Services) -> str:
    """Raises Forbidden unless a page of ours asks, Unauthenticated without a cookie."""
    require_own_page(peer, services.settings.http)
    token = request.cookies.get(REFRESH_COOKIE if peer.is_secure else REFRESH_COOKIE_PLAIN)
    if not token:
        raise Unauthenticated("There is no refresh token: neither in the body nor in a cookie.")
    return token


handlers = [
    sign_in, continue_sign_in, begin_passkey_sign_in, finish_passkey_sign_in, refresh, sign_out, step_up, begin_step_up,
    sign_up, ask_for_reset, reset_password, signing_keys, ways,
]  # fmt: skip
