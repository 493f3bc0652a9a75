"Small data sets of one's own, for several test files."
import numpy as np, pandas as pd, pytest
from PIL import Image

QUIET = lambda *a, **k: None
WORDS = dict(sea='wave boat salt', sky='cloud bird wind', wood='tree leaf moss', town='street tram shop')


def texts(n=120, seed=0):
    "Texts whose words say which of four labels they have; one to three labels each."
    rng = np.random.default_rng(seed)
    sets = [sorted(rng.choice(list(WORDS), rng.integers(1, 4), replace=False)) for _ in range(n)]
    words = [[w for l in s for w in rng.choice(WORDS[l].split(), 2)] + [f'n{i}'] for i, s in enumerate(sets)]
    return pd.DataFrame(dict(text=[' '.join(w) for w in words], labels=['|'.join(s) for s in sets]))


def noisy(seed=0):
    "The same, with the labels of a third of the rows mixed up: no loss is perfect."
    t, i = texts(seed=seed), np.arange(0, 120, 3)
    t.loc[i, 'labels'] = t.labels[np.roll(i, 1)].to_numpy()
    return t


def numbers(n=120, seed=0):
    "Features that decide three labels."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return x, (x[:, :3] > .3).astype(int)


def write(path, t, **more):
    t.to_csv(path, index=False, **more)
    return path


def pictures(folder, n=40):
    "Pictures: the left half red or not, the right half blue or not."
    y = np.random.default_rng(0).integers(0, 2, (n, 2))
    for i, (a, b) in enumerate(y):
        x = np.random.default_rng(i).integers(0, 40, (12, 12, 3)).astype(np.uint8)
        x[:, :6, 0] += 200*a.astype(np.uint8)
        x[:, 6:, 2] += 200*b.astype(np.uint8)
        Image.fromarray(x).save(folder/f'{i}.png')
    sets = [';'.join(l for l, on in zip(('red', 'blue'), r) if on) for r in y]
    write(folder/'labels.csv', pd.DataFrame(dict(file=[f'{i}.png' for i in range(n)], labels=sets)))
    return folder


@pytest.fixture(scope='module', autouse=True)
def scratch():
    "No pretrained network is at hand while these tests run: the quick encoders are used on every machine."
    from mlcl.own import baselines, choices, views
    with pytest.MonkeyPatch.context() as m:
        for module in (baselines, choices, views): m.setattr(module, 'pretrained', lambda kind: None)
        yield


@pytest.fixture(scope='module', autouse=True)
def registry():
    "Data sets of one's own are known by name while these tests run, and forgotten after them."
    from mlcl.data import SETS
    held = dict(SETS)
    yield
    SETS.clear(); SETS.update(held)
