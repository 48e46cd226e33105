"""Edits that cannot change a result."""

from __future__ import annotations

from typing import Any

from pairs.model import Pair, edit

PAIRS: list[Pair] = []


def A(name: str, text: str, *changes: tuple[str, str], **options: Any) -> None:
    """Add a pair whose fingerprints must agree."""
    PAIRS.append(edit(name, "agree", text, *changes, **options))


A(
    "arg strides",
    """
def f(d): return d.tolist()
""",
    args="(__import__('numpy').asfortranarray(__import__('numpy').arange(6).reshape(2,3)) if folder.endswith('before') else __import__('numpy').arange(6).reshape(2,3),)",
)
A(
    "unrelated class in helper",
    """
#: m.py
from helper import g
def f(): return g()
#: helper.py
class Unused: a=1
def g(): return 1
""",
    ("a=1", "a=2"),
)
A(
    "unrelated import",
    """
def f(): return 1
""",
    ("def f", "import json\ndef f"),
)
A(
    "unused helper module edited",
    """
#: m.py
import helper
def f(): return helper.g()
#: helper.py
import other
def g(): return 1
def unused(): return other.X
#: other.py
X=1
""",
    ("X=1", "X=2"),
)
A(
    "rename of local comment",
    """
def f():
    # a
    return 1
""",
    ("# a", "# b"),
)
A(
    "type annotation on local",
    """
def f():
    x=1
    return x
""",
    ("x=1", "x: int = 1"),
)
A(
    "return annotation",
    """
def f(): return 1
""",
    ("f():", "f() -> int:"),
)
A(
    "future annotations import",
    """
def f(x=1): return x
""",
    ("def f", "from __future__ import annotations\ndef f"),
)
A(
    "parenthesised",
    """
def f(): return 1+2*3
""",
    ("1+2*3", "(1 + (2*3))"),
)
A(
    "if formatting",
    """
def f(x=1):
    if x: return 1
    else: return 2
""",
    ("if x: return 1\n    else: return 2", "if x:\n        return 1\n    else:\n        return 2"),
)
A(
    "lru filled",
    """
import functools
@functools.lru_cache
def g(x): return x
def f(): return g(1)
""",
    after_setup="m.g(5)",
)
A(
    "memo dict filled",
    """
_memo={}
def g(x):
    if x not in _memo: _memo[x]=x*2
    return _memo[x]
def f(): return g(1)
""",
    after_setup="m.f(); m.g(3)",
)
A(
    "hot loop specialised",
    """
def g(x): return x+1
def f(): return sum(g(i) for i in range(10))
""",
    after_setup="[m.f() for _ in range(3000)]",
)
A(
    "log level",
    """
import logging
log=logging.getLogger("x")
def f():
    log.debug("a"); return 1
""",
    after_setup="import logging; logging.getLogger('x').setLevel(10); logging.basicConfig(level=10)",
)
A(
    "global none lazily set",
    """
_model=None
def load():
    global _model
    if _model is None: _model=[1,2,3]
    return _model
def f(): return load()
""",
    after_setup="m.f()",
)
A(
    "set order",
    """
S={"a","b","c","d","e"}
def f(): return sorted(S)
""",
)
A(
    "frozenset of tuples",
    """
S=frozenset({("a",1),("b",2),("c",3)})
def f(): return sorted(S)
""",
)
A(
    "class methods reordered",
    """
class X:
    def a(self): return 1
    def b(self): return 2
def f(): return X().a()
""",
    ("    def a(self): return 1\n    def b(self): return 2", "    def b(self): return 2\n    def a(self): return 1"),
)
A(
    "sentinel object",
    """
_M=object()
def f(x=_M): return x is _M
""",
)
A(
    "lock in module unused",
    """
import threading
L=threading.Lock()
def f(): return 1
""",
)
A(
    "lock used",
    """
import threading
L=threading.Lock()
def f():
    with L: return 1
""",
)
A(
    "decorated with contextmanager",
    """
import contextlib
@contextlib.contextmanager
def c(): yield 1
def f():
    with c() as x: return x
""",
)
A(
    "warnings/env",
    """
import os
def f(): return 1
""",
    after_setup="import os; os.environ['FOO']='bar'",
)
A(
    "hist same",
    """
import hist
h=hist.Hist.new.Reg(3,0,1,name='x').Weight()
def f(): return h.ndim
""",
)
A(
    "regex used before",
    """
import re
R=re.compile("a+")
def f(): return bool(R.match("aa"))
""",
    after_setup="m.f()",
)
A(
    "abc cache",
    """
import abc
class B(abc.ABC):
    @abc.abstractmethod
    def g(self): ...
class X(B):
    def g(self): return 1
def f(): return X().g()
""",
    after_setup="isinstance(3,m.B); issubclass(int,m.B)",
)
A(
    "enum lookups",
    """
import enum
class E(enum.Enum):
    A=1
def f(): return E.A.value
""",
    after_setup="m.E(1); m.E['A']",
)
A(
    "dataclass instance default_factory",
    """
import dataclasses
@dataclasses.dataclass
class X:
    a: list = dataclasses.field(default_factory=list)
x=X()
def f(): return x.a
""",
)
A(
    "cached_property on instance",
    """
import functools
class X:
    @functools.cached_property
    def v(self): return 3
x=X()
def f(): return x.v
""",
    after_setup="m.x.v",
)
A(
    "vectorize",
    """
import numpy as np
g=np.vectorize(lambda x: x+1)
def f(): return g([1]).tolist()
""",
    after_setup="m.f()",
)
A(
    "ak array sliced",
    """
import awkward as ak
a=ak.Array([[1,2],[3]])
def f(): return a.tolist()
""",
    ("ak.Array([[1,2],[3]])", "ak.Array([[9],[1,2],[3]])[1:]"),
)
A(
    "numba jit",
    """
import numba
@numba.njit
def g(x): return x+1
def f(): return g(1)
""",
    after_setup="m.f()",
)
