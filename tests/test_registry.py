"""Operators are found in three places, and one that is broken is one row of the list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from opbench.errors import OpbenchError, PluginError
from opbench.registry import ENTRY_POINT_GROUP, Registry

PLUGIN = '''"""{summary}

And more.
"""

from opbench.api import Operator

OPERATOR = Operator(reference=lambda p, x: x)
'''
EIGHT = {"convolution", "drconv", "dynamic_convolution", "involution"}
EIGHT |= {"large_kernel_depthwise", "ls_convolution", "sasa", "xvolution"}


def write(folder: Path, content: str | bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = PLUGIN.format(summary=f"Does {folder.name}.") if content is None else content
    (folder / "plugin.py").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def external(registry: Registry) -> list[str]:
    return [name for name in registry.names if name not in EIGHT]


# Three places.


def test_the_shipped_operators_are_the_folders_with_a_plugin() -> None:
    folders = {file.parent.name for file in (Path(__file__).parents[1] / "operators").glob("*/plugin.py")}
    assert folders >= EIGHT
    assert Registry.discover().names == sorted(folders)


def test_a_path_is_a_folder_of_operators_or_one_operator(tmp_path: Path) -> None:
    write(tmp_path / "ops" / "box")
    write(tmp_path / "ops" / "tent")
    write(tmp_path / "others" / "bell")
    (tmp_path / "ops" / "notes").mkdir()
    (tmp_path / "ops" / "plugin.txt").touch()
    assert external(Registry.discover([tmp_path / "ops"])) == ["box", "tent"]
    assert external(Registry.discover([tmp_path / "ops" / "box", tmp_path / "others"])) == ["bell", "box"]


def test_a_path_may_be_relative_to_here_or_to_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "box")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (Path(), Path("box"), Path("~/box")):
        assert Registry.discover([path]).find("box").folder == tmp_path / "box"


def test_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "box")
    write(tmp_path / ".ipynb_checkpoints")
    assert external(Registry.discover([tmp_path])) == ["box"]


def test_a_path_without_operators_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PluginError, match=rf"^{path}: no operator there; expected a folder with a plugin\.py$"):
            Registry.discover([path])


def distribution(root: Path, name: str, entry_points: str) -> None:
    """Make an installed distribution of a folder on the path."""
    info = root / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{entry_points}\n")


def test_an_installed_package_brings_its_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "made-up-operators", "anything = opbench_made_up")
    (tmp_path / "opbench_made_up").mkdir()
    (tmp_path / "opbench_made_up" / "__init__.py").write_text("")
    write(tmp_path / "opbench_made_up" / "box")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.discover()
    assert external(registry) == ["box"]
    assert registry.find("box").summary == "Does box."
    assert registry.load("box").reference(None, 3) == 3
    assert "opbench_made_up.box.plugin" in sys.modules


@pytest.mark.parametrize(
    "value",
    ["opbench_nonesuch", "opbench_nonesuch.deep", "opbench_breaks.deep", "json", "os.path", "opbench_made_up:thing"],
)
def test_an_installed_package_that_is_broken_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    distribution(tmp_path, "made-up-operators", f"made_up = {value}")
    (tmp_path / "opbench_breaks").mkdir()
    (tmp_path / "opbench_breaks" / "__init__.py").write_text("raise SystemExit('no luck')")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.discover()
    assert external(registry) == [value]
    assert registry.find(value).summary.startswith("cannot be read: an installed package names it")
    with pytest.raises(PluginError, match=f"{value}: an installed package names it"):
        registry.load(value)


def test_two_folders_of_one_name_are_both_named(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a" / "box"), write(tmp_path / "b" / "box")
    with pytest.raises(PluginError, match=f"two operators are called 'box': {first} and {second}"):
        Registry.discover([tmp_path / "a", tmp_path / "b"])
    write(tmp_path / "c" / "involution")
    with pytest.raises(PluginError, match=r"two operators are called 'involution': .*operators/involution and .*/c/"):
        Registry.discover([tmp_path / "c"])


def test_one_folder_found_twice_is_one_operator(tmp_path: Path) -> None:
    write(tmp_path / "ops" / "box")
    (tmp_path / "link").symlink_to(tmp_path / "ops")
    paths = [tmp_path / "ops", tmp_path / "ops" / "box", tmp_path / "link"]
    assert external(Registry.discover(paths)) == ["box"]


# Finding and loading.


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(OpbenchError, match=r"no operator 'involutoin'; did you mean 'involution'\?"):
        Registry.discover().find("involutoin")


def test_an_operator_is_loaded_once(tmp_path: Path) -> None:
    write(tmp_path / "box")
    registry = Registry.discover([tmp_path])
    assert registry.load("box") is registry.load("box")


def test_plugins_import_what_lies_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "box", "from .shape import OPERATOR\n")
    (tmp_path / "box" / "shape.py").write_text("from ..tent.plugin import OPERATOR\n")
    write(tmp_path / "tent")
    registry = Registry.discover([tmp_path])
    assert registry.load("box") is registry.load("tent")


def test_operators_of_one_name_in_two_folders_do_not_share_modules(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        text = PLUGIN.format(summary="x").replace("lambda p, x: x", f"lambda p, x: {value}")
        write(tmp_path / folder / "box", text)
    for folder, value in (("a", 1), ("b", 2)):
        assert Registry.discover([tmp_path / folder]).load("box").reference(None, None) == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "there is no OPERATOR"),
        ("OPERATOR = 3\n", "OPERATOR must be an opbench.api.Operator, got int"),
        ("from opbench.api import Operator as OPERATOR\n", "OPERATOR must be an opbench.api.Operator, got type"),
        ("import nonesuch\n", "ModuleNotFoundError: No module named 'nonesuch'"),
        ("raise ValueError('first\\nsecond')\n", "ValueError: first"),
        ("def def\n", "SyntaxError: "),
        (b"\xff\xfe\x00", "SyntaxError: "),
    ],
)
def test_a_broken_plugin_says_where_and_what(tmp_path: Path, content: str | bytes, said: str) -> None:
    folder = write(tmp_path / "box", content)
    with pytest.raises(PluginError) as caught:
        Registry.discover([tmp_path]).load("box")
    assert str(caught.value).startswith(f"{folder / 'plugin.py'}: {said}")
    assert "\n" not in str(caught.value)


def test_a_name_with_a_dot_cannot_be_imported(tmp_path: Path) -> None:
    write(tmp_path / "v1.2")
    with pytest.raises(PluginError, match=r"v1\.2: an operator's name has no dot"):
        Registry.discover([tmp_path]).load("v1.2")


# Summaries.


@pytest.mark.parametrize(
    ("content", "summary"),
    [
        (PLUGIN.format(summary="Blurs, “softly”."), "Blurs, “softly”."),
        ("x = 1\n", ""),
        ('"""\n\n   Indented.\n   """\n', "Indented."),
        (b"\xef\xbb\xbf" + b'"""With a byte order mark."""', "With a byte order mark."),
        ("# -*- coding: latin-1 -*-\n'''na\xefve'''".encode("latin-1"), "naïve"),
        ("raise SystemExit\n", ""),
        ("import nonesuch\n", ""),
    ],
)
def test_a_summary_is_read_without_importing(tmp_path: Path, content: str | bytes, summary: str) -> None:
    write(tmp_path / "box", content)
    assert Registry.discover([tmp_path]).find("box").summary == summary


@pytest.mark.parametrize(
    "content", ["def def\n", b"\xff\xfe\x00", "x = " + "(" * 10_000, "x = " + "-" * 1_000_000 + "1", "\0"]
)
def test_a_summary_that_cannot_be_read_says_why(tmp_path: Path, content: str | bytes) -> None:
    write(tmp_path / "box", content)
    summary = Registry.discover([tmp_path]).find("box").summary
    assert summary.startswith("cannot be read: ")
    assert "\n" not in summary


def test_a_folder_in_place_of_the_file_is_no_operator(tmp_path: Path) -> None:
    (tmp_path / "box" / "plugin.py").mkdir(parents=True)
    write(tmp_path / "tent")
    assert external(Registry.discover([tmp_path])) == ["tent"]


def test_listing_imports_neither_torch_nor_plugins(tmp_path: Path) -> None:
    write(tmp_path / "box", '"""Never imported."""\nraise SystemExit("imported")\n')
    script = f"""
import sys
from opbench.cli import main
try:
    main(["list", "--json", "--operators", {str(tmp_path)!r}])
finally:
    assert not {{"torch", "numpy", "pandas", "opbench.api"}} & set(sys.modules), sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["operator"]: row["summary"] for row in json.loads(done.stdout)}
    assert rows["box"] == "Never imported."
    assert set(rows) == EIGHT | {"box"}


def test_warnings_of_a_plugin_do_not_spoil_the_list(tmp_path: Path) -> None:
    write(tmp_path / "box", '"""Matches \\d."""\n')
    assert Registry.discover([tmp_path]).find("box").summary == "Matches \\d."
