"""Opens the object store that the settings name."""

from chatserver.infra.storage import ObjectStore
from chatserver.infra.storage_disk import DiskStore, LinkSeal
from chatserver.infra.storage_s3 import S3Store
from chatserver.settings import Settings


def open_store(settings: Settings) -> ObjectStore:
    """Open the bucket that is named, or else the directory."""
    if settings.s3_bucket is None:
        return DiskStore(
            settings.files_dir,
            seal=LinkSeal([key.get_secret_value() for key in settings.secret_keys]),
            public_url=settings.public_url or "",
        )
    secret = settings.s3_secret_access_key
    return S3Store(
        bucket=settings.s3_bucket,
        access_key_id=settings.s3_access_key_id or "",
        secret_access_key="" if secret is None else secret.get_secret_value(),
        endpoint_url=settings.s3_endpoint_url,
        public_url=settings.s3_public_base_url,
        region=settings.s3_region,
    )
