"""Check of the layout of a database at its opening."""

from flowkit.errors import ConfigError
from flowkit_mongo._context import Context
from flowkit_mongo._document_schemas import SCHEMA_VERSION, TEXT_ID


async def check_layout(context: Context) -> None:
    """Check that no earlier version wrote the collections of this namespace.

    Raises:
        ConfigError: one did.
    """
    newest = await context.find(
        "tasks", {"_id": TEXT_ID}, {"schema_version": 1}, sort=[("_id", -1)], limit=1
    )
    version = newest[0].get("schema_version") if newest else SCHEMA_VERSION
    if version in range(1, SCHEMA_VERSION):
        raise ConfigError(
            f"an earlier version of flowkit-mongo wrote the collections {context.namespace}_* of"
            f" the database {context.database.handle.name!r} (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); use another database or namespace, or drop these collections"
        )
