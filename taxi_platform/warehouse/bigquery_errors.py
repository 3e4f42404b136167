"""What Google's client raises, as the warehouse's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from taxi_platform.trips.errors import WarehouseBusy, WarehouseError


@contextmanager
def translated_errors(action: str, url: str, variable: str) -> Iterator[None]:
    """Translate errors raised inside: `action` is what failed, `variable` the setting that the URL came from."""
    problem = f"Cannot {action} {url}"
    try:
        yield
    except (api.Unauthorized, auth.DefaultCredentialsError, auth.RefreshError) as error:
        remedy = "Run `gcloud auth application-default login`, or give the machine a service account."
        raise WarehouseError(f"{problem}: no valid Google credentials for {variable}.", remedy) from error
    except (
        api.TooManyRequests,
        api.ServerError,
        api.RetryError,
        api.PreconditionFailed,  # the table changed meanwhile, perhaps by our own request whose answer was lost
        auth.TransportError,
        requests.RequestException,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise WarehouseBusy(f"{problem}: BigQuery does not answer ({error}).", "Try again later.") from error
    except api.Forbidden as error:
        remedy = (
            "Grant the account roles/bigquery.jobUser on the project and roles/bigquery.dataEditor on the dataset "
            f"in {variable}."
        )
        raise WarehouseError(f"{problem}: permission is missing ({error.message}).", remedy) from error
    except api.GoogleAPICallError as error:
        raise WarehouseError(f"{problem}: {error.message}.", f"Check project and dataset in {variable}.") from error
