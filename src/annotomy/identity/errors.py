"""Problems of identity."""

from annotomy.errors import Problem


class SecondFactorRequired(Problem):
    """The password is right and the account has a second factor: continue at `POST /api/v1/auth/token/second-factor` with
    `transaction` and one of `methods`. The transaction serves once and for five minutes."""

    slug = "second-factor-required"
    title = "A second factor is needed"
    status = 401


class StepUpRequired(Problem):
    """What was asked needs a fresh proof of identity: prove it at `POST /api/v1/auth/step-up` with one of `methods` and ask
    again. Where `methods` is empty, sign in again."""

    slug = "step-up-required"
    title = "Prove again who you are"
    status = 403


class ProofRefused(Problem):
    """The password, code or passkey that should prove who one is was not right. The session itself is still good."""

    slug = "proof-refused"
    title = "The proof was not right"
    status = 403


class WeakPassword(Problem):
    """The password is too short, too common or built from the username; the detail says which. Choose a longer phrase."""

    slug = "weak-password"
    title = "The password is too weak"
    status = 400


class LinkExpired(Problem):
    """The link was used before, is older than an hour, or a newer one was asked for. Ask for a new link."""

    slug = "link-expired"
    title = "The link is not valid any more"
    status = 400


class ProviderFailed(Problem):
    """The sign-in service did not answer as OpenID Connect says, or its answer could not be trusted. The server's log has
    the reason; try again, and tell an administrator if it stays."""

    slug = "provider-failed"
    title = "The sign-in service's answer was refused"
    status = 401


class NotActive(Problem):
    """The account is not active: an administrator has to approve it first, or has suspended it."""

    slug = "not-active"
    title = "The account is not active"
    status = 403
