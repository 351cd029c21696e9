"""What a forked child tells its parent of what it tried."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from vkconv.errors import DeviceError


def tell(connection: Connection, *attempts: Callable[[], Any]) -> None:
    """For each attempt "worked", or what its DeviceError says; then the end."""
    for attempt in attempts:
        try:
            attempt()
            connection.send("worked")
        except DeviceError as error:
            connection.send(str(error))
    connection.close()
