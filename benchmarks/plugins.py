"""What 40 plugins cost, 10 of them broken in different ways: who still works, who is named, and the time.

    python benchmarks/plugins.py

The plugins are real distributions with entry points in a folder on PYTHONPATH; every run is a new process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import Report, interleave, medians

PLUGINS = 40
RUNS = 15
BOUND_MS = 150.0

# A good plugin offers one of each kind; its family is never asked for here.
GOOD = """\
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_families(register):
    register(sdk.FamilySpec(name="family-{number}", target="{module}:Family", modalities=("image",)))

@sdk.hookimpl
def aigc_register_generators(register):
    register(sdk.GeneratorSpec(name="generator-{number}", target="json:loads", summary="a dummy"))

@sdk.hookimpl
def aigc_before_generate(request):
    pass
"""

# What is wrong with a plugin -> its code, and what the reason has to say.
BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "misses a package": ("import no_such_package_anywhere", "No module named 'no_such_package_anywhere'"),
    "exits": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "exits in a hook": (GOOD.replace("    register(sdk.Fam", "    exit(3); register(sdk.Fam"), "SystemExit: 3"),
    "misspells a hook": (GOOD.replace("_families", "_famlies"), "unknown hook 'aigc_register_famlies'"),
    "takes what no hook is given": (GOOD.replace("(request)", "(request, colour)"), "'colour'"),
    "is of another version": (GOOD.replace('a dummy"', 'a dummy", api_version=9'), "api_version 9; this SDK takes 1"),
    "marks no hook": (GOOD.replace("@sdk.hookimpl\n", ""), "implements no hook"),
    "has a syntax error": ("def aigc_register_models(:", "SyntaxError"),
    "points nowhere": ("", "No module named"),
}

LIST = """\
import time
import aigc_sdk as sdk
sdk.generate  # with all that a program imports anyway
start, start_cpu = time.perf_counter(), time.process_time()
plugins = sdk.plugins()
print(time.perf_counter() - start, time.process_time() - start_cpu)
"""

DESCRIBE = """\
import json
import aigc_sdk as sdk
from aigc_sdk.registry import default_registry
fields = ("name", "distribution", "state", "reason", "provides")
registry = default_registry()
print(json.dumps({
    "plugins": [{name: getattr(plugin, name) for name in fields} for plugin in sdk.plugins()],
    "families": registry.names("family"),
    "policies": len(registry.hooks("aigc_before_generate")),
    "made": len(sdk.generate("digits-vae", 2, seed=7)),
}))
"""


def install(folder: Path, number: int, code: str, *, is_there: bool = True) -> str:
    """Write a distribution with one plugin into the folder and return the distribution's name."""
    module, distribution = f"bench_plugin_{number}", f"bench-plugin-{number}"
    if is_there:
        (folder / f"{module}.py").write_text(code.replace("{number}", str(number)).replace("{module}", module))
    info = folder / f"bench_plugin_{number}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[aigc_sdk]\n{distribution} = {module}\n")
    return distribution


def install_all(folder: Path, plugins: int = PLUGINS) -> dict[str, str]:
    """Install as many plugins, ten of them broken; return what the reason of each broken one has to say."""
    wanted = {}
    for number in range(plugins):
        kind = list(BROKEN)[number] if number < len(BROKEN) else None
        code, reason = BROKEN[kind] if kind else (GOOD, "")
        distribution = install(folder, number, code, is_there=kind != "points nowhere")
        if kind:
            wanted[distribution] = reason
    return wanted


def run(code: str, folder: Path | None) -> str:
    """Run the code in a new process with the folder on its path and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "AIGC_SDK_PLUGINS"}
    if folder is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def count_mistakes(folder: Path, wanted: dict[str, str], plugins: int = PLUGINS) -> dict[str, int]:
    """Return how many good plugins do not work, and how many broken ones are not named with their reason."""
    told = json.loads(run(DESCRIBE, folder))
    found = {plugin["distribution"]: plugin for plugin in told["plugins"]}
    good = [f"bench-plugin-{number}" for number in range(plugins) if f"bench-plugin-{number}" not in wanted]
    families = {f"family-{name.rpartition('-')[2]}" for name in good}
    named = {name for name, reason in wanted.items() if _failed_with(found.get(name), reason)}
    return {
        "good plugins that are not loaded": sum(found.get(name, {}).get("state") != "loaded" for name in good),
        "families of good plugins that cannot be found": len(families - set(told["families"])),
        "policies of good plugins that are not asked": len(good) - told["policies"],
        "broken plugins that are not named with their reason": len(wanted.keys() - named),
        "built-in plugins that do not work": sum(
            plugin["distribution"] == "aigc-sdk" and plugin["state"] != "loaded" for plugin in told["plugins"]
        ),
        "pictures that are not made": 2 - told["made"],
    }


def _failed_with(plugin: dict[str, str] | None, reason: str) -> bool:
    return plugin is not None and plugin["state"] == "failed" and reason in plugin["reason"]


def listing(folder: Path | None) -> Callable[[], tuple[float, ...]]:
    """Return a function that takes the milliseconds of `sdk.plugins()` in a new process: in all, and of its own."""
    return lambda: tuple(1000 * float(seconds) for seconds in run(LIST, folder).split())


def main() -> int:
    """Measure, print the figures, and return the exit code."""
    report = Report("aigc-sdk", "pluggy")
    with TemporaryDirectory() as name:
        folder = Path(name)
        wanted = install_all(folder)
        for what, count in count_mistakes(folder, wanted).items():
            report.at_most(what, count, 0)
        results = interleave({"without": listing(None), "with": listing(folder)}, RUNS, warmups=2)
    times = medians({name: [wall for wall, _ in runs] for name, runs in results.items()})
    own = medians({name: [cpu for _, cpu in runs] for name, runs in results.items()})
    report.figure("sdk.plugins(), the built-in ones alone", times["without"], "ms")
    report.figure(f"sdk.plugins(), {PLUGINS} more", times["with"], "ms")
    report.at_most(f"added by {PLUGINS} plugins", times["with"] - times["without"], BOUND_MS, "ms")
    report.figure("of it, time of the processor", own["with"] - own["without"], "ms")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
