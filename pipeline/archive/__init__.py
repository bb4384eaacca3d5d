"""The archive: folders and cards of clips indexed once into tables that can be asked. See `ARCHIVE.md`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import UsageError

if TYPE_CHECKING:
    from pipeline.archive.reading import Archive


def read_archive(path: Path | str) -> Archive:
    """An archive that `roadlens archive` made: `frames`, `objects`, `events` and `clips` as tables of pyarrow, `find`
    for the moments at which an expression is true, `connection` for SQL.

    Raises:
        SourceError: there is none at that path, or none of its clips stands in the tables yet.
        UsageError: pyarrow or DuckDB is not installed.

    Example:
        >>> archive = read_archive("archive")  # doctest: +SKIP
        >>> archive.frames.to_pandas().groupby("camera").count_car.max()  # doctest: +SKIP
        >>> [moment.path for moment in archive.find("person and area.road > 0.3")]  # doctest: +SKIP
    """
    try:
        from pipeline.archive.reading import Archive
    except ModuleNotFoundError as error:
        raise UsageError(
            f"an archive is read by the package {error.name}, which is not installed; install what belongs to it, in "
            "the folder of roadlens, with: pip install '.[archive]'"
        ) from None
    return Archive(path)
