"Sweeps for mlcl.stats: known answers, scipy as the reference, refusals."
import numpy as np
import pandas as pd
import pytest
from scipy import stats as ss

from mlcl.metrics import bootstrap, replicates, resample
from mlcl.stats import (_variances, _within, as_text, behind, effect, effects, friedman, leaderboard, mean_interval, paired, pooled, score_table,
                        verdict, wilcoxon)
from mlcl.study import pack, unpack


@pytest.mark.parametrize('n', [2, 3, 5, 30])
@pytest.mark.parametrize('level', [.5, .9, .95, .99])
def test_mean_interval_is_the_t_interval(n, level):
    v = np.random.default_rng(n).normal(.5, .1, n)
    ci = ss.ttest_1samp(v, 0).confidence_interval(level)
    assert mean_interval(v, level=level) == pytest.approx((v.mean(), ci.low, ci.high), abs=1e-12)


def test_mean_interval_known_answers():
    assert mean_interval([1., 1., 1.]) == (1., 1., 1.)
    z = ss.norm.ppf(.975)
    assert mean_interval([.7], .01) == pytest.approx((.7, .7 - .1*z, .7 + .1*z))
    assert mean_interval([.7, .7, .7], [.01, .02, .03]) == pytest.approx((.7, .7 - z*.02**.5, .7 + z*.02**.5))
    assert mean_interval([.6, .8], 0.) == pytest.approx(mean_interval([.6, .8]))
    v = np.array([.6, .7, .8])  # b = .01/3, w = .01/3: Satterthwaite's degrees of freedom are 8
    half = ss.t.ppf(.975, 8)*(.02/3)**.5
    assert mean_interval(v, .01/3) == pytest.approx((.7, .7 - half, .7 + half))


@pytest.mark.parametrize('call,message', [
    (lambda: mean_interval([.5]), 'values: '), (lambda: mean_interval([]), 'values: '), (lambda: mean_interval([[.5, .6]]), 'values: '),
    (lambda: mean_interval([.5, np.nan]), 'values: '), (lambda: mean_interval([.5, .6], -1.), 'within: '),
    (lambda: mean_interval([.5, .6], [.1]*3), 'within: '), (lambda: mean_interval([.5, .6], np.inf), 'within: '),
    (lambda: mean_interval([.5, .6], level=95), 'level: ')])
def test_mean_interval_refuses(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call()


def predictions(n=60, n_labels=5, n_seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, n_labels)) < .3).astype(np.uint8)
    flip = lambda share: [np.where(rng.random(y.shape) < share, 1 - y, y) for _ in range(n_seeds)]
    return y, flip(.1), flip(.2)


@pytest.mark.parametrize('metric', ['micro_f1', 'macro_f1', 'hamming', 'map', 'lrap'])
@pytest.mark.parametrize('method', ['bootstrap', 't'])
@pytest.mark.parametrize('n_seeds', [1, 2, 3, 5])
def test_paired(metric, method, n_seeds):
    y, a, b = predictions(n_seeds=n_seeds)
    r, back = paired(y, a, b, metric, method, n=200), paired(y, b, a, metric, method, n=200)
    once = np.ones((1, len(y)))
    want = [replicates(y, i, once, metric)[0] - replicates(y, j, once, metric)[0] for i, j in zip(a, b)]
    assert r['per_seed'] == pytest.approx(want, abs=1e-6) and r['mean'] == pytest.approx(np.mean(want), abs=1e-6)
    assert r['n_seeds'] == n_seeds and r['lo'] < r['mean'] < r['hi'] and r == paired(y, a, b, metric, method, n=200)
    assert [back['mean'], back['lo'], back['hi']] == pytest.approx([-r['mean'], -r['hi'], -r['lo']], abs=1e-9)


@pytest.mark.parametrize('method', ['bootstrap', 't'])
def test_paired_with_itself_is_zero(method):
    y, a, _ = predictions()
    r = paired(y, a, a, method=method, n=50)
    assert (r['mean'], r['lo'], r['hi'], r['per_seed']) == (0., 0., 0., [0., 0., 0.])


def test_paired_bootstrap_equals_the_loop():
    y, a, b = predictions(n=25)
    n, s, counts = 40, 3, resample(25, 40, 7)
    draws = np.random.default_rng([7, 1]).multinomial(s - 1, np.full(s, 1/s), size=n)
    values = []
    for c, d in zip(counts, draws):
        rows = np.repeat(np.arange(25), c.astype(int))
        f = lambda p: replicates(y[rows], p[rows], np.ones((1, 25)), 'macro_f1')[0]
        values.append(np.mean([f(a[i]) - f(b[i]) for i in np.repeat(np.arange(s), d)]))
    r = paired(y, a, b, method='bootstrap', n=n, seed=7)
    assert [r['lo'], r['hi']] == pytest.approx(2*r['mean'] - np.quantile(values, [.975, .025]), abs=1e-6)


def test_paired_one_seed_is_the_instance_bootstrap():
    y, a, _ = predictions(n_seeds=1)
    r = paired(y, a, [0*y], method='bootstrap', n=300, seed=4)  # a difference from zero: Macro-F1 of nothing is 0
    assert (r['lo'], r['hi']) == pytest.approx(bootstrap(y, a[0], n=300, seed=4), abs=1e-6)


@pytest.mark.parametrize('sign', [-1, 1])
def test_paired_sees_a_clear_difference(sign):
    y, a, b = predictions(n=400)
    r = paired(y, *((a, b) if sign > 0 else (b, a)), n=200)
    assert sign*r['lo'] > 0 and sign*r['hi'] > 0


@pytest.mark.parametrize('call,message', [
    (lambda y, a, b: paired(y, a, b[:2]), 'b: '), (lambda y, a, b: paired(y, [], []), 'b: '),
    (lambda y, a, b: paired(y, a, b, 'f1'), 'metric: '), (lambda y, a, b: paired(y, a, b, method='z'), 'method: '),
    (lambda y, a, b: paired(y, a, b, level=0), 'level: '), (lambda y, a, b: paired(y, [i[:, :2] for i in a], b), 'pred: ')])
def test_paired_refuses(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call(*predictions())


def record(dataset='yeast', loss='reg', seed=0, f1=.6, readout='probe', half=None, **more):
    m = dict(macro_f1=f1, map=f1 + .1) | (dict(macro_f1_lo=f1 - half, macro_f1_hi=f1 + half) if half is not None else {})
    return dict(id=f'{dataset}{loss}{seed}', run=str(seed), dataset=dataset, encoder='mlp', loss=loss, settings=dict(lr=1e-3), fraction=1.,
                seed=seed, readout=readout, checkpoint='last', split='test', metrics=m) | more


def test_leaderboard_known_answer():
    recs = [record(loss=l, seed=s, f1=f + .01*s) for l, f in dict(bce=.5, reg=.6).items() for s in range(3)]
    t = leaderboard(recs, 'macro_f1', 'probe')
    assert t.columns.tolist() == ['dataset', 'loss', 'mean', 'lower', 'upper', 'n_seeds']
    assert t.loss.tolist() == ['reg', 'bce'] and t.n_seeds.tolist() == [3, 3]
    half = ss.t.ppf(.975, 2)*.01/3**.5
    assert t[['mean', 'lower', 'upper']].to_numpy() == pytest.approx(np.array([[.61, .61 - half, .61 + half], [.51, .51 - half, .51 + half]]))


def test_leaderboard_pools_test_intervals():
    recs = [record(seed=s, f1=f, half=.04) for s, f in enumerate([.6, .62, .64])]
    t = leaderboard(recs, 'macro_f1', 'probe')
    want = mean_interval([.6, .62, .64], (.04/ss.norm.ppf(.975))**2)
    assert t[['mean', 'lower', 'upper']].to_numpy()[0] == pytest.approx(want)
    assert leaderboard(recs, 'map').lower[0] > t.lower[0]


def test_leaderboard_filters_and_rows():
    recs = [record(seed=s, readout=r, split=p, checkpoint=c, f1=.5 + .1*(r == 'probe') + .2*(p == 'val') + .05*(c == 'best') + .01*s)
            for s in range(2) for r in ('probe', 'own@.5') for p in ('val', 'test') for c in ('last', 'best')]
    recs.append(dict(recs[0], metrics=None, readout=None, split=None, error=dict(kind='E')))
    assert leaderboard(recs)['mean'].tolist() == pytest.approx([.605, .505])
    assert leaderboard(recs, readout='probe', split='val', checkpoint='best')['mean'].tolist() == pytest.approx([.855])


def test_leaderboard_order_and_text():
    recs = [record(d, l, s, f1=f + .001*s) for d, o in dict(b=0, a=.1).items() for l, f in dict(x=.2, y=.4).items() for s in range(2)]
    t = leaderboard(recs, readout='probe')
    assert t.dataset.tolist() == list('aabb') and t.loss.tolist() == list('yxyx')
    wide = as_text(t)
    assert wide.columns.tolist() == ['a', 'b'] and wide.loc['y', 'a'].startswith('0.401 [')
    lone = as_text(leaderboard(recs + [record('c', 'x')], readout='probe'))
    assert lone.loc['x', 'c'] == '0.600' and lone.loc['y', 'c'] == '–'


def test_leaderboard_one_seed():
    t = leaderboard([record()], readout='probe')
    assert t[['lower', 'upper']].isna().all(axis=None) and t.n_seeds[0] == 1
    t = leaderboard([record(half=.05)], readout='probe')
    assert (t.lower[0], t.upper[0]) == pytest.approx((.55, .65))


@pytest.mark.parametrize('field,value', [('encoder', 'cnn'), ('fraction', .1), ('settings', dict(lr=.1))])
def test_leaderboard_never_mixes(field, value):
    recs = [record(), record(seed=1), record(seed=2, **{field: value})]
    with pytest.raises(ValueError, match=f'^by: .*{field}'): leaderboard(recs)
    assert len(leaderboard(recs, by=('dataset', 'loss', field))) == 2


@pytest.mark.parametrize('call,message', [
    (lambda: leaderboard([record(), record()]), 'records: '), (lambda: leaderboard([]), 'records: '),
    (lambda: leaderboard([record()], readout='x'), 'records: '), (lambda: leaderboard([record()], 'f1'), 'metric: ')])
def test_leaderboard_refuses(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call()


def test_leaderboard_skips_missing_values():
    recs = [record(loss=l, seed=s) for l in 'ab' for s in range(2)]
    for r in recs[:2]: r['metrics']['macro_f1_tail'] = None
    for r in recs[2:]: r['metrics']['macro_f1_tail'] = .3
    t = leaderboard(recs, 'macro_f1_tail')
    assert isinstance(t, pd.DataFrame) and t.loss.tolist() == ['b']


@pytest.mark.parametrize('n_seeds', [3, 5])
@pytest.mark.parametrize('ratio', [.3, 1., 3.])
def test_pooled_interval_covers(n_seeds, ratio):
    rng = np.random.default_rng(n_seeds)
    values = rng.normal(size=(1000, 1)) + ratio*rng.normal(size=(1000, n_seeds))
    hits = [lo <= 0 <= hi for _, lo, hi in (mean_interval(v, 1.) for v in values)]
    assert .92 <= np.mean(hits) <= .98


@pytest.mark.parametrize('n_seeds', [2, 3, 6])
@pytest.mark.parametrize('shared,own', [(1., .2), (.5, 2.)])
def test_variance_of_the_instances_is_unbiased(n_seeds, shared, own):
    rng, n = np.random.default_rng(0), 40_000
    diff = rng.normal(0, shared**.5, (1, n)) + rng.normal(0, own**.5, (n_seeds, n))
    assert _variances(np.zeros(n_seeds), diff) == pytest.approx(shared, rel=.05)


def test_seeds_that_agree_by_chance_do_not_narrow_an_interval():
    "The whole variance is at least that of the means of the resamples; with seeds that differ nothing is added."
    rng = np.random.default_rng(0)
    diff = rng.normal(0, .01, (3, 1000))
    least = diff.mean(0).var(ddof=1)
    mean, lo, hi = mean_interval(np.full(3, .02), _within(np.full(3, .02), diff))
    assert (hi - lo)/2 == pytest.approx(1.96*least**.5, rel=1e-3)
    apart = np.array([-.03, 0, .03])
    assert _within(apart, diff) == _variances(apart, diff)


# ---- many data sets

def made(dataset='d', losses=dict(reg=.5, bce=.4, zlpr=.45), seeds=range(3), val=None, **more):
    "Records of both splits; `val` gives other validation scores."
    rng, res = np.random.default_rng(0), []
    noise = rng.normal(0, .01, 50)
    for loss, f1 in losses.items():
        for s in seeds:
            common = dict(dataset=dataset, loss=loss, seed=s, readout='probe1', checkpoint='last', encoder='mlp', fraction=1., settings={}) | more
            res += [dict(common, id=f'{dataset}{loss}{s}v', split='val', metrics=dict(macro_f1=(val or losses)[loss])),
                    dict(common, id=f'{dataset}{loss}{s}t', split='test', metrics=dict(macro_f1=f1 + .01*s),
                         replicates=dict(macro_f1=pack(f1 + .01*s + noise + rng.normal(0, .002, 50))))]
    return res


def test_the_rival_is_chosen_on_validation_data_alone():
    assert effect(made(), 'd', 'reg', ['bce', 'zlpr'])['b'] == 'zlpr'
    e = effect(made(val=dict(reg=.1, bce=.9, zlpr=.2)), 'd', 'reg', ['bce', 'zlpr'])
    assert e['b'] == 'bce' and e['mean'] == pytest.approx(.1) and e['lower'] < .1 < e['upper'] and len(e['ids']) == 6


def test_packed_replicates_give_the_same_interval():
    packed = made()
    plain = [r | (dict(replicates=dict(macro_f1=list(unpack(r['replicates']['macro_f1']))))
                  if 'replicates' in r else {}) for r in packed]
    assert effect(plain, 'd', 'reg', ['bce']) == effect(packed, 'd', 'reg', ['bce'])
    narrow, none = effect(packed, 'd', 'reg', ['bce']), effect([{k: v for k, v in r.items() if k != 'replicates'} for r in packed], 'd', 'reg', ['bce'])
    assert none['mean'] == narrow['mean'] and none['upper'] == pytest.approx(none['lower'], abs=1e-12)  # seeds alone, equal differences


def test_effect_refuses_mixed_settings():
    with pytest.raises(ValueError, match='settings'): effect(made() + made(settings=dict(lr=1), seeds=[7]), 'd', 'reg', ['bce'])
    with pytest.raises(ValueError, match='records: expected some of asl'): effect(made(), 'd', 'reg', ['asl'])


def test_effects_take_complete_data_sets_and_count_shared_documents_once():
    recs = made('a') + made('b', dict(reg=.3, bce=.35)) + made('aapd') + made('arxiv_cs54')
    assert set(effects(recs, 'reg', ['bce']).dataset) == {'a', 'b', 'aapd'}
    assert set(effects(recs, 'reg', ['bce', 'zlpr']).dataset) == {'a', 'aapd'}
    assert set(effects(recs, 'reg', ['bce'], ['b']).dataset) == {'b'}
    assert list(score_table(recs).index) == ['a', 'aapd'] and list(score_table(recs, losses=['bce', 'reg']).index) == ['a', 'aapd', 'b']


def test_pooled():
    t = pd.DataFrame(dict(mean=[.02, .03, .07], n_seeds=[5, 3, 5], ids=[['a', 'b'], ['c'], ['d']]))
    p, ci = pooled(t), ss.ttest_1samp(t['mean'], 0).confidence_interval(.95)
    assert [p['mean'], p['lower'], p['upper']] == pytest.approx([.04, ci.low, ci.high]) and (p['n_sets'], p['n_seeds'], p['n_records']) == (3, 3, 4)
    one = pooled(pd.DataFrame([effect(made(), 'd', 'reg', ['bce'])]))
    assert one['n_sets'] == 1 and one['lower'] == effect(made(), 'd', 'reg', ['bce'])['lower']
    with pytest.raises(ValueError, match='^table: expected'): pooled(t[:0])


@pytest.mark.parametrize('lower, upper, sign, said', [
    (.1, .2, 1, 'holds'), (-.2, -.1, 1, 'does not hold'), (-.1, .1, 1, 'undecided'), (0., .1, 1, 'undecided'), (-.1, 0., -1, 'undecided'),
    (.1, .2, -1, 'does not hold'), (-.2, -.1, -1, 'holds'), (np.nan, np.nan, 1, 'undecided')])
def test_verdict(lower, upper, sign, said):
    assert verdict(lower, upper, sign) == said
    with pytest.raises(ValueError, match='^sign: expected'): verdict(lower, upper, 0)


def test_behind_names_each_run_once():
    recs = [dict(id=f'{run}/{readout}/last/test') for run in ('b'*16, 'a'*16) for readout in ('probe', 'probe1')]
    html = behind(recs).data
    assert html.startswith('<details><summary>') and '2 runs' in html and f"<code>{'a'*8} {'b'*8}</code>" in html
    assert html == behind(r['id'] for r in recs).data
    with pytest.raises(ValueError, match='^records: expected'): behind([])


DEMSAR = pd.DataFrame([  # Demšar (2006), table 6; "voting" is tied in print and was ranked from more digits
    [.763, .768, .771, .798], [.599, .591, .590, .569], [.954, .971, .968, .967], [.628, .661, .654, .657], [.882, .888, .886, .898],
    [.936, .931, .916, .931], [.661, .668, .609, .685], [.583, .583, .563, .625], [.775, .838, .866, .875], [1., 1., 1., 1.],
    [.940, .962, .965, .962], [.619, .666, .614, .669], [.972, .981, .97501, .975], [.957, .978, .946, .970]], columns=list('abcd'))


def test_friedman_on_the_published_example():
    f = friedman(DEMSAR)
    assert f['ranks'][list('abcd')].tolist() == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert f['cd'] == pytest.approx(1.25, abs=5e-3) and friedman(DEMSAR, .1)['cd'] == pytest.approx(1.12, abs=5e-3)
    n, k, r = 14, 4, f['ranks'].to_numpy()  # the paper's statistic has no correction for ties
    assert 12*n/k/(k + 1)*((r**2).sum() - k*(k + 1)**2/4) == pytest.approx(9.28, abs=.01) and 9.28 < f['statistic'] < 10.5 and f['p'] < .05
    for i in 'abcd':
        for j in 'abcd': assert i == j or (f['pairs'].loc[i, j] < .05) == (abs(f['ranks'][i] - f['ranks'][j]) > f['cd'])


def test_friedman_by_hand():
    "Three losses in the same order on four sets: ranks 1, 2, 3; statistic 12·4/12·(14 − 12) = 8."
    f = friedman(pd.DataFrame(dict(x=[.3]*4, y=[.2]*4, z=[.1]*4)))
    assert f['ranks'].tolist() == [1., 2., 3.] and f['statistic'] == pytest.approx(8.) and f['p'] == pytest.approx(np.exp(-4))
    for t in (pd.DataFrame(dict(x=[.3], y=[.2], z=[.1])), pd.DataFrame(dict(x=[.3, .2], y=[.2, .1]))):
        with pytest.raises(ValueError, match='^table: expected'): friedman(t)


def test_wilcoxon():
    w = wilcoxon(DEMSAR, 'b')
    assert w.statistic['a'] == 12. and w.p['a'] < .05
    t = pd.DataFrame(dict(a=[.1, .2, .3, .4, .5, .6], b=0., c=[.2, .1, .5, .1, .9, .1], d=[.1]*6))
    w = wilcoxon(t, 'a')
    assert w.p['b'] == pytest.approx(2/64)
    order, m = w.p.sort_values().index, 3
    holm, top = {}, 0.
    for i, l in enumerate(order): holm[l] = top = max(top, min(1., (m - i)*w.p[l]))
    assert w.p_holm.to_dict() == pytest.approx(holm)
    with pytest.raises(ValueError, match='^table: expected'): wilcoxon(t, 'e')


def test_interval_of_a_metric_that_has_replicates_alone():
    "mAP has no interval of its own in a record: its resamples give the variance over test instances."
    map_ = .7 + .02*np.random.default_rng(0).standard_normal(200)
    one = record(replicates=dict(map=pack(map_)))
    t = leaderboard([one], 'map').iloc[0]
    assert abs((t.upper - t.lower)/2 - ss.norm.ppf(.975)*map_.std(ddof=1)) < 1e-3 and t['mean'] == one['metrics']['map']
    assert np.isnan(leaderboard([record()], 'map').iloc[0].upper)
