"Comparing losses on data of one's own, and the report."
import html.parser, json, re, time, types
from importlib import import_module
import numpy as np, pytest
from mlcl.study import Store
from mlcl.own import MultiLabelClassifier, label_matrix, read, recommend
from own_data import QUIET, WORDS, noisy, numbers, registry, scratch, texts

c, options, choices, report = (import_module(f'mlcl.own.{m}') for m in ('compare', 'options', 'choices', 'report'))
READ = choices.COUNTED['label']

@pytest.mark.parametrize('options, said', [(dict(losses=['regg']), 'losses: expected names among bce'),
    (dict(seeds=0), 'seeds: expected a whole number of at least 1'),
    (dict(time_budget=-1), 'time_budget: expected a positive'),
    (dict(time_budget=float('nan')), 'time_budget: expected a positive'),
    (dict(losses=[]), 'losses: expected at least one'),
    (dict(thresholds='each'), "thresholds: expected 'label', 'global' or .5, got 'each'"),
    (dict(epochs=0), 'epochs: expected a whole number of at least 1'),
    (dict(finetune=True, encoder='bag'), 'finetune: expected an encoder among .*, got bag'),
    (dict(encoder='mlp'), "'mlp' reads features"), (dict(encoder='bag', lr=1e30),
                                                    'trial: one epoch of bce with bag failed: TrainingFailed')])
def test_bad_settings_are_refused(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        c.compare(texts(), text='text', out=tmp_path/'out', baselines=False, say=QUIET, **options)


@pytest.mark.parametrize('frozen', ['', ':frozen'])
def test_finetune_trains_all_of_a_pretrained_network(tmp_path, frozen):
    from mlcl.encoders import tiny_roberta
    tiny_roberta(tmp_path/'net', list(noisy().text))
    lines = []
    res = c.compare(noisy(), ['bce'], seeds=1, epochs=1, text='text', encoder=f"hf:{tmp_path/'net'}{frozen}",
                    finetune=True, baselines=False, out=tmp_path/'out', say=lines.append)
    assert (res['encoder'] == f"hf:{tmp_path/'net'}" and res['settings']['prior_bias']
            and res['settings']['head_lr'] == 1e-3)
    assert any('about' in l and '1 losses' in l for l in lines) # the time is said before the training
    ds = read(noisy(), text='text')
    model = MultiLabelClassifier(encoder=f"hf:{tmp_path/'net'}{frozen}", finetune=True, epochs=1).fit_dataset(ds)
    assert (model.trained_.encoder_name == f"hf:{tmp_path/'net'}"
            and all(p.requires_grad for n, p in model.trained_.model.encoder.named_parameters() if 'pooler' not in n))


def test_finetune_needs_a_pretrained_network(monkeypatch):
    monkeypatch.setattr(choices, 'pretrained', lambda kind: None)
    with pytest.raises(ValueError, match='finetune: expected a pretrained network on this machine, got none; encoder '
                                         'hf:sentence-transformers'):
        choices.unfrozen('text')
    with pytest.raises(ValueError, match='finetune: expected texts or pictures, got numbers'):
        c.compare(numbers(), ['bce'], finetune=True, say=QUIET)


def test_memory_is_estimated_before_training(tmp_path, monkeypatch):
    for m in (c, options): monkeypatch.setattr(m, 'available', lambda: 2e8)
    with pytest.raises(ValueError, match='training: needs about 1.5 GB of memory, and 0.2 GB are free'):
        c.compare(texts(), text='text', out=tmp_path/'out', say=QUIET)
    assert not (tmp_path/'out').exists()
    y = np.zeros((1000, 40_000), np.uint8)
    y[:, ::10] = 1
    with pytest.raises(ValueError, match='1,000 instances × 40,000 labels: needs about'): label_matrix(y)


# --- comparing

@pytest.fixture(scope='module')
def compared(tmp_path_factory):
    out, lines = tmp_path_factory.mktemp('compare'), []
    res = c.compare(noisy(), ('reg', 'bce', 'zlpr'), seeds=2, out=out, epochs=15, text='text', say=lambda s,
                    **_: lines.append(s))
    return out, res, lines


def test_compare_reports(compared):
    out, res, lines = compared
    assert json.loads((out/'report.json').read_text()) == json.loads(json.dumps(res))
    blends = {r['loss'] for r in res['losses'] if '+' in r['loss']}
    assert ({r['loss'] for r in res['losses']} == {'reg', 'bce', 'zlpr'} | blends
            and all(r['seeds'] == 2 for r in res['losses']))
    assert ([n.count('+') for n in sorted(blends, key=len)] == [1, 2]
            and all(r.get('bases', 0) == r['loss'].count('+') for r in res['losses']))
    val = [r['val_macro_f1'] + r['val_micro_f1'] for r in res['losses']]
    assert val == sorted(val, reverse=True) and val[0] > 1.2
    rows = res['losses'] + res['baselines']
    top = next(r for r in rows if r['loss'] == res['take'])
    assert top['behind'] == [None]*3
    for r in rows:
        if r is not top: assert r['behind'][0] == pytest.approx(top['macro_f1'] - r['macro_f1'], abs=2e-5)
    assert all(r['lower'] <= r['macro_f1'] <= r['upper'] and r['readout'] in READ for r in res['losses']
               if r['loss'] not in blends)
    recs = Store(out/'records').read()
    assert ({r['checkpoint'] for r in recs if r['readout'] != 'online'} == {'best'} and {r['study'] for r in recs}
            == {'trial', 'baseline', 'compare', 'blend'})
    for r in rows: # validation data alone choose the readout
        of = lambda split, m='macro_f1': {k: np.mean([x['metrics'][m] for x in recs if x['study'] != 'trial'
                                                      and (x['loss'], x['readout'], x['split'])
                                                      == (r['loss'], k, split)])
                            for k in ('own|label', 'linear@features|label', 'scores|label')
                            if k in {x['readout'] for x in recs if x['loss'] == r['loss']}}
        both = {k: v + of('val', 'micro_f1')[k] for k, v in of('val').items()}
        assert (both[r['readout']] == max(both.values())
                and r['val_macro_f1'] == pytest.approx(of('val')[r['readout']], abs=2e-5))
        assert r['macro_f1'] == pytest.approx(of('test')[r['readout']], abs=2e-5)
    assert [l['label'] for l in res['labels']] == sorted(WORDS) and f" {res['take']} (" in res['recommendation'][:60]
    assert (any('about' in l and 'cpu' in l or 'GPU' in l for l in lines)
            and sum(l.startswith('[') and 'val Macro-F1' in l for l in lines) == 6)
    assert {r['loss'] for r in res['baselines']} == {'frequent', 'tfidf_svm', 'tfidf_logistic',
                                                     'chars_svm'} == {l.partition(':')[0] for l in lines
                                                                      if ': val Macro-F1' in l and '+' not in l}


@pytest.mark.parametrize('noise, first', [(0., 'bce'), (.3, 'tfidf_svm')])
def test_a_loss_has_to_lead_by_a_standard_error(noise, first):
    from mlcl.metrics import pack
    rng = np.random.default_rng(0)
    def rec(loss, f1):
        spread = dict.fromkeys(('macro_f1', 'micro_f1'), pack(f1 + noise*rng.normal(size=100)))
        return dict(id=loss, loss=loss, readout='x', split='val', checkpoint='best', seed=0, dataset='d',
                    replicates=spread, metrics=dict(macro_f1=f1, micro_f1=f1))
    assert report._best([rec('bce', .6), rec('tfidf_svm', .5), rec('frequent', .1)]).index[0] == first
    assert report._best([rec('bce', .5), rec('tfidf_svm', .6)]).index[0] == 'tfidf_svm'


@pytest.mark.parametrize('macro, micro, first', [(.60, .496, 'bce'), (.60, .494, 'tfidf_svm'), (.494, .60, 'tfidf_svm'),
                                                 (.51, .51, 'bce'), (.49, .49, 'tfidf_svm')])
def test_a_lead_must_not_cost_the_other_measure(macro, micro, first):
    def rec(loss, macro, micro):
        return dict(id=loss, loss=loss, readout='x', split='val', checkpoint='best', seed=0, dataset='d',
                    metrics=dict(macro_f1=macro, micro_f1=micro))
    recs = [rec('bce', macro, micro), rec('tfidf_svm', .5, .5), rec('frequent', .1, .1)]
    assert report._best(recs).index[0] == first
    if first == 'tfidf_svm': # the next model that leads in both is taken
        assert report._best(recs + [rec('bce+tfidf_svm', .51, .505)]).index[0] == 'bce+tfidf_svm'


def test_scores_on_validation_data_are_cross_fitted():
    from mlcl.metrics import predict, scores
    from mlcl.own.baselines import measured
    from mlcl.probe import Readout
    rng = np.random.default_rng(0)
    y, p = (rng.random((100, 30)) < .1).astype(int), rng.normal(size=(100, 30)) # the scores know nothing
    t = choices.label_thresholds(y, p)
    pred = choices.crossfitted(y, p, choices.label_thresholds)
    part = np.random.default_rng(0).permutation(100) % 5
    np.testing.assert_array_equal(pred[part == 3],
                                  predict(p[part == 3], choices.label_thresholds(y[part != 3], p[part != 3])))
    m = measured(y, 'own|label', Readout(dict(val=p), t, {}, rank=dict(val=p)), 'val', {})['metrics']
    assert m['macro_f1'] < scores(y, p, t)['macro_f1'] # what the same data choose flatters
    one = np.zeros_like(y); one[7, 0] = 1
    # no positive elsewhere: nothing is predicted
    assert choices.crossfitted(one, p, choices.label_thresholds)[part == part[7]].sum() == 0


def test_report_is_one_page(compared):
    class Page(html.parser.HTMLParser):
        def __init__(self): super().__init__(); self.tags, self.text = [], ''
        def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
        def handle_data(self, data): self.text += data
    page, text = Page(), (compared[0]/'report.html').read_text()
    page.feed(text)
    images = [a for t, a in page.tags if t == 'img']
    assert len(images) == 4 and all(len(a['alt']) > 30 and a['src'].startswith('data:image/svg+xml;base64,')
                                    for a in images)
    assert (not re.search(r'(src|href)="(?!data:)', text) and 'script' not in {t for t, _ in page.tags}
            and 'prefers-color-scheme: dark' in text and '$' not in page.text)
    assert compared[1]['recommendation'] in page.text and all(l in page.text for l in WORDS)


def test_names_are_escaped(tmp_path):
    t = texts()
    t['labels'] = t.labels.str.replace('sea', '<b>&sea')
    t['split'] = np.where(np.arange(120) < 80, 'train', 'test')
    t.loc[119, 'labels'] = '<b>lost'
    c.compare(t, ['bce'], seeds=1, out=tmp_path, epochs=1, text='text', say=QUIET)
    assert ('<b>' not in (tmp_path/'report.html').read_text()
            and '&lt;b&gt;&amp;sea' in (tmp_path/'report.html').read_text())


def test_compare_resumes(compared, monkeypatch):
    out, res, _ = compared
    before, real, done = (out/'records.parquet').read_bytes(), c.attempt, []
    monkeypatch.setattr(c, 'attempt', lambda e, *a: done.append(e.loss) or real(e, *a))
    again = c.compare(noisy(), ('reg', 'bce', 'zlpr'), seeds=2, out=out, epochs=15, text='text', say=QUIET)
    assert not done and again['losses'] == res['losses'] and (out/'records.parquet').read_bytes() == before
    c.compare(noisy(), ('reg', 'bce', 'asl'), seeds=2, out=out, epochs=15, text='text', say=QUIET)
    assert done == ['asl', 'asl']
    # other data: nothing is reused
    c.compare(noisy(seed=1), ('reg',), seeds=1, out=out, epochs=15, text='text', say=QUIET)
    assert done[2:-2] == ['frequent', 'tfidf_svm', 'tfidf_logistic', 'chars_svm'] and done[-2:] == ['reg', 'reg']


def test_a_failed_run_is_reported_and_tried_again(tmp_path, monkeypatch):
    real, bad = c.attempt, [True]
    def attempt(e, study, runner):
        def broken(e): raise MemoryError('out of memory')
        return real(e, study, broken if bad[0] and e.loss == 'bce' and study == 'compare' else runner)
    monkeypatch.setattr(c, 'attempt', attempt)
    options = dict(losses=['reg', 'bce'], seeds=1, out=tmp_path, epochs=2, baselines=False, text='text', say=QUIET)
    res = c.compare(texts(), **options)
    assert (res['failed'] == {'bce seed 0': 'out of memory'}
            and 'bce seed 0: out of memory' in (tmp_path/'report.html').read_text())
    bad[0] = False
    assert c.compare(texts(), **options)['failed'] == {}


# --- the time

TIMES = dict.fromkeys(('bce', 'asl', 'zlpr', 'reg'), (1., 2.)) # seconds of an epoch, of the rest: twelve for ten epochs

@pytest.mark.parametrize('budget, want', [(144, (4, 3, 10)), (143, (3, 3, 10)), (107, (4, 2, 10)), (71, (4, 1, 10)),
                                          (47, (3, 1, 10)), (35, (3, 1, 9)),
                                          (24, (3, 1, 6)), (23, (2, 1, 6)), (9, (1, 1, 6)), (1, (1, 1, 6))])
def test_losses_go_first_then_seeds_then_epochs(budget, want):
    p = choices.fit_time(budget, TIMES, seeds=3, epochs=10, floor=6)
    assert (len(p.losses), p.seeds, p.epochs) == want
    assert p.seconds == want[0]*want[1]*(2 + want[2]) and (p.seconds <= budget or budget < 8)


def test_one_loss_alone_gives_up_seeds_and_epochs():
    p = choices.fit_time(10, dict(bce=(1., 2.)), seeds=5, epochs=10, floor=6)
    assert (p.losses, p.seeds, p.epochs) == (('bce',), 1, 8)


@pytest.mark.parametrize('f1, want', [([.5, .61, .63, .632, .629], 23), ([.5, .6, .7, .8, .9], 40),
                                      ([.9, .8, .7, .6, .5], 8)])
def test_a_learning_curve_justifies_epochs(f1, want):
    assert choices.enough([dict(epoch=e, val_macro_f1=f) for e, f in zip((5, 10, 15, 20, 40), f1)]) == want


def test_what_was_given_up_is_said():
    all_, few = choices.Plan(('bce', 'asl'), 3, 10, 1.), choices.Plan(('bce',), 1, 6, 1.)
    assert choices.given_up(all_, all_) == []
    losses, seeds, epochs = choices.given_up(all_, few)
    assert (losses.startswith('1 of 2 losses') and 'asl' in losses and '1 of 3 seeds' in seeds
            and 'seed to seed' in seeds and '6 of 10 epochs' in epochs)


class Clock:
    "A clock that stands still until a run takes time."
    def __init__(self): self.now = 0.
    monotonic = lambda self: self.now


def on_a_clock(monkeypatch, budget, took, seeds=3, losses=('bce', 'asl', 'zlpr', 'reg'), rises=False):
    "`train_all` where a run takes `took(loss, epochs)` seconds of a fake clock, and trials forecast 2 + epochs."
    clock, done = Clock(), []
    class Store:
        def has(self, i): return i in {e.id for e in done}
        def failed(self): return {}
        def records(self, run=None):
            f1 = [.1*i for i in range(1, 11)] if rises else [.1, .3, .5, .6] + [.6]*6
            return [dict(run=e.id, study='compare', readout='online', seconds=took(e.loss, e.settings['epochs']),
                         steps={},
                         history=[dict(epoch=round(e.settings['epochs']*(i + 1)/10), val_macro_f1=f)
                                  for i, f in enumerate(f1)]) for e in done if run in (None, e.id)]
    def run_all(todo, *a):
        for e in todo: clock.now += took(e.loss, e.settings['epochs']); done.append(e)
    monkeypatch.setattr(c, 'time', types.SimpleNamespace(**vars(time) | dict(monotonic=clock.monotonic)))
    monkeypatch.setattr(c, 'run_all', run_all)
    monkeypatch.setattr(c, 'trials', lambda ds, enc, losses, *a: dict.fromkeys(losses, (1., 2.)))
    ds, said = read(texts(), text='text'), []
    c.own(ds)
    exps, lost, expected = c.train_all(ds, 'bag', dict(epochs=20, batch_size=32, lr=.003), list(losses), seeds, 1,
                                       budget, budget, Store(), None, said.append)
    return clock.now, done, lost, expected


def test_the_forecast_is_right_where_the_trial_was(monkeypatch):
    spent, done, lost, expected = on_a_clock(monkeypatch, 1e6, lambda l, e: 2. + e)
    assert len(done) == 12 and lost == [] and spent == expected == 12*22


@pytest.mark.parametrize('slow', [.5, 1, 3])
def test_the_forecast_is_corrected_and_the_time_kept(monkeypatch, slow):
    spent, done, lost, expected = on_a_clock(monkeypatch, 300, lambda l, e: slow*(2. + e))
    assert spent <= 300 and spent/1.5 <= expected <= 1.5*spent and {e.settings['epochs'] for e in done} == {20}
    assert bool(lost) == (slow*22*12 > 300)


def test_the_time_is_kept_within_a_seed(monkeypatch):
    # losses after the first take four times as long as forecast: no run begins that should end too late
    spent, done, lost, _ = on_a_clock(monkeypatch, 300, lambda l, e: (2. + e)*(1 if l == 'bce' else 4))
    assert spent <= 300 + 3*22 and 'the time was up before' in lost[-1] and [e.loss for e in done][:2] == ['bce', 'asl']


def test_no_fewer_epochs_than_the_curve_justifies(monkeypatch):
    run = lambda budget, **k: [(e.loss, e.settings['epochs'])
                               for e in on_a_clock(monkeypatch, budget, lambda l, e: 2. + e, **k)[1]]
    # level from epoch 8 of 20 on: 12 are enough for three losses
    assert run(64) == [('bce', 20), ('bce', 12), ('asl', 12), ('zlpr', 12)]
    # a curve that rises to its end justifies no fewer
    assert run(60) == run(64, rises=True) == [('bce', 20), ('asl', 20)]


def test_time_budget(tmp_path, monkeypatch):
    # a clock that stands still: the forecast alone says how much fits, however busy the machine is
    monkeypatch.setattr(c, 'time', types.SimpleNamespace(**vars(time) | dict(monotonic=lambda: 0.)))
    res = c.compare(texts(), ['bce'], seeds=50, out=tmp_path, epochs=20, time_budget=.2, text='text', say=QUIET)
    assert (res['losses'][0]['seeds'] < 50
            and ' of 50 seeds' in res['time']['given_up'][0] in (tmp_path/'report.html').read_text())
    said = [] # the forecast is kept: the same command goes on where it was
    c.compare(texts(), ['bce'], seeds=50, out=tmp_path, epochs=20, time_budget=.2, text='text', say=lambda s,
              **_: said.append(s))
    assert 'all runs are in the store already' in said


def test_recommendation():
    row = lambda loss, behind: dict(loss=loss, readout='probe', val_macro_f1=.5, val_micro_f1=.6, macro_f1=.5, lower=.4,
                                    upper=.6, behind=behind)
    said = recommend([row('reg', [None]*3), row('bce', [.01, -.01, .03]), row('asl', [.1, .05, .15]),
                      row('db', [-.1, -.2, -.01])])
    assert (said.startswith('Take reg') and 'better than asl' in said
            and 'told apart from bce — bce is the simplest' in said and 'But db did better' in said)
    assert recommend([row('reg', [None]*3)]).endswith('on test data.')


def test_a_baseline_that_wins_is_said_first():
    row = lambda name, behind, baseline=False: dict(loss=name, baseline=baseline, about='words, linear SVM',
                                                    readout='x|label', val_macro_f1=.5, val_micro_f1=.6,
                                                    macro_f1=.5, lower=.4, upper=.6, behind=behind, seconds=3.)
    said = recommend([row('tfidf_svm', [None]*3, True), row('chars_svm', [.01, -.1, .1], True),
                      row('bce', [.031, .01, .05])])
    assert (said.startswith('Take the baseline tfidf_svm (words, linear SVM)')
            and 'The best loss, bce, took 3 s and is behind by 0.031 [0.010, 0.050]' in said)
    said = recommend([row('bce', [None]*3), row('tfidf_svm', [.01, -.02, .03], True)])
    assert (said.startswith('Take bce') and 'The best baseline, tfidf_svm, took 3 s and cannot be told apart' in said
            and said.endswith('the simpler of the two will do.'))
    ahead = row('bce', [.0, -.1, .1]) | dict(val_macro_f1=.6)
    # the error of a lead is known where thresholds are chosen
    for readout, sure in (('x|label', True), ('x|global', True), ('own@.5', False)):
        said = recommend([row('tfidf_svm', [None]*3, True) | dict(readout=readout), ahead])
        assert 'no other model is' in said and ('by more than a standard error' in said) is sure


def test_ties_go_to_the_baseline():
    of = lambda name: dict(dataset='d', loss=name, readout='x|label', split='val', checkpoint='best', seed=0,
                           encoder='', fraction=1., settings={}, metrics=dict(macro_f1=.5, micro_f1=.5))
    best = import_module('mlcl.own.report')._best
    assert best([of('bce'), of('tfidf_svm')]).index[0] == 'tfidf_svm' == best([of('tfidf_svm'), of('bce')]).index[0]


def test_the_forecast_of_a_run_is_near_its_time(tmp_path):
    # what a trial of one epoch says of a run of thirty, on texts
    ds = read(noisy(), text='text')
    c.own(ds)
    store, said = c.Store(tmp_path/'records'), []
    s = c.choose_settings(ds)[1] | dict(epochs=30, checkpoints=['best'], probe=choices.probe_settings('label'))
    exps, lost, expected = c.train_all(ds, 'bag', s, ['bce', 'zlpr'], 1, 1, None, None, store, tmp_path, lambda *a,
                                       **k: said.append(a))
    took = sum(store.records(run=e.id)[0]['seconds'] for e in exps)
    assert lost == [] and expected/6 < took < 6*expected # runs of two seconds, on a machine that may be busy


# --- thresholds

def test_thresholds_for_each_label():
    from mlcl.metrics import tune_threshold, tune_thresholds
    rng = np.random.default_rng(0)
    y = (rng.random((200, 4)) < (.4, .2, .02, .0)).astype(int)
    p = rng.normal(size=y.shape) + 2*y
    t, common, own, m = choices.label_thresholds(y, p), tune_threshold(y, p), tune_thresholds(y, p), y.sum(0)
    np.testing.assert_allclose(t[:3], ((m*own + 10*common)/(m + 10))[:3])
    assert m[3] == 0 and t[3] == tune_threshold(y, p, 'micro_f1')


@pytest.mark.parametrize('positives', [1, 3, 6, 9])
def test_thresholds_never_lose_badly_on_rare_labels(positives):
    # twenty draws of a validation and a test set with a rare label: on average the threshold for each label is
    # hardly worse than the common one
    from mlcl.metrics import per_label_f1, predict, tune_threshold, tune_thresholds
    lost, alone = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = np.zeros((2, 300, 5), int)
        for part in y:
            for l, n in enumerate((90, 60, 40, positives, positives)): part[rng.choice(300, n, replace=False), l] = 1
        p = rng.normal(size=y.shape) + 2.5*y
        f1 = lambda t: np.mean(per_label_f1(y[1], predict(p[1], t))[3:])
        common = f1(tune_threshold(y[0], p[0]))
        lost.append(common - f1(choices.label_thresholds(y[0], p[0])))
        alone.append(common - f1(tune_thresholds(y[0], p[0])))
    assert np.mean(lost) < .02 and np.mean(lost) <= np.mean(alone) + .02


def test_a_classifier_is_read_out_as_a_comparison():
    rng = np.random.default_rng(0)
    y = (rng.random((300, 3)) < .3).astype(np.uint8)
    x = (rng.normal(size=(300, 8)) + 1.5*y @ rng.normal(size=(3, 8))).astype(np.float32)
    part = dict(train=slice(0, 150), val=slice(150, 300))
    outputs = {k: dict(features=x[s], own=x[s, :3]*0, proto=None, projection=None) for k, s in part.items()}
    ys = {k: y[s] for k, s in part.items()}
    name, probe, t = choices.choose_readout(outputs, ys, 'bce')
    from mlcl.probe import read_out
    r = choices.by_label(read_out(outputs, ys, 'bce', kind='linear'), ys['val'])[name]
    assert name == 'linear@features|label' and t.shape == (3,)
    np.testing.assert_array_equal(probe.proba(x, 0)[150:] > t, r.p['val'] > r.threshold)
    assert choices.choose_readout(outputs, ys, 'bce', readout='own|label')[1] is None
    with pytest.raises(ValueError, match='readout: expected one of own'):
        choices.choose_readout(outputs, ys, 'bce', readout='probe')


def test_settings_follow_kind_and_size():
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    few, many = read(numbers()), read((x, (x > 0).astype(int)))
    assert c.choose_settings(few)[1]['batch_size'] < c.choose_settings(many)[1]['batch_size']
    assert c.choose_settings(few)[1]['epochs'] > c.choose_settings(many, epochs=None)[1]['epochs'] >= 10
    assert (c.choose_settings(few, 'hf:x')[1].items() >= dict(head_lr=1e-3, prior_bias=True, lr=2e-5).items()
            and 'head_lr' not in c.choose_settings(few)[1])
    assert (c.choose_settings(few)[0] == 'mlp' and c.choose_settings(read(texts(), text='text'))[0] == 'bag'
            and c.choose_settings(few, epochs=7)[1]['epochs'] == 7)


def test_an_encoder_that_cannot_read_the_data_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(c, 'run_baselines', lambda *a: pytest.fail('work has begun'))
    for encoder, said in ('resnot',
                          '^encoder: expected one of'), ('bag', "^encoder: 'bag' reads text data, not features data"):
        for folds in None, 3:
            with pytest.raises(ValueError, match=said):
                c.compare(numbers(), ['bce'], encoder=encoder, folds=folds, out=tmp_path/'a', say=QUIET)


def test_a_loss_named_twice_counts_once():
    assert c.checked_losses(['reg', 'bce', 'reg']) == ['reg', 'bce']


def test_unknown_labels(tmp_path):
    "Losses on logits leave unknown labels out; a contrastive loss cannot."
    x, y = numbers(200)
    y = np.where(np.random.default_rng(0).random(y.shape) < .2, np.nan, y)
    res = c.compare((x, y), ['bce', 'zlpr'], seeds=1, epochs=2, unknown='mask', out=tmp_path/'a', say=QUIET)
    assert ({r['loss'] for r in res['losses'] if 'bases' not in r} == {'bce', 'zlpr'} and not res['failed']
            and res['baselines'][0]['macro_f1'] > .5)
    with pytest.raises(ValueError, match="losses: expected losses on logits where labels are unknown, got reg; "
                                         "unknown='absent'"):
        c.compare((x, y), ['bce', 'reg'], seeds=1, epochs=1, unknown='mask', out=tmp_path/'b', say=QUIET)
    lines = []
    left = c._usable(read((x, y), unknown='mask'), c.ORDER, lines.append)
    assert left and all(c.LOSSES[l].route == 'logits' for l in left) and 'contrastive losses are left out' in lines[0]
    assert c._usable(read((x, y), unknown='absent'), c.ORDER, lines.append) == c.ORDER


# --- folds

def fold_result(k, scores, **more):
    "What a comparison of one fold returns, as far as `together` reads it; `scores` are name → (validation, test)."
    row = dict(readout='own|label', about='', seeds=1, map=.5, micro_f1=.5, lower=0., upper=1.,
               behind=[None]*3, seconds=1.)
    rows = [row | dict(loss=n, baseline=n == 'tfidf_svm', val_macro_f1=v, val_micro_f1=v, macro_f1=t)
            for n, (v, t) in scores.items()]
    time = dict(budget=None, expected=1., spent=2., given_up=['a seed']*(k == 1))
    return dict(losses=[r for r in rows if not r['baseline']], baselines=[r for r in rows if r['baseline']], time=time,
                failed={}, history=[],
                facts=dict(test=20, train=60)) | more


def test_folds_become_one_result():
    from scipy import stats
    ds, v = read(texts(), text='text'), np.array([.5, .6, .55, .65])
    res = report.together(ds, [fold_result(k, dict(bce=(x, x), tfidf_svm=(x - .1, x - .1 + .01*k), reg=(.1, .1))
                                           | (dict(asl=(.9, .9)) if k else dict(hill=(.9, .9))))
                               for k, x in enumerate(v)])
    rows = {r['loss']: r for r in res['losses'] + res['baselines']}
    # asl lacks the first fold, hill has no other
    assert set(rows) == {'bce', 'reg', 'tfidf_svm'} and res['take'] == 'bce' and res['folds'] == 4
    half = stats.t.ppf(.975, 3)*((1/4 + 1/3)*v.var(ddof=1))**.5
    assert (rows['bce']['macro_f1'] == pytest.approx(v.mean()) and rows['bce']['upper']
            - v.mean() == pytest.approx(half, abs=1e-4))
    d = .1 - .01*np.arange(4)
    assert rows['tfidf_svm']['behind'] == pytest.approx([d.mean(),
                                                         *(d.mean()
                                                           + s*stats.t.ppf(.975, 3)*((1/4 + 1/3)*d.var(ddof=1))**.5
                                                           for s in (-1, 1))], abs=1e-4)
    assert res['time'] == dict(budget=0, expected=4., spent=8., given_up=['fold 2: a seed'])
    # .575 against .56: within a standard error
    noisy = [fold_result(k, dict(bce=(x, x), tfidf_svm=(.56, .5))) for k, x in enumerate(v)]
    assert report.together(ds, noisy)['take'] == 'tfidf_svm'


def test_compare_on_folds(tmp_path):
    res = c.compare(noisy(), ['bce', 'zlpr'], seeds=1, epochs=2, folds=3, text='text', out=tmp_path/'out', say=QUIET)
    parts = [json.loads((tmp_path/f'out/fold{k}/report.json').read_text()) for k in (1, 2, 3)]
    assert res == json.loads((tmp_path/'out/report.json').read_text()) and sum(p['facts']['test'] for p in parts) == 120
    of = [{report.model_name(r): r['macro_f1'] for r in p['losses'] + p['baselines']} for p in parts]
    assert {'best loss + best baseline', 'best loss + 2 best baselines'} < {r['loss'] for r in res['losses']}
    assert f"--loss {res['train']} " in (tmp_path/'out/report.html').read_text() and 'best' not in res['train']
    for r in res['losses'] + res['baselines']:
        assert r['macro_f1'] == pytest.approx(np.mean([o[r['loss']] for o in of]), abs=2e-5)
    page = (tmp_path/'out/report.html').read_text()
    assert ('means over 3 folds' in page and 'cover seeds and test instances' not in page and 'fold1 to fold3' in page
            and 'Each label' not in page)
    # nothing is trained again
    again = c.compare(noisy(), ['bce', 'zlpr'], seeds=1, epochs=2, folds=3, text='text', out=tmp_path/'out', say=QUIET)
    assert again['losses'] == res['losses']


@pytest.mark.parametrize('k, data, said', [(1, noisy, 'folds: expected a whole number of at least 2, got 1'),
    (200, noisy, 'folds: expected at most [0-9]+, the different instances of the most frequent label, got 200'),
    (3, lambda: noisy().assign(split=np.where(np.arange(120) < 90, 'train', 'test')),
     'folds: expected data without given splits, got some; split=False')])
def test_folds_that_cannot_be(tmp_path, k, data, said):
    with pytest.raises(ValueError, match=said):
        c.compare(data(), ['bce'], folds=k, text='text', out=tmp_path/'out', say=QUIET)
    assert not (tmp_path/'out').exists()


def test_one_threshold_for_all_labels_has_a_standard_error_too(tmp_path):
    c.compare(texts(), text='text', losses=['bce'], seeds=1, epochs=2, encoder='bag', thresholds='global',
              out=tmp_path/'g', say=lambda *_, **__: None)
    recs = [r for r in Store(tmp_path/'g'/'records').records(split='val') if r['readout'].endswith('|global')]
    of = {r['loss']: (r['loss'], r['readout']) for r in recs
          if {'macro_f1', 'micro_f1'} <= set(r.get('replicates') or {})}
    assert set(of) >= {'bce', 'tfidf_svm'} and report._standard_error(recs, of['bce'], of['tfidf_svm']) > 0


def test_runs_that_began_with_other_weights_are_not_mixed(tmp_path, monkeypatch):
    "The folder of a network holds other weights than before: its runs would be taken for new ones."
    from mlcl.encoders import tiny_roberta
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    tiny_roberta(tmp_path/'net', list(texts().text))
    def again():
        return c.compare(texts(), text='text', losses=['bce'], seeds=1, epochs=1, encoder=f"hf:{tmp_path/'net'}",
                         finetune=True, baselines=False, out=tmp_path/'c', say=lambda *_, **__: None)
    assert again()['take'] == again()['take'] == 'bce'
    tiny_roberta(tmp_path/'net', list(texts().text)) # drawn anew
    with pytest.raises(ValueError, match='encoder: expected the weights of hf:.*, got others, .*choose another '
                                         'folder with `out`'):
        again()


def test_a_head_at_one_half_is_judged_at_logit_zero():
    "Logits near zero that separate all labels beat a probe on noise."
    draw = np.random.default_rng(0)
    ys = {k: (draw.random((120, 4)) < .4).astype(np.uint8) for k in ('train', 'val', 'test')}
    outputs = {k: dict(features=draw.normal(size=(120, 5)).astype(np.float32), own=.6*y - np.float32(.3), proto=None,
                       projection=None) for k, y in ys.items()}
    name, _, cut = choices.choose_readout(outputs, ys, 'bce', .5)
    assert name == 'own@.5' and (cut == .5).all()
