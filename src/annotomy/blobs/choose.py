"""Which blob store an installation has (ANNOTOMY_BLOBS_URL)."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from annotomy.blobs.filesystem import FilesystemBlobStore
from annotomy.blobs.sigv4 import Credentials
from annotomy.blobs.staging import S3Staging
from annotomy.ports import BlobStore
from annotomy.settings import Settings


def blob_store(settings: Settings) -> BlobStore:
    """Files below the data folder unless a URL names something else. Raises ValueError for a URL of another kind."""
    # Where edges spool what is too large for memory, whatever the store is.
    settings.spool_dir.mkdir(parents=True, exist_ok=True)
    url = settings.blobs_url
    if url is None:
        return FilesystemBlobStore(settings.data_dir / "blobs")
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return FilesystemBlobStore(Path(unquote(urlsplit(url).path)))
    if scheme in ("s3", "gs", "az"):
        from annotomy.blobs.objects import ObjectBlobStore  # its library is loaded only where it is used

        return ObjectBlobStore.from_url(url)
    raise ValueError("ANNOTOMY_BLOBS_URL takes file:///..., s3://..., gs://... or az://...")


def staging(settings: Settings) -> S3Staging | None:
    """Where clients may send parts directly: an S3 store whose keys we have, since addresses are signed with them."""
    keys = settings.object_store
    if settings.blobs_url is None or urlsplit(settings.blobs_url).scheme != "s3":
        return None
    if keys.access_key_id is None or keys.secret_access_key is None:
        return None
    credentials = Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    return S3Staging.from_url(settings.blobs_url, credentials)
