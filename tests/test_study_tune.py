"Tuning, reports and doing a run again."
import sys
import numpy as np
import pytest
from mlcl import study
from mlcl.study import Store
from study_helpers import part

tuning = sys.modules['mlcl.study.tune'] # the module; `study.tune` is its function


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    return tmp_path


def scored(exp):
    "Validation scores that prefer lr near .002; one try in five fails. The test split is never asked for."
    assert exp.settings['bootstrap'] == 0 and exp.seed == 100
    lr = exp.settings['lr']
    if int(lr*1e6) % 5 == 0: raise FloatingPointError('not finite')
    f1 = 1 - abs(np.log(lr/.002))/10
    return [dict(readout=r, checkpoint='last', split='val', metrics=dict(macro_f1=float(f1)), per_label_f1=None,
                 chosen={}, data_sha256='0',
                 seconds=.1) for r in ('probe', 'probe1')]


@pytest.fixture
def two_sets(results, monkeypatch):
    pytest.importorskip('optuna')
    def here(exps, store, name, jobs, ray, expect, say, runner):
        for e in exps: store.append(study.attempt(e, name, runner))
    monkeypatch.setattr(tuning, 'TUNED', dict(emotions=(50, 200), scene=(50, 200)))
    monkeypatch.setattr(tuning, 'run_all', here)
    return study.store_of('tuned_tries')


def test_tuning(two_sets):
    from mlcl.losses import LOSSES
    assert study.experiments('tuned') == [] and study.plan('tuned').empty and not study.tries(two_sets, 'scene', 'reg')
    assert study.tune(only='dataset=emotions,loss=reg,loss=bce', runner=scored, progress=False) == 2*study.TRIES
    assert two_sets.path.name == 'tuned_tries.sqlite' and two_sets.path.exists()
    first = next(iter(study.tries(two_sets, 'emotions', 'reg').values()))[0]
    # the common setting
    assert (dict(lr=first['lr'], epochs=first['epochs']) == study.LABELS['emotions']
            and first['loss']['temperature'] == .1)
    es = study.experiments('tuned')
    assert ({(e.dataset, e.loss) for e in es} == {('emotions', 'reg'), ('emotions', 'bce')}
            and [e.seed for e in es] == 2*list(range(5)))
    assert all(e.settings['bootstrap'] == 1000 and e.settings['checkpoints'] == ['last', 'best'] for e in es)
    for l in ('reg', 'bce'):
        t = study.tries(two_sets, 'emotions', l)
        values = {s['lr']: v for s, v in t.values() if v is not None}
        assert len(t) == study.TRIES and {e.settings['lr'] for e in es if e.loss == l} == {max(values, key=values.get)}
    assert study.tune(runner=scored, progress=False) == 2*len(LOSSES)*study.TRIES
    assert len(study.experiments('tuned')) == 2*len(LOSSES)*5


def as_wished(exp):
    """BCE likes a large rate of its new layers, REG a small one of the network; a readout that does not count
    prefers the opposite."""
    s = exp.settings
    f1 = s['head_lr']*10 + 5*('prior_bias' not in s) if exp.loss in ('bce', 'zlpr') else 1 - s['lr']*1000
    return [dict(readout=r, checkpoint='last', split='val', metrics=dict(macro_f1=f), per_label_f1=None, chosen={},
                 data_sha256='0', seconds=.1)
            for r, f in (('linear@features|each', f1), ('proto|each', f1/2), ('own@.5', 2 - f1))]


def test_whole_networks_take_the_rates_of_their_search(results):
    common, store = study.experiments('pretrained'), study.store_of('pretrained_search')
    assert len(common) == 3*7*6 and {(e.settings['lr'], e.settings.get('head_lr')) for e in common} == {(3e-4, None)}
    tries = [e for e in study.experiments('pretrained_search') if e.dataset == 'reuters90' and 'head_lr' in e.settings]
    assert len(tries) == 4*6 + 1 and all(e.settings['bootstrap'] == 0 for e in tries)
    for e in tries:
        if e.loss in ('bce', 'reg') or e.loss == 'zlpr' and e.settings['lr'] == 1e-4:
            store.append(study.attempt(e, 'pretrained_search', as_wished))
    assert (study.best_rates('reuters90') == dict(bce=(1e-4, 1e-2), reg=(3e-5, 1e-3))
            and study.whole_tries('reuters90')['bce'][1e-4, 1e-3] == pytest.approx(.0075)
            and len(study.whole_tries('reuters90')['zlpr']) == 2)
    got = study.experiments('pretrained')
    rates = {(e.dataset, e.loss): (e.settings['lr'], e.settings.get('head_lr')) for e in got}
    assert {k for k in rates if k[0] in ('reuters90', 'semeval2018_ec',
                                         'aapd')} == {(d, l) for d in ('reuters90', 'semeval2018_ec', 'aapd')
                                                      for l in ('bce', 'reg')}
    # one try without does not count
    assert all(e.settings.get('prior_bias', False) == (e.loss == 'bce') for e in got if e.dataset == 'aapd')
    assert (rates['aapd', 'bce'] == (1e-4, 1e-2) and rates['semeval2018_ec', 'reg'] == (3e-5, 1e-3)
            and rates['debtags', 'zlpr'] == (3e-4, None))
    assert {e.id for e in got if e.dataset == 'ucmerced_ml'} == {e.id for e in common if e.dataset == 'ucmerced_ml'}


def likes(exp):
    "BCE likes weight decay, REG a low temperature; each readout sees it with another offset, and one does not count."
    s = exp.settings
    f1 = s['weight_decay'] if exp.loss == 'bce' else 1 - s['loss']['temperature']
    return [dict(readout=r, checkpoint='last', split='val',
                 metrics=dict(macro_f1=f1 + more + (exp.seed - 100)/10 - s['lr']), per_label_f1=None, chosen={},
                 data_sha256='0', seconds=.1) for r, more in (('linear@features|each', 0), ('own|each', .2),
                                                              ('own@.5', -9*s['lr']))]


def test_second_search(results):
    es, store = study.experiments('search_again'), study.store_of('search_again')
    of = {(d, l): [e for e in es if (e.dataset, e.loss) == (d, l)] for d in study.AGAIN for l in study.FIRST_SIX}
    assert {len(v) for v in of.values()} <= {24, 26} and study.experiments('tuned_again') == []
    assert all(e.settings['bootstrap'] == 0 and {100: 1, 101: 2}[e.seed] == e.settings['data']['resplit'] for e in es)
    assert study.design('scene', 'reg')[0] == study.LABELS['scene'] and len(study.design('scene', 'bce')) == 13
    for e in of['scene', 'bce'] + of['scene', 'reg'] + of['birds', 'reg'][:-1]:
        store.append(study.attempt(e, 'search_again', likes))
    got = study.experiments('tuned_again')
    assert ({(e.dataset, e.loss) for e in got} == {('scene', 'bce'), ('scene', 'reg')} and len(got) == 10
            and {e.seed for e in got} == set(range(5)))
    for e in got:
        assert (e.settings['lr'] == 3e-4 and e.settings['bootstrap'] == 1000 and 'resplit' not in e.settings['data']
                and e.settings['encoder']['widths'] == [256])
        assert e.settings['weight_decay'] == .3 if e.loss == 'bce' else e.settings['loss']['temperature'] == .05
    held = study.over_readouts('search_again')
    values = study.values_again('scene', 'reg', held)
    assert (len(values) == 13 and values[0] == pytest.approx(.9 + .1 + .05 - 1e-3)
            and study.values_again('birds', 'reg', held) == [])


def test_tuning_goes_on_where_it_was(two_sets, tmp_path):
    only = 'dataset=scene,loss=abalone'
    study.tune(only=only, runner=scored, progress=False)
    whole = list(study.tries(two_sets, 'scene', 'abalone'))
    two_sets.path.unlink()
    count = []
    def stopped(exp):
        count.append(1)
        if len(count) == 5: raise KeyboardInterrupt
        return scored(exp)
    with pytest.raises(KeyboardInterrupt): study.tune(only=only, runner=stopped, progress=False)
    store = Store(two_sets.path)
    assert len(study.tries(store, 'scene', 'abalone')) == 4
    study.tune(only=only, runner=scored, progress=False)
    assert list(study.tries(Store(two_sets.path), 'scene', 'abalone')) == whole
    for bad in ('dataset=scen', 'loss=regg'):
        with pytest.raises(ValueError, match='only: '): study.tune(only=bad, runner=scored)
    with pytest.raises(ValueError, match='study: '): study.tune('first')


def test_every_loss_has_something_to_tune_and_every_space_is_one_of_settings():
    pytest.importorskip('optuna')
    from mlcl.losses import LOSSES
    for l in LOSSES:
        first = study.attempt_at('yeast', l, study.ask('yeast', l, []))
        study.attempt_at('yeast', l, study.ask('yeast', l, [(first.settings, .4)]*6))
    assert ({'hill', 'splc', 'softjac', 'gma', 'multisupcon', 'sincere'} <= set(study.SPACE)
            and set(study.SPACE) <= set(LOSSES))


def numbers(shift=0.): return dict(micro_f1=.7 + shift, macro_f1=.5 + shift, map=.6 + shift)


def runner(shift=0., sha='0'):
    "A run whose numbers are moved by its seed, and by `shift`."
    return lambda exp: [r | dict(metrics=numbers(shift + .01*exp.seed), data_sha256=sha) for r in part(exp.seed)]


@pytest.fixture
def seeds(results, monkeypatch):
    monkeypatch.setitem(study.STUDIES, 't',
                        study.Study('t', 'a test', lambda: study.grid(study.SMOKE, ('reg', 'bce'), range(5))))
    store = study.store_of('t')
    for e in study.experiments('t'): store.append(study.attempt(e, 't', runner()))
    return study.experiments('t', only='loss=reg')


def test_reproduce_answers_in_three_words(seeds, results, capsys):
    from mlcl.cli import main
    (results/'bench.jsonl').write_text('{"kind": "not a record of a study"}\n'*2)
    run = seeds[0].id
    for shift, said in ((0., 'equal'), (.05, 'within training noise'), (.2, 'differs')):
        t = study.reproduce(run[:8], runner(shift))
        assert set(t.answer) == {said} and study.worst(t.answer) == said and len(t) == 2*3
    assert len(study.reproduce(f'{run}/probe1', runner())) == 3
    for bad, how, said in [('nothing', None, 'id: expected'), (run, runner(sha='1'), 'data: expected')]:
        with pytest.raises(ValueError, match=said): study.reproduce(bad, how)
    assert main(['study', 'reproduce', 'nothing']) == 2 and 'id: expected' in capsys.readouterr().err


def test_the_bar_is_the_spread_of_seeds_of_the_same_experiment(seeds):
    from scipy.stats import t
    v = np.array([.5 + .01*i for i in range(5)])
    half = t.ppf(.995, 4)*v.std(ddof=1)*np.sqrt(1.2)
    assert study.noise(v) == pytest.approx((v.mean() - half, v.mean() + half))
    r = study.find(seeds[2].id)[1]
    # not those of BCE
    assert {x['metrics']['macro_f1'] for x in study.seeds_of(r, 't') if x['readout'] == 'probe'} == set(v)


def test_a_run_is_done_again_with_the_threads_that_it_had(seeds):
    "Threads decide the order of sums: the run of `tuned` that seemed not to come out again had been given two."
    import torch
    before, seen = torch.get_num_threads(), []
    def spy(exp): seen.append(torch.get_num_threads()); return runner()(exp)
    store, e = study.store_of('t'), study.Experiment('digits', 'resnet', 'zlpr', study.SMOKE['digits'].settings)
    store.append([r | dict(machine=dict(threads=3)) for r in study.attempt(e, 't', runner())])
    study.reproduce(e.id, spy)
    recs = [{k: v for k, v in r.items() if k != 'machine'}
            for r in study.attempt(study.Experiment('digits', 'resnet', 'zlpr', study.SMOKE['digits'].settings, seed=1),
                                   't', runner())]
    store.append(recs)
    study.reproduce(recs[0]['run'], spy)
    assert seen == [3, 1] and torch.get_num_threads() == before


def test_runs_done_again_are_counted(seeds):
    again = study.store_of('again')
    for e, shift in zip(seeds, (0., .05, .3)): again.append(study.attempt(e, 'again', runner(shift)))
    t = study.reruns().set_index('seed')
    assert t.answer.to_dict() == {0: 'equal', 1: 'within training noise', 2: 'differs'} and set(t.study) == {'t'}


@pytest.mark.parametrize('name', ['first', 'labels_search', 'labels', 'tuned_tries'])
def test_published_records_are_found(name):
    "Beside everything else that lies in results/."
    r = next(iter(study.store_of(name).records(['id', 'run'])))
    assert {x['run'] for x in study.find(r['id'])} == {r['run']}
