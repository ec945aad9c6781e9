"""Drivers of MongoDB, and the differences between them.

This module imports no driver, so that the plugin can recognize a database without loading one.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

SCHEMES = ("mongodb://", "mongodb+srv://")


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver: all that distinguishes it from the others."""

    database_module: str
    """Module of its database class."""
    bucket_class: str | None
    """Class of its GridFS buckets, as ``module:name``; None if it has none."""
    has_server: bool = True
    """False for a mock in this process.

    A mock has no read and write concerns, no commands and no clock of a server. It takes a partial
    unique index for one over all documents, and limits no document's size.
    """

    def bucket(self, database: Any, name: str, write_concern: Any) -> Any:
        """Return a GridFS bucket of a database."""
        if self.bucket_class is None:
            raise TypeError(f"{self.database_module} has no GridFS buckets")
        module, _, class_name = self.bucket_class.partition(":")
        bucket_class = getattr(import_module(module), class_name)
        return bucket_class(database, bucket_name=name, write_concern=write_concern)


MOCK = Driver("mongomock_motor", None, has_server=False)
MOTOR = Driver("motor.motor_asyncio", "motor.motor_asyncio:AsyncIOMotorGridFSBucket")
PYMONGO = Driver("pymongo.asynchronous.database", "gridfs.asynchronous:AsyncGridFSBucket")

_DRIVERS = (MOCK, MOTOR, PYMONGO)
"""In this order: the database class of mongomock-motor also claims to be Motor's."""


def is_address(source: object) -> bool:
    """Return whether this is an address of MongoDB."""
    return isinstance(source, str) and source.startswith(SCHEMES)


def driver_of(source: object) -> Driver | None:
    """Return the driver of a database object, by the names of its classes and their modules."""
    classes = type(source).__mro__
    if not any(cls.__name__.endswith("Database") for cls in classes):
        return None
    modules = {cls.__module__ for cls in classes}
    return next((driver for driver in _DRIVERS if driver.database_module in modules), None)
