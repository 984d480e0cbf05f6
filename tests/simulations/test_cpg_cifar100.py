"""simulations/cpg_cifar100.toml says what CPG's experiment says."""

from client.continual.grow import next_widths
from client.continual.methods import optimisation
from client.continual.train import Optimisation
from config import PROJECT_ROOT, parse, read_toml
from data_partition.cifar100 import SUPERCLASSES
from data_partition.streams import task_subgroups
from data_partition.subgroups import subgroups
from models.convnet import scaled

CONFIG = parse(read_toml(PROJECT_ROOT / "simulations" / "cpg_cifar100.toml"))


def test_tasks_are_the_superclasses_in_their_order():
    (client,) = subgroups(CONFIG.data)
    assert [task.classes for task in task_subgroups(CONFIG.data, client)] == list(SUPERCLASSES.values())


def test_optimisation():
    scores = ((0.5, 0.2), (0.7, 0.0))
    paper = Optimisation(32, 1e-2, 5e-4, 4e-5, 0.0, "sgd", 0.9, "steps", (0.5, 0.8), 0.1, scores)
    assert optimisation(CONFIG) == paper


def test_one_growth_gives_the_widths_of_one_and_a_half_times_the_parameters():
    first = {str(size): size for size in (64, 128, 256, 512, 4096)}
    grown = next_widths(first, first, CONFIG.continual.growth_step, CONFIG.continual.growth_cap)
    assert grown == {name: scaled(size, 1.5) for name, size in first.items()}
    assert next_widths(first, grown, CONFIG.continual.growth_step, CONFIG.continual.growth_cap) == grown
