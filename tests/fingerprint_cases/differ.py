"""Edits that can change a result."""


def edit(text: str, old: str, new: str) -> tuple[str, str]:
    """Return a text and the same with an edit."""
    assert old in text
    return text, text.replace(old, new)


def helper(work: str, before: str, after: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return two sides that differ in ``helpers.py``."""
    return {"work.py": work, "helpers.py": before}, {"helpers.py": after}


DIFFER = {
    "body": edit("def run(x):\n    return x + 1\n", "1", "2"),
    "int to float": edit("def run(x):\n    return x + 1\n", "1", "1.0"),
    "global": edit("CUT = 30\ndef run(x):\n    return x > CUT\n", "30", "25"),
    "global type": edit("CUT = 1\ndef run(x):\n    return CUT\n", "1", "True"),
    "helper": edit("def h(x):\n    return x * 2\ndef run(x):\n    return h(x)\n", "2", "3"),
    "helper in module": helper(
        "import helpers\ndef run(x):\n    return helpers.h(x)\n", "def h(x): return x\n", "def h(x): return -x\n"
    ),
    "module value": helper("import helpers as h\ndef run(x):\n    return h.PT\n", "PT = 1\n", "PT = 2\n"),
    "from import": helper(
        "from helpers import h as g\ndef run(x):\n    return g(x)\n", "def h(x): return x\n", "def h(x): return -x\n"
    ),
    "star import": helper("from helpers import *\ndef run(x):\n    return PT\n", "PT = [1]\n", "PT = [2]\n"),
    "import in body": helper("def run(x):\n    import helpers\n    return helpers.PT\n", "PT = 1\n", "PT = 2\n"),
    "from import in body": helper(
        "def run(x):\n    from helpers import f\n    return f()\n", "def f(): return 1\n", "def f(): return 2\n"
    ),
    "import_module literal": helper(
        "import importlib\ndef run(x):\n    return importlib.import_module('helpers').PT\n", "PT = 1\n", "PT = 2\n"
    ),
    "dunder import literal": helper("def run(x):\n    return __import__('helpers').PT\n", "PT = 1\n", "PT = 2\n"),
    "module used whole": helper("import helpers\ndef run(x):\n    return vars(helpers)[x]\n", "PT = 1\n", "PT = 2\n"),
    "module by getattr": helper(
        "import helpers\ndef run(x):\n    return getattr(helpers, 'PT')\n", "PT = 1\n", "PT = 2\n"
    ),
    "module getattr hook": helper(
        "import helpers\ndef run(x):\n    return helpers.PT\n",
        "def __getattr__(name):\n    return 1\n",
        "def __getattr__(name):\n    return 2\n",
    ),
    "relative import": (
        {
            "work.py": "from pkg.a import run\n",
            "pkg/__init__.py": "",
            "pkg/a.py": "from . import b\ndef run(x): return b.N\n",
            "pkg/b.py": "N = 1\n",
        },
        {"pkg/b.py": "N = 2\n"},
    ),
    "relative import in body": (
        {
            "work.py": "from pkg.a import run\n",
            "pkg/__init__.py": "",
            "pkg/a.py": "def run(x):\n    from .b import f\n    return f()\n",
            "pkg/b.py": "def f(): return 1\n",
        },
        {"pkg/b.py": "def f(): return 2\n"},
    ),
    "submodule chain": (
        {"work.py": "import pkg.b\ndef run(x): return pkg.b.N\n", "pkg/__init__.py": "", "pkg/b.py": "N = 1\n"},
        {"pkg/b.py": "N = 2\n"},
    ),
    "namespace package": (
        {"work.py": "import space.b\ndef run(x): return space.b.f()\n", "space/b.py": "def f(): return 1\n"},
        {"space/b.py": "def f(): return 2\n"},
    ),
    "default": edit("def run(x, y=[1, {'a': 2}]):\n    return y\n", "2", "3"),
    "default object": edit("D = {'pt': 30}\ndef run(x, y=D):\n    return y\n", "30", "25"),
    "keyword default": edit("def run(x, *, y=(1, 2)):\n    return y\n", "2", "3"),
    "closure": edit("def make(c):\n    def f(x): return x > c\n    return f\nrun = make(30)\n", "30", "25"),
    "closure list": edit("def make():\n    c = [30]\n    return lambda x: c[0]\nrun = make()\n", "30", "25"),
    "closure module": helper(
        "def make():\n    import helpers\n    return lambda x: helpers.PT\nrun = make()\n", "PT = 1\n", "PT = 2\n"
    ),
    "nested constant": edit(
        "def run(x):\n    def g(y):\n        return [z + 1 for z in y]\n    return g(x)\n", "1", "2"
    ),
    "lambda in list default": edit(
        "def run(x, fs=[lambda v: v + 1, lambda v: v + 2]):\n    return fs[1](x)\n", "v + 2", "v + 3"
    ),
    "two lambdas of one line": edit("a, b = lambda x: x + 1, lambda x: x + 2\nrun = b\n", "x + 2", "x + 4"),
    "which lambda of one line": edit("a, b = lambda x: x + 1, lambda x: x + 2\nrun = b\n", "run = b", "run = a"),
    "decorator body": edit(
        "def d(f):\n    def w(*a): return 2 * f(*a)\n    return w\n@d\ndef run(x): return x\n", "2", "3"
    ),
    "decorator argument": edit(
        "def d(n):\n    def e(f): return lambda *a: n * f(*a)\n    return e\n@d(2)\ndef run(x): return x\n",
        "@d(2)",
        "@d(3)",
    ),
    "wraps": edit(
        "import functools\ndef d(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a) + 1\n    return w\n@d\ndef run(x): return x\n",
        "+ 1",
        "+ 2",
    ),
    "wrapped body": edit(
        "import functools\ndef d(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a)\n    return w\n@d\ndef run(x): return x + 1\n",
        "+ 1",
        "+ 2",
    ),
    "decorator order": edit(
        "def a(f): return lambda x: f(x) + 1\ndef b(f): return lambda x: f(x) * 2\n@a\n@b\ndef run(x): return x\n",
        "@a\n@b",
        "@b\n@a",
    ),
    "partial": edit("import functools\ndef f(a, x): return a * x\nrun = functools.partial(f, 2)\n", "f, 2", "f, 3"),
    "partial keyword": edit(
        "import functools\ndef f(x, a=1): return a * x\nrun = functools.partial(f, a=2)\n", "a=2", "a=3"
    ),
    "partial target": edit(
        "import functools\ndef f(a, x): return a * x\nrun = functools.partial(f, 2)\n", "a * x", "a / x"
    ),
    "partialmethod": edit(
        "import functools\nclass P:\n    def f(self, a): return a\n    g = functools.partialmethod(f, 1)\nrun = P().g\n",
        "f, 1",
        "f, 2",
    ),
    "lru_cache": edit(
        "import functools\n@functools.lru_cache\ndef h(x): return x + 1\ndef run(x): return h(x)\n", "+ 1", "+ 2"
    ),
    "singledispatch": edit(
        "import functools\n@functools.singledispatch\ndef h(x): return 0\n@h.register\ndef _(x: int): return 1\ndef run(x): return h(x)\n",
        "return 1",
        "return 2",
    ),
    "singledispatchmethod": edit(
        "import functools\nclass P:\n    @functools.singledispatchmethod\n    def h(self, x): return 0\n    @h.register\n    def _(self, x: int): return 1\ndef run(x): return P().h(x)\n",
        "return 1",
        "return 2",
    ),
    "reduce with own operator": edit(
        "import functools\ndef op(a, b): return a + b\ndef run(x): return functools.reduce(op, x)\n", "a + b", "a - b"
    ),
    "contextmanager": edit(
        "import contextlib\n@contextlib.contextmanager\ndef c():\n    yield 1\ndef run(x):\n    with c() as y: return y\n",
        "yield 1",
        "yield 2",
    ),
    "numba-like dispatcher": edit(
        "class Jit:\n    def __init__(self, f): self.py_func = f\n    def __call__(self, *a): return self.py_func(*a)\n@Jit\ndef h(x): return x + 1\ndef run(x): return h(x)\n",
        "+ 1",
        "+ 2",
    ),
    "np.vectorize": edit(
        "import numpy as np\nh = np.vectorize(lambda x: x + 1)\ndef run(x): return h(x)\n", "+ 1", "+ 2"
    ),
    "np.frompyfunc": edit(
        "import numpy as np\nh = np.frompyfunc(lambda x: x + 1, 1, 1)\ndef run(x): return h(x)\n", "+ 1", "+ 2"
    ),
    "dispatch table": edit("def a(x): return 1\nT = {'a': a}\ndef run(x): return T[x](x)\n", "return 1", "return 2"),
    "registry filled by decorator": edit(
        "R = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef a(x): return 1\ndef run(x): return R['a'](x)\n",
        "return 1",
        "return 2",
    ),
    "registry with unreached setter": edit(
        "S = {}\ndef conf(**k): S.update(k)\ndef run(x): return S.setdefault('a', 0)\nconf(a=1)\n", "a=1", "a=2"
    ),
    "memo filled by a call": edit(
        "S = {}\ndef put(k, v): S[k] = v\ndef run(x):\n    put(x, 1)\n    return S\nput('a', 1)\n", "'a', 1", "'a', 2"
    ),
    "memo filled from another module": (
        {
            "work.py": "import helpers\nhelpers.setup()\nrun = helpers.run\n",
            "helpers.py": "S = {}\ndef put(k, v): S[k] = v\ndef setup(): put('a', 1)\ndef run(x):\n    put(x, 1)\n    return S\n",
        },
        {
            "helpers.py": "S = {}\ndef put(k, v): S[k] = v\ndef setup(): put('a', 2)\ndef run(x):\n    put(x, 1)\n    return S\n"
        },
    ),
    "class attribute that methods fill": edit(
        "class P:\n    cuts = {}\n    def add(self, n): self.cuts[n] = 1\n    def process(self, x): return self.cuts\nP().add('a')\nrun = P().process\n",
        "'a'",
        "'b'",
    ),
    "namespace of a module": helper(
        "import helpers\ndef run(x): return helpers.__dict__['PT']\n", "PT = 1\n", "PT = 2\n"
    ),
    "context variable": edit(
        "import contextvars\nv = contextvars.ContextVar('v', default=1)\ndef run(x): return v.get()\n",
        "default=1",
        "default=2",
    ),
    "context variable set": edit(
        "import contextvars\nv = contextvars.ContextVar('v', default=1)\nv.set(3)\ndef run(x): return v.get()\n",
        "set(3)",
        "set(4)",
    ),
    "patched method of an installed class": edit(
        "import hist\ndef mine(self, *a): return 1\nhist.Hist.fill_of_mine = mine\ndef run(x): return hist.Hist.new.Reg(1, 0, 1).Weight()\n",
        "return 1\nhist",
        "return 2\nhist",
    ),
    "patched class imported in the body": edit(
        "import hist\ndef mine(self, *a): return 1\nhist.Hist.fill_of_mine2 = mine\ndef run(x):\n    from hist import Hist\n    return Hist.new.Reg(1, 0, 1).Weight()\n",
        "return 1\nhist",
        "return 2\nhist",
    ),
    "attribute of a schema": edit(
        "from coffea.nanoevents import NanoAODSchema as S\nS.mixins_of_test = {'a': 1}\ndef run(x): return S\n",
        "'a': 1",
        "'a': 2",
    ),
    "frozen distribution": edit(
        "import scipy.stats\nK = scipy.stats.norm(0, 1)\ndef run(x): return K.cdf(x)\n", "(0, 1)", "(0, 2)"
    ),
    "enum that looks for what is missing": edit(
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\n    @classmethod\n    def _missing_(cls, v): return cls.A\ndef run(x): return E(x)\n",
        "return cls.A",
        "return cls.B",
    ),
    "augmented global": edit("K = 1\ndef run(x):\n    global K\n    K += x\n", "K = 1", "K = 2"),
    "make_dataclass": edit(
        "import dataclasses\nC = dataclasses.make_dataclass('C', [('a', int, 1)])\ndef run(x): return C().a\n",
        "int, 1",
        "int, 2",
    ),
    "categories": edit(
        "import pandas as pd\nK = pd.Series(pd.Categorical(['a'], categories=['a', 'b']))\ndef run(x): return K\n",
        "['a', 'b']",
        "['b', 'a']",
    ),
    "attrs converter": edit(
        "import attrs\ndef conv(x): return 1\n@attrs.define\nclass C:\n    a: int = attrs.field(default=3, converter=conv)\ndef run(x): return C().a\n",
        "return 1",
        "return 2",
    ),
    "globals get": edit("K = 1\ndef run(x): return globals().get('K')\n", "K = 1", "K = 2"),
    "registered with an abstract class": edit(
        "import abc\nclass B(abc.ABC): pass\nclass C: pass\nclass D: pass\nB.register(C)\ndef run(x): return isinstance(x, B)\n",
        "(C)",
        "(D)",
    ),
    "attributes of a series": edit(
        "import pandas as pd\nK = pd.Series([1])\nK.attrs['a'] = 1\ndef run(x): return K\n", "= 1\ndef", "= 2\ndef"
    ),
    "data of a package by pkgutil": (
        {
            "work.py": "import pkgutil\ndef run(x): return pkgutil.get_data('pkg', 'd.txt')\n",
            "pkg/__init__.py": "",
            "pkg/d.txt": "1",
        },
        {"pkg/d.txt": "2"},
    ),
    "data of a package by importlib": (
        {
            "work.py": "from importlib.resources import files\ndef run(x): return files('pkg').joinpath('d.txt').read_text()\n",
            "pkg/__init__.py": "",
            "pkg/d.txt": "1",
        },
        {"pkg/d.txt": "2"},
    ),
    "function of another standard module": edit("from math import sqrt\ndef run(x): return sqrt(x)\n", "math", "cmath"),
    "class of another standard module": edit(
        "from queue import Queue\ndef run(x): return Queue\n", "queue", "asyncio.queues"
    ),
    "python function of another standard module": edit(
        "from json import dumps\ndef run(x): return dumps(x)\n", "json", "marshal"
    ),
    "another standard module of the same alias": edit(
        "import math as m\ndef run(x): return m.sqrt(x)\n", "math", "cmath"
    ),
    "another library of the same alias": edit("import numpy as m\ndef run(x): return m.array(x)\n", "numpy", "pandas"),
    "standard module as a whole": edit("import math as m\ndef run(x): return getattr(m, x)\n", "math", "cmath"),
    "mutual recursion": edit(
        "def run(x): return even(x)\ndef even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\n",
        "n != 0",
        "n != 1",
    ),
    "callable object": edit(
        "class C:\n    def __init__(self, n): self.n = n\n    def __call__(self, x): return x * self.n\nrun = C(2)\n",
        "C(2)",
        "C(3)",
    ),
    "callable class body": edit("class C:\n    def __call__(self, x): return x * 2\nrun = C()\n", "2", "3"),
    "method": edit(
        "class P:\n    def process(self, x): return self.h(x)\n    def h(self, x): return 1\nrun = P().process\n",
        "return 1",
        "return 2",
    ),
    "class attribute": edit(
        "class P:\n    cut = 30\n    def process(self, x): return self.cut\nrun = P().process\n", "30", "25"
    ),
    "grand-base attribute": edit(
        "class A:\n    cut = 30\nclass B(A): pass\nclass P(B):\n    def process(self, x): return self.cut\nrun = P().process\n",
        "30",
        "25",
    ),
    "base method": edit(
        "class A:\n    def h(self): return 1\nclass P(A):\n    def process(self, x): return super().h()\nrun = P().process\n",
        "return 1",
        "return 2",
    ),
    "order of bases": edit(
        "class A: n = 1\nclass B: n = 2\nclass P(A, B):\n    def process(self, x): return self.n\nrun = P().process\n",
        "P(A, B)",
        "P(B, A)",
    ),
    "staticmethod": edit(
        "class P:\n    @staticmethod\n    def h(x): return 1\ndef run(x): return P.h(x)\n", "return 1", "return 2"
    ),
    "classmethod": edit(
        "class P:\n    @classmethod\n    def h(cls, x): return 1\ndef run(x): return P.h(x)\n", "return 1", "return 2"
    ),
    "property": edit(
        "class P:\n    @property\n    def n(self): return 1\ndef run(x): return P().n\n", "return 1", "return 2"
    ),
    "cached_property": edit(
        "import functools\nclass P:\n    @functools.cached_property\n    def n(self): return 1\ndef run(x): return P().n\n",
        "return 1",
        "return 2",
    ),
    "descriptor": edit(
        "class D:\n    def __init__(self, n): self.n = n\n    def __get__(self, o, t): return self.n\nclass P:\n    n = D(1)\ndef run(x): return P().n\n",
        "D(1)",
        "D(2)",
    ),
    "slots value": edit(
        "class P:\n    __slots__ = ('n',)\n    def __init__(self, n): self.n = n\np = P(1)\ndef run(x): return p.n\n",
        "P(1)",
        "P(2)",
    ),
    "instance state": edit(
        "class P:\n    def __init__(self, n): self.n = {'a': [n]}\n    def process(self, x): return self.n\nrun = P(1).process\n",
        "P(1)",
        "P(2)",
    ),
    "config attribute set later": edit(
        "class C: pass\ncfg = C()\ncfg.cut = 30\ndef run(x): return cfg.cut\n", "30", "25"
    ),
    "class attribute set later": edit("class C:\n    cut = 1\nC.cut = 30\ndef run(x): return C.cut\n", "30", "25"),
    "monkeypatched method": edit(
        "class P:\n    def h(self): return 0\n    def process(self, x): return self.h()\nP.h = lambda self: 1\nrun = P().process\n",
        ": 1",
        ": 2",
    ),
    "method of the instance": edit(
        "class P:\n    def process(self, x): return self.h()\np = P()\np.h = lambda: 1\nrun = p.process\n", ": 1", ": 2"
    ),
    "metaclass": edit(
        "class M(type):\n    def n(cls): return 1\nclass P(metaclass=M): pass\ndef run(x): return P.n()\n",
        "return 1",
        "return 2",
    ),
    "init_subclass": edit(
        "class A:\n    def __init_subclass__(cls): cls.n = 1\nclass P(A): pass\ndef run(x): return P.n\n",
        "cls.n = 1",
        "cls.n = 2",
    ),
    "enum": edit("import enum\nclass E(enum.Enum):\n    A = 1\ndef run(x): return E.A.value\n", "A = 1", "A = 2"),
    "enum method": edit(
        "import enum\nclass E(enum.Enum):\n    A = 1\n    def f(self): return 1 + self.value\ndef run(x): return E.A.f()\n",
        "1 +",
        "2 +",
    ),
    "dataclass default": edit(
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    cut: int = 30\ndef run(x): return C().cut\n",
        "30",
        "25",
    ),
    "dataclass field order": edit(
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int\n    b: int\ndef run(x): return C(1, 2).a\n",
        "a: int\n    b: int",
        "b: int\n    a: int",
    ),
    "dataclass factory": edit(
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: list = dataclasses.field(default_factory=lambda: [1])\ndef run(x): return C().a\n",
        "[1]",
        "[2]",
    ),
    "namedtuple default": edit(
        "import typing\nclass C(typing.NamedTuple):\n    a: int = 1\ndef run(x): return C().a\n", "= 1", "= 2"
    ),
    "nested class": edit("class A:\n    class B:\n        n = 1\ndef run(x): return A.B.n\n", "= 1", "= 2"),
    "generated code": edit("n = {}\nexec('def run(x):\\n    return x + 1', n)\nrun = n['run']\n", "+ 1", "+ 2"),
    "generated code that names": edit(
        "import sys\nK = 1\nexec('def run(x):\\n    return K', globals())\n", "K = 1", "K = 2"
    ),
    "eval of a literal": edit("K = 1\ndef run(x): return eval('K + 1')\n", "K = 1", "K = 2"),
    "exec of a global string": edit("S = 'y = K'\nK = 1\ndef run(x):\n    exec(S)\n", "K = 1", "K = 2"),
    "globals literal": edit("K = 1\ndef run(x): return globals()['K']\n", "K = 1", "K = 2"),
    "shadowed builtin": edit("def sum(x): return 1\ndef run(x): return sum(x)\n", "return 1", "return 2"),
    "builtin is shadowed": edit("def run(x): return len(x)\n", "def run", "def len(x): return 1\ndef run"),
    "monkeypatched numpy": edit(
        "import numpy as np\ndef mine(x): return 1\nnp.sum_of_mine = mine\ndef run(x): return np.sum_of_mine(x)\n",
        "return 1",
        "return 2",
    ),
    "numpy function": edit("import numpy as np\ndef run(x): return np.sum(x)\n", "np.sum", "np.prod"),
    "keyword": edit("def run(x): return sorted(x, reverse=True)\n", "True", "False"),
    "operator": edit("def run(x): return x < 1\n", "<", "<="),
    "chained comparison": edit("def run(x): return 0 < x < 1\n", "0 < x < 1", "(0 < x) < 1"),
    "format spec": edit("def run(x): return f'{x:.2f}'\n", ".2f", ".3f"),
    "conversion": edit("def run(x): return f'{x!r}'\n", "!r", "!s"),
    "walrus": edit("def run(x): return [y for v in x if (y := v + 1)]\n", "+ 1", "+ 2"),
    "match": edit(
        "def run(x):\n    match x:\n        case {'a': 1}: return 1\n        case _: return 0\n", "'a'", "'b'"
    ),
    "except order": edit(
        "def run(x):\n    try: return 1 / x\n    except ValueError: return 1\n    except ArithmeticError: return 2\n",
        "ValueError",
        "KeyError",
    ),
    "async": edit(
        "async def h(): return 1\ndef run(x):\n    import asyncio\n    return asyncio.run(h())\n",
        "return 1",
        "return 2",
    ),
    "generator": edit("def g():\n    yield 1\ndef run(x): return list(g())\n", "yield 1", "yield 2"),
    "conditional definition": edit(
        "A = True\nif A:\n    def h(): return 1\nelse:\n    def h(): return 2\ndef run(x): return h()\n",
        "A = True",
        "A = False",
    ),
    "global in nested function": edit("K = 1\ndef run(x):\n    def g(): return K\n    return g()\n", "K = 1", "K = 2"),
    "global in comprehension": edit("K = 1\ndef run(x): return [K for _ in x]\n", "K = 1", "K = 2"),
    "global in nested class": edit(
        "K = 1\ndef run(x):\n    class C:\n        n = K\n    return C.n\n", "K = 1", "K = 2"
    ),
    "attribute of method of helper class": edit(
        "class H:\n    n = 1\n    def f(self): return self.n\ndef run(x):\n    h = H()\n    return h.f()\n",
        "n = 1",
        "n = 2",
    ),
    "order of dict": edit("D = {'a': 1, 'b': 2}\ndef run(x): return list(D)\n", "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"),
    "set element": edit("S = {'a', 'b'}\ndef run(x): return S\n", "'b'", "'c'"),
    "tuple or list": edit("S = (1, 2)\ndef run(x): return S\n", "(1, 2)", "[1, 2]"),
    "negative zero": edit("K = 0.0\ndef run(x): return K\n", "0.0", "-0.0"),
    "nan": edit("K = 0.0\ndef run(x): return K\n", "0.0", "float('nan')"),
    "string or bytes": edit("K = 'a'\ndef run(x): return K\n", "'a'", "b'a'"),
    "numpy scalar": edit("import numpy as np\nK = np.float32(1)\ndef run(x): return K\n", "float32", "float64"),
    "array content": edit(
        "import numpy as np\nK = np.arange(10000)\nK[5000] = 0\ndef run(x): return K\n", "= 0", "= 1"
    ),
    "array dtype": edit("import numpy as np\nK = np.zeros(3, 'i4')\ndef run(x): return K\n", "i4", "i8"),
    "array byte order": edit("import numpy as np\nK = np.zeros(3, '<i4')\ndef run(x): return K\n", "<i4", ">i4"),
    "array shape": edit("import numpy as np\nK = np.zeros((2, 3))\ndef run(x): return K\n", "(2, 3)", "(3, 2)"),
    "object array": edit(
        "import numpy as np\nK = np.array([1, 'a'], dtype=object)\ndef run(x): return K\n", "'a'", "'b'"
    ),
    "structured array": edit(
        "import numpy as np\nK = np.array([(1, 2.0)], dtype=[('a', 'i4'), ('b', 'f8')])\ndef run(x): return K\n",
        "2.0",
        "3.0",
    ),
    "masked array": edit(
        "import numpy as np\nK = np.ma.array([1, 2], mask=[0, 1])\ndef run(x): return K\n", "[0, 1]", "[1, 0]"
    ),
    "awkward content": edit("import awkward as ak\nK = ak.Array([[1, 2], []])\ndef run(x): return K\n", "2", "3"),
    "awkward layout": edit(
        "import awkward as ak\nK = ak.Array([[1, 2], []])\ndef run(x): return K\n", "[[1, 2], []]", "[[1], [2]]"
    ),
    "pandas": edit(
        "import pandas as pd\nK = pd.DataFrame({'a': [1, 2]}, index=[0, 1])\ndef run(x): return K\n", "[0, 1]", "[0, 2]"
    ),
    "hist edges": edit(
        "import hist\nK = hist.Hist.new.Reg(3, 0, 1, name='x').Weight()\ndef run(x): return K.copy()\n", "0, 1", "0, 2"
    ),
    "hist name": edit(
        "import hist\nK = hist.Hist.new.Reg(3, 0, 1, name='x').Weight()\ndef run(x): return K.copy()\n", "'x'", "'y'"
    ),
    "hist storage": edit(
        "import hist\nK = hist.Hist.new.Reg(3, 0, 1).Weight()\ndef run(x): return K.copy()\n", "Weight", "Double"
    ),
    "hist axis": edit(
        "import hist\nK = hist.axis.StrCategory(['a'], growth=True)\ndef run(x): return K\n", "['a']", "['b']"
    ),
    "lookup": edit(
        "import numpy as np\nfrom coffea.lookup_tools.dense_lookup import dense_lookup\nK = dense_lookup(np.array([1.0, 2.0]), np.array([0.0, 1.0, 2.0]))\ndef run(x): return K(x)\n",
        "[1.0, 2.0])",
        "[1.0, 3.0])",
    ),
    "correctionlib": edit(
        "import correctionlib.schemav2 as s\nimport correctionlib\nK = correctionlib.CorrectionSet(s.CorrectionSet(schema_version=2, corrections=[s.Correction(name='c', version=1, inputs=[], output=s.Variable(name='o', type='real'), data=1.5)]))\ndef run(x): return K['c'].evaluate()\n",
        "1.5",
        "2.5",
    ),
    "regex flags": edit("import re\nK = re.compile('a', re.I)\ndef run(x): return K.match(x)\n", "re.I", "re.M"),
    "regex pattern": edit("import re\nK = re.compile('a')\ndef run(x): return K.match(x)\n", "'a'", "'b'"),
    "date": edit("import datetime\nK = datetime.date(2020, 1, 1)\ndef run(x): return K\n", "2020", "2021"),
    "decimal": edit("import decimal\nK = decimal.Decimal('1.0')\ndef run(x): return K\n", "1.0", "1.00"),
    "itemgetter": edit("import operator\nK = operator.itemgetter(1)\ndef run(x): return K(x)\n", "(1)", "(2)"),
    "random state": edit(
        "import numpy as np\nK = np.random.default_rng(1)\ndef run(x): return K.normal()\n", "(1)", "(2)"
    ),
    "deque maxlen": edit(
        "import collections\nK = collections.deque([1], maxlen=2)\ndef run(x): return K\n", "maxlen=2", "maxlen=3"
    ),
    "defaultdict factory": edit(
        "import collections\nK = collections.defaultdict(lambda: 1)\ndef run(x): return K['a']\n", ": 1", ": 2"
    ),
    "user subclass of dict": edit("class D(dict):\n    pass\nK = D(a=1)\ndef run(x): return K['a']\n", "a=1", "a=2"),
    "file behind a path": (
        {
            "work.py": "import pathlib\nK = pathlib.Path(__file__).parent / 'c.json'\ndef run(x): return K.read_text()\n",
            "c.json": "1",
        },
        {"c.json": "2"},
    ),
    "file named by a string": (
        {
            "work.py": "import os\nK = os.path.join(os.path.dirname(__file__), 'c.json')\ndef run(x): return open(K).read()\n",
            "c.json": "1",
        },
        {"c.json": "2"},
    ),
    "behaviour": edit(
        "import awkward as ak\nclass Mine(ak.Record):\n    def f(self): return 1\nak.behavior['Mine_of_test'] = Mine\ndef run(x): return ak.num(x)\n",
        "return 1",
        "return 2",
    ),
    "numba": edit("import numba\n@numba.njit\ndef h(x): return x + 1\ndef run(x): return h(x)\n", "+ 1", "+ 2"),
    "names in a query": edit("K = 1\ndef run(x): return x.query('pt > @K')\n", "K = 1", "K = 2"),
    "argument": edit("ARGUMENTS = (3,)\ndef run(x): return x\n", "3", "3.0"),
    "docstring that is read": edit("def h():\n    'one'\ndef run(x): return h.__doc__\n", "one", "two"),
    "annotation that is read": edit(
        "import typing\ndef h(x: int): pass\ndef run(x): return typing.get_type_hints(h)\n", "int", "float"
    ),
    "class body statement": edit("class P:\n    n = [i for i in range(3)]\ndef run(x): return P.n\n", "3", "4"),
    "default that a memo is not": edit(
        "def run(x, memo={'a': 1}):\n    memo[x] = 2\n    return memo\n", "'a': 1", "'a': 3"
    ),
    "function attribute": edit("def h(): return h.n\nh.n = 1\ndef run(x): return h()\n", "= 1", "= 2"),
    "postprocess of a helper": edit(
        "class P:\n    def process(self, x): return 1\n    def postprocess(self, a): return 1\nrun = P().process\n",
        "return 1\nrun",
        "return 2\nrun",
    ),
}
