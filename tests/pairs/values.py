"""Edits that reach a result through values: numbers, arrays, histograms, models, files."""

from __future__ import annotations

from typing import Any

from pairs.model import Pair, Side, edit, files_of

PAIRS: list[Pair] = []


def D(name: str, text: str, *changes: tuple[str, str], **options: Any) -> None:
    """Add a pair whose fingerprints must differ."""
    PAIRS.append(edit(name, "differ", text, *changes, **options))


D(
    "weakref",
    """
import weakref
class X: k=1
x=X()
r=weakref.ref(x)
def f(): return r().k
""",
    ("k=1", "k=2"),
)
D(
    "contextvar",
    """
import contextvars
v=contextvars.ContextVar("v",default=1)
def f(): return v.get()
""",
    ("default=1", "default=2"),
)
D(
    "contextvar set",
    """
import contextvars
v=contextvars.ContextVar("v",default=1)
v.set(3)
def f(): return v.get()
""",
    ("set(3)", "set(4)"),
)
D(
    "SimpleNamespace",
    """
from types import SimpleNamespace as N
c=N(a=N(b=1))
def f(): return c.a.b
""",
    ("b=1", "b=2"),
)
D(
    "ChainMap",
    """
from collections import ChainMap
c=ChainMap({"a":1},{"a":2})
def f(): return c["a"]
""",
    ('{"a":1},{"a":2}', '{"a":2},{"a":1}'),
)
D(
    "str subclass",
    """
class S(str):
    def __add__(s,o): return "x"
s=S("a")
def f(): return s+"b"
""",
    ('"x"', '"y"'),
)
D(
    "int enum flag",
    """
import enum
class F(enum.Flag):
    A=1
    B=2
def f(): return (F.A|F.B).value
""",
    ("B=2", "B=4"),
)
D(
    "slots only inherited",
    """
class A:
    __slots__=("x",)
class B(A):
    __slots__=()
b=B(); b.x=1
def f(): return b.x
""",
    ("b.x=1", "b.x=2"),
)
D(
    "np array slice global",
    """
import numpy as np
a=np.arange(10)[::2]
def f(): return a.tolist()
""",
    ("[::2]", "[::3]"),
)
D(
    "np poly1d",
    """
import numpy as np
p=np.poly1d([1,2])
def f(): return p(2)
""",
    ("[1,2]", "[1,3]"),
)
D(
    "scipy interp",
    """
from scipy.interpolate import interp1d
p=interp1d([0,1],[1,2])
def f(): return float(p(0.5))
""",
    ("[1,2]", "[1,3]"),
)
D(
    "np.dtype global",
    """
import numpy as np
t=np.dtype("f4")
def f(): return np.array([1/3],dtype=t)[0].item()
""",
    ('"f4"', '"f8"'),
)
D(
    "np.random Generator seed",
    """
import numpy as np
r=np.random.default_rng(1)
def f(): return r.bit_generator.state["state"]["state"]
""",
    ("rng(1)", "rng(2)"),
)
D(
    "LumiMask",
    """
import json,os
from coffea.lumi_tools import LumiMask
p=os.path.join(os.path.dirname(__file__),"l.json")
open(p,"w").write(json.dumps({"1":[[1,5]]}))
m_=LumiMask(p)
os.remove(p)
import numpy as np
def f(): return m_(np.array([1],dtype='u4'),np.array([6],dtype='u4')).tolist()
""",
    ("[1,5]", "[1,7]"),
)
D(
    "dense_lookup",
    """
import numpy as np
from coffea.lookup_tools.dense_lookup import dense_lookup
d=dense_lookup(np.array([1.,2.]),np.array([0.,1.,2.]))
def f(): return float(d(np.array([1.5]))[0])
""",
    ("[1.,2.])", "[1.,3.])"),
)
D(
    "PackedSelection",
    """
import numpy as np
from coffea.analysis_tools import PackedSelection
s=PackedSelection()
s.add("a",np.array([True,False]))
def f(): return s.all("a").tolist()
""",
    ("[True,False]", "[False,True]"),
)
D(
    "xgb params",
    """
import xgboost as xgb, numpy as np
X=np.arange(20.).reshape(10,2); y=np.arange(10)%2
b=xgb.train({"max_depth":2,"nthread":1},xgb.DMatrix(X,y),2)
def f(): return b.predict(xgb.DMatrix(X)).tolist()
""",
    (",y),2)", ",y),3)"),
)
D(
    "xgb classifier",
    """
import xgboost as xgb, numpy as np
X=np.arange(20.).reshape(10,2); y=np.arange(10)%2
b=xgb.XGBClassifier(n_estimators=2,n_jobs=1).fit(X,y)
def f(): return b.predict_proba(X).tolist()
""",
    ("estimators=2", "estimators=3"),
)
D(
    "sklearn",
    """
from sklearn.linear_model import LinearRegression
import numpy as np
m_=LinearRegression().fit(np.array([[0.],[1.]]),np.array([0.,1.]))
def f(): return float(m_.predict(np.array([[2.]]))[0])
""",
    ("[0.,1.])", "[0.,2.])"),
)
D(
    "correctionlib evaluator",
    """
import correctionlib, correctionlib.schemav2 as s
def mk(v):
    return s.CorrectionSet(schema_version=2,corrections=[s.Correction(name="c",version=1,inputs=[s.Variable(name="x",type="real")],output=s.Variable(name="w",type="real"),data=v)])
ev=mk(1.5).to_evaluator()
def f(): return ev["c"].evaluate(1.0)
""",
    ("mk(1.5)", "mk(2.5)"),
)
D(
    "correction single",
    """
import correctionlib, correctionlib.schemav2 as s
def mk(v):
    return s.CorrectionSet(schema_version=2,corrections=[s.Correction(name="c",version=1,inputs=[s.Variable(name="x",type="real")],output=s.Variable(name="w",type="real"),data=v)])
ev=mk(1.5).to_evaluator()["c"]
def f(): return ev.evaluate(1.0)
""",
    ("mk(1.5)", "mk(2.5)"),
)
D(
    "vector behavior class",
    """
import awkward as ak
@ak.mixin_class(ak.behavior, name="MyP")
class MyP:
    @property
    def two(self): return self.x*2
def f(): return ak.zip({"x":[1,2]},with_name="MyP").two.tolist()
""",
    ("self.x*2", "self.x*3"),
)
D(
    "hist axis category order",
    """
import hist
h=hist.Hist(hist.axis.StrCategory(["a","b"]))
def f(): return list(h.axes[0])
""",
    ('["a","b"]', '["b","a"]'),
)
D(
    "hist content",
    """
import hist
h=hist.Hist.new.Reg(2,0,1).Double(); h.fill([0.1])
def f(): return h.values().tolist()
""",
    ("[0.1]", "[0.6]"),
)
D(
    "datetime tz",
    """
import datetime as d
t=d.datetime(2020,1,1,tzinfo=d.timezone.utc)
def f(): return t.isoformat()
""",
    ("d.timezone.utc", "d.timezone(d.timedelta(hours=1))"),
)
D(
    "file read with Path read_text, named relative",
    """
#: m.py
import pathlib
def f(): return pathlib.Path("cfg.txt").read_text()
#: cfg.txt
abc
""",
    ("abc", "abd"),
)
D(
    "inputs argument",
    """
#: m.py
def f(): return open("x"+".txt").read()
#: x.txt
abc
""",
    ("abc", "abd"),
    inputs="[folder+'/x.txt']",
)
D(
    "path join constant parts",
    """
#: m.py
import os
HERE=os.path.dirname(__file__)
F=os.path.join(HERE,"c.json")
def f(): return open(F).read()
#: c.json
{1}
""",
    ("{1}", "{2}"),
)
D(
    "File arg",
    """
#: m.py
def f(p): return open(p).read()
#: c.json
{1}
""",
    ("{1}", "{2}"),
    args="(__import__('coffea_dirac',fromlist=['File']).File(folder+'/c.json'),)",
)
D(
    "monkeypatch installed method by user",
    """
import hist
_orig=hist.Hist.fill
def mine(self,*a,**k): return _orig(self,*[[x*2 for x in v] for v in a],**k)
hist.Hist.fill=mine
def f():
    h=hist.Hist.new.Reg(4,0,4).Double(); h.fill([1]); return h.values().tolist()
""",
    ("x*2", "x*3"),
)
D(
    "monkeypatch json.loads",
    """
import json
json.loads=lambda s: 1
def f(): return json.loads("2")
""",
    ("s: 1", "s: 3"),
)
PAIRS.append(
    Pair(
        "arg dict order",
        "differ",
        Side(files_of("def f(d): return list(d)\n")),
        Side(files_of("def f(d): return list(d)\n")),
        args="({'a':1,'b':2} if folder.endswith('before') else {'b':2,'a':1},)",
    )
)
PAIRS.append(
    Pair(
        "arg array dtype",
        "differ",
        Side(files_of("def f(d): return str(d.dtype)\n")),
        Side(files_of("def f(d): return str(d.dtype)\n")),
        args="(__import__('numpy').zeros(2,'f4' if folder.endswith('before') else 'f8'),)",
    )
)
D(
    "numba jit body",
    """
import numba
@numba.njit
def g(x): return x+1
def f(): return g(1)
""",
    ("x+1", "x+2"),
)
D(
    "numba jit helper",
    """
import numba
@numba.njit
def h(x): return x+1
@numba.njit
def g(x): return h(x)
def f(): return g(1)
""",
    ("x+1", "x+2"),
)
D(
    "numba vectorize",
    """
import numba
@numba.vectorize(["f8(f8)"])
def g(x): return x+1
def f(): return float(g(1.0))
""",
    ("x+1", "x+2"),
)
D(
    "np ufunc swap",
    """
import numpy as np
fn=np.sin
def f(): return float(fn(1.0))
""",
    ("np.sin", "np.cos"),
)
D(
    "np.float32 as value",
    """
import numpy as np
T=np.float32
def f(): return T(1/3).item()
""",
    ("T=np.float32", "T=np.float64"),
)
D(
    "state of a global object counts, even a memo that its own methods fill",
    """
class Cache:
    def __init__(self): self.d={}
    def get(self,k):
        if k not in self.d: self.d[k]=k*2
        return self.d[k]
c=Cache()
def f(): return c.get(2)
""",
    after_setup="m.f()",
    same_value=True,
)
