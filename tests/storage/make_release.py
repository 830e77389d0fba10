"""Makes the database of a release, which tests upgrade, use and downgrade ever after.

Run it on the code of the release, before the next migration is added:

    python tests/storage/make_release.py 0001

Writes to `releases/0001` beside this file: the same rows as SQL for SQLite and for Postgres, and
`facts.json` with the key, the pepper and what the release reported.
"""

import json
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from conftest import Gateway  # noqa: E402
from servers import Postgres, binary, running  # noqa: E402

from embedway.testing import Upstream, space  # noqa: E402

PEPPER = "5a" * 32
REPORT = ("usage", "--by", "model,key", "--since", "2026-11-01", "--until", "2027-01-01", "--json")
# Statements of a session, which another version of Postgres may not know.
SESSION = re.compile(r"^(\\|SET |SELECT pg_catalog\.set_config|--)")


def configure(gateway: Gateway, upstream: Upstream) -> None:
    """Give the gateway two providers of one model."""
    (gateway.folder / "embedway.toml").write_text(
        "".join(
            f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
            f'api_key = "k"\n[[providers.{name}.models]]\nid = "m"\ndimensions = 64\n'
            'price_per_mtok_usd = "1.00"\n'
            for name in ("one", "two")
        )
    )


def use(gateway: Gateway) -> dict[str, object]:
    """Make some of everything, and return what the release says of it."""
    for line in (
        "projects create --name web --budget 0.01/total --alert 1",
        "users set alice --project web --budget 2/day",
    ):
        assert gateway.cli(*line.split()).returncode == 0
    key = gateway.new_key("shop", "--project", "web", "--budget", "25/month")
    gateway.key = key["key"]
    gateway.start()
    for model in ("one:m", "two:m", "m"):
        answer = gateway.embed(model=model, input="some text", user="alice")
        assert answer.status_code == 200, answer.text
    assert gateway.embed(model="m", input="x" * 10_000).status_code == 429
    assert gateway.embed(model="nothing", input="a").status_code == 404
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    projects = json.loads(gateway.cli("projects", "list", "--json").stdout)
    shown = gateway.cli("projects", "show", "web", "--json")
    return {
        "pepper": PEPPER,
        "key": key["key"],
        "key_id": key["id"],
        "projects": sorted(each["name"] for each in projects),
        "spending": json.loads(shown.stdout)["spending"],
        "usage": json.loads(gateway.cli(*REPORT).stdout),
    }


def main(name: str) -> None:
    """Write the three files."""
    folder = HERE / "releases" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as made,
        Upstream(vectors=space("m")) as upstream,
        running(Postgres) as server,
    ):
        gateway = Gateway(Path(made), pepper=PEPPER, canaries=True)
        configure(gateway, upstream)
        try:
            facts = use(gateway)
        finally:
            gateway.kill()
        url = server.url
        assert gateway.cli("db", "copy", "--to", url).returncode == 0
        with closing(connect(Path(made) / "data" / "embedway.db")) as database:
            (folder / "sqlite.sql").write_text("\n".join(database.iterdump()) + "\n")
        dump = subprocess.run(
            [binary("pg_dump"), "--inserts", "--no-owner", url],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        lines = (each for each in dump.splitlines() if each and not SESSION.match(each))
        (folder / "postgres.sql").write_text("\n".join(lines) + "\n")
        (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
