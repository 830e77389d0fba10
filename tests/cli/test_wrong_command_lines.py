"""What each command says to a wrong command line: the exit status, the value and what to do."""

import json
import shlex
from pathlib import Path

import pytest
from conftest import embedway

LIST_PROJECTS = "To see all projects: embedway projects list --archived"
LIST_KEYS = "To see all keys: embedway keys list"
LIST_MODELS = "To see all models: embedway models list"
LIST_KINDS = "embedway providers list --all"
MAKE_KEY = "To make one: embedway keys create --name NAME"

NOT_UNDERSTOOD = [
    ("audit --action x", "--action 'x'", "api_key.created"),
    ("audit --limit 0", "--limit '0'", "from 1 to 1000, such as --limit 50"),
    ("audit --limit ten", "--limit 'ten'", "--limit 50"),
    ("audit --since 1.1.2026", "--since '1.1.2026'", "such as --since 2026-11-01"),
    ("keys create --name k --admin --project web", "--admin", "--project"),
    ("keys create --name k --alert 80", "--alert '80'", "--budget 25/month"),
    ("keys create --name k --budget none --alert 80", "--alert '80'", "--budget 'none'"),
    ("keys create --name k --expires-days -1", "--expires-days '-1'", "from 0.00001 to 36500"),
    ("keys create --name k --expires-days 0", "--expires-days '0'", "such as --expires-days 30"),
    ("keys create --name k --expires-days 1e300", "--expires-days '1e300'", "36500"),
    ("keys create --name k --expires-days nan", "--expires-days 'nan'", "--expires-days 30"),
    ("keys create --name k --expires-days soon", "--expires-days 'soon'", "--expires-days 30"),
    ("keys create --name k --model any --model auto", "--model 'any'", "'auto'"),
    ("keys create --name k --scope admin", "--scope 'admin'", "Choose from: embeddings"),
    ("keys rotate {key} --grace 5", "--grace '5'", "24h"),
    ("keys update {key}", "Nothing to change", "embedway keys update --help"),
    ("keys update {key} --never-expires --expires-days 3", "--expires-days '3'", "--never-expires"),
    ("ledger prune", "--before", "embedway ledger prune --keep-days 90"),
    ("ledger prune --before 2026-01-01T10:00", "'2026-01-01T10:00'", "--before 2026-11-01"),
    ("ledger prune --keep-days -1", "--keep-days '-1'", "from 0 to 36500, such as --keep-days 90"),
    ("projects create --name ' '", "--name ' '", "visible"),
    ("projects create --name p --user-alert 80", "--user-alert '80'", "--user-budget 25/month"),
    (
        "projects create --name p --budget 1/day --budget 2/day",
        "--budget '1/day' and --budget '2/day' are both budgets per day",
    ),
    (
        "projects update web --user-limit tokens=1/day --user-limit tokens=2/day",
        "--user-limit 'tokens=1/day' and --user-limit 'tokens=2/day' are both limits of tokens per",
    ),
    ("projects update web", "Nothing to change", "embedway projects update --help"),
    ("route auto --dimensions 0", "--dimensions '0'", "such as --dimensions 512"),
    ("serve --port 65536", "--port '65536'", "from 1 to 65535, such as --port 9000"),
    ("usage --by model,model", "--by 'model,model'", "'model' more than once"),
    ("usage --by week", "--by 'week'", "Choose from: day, hour, month"),
    ("usage --project nope --by week", "--by 'week'"),
    ("usage --refused --user ann", "--user", "Leave out"),
    ("usage --since 0001-01-01 --time-zone Europe/Berlin", "--since '0001-01-01'"),
    ("usage --since 2026-02-01 --until 2026-01-01", "--since '2026-02-01'", "--until '2026-01-01'"),
    ("usage --since yesterday", "--since 'yesterday'", "such as --since 2026-11-01"),
    ("usage --time-zone Mars", "'Mars'", "--time-zone Europe/Berlin"),
    ("usage --until 2026-13-01", "--until '2026-13-01'", "--until 2026-11-01T13:30"),
    ("users block '' --project web", "ID ''", "1 to 256 characters"),
    ("users set ann --project web", "embedway users set --help"),
    ("users set ann --project web --budget project --alert 80", "--alert '80'", "'project'"),
]
NOT_POSSIBLE = [
    ("audit --project nope", "'nope'", LIST_PROJECTS),
    ("catalog check none.toml", "'none.toml'"),
    ("embed a --model nope", "'nope'", LIST_MODELS),
    ("keys create --name k --model nope", "--model 'nope'", LIST_MODELS),
    ("keys create --name k --project nope", "'nope'", LIST_PROJECTS),
    ("keys list --project nope", "'nope'", LIST_PROJECTS),
    ("keys revoke {revoked}", "'{revoked}'", LIST_KEYS),
    ("keys rotate {revoked}", "'{revoked}'", MAKE_KEY),
    ("keys rotate nope", "'nope'", LIST_KEYS),
    ("keys show nope", "'nope'", LIST_KEYS),
    ("keys update {key} --alert 80", "--alert '80'", "--budget 25/month"),
    ("keys update {revoked} --name x", "'{revoked}'", MAKE_KEY),
    ("models pull nope", "'nope'", "embedway models pull"),
    ("models show bge-m3", "No provider enabled here serves the model 'bge-m3',", LIST_KINDS),
    ("models show minilm", "'minilm'", "Did you mean 'all-minilm-l6-v2'?"),
    ("models show nope", "'nope'", LIST_MODELS),
    ("projects archive default", "default project", LIST_KEYS),
    ("projects archive nope", "'nope'", LIST_PROJECTS),
    ("projects create --name p --model nope", "--model 'nope'", LIST_MODELS),
    ("projects create --name p --provider nope", "--provider 'nope'", LIST_KINDS),
    ("projects create --name web", "'web'"),
    ("projects update {archived} --name x", "'{archived}'", LIST_PROJECTS),
    ("projects update web --name default", "'default'"),
    ("providers test nope", "'nope'", LIST_KINDS),
    ("route nope", "'nope'", LIST_MODELS),
    ("spaces prove nope", "'nope'", LIST_MODELS),
    ("spaces release nope", "'nope'", "embedway spaces status"),
    ("spaces status nope", "'nope'", LIST_MODELS),
    ("usage --key nope", "'nope'", LIST_KEYS),
    ("usage --project nope", "'nope'", LIST_PROJECTS),
    ("users remove ann --project web", "'ann'", "embedway users list --project proj_"),
    ("users set ann --project {archived} --limit none", "'{archived}'", LIST_PROJECTS),
    ("users set ann --project web --alert 80", "--alert '80'", "--budget 25/month"),
]
CASES = [(2, *case) for case in NOT_UNDERSTOOD] + [(1, *case) for case in NOT_POSSIBLE]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A database with the projects `web` and `old`, which is archived, and two keys."""
    data = tmp_path_factory.mktemp("home") / "data"
    env = {"EMBEDWAY_DATA_DIR": str(data), "EMBEDWAY_LOCAL_SERVERS": "false"}
    for line in ("db init", "projects create --name web", "projects create --name old"):
        assert embedway(*line.split(), env=env).returncode == 0
    return env


@pytest.fixture(scope="module")
def ids(env: dict[str, str]) -> dict[str, str]:
    """The ids of a key that works, of one that is revoked, and of an archived project."""
    made = [embedway("keys", "create", "--name", "k", "--json", env=env).stdout for _ in range(2)]
    key, revoked = (json.loads(each)["id"] for each in made)
    assert embedway("keys", "revoke", revoked, env=env).returncode == 0
    archived = embedway("projects", "archive", "old", env=env).stdout.split()[0]
    return {"key": key, "revoked": revoked, "archived": archived}


@pytest.mark.parametrize(("status", "line", "told"), [(n, line, told) for n, line, *told in CASES])
def test_wrong_command_lines(
    env: dict[str, str],
    ids: dict[str, str],
    tmp_path: Path,
    status: int,
    line: str,
    told: list[str],
) -> None:
    """A wrong command line ends with its status, repeats the value and says what to do.

    What is wrong by itself is refused before a database is opened.
    """
    done = embedway(*shlex.split(line.format(**ids)), env=env, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.count("error: ") == 1
    for each in told:
        assert each.format(**ids) in done.stderr
    assert "GET /v1" not in done.stderr
    assert status == 1 or "database:" not in done.stderr
