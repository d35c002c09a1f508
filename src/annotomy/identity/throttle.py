"""Attempts are counted before they are made, in the database, so that neither parallel requests nor many processes get
around the count. Names that exist and names that do not are counted alike: a block says nothing about an account.
"""

import hashlib
import ipaddress
import math
import secrets
from dataclasses import dataclass

from annotomy.actor import SYSTEM
from annotomy.db.engine import WriteTx
from annotomy.errors import TooManyRequests
from annotomy.services import Services

KEEP_S = 24 * 3600
"""Longer than every rule's memory; then a row is swept."""
SWEEP_ONE_IN = 200
"""Every so many attempts sweep old rows, so that no schedule is needed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`free` attempts, then a wait that doubles with each further one, until nothing was tried for `forget_s`."""

    kind: str
    free: int
    first_wait_s: float
    longest_wait_s: float
    forget_s: float


SIGN_IN = Rule("sign-in", free=5, first_wait_s=2, longest_wait_s=900, forget_s=3600)
"""By name and address: somebody else's guesses do not lock the owner out."""
SIGN_IN_ADDRESS = Rule("sign-in-address", free=100, first_wait_s=2, longest_wait_s=60, forget_s=900)
"""By address, whatever the names (password spraying). A hospital may stand behind one address: successes do not count."""
SECOND_FACTOR = Rule("second-factor", free=5, first_wait_s=2, longest_wait_s=900, forget_s=3600)
SECOND_FACTOR_USER = Rule("second-factor-user", free=20, first_wait_s=60, longest_wait_s=3600, forget_s=3600)
"""By user over all addresses: six digits do not withstand a network of guessers who know the password."""
MAIL = Rule("mail", free=3, first_wait_s=300, longest_wait_s=3600, forget_s=3600)
"""Mails to one name; a block is kept silent."""
ANONYMOUS_FORM = Rule("anonymous-form", free=20, first_wait_s=30, longest_wait_s=900, forget_s=3600)
"""Sign-up and reset forms from one address."""

SHARE_LINK = Rule("share-link", free=100, first_wait_s=2, longest_wait_s=60, forget_s=900)
"""By address; openings that succeed do not count. A link is 256 random bits: this spares the database, not the link."""
SHARE_PASSWORD = Rule("share-password", free=5, first_wait_s=2, longest_wait_s=900, forget_s=3600)
"""By link and address."""


async def count_attempt(services: Services, rule: Rule, *subject: str) -> None:
    """Counts and commits. Raises TooManyRequests while the subject is blocked."""
    async with services.db.write(SYSTEM) as tx:
        wait_s = await take(tx, rule, *subject)
    if wait_s:
        raise TooManyRequests("There were too many attempts. Wait and try again.", retry_after_s=wait_s)


async def take(tx: WriteTx, rule: Rule, *subject: str) -> int:
    """0 when the attempt may be made, else the seconds to wait."""
    digest = _digest(subject)
    counted = await tx.fetchval(
        "insert into attempts as a (kind, subject, count, last_at) values ($1, $2, 1, now())"
        " on conflict (kind, subject) do update set"
        "  count = case when a.last_at < now() - $6 * interval '1 second' then 1 else a.count + 1 end,"
        "  last_at = now(),"
        "  blocked_until = case when a.last_at >= now() - $6 * interval '1 second' and a.count + 1 >= $3"
        "   then now() + least($5, $4 * power(2, least(a.count + 1 - $3, 30))) * interval '1 second' end"
        " where a.blocked_until is null or a.blocked_until <= now() returning count",
        rule.kind, digest, rule.free, rule.first_wait_s, rule.longest_wait_s, rule.forget_s,
    )  # fmt: skip
    if counted is None:
        seconds = await tx.fetchval(
            "select extract(epoch from blocked_until - now())::float8 from attempts where kind = $1 and subject = $2",
            rule.kind, digest,
        )  # fmt: skip
        return max(1, math.ceil(seconds or 0))
    if secrets.randbelow(SWEEP_ONE_IN) == 0:
        await tx.execute("delete from attempts where last_at < now() - $1 * interval '1 second'", float(KEEP_S))
    return 0


async def forgive(tx: WriteTx, rule: Rule, *subject: str) -> None:
    """The attempt succeeded: nothing is held against the subject."""
    await tx.execute("delete from attempts where kind = $1 and subject = $2", rule.kind, _digest(subject))


async def give_back(tx: WriteTx, rule: Rule, *subject: str) -> None:
    """The attempt succeeded: it alone is not held against the subject."""
    await tx.execute(
        "update attempts set count = greatest(count - 1, 0) where kind = $1 and subject = $2",
        rule.kind, _digest(subject),
    )  # fmt: skip


def network_of(address: str) -> str:
    """What one attacker surely has: a single IPv4 address, but 2^64 IPv6 addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _digest(subject: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\0".join(subject).encode()).digest()
