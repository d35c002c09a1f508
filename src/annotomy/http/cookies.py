"""The cookie that viewers send: the access token once more, HttpOnly and for DICOMweb alone."""

from litestar.datastructures import Cookie

from annotomy.http.peer import Peer

VIEWER_COOKIE = "annotomy_access"
"""The foreign viewer cannot send headers of ours."""
NO_STORE = {"Cache-Control": "no-store"}


def viewer_cookie(value: str, peer: Peer, lifetime_s: int) -> Cookie:
    return Cookie(
        key=VIEWER_COOKIE,
        value=value,
        path="/dicom-web",
        httponly=True,
        samesite="strict",
        secure=peer.is_secure,
        max_age=lifetime_s,
    )
