"""What is shipped: the whole harness, every operator folder, and nothing that was lying about."""

from __future__ import annotations

import configparser
import email
import functools
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADDED = {
    "operators/brand_new/plugin.py": '"""New."""\n',
    "operators/brand_new/kernel.cu": "// a kernel\n",
    "operators/brand_new/README.md": "# New\n",
    "operators/_cuda/tile.cuh": "// a header that two kernels share\n",
}
LITTER = (
    "operators/involution/__pycache__/plugin.cpython-311.pyc",
    "opbench/__pycache__/cli.cpython-311.pyc",
    "operators/involution/notes.txt",
)


@functools.cache
def tracked() -> list[str]:
    """The repository's files, those not committed yet included."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list to compare with")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a copy of the repository with an operator added and some litter: first the sdist, and from it the wheel."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for name, text in {**ADDED, **dict.fromkeys(LITTER, "")}.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_holds_every_module_and_every_operator_file_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    kept = [name for name in [*tracked(), *ADDED] if name.startswith(("opbench/", "operators/"))]
    expected = {re.sub("^operators/", "opbench_operators/", name) for name in kept}
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == expected
    assert "opbench/py.typed" in shipped
    assert "opbench_operators/involution/README.md" in shipped


def test_the_source_archive_is_the_repository(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    expected = {name for name in [*tracked(), *ADDED] if not name.startswith((".", "reports/"))}
    assert expected - files == set()
    made = {"PKG-INFO", "setup.cfg", "operators/involution/notes.txt"}
    assert {name for name in files - expected - made if not name.startswith("opbench.egg-info/")} == set()


def test_an_installed_wheel_finds_its_operators_and_runs_as_a_module(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = """if True:
        import opbench, runpy, sys
        print(opbench.__file__)
        sys.argv[1:] = ["list"]
        runpy.run_module("opbench", run_name="__main__")
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    where, *listed = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path), done.stderr
    assert [line.split()[0] for line in listed if line.startswith(("brand", "invo"))] == ["brand_new", "involution"]
    assert done.returncode == 0


def test_the_console_script_is_the_command_line(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert dict(points["console_scripts"]) == {"opbench": "opbench.cli:main"}


def requirements(metadata: Message, extra: str = "") -> dict[str, str]:
    """Names and version bounds of what an installation asks for: the base's, or what an extra adds."""
    found = {}
    for line in metadata.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        if (re.search(r'extra == "([^"]+)"', marker) or ["", ""])[1] == extra:
            name = re.split("[<>=!~ ]", requirement.strip())[0]
            found[name.lower()] = requirement.strip()[len(name) :]
    return found


def test_the_base_install_pulls_no_cuda_package(metadata: Message) -> None:
    base = requirements(metadata)
    assert [name for name in base if re.search("cuda|cupy|nvidia|triton|nvrtc", name)] == []
    assert {"torch", "click", "rich", "pydantic", "fvcore"} <= set(base)


@pytest.mark.parametrize(
    ("extra", "cupy", "other"), [("cuda12", "cupy-cuda12x", "13"), ("cuda13", "cupy-cuda13x", "12")]
)
def test_a_cuda_extra_names_leaf_packages_of_one_major_version(
    metadata: Message, extra: str, cupy: str, other: str
) -> None:
    added = requirements(metadata, extra)
    assert cupy in added
    assert [name for name in added if f"cuda{other}" in name or f"cu{other}" in name] == []
    # The toolkit's own package, and CuPy's extras, would change which torch is installed.
    assert [name for name in added if name.startswith(("torch", "cuda-toolkit")) or "[" in name] == []


def test_torch_is_a_lower_bound_for_users_and_one_version_for_continuous_integration(metadata: Message) -> None:
    assert requirements(metadata)["torch"] == ">=2.6"
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in pinned if re.fullmatch(r"torch==\d+\.\d+\.\d+", line)] == pinned


def test_the_metadata_says_what_the_package_needs_and_grants(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
