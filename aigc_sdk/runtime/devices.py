"""Devices: which onnxruntime execution provider a device name stands for, and whether it is there."""

import re

from aigc_sdk.errors import DeviceUnavailable, InvalidRequest, UnknownName

CPU = "CPUExecutionProvider"

PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}

# These number their devices, as in "cuda:1".
_NUMBERED = {"cuda", "tensorrt", "rocm", "directml"}

ProviderList = list[tuple[str, dict[str, str]]]


def choose_providers(device: str, available: list[str]) -> ProviderList:
    """Return the execution providers for a device, in order of preference, with their options.

    Args:
        device: "auto" (the CPU), "cpu", or an accelerator such as "cuda" or "cuda:1".
        available: what onnxruntime was built with.

    Raises:
        UnknownName: no such device.
        DeviceUnavailable: this onnxruntime was built without it; never falls back to the CPU in silence.

    Example:
        >>> choose_providers("auto", ["CPUExecutionProvider"])
        [('CPUExecutionProvider', {})]
    """
    if not isinstance(device, str):
        raise InvalidRequest(f"device is {device!r}; give a name such as 'auto', 'cpu' or 'cuda:0'.")
    if device in ("auto", "cpu"):
        return [(CPU, {})]
    kind, colon, number = device.partition(":")
    if kind not in PROVIDERS or (colon and not (kind in _NUMBERED and re.fullmatch("[0-9]{1,3}", number))):
        raise UnknownName.of("device", device, ["auto", *PROVIDERS])
    provider = PROVIDERS[kind]
    if provider not in available:
        raise DeviceUnavailable(
            f"device={device!r} needs {provider}, and this onnxruntime has only {', '.join(available)}."
            " Install an onnxruntime built for it, or use device='cpu'."
        )
    # TensorFloat-32, which onnxruntime takes by default, keeps 10 bits of a number: too few for the same content.
    exact = {"use_tf32": "0"} if kind == "cuda" else {}
    return [(provider, ({"device_id": number} if number else {}) | exact), (CPU, {})]


def check_provider(device: str, wanted: str, loaded: list[str]) -> None:
    """Raise DeviceUnavailable when the session did not load the provider that was asked for.

    onnxruntime falls back to the CPU when a provider that it was built with cannot start.
    """
    if wanted not in loaded:
        raise DeviceUnavailable(
            f"device={device!r}: {wanted} is built in but did not start (driver or libraries missing?);"
            f" the session has only {', '.join(loaded)}. Use device='cpu' to run on the CPU."
        )
