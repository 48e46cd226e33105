"""What has no fingerprint, with words that the message must hold."""

REFUSED = {
    "open file": (
        "F = open(__file__)\ndef select(x): return F.read()\ndef run(x): return select(x)\n",
        ("run", "select", "'F'", "open file", "Path"),
    ),
    "socket in state": (
        "import socket\nclass P:\n    def __init__(self): self.s = socket.socket()\n    def process(self, x): return 1\nrun = P().process\n",
        (".s",),
    ),
    "generator": ("G = (i for i in range(3))\ndef run(x): return list(G)\n", ("'G'", "list")),
    "socket": ("import socket\nS = socket.socket()\nS.close()\ndef run(x): return S\n", ("'S'",)),
    "eval": ("def run(x): return eval(x)\n", ("eval", "run")),
    "exec of a local": ("def run(x):\n    s = 'y = 1'\n    exec(s)\n", ("exec",)),
    "globals": ("def run(x): return globals()[x]\n", ("globals",)),
    "import_module": ("import importlib\ndef run(x): return importlib.import_module(x)\n", ("import_module",)),
    "dunder import": ("def run(x): return __import__(x)\n", ("__import__",)),
    "eval in a helper": ("from builtins import eval as e\ndef run(x): return e(x)\n", ("eval",)),
    "globals of a function": ("def g(): pass\ndef run(x): return g.__globals__[x]\n", ("__globals__",)),
    "subclasses": ("class B: pass\ndef run(x): return B.__subclasses__()\n", ("__subclasses__",)),
    "source text": ("import inspect\ndef run(x): return inspect.getsource(run)\n", ("getsource",)),
    "stack, the second that is used of an import in the body": (
        "def run(x):\n    import inspect\n    return inspect.getfile(x), inspect.stack()\n",
        ("calls stack",),
    ),
    "frame by an import in the body": (
        "def run(x):\n    from sys import _getframe\n    return _getframe()\n",
        ("_getframe",),
    ),
    "frame": ("import sys\ndef run(x): return sys._getframe()\n", ("_getframe",)),
}
