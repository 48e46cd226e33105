"""Edits that reach a result through the language: imports, classes, closures, decorators, namespaces."""

from __future__ import annotations

from typing import Any

from pairs.model import Pair, edit

PAIRS: list[Pair] = []


def D(name: str, text: str, *changes: tuple[str, str], **options: Any) -> None:
    """Add a pair whose fingerprints must differ."""
    PAIRS.append(edit(name, "differ", text, *changes, **options))


D(
    "append at import",
    """
CUTS=[1]
CUTS.append(3)
def f(): return sum(CUTS)
""",
    ("append(3)", "append(4)"),
)
D(
    "table by loop",
    """
T={}
for i in range(3): T[i]=i*2
def f(): return T[2]
""",
    ("i*2", "i*3"),
)
D(
    "late binding closures",
    """
fs=[lambda x,k=k: x*k for k in (1,2,3)]
def f(): return [g(2) for g in fs]
""",
    ("(1,2,3)", "(1,2,4)"),
)
D(
    "vars(module)",
    """
#: m.py
import helper
def f(): return vars(helper)["CUT"]
#: helper.py
CUT=3
""",
    ("CUT=3", "CUT=4"),
)
D(
    "module __dict__",
    """
#: m.py
import helper
def f(): return helper.__dict__["CUT"]
#: helper.py
CUT=3
""",
    ("CUT=3", "CUT=4"),
)
D(
    "sys.modules",
    """
#: m.py
import helper, sys
def f(): return sys.modules["helper"].CUT
#: helper.py
CUT=3
""",
    ("CUT=3", "CUT=4"),
)
D(
    "methodcaller",
    """
import operator
class X:
    def a(self): return 1
    def b(self): return 2
x=X()
def f(): return operator.methodcaller("a")(x)
""",
    ('"a"', '"b"'),
)
D(
    "methodcaller global",
    """
import operator
call=operator.methodcaller("upper")
def f(): return call("Ab")
""",
    ('"upper"', '"lower"'),
)
D(
    "decorator class without wrapped",
    """
class deco:
    def __init__(self, fn): self.fn=fn
    def __call__(self): return self.fn()+OFF
OFF=1
@deco
def f(): return 2
""",
    ("OFF=1", "OFF=2"),
)
D(
    "decorator class wrapped body",
    """
class deco:
    def __init__(self, fn): self.fn=fn
    def __call__(self): return self.fn()+1
@deco
def f(): return 2
""",
    ("return 2", "return 3"),
)
D(
    "metaclass call",
    """
class M(type):
    def __call__(cls): return 5
class X(metaclass=M): pass
def f(): return X()
""",
    ("return 5", "return 6"),
)
D(
    "set_name",
    """
class Des:
    def __set_name__(self, o, n): self.n=n+"1"
    def __get__(self, i, o): return self.n
class X: a=Des()
def f(): return X().a
""",
    ('"1"', '"2"'),
)
D(
    "class_getitem",
    """
class X:
    def __class_getitem__(cls, k): return k*2
def f(): return X[3]
""",
    ("k*2", "k*3"),
)
D(
    "missing",
    """
class T(dict):
    def __missing__(self,k): return 7
t=T()
def f(): return t["a"]
""",
    ("return 7", "return 8"),
)
D(
    "setattr class from other module",
    """
#: m.py
import patcher
from model import C
def f(): return C.cut
#: model.py
class C: cut=1
#: patcher.py
import model
setattr(model.C,"cut",5)
""",
    ("5)", "6)"),
)
D(
    "singledispatch other module",
    """
#: m.py
from base import g
import impl
def f(): return g(1)
#: base.py
import functools
@functools.singledispatch
def g(x): return 0
#: impl.py
from base import g
@g.register
def _(x:int): return 1
""",
    ("return 1", "return 2"),
)
D(
    "import pkg.sub",
    """
#: m.py
import pkg.sub
def f(): return pkg.sub.g()
#: pkg/__init__.py
#: pkg/sub.py
def g(): return 1
""",
    ("return 1", "return 2"),
)
D(
    "relative star",
    """
#: m.py
from pkg.a import f
#: pkg/__init__.py
#: pkg/a.py
from .b import *
def f(): return g()
#: pkg/b.py
def g(): return 1
""",
    ("return 1", "return 2"),
)
D(
    "class getattr",
    """
class X:
    def __getattr__(self,n): return n+"!"
x=X()
def f(): return x.abc
""",
    ('"!"', '"?"'),
)
D(
    "exception attribute",
    """
class E(Exception): code=3
def f():
    try: raise E()
    except E as e: return e.code
""",
    ("code=3", "code=4"),
)
D(
    "except class hierarchy",
    """
class A(Exception): pass
class B(A): pass
def f():
    try: raise B()
    except A: return 1
    except Exception: return 2
""",
    ("class B(A)", "class B(Exception)"),
)
D(
    "percent template",
    """
T="%d"
def f(): return T % 3
""",
    ('"%d"', '"%03d"'),
)
D(
    "FunctionType",
    """
import types
def _g(): return 1
f=types.FunctionType(_g.__code__.replace(co_consts=tuple(1 if c==1 else c for c in _g.__code__.co_consts)), globals(), "f")
""",
    ("(): return 1", "(): return 2"),
    same_value=False,
)
D(
    "bound method in tuple",
    """
class X:
    def __init__(s,k): s.k=k
    def g(s): return s.k
T=(X(1).g,)
def f(): return T[0]()
""",
    ("X(1)", "X(2)"),
)
D(
    "operator overload",
    """
class V:
    def __init__(s,x): s.x=x
    def __add__(s,o): return s.x+o.x
a,b=V(1),V(2)
def f(): return a+b
""",
    ("s.x+o.x", "s.x-o.x"),
)
D(
    "super in helper",
    """
class A:
    def g(self): return 1
class B(A):
    def g(self): return super().g()+1
def f(): return B().g()
""",
    ("def g(self): return 1", "def g(self): return 5"),
)
D(
    "mixin via type()",
    """
A=type("A",(),{"g":lambda self: 1})
def f(): return A().g()
""",
    ("self: 1", "self: 2"),
)
D(
    "nested default from global",
    """
K=2
def f():
    def g(x=K): return x
    return g()
""",
    ("K=2", "K=3"),
)
D(
    "alias",
    """
def g(): return 1
h=g
def f(): return h()
""",
    ("return 1", "return 2"),
)
D(
    "total_ordering",
    """
import functools
@functools.total_ordering
class X:
    def __init__(s,v): s.v=v
    def __eq__(s,o): return s.v==o.v
    def __lt__(s,o): return s.v<o.v
def f(): return X(1)>X(2)
""",
    ("s.v<o.v", "s.v>o.v"),
)
D(
    "dataclass order",
    """
import dataclasses
@dataclasses.dataclass(order=True)
class X:
    a:int
    b:int=dataclasses.field(compare=True)
def f(): return X(1,2)<X(1,3)
""",
    ("compare=True", "compare=False"),
)
D(
    "post_init",
    """
import dataclasses
@dataclasses.dataclass
class X:
    a:int
    def __post_init__(self): self.a*=2
def f(): return X(1).a
""",
    ("*=2", "*=3"),
)
D(
    "ClassVar annotation",
    """
import dataclasses
from typing import ClassVar
@dataclasses.dataclass
class X:
    a:int=1
    b:int=2
def f(): return len(dataclasses.fields(X))
""",
    ("b:int", "b:ClassVar[int]"),
)
D(
    "typing get_type_hints",
    """
import typing
def g(x:int): return x
def f(): return str(typing.get_type_hints(g))
""",
    ("x:int", "x:float"),
)
D(
    "inspect signature",
    """
import inspect
def g(x,y=1): return x
def f(): return str(inspect.signature(g))
""",
    ("y=1", "y=2"),
)
D(
    "annotated param dispatch",
    """
def g(x:int)->int: return x
def f(): return list(g.__annotations__)
""",
    ("x:int", "y:int"),
    ("return x\n", "return y\n"),
)
D(
    "itertools chain of functions",
    """
import functools, itertools
def a(x): return x+1
def b(x): return x*2
pipe=functools.reduce(lambda p,q: (lambda x: q(p(x))), [a,b])
def f(): return pipe(3)
""",
    ("x*2", "x*3"),
)
D(
    "string join constant in tuple",
    """
def f():
    a,*b=(1,2,3)
    return b
""",
    ("a,*b", "*b,a"),
)
D(
    "global namespace via import *, overriding",
    """
#: m.py
from a import *
from b import *
def f(): return g()
#: a.py
def g(): return 1
#: b.py
__all__=[]
def g(): return 2
""",
    ("__all__=[]", "__all__=['g']"),
)
D(
    "module __all__ conditional value",
    """
#: m.py
from cfg import settings
def f(): return settings.cut
#: cfg.py
class S: pass
settings=S()
settings.cut=3
""",
    ("cut=3", "cut=4"),
)
D(
    "private name mangling",
    """
class A:
    __k=1
    def g(self): return self.__k
def f(): return A().g()
""",
    ("__k=1", "__k=2"),
)
D(
    "async helper",
    """
import asyncio
async def g(): return 1
def f(): return asyncio.run(g())
""",
    ("return 1", "return 2"),
)
D(
    "generator send",
    """
def g():
    x=yield 1
    yield x*2
def f():
    i=g(); next(i); return i.send(3)
""",
    ("x*2", "x*3"),
)
D(
    "try finally",
    """
def f():
    try: return 1
    finally: pass
""",
    ("finally: pass", "finally: return 2"),
)
D(
    "while else",
    """
def f():
    while False: pass
    else: return 1
""",
    ("else: return 1", "else: return 2"),
)
D(
    "del",
    """
K=[1,2,3]
def f():
    k=list(K); del k[0]; return k
""",
    ("k[0]", "k[1]"),
)
D(
    "starred call",
    """
def g(a,b): return a-b
T=(1,2)
def f(): return g(*T)
""",
    ("(1,2)", "(2,1)"),
)
D(
    "lambda global recursion",
    """
fact=lambda n: 1 if n<2 else n*fact(n-1)
def f(): return fact(4)
""",
    ("n<2 else n", "n<3 else n"),
)
D(
    "fn in dict of class",
    """
def a(): return 1
def b(): return 2
class R:
    table={"x":a}
def f(): return R.table["x"]()
""",
    ('"x":a', '"x":b'),
)
D(
    "kwonly default in lambda",
    """
g=lambda *,k=1: k
def f(): return g()
""",
    ("k=1", "k=2"),
)
D(
    "conditional import",
    """
#: m.py
try:
    from fast import g
except ImportError:
    from slow import g
def f(): return g()
#: fast.py
def g(): return 1
#: slow.py
def g(): return 2
""",
    ("def g(): return 1", "def g(): return 3"),
)
D(
    "instance dict method override",
    """
class X:
    def g(self): return 1
x=X()
x.g=lambda: 5
def f(): return x.g()
""",
    ("5", "6"),
)
D(
    "dynamic string method",
    """
class X:
    def run_a(self): return 1
    def run_b(self): return 2
MODE="a"
def f(): return getattr(X(),"run_"+MODE)()
""",
    ('MODE="a"', 'MODE="b"'),
)
D(
    "format getattr on module",
    """
#: m.py
import helper
def f(name="g1"): return getattr(helper,name)()
#: helper.py
def g1(): return 1
""",
    ("return 1", "return 2"),
)
D(
    "callback registered in list by decorator in other module",
    """
#: m.py
from reg import HOOKS
import plug
def f(): return [h() for h in HOOKS]
#: reg.py
HOOKS=[]
def register(fn):
    HOOKS.append(fn); return fn
#: plug.py
from reg import register
@register
def a(): return 1
""",
    ("return 1", "return 2"),
)
D(
    "property chain of config",
    """
class Sub:
    @property
    def cut(self): return BASE+1
BASE=1
class Cfg:
    sub=Sub()
cfg=Cfg()
def f(): return cfg.sub.cut
""",
    ("BASE=1", "BASE=2"),
)
D(
    "init state computed by helper",
    """
def default(): return 3
class P:
    def __init__(self): self.k=default()
    def run(self): return self.k
p=P()
def f(): return p.run()
""",
    ("return 3", "return 4"),
)
D(
    "class attribute via mixin order kw",
    """
class A: k=1
class B: k=2
class C(A,B): pass
def f(): return C.k
""",
    ("C(A,B)", "C(B,A)"),
)
D(
    "method via instance of closure class",
    """
def make(k):
    class X:
        def g(self): return k
    return X
X=make(1)
def f(): return X().g()
""",
    ("make(1)", "make(2)"),
)
D(
    "nested closure of closure",
    """
def a(k):
    def b():
        def c(): return k
        return c
    return b
g=a(1)
def f(): return g()()
""",
    ("a(1)", "a(2)"),
)
D(
    "partial of partial kw",
    """
import functools
def g(a,b=0,c=0): return (a,b,c)
h=functools.partial(functools.partial(g,1,b=2),c=3)
def f(): return h()
""",
    ("b=2", "b=5"),
)
D(
    "operator module function swap",
    """
import operator
op=operator.add
def f(): return op(2,3)
""",
    ("operator.add", "operator.mul"),
)
D(
    "math fn swap",
    """
import math
fn=math.sin
def f(): return fn(1.0)
""",
    ("math.sin", "math.cos"),
)
D(
    "builtin swap",
    """
agg=max
def f(): return agg([1,2])
""",
    ("agg=max", "agg=min"),
)
D(
    "type as value",
    """
T=int
def f(): return T(2.5)
""",
    ("T=int", "T=float"),
)
D(
    "decorator body",
    """
import functools
def twice(fn):
    @functools.wraps(fn)
    def inner(*a): return 2*fn(*a)
    return inner
@twice
def f(): return 3
""",
    ("2*fn", "3*fn"),
)
D(
    "decorator argument",
    """
def times(k):
    def deco(fn):
        def inner(): return k*fn()
        return inner
    return deco
@times(2)
def f(): return 3
""",
    ("times(2)", "times(4)"),
)
D(
    "decorator order",
    """
def add(fn):
    def inner(): return fn()+1
    return inner
def double(fn):
    def inner(): return fn()*2
    return inner
@add
@double
def f(): return 3
""",
    ("@add\n@double", "@double\n@add"),
)
D(
    "decorator that calls a helper",
    """
def log(x): return x-1
def deco(fn):
    def inner(): return log(fn())
    return inner
@deco
def f(): return 3
""",
    ("x-1", "x-2"),
)
D(
    "default from a global",
    """
K=2
def f(x=K): return x
""",
    ("K=2", "K=5"),
)
D(
    "keyword default from a call",
    """
def start(): return 1
def f(*,x=start()): return x
""",
    ("return 1", "return 2"),
)
D(
    "default instance",
    """
class Cut:
    def __init__(self,v): self.v=v
def f(c=Cut(30)): return c.v
""",
    ("Cut(30)", "Cut(25)"),
)
D(
    "module attribute two modules away",
    """
#: m.py
import steps
def f(): return steps.select.cut()
#: steps/__init__.py
from . import select
#: steps/select.py
from . import config
def cut(): return config.PT
#: steps/config.py
PT=30
""",
    ("PT=30", "PT=25"),
)
D(
    "module attribute set from outside",
    """
#: m.py
import config
import setup_run
def f(): return config.PT
#: config.py
PT=30
#: setup_run.py
import config
config.PT=20
""",
    ("PT=20", "PT=21"),
)
D(
    "function of a module taken by attribute",
    """
#: m.py
import helper as h
def f(): return h.cut(2)
#: helper.py
def cut(x): return x*SCALE
SCALE=1.5
""",
    ("SCALE=1.5", "SCALE=2.5"),
)
