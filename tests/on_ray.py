"""What tests on a Ray cluster share."""

import contextlib
import os
import sys

import pytest

# Ray leaves sockets to the garbage collector, warns of settings that it will change, and forks to
# start a cluster, which the command does before JAX starts; here other tests come before.
quiet = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning:ray", "ignore:os.fork:RuntimeWarning"
)


@contextlib.contextmanager
def cluster(module):
    """A cluster of this process with two processors; its workers get the tests' module by value."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    ray.init(address="local", num_cpus=2, object_store_memory=2**27, **quiet)
    try:
        ray.cloudpickle.register_pickle_by_value(sys.modules[module])
        yield ray
    finally:
        ray.shutdown()


def files_of(folder):
    """The bytes of all files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
