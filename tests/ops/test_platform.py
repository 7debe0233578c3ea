"""Forms of a computation for a platform: which are traced, and which are in a program."""

import jax
import numpy as np
import pytest

from tal_jax.ops import _platform


class Form:
    """Adds a number that marks it, and counts how often it is traced."""

    def __init__(self, number):
        self.number, self.traced = number, 0

    def __call__(self, value):
        self.traced += 1
        return value + self.number


def _nested():
    """A choice inside of each form of a choice: two forms there, and the function of both."""
    cpu, default = Form(40.0), Form(7000.0)

    def inside(value):
        return _platform.choose(value, cpu=cpu, default=default)

    def function(value):
        return _platform.choose(value, cpu=lambda v: inside(v * 2), default=lambda v: inside(v * 3))

    return cpu, default, function


def test_a_choice_inside_of_a_choice_follows_it():
    cpu, default, function = _nested()
    jax.make_jaxpr(function)(1.0)
    assert (cpu.traced, default.traced) == (1, 1)


@pytest.mark.parametrize(("platform", "numbers"), [("cpu", "2 40"), ("cuda", "3 7000")])
def test_an_exported_program_has_the_forms_of_its_platform(platform, numbers):
    _, _, function = _nested()
    program = jax.export.export(jax.jit(function), platforms=(platform,))(1.0).mlir_module()
    factor, term = (f"dense<{float(number):.6e}>" for number in numbers.split())
    assert factor in program and term in program
    assert "dense<4.000000e+01>" not in program or platform == "cpu"


@pytest.mark.parametrize(("on_cpu", "expected"), [(True, 42), (False, 7003)])
def test_one_form_is_traced_where_the_platform_is_known(on_cpu, expected):
    cpu, default, function = _nested()
    with _platform.known(on_cpu=on_cpu):
        assert float(jax.jit(function)(1.0)) == expected
    assert (cpu.traced, default.traced) == ((1, 0) if on_cpu else (0, 1))


def test_the_platform_is_unknown_again_afterwards():
    cpu, default, function = _nested()
    with pytest.raises(ZeroDivisionError), _platform.known(on_cpu=False):
        raise ZeroDivisionError
    jax.make_jaxpr(jax.vmap(function))(np.ones(2))
    assert cpu.traced == default.traced == 1
