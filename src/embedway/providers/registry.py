"""Lists every kind of provider by name: our own, and those of installed packages.

A package adds a kind by an entry point in the group `embedway.providers`, which names a
`ProviderRow`. The row's `adapter` and `credentials` may name classes of that package.
"""

from functools import cache
from importlib.metadata import entry_points

from embedway.providers.adapter import ProviderRow
from embedway.providers.rows import apis, clouds, hosts, own_servers

ENTRY_POINTS = "embedway.providers"

ROWS = {row.name: row for row in (*hosts.ROWS, *apis.ROWS, *clouds.ROWS, *own_servers.ROWS)}
"""Our own rows. Providers found in the environment are preferred in this order."""


class PluginError(Exception):
    """An installed package's provider cannot be used."""


@cache
def load_rows() -> dict[str, ProviderRow]:
    """Return our own rows, then those of installed packages.

    Raises:
        PluginError: A package cannot be imported, its entry point is not a `ProviderRow`, or the
            row's name is taken.
    """
    rows = dict(ROWS)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            row = point.load()
        except Exception as error:  # whatever the other package raises
            raise PluginError(f"The provider {point.value} cannot be imported: {error}") from error
        if not isinstance(row, ProviderRow):
            raise PluginError(
                f"{point.value} is not an embedway.providers.adapter.ProviderRow, but {row!r}."
            )
        if row.name in rows:
            raise PluginError(
                f"{point.value} is named {row.name!r}, like another provider. Choose another name."
            )
        rows[row.name] = row
    return rows
