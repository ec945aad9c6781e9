"""The page of ``flowkit-web`` as it is built into the package."""

import fcntl
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parents[2] / "flowkit-web"
UI = PACKAGE / "ui"


def build_hook() -> ModuleType:
    """Return the module of the build hook, which is in no package."""
    spec = spec_from_file_location("flowkit_web_build_hook", PACKAGE / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built_page() -> None:
    """Build the page, if it is not of the present sources. One process builds it at a time."""
    with (UI / "package.json").open(encoding="utf-8") as shared:
        fcntl.flock(shared, fcntl.LOCK_EX)
        build_hook().build_page(PACKAGE)
