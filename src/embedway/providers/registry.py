"""Every kind of provider, by name: the rows of `rows`, and those that installed packages bring.

A package brings one by an entry point in the group `embedway.providers` that names a `Row`; its
`adapter` and `credentials` may name classes of that package.
"""

from functools import cache
from importlib.metadata import entry_points

from embedway.providers.adapter import ProviderRow
from embedway.providers.rows import apis, clouds, hosts, own_servers

ENTRY_POINTS = "embedway.providers"

ROWS = {row.name: row for row in (*hosts.ROWS, *apis.ROWS, *clouds.ROWS, *own_servers.ROWS)}
"""Our own, in the order in which providers found in the environment are preferred."""


class PluginError(Exception):
    """An installed package brings something that is no provider."""


@cache
def load_rows() -> dict[str, ProviderRow]:
    """Our own kinds of provider, then those of installed packages.

    Raises:
        PluginError: A package cannot be imported, brings no `Row`, or takes a name that is taken.
    """
    found = dict(ROWS)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            row = point.load()
        except Exception as error:  # a package of someone else: whatever it raises
            raise PluginError(f"The provider {point.value} cannot be imported: {error}") from error
        if not isinstance(row, ProviderRow):
            raise PluginError(f"{point.value} is no embedway.providers.adapter.Row, but {row!r}.")
        if row.name in found:
            raise PluginError(f"{point.value} brings a provider {row.name!r}, which there is.")
        found[row.name] = row
    return found
