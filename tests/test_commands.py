"The commands for data of one's own."
import re
import numpy as np, pandas as pd, pytest
from mlcl.cli import main
from mlcl.own import MultiLabelClassifier
from own_data import WORDS, numbers, pictures, registry, scratch, texts, write

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
    assert main('predict m.safetensors new.csv --out p.csv'.split()) == 0
    assert main('predict m.safetensors new.csv'.split()) == 0
    p, m = pd.read_csv('p.csv', keep_default_na=False), MultiLabelClassifier.load('m.safetensors')
    assert (capsys.readouterr().out == (tmp_path/'p.csv').read_text()
            and list(p) == ['instance', 'labels', *sorted(WORDS)])
    assert ([tuple(filter(None, l.split('|'))) for l in p.labels] == m.predict_labels(t.text)
            and np.allclose(p[sorted(WORDS)], m.predict_proba(t.text), atol=1e-4))


def test_commands_on_pictures_and_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'p').mkdir()
    pictures(tmp_path/'p')
    assert main('train p --epochs 1 --encoder resnet'.split()) == 0 == main('predict model.safetensors p'.split())
    out = capsys.readouterr().out
    assert '\n0.png,' in out and 'blue,red' in out
    x, y = numbers()
    np.savez('a.npz', x=x, y=y)
    assert main('train a.npz --epochs 1 --out n.safetensors'.split()) == 0
    assert main('predict n.safetensors a.npz'.split()) == 0
    assert 'instance,labels,0,1,2' in capsys.readouterr().out


@pytest.mark.parametrize('words, said', [('compare a.csv --text txt', 'mlcl: text: expected columns'),
    ('compare none.csv', 'mlcl: none.csv: no such'),
    ('compare a.csv --text text --losses regg', 'mlcl: losses: expected'),
    ('train a.csv --text text --loss regg', 'mlcl: '), ('predict none.safetensors a.csv',
                                                        'mlcl: none.safetensors: no such file')])
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts())
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1


@pytest.mark.parametrize('options, said', [
    ('--epochs 0', 'epochs: expected a whole number of at least 1, got 0'), ('--epochs -3', 'epochs: '),
    ('--batch-size 0', 'batch_size: '), ('--lr 0', 'lr: expected a positive number'),
    ('--lr nan', 'lr: '), ('--time-budget 0', 'time_budget: expected a positive number, got 0.0'),
    ('--time-budget nan', 'time_budget: '), ('--time-budget -1', 'time_budget: '), ('--jobs -1', 'jobs: '),
    ('--jobs 0', 'jobs: '), ('--seeds 0', 'seeds: '), ('--min-count -1', 'min_count: '),
    ('--images labels', 'text and images: '), ('--features labels', 'text and features: ')])
def test_options_that_mean_nothing_are_refused_before_work(tmp_path, monkeypatch, capsys, options, said):
    "An option that is nothing, or out of range, is refused before a file is written."
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts())
    assert main(['compare', 'a.csv', '--text', 'text', *options.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f'mlcl: {said}') and err.count('\n') == 1 and not (tmp_path/'compare-a').exists()


@pytest.mark.parametrize('option', ['--losses', '--text', '--sep', '--encoding', '--out', '--labels', '--split',
                                    '--encoder'])
def test_empty_options_are_refused(option):
    with pytest.raises(SystemExit) as e: main(['compare', 'a.csv', option, ''])
    assert e.value.code == 2


@pytest.mark.parametrize('words, said', [
    ('train a.csv --text text --out m.pt', 'out: expected a file that ends in .safetensors'),
    ('train a.csv --text text --out a.csv/m.safetensors', 'out: expected a folder, got the file'),
    ('train a.csv --text text --out /proc/m.safetensors', 'out: cannot write'),
    ('train a.csv --text text --out d.safetensors', 'out: expected a file, got the folder'),
    ('compare a.csv --text text --out a.csv', 'out: expected a folder, got the file'),
    ('predict m.safetensors a.csv --out p.xls', 'out: expected a file that ends in'),
    ('predict a.csv m.safetensors', 'data: expected a table or pictures, got the model'),
    ('train a.csv --text text --readout x', 'readout: expected'),
    ('train a.csv --text text --unknown x', 'unknown: expected')])
def test_outputs_are_checked_before_work(tmp_path, monkeypatch, capsys, words, said):
    "A place that cannot be written is refused before anything is trained."
    monkeypatch.chdir(tmp_path)
    (tmp_path/'d.safetensors').mkdir()
    write(tmp_path/'a.csv', texts())
    monkeypatch.setattr('mlcl.learner.train', lambda *a, **k: 1/0)
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f'mlcl: {said}') and err.count('\n') == 1


def test_hints_are_in_the_words_of_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts().replace('wave', 'café', regex=True), encoding='latin-1')
    assert main('compare a.csv --text text --check'.split()) == 2 and '--encoding latin-1' in capsys.readouterr().err
    write(tmp_path/'a.csv', texts().assign(labels=[f'id{i}' for i in range(120)]))
    assert main('compare a.csv --text text --check'.split()) == 2 and '--min-count 5' in capsys.readouterr().err
    write(tmp_path/'a.csv', texts().assign(split='x'))
    assert main('compare a.csv --text text --check'.split()) == 2 and '--new-splits' in capsys.readouterr().err
    assert main('compare a.csv --text text --check --new-splits'.split()) == 0


def test_predict_keeps_columns_and_writes_what_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts().assign(id=[f'{i:03}' for i in range(120)]))
    MultiLabelClassifier(epochs=1, random_state=0).fit(texts().text, texts().labels).save('m.safetensors')
    assert main('predict m.safetensors a.csv --keep id --out p.parquet --rows 50'.split()) == 0
    assert list(pd.read_parquet('p.parquet').id[:2]) == ['000', '001']
