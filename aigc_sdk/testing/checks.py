"""What all checks share. A check is a function that raises where a rule is broken; its docstring is the rule."""

from collections.abc import Callable, Iterable
from typing import Any

from aigc_sdk.errors import ContractBroken, reason

Check = Callable[[Any], None]


def require(is_so: bool, expected: str, found: object) -> None:
    """Raise ContractBroken with what was expected and found, unless it is so."""
    if not is_so:
        raise ContractBroken(f"expected {expected}, found {found}")


def run_checks(what: str, checks: Iterable[Check], subject: object) -> list[str]:
    """Run the checks in their order and return their names.

    Args:
        what: what messages call the subject.
        checks: functions that take the subject.
        subject: what is checked.

    Raises:
        ContractBroken: by the first check that fails; names it, its rule, and what was expected and found.
    """
    passed = []
    for check in checks:
        try:
            check(subject)
        except KeyboardInterrupt:  # a training's own is an Exception too
            raise
        except Exception as error:  # what is checked is anybody's code
            found = str(error) if isinstance(error, ContractBroken) else reason(error)
            rule = (check.__doc__ or "").partition("\n")[0]
            raise ContractBroken(f"{what} fails {check.__name__} ({rule}): {found}.") from error
        passed.append(check.__name__)
    return passed
