"""The registry: finds plugins, keeps a broken one from harming others, and answers for names.

Every plugin is loaded on its own, with a plugin manager and lists of its own, so that whatever it does
wrong is its own failure. Names are looked up among the built-in plugins first. Two strangers that
claim one name cancel out, and `distribution:name` picks.
"""

import difflib
import inspect
import logging
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, distributions, entry_points
from itertools import chain
from types import ModuleType
from typing import Any, Literal

import pluggy

from aigc_sdk import hookspecs
from aigc_sdk.contents import Contents
from aigc_sdk.errors import AigcError, PluginError, UnknownName, blamed, reason, shown
from aigc_sdk.forking import unforked
from aigc_sdk.specs import (
    API_VERSIONS,
    EvaluatorSpec,
    ExporterSpec,
    FamilySpec,
    GeneratorSpec,
    MeasureSpec,
    ModalitySpec,
    ModelSpec,
    ReaderSpec,
)

BUILT_IN = "aigc-sdk"

POLICY_HOOKS = ("aigc_before_generate", "aigc_after_generate")

# The hooks alone: pluggy looks at every name that it is given, for every plugin.
_HOOKSPECS = ModuleType("hooks")
vars(_HOOKSPECS).update({name: hook for name, hook in vars(hookspecs).items() if name.startswith("aigc_")})

# What a plugin can register: hook -> the kind that messages name, and the spec's class. Ready-made models,
# generators and measures share their names: one name is one thing, for `sdk.load` as for `sdk.measure`.
REGISTER_HOOKS: dict[str, tuple[str, type[Any]]] = {
    "aigc_register_modalities": ("modality", ModalitySpec),
    "aigc_register_families": ("family", FamilySpec),
    "aigc_register_exporters": ("format", ExporterSpec),
    "aigc_register_readers": ("reader", ReaderSpec),
    "aigc_register_evaluators": ("metric", EvaluatorSpec),
    "aigc_register_models": ("model", ModelSpec),
    "aigc_register_generators": ("model", GeneratorSpec),
    "aigc_register_measures": ("model", MeasureSpec),
}

_log = logging.getLogger("aigc_sdk")


@dataclass
class Plugin:
    """A plugin that was found, whether or not it could be loaded.

    `state` is "loaded", "failed" (then `reason` says why) or "disabled" (by AIGC_SDK_PLUGINS). A policy plugin that
    fails at a request is "failed" from then on, and asked again at the next: without its word nothing goes on.
    `notes` says which of its names others have as well.
    """

    name: str
    distribution: str
    version: str
    state: Literal["loaded", "failed", "disabled"] = "loaded"
    reason: str = ""
    specs: list[tuple[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    manager: pluggy.PluginManager | None = None

    @property
    def provides(self) -> list[str]:
        """What it registered, as "family vae"."""
        return [f"{kind} {spec.name}" for kind, spec in self.specs]

    def fail(self, error: BaseException) -> None:
        """Record what went wrong."""
        self.reason = reason(error)
        self.state = "failed"

    def check(self) -> dict[str, AigcError]:
        """Import all that it registered, which may take seconds, and return the errors, by what `provides` says."""
        errors = {}
        for kind, spec in self.specs:
            try:
                spec.check()
            except AigcError as error:
                errors[f"{kind} {spec.name}"] = error
        return errors


class Registry:
    """All plugins of an environment, each loaded once.

    Args:
        entries: the entry points to load; those of this environment without it.
        allowed: the names of the only plugins to load; all without it.
        damaged: what stands for distributions whose entry points cannot be read.
    """

    def __init__(
        self, entries: Iterable[EntryPoint], allowed: frozenset[str] | None = None, damaged: Iterable[Plugin] = ()
    ) -> None:
        plugins = [_load(entry, allowed) for entry in entries]
        self.plugins = sorted([*plugins, *damaged], key=_order)
        self._note_shared_names()
        self._modalities: dict[str, Any] = {}
        self._kinds: dict[str, Any] = {}
        # Every request asks for these, so that they are looked up once.
        self._policies = {name: self._callers(name) for name in POLICY_HOOKS}

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind that can be asked for, sorted."""
        return sorted({spec.name for _, spec in self._offers(kind)})

    def find(self, kind: str, name: str) -> Any:
        """Return the spec of a kind by its name, or by `distribution:name`.

        Raises:
            UnknownName: nobody offers it; has the nearest name.
            PluginError: two strangers offer it, or the plugin of that name failed or is disabled.
        """
        offers = [(plugin, spec) for plugin, spec in self._offers(kind) if name in _names(plugin, spec)]
        built_in = [spec for plugin, spec in offers if plugin.distribution == BUILT_IN]
        if built_in or len(offers) == 1:
            return built_in[0] if built_in else offers[0][1]
        if offers:
            full = ", ".join(f"{plugin.distribution}:{name}" for plugin, _ in offers)
            raise PluginError(f"Several plugins offer the {kind} {name!r}; pick one of: {full}.")
        for plugin in self.plugins:
            if plugin.state != "loaded" and str(name).partition(":")[0] in (plugin.name, plugin.distribution):
                raise PluginError(
                    f"The plugin {plugin.name!r} of {plugin.distribution} {plugin.state}: {plugin.reason}."
                )
        unknown = UnknownName.of(kind, name, self.names(kind))
        if failed := [plugin.name for plugin in self.plugins if plugin.state == "failed"]:
            raise UnknownName(f"{unknown} Plugins that failed: {', '.join(failed)}; `aigc plugins` says why.")
        raise unknown

    def modality(self, name: str) -> Any:
        """Return the modality of that name, which is made once.

        Raises:
            UnknownName, PluginError: as `find`; also where its class is not what its spec says.
        """
        if name not in self._modalities:
            self._modalities[name] = self._make_modality(self.find("modality", name))
        return self._modalities[name]

    def package_of(self, modality: str) -> str:
        """Return the distribution that brings a modality; an empty text for the SDK's own."""
        spec = self.find("modality", modality)
        owners = [plugin.distribution for plugin, each in self._offers("modality") if each is spec]
        return "" if owners[0] == BUILT_IN else owners[0]

    def kind(self, name: str) -> Any:
        """Return the control kind of that name, which a modality brings.

        Raises:
            UnknownName, PluginError: as `modality`; also where several plugins bring it.
        """
        if name not in self._kinds:
            self._kinds[name] = self._make_kind(name)
        return self._kinds[name]

    def _make_kind(self, name: str) -> Any:
        owners = [(plugin, spec.name) for plugin, spec in self._offers("modality") if name in spec.kinds]
        if not owners:
            raise UnknownName.of("control kind", name, self.kinds())
        built_in = [owner for owner in owners if owner[0].distribution == BUILT_IN]
        if len(owners) > 1 and not built_in:
            several = ", ".join(sorted(plugin.distribution for plugin, _ in owners))
            raise PluginError(f"Several plugins bring the control kind {name!r}: {several}. Remove all but one.")
        owner = (built_in or owners)[0][1]
        modality = self.modality(owner)
        with blamed(f"The modality {owner!r} has no control kind {name!r}, which its spec promises"):
            return {kind.name: kind for kind in modality.kinds}[name]()

    def kinds(self) -> list[str]:
        """Return the names of the control kinds that modalities bring."""
        return sorted({kind for _, spec in self._offers("modality") for kind in spec.kinds})

    def _make_modality(self, spec: ModalitySpec) -> Any:
        made = spec.resolve()
        with blamed(f"The modality {spec.name!r} cannot start"):
            modality = made()
            if modality.name != spec.name:
                raise ValueError(f"its spec says {spec.name!r}, and it is {modality.name!r}")
        return modality

    def readers(self, file_name: str) -> list[tuple[Plugin, ReaderSpec]]:
        """Return the readers of files whose names end like this one, with their plugins; built-in ones alone if any."""
        name = file_name.lower()
        offers = [(plugin, spec) for plugin, spec in self._offers("reader") if name.endswith(spec.suffixes)]
        return [offer for offer in offers if offer[0].distribution == BUILT_IN] or offers

    def hooks(self, name: str) -> list[Callable[..., list[Any]]]:
        """Return the callers of a policy hook, one for each plugin that implements it, in their order.

        A caller raises the plugin's own AigcError, or PluginError for anything else: without the plugin's word
        nothing goes on.
        """
        return self._policies[name]

    def _callers(self, name: str) -> list[Callable[..., list[Any]]]:
        managed = [(plugin, getattr(plugin.manager.hook, name)) for plugin in self.plugins if plugin.manager]
        return [partial(_ask, plugin, hook) for plugin, hook in managed if hook.get_hookimpls()]

    def _note_shared_names(self) -> None:
        claims = defaultdict(list)
        for plugin in self.plugins:
            for kind, spec in plugin.specs:
                claims[kind, spec.name].append(plugin)
        for (kind, name), claimants in claims.items():
            for plugin in claimants[len(claimants) == 1 :]:
                others = " and ".join(each.distribution for each in claimants if each is not plugin)
                if plugin.distribution != BUILT_IN:
                    how = "hidden by" if BUILT_IN in others.split() else "also offered by"
                    plugin.notes.append(f"{kind} {name}: {how} {others}; ask for {plugin.distribution}:{name}")

    def _offers(self, kind: str) -> list[tuple[Plugin, Any]]:
        return [(plugin, spec) for plugin in self.plugins for its, spec in plugin.specs if its == kind]


_default: Registry | None = None
_is_loading = False


def default_registry() -> Registry:
    """Return the registry of this environment, loaded by the first who asks.

    `AIGC_SDK_PLUGINS=a,b` allows only those plugins besides the built-in ones; empty, it allows none.

    Raises:
        PluginError: a plugin asks while it is being loaded.
    """
    return _default or _load_default()


def modality_specs() -> list[dict[str, Any]]:
    """Return what `adopt` takes: the modalities that there are, as plain values."""
    return [{"of": plugin.distribution, **asdict(spec)} for plugin, spec in default_registry()._offers("modality")]


def adopt(specs: Iterable[Mapping[str, Any]]) -> None:
    """Make a registry of these modalities alone the one of this process, so that it looks for no plugins."""
    global _default
    registry = Registry(())
    for spec in specs:
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec.items()}
        plugin = Plugin(values["name"], values.pop("of"), "")
        plugin.specs.append(("modality", ModalitySpec(**values)))
        registry.plugins.append(plugin)
    _default = registry


def _load_default() -> Registry:
    global _default, _is_loading
    with unforked:  # a lock for this, and a fork waits for it too
        if _is_loading:
            raise PluginError("A plugin asks for plugins or models while the plugins are being loaded; ask later.")
        if _default is None:
            try:
                _is_loading = True  # within: Ctrl-C may come between any two steps
                _default = Registry(*_installed())
            finally:
                _is_loading = False
        return _default


def _installed() -> tuple[list[EntryPoint], frozenset[str] | None, list[Plugin]]:
    """Return the entry points of this environment, the names that are allowed, and the damaged distributions."""
    damaged = []
    try:
        entries = list(entry_points(group=hookspecs.GROUP))
    except Exception:  # noqa: BLE001 - of one distribution, which would take all others with it
        readable: dict[str, list[EntryPoint]] = {}
        for distribution in distributions():
            name, version = _identify(distribution)
            try:
                entries = list(distribution.entry_points.select(group=hookspecs.GROUP))
                readable.setdefault(name, entries)  # the first on the path, as always
            except Exception as error:  # noqa: BLE001
                damaged.append(Plugin(name, name, version, "failed", f"entry_points.txt: {reason(error)}"))
        entries = list(chain.from_iterable(readable.values()))
    allowed = os.environ.get("AIGC_SDK_PLUGINS")
    if allowed is None:
        return entries, None, damaged
    names = frozenset(name.strip() for name in allowed.split(",")) - {""}
    if missing := names - {entry.name for entry in entries}:
        _log.warning("AIGC_SDK_PLUGINS names plugins that are not installed: %s", ", ".join(sorted(missing)))
    return entries, names, damaged


def _load(entry: EntryPoint, allowed: frozenset[str] | None) -> Plugin:
    """Load one plugin; whatever it does wrong is recorded in it."""
    plugin = Plugin(entry.name, *_identify(entry.dist))
    if allowed is not None and plugin.distribution != BUILT_IN and entry.name not in allowed:
        plugin.state, plugin.reason = "disabled", "AIGC_SDK_PLUGINS does not name it"
        return plugin
    try:
        with redirect_stdout(sys.stderr):  # what it prints is not what the program that loads it has to say
            plugin.manager, plugin.specs, plugin.notes = _open(entry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit and a Rust panic are no Exception either
        plugin.fail(error)
    return plugin


def _open(entry: EntryPoint) -> tuple[pluggy.PluginManager, list[tuple[str, Any]], list[str]]:
    """Import a plugin and return what calls its hooks, the specs that it registered, and what is worth knowing."""
    if not entry.pattern.match(entry.value):
        raise ValueError(f"its entry point is {shown(entry.value)}, not 'module' or 'module:attribute'")
    loaded = entry.load()
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(_HOOKSPECS)
    manager.register(loaded, entry.name)
    callers: dict[str, pluggy.HookCaller] = vars(manager.hook)
    unknown = _unknown_hooks(callers)
    if not any(caller.get_hookimpls() for caller in callers.values()):
        raise TypeError("it implements no hook; is @aigc_sdk.hookimpl missing?")
    for name, caller in callers.items():
        if not caller.get_hookimpls() and callable(getattr(loaded, name, None)):
            raise TypeError(f"{name} has no @aigc_sdk.hookimpl")
        for hook in caller.get_hookimpls() if name not in unknown else ():
            _check_hook(name, hook)
    return (
        manager,
        _collect(manager),
        [f"{name}: no hook of this version of aigc-sdk; it is never called" for name in unknown],
    )


def _unknown_hooks(callers: Mapping[str, pluggy.HookCaller]) -> list[str]:
    """Return the hooks of a plugin that this SDK has not, as a later one may; raises TypeError for a misspelled one."""
    unknown = [name for name, caller in callers.items() if caller.get_hookimpls() and not caller.has_spec()]
    for name in unknown:
        if near := difflib.get_close_matches(name, vars(_HOOKSPECS), n=1, cutoff=0.9):
            raise TypeError(f"unknown hook {name!r}. Did you mean {near[0]!r}?")
    return unknown


def _check_hook(name: str, hook: pluggy.HookImpl) -> None:
    """Refuse what pluggy takes but what would never do its work: a policy must not be passed over in silence."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(hook.function) for is_kind in kinds):
        raise TypeError(f"{name} is a coroutine or a generator; hooks are plain functions")
    if name in REGISTER_HOOKS and "register" not in hook.argnames:
        raise TypeError(f"{name} does not take `register`, so it can register nothing")


def _collect(manager: pluggy.PluginManager) -> list[tuple[str, Any]]:
    """Call the register hooks of one plugin and return the specs that it registered, with their kinds."""
    specs: list[tuple[str, Any]] = []
    for hook, (kind, spec_class) in REGISTER_HOOKS.items():

        def register(spec: Any, hook: str = hook, kind: str = kind, spec_class: type[Any] = spec_class) -> None:
            if not isinstance(spec, spec_class):
                raise TypeError(f"{hook} registered {spec!r}, not a {spec_class.__name__}")
            if spec.api_version not in API_VERSIONS:
                known = ", ".join(map(str, API_VERSIONS))
                raise ValueError(f"{spec.name!r} is written for api_version {spec.api_version}; this SDK takes {known}")
            if any((kind, spec.name) == (other_kind, other.name) for other_kind, other in specs):
                raise ValueError(f"the {kind} {spec.name!r} is registered twice")
            specs.append((kind, spec))

        getattr(manager.hook, hook)(register=register)
    return specs


@lru_cache
def _identify(distribution: Any) -> tuple[str, str]:
    """Return the normalised name and the version of a distribution, which is one object for all its entry points."""
    try:
        metadata = distribution.metadata  # parsed anew at every look
        return re.sub(r"[-_.]+", "-", metadata["Name"]).lower(), str(metadata["Version"] or "")
    except Exception:  # noqa: BLE001 - there is none, or a damaged one: METADATA lost, without a name, no UTF-8
        return "unknown", ""


def _order(plugin: Plugin) -> tuple[bool, str, str]:
    return plugin.distribution != BUILT_IN, plugin.name, plugin.distribution


def _names(plugin: Plugin, spec: Any) -> tuple[str, str]:
    return spec.name, f"{plugin.distribution}:{spec.name}"


def _ask(plugin: Plugin, hook: pluggy.HookCaller, **arguments: Any) -> list[Any]:
    """Call a policy hook of one plugin and return what it returned, if anything."""
    try:
        answers: list[Any] = hook(**arguments)
        if "contents" in arguments:
            for answer in answers:
                _check_same_items(arguments["contents"], answer)
    except (AigcError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit too
        plugin.fail(error)
        where = f"{plugin.name!r} of {plugin.distribution}"
        raise PluginError(f"The plugin {where} failed in {hook.name}: {plugin.reason}.") from error
    return answers


def _check_same_items(before: Contents, after: object) -> None:
    """Refuse what a policy plugin returned if it is not the same items in the same order."""
    if not isinstance(after, Contents) or [item.seed for item in after] != [item.seed for item in before]:
        raise TypeError(f"it returned {shown(after)} for {before!r}; it has to keep the items and their order")
