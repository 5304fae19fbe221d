"""What the hash of a model follows: whatever changes its answers changes the hash, or a name is asked for."""

from __future__ import annotations

import contextlib
import functools
import importlib
import random
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backbones.model_identity import NotHashable, model_hash

OWN = {
    "own_model": """
        import torch
        from own_far import helper
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2).eval()
        SCALE = 1.0
        UNUSED = 0
        def f(x): return helper(net(x))
        class Stateful:
            net = torch.nn.Linear(3, 2).eval()
            factor = 1.0
            def __call__(self, x): return self.factor * self.net(x)
        """,
    "own_far": "from own_farther import FACTOR\ndef helper(x): return FACTOR * x",
    "own_farther": "FACTOR = 2",
    "code": "def f(x): return x",  # the user's file has the name of a module of Python
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a module of the user's own."""
    for name, text in OWN.items():
        (tmp_path / f"{name}.py").write_text("\n".join(line.removeprefix(" " * 8) for line in text.splitlines()))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_model")
    for name in ("own_model", "own_far", "own_farther"):
        sys.modules.pop(name, None)


def function(text: str, **names: Any) -> Any:
    """Return the function ``f`` of a notebook cell with some variables."""
    namespace = {"torch": torch, "__name__": "__main__", **names}
    exec(text, namespace)
    return namespace["f"]


def _weights(own: Any) -> None:
    with torch.no_grad():
        own.net.weight.add_(1)


USES = {
    "a network of a module": ("def f(x): return own.net(x)", _weights),
    "a constant of a module": ("def f(x): return x * own.SCALE", lambda own: setattr(own, "SCALE", 3.0)),
    "a constant three files away": (
        "def f(x): return own.f(x)",
        lambda own: setattr(sys.modules["own_far"], "FACTOR", 5),
    ),
    "an import within the function": ("def f(x):\n import own_model\n return own_model.net(x)", _weights),
    "a name imported within the function": ("def f(x):\n from own_model import net\n return net(x)", _weights),
    "a name imported in a function within": (
        "def f(x):\n def g():\n  from own_model import net as n\n  return n(x)\n return g()",
        _weights,
    ),
    "a module as a value": ("def f(x): return getattr(own, 'net')(x)", _weights),
    "an attribute of the function": ("def f(x): return f.net(x)\nf.net = own.net", _weights),
    "a tensor of a class": (
        "g = own.Stateful()\ndef f(x): return g(x)",
        lambda own: own.Stateful.net.weight.data.add_(1),
    ),
    "a number of a class": ("f = own.Stateful()", lambda own: setattr(own.Stateful, "factor", 3.0)),
    "a method put into a class": (
        "f = own.Stateful()",
        lambda own: setattr(own.Stateful, "__call__", lambda self, x: -x),
    ),
    "a method of a library's class": ("f = torch.nn.Identity()", lambda own: None),
}


@pytest.mark.parametrize("what", USES)
def test_whatever_a_model_uses_of_own_code_is_in_its_hash(own: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, change = USES[what]
    model = function(text, own=own)
    before = model_hash(model)
    assert model_hash(function(text, own=own)) == before
    change(own)
    if what == "a method of a library's class":
        monkeypatch.setattr(torch.nn.Identity, "forward", lambda self, x: -x)
    assert model_hash(model) != before


def test_a_variable_of_a_module_that_is_not_used_changes_nothing(own: Any) -> None:
    model = function("def f(x): return own.net(x)", own=own)
    before = model_hash(model)
    own.UNUSED = 9
    assert model_hash(model) == before


def test_an_own_file_with_the_name_of_a_module_of_python_is_own_code(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "code", raising=False)
    mine = importlib.import_module("code")
    before = model_hash(mine.f)
    monkeypatch.setattr(mine, "f", function("def f(x): return -x", **{"__name__": "code"}))
    assert model_hash(mine.f) != before


def cell(factor: float, base: str = "") -> Any:
    """Return an object of a class that was typed in a notebook."""
    return function(f"class N{base}:\n k = {factor}\n def __call__(self, x): return x * self.k\nf = N()")


def dispatched(factor: int) -> Any:
    """Return a generic function of two implementations."""
    made = functools.singledispatch(lambda x: x)
    made.register(int, lambda x: factor * x)
    return made


def slotted(value: int, private: bool) -> Any:
    """Return an object without a dictionary, whose field may be private to its class."""
    name = "__k" if private else "k"
    text = f"class N:\n __slots__ = ('{name}',)\n def __init__(self): self.{name} = {value}\n def __call__(self, x): return self.{name}"
    return function(f"{text}\nf = N()")


def base(x: Any) -> Any:
    """Return a product that automatic mixed precision would round."""
    return x @ torch.ones(3, 2)


PAIRS: dict[str, Callable[[int], Any]] = {
    "attributes of a class without a file": cell,
    "attributes of a module's class without a file": lambda k: function(
        f"class N(torch.nn.Module):\n k = {k}\n def forward(self, x): return self.k * x\nf = N()"
    ),
    "variables around a wrapper of a library": lambda k: torch.autocast("cpu", torch.bfloat16, enabled=bool(k - 1))(
        base
    ),
    "what is behind a cache": lambda k: functools.lru_cache(cell(k).__call__),
    "arguments of a partial": lambda k: functools.partial(base, k),
    "the object of a bound method": lambda k: cell(k).__call__,
    "fields without a dictionary": lambda k: slotted(k, private=False),
    "private fields without a dictionary": lambda k: slotted(k, private=True),
    "a subclass of a number": lambda k: function(
        f"class K(float):\n def times(self, x): return {k} * x\nk = K(1)\ndef f(x): return k.times(x)"
    ),
    "attributes of a subclass of a dictionary": lambda k: function(
        f"class K(dict): pass\nk = K(); k.scale = {k}\ndef f(x): return k.scale * x"
    ),
    "a default of a keyword": lambda k: function(f"def f(x, *, k={k}): return k * x"),
    "a property": lambda k: function(
        f"class N:\n @property\n def k(self): return {k}\n def __call__(self, x): return self.k * x\nf = N()"
    ),
    "a function within": lambda k: function(f"def f(x):\n def g(y): return {k} * y\n return g(x)"),
    "a metaclass": lambda k: function(
        f"class M(type):\n @property\n def k(cls): return {k}\nclass N(metaclass=M):\n"
        " def __call__(self, x): return type(self).k * x\nf = N()"
    ),
    "what decorates a function": lambda k: torch.no_grad()(cell(k).__call__),
}


@pytest.mark.parametrize("what", PAIRS)
def test_models_that_differ_in_one_number_have_different_hashes(what: str) -> None:
    one, same, other = (PAIRS[what](k) for k in (1, 1, 2))
    assert model_hash(one) == model_hash(same) != model_hash(other)


def _empty() -> Any:
    def f(x: Any) -> Any:
        return later(x)

    if not _empty:
        later = f
    return f


net = torch.nn.Linear(3, 2).eval()
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "globals()": (lambda: function("def f(x): return globals()['m'](x)", m=net), "globals"),
    "a file": (lambda: function("def f(x): return x * float(open('factor').read())"), "open"),
    "a file of weights": (lambda: function("def f(x): return x * torch.load('w.pt')"), "load"),
    "the clock": (lambda: function("import time\ndef f(x): return x * time.time()"), "time"),
    "chance": (lambda: function("import random\ndef f(x): return x * random.random()"), "random"),
    "a source of chance": (lambda: functools.partial(base, random.Random(0)), "Random"),
    "a variable that it sets": (
        lambda: function("n = 0\ndef f(x):\n global n\n n += 1\n return n * x"),
        "sets the variable n",
    ),
    "a generic function": (lambda: dispatched(2), "WeakKeyDictionary"),
    "a traced network": (lambda: torch.jit.trace(net, torch.ones(1, 3)), "TopLevelTracedModule"),
    "a scripted network": (lambda: torch.jit.script(net), "ScriptModule"),
    "a function around which something has no value yet": (_empty, "no value yet"),
    "an attribute that fails": (
        lambda: function("class N:\n def __getattribute__(self, n): raise OSError('no')\nf = N()"),
        "",
    ),
    "an iterator": (lambda: functools.partial(base, (k for k in (1, 2))), "generator"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_known_needs_a_name(what: str) -> None:
    make, words = REFUSED[what]
    with pytest.raises(NotHashable, match=words):
        model_hash(make())


def test_hooks_that_torch_calls_in_every_module_need_a_name() -> None:
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: 2 * output)
    with (
        contextlib.closing(types.SimpleNamespace(close=handle.remove)),
        pytest.raises(NotHashable, match="every module"),
    ):
        model_hash(net)


def test_common_models_need_no_name() -> None:
    import open_clip
    import timm
    import torchvision

    from harness.microworld.towers import clip_folder

    clip = open_clip.create_model(f"local-dir:{clip_folder('base')}").eval()
    text = torch.ones(12, 8)

    def zero_shot(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.nn.functional.normalize(clip.encode_image(images)) @ text.T

    made = (timm.create_model("test_vit", num_classes=3), torchvision.models.mobilenet_v3_small(), torch.nn.LSTM(2, 2))
    assert len({model_hash(model) for model in (*made, zero_shot, torch.inference_mode()(zero_shot))}) == 5
