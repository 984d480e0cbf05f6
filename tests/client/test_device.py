import pytest
import torch

from client.device import DeviceError, choose_device
from config import Federation, RunConfig, Train
from simulations.flower import federation_toml


@pytest.fixture
def fractions(monkeypatch):
    """A pretended GPU; collects the memory fractions that are set."""
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", taken.append)
    return taken


def test_a_gpu_fraction_caps_the_clients_memory(fractions):
    assert choose_device(Train(), Federation(gpus_per_client=0.25)) == torch.device("cuda")
    assert fractions == [0.25]


def test_a_gpu_without_fraction_is_used_whole(fractions):
    assert choose_device(Train(), Federation()) == torch.device("cuda")
    assert fractions == []


def test_cpu_is_cpu_even_beside_a_gpu(fractions):
    assert choose_device(Train(device="cpu"), Federation()) == torch.device("cpu")


@pytest.mark.parametrize(("train", "federation"), [({}, {"gpus_per_client": 0.5}), ({"device": "cuda"}, {})])
def test_no_gpu_where_one_is_asked_for(monkeypatch, train, federation):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="torch finds none here"):
        choose_device(Train(**train), Federation(**federation))


def test_auto_without_gpu_is_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(Train(threads=1), Federation()) == torch.device("cpu")
    assert torch.get_num_threads() == 1


def test_the_fraction_reaches_flower_only_if_it_is_there():
    assert "gpus" not in federation_toml(RunConfig(), 12)
    half = RunConfig(federation=Federation(gpus_per_client=0.25, cpus_per_client=2))
    assert federation_toml(half, 12).splitlines() == [
        "num-supernodes = 12",
        "client-resources-num-cpus = 2",
        "client-resources-num-gpus = 0.25",
        "init-args-log-to-driver = false",
    ]
