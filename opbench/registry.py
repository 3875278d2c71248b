"""Finds operators. Listing reads folders and docstrings; only `load` imports a plugin (and so torch)."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from opbench.errors import OpbenchError, PluginError, did_you_mean, said

if TYPE_CHECKING:
    from opbench.api import Operator

PACKAGE = "opbench_operators"
ENTRY_POINT_GROUP = "opbench.operators"
ENTRY_FILE = "plugin.py"


@dataclass(frozen=True)
class Plugin:
    """An operator's folder, found but not imported."""

    name: str
    folder: Path
    module: str
    """Dotted name under which the folder is imported."""

    @property
    def summary(self) -> str:
        """First line of the plugin's docstring, read without importing it; for a broken file, what is wrong."""
        try:
            tree = ast.parse((self.folder / ENTRY_FILE).read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError) as error:
            return f"cannot be read: {error}"
        return (ast.get_docstring(tree) or "").partition("\n")[0]


@dataclass(frozen=True)
class Registry:
    """The operators that can be named, by name in alphabetical order."""

    plugins: dict[str, Plugin]

    @classmethod
    def discover(cls, paths: Iterable[Path] = ()) -> Registry:
        """Find the shipped operators, those of installed packages, and those under the given paths.

        Raises:
            PluginError: a path has no operator, or two folders claim one name.
        """
        found = [*_shipped(), *_installed(), *_under(paths)]
        plugins: dict[str, Plugin] = {}
        for plugin in sorted(found, key=lambda plugin: plugin.name):
            first = plugins.setdefault(plugin.name, plugin)
            if first.folder.resolve() != plugin.folder.resolve():
                raise PluginError(f"two operators are called {plugin.name!r}: {first.folder} and {plugin.folder}")
        return cls(plugins)

    @property
    def names(self) -> list[str]:
        """Every operator's name."""
        return list(self.plugins)

    def find(self, name: str) -> Plugin:
        """Return the folder of an operator.

        Raises:
            OpbenchError: there is no such operator.
        """
        if name not in self.plugins:
            raise OpbenchError(f"no operator {name!r}{did_you_mean(name, self.plugins)}")
        return self.plugins[name]

    def load(self, name: str) -> Operator:
        """Import an operator.

        Raises:
            OpbenchError: there is no such operator.
            PluginError: its folder cannot be imported or holds no `OPERATOR`.
        """
        plugin = self.find(name)
        if "." in name:
            raise PluginError(f"{plugin.folder}: no package can be called {name!r}; an operator's name has no dot")
        entry = plugin.folder / ENTRY_FILE
        try:
            module = _imported(plugin)
        except Exception as error:
            raise PluginError(": ".join(filter(None, [str(entry), type(error).__name__, said(error)]))) from error
        from opbench.api import Operator

        operator = getattr(module, "OPERATOR", None)
        if not isinstance(operator, Operator):
            raise PluginError(f"{entry}: OPERATOR must be an opbench.api.Operator, got {type(operator).__name__}")
        return operator


def _shipped() -> list[Plugin]:
    # An editable install maps the package to the checkout through an import hook, so ask the import system.
    spec = importlib.util.find_spec(PACKAGE)
    roots = list(spec.submodule_search_locations or ()) if spec else []
    return [plugin for root in roots for plugin in _folders(Path(root), PACKAGE)]


def _installed() -> list[Plugin]:
    found = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        spec = importlib.util.find_spec(point.value)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            found += _folders(Path(root), point.value)
    return found


def _under(paths: Iterable[Path]) -> list[Plugin]:
    found = []
    for path in map(Path, paths):
        root = path.expanduser().resolve()
        # The path may be one operator or a folder of operators.
        parent, keep = (root.parent, {root.name}) if (root / ENTRY_FILE).is_file() else (root, None)
        package = "opbench_external_" + hashlib.sha256(str(parent).encode()).hexdigest()[:12]
        plugins = [plugin for plugin in _folders(parent, package) if keep is None or plugin.name in keep]
        if not plugins:
            raise PluginError(f"{path}: no operator there; expected a folder with a {ENTRY_FILE}")
        found += plugins
    return found


def _folders(root: Path, package: str) -> list[Plugin]:
    if not root.is_dir():
        return []
    return [
        Plugin(entry.name, entry, f"{package}.{entry.name}")
        for entry in sorted(root.iterdir())
        if (entry / ENTRY_FILE).is_file()
    ]


def _imported(plugin: Plugin) -> ModuleType:
    package = plugin.module.partition(".")[0]
    if package.startswith("opbench_external_") and package not in sys.modules:
        # A package made on the spot, so that a plugin outside any package may import its neighbours relatively.
        parent = ModuleType(package)
        parent.__path__ = [str(plugin.folder.parent)]
        sys.modules[package] = parent
    return importlib.import_module(f"{plugin.module}.plugin")
