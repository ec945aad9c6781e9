"""Import of an export into a store."""

from collections.abc import Callable

from anyio import to_thread

from flowkit._codecs.store_codec import decoded_record, encoded
from flowkit._exports.definition_import import DefinitionImport
from flowkit._exports.export_reader import DEFINITIONS, Batch, ExportReader
from flowkit._exports.import_report import Imported, ImportReport
from flowkit._exports.lines import (
    FlowVersionLine,
    HeaderLine,
    ScheduleLine,
    TriggerEventLine,
    TriggerLine,
)
from flowkit._exports.task_import import TaskImport
from flowkit._exports.trigger_import import TriggerImport
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit.protocols import KeyedRecord, Store


class Importer:
    """Imports an export into a store.

    Nothing that is in the store is changed. ``report`` is called with a sentence about what differs
    from it. Tasks that a plugin has encoded are stored as they are. Flows, schedules
    and triggers are decoded to compare them by their contents.
    """

    def __init__(
        self, store: Store, plugins: Plugins, header: HeaderLine, *, report: Callable[[str], None]
    ) -> None:
        """Prepare an import. The codec of the plugins must not be around ``store``.

        Raises:
            ConfigError: this installation could not read the data in the export.
        """
        if header.encoded and not plugins.encodes_payloads:
            raise ConfigError(
                "a plugin has encoded the data in this export; install that plugin, with its keys"
            )

        def decode(record: KeyedRecord) -> KeyedRecord:
            return decoded_record(record, plugins) if header.encoded else record

        usual = encoded(store, plugins)
        self._report = ImportReport(report)
        self._tasks = TaskImport(store if header.encoded else usual, self._report)
        self._definitions = DefinitionImport(usual.records, self._report, decode=decode)
        self._triggers = TriggerImport(usual, self._report, decode=decode)

    async def run(self, reader: ExportReader) -> Imported:
        """Import all lines after the header.

        Raises:
            InvalidExport: the file is damaged or incomplete. What is before that place was
                imported.
        """
        while batch := await to_thread.run_sync(reader.batch, abandon_on_cancel=True):
            await self._import(batch)
        return self._report.done

    async def _import(self, batch: Batch) -> None:
        if tasks := [item for item in batch if not isinstance(item[1], DEFINITIONS)]:
            await self._tasks.add(tasks)
        await self._definitions.add_versions(
            [(number, line) for number, line in batch if isinstance(line, FlowVersionLine)]
        )
        await self._definitions.add_schedules(
            [(number, line) for number, line in batch if isinstance(line, ScheduleLine)]
        )
        await self._triggers.add_events(
            [(number, line) for number, line in batch if isinstance(line, TriggerEventLine)]
        )
        await self._triggers.add_triggers(
            [(number, line) for number, line in batch if isinstance(line, TriggerLine)]
        )
