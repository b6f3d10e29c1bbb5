"""No module of ours turns data into code."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from source_rules import breaches, modules


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_a_module_keeps_the_rules(path):
    assert breaches(path.read_text(), path.name) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "import os; os.system(text)",
        "from os import system as run; run(text)",
        "import pickle as p; p.loads(data)",
        "from pickle import load; load(file)",
        "import yaml; yaml.load(text)",
        "import yaml; yaml.load(text, Loader=yaml.Loader)",
        "import yaml; yaml.load(text, Loader=chosen)",
        "import yaml; chosen = yaml.SafeLoader; chosen = yaml.Loader; yaml.load(text, Loader=chosen)",
        "import yaml as y; y.load_all(text, Loader=y.FullLoader)",
        "import torch; torch.load(path)",
        "import torch; torch.load(path, weights_only=False)",
        "import numpy as np; np.load(path)",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "import subprocess; subprocess.run(text, shell=True)",
        "import subprocess; subprocess.run(text, shell=flag)",
        "import pickle; f = pickle.loads; f(data)",
        "import builtins; builtins.eval(text)",
        "from torch.serialization import load; load(path)",
        "import torch; torch.jit.load(path)",
        "import numpy; numpy.lib.format.read_array(file, allow_pickle=True)",
        "import os; os.execl(path, text)",
        "import os; os.spawnl(os.P_WAIT, path)",
        "import runpy; runpy.run_path(path)",
        "tar.extract(name, folder)",
        "tar.extractall(folder)",
        "tar.extractall(folder, filter='fully_trusted')",
        "import tempfile; tempfile.mktemp()",
        "import urllib.request as web; web.urlopen(address)",
        "run([python, '-m', 'pip', 'download', name])",
    ],
)
def test_a_breach_is_seen(line):
    assert len(breaches(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(path, map_location='cpu', weights_only=True)",
        "import numpy as np; np.load(path, mmap_mode='r', allow_pickle=False)",
        "import yaml; yaml.safe_load(text)",
        "import yaml; yaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml; fast = getattr(yaml, 'CSafeLoader', yaml.SafeLoader); yaml.load(text, Loader=fast)",
        "import re; re.compile(text)",
        "import pickle; pickle.UnpicklingError",
        "import subprocess; subprocess.run(words, shell=False)",
        "model.eval()",
        "code = b'OB'; code.isalpha()",
        "tar.extractall(folder, members, filter='data')",
        f"DIGEST = '{'0' * 64}'; run([python, '-m', 'pip', 'download', name])",
    ],
)
def test_what_is_allowed_is_no_breach(line):
    assert breaches(line) == []
