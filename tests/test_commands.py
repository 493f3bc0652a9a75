"The commands for data of one's own."
import re
import numpy as np, pandas as pd, pytest
from mlcl.cli import main
from mlcl.own import MultiLabelClassifier
from own_data import WORDS, numbers, pictures, registry, texts, write

# --- the commands

def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    t = texts()
    write(tmp_path/'a.csv', t)
    assert main('compare a.csv --text text --check'.split()) == 0
    assert '120 texts' in capsys.readouterr().out and not (tmp_path/'compare-a').exists()
    assert main('compare a.csv --text text --losses reg,bce --seeds 1 --epochs 5 --jobs 2'.split()) == 0
    assert 'Take ' in capsys.readouterr().out and (tmp_path/'compare-a/report.html').exists()
    assert main('train a.csv --text text --epochs 20 --out m.safetensors'.split()) == 0
    assert re.search(r'm.safetensors: Macro-F1 [01]\.\d{3} \[[01]\.\d{3}, [01]\.\d{3}\]', capsys.readouterr().out)
    t[['text']].to_csv('new.csv', index=False)
    assert main('predict m.safetensors new.csv --out p.csv'.split()) == 0 == main('predict m.safetensors new.csv'.split())
    p, m = pd.read_csv('p.csv', keep_default_na=False), MultiLabelClassifier.load('m.safetensors')
    assert capsys.readouterr().out == (tmp_path/'p.csv').read_text() and list(p) == ['instance', 'labels', *sorted(WORDS)]
    assert [tuple(filter(None, l.split('|'))) for l in p.labels] == m.predict_labels(t.text) and np.allclose(p[sorted(WORDS)], m.predict_proba(t.text), atol=1e-4)


def test_commands_on_pictures_and_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'p').mkdir()
    pictures(tmp_path/'p')
    assert main('train p --epochs 1 --encoder resnet'.split()) == 0 == main('predict model.safetensors p'.split())
    out = capsys.readouterr().out
    assert '\n0.png,' in out and 'blue,red' in out
    x, y = numbers()
    np.savez('a.npz', x=x, y=y)
    assert main('train a.npz --epochs 1 --out n.safetensors'.split()) == 0 == main('predict n.safetensors a.npz'.split())
    assert 'instance,labels,0,1,2' in capsys.readouterr().out


@pytest.mark.parametrize('words, said', [('compare a.csv --text txt', 'mlcl: text: expected columns'), ('compare none.csv', 'mlcl: none.csv: no such'),
    ('compare a.csv --text text --losses regg', 'mlcl: losses: expected'), ('train a.csv --text text --loss regg', 'mlcl: '), ('predict none.safetensors a.csv', 'mlcl: none.safetensors: no such file')])
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts())
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1
