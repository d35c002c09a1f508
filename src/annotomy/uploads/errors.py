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
    """Neither DICOM, nor an archive (ZIP, tar, tar.gz, tar.zst), nor a volume (NIfTI, NRRD, MetaImage), nor a picture."""

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


class UploadGone(Problem):
    """The upload has expired or was given up; its bytes are removed. Create a new one."""

    slug = "upload-gone"
    title = "The upload is no more"
    status = 410


class UploadHandedOver(Problem):
    """A newer connection of the same person goes on with this upload; what this one sent is kept."""

    slug = "upload-handed-over"
    title = "A newer connection goes on"
    status = 423


class TooSlow(Problem):
    """No byte came for the idle limit. What had come is kept: ask HEAD for the offset and go on."""

    slug = "too-slow"
    title = "The connection was idle for too long"
    status = 408


class DiskFull(Problem):
    """The server has no room for the upload. What was acknowledged is kept; go on when there is room again."""

    slug = "disk-full"
    title = "No room on the server"
    status = 507


class UploadIncomplete(Problem):
    """A concatenation names an upload that is not complete, or that was not made as a part."""

    slug = "upload-incomplete"
    title = "A part is not complete"
    status = 409


class ConnectionBroken(Problem):
    """The connection ended in the middle of the chunk; what had come is kept. Ask HEAD for the offset and go on."""

    slug = "connection-broken"
    title = "The connection ended too early"
    status = 400


class ManifestTooLong(Problem):
    """More files than one manifest may name. Send one manifest for each study, say."""

    slug = "manifest-too-long"
    title = "Too many files in one manifest"
    status = 413


class NotInManifest(Problem):
    """The upload belongs to a manifest that does not name this file."""

    slug = "not-in-manifest"
    title = "The manifest does not name this file"
    status = 422


class VolumeUnreadable(Problem):
    """A volume (NIfTI, NRRD, MetaImage) or stack of pictures that has no DICOM form; the detail says why."""

    slug = "volume-unreadable"
    title = "The volume cannot be taken in"
    status = 422


class GeometryMissing(Problem):
    """Pictures say nothing of their place. Send the metadata `geometry`, or a `geometry.json` beside them."""

    slug = "geometry-missing"
    title = "The pictures have no geometry"
    status = 422


class MediaFileMissing(Problem):
    """The DICOMDIR of a medium names a file that did not come with it. The others are taken in; send this one as well."""

    slug = "media-file-missing"
    title = "A file of the medium is missing"
    status = 404


class SentInParts(Problem):
    """A direct upload takes numbered parts at signed addresses, and no chunks of a resumable protocol."""

    slug = "sent-in-parts"
    title = "The upload takes numbered parts"
    status = 409


class NotDirect(Problem):
    """The upload takes no parts: it was created by tus or the IETF draft, or it is complete already."""

    slug = "not-direct"
    title = "The upload takes no parts"
    status = 409


class ObjectStoreUnavailable(Problem):
    """The object store behind this server does not answer as it should. What has arrived is kept; try again soon."""

    slug = "object-store-unavailable"
    title = "The object store does not answer"
    status = 503


class NotTakenIn(Problem):
    """The upload arrived, and taking it in came to no end: the object store failed for long, say, or its owner lost the right
    to store. Nothing was wrong with the file: send it again."""

    slug = "not-taken-in"
    title = "The upload could not be taken in"
    status = 500
