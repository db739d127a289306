"""Getting Temporal: what a build and a download do, and how each gives up."""

import os
import subprocess
from pathlib import Path

import pytest

from worker import temporal_get
from worker.temporal_get import (
    NotObtained,
    build_with_go,
    download_with_sdk,
    go_version,
    pinned,
)

pytestmark = pytest.mark.unit

NAME = f"temporal-{pinned().version}"


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def path_of(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27rc1 linux/arm64", (1, 27, 0)),
        ("go version devel go1.28-3c4f1b linux/amd64", (1, 28, 0)),
        ("gcc (Debian 12.2.0)", None),
    ],
)
def test_the_go_version_is_read_from_its_own_words(
    said: str, version: tuple[int, int, int] | None
) -> None:
    assert go_version(said) == version


def fake_go(tmp_path: Path, version: str, build: str) -> dict[str, str]:
    body = f'if [ "$1" = version ]; then echo "go version {version} linux/amd64"; exit 0; fi\n'
    script(tmp_path / "path" / "go", body + build)
    return path_of(tmp_path / "path")


def test_a_go_that_is_too_old_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    env = fake_go(tmp_path, "go1.19.8", f"touch {tmp_path}/was-built")
    with pytest.raises(NotObtained, match=r"1\.19\.8, 1\.26\.\d+ or newer is needed"):
        build_with_go(tmp_path / NAME, env, print)
    assert not (tmp_path / "was-built").exists()


def test_a_machine_without_go_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotObtained, match="no `go` on PATH"):
        build_with_go(tmp_path / NAME, {"PATH": str(tmp_path)}, print)


def test_the_build_is_pinned_offline_in_its_tool_chain_and_appears_complete(tmp_path: Path) -> None:
    record = (
        f'printf "%s\\n" "$@" "$CGO_ENABLED" "$GOTOOLCHAIN" "$PWD" > {tmp_path}/record\n'
        'while [ "$1" != -o ]; do shift; done\n'
        'printf \'#!/bin/sh\\necho "temporal version 1.8.2 (Server 1.31.2, UI 2)"\\n\' > "$2"\n'
        'chmod 755 "$2"'
    )
    env = fake_go(tmp_path, "go1.99.0", record)
    build_with_go(tmp_path / NAME, env, print)
    said = (tmp_path / "record").read_text().splitlines()
    assert said[0] == "build"
    assert "-mod=readonly" in said
    assert any(f"temporalcli.Version={pinned().version}" in word for word in said)
    assert "github.com/temporalio/cli/cmd/temporal" in said
    assert said[-3:-1] == ["0", "local"]
    assert Path(said[-1], "go.sum").is_file()
    done = subprocess.run([tmp_path / NAME, "--version"], capture_output=True, check=True)
    assert b"1.31.2" in done.stdout


def test_a_build_that_fails_leaves_nothing_and_repeats_the_compilers_words(tmp_path: Path) -> None:
    env = fake_go(tmp_path, "go1.99.0", "echo 'disk quota exceeded: try later' >&2; exit 1")
    with pytest.raises(NotObtained, match="ended with 1: disk quota exceeded: try later"):
        build_with_go(tmp_path / NAME, env, print)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["path"]


def test_a_running_build_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal_get, "PROGRESS_EVERY_S", 0.05)
    told = tmp_path / "told"
    env = fake_go(
        tmp_path,
        "go1.99.0",
        "echo 'go: downloading example.org/m v1.0.0' >&2; echo net/http >&2\n"
        f"until [ -e {told} ]; do sleep 0.05; done; exit 1",
    )
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "1 modules fetched, 1 packages compiled, compiling net/http" in line:
            told.touch()

    # The build ends only after the line was told, so this cannot pass without it.
    with pytest.raises(NotObtained, match="ended with 1"):
        build_with_go(tmp_path / NAME, env, say)
    assert "4 minutes" in said[0]


def fake_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Another script in the place of the one that asks the SDK; it gets folder and version."""
    place = tmp_path / "root" / "worker" / "temporal_download.py"
    place.parent.mkdir(parents=True)
    place.write_text(f"import os, sys, time\nfolder, version = sys.argv[1:]\n{body}\n")
    monkeypatch.setattr(temporal_get, "ROOT", tmp_path / "root")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin" / NAME


def test_a_download_is_pinned_and_ends_up_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "p = folder + '/temporal-sdk'\nopen(p, 'w').write(version)\nos.chmod(p, 0o755)"
    wanted = fake_download(tmp_path, monkeypatch, body)
    download_with_sdk(wanted, os.environ, print)
    assert wanted.read_text() == f"v{pinned().version}"
    assert list(wanted.parent.iterdir()) == [wanted]


def test_a_refused_download_gives_its_reason_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fake_download(tmp_path, monkeypatch, "sys.exit('no route to host')")
    with pytest.raises(NotObtained, match="no route to host"):
        download_with_sdk(wanted, os.environ, print)
    assert list(wanted.parent.iterdir()) == []


def test_a_download_that_brings_no_byte_is_given_up_and_its_process_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    wanted = fake_download(tmp_path, monkeypatch, body)
    for stalled_s in (2.0, 10.0, 60.0):  # a busy machine may not have begun it in the first
        monkeypatch.setattr(temporal_get, "DOWNLOAD_STALLED_S", stalled_s)
        with pytest.raises(NotObtained, match=f"no byte arrived for {stalled_s:.0f} s"):
            download_with_sdk(wanted, os.environ, print)
        if pid.exists():
            break
    assert not Path(f"/proc/{pid.read_text()}").exists()
    assert list(wanted.parent.iterdir()) == []
