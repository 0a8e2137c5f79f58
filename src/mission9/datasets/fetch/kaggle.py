"""Download Kaggle's archive of a dataset, in a pinned version, with Kaggle's own client."""

from __future__ import annotations

import logging
from pathlib import Path

from mission9.errors import InputError, SetupError, StorageError

logger = logging.getLogger(__name__)

DATASET = "moltean/fruits"
VERSION = 100

_BY_HAND = "or download it by hand, and give --archive FILE.zip"


def dataset_page(version: int) -> str:
    """The URL of the page with the dataset and its licence."""
    return f"https://www.kaggle.com/datasets/{DATASET}/versions/{version}"


def download(version: int, file: Path) -> None:
    """Download Kaggle's archive of a version to a file; resume an interrupted download.

    `kagglehub.dataset_download` would also unpack the archive, and trust it. This function therefore uses only
    kagglehub's client, which handles credentials and requests the missing part again.

    Raises:
        SetupError: kagglehub is not installed, Kaggle cannot be reached, or it rejects the credentials.
        InputError: the version does not exist.
        StorageError: the downloaded file differs from Kaggle's.
    """
    try:
        import requests
        from kagglehub.clients import build_kaggle_client, download_file
        from kagglehub.exceptions import DataCorruptionError, handle_call
        from kagglehub.handle import parse_dataset_handle
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest
    except ImportError as error:
        raise SetupError(
            f"kagglehub is not installed, which asks Kaggle: pip install 'mission9[fetch]', {_BY_HAND}"
        ) from error
    handle = parse_dataset_handle(f"{DATASET}/versions/{version}")
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = DATASET.split("/")
    request.dataset_version_number = version
    logger.info("fetch: %s from Kaggle", dataset_page(version))
    try:
        with build_kaggle_client() as client:
            api = client.datasets.dataset_api_client
            response = handle_call(lambda: api.download_dataset(request), handle)
            download_file(response, str(file), handle)
    except requests.HTTPError as error:
        raise _refused(version, error.response.status_code if error.response is not None else 0) from error
    except DataCorruptionError as error:
        raise StorageError("what came from Kaggle is damaged, and was deleted: give the same command again") from error
    except (requests.RequestException, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            raise
        raise SetupError(f"Kaggle cannot be reached ({type(error).__name__}): try again, {_BY_HAND}") from error
    except ValueError as error:  # an error about credentials, which names their file
        raise SetupError(f"{error}: fix that file, {_BY_HAND}") from error


def _refused(version: int, status: int) -> InputError | SetupError:
    if status in (401, 403):
        return SetupError(f"Kaggle does not let you have it ({status}): set KAGGLE_API_TOKEN to a token, {_BY_HAND}")
    if status == 404:
        return InputError(f"Kaggle has no {dataset_page(version)}: give another --version")
    return SetupError(f"Kaggle fails ({status}): try again later, {_BY_HAND}")
