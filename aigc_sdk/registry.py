"""The registry: finds plugins, keeps a broken one from harming others, and answers for names.

Every plugin is loaded on its own, with a plugin manager and lists of its own, so that whatever it does
wrong is its own failure. Names are looked up among the built-in plugins first. Two strangers that
claim one name cancel out, and `distribution:name` picks.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import pluggy

from aigc_sdk import hookspecs
from aigc_sdk.errors import AigcError, PluginError, UnknownName
from aigc_sdk.specs import API_VERSION, ExporterSpec, FamilySpec, GeneratorSpec, ModelSpec, ReaderSpec

BUILT_IN = "aigc-sdk"

POLICY_HOOKS = ("aigc_before_generate", "aigc_after_generate")

# What a plugin can register: hook -> the kind that messages name, and the spec's class. Ready-made models
# and generators share their names, because both are what `sdk.load` takes.
REGISTER_HOOKS: dict[str, tuple[str, type[Any]]] = {
    "aigc_register_families": ("family", FamilySpec),
    "aigc_register_exporters": ("format", ExporterSpec),
    "aigc_register_readers": ("reader", ReaderSpec),
    "aigc_register_models": ("model", ModelSpec),
    "aigc_register_generators": ("model", GeneratorSpec),
}


@dataclass
class Plugin:
    """A plugin that was found, whether or not it could be loaded.

    `state` is "loaded", "failed" (then `reason` says why) or "disabled" (by AIGC_SDK_PLUGINS).
    """

    name: str
    distribution: str
    version: str
    state: Literal["loaded", "failed", "disabled"] = "loaded"
    reason: str = ""
    specs: list[tuple[str, Any]] = field(default_factory=list)
    manager: pluggy.PluginManager | None = None

    @property
    def provides(self) -> list[str]:
        """What it registered, as "family vae"."""
        return [f"{kind} {spec.name}" for kind, spec in self.specs]


class Registry:
    """All plugins of an environment, each loaded once.

    Args:
        entries: the entry points to load; those of this environment without it.
        allowed: the names of the only plugins to load; all without it.
    """

    def __init__(self, entries: Iterable[EntryPoint], allowed: frozenset[str] | None = None) -> None:
        plugins = [_load(entry, allowed) for entry in entries]
        self.plugins = sorted(plugins, key=_order)
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
            if plugin.state != "loaded" and name.partition(":")[0] in (plugin.name, plugin.distribution):
                raise PluginError(
                    f"The plugin {plugin.name!r} of {plugin.distribution} {plugin.state}: {plugin.reason}."
                )
        raise UnknownName.of(kind, name, self.names(kind))

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

    def _offers(self, kind: str) -> list[tuple[Plugin, Any]]:
        return [(plugin, spec) for plugin in self.plugins for its, spec in plugin.specs if its == kind]


@lru_cache(maxsize=1)
def default_registry() -> Registry:
    """Return the registry of this environment.

    `AIGC_SDK_PLUGINS=a,b` allows only those plugins besides the built-in ones; empty, it allows none.
    """
    allowed = os.environ.get("AIGC_SDK_PLUGINS")
    names = None if allowed is None else frozenset(name.strip() for name in allowed.split(","))
    return Registry(entry_points(group=hookspecs.GROUP), names)


def _load(entry: EntryPoint, allowed: frozenset[str] | None) -> Plugin:
    """Load one plugin; whatever it does wrong is recorded in it."""
    distribution, version = _distribution(entry)
    plugin = Plugin(entry.name, distribution, version)
    if allowed is not None and distribution != BUILT_IN and entry.name not in allowed:
        plugin.state, plugin.reason = "disabled", "AIGC_SDK_PLUGINS does not name it"
        return plugin
    try:
        manager = pluggy.PluginManager(hookspecs.GROUP)
        manager.add_hookspecs(hookspecs)
        manager.register(entry.load(), entry.name)
        manager.check_pending()
        if not any(hook.get_hookimpls() for hook in vars(manager.hook).values()):
            raise TypeError("it implements no hook; is @aigc_sdk.hookimpl missing?")
        specs = _collect(manager)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit and a Rust panic are no Exception either
        plugin.state, plugin.reason = "failed", " ".join(f"{type(error).__name__}: {error}".split())
    else:
        plugin.manager, plugin.specs = manager, specs
    return plugin


def _collect(manager: pluggy.PluginManager) -> list[tuple[str, Any]]:
    """Call the register hooks of one plugin and return the specs that it registered, with their kinds."""
    specs: list[tuple[str, Any]] = []
    for hook, (kind, spec_class) in REGISTER_HOOKS.items():

        def register(spec: Any, hook: str = hook, kind: str = kind, spec_class: type[Any] = spec_class) -> None:
            if not isinstance(spec, spec_class):
                raise TypeError(f"{hook} registered {spec!r}, not a {spec_class.__name__}")
            if spec.api_version != API_VERSION:
                raise ValueError(f"{spec.name!r} is written for api_version {spec.api_version}, this is {API_VERSION}")
            if any((kind, spec.name) == (other_kind, other.name) for other_kind, other in specs):
                raise ValueError(f"the {kind} {spec.name!r} is registered twice")
            specs.append((kind, spec))

        getattr(manager.hook, hook)(register=register)
    return specs


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    """Return the normalised name and the version of the distribution that an entry point is from."""
    distribution: Any = entry.dist
    try:
        return re.sub(r"[-_.]+", "-", distribution.name).lower(), str(distribution.version)
    except (AttributeError, KeyError, OSError, TypeError):  # none, or a damaged one: METADATA lost or without a name
        return "unknown", ""


def _order(plugin: Plugin) -> tuple[bool, str, str]:
    return plugin.distribution != BUILT_IN, plugin.name, plugin.distribution


def _names(plugin: Plugin, spec: Any) -> tuple[str, str]:
    return spec.name, f"{plugin.distribution}:{spec.name}"


def _ask(plugin: Plugin, hook: pluggy.HookCaller, **arguments: Any) -> list[Any]:
    """Call a policy hook of one plugin and return what it returned, if anything."""
    try:
        answers: list[Any] = hook(**arguments)
    except AigcError:
        raise
    except Exception as error:  # a plugin may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"The plugin {plugin.name!r} failed in {hook.name}: {reason}.") from error
    return answers
