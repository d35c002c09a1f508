"""What can be wrong with an upload."""

from annotomy.errors import Problem


class OffsetMismatch(Problem):
    """The chunk does not begin where the upload ends. Ask HEAD for the offset and go on from there."""

    slug = "offset-mismatch"
    title = "The chunk does not continue the upload"
    status = 409


class UploadBusy(Problem):
    """Another connection is writing to this upload. Wait for it to end."""

    slug = "upload-busy"
    title = "The upload is being written"
    status = 423


class ChecksumMismatch(Problem):
    """The chunk does not hash to its Upload-Checksum; nothing of it was kept. Send it again."""

    slug = "checksum-mismatch"
    title = "The chunk was damaged on its way"
    status = 460


class ContentMismatch(Problem):
    """The whole file does not hash to what its metadata said. Upload it again."""

    slug = "content-mismatch"
    title = "The file is not what was announced"
    status = 422


class UnsupportedFile(Problem):
    """Neither DICOM, nor an archive of DICOM files (ZIP, tar, tar.gz), nor NIfTI."""

    slug = "unsupported-file"
    title = "Not a form of file that is taken in"
    status = 415


class ArchiveLimit(Problem):
    """The archive holds more or larger files than is allowed; nothing beyond the limit was read."""

    slug = "archive-limit"
    title = "The archive is over a limit"
    status = 413


class TusVersion(Problem):
    """The request names no version of the protocol that is spoken here (1.0.0)."""

    slug = "tus-version"
    title = "Unknown version of the upload protocol"
    status = 412
