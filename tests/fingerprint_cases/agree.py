"""Edits and circumstances that cannot change a result."""

from fingerprint_cases.differ import edit, helper

AGREE = {
    "comment": edit("def run(x):\n    return x + 1\n", "1\n", "1  # one\n"),
    "docstring": edit("def run(x):\n    'one'\n    return x\n", "one", "two"),
    "new docstring": edit("def run(x):\n    return x\n", "    return", "    '''doc'''\n    return"),
    "formatting": edit("def run(x):\n    return (x+1)\n", "(x+1)", "x   +    1"),
    "moved": edit("def run(x):\n    return x\n", "def", "\n\n\n\ndef"),
    "order of definitions": (
        "def h(): return 1\ndef run(x): return h()\n",
        "def run(x): return h()\ndef h(): return 1\n",
    ),
    "unrelated": edit("K = 1\ndef other(): return K\ndef run(x): return x\n", "K = 1", "import json\nK = 2"),
    "unrelated global of a local's name": edit("K = 1\ndef run(x):\n    K = 2\n    return K\n", "K = 1", "K = 3"),
    "unused part of a module": helper(
        "import helpers\ndef run(x): return helpers.A\n", "A = 1\nB = 2\n", "A = 1\nB = 3\n"
    ),
    "annotation": edit("def run(x):\n    y = x\n    return y\n", "(x):\n    y =", "(x: int) -> int:\n    y: int ="),
    "string quotes": edit("def run(x): return 'a'\n", "'a'", '"a"'),
    "adjacent strings": edit("def run(x): return 'ab'\n", "'ab'", "'a' 'b'"),
    "number notation": edit("def run(x): return 1000\n", "1000", "1_000"),
    "strides": edit(
        "import numpy as np\nK = np.arange(6).reshape(2, 3)\ndef run(x): return K\n",
        ".reshape(2, 3)",
        ".reshape(2, 3).copy('F')",
    ),
    "slice of a bigger array": edit(
        "import numpy as np\nK = np.array([1, 3])\ndef run(x): return K\n",
        "np.array([1, 3])",
        "np.array([1, 2, 3])[::2]",
    ),
    "awkward cut": edit(
        "import awkward as ak\nK = ak.Array([[1, 2], [3]])\ndef run(x): return K\n",
        "ak.Array([[1, 2], [3]])",
        "ak.Array([[0], [1, 2], [3]])[1:]",
    ),
    "order of set": edit("K = {'a', 'b', 'c'}\ndef run(x): return K\n", "{'a', 'b', 'c'}", "{'c', 'b', 'a'}"),
    "set of functions": edit("def a(): pass\ndef b(): pass\nK = {a, b}\ndef run(x): return K\n", "{a, b}", "{b, a}"),
    "called before": (
        "import functools\nM = {}\n@functools.lru_cache\ndef h(x): return x\ndef run(x):\n    if x not in M: M[x] = h(x)\n    return M[x]\n",
        "import functools\nM = {}\n@functools.lru_cache\ndef h(x): return x\ndef run(x):\n    if x not in M: M[x] = h(x)\n    return M[x]\ndef before_fingerprint():\n    for i in range(20000): run(i % 7)\n",
    ),
    "lazily loaded": (
        "_m = None\ndef get():\n    global _m\n    if _m is None: _m = [1]\n    return _m\ndef run(x): return get()\n",
        "_m = None\ndef get():\n    global _m\n    if _m is None: _m = [1]\n    return _m\ndef run(x): return get()\ndef before_fingerprint(): run(1)\n",
    ),
    "memo in a default": (
        "def run(x, m={}):\n    m[x] = 1\n    return m\n",
        "def run(x, m={}):\n    m[x] = 1\n    return m\ndef before_fingerprint(): run(1)\n",
    ),
    "cached_property filled": (
        "import functools\nclass P:\n    @functools.cached_property\n    def n(self): return 1\n    def process(self, x): return self.n\nrun = P().process\n",
        "import functools\nclass P:\n    @functools.cached_property\n    def n(self): return 1\n    def process(self, x): return self.n\nrun = P().process\ndef before_fingerprint(): run(1)\n",
    ),
    "vectorize called": (
        "import numpy as np\nh = np.vectorize(lambda x: x)\ndef run(x): return h(x)\n",
        "import numpy as np\nh = np.vectorize(lambda x: x)\ndef run(x): return h(x)\ndef before_fingerprint(): run([1, 2])\n",
    ),
    "numba compiled": (
        "import numba\n@numba.njit\ndef h(x): return x + 1\ndef run(x): return h(x)\n",
        "import numba\n@numba.njit\ndef h(x): return x + 1\ndef run(x): return h(x)\ndef before_fingerprint(): run(1)\n",
    ),
    "logger": edit(
        "import logging\nlog = logging.getLogger(__name__)\ndef run(x): log.info('a')\n",
        "log =",
        "logging.getLogger().setLevel(10)\nlog =",
    ),
    "excluded": edit(
        "class P:\n    __fingerprint_exclude__ = ('out',)\n    def __init__(self): self.out = 'a'\nK = P()\nK.out = '1'\ndef run(x): return K\n",
        "'1'",
        "'2'",
    ),
    "lock": edit(
        "import threading\nL = threading.Lock()\ndef run(x):\n    with L: return x\n", "def", "L.acquire()\ndef"
    ),
    "global random functions": edit(
        "import numpy as np\nfrom random import gauss\nN = np.random.normal\ndef run(x): return gauss(0, 1) + N()\n",
        "def",
        "gauss(0, 1)\ndef",
    ),
    "coffea's set accumulator": edit(
        "from coffea.processor import set_accumulator\nK = set_accumulator({'a', 'b', 'c'})\ndef run(x): return K\n",
        "{'a', 'b', 'c'}",
        "{'c', 'b', 'a'}",
    ),
    "scipy distribution": edit(
        "import scipy.stats\nK = scipy.stats.norm(0, 1)\ndef run(x): return K.cdf(x)\n", "def", "\ndef"
    ),
    "sentinel": edit("_MISSING = object()\ndef run(x, y=_MISSING): return y is _MISSING\n", "def", "\ndef"),
    "here": (
        "import os\nHERE = os.path.dirname(os.path.abspath(__file__))\nUP = os.path.join(HERE, 'no', 'where')\ndef run(x): return HERE, UP\n",
        {},
    ),
    "path here": (
        "from pathlib import Path\nHERE = Path(__file__).parent / 'x'\ndef run(x): return HERE, __file__\n",
        {},
    ),
    "path argument": (
        {
            "work.py": "from pathlib import Path\nARGUMENTS = (Path(__file__).with_name('c.json'),)\ndef run(x): return x\n",
            "c.json": "1",
        },
        {},
    ),
    "class moved and documented": edit(
        "class P:\n    n = 1\n    def f(self): return 1\ndef run(x): return P().f()\n",
        "class P:\n",
        "\n\nclass P:\n    'doc'\n",
    ),
    "order of methods": (
        "class P:\n    def a(self): return 1\n    def b(self): return 2\ndef run(x): return P().a()\n",
        "class P:\n    def b(self): return 2\n    def a(self): return 1\ndef run(x): return P().a()\n",
    ),
    "dead code": edit("K = 1\ndef run(x):\n    if False:\n        return K\n    return 2\n", "K = 1", "K = 3"),
    "assert": ("def run(x):\n    assert x > LIMIT, 'no'\n    return x\nLIMIT = 3\n", {}),
    "regex recompiled": edit(
        "import re\nK = re.compile('a')\ndef run(x): return K\n",
        "re.compile('a')",
        "re.compile('b') and re.purge() or re.compile('a')",
    ),
    "type comment": edit("def run(x):\n    y = x\n    return y\n", "y = x", "y = x  # type: int"),
    "pass": edit("def run(x):\n    'doc'\n", "'doc'", "'other'"),
}
