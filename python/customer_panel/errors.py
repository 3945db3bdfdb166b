"""Every exception that this package raises on purpose, in one tree.

A class's docstring is its default message, its `hint` says what to do, its `code` is a name that
never changes. Bad rows are no exceptions: they are rejects, which are stored and counted.
"""

from __future__ import annotations

from typing import ClassVar


class CustomerPanelError(Exception):
    """Something in Customer Panel went wrong."""

    code: ClassVar[str] = "error"
    hint: str | None = None

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        # `python -OO` strips docstrings: then the code is the message.
        super().__init__(message or type(self).__doc__ or self.code)
        if hint is not None:
            self.hint = hint

    @property
    def message(self) -> str:
        return str(self.args[0])


# -- settings ------------------------------------------------------------------------------------


class SettingsError(CustomerPanelError):
    """A setting cannot be read."""

    code = "settings"
    hint = "Correct it in the environment or in .env; .env.example lists every setting."


# -- the file ------------------------------------------------------------------------------------


class SourceError(CustomerPanelError):
    """The source cannot be imported."""

    code = "source"


class SourceNotFound(SourceError):
    """There is no such file."""

    code = "source_not_found"
    hint = "Check the path; it is relative to the folder you are in."


class NotAFile(SourceError):
    """The source is not a regular file."""

    code = "not_a_file"
    hint = "Give the path of one CSV file; folders and devices cannot be imported."


class OutsideRoots(SourceError):
    """The file is not beneath a folder that imports may read."""

    code = "outside_roots"
    hint = "Put it into a folder that IMPORT_ROOTS names; links may not lead out of it."


class SourceUnreadable(SourceError):
    """The source cannot be opened for reading."""

    code = "source_unreadable"
    hint = "Check the rights of the file and of the folders above it."


class SourceEmpty(SourceError):
    """The source is empty: it has no header line."""

    code = "source_empty"
    hint = "The first line must name the columns."


class SourceChanged(SourceError):
    """The source is no longer the file this import began with."""

    code = "source_changed"
    hint = "Import it again when nobody writes to it: that puts its customers right. --settle waits for it."

    def __init__(
        self,
        message: str | None = None,
        *,
        span: tuple[int, int] | None = None,
        hint: str | None = None,
    ) -> None:
        self.span = span
        if message is None and span is not None:
            message = f"file changed between byte {span[0]} and {span[1]}"
        super().__init__(message, hint=hint)


class SourceNotResumable(SourceError):
    """A stream cannot be read a second time, so its import cannot be resumed."""

    code = "source_not_resumable"
    hint = "Save the stream as a file and import that."


class MappingError(SourceError):
    """The columns of the file cannot be matched with those of a customer."""

    code = "mapping"
    hint = 'Name the columns yourself: --map "Header=field".'


class TargetUnwritable(CustomerPanelError):
    """The file cannot be written."""

    code = "target_unwritable"
    hint = "Check that its folder exists, is yours to write to, and has room."


# -- the import ----------------------------------------------------------------------------------


class ImportFailed(CustomerPanelError):
    """The import failed."""

    code = "import_failed"


class AlreadyRunning(ImportFailed):
    """An import is already running on this database."""

    code = "already_running"
    hint = "Wait for it, or follow it with `customer-panel jobs list`; one runs at a time."


class Interrupted(ImportFailed):
    """An import of another file of this feed is not finished."""

    code = "interrupted"
    hint = "Without --strict it is finished first, in the same call; `customer-panel jobs cancel` ends it."


class Overtaken(ImportFailed):
    """A newer import of the same feed has taken rows since this one began."""

    code = "overtaken"
    hint = "Cancel it (`customer-panel jobs cancel`), or force it if you mean its older values."


class RowRefused(ImportFailed):
    """A rule that somebody has put on the table refused a row of the file."""

    code = "row_refused"
    hint = (
        "Correct the file or the rule, then run the same command again; "
        "the rows before this batch are in."
    )


class Stopped(ImportFailed):
    """The import was stopped at a batch border and can be resumed."""

    code = "stopped"
    hint = "Run the same command again to go on where it stopped."


class ClaimLost(ImportFailed):
    """Another runner owns this import by now."""

    code = "claim_lost"
    hint = "Nothing was lost: follow it with `customer-panel jobs list`."


class EngineBroken(ImportFailed):
    """A thread of the import's engine died: a defect of Customer Panel."""

    code = "engine_broken"
    hint = "What is committed is kept. Report it with what stands on stderr; then import it again."


class NoSuchImport(ImportFailed):
    """There is no import with this number."""

    code = "no_such_import"
    hint = "List them with `customer-panel jobs list`."


# -- customers -----------------------------------------------------------------------------------


class CustomerError(CustomerPanelError):
    """The customer cannot be written."""

    code = "customer"


class NoSuchCustomer(CustomerError):
    """There is no such customer."""

    code = "no_such_customer"
    hint = "Look for it by its customerId or its e-mail address; it may have been deleted."


class CustomerMoved(CustomerError):
    """The customer was changed meanwhile."""

    code = "customer_moved"
    hint = "Read it again, and send the change with its new ETag."


class IdentityStays(CustomerError):
    """The customerId of a customer does not change."""

    code = "identity_stays"
    hint = "Create a new customer, and delete this one."


class ValueTaken(CustomerError):
    """Another customer has this value."""

    code = "value_taken"
    hint = "Change that customer, or give another value."

    def __init__(self, field: str | None = None) -> None:
        super().__init__(f"another customer has this {field}" if field else None)
        self.field = field


class NotSteerable(ImportFailed):
    """The import is in a state in which it cannot be paused or cancelled."""

    code = "not_steerable"
    hint = "Only a running import can be paused; one that has ended cannot be cancelled."


# -- the database --------------------------------------------------------------------------------


class DatabaseError(CustomerPanelError):
    """The database cannot be used."""

    code = "database"


class DatabaseUnreachable(DatabaseError):
    """The database server does not answer."""

    code = "database_unreachable"
    hint = "Check DATABASE_URL, or unset it to use the embedded PostgreSQL."


class DatabaseLost(DatabaseError):
    """The connection to the database was lost."""

    code = "database_lost"
    hint = "Run the command again; a committed batch is never lost and never loaded twice."


class PoolerInTheWay(DatabaseError):
    """The address of the database is that of a transaction pooler, where sessions are shared."""

    code = "pooler_in_the_way"
    hint = (
        "Set CP_DIRECT_URL to an address of the PostgreSQL server itself, for imports and "
        "notifications; DATABASE_URL may stay the pooler's, for the HTTP API."
    )


class TriggersOff(DatabaseError):
    """The triggers that keep what people edit are off for this role or database."""

    code = "triggers_off"
    hint = "Take it back: ALTER ROLE .. RESET session_replication_role, or ALTER DATABASE .. RESET."


class NotAllowed(DatabaseError):
    """The role of the import may not do what the import needs."""

    code = "not_allowed"
    hint = "Connect as the owner of the table customers, or as a member of that role."


class ServerTooOld(DatabaseError):
    """The PostgreSQL server is too old: version 18 or newer is required."""

    code = "server_too_old"
    hint = "Upgrade the server, or unset DATABASE_URL to use the embedded PostgreSQL 18."


class SchemaTooNew(DatabaseError):
    """The database was migrated by a newer version of Customer Panel."""

    code = "schema_too_new"
    hint = "Upgrade Customer Panel; an older version must not write into a newer schema."


class MigrationFailed(DatabaseError):
    """A migration could not be applied; it left no trace."""

    code = "migration_failed"


class DiskFull(DatabaseError):
    """The disk is full."""

    code = "disk_full"
    hint = "Make room on the disk that holds the database, then run the same command again."


class EmbeddedError(DatabaseError):
    """The embedded PostgreSQL did not start."""

    code = "embedded"
    hint = "Run `customer-panel doctor`, or set DATABASE_URL to a PostgreSQL 18 of your own."


class EmbeddedUnavailable(EmbeddedError):
    """There are no PostgreSQL 18 binaries for this platform."""

    code = "embedded_unavailable"
    hint = (
        "Set CP_PG_BIN to the bin folder of a PostgreSQL 18, "
        "or DATABASE_URL to a server of your own."
    )


class DataFolderVersion(EmbeddedError):
    """The data folder was made by another major version of PostgreSQL."""

    code = "data_folder_version"
    hint = (
        "It was left as it is. Set CP_HOME to another folder and import again, "
        "or dump it with the PostgreSQL that made it."
    )


class DataFolderInvalid(EmbeddedError):
    """The data folder is not one of PostgreSQL's."""

    code = "data_folder_invalid"
    hint = "Point CP_HOME to an empty folder, or to one that Customer Panel made."


class HomeUnusable(EmbeddedError):
    """CP_HOME cannot be written."""

    code = "home_unusable"
    hint = "Set CP_HOME to a folder that you own."


class SocketTrouble(EmbeddedError):
    """The embedded PostgreSQL could not open its socket."""

    code = "socket_trouble"
    hint = "Set CP_HOME to a short path on a local disk."


class InUse(EmbeddedError):
    """Others are still connected to the embedded PostgreSQL."""

    code = "in_use"
    hint = "Wait for them, or use `customer-panel db down --force`; imports resume by themselves."


# -- the server ----------------------------------------------------------------------------------


class ServeError(CustomerPanelError):
    """The HTTP API cannot be served."""

    code = "serve"


class NotInstalled(ServeError):
    """What the HTTP API needs is not installed."""

    code = "not_installed"
    hint = 'Install it: pip install "customer-panel[api]".'


class AddressInUse(ServeError):
    """Another program listens on this address."""

    code = "address_in_use"
    hint = "Stop it, or choose another port: --port, or PORT."


class AddressUnusable(ServeError):
    """The server cannot listen on this address."""

    code = "address_unusable"
    hint = "Give an address of this machine: --host, or HOST; 127.0.0.1 is for this machine alone."


class OpenToAll(ServeError):
    """Without keys the API would be open to everybody who can reach this address."""

    code = "open_to_all"
    hint = (
        "Set CP_API_KEYS, or listen on 127.0.0.1; CP_ALLOW_NO_AUTH=1 serves everybody all the same."
    )
