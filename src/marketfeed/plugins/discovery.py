"""Loading plugins one by one, each guarded and checked against the hook specs.

Every plugin gets a small :class:`pluggy.PluginManager` of its own, so that a hook is called on one
plugin alone and one that raises never ends the call for the rest. Nothing here is global.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs
import pluggy

from marketfeed import hookspecs
from marketfeed.errors import PluginError

__all__ = ["CORE", "GROUP", "BrokenPlugin", "Provider", "error_text", "load_entry_points", "load_objects"]

GROUP = "marketfeed"
"""The entry-point group, and the name of the pluggy project."""
CORE = "marketfeed"
"""The core's own distribution: its built-in sinks are a plugin like the others, and come first."""
_ALL_RESULTS = frozenset({"marketfeed_vendor", "marketfeed_sinks", "marketfeed_services", "marketfeed_event"})
_SPECS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("marketfeed_")}


@attrs.frozen
class BrokenPlugin:
    """A plugin, or one name it offers, that cannot be used."""

    name: str
    """Its entry-point name."""
    distribution: str
    version: str
    error: str
    """What is wrong, in one line."""
    cause: BaseException | None = attrs.field(default=None, repr=False, eq=False)

    def __str__(self) -> str:
        owner = _owner(self.distribution, self.version)
        return f"{self.name} ({owner}): {self.error}" if owner else f"{self.name}: {self.error}"


@attrs.frozen(eq=False)
class Provider:
    """A plugin that loaded: where it comes from, and its hooks."""

    name: str
    distribution: str
    version: str
    _manager: pluggy.PluginManager = attrs.field(repr=False)

    @property
    def owner(self) -> str:
        """Distribution and version for messages."""
        return _owner(self.distribution, self.version) or self.name

    def has(self, hook: str) -> bool:
        """Whether it implements that hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def call(self, hook: str, **arguments: Any) -> Any:
        """The hook's result, whatever it is. Raises ``PluginError`` where it is not implemented."""
        if not self.has(hook):
            raise PluginError(f"{self.owner} does not implement {hook}")
        result = getattr(self._manager.hook, hook)(**arguments)
        if hook in _ALL_RESULTS:  # pluggy lists the results of all plugins; here there is one
            return result[0] if result else None
        return result

    def broken(self, error: str, cause: BaseException) -> BrokenPlugin:
        """The report that it, or something it offers, cannot be used."""
        return BrokenPlugin(self.name, self.distribution, self.version, error, cause)


Loaded = tuple[list[Provider], list[BrokenPlugin]]


def load_entry_points(disabled: Iterable[str]) -> Loaded:
    """All installed plugins except the disabled ones (entry-point names; ``*`` is all but the core's).

    pluggy's own loader is not used: it stops at the first plugin that fails and skips a name that is
    there twice without a word.
    """
    off = {name.strip() for name in disabled}
    found = [one for one in _sorted(entry_points(group=GROUP)) if not _is_off(one, off)]
    loaded: Loaded = ([], [])
    for entry in found:
        twin = next((one for one in found if one.name == entry.name and one is not entry), None)
        if twin is not None and _dist(entry)[0] != CORE:
            loaded[1].append(_duplicate_entry(entry, twin))
        else:
            _load(entry.name, *_dist(entry), entry.load, loaded)
    return loaded


def load_objects(objects: Iterable[Any]) -> Loaded:
    """Plugins given as modules or objects."""
    loaded: Loaded = ([], [])
    for one in objects:
        _load(getattr(one, "__name__", type(one).__name__), "", "", _giving(one), loaded)
    return loaded


def error_text(error: BaseException) -> str:
    """Class and first line of an exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _giving(thing: Any) -> Callable[[], Any]:
    return lambda: thing


def _load(name: str, distribution: str, version: str, load: Callable[[], Any], loaded: Loaded) -> None:
    """Import one plugin and check its hooks; the outcome is appended to one of the two lists."""
    try:
        manager = _manager_of(load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: a plugin must not end the program
        text = str(error) if isinstance(error, PluginError) else f"import failed: {error_text(error)}"
        loaded[1].append(BrokenPlugin(name, distribution, version, text, error))
    else:
        loaded[0].append(Provider(name, distribution, version, manager))


def _manager_of(plugin: Any) -> pluggy.PluginManager:
    """A manager that holds this one plugin, checked against the hook specs."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            _check_implementation(plugin, name, options)
        elif name in _SPECS and inspect.isroutine(getattr(plugin, name)):
            raise PluginError(f"{name} is not marked with @hookimpl")
    try:
        manager.register(plugin)
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error
    if not manager.get_hookcallers(plugin):
        raise PluginError("it implements no hook; is @hookimpl missing?")
    return manager


def _check_implementation(plugin: Any, name: str, options: pluggy.HookimplOpts) -> None:
    """What pluggy would accept or say in riddles, and would then surprise somebody."""
    if options["specname"]:
        raise PluginError(f"{name} uses specname={options['specname']!r}; name the function so instead")
    if options["wrapper"] or options["hookwrapper"]:
        raise PluginError(f"{name} is a wrapper; every plugin's hooks are called alone, so it would wrap nothing")
    if name not in _SPECS:
        if options["optionalhook"]:  # of another version of the core
            return
        near = difflib.get_close_matches(name, _SPECS, n=1)
        raise PluginError(f"there is no hook {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    known = list(inspect.signature(_SPECS[name]).parameters)
    for parameter in inspect.signature(getattr(plugin, name)).parameters.values():
        if parameter.name not in known:
            may = f"it may take {', '.join(known)}" if known else "it takes none"
            raise PluginError(f"{name} has no argument {parameter.name!r}; {may}")
        if parameter.default is not parameter.empty:  # pluggy passes only arguments without a default
            raise PluginError(f"{name} gives {parameter.name!r} a default, so it would never be passed; remove it")


def _sorted(found: Iterable[EntryPoint]) -> list[EntryPoint]:
    """The core first, then by distribution and name, so that no result depends on the path's order."""
    return sorted(found, key=lambda one: (_dist(one)[0] != CORE, _dist(one)[0], one.name))


def _dist(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("", "")


def _owner(distribution: str, version: str) -> str:
    return f"{distribution} {version}".strip()


def _is_off(entry: EntryPoint, off: set[str]) -> bool:
    return entry.name in off or ("*" in off and _dist(entry)[0] != CORE)


def _duplicate_entry(entry: EntryPoint, twin: EntryPoint) -> BrokenPlugin:
    owners = " and ".join(sorted({_owner(*_dist(entry)), _owner(*_dist(twin))}))
    text = f"the entry point {entry.name!r} is given twice, by {owners}; uninstall or disable one of them"
    return BrokenPlugin(entry.name, *_dist(entry), text, PluginError(text))
