"""What a device's name means here."""

import subprocess
import sys

import pytest
import torch

from trivium.encoders import devices
from trivium.encoders.devices import PLAIN, DeviceError, resolve


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them."""
    monkeypatch.setattr(devices, "_may_have_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_may_have_cuda", lambda: False)
    monkeypatch.setattr(devices, "_may_have_mps", lambda: False)


@pytest.mark.parametrize("device", ["cpu", PLAIN])
def test_a_cpu_is_there(device: str) -> None:
    assert resolve(device) == [device]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_all_gpus(gpus: None, device: str) -> None:
    assert resolve(device) == ["cuda:0", "cuda:1"]


def test_without_a_gpu(no_gpu: None) -> None:
    assert resolve("auto") == ["cpu"]
    for device in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=f"'{device}' cannot be used here: there is no driver of a GPU"):
            resolve(device)


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch for CPUs beside a GPU, or a GPU that is hidden."""
    monkeypatch.setattr(devices, "_may_have_cuda", lambda: True)
    monkeypatch.setattr(devices, "_may_have_mps", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve("auto") == ["cpu"]


def test_mps(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_may_have_mps", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert resolve("auto") == ["mps"]
    assert resolve("mps") == ["mps"]


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "meta", "cuda:٣", "cpu "])
def test_what_is_no_device(device: str) -> None:
    with pytest.raises(DeviceError, match=rf"cuda \(all GPUs\), cuda:N or mps, got '{device}'"):
        resolve(device)


@pytest.mark.parametrize("mode", ["eager", "graphs", "compile"])
def test_modes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_GPU_MODE", mode)
    assert devices.gpu_mode() == mode


def test_a_wrong_mode_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_GPU_MODE", "fast")
    with pytest.raises(DeviceError, match="TRIVIUM_GPU_MODE must be one of eager, graphs, compile, got 'fast'"):
        resolve("cpu")


@pytest.mark.parametrize("mode", ["cpu", "resize", "jpeg"])
def test_what_a_gpu_does_of_pictures(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIVIUM_GPU_PICTURES", raising=False)
    assert devices.picture_mode() == "cpu"
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", mode)
    assert devices.picture_mode() == mode


def test_jpegs_are_decoded_by_one_gpu(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", "jpeg")
    for device in ("auto", "cuda"):
        with pytest.raises(DeviceError, match=r"=jpeg works with one GPU, there are 2: .* Name a GPU, as cuda:0, or"):
            resolve(device)
    assert resolve("cuda:1") == ["cuda:1"]
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", "resize")
    assert resolve("cuda") == ["cuda:0", "cuda:1"]


def test_a_wrong_word_about_pictures_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", "all")
    with pytest.raises(DeviceError, match="TRIVIUM_GPU_PICTURES must be one of cpu, resize, jpeg, got 'all'"):
        resolve("cpu")


def test_being_told_no_takes_no_torch() -> None:
    script = (
        "import sys; from trivium.encoders import devices; devices._may_have_cuda = lambda: False; "
        "assert devices.resolve('auto') == ['cpu']; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_picture_is_decoded_outside_a_strict_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_SANDBOX", "strict")
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", "jpeg")
    with pytest.raises(
        DeviceError, match="TRIVIUM_GPU_PICTURES=jpeg decodes outside the sandbox, which is to be strict"
    ):
        devices.picture_mode()
    monkeypatch.setenv("TRIVIUM_GPU_PICTURES", "resize")
    assert devices.picture_mode() == "resize"
