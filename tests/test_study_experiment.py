"Experiments and their names; where a result is from."
from dataclasses import asdict
import json, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from mlcl import study
from mlcl.study import Experiment, Store, content_hash, plain
from mlcl.study import experiment


def test_hash_is_stable(monkeypatch):
    assert content_hash({'b': 1.0, 'a': [1, 2.5, None, True, 'ü']}) == 'c56625c88ab03c6f'
    monkeypatch.setattr(experiment, 'full_settings', lambda *a: plain(a[-1]))
    e = Experiment('digits', 'resnet', 'reg', dict(epochs=2, lr=1e-3, loss=dict(temperature=.1)), .5, 3)
    assert e.id == 'd1670e1bd57a193f'


def test_defaults_count(monkeypatch):
    import mlcl.learner
    e = Experiment('digits', 'resnet', 'reg')
    assert e.settings['epochs'] == mlcl.learner.DEFAULTS['epochs'] and e.settings['loss']['temperature'] == .1
    assert e.id == Experiment('digits', 'resnet', 'reg', dict(lr=1e-3, loss=dict(temperature=.1)), 1).id
    assert ('head_lr' not in e.settings and e.id == Experiment('digits', 'resnet', 'reg', dict(head_lr=None)).id
            != Experiment('digits', 'resnet', 'reg', dict(head_lr=.1)).id)
    assert e.id == Experiment(**json.loads(json.dumps(asdict(e)))).id
    monkeypatch.setitem(mlcl.learner.DEFAULTS, 'epochs', 41)
    assert Experiment('digits', 'resnet', 'reg').id != e.id
    assert len({Experiment('digits', 'resnet', l, s, f, n).id for l, s, f, n in [
        ('reg', {}, 1, 0), ('bce', {}, 1, 0), ('reg', dict(lr=.01), 1, 0), ('reg', {}, .5, 0), ('reg', {}, 1, 1)]}) == 5


def test_how_a_loss_is_computed_is_no_part_of_what_it_is():
    "The records of the first study keep their names; a tile that is given counts."
    e = Experiment('yeast', 'mlp', 'reg', dict(epochs=40))
    assert ('tile' not in e.settings['loss'] and e.id == Experiment('yeast', 'mlp', 'reg',
                                                                    dict(epochs=40, loss=dict(tile=None))).id)
    assert Experiment('yeast', 'mlp', 'reg', dict(epochs=40, loss=dict(tile=16))).id != e.id
    held = {r['run'] for r in Store(Path(__file__).parent.parent/'results'/'first').records(dataset='yeast')}
    assert held == {x.id for x in study.experiments('first', only='dataset=yeast')}


def test_kind_of_the_readouts_leaves_old_names_alone():
    """The default is written nowhere, so the records of the first edition keep their names; what a kind does not
    use is not named."""
    old, new, both = (Experiment('yeast', 'mlp', 'reg', dict(probe=p))
                      for p in (dict(kind='grid'), dict(kind='linear'), dict(kind='both', epochs=3)))
    assert old.id == Experiment('yeast', 'mlp', 'reg').id and 'kind' not in old.settings['probe']
    assert (new.settings['probe'] == dict(kind='linear')
            and new.id == Experiment('yeast', 'mlp', 'reg', dict(probe=dict(kind='linear', epochs=3))).id)
    assert (both.settings['probe']['kind'] == 'both' and both.settings['probe']['epochs'] == 3
            and len({old.id, new.id, both.id}) == 3)
    for e in (old, new, both): assert Experiment(**json.loads(json.dumps(asdict(e)))).id == e.id


@pytest.mark.parametrize('args, said', [
    (('digitz', 'resnet', 'reg'), 'dataset: expected one of'),
    (('digits', 'resnet', 'regg'), 'loss: expected one of abalone'),
    (('digits', 'resnot', 'reg'), 'encoder: expected one of'),
    (('digits', 'mlp', 'reg'), 'reads features data, not image'),
    (('digits', 'resnet', 'reg', dict(epoch=1)), 'settings key: expected one of'),
    (('digits', 'resnet', 'reg', dict(loss=dict(tau=1))), 'settings.loss key: expected one of alpha'),
    (('digits', 'resnet', 'reg', dict(data=dict(m=1))), 'settings.data key'),
    (('digits', 'resnet', 'reg', dict(encoder=dict(width=1))), 'settings.encoder key'),
    (('digits', 'resnet', 'reg', dict(probe=dict(grit=1))), 'settings.probe key'),
    (('digits', 'resnet', 'reg', dict(checkpoints=['first'])), 'settings.checkpoints'),
    (('digits', 'resnet', 'reg', dict(probe=dict(kind='ridge'))),
     'settings.probe.kind: expected one of both, grid, linear'),
    (('digits', 'resnet', 'reg', dict(lr=float('nan'))), 'settings.lr: expected a finite number'),
    (('digits', 'resnet', 'reg', dict(lr=float('inf'))), 'settings.lr: expected a finite number'),
    (('digits', 'resnet', 'reg', dict(lr=object())), 'settings.lr: expected a value that JSON can hold'),
    (('digits', 'resnet', 'reg', {}, 0.), 'fraction'), (('digits', 'resnet', 'reg', {}, 1.5), 'fraction'),
    (('digits', 'resnet', 'reg', {}, 1., .5), 'seed')])
def test_bad_experiments(args, said):
    with pytest.raises(ValueError, match=said): Experiment(*args)


def test_an_experiment_comes_back_from_a_record():
    e = Experiment('yeast', 'mlp', 'reg', dict(epochs=40), .5, 3)
    assert study.experiment_of(asdict(e) | dict(readout='probe1', metrics={})) == e


def test_code_hash_follows_the_source(tmp_path, monkeypatch):
    for f in ('data.py', 'losses/reg.py', 'study/run.py', 'study.py'):
        (tmp_path/f).parent.mkdir(exist_ok=True)
        (tmp_path/f).write_text('a = 1')
    import mlcl
    monkeypatch.setattr(mlcl, '__file__', str(tmp_path/'study.py'))
    seen = lambda: study.code_version.__wrapped__()
    first = seen()
    assert first['commit'] is None and seen() == first
    (tmp_path/'study.py').write_text('a = 2') # decides no result
    assert seen() == first
    (tmp_path/'losses'/'reg.py').write_text('a = 2')
    changed = seen()
    (tmp_path/'losses'/'reg.py').rename(tmp_path/'losses'/'wreg.py')
    assert len({first['sha256'], changed['sha256'], seen()['sha256']}) == 3


def test_every_module_that_a_run_uses_is_in_the_code_hash(tmp_path):
    "What a run imports decides its result; only the study's own modules are left out."
    code = """import sys, mlcl
from pathlib import Path
from mlcl.study import DECIDES, experiments, run
run(experiments('smoke', only='loss=reg,seed=0')[0])
root = Path(mlcl.__file__).parent
hashed = {p for pattern in DECIDES for p in root.glob(pattern)}
used = {Path(m.__file__) for n, m in list(sys.modules.items()) if n.startswith('mlcl.')}
print(sorted(p.relative_to(root).as_posix() for p in used - hashed
             if p.parent.name != 'study' and p.name != 'extras.py'))"""
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert res.stdout.strip() == '[]', res.stdout + res.stderr


def test_splits_hash():
    a = dict(train=[0, 1], test=[2])
    assert study.splits_hash(a) == study.splits_hash(dict(test=np.array([2], np.int32), train=np.array([0, 1])))
    assert len({study.splits_hash(s) for s in (a, dict(train=[1, 0], test=[2]), dict(train=[0], test=[1, 2]),
                                               dict(val=[0, 1], test=[2]))}) == 4


@pytest.mark.parametrize('encoder, library', [('hf:x', 'transformers'), ('timm:x', 'timm'), ('timm:x:frozen', 'timm'),
                                              ('tv:x', 'torchvision'), ('mobilenet_v2', 'torchvision')])
def test_a_record_names_the_library_of_its_network(encoder, library):
    assert library in experiment.versions(encoder) and library not in experiment.versions("mlp")
