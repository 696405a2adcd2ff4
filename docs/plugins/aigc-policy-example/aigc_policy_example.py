"""Two policies: labels that nobody may ask for, and a log of every item that was made."""

import hashlib
import json
import os
from datetime import UTC, datetime

import aigc_sdk as sdk


@sdk.hookimpl
def aigc_before_generate(request):
    """Refuse the labels in AIGC_POLICY_BLOCKED, for example "4,7"."""
    blocked = set(filter(None, os.environ.get("AIGC_POLICY_BLOCKED", "").split(",")))
    control = request.card.control("label")
    if not blocked or control is None:
        return
    indices = set(request.controls["label"].tolist())
    if -1 in indices:
        raise sdk.errors.Refused("The label is left to the seed, which may draw a blocked one; name a label.")
    if asked := blocked & {control.choices[index] for index in indices}:
        raise sdk.errors.Refused(f"The label {min(asked)} is blocked.")


@sdk.hookimpl
def aigc_after_generate(contents):
    """Append a line of JSON for each item to the file AIGC_POLICY_LOG, before the caller gets it."""
    path = os.environ.get("AIGC_POLICY_LOG")
    if path is None:
        return
    now = datetime.now(UTC).isoformat()
    items = [{"time": now, "sha256": hashlib.sha256(item.data).hexdigest(), **item.provenance} for item in contents]
    with open(path, "a", encoding="utf-8") as log:
        log.write("".join(json.dumps(item) + "\n" for item in items))
