"""Finds operators. Listing reads folders and docstrings; only `load` imports a plugin (and so torch)."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import sys
import warnings
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
    fault: str = ""
    """Why it cannot be imported, where that is known without trying."""

    @property
    def summary(self) -> str:
        """First line of the plugin's docstring, read without importing it; for a broken file, what is wrong."""
        if self.fault:
            return f"cannot be read: {self.fault}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse((self.folder / ENTRY_FILE).read_bytes())
        except (SyntaxError, ValueError, OSError, MemoryError, RecursionError) as error:
            return f"cannot be read: {said(error) or type(error).__name__}"
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
        if plugin.fault:
            raise PluginError(f"{plugin.folder}: {plugin.fault}")
        entry = plugin.folder / ENTRY_FILE
        try:
            module = _imported(plugin)
        except Exception as error:
            raise PluginError(": ".join(filter(None, [str(entry), type(error).__name__, said(error)]))) from error
        from opbench.api import Operator

        if not hasattr(module, "OPERATOR"):
            raise PluginError(f"{entry}: there is no OPERATOR; a plugin ends with OPERATOR = Operator(…)")
        operator = module.OPERATOR
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
        package, fault = point.value, "an installed package names it, and it holds no operator"
        try:
            # To find a package within a package, Python imports the outer one.
            spec = importlib.util.find_spec(package)
        except (Exception, SystemExit) as error:
            spec, fault = None, f"an installed package names it: {type(error).__name__}: {said(error)}"
        roots = (spec.submodule_search_locations or ()) if spec else ()
        plugins = [plugin for root in roots for plugin in _folders(Path(root), package)]
        found += plugins or [Plugin(package, Path(package), package, fault)]
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
    folders = [entry for entry in sorted(root.iterdir()) if (entry / ENTRY_FILE).is_file() and entry.name[0] != "."]
    faults = {entry: "an operator's name has no dot, as no package's has" for entry in folders if "." in entry.name}
    return [Plugin(entry.name, entry, f"{package}.{entry.name}", faults.get(entry, "")) for entry in folders]


def _imported(plugin: Plugin) -> ModuleType:
    package = plugin.module.partition(".")[0]
    if package.startswith("opbench_external_") and package not in sys.modules:
        # A package made on the spot, so that a plugin outside any package may import its neighbours relatively.
        parent = ModuleType(package)
        parent.__path__ = [str(plugin.folder.parent)]
        sys.modules[package] = parent
    return importlib.import_module(f"{plugin.module}.plugin")
