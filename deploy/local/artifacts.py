"""What the stack runs: fetched (or built) once per machine, whole or not at all.

Kafka and Apicurio come from Maven Central. jgo writes downloads in place: an interrupted one leaves a truncated
jar that is taken for good ever after. Toxiproxy, the gateway that speaks S3, Kustomize and what reads compose files are
built from their Go modules, with the toolchain that a wheel brings: there is no other way to them through package
registries, and none that needs less on the machine. Redis is the machine's own if it has one, else an executable out of
a jar that is on Maven Central for tests of other people's. nginx and Prometheus are the machine's own too, else out of
the distribution's packages, without installing them.

Every set is made in a staging directory and renamed when complete, under a lock: a set that exists is whole,
however many processes asked for it at once.
"""

import os
import platform
import shutil
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from jgo.maven import MavenContext
from requests import RequestException

from deploy.local.errors import DownloadFailed
from deploy.local.file_lock import locked
from deploy.local.go_modules import build, build_as_dependency, extract

KAFKA_VERSION = "4.2.0"  # 4.4.0 misses an artifact on Maven Central
APICURIO_VERSION = "3.0.9"
TOXIPROXY_VERSION = "2.12.0"
VERSITYGW_VERSION = "1.8.0"  # before, two conditional writes at once could both succeed (its pull request 2288)
COMPOSE_GO_VERSION = "2.16.2"
DOCKER_COMPOSE_VERSION = "2.40.3"  # the last whose Go is not newer than the wheel's
KUSTOMIZE_VERSION = "5.7.1"  # what kubectl 1.34 has built in
KEDA_VERSION = "2.21.0"
PROMETHEUS_OPERATOR_VERSION = "0.85.0"
EMBEDDED_REDIS_VERSION = "1.4.3"  # Redis 6.2, for Linux and macOS, x86-64 and ARM

# Kafka's jars carry slf4j's interface and no binding: without one a broker that cannot start says nothing.
_KAFKA_COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")

_TOXIPROXY_MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{TOXIPROXY_VERSION}"
_VERSITYGW_MODULE = f"github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW_VERSION}"

_COMPOSE_MODULE = f"github.com/compose-spec/compose-go/v2/cmd@v{COMPOSE_GO_VERSION}"
_DOCKER_COMPOSE_MODULE = f"github.com/docker/compose/v2/cmd@v{DOCKER_COMPOSE_VERSION}"
_KUSTOMIZE_MODULE = f"sigs.k8s.io/kustomize/kustomize/v5@v{KUSTOMIZE_VERSION}"

# Of each operator: its module, the module's digest, and what of it says which resources and settings there are.
_OPERATORS = (
    (
        f"github.com/kedacore/keda/v2@v{KEDA_VERSION}",
        "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        (
            "config/crd/bases/keda.sh_scaledobjects.yaml",
            "config/crd/bases/keda.sh_triggerauthentications.yaml",
            "pkg/scalers/kafka_scaler.go",
            "pkg/scalers/prometheus_scaler.go",
        ),
    ),
    (
        f"github.com/prometheus-operator/prometheus-operator@v{PROMETHEUS_OPERATOR_VERSION}",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
)

_REQUEST_TIMEOUT_S = 60
_TOOL_TIMEOUT_S = 500.0  # below what others wait for our lock
_ATTEMPTS = 3
_PAUSE_S = 2.0
_LOCK_TIMEOUT_S = 600.0  # 110 MB at 200 kB/s, fetched by somebody else while we wait


def kafka_jars() -> list[Path]:
    """Return the class path of a broker: about 45 jars, 55 MB, fetched on first use.

    Raises DownloadFailed.
    """
    directory = _fetch_once(f"kafka-{KAFKA_VERSION}", _fetch_kafka)
    return sorted(directory.rglob("*.jar"))


def apicurio_runner() -> Path:
    """Return the runnable jar of the schema registry, beside its lib/; 108 MB, fetched on first use.

    Raises DownloadFailed.
    """
    directory = _fetch_once(f"apicurio-registry-{APICURIO_VERSION}", _fetch_apicurio)
    return directory / f"apicurio-registry-app-{APICURIO_VERSION}-runner.jar"


def toxiproxy_server() -> Path:
    """Return the proxy's executable: 14 MB, built on first use from 30 MB of sources in half a minute.

    Raises DownloadFailed.
    """
    name = "toxiproxy-server"
    return _fetch_once(f"toxiproxy-{TOXIPROXY_VERSION}", lambda target: build(_TOXIPROXY_MODULE, target / name)) / name


def s3_gateway() -> Path:
    """Return the executable of an S3 server over a folder: 45 MB, built on first use with two minutes of CPU time.

    Raises DownloadFailed.
    """
    name = "versitygw"
    return _fetch_once(f"versitygw-{VERSITYGW_VERSION}", lambda target: build(_VERSITYGW_MODULE, target / name)) / name


def compose_parser() -> Path:
    """Return what checks and resolves a compose file: a command over the library that `docker compose` does it with.

    5 MB, built on first use with 20 s of CPU time. It knows no variables of the environment.

    Raises DownloadFailed.
    """
    name = "compose"
    return _fetch_once(f"compose-go-{COMPOSE_GO_VERSION}", lambda target: build(_COMPOSE_MODULE, target / name)) / name


def docker_compose() -> Path:
    """Return Docker Compose itself: 67 MB, built on first use with three minutes of CPU time.

    What only reads a file needs no engine. Raises DownloadFailed.
    """
    name = "docker-compose"
    return (
        _fetch_once(
            f"{name}-{DOCKER_COMPOSE_VERSION}",
            lambda target: build_as_dependency(_DOCKER_COMPOSE_MODULE, target / name),
        )
        / name
    )


def kustomize() -> Path:
    """Return Kustomize: 16 MB, built on first use with 40 s of CPU time.

    Raises DownloadFailed.
    """
    name = "kustomize"
    return _fetch_once(f"kustomize-{KUSTOMIZE_VERSION}", lambda target: build(_KUSTOMIZE_MODULE, target / name)) / name


def operator_files() -> Path:
    """Return a directory with what says which resources and settings operators know; 7 MB, fetched once.

    The custom resource definitions of KEDA and of the Prometheus operator, and the sources of the two scalers of KEDA
    that we use: nothing else says what a trigger may be told. Raises DownloadFailed.
    """
    return _fetch_once(f"operators-{KEDA_VERSION}-{PROMETHEUS_OPERATOR_VERSION}", _fetch_operators)


def _fetch_operators(target: Path) -> None:
    for module, digest, names in _OPERATORS:
        extract(module, digest, {name: target / Path(name).name for name in names})


def redis_executable() -> Path:
    """Return a Redis server: the first of `redis-server` and `valkey-server` on the path, else 10 MB, fetched once.

    Raises DownloadFailed.
    """
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed:
        return Path(installed)
    return _fetch_once(f"embedded-redis-{EMBEDDED_REDIS_VERSION}", _fetch_redis) / "redis-server"


def nginx_executable() -> Path:
    """Return nginx: the one on the path, else that of the Debian or Ubuntu package, 0.5 MB, fetched once.

    Raises DownloadFailed; where there is no apt too, so that whoever needs it installs it.
    """
    installed = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if installed:
        return Path(installed)
    if shutil.which("apt-get") is None:
        raise DownloadFailed("there is no nginx here, and no apt-get to fetch it with: install nginx")
    return _fetch_once("nginx-debian", _fetch_nginx) / "nginx"


def _fetch_nginx(target: Path) -> None:
    """Keep the executable; its libraries are of those that every Debian has. Raises RuntimeError."""
    executable = _unpacked("nginx", target) / "usr" / "sbin" / "nginx"
    _said([str(executable), "-v"], within=target)  # its libraries are there
    executable.rename(target / "nginx")
    shutil.rmtree(target / "package")


def _unpacked(name: str, target: Path) -> Path:
    """The files of a Debian package, below `target`/package. Raises RuntimeError."""
    work = target / "package"
    (work / "lists" / "partial").mkdir(parents=True)
    try:
        _apt("download", name, within=work)
    except RuntimeError:  # an image without package lists: fetch some of our own, which takes no rights
        own_lists = (f"Dir::State::Lists={work / 'lists'}", f"Dir::Cache={work}")
        _apt("update", within=work, options=own_lists)
        _apt("download", name, within=work, options=own_lists)
    (package,) = work.glob(f"{name}_*.deb")
    _said(["dpkg", "-x", str(package), "tree"], within=work)
    return work / "tree"


def _apt(*order: str, within: Path, options: tuple[str, ...] = ()) -> None:
    _said(["apt-get", "-qq", *(part for option in options for part in ("-o", option)), *order], within=within)


def _said(command: list[str], *, within: Path) -> None:
    """Run a system tool. Raises RuntimeError with the end of what it said; OSError if there is none."""
    done = subprocess.run(  # noqa: S603 - our own command line
        command, cwd=within, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=_TOOL_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def prometheus_executable() -> Path:
    """Return Prometheus: the one on the path, else out of Debian's or Ubuntu's package, 19 MB, fetched once.

    Raises DownloadFailed; where there is no apt too, so that whoever needs it installs it.
    """
    return _of_prometheus("prometheus")


def promtool() -> Path:
    """Return Prometheus' checker of rules; from where `prometheus_executable` is from. Raises DownloadFailed."""
    return _of_prometheus("promtool")


def _of_prometheus(name: str) -> Path:
    installed = shutil.which(name)
    if installed:
        return Path(installed)
    if shutil.which("apt-get") is None:
        raise DownloadFailed(f"there is no {name} here, and no apt-get to fetch it with: install prometheus")
    return _fetch_once("prometheus-and-promtool-debian", _fetch_prometheus) / name


def _fetch_prometheus(target: Path) -> None:
    """Keep the two executables, which need no library but libc. Raises RuntimeError."""
    tree = _unpacked("prometheus", target)
    for name in ("prometheus", "promtool"):
        executable = tree / "usr" / "bin" / name
        _said([str(executable), "--version"], within=target)
        executable.rename(target / name)
    shutil.rmtree(target / "package")


def _fetch_redis(target: Path) -> None:
    """Raises RuntimeError if there is none for this machine."""
    component = _maven(target / "maven").project("com.github.codemonstur", "embedded-redis")
    jar = component.at_version(EMBEDDED_REDIS_VERSION).artifact(packaging="jar").resolve()
    processor = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    suffix = f"{platform.system().lower()}-{processor}"
    with zipfile.ZipFile(jar) as archive:
        names = [name for name in archive.namelist() if name.startswith("redis-server-") and name.endswith(suffix)]
        if not names:
            raise RuntimeError(f"no Redis for {suffix} in {jar.name}: install redis-server")
        (target / "redis-server").write_bytes(archive.read(names[0]))
    (target / "redis-server").chmod(0o755)
    shutil.rmtree(target / "maven")


def _fetch_kafka(target: Path) -> None:
    maven = _maven(target)
    for coordinates in _KAFKA_COORDINATES:
        asked_for, transitive = maven.resolver.resolve([maven.create_dependency(coordinates)])
        needed = [dependency for dependency in transitive if dependency.scope in ("compile", "runtime")]
        for dependency in [*asked_for, *needed]:
            dependency.artifact.resolve()


def _fetch_apicurio(target: Path) -> None:
    maven = _maven(target / "maven")
    component = maven.project("io.apicurio", "apicurio-registry-app").at_version(APICURIO_VERSION)
    archive = component.artifact(classifier="all", packaging="tar.gz").resolve()
    with tarfile.open(archive) as tar:
        # a release archive of Maven Central, whose checksum was verified; Python before 3.11.4 has no filters
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(target)  # noqa: S202 # nosec B202
    shutil.rmtree(target / "maven")


def _maven(directory: Path) -> MavenContext:
    return MavenContext(repo_cache=directory, timeout=_REQUEST_TIMEOUT_S)


def _fetch_once(name: str, fetch: Callable[[Path], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kafka-inference-worker"
    complete = cache / name
    if complete.is_dir():
        return complete
    with locked(cache / f"{name}.lock", timeout_s=_LOCK_TIMEOUT_S):
        if not complete.is_dir():
            _fetch_whole(cache / f"{name}.partial", complete, fetch)
    return complete


def _fetch_whole(staging: Path, complete: Path, fetch: Callable[[Path], None]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            fetch(staging)
        except (
            RequestException,
            RuntimeError,
            ValueError,
            OSError,
            tarfile.TarError,
            zipfile.BadZipFile,
        ) as exc:  # RuntimeError: jgo's own, and the build's
            if attempt == _ATTEMPTS:
                raise DownloadFailed(f"{complete.name} could not be fetched in {_ATTEMPTS} attempts: {exc}") from exc
            time.sleep(_PAUSE_S * attempt)
        else:
            staging.rename(complete)
            return
